//! Some weeks of a shop's life at random, and a model of it: who was shown what of whom and when, told by the replies alone.

use std::collections::{BTreeMap, BTreeSet};

use strongroom::crypto::entropy::{SeededEntropy, array};
use strongroom::domain::caller::Role;
use strongroom::domain::time::{Clock as _, DAY, HOUR, SECOND, Timestamp};
use strongroom::domain::token::Token;
use strongroom::rpc::proto::delivery_service_client::DeliveryServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    DetokenizeRequest, EraseRequest, Field, GetDeliveryRequest, Outcome, Purpose, TokenizeRequest,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::common::{House, order};

pub type By = (Role, &'static str);

/// Readers by token, each with the purposes that open something of an order, and one that does not.
const READERS: [(By, &[Purpose]); 5] = [
    (
        (Role::Shop, "backend"),
        &[Purpose::Fulfilment, Purpose::Notification, Purpose::SelfService, Purpose::IdentityCheck, Purpose::Delivery],
    ),
    ((Role::Warehouse, "packing"), &[Purpose::Fulfilment, Purpose::Refund]),
    ((Role::CustomerService, "desk"), &[Purpose::IdentityCheck, Purpose::AfterSales]),
    ((Role::Finance, "desk"), &[Purpose::Refund, Purpose::Fulfilment]),
    ((Role::PrivacyOfficer, "office"), &[Purpose::SubjectRequest, Purpose::Delivery]),
];
pub const CARRIERS: [By; 2] = [(Role::Carrier, "swift"), (Role::Carrier, "parcelo")];
const FIELDS: [Field; 6] =
    [Field::RecipientName, Field::Address, Field::Phone, Field::Email, Field::PaymentAccount, Field::Note];

/// All who act in the story.
pub fn actors() -> Vec<By> {
    READERS.iter().map(|(by, _)| *by).chain(CARRIERS).collect()
}

pub struct Subject {
    /// Of its living records, oldest first.
    pub tokens: Vec<String>,
}

/// A request that was answered with outcomes.
#[derive(Clone, PartialEq, Debug)]
pub struct Read {
    pub at: Timestamp,
    pub by: By,
    pub subject: usize,
    pub action: &'static str,
    pub outcomes: Vec<(Field, Outcome)>,
}

impl Read {
    pub fn shown(&self) -> impl Iterator<Item = (Field, Outcome)> + '_ {
        self.outcomes.iter().copied().filter(|(_, outcome)| matches!(outcome, Outcome::Granted | Outcome::Masked))
    }
}

/// A request that was refused, by what the log must call it.
#[derive(Clone, PartialEq, Debug)]
pub struct Refusal {
    pub at: Timestamp,
    pub by: By,
    /// Where the refusal is about a subject.
    pub subject: Option<usize>,
    pub action: &'static str,
    pub code: &'static str,
}

/// A parcel granted for 30 days and 10 reads.
#[derive(Clone)]
struct Parcel {
    serial: String,
    carrier: By,
    subject: usize,
    token: String,
    until: Timestamp,
    reads: usize,
}

pub struct Story {
    pub house: House,
    channels: BTreeMap<By, Channel>,
    dice: SeededEntropy,
    pub subjects: Vec<Subject>,
    pub reads: Vec<Read>,
    pub refusals: Vec<Refusal>,
    /// Requests that were answered, outcomes or not.
    pub answered: Vec<(Timestamp, By)>,
    parcels: Vec<Parcel>,
    orders: usize,
    granted: usize,
}

impl Story {
    pub fn begin(house: House, seed: u64) -> Self {
        let channels = actors().into_iter().map(|by| (by, house.channel(by.0, by.1))).collect();
        let dice = SeededEntropy::new(seed);
        let (subjects, reads, refusals, answered) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { house, channels, dice, subjects, reads, refusals, answered, parcels: Vec::new(), orders: 0, granted: 0 }
    }

    pub fn roll(&self, sides: usize) -> usize {
        (u64::from_le_bytes(array(&self.dice)) % sides as u64) as usize
    }

    fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }

    pub fn now(&self) -> Timestamp {
        self.house.clock.now()
    }

    fn answers(&mut self, by: By) {
        let now = self.now();
        self.answered.push((now, by));
    }

    fn tokens(&self, by: By) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.channels[&by].clone())
    }

    /// One step: time passes, something happens.
    pub fn step(&mut self) {
        self.house.clock.advance(SECOND + (self.roll(5 * 3_600) as i64) * SECOND);
        match self.roll(100) {
            _ if self.subjects.len() < 4 => self.order(),
            0..12 => self.order(),
            12..16 => self.erase(),
            16..28 => self.grant(),
            28..45 => self.deliver(),
            45..49 => self.read_nothing(),
            _ => self.read(),
        }
    }

    /// A record of a new customer or of an old one.
    fn order(&mut self) {
        self.orders += 1;
        let subject = self.roll(self.subjects.len() + 2).min(self.subjects.len());
        let mut request: TokenizeRequest = order(self.orders);
        // An erased customer who orders again is a new subject to the vault, and to us.
        request.subject = match self.subjects.get(subject) {
            Some(known) if known.tokens.is_empty() => return,
            _ => format!("customer-{subject}@shop.example"),
        };
        request.fields.truncate(2 + self.roll(4));
        let by = (Role::Shop, "backend");
        let mut tokens = self.tokens(by);
        let token = self.house.run(tokens.tokenize(request)).unwrap().into_inner().token;
        self.answers(by);
        match self.subjects.get_mut(subject) {
            Some(known) => known.tokens.push(token),
            None => self.subjects.push(Subject { tokens: vec![token] }),
        }
    }

    fn a_record(&self) -> Option<(usize, String)> {
        let living: Vec<_> =
            self.subjects.iter().enumerate().filter(|(_, subject)| !subject.tokens.is_empty()).collect();
        let (number, subject) = living.get(self.roll(living.len().max(1)))?;
        Some((*number, subject.tokens[self.roll(subject.tokens.len())].clone()))
    }

    fn erase(&mut self) {
        let Some((subject, token)) = self.a_record() else { return };
        let idempotency_key = format!("erase-{token}");
        let by = (Role::Shop, "backend");
        let mut tokens = self.tokens(by);
        self.house.run(tokens.erase(EraseRequest { idempotency_key, token: token.clone(), reason: 1 })).unwrap();
        self.answers(by);
        self.subjects[subject].tokens.retain(|living| *living != token);
        self.parcels.retain(|parcel| parcel.token != token);
    }

    fn grant(&mut self) {
        let Some((subject, token)) = self.a_record() else { return };
        let carrier = self.pick(&CARRIERS);
        self.granted += 1;
        let serial = match carrier.1 {
            "swift" => format!("SW{:09}", self.granted),
            _ => format!("PC-{:016}", self.granted),
        };
        self.house.grant(&token, &serial, carrier.1);
        self.answers((Role::Shop, "backend"));
        let until = self.now().plus(30 * DAY);
        self.parcels.push(Parcel { serial, carrier, subject, token, until, reads: 0 });
    }

    /// A carrier reads a parcel of its own, or tries another's.
    fn deliver(&mut self) {
        let number = self.roll(self.parcels.len().max(1));
        let Some(Parcel { serial, carrier, subject, until, reads, .. }) = self.parcels.get(number).cloned() else {
            return;
        };
        let by = self.pick(&CARRIERS);
        let mut vault = DeliveryServiceClient::new(self.channels[&by].clone());
        let at = self.now();
        match self.house.run(vault.get_delivery(GetDeliveryRequest { serial })) {
            Ok(_) => {
                assert!(by == carrier && at < until && reads < 10);
                self.parcels[number].reads += 1;
                let outcomes = vec![(Field::Address, Outcome::Granted)];
                self.reads.push(Read { at, by, subject, action: "get_delivery", outcomes });
                self.answers(by);
            }
            Err(status) => {
                let (code, subject) = match status.code() {
                    // A serial that does not fit the carrier's own pattern is not even looked for.
                    Code::InvalidArgument => ("invalid", None),
                    _ if by != carrier => ("unknown", None),
                    _ if at >= until => ("outside_window", Some(subject)),
                    _ => ("read_limit", Some(subject)),
                };
                self.refusals.push(Refusal { at, by, subject, action: "get_delivery", code });
            }
        }
    }

    fn read(&mut self) {
        let Some((subject, token)) = self.a_record() else { return };
        let (by, purposes) = self.pick(&READERS);
        let purpose = self.pick(purposes);
        let mut fields: Vec<Field> = FIELDS.into_iter().filter(|_| self.roll(2) == 0).collect();
        if fields.is_empty() {
            fields.push(Field::Address);
        }
        let wire = fields.iter().map(|field| (*field).into()).collect();
        let mut tokens = self.tokens(by);
        let at = self.now();
        let request = DetokenizeRequest { token, fields: wire, purpose: purpose.into() };
        match self.house.run(tokens.detokenize(request)) {
            Ok(reply) => {
                let reply = reply.into_inner();
                let outcomes = reply.fields.iter().map(|one| (one.field(), one.outcome())).collect();
                self.reads.push(Read { at, by, subject, action: "detokenize", outcomes });
                self.answers(by);
            }
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound);
                let subject = Some(subject);
                self.refusals.push(Refusal { at, by, subject, action: "detokenize", code: "forbidden" });
            }
        }
    }

    /// A token that leads nowhere, or none at all.
    fn read_nothing(&mut self) {
        let (by, purposes) = self.pick(&READERS);
        let (token, code) = match self.roll(2) {
            0 => (Token::from_bytes(array(&self.dice)).to_text(), "unknown"),
            _ => ("srt1".to_owned(), "invalid"),
        };
        let mut tokens = self.tokens(by);
        let at = self.now();
        let request =
            DetokenizeRequest { token, fields: vec![Field::Address.into()], purpose: self.pick(purposes).into() };
        self.house.run(tokens.detokenize(request)).unwrap_err();
        self.refusals.push(Refusal { at, by, subject: None, action: "detokenize", code });
    }

    /// The instants of the story's beginning and end, and some in between, on and off the hour.
    pub fn some_periods(&self) -> Vec<(Timestamp, Timestamp)> {
        let (begin, end) = (crate::common::START, self.now().plus(SECOND));
        let at = |_| {
            let within = self.roll(usize::try_from(end.since(begin) / SECOND).unwrap());
            begin.plus(within as i64 * SECOND)
        };
        let mut periods = vec![(begin.plus(-HOUR), end)];
        for number in 0..3 {
            let (a, b) = (at(number), at(number));
            periods.push((a.min(b), a.max(b).plus(SECOND)));
        }
        // From one request up to, and without, another.
        if let (Some(first), Some(last)) = (self.reads.get(self.reads.len() / 3), self.reads.last()) {
            periods.push((first.at, last.at.max(first.at.plus(1))));
        }
        periods
    }

    /// Subject and day of all that a caller was shown of subjects that are gone.
    pub fn gone_days(&self, reads: &[&Read]) -> usize {
        let gone = reads.iter().filter(|read| self.subjects[read.subject].tokens.is_empty());
        gone.map(|read| (read.subject, read.at.utc_day())).collect::<BTreeSet<_>>().len()
    }
}
