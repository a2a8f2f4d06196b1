//! The drill's shop: an account for every customer of the file, an order with a parcel for every fourth. INVARIANT: what was erased,
//! corrected and kept is known here from the places in the file alone.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::cli::Failure;
use crate::cli::client::{answer, to_wire};
use crate::cli::demo::orders::Order;
use crate::cli::demo::plan::CARRIERS;
use crate::cli::demo::stage::Stage;
use crate::domain::field::{Email, Phone};
use crate::domain::time::DAY;
use crate::domain::token::{Token, TokenDigest};
use crate::domain::vocabulary::{Class, Field as OfField};
use crate::rpc::proto::field_value::Value;
use crate::rpc::proto::{
    CorrectRequest, DetokenizeRequest, EraseReason, EraseRequest, Field, FieldValue, GrantShipmentRequest, Outcome,
    Purpose, TokenizeRequest,
};

const IN_FLIGHT: usize = 32;
/// Every so many-th customer has an order as well.
const ORDERS: usize = 4;
/// Of those that are kept, every so many-th is corrected.
const CORRECTED: usize = 10;

pub struct Shop<'a> {
    orders: &'a [Order],
    /// Whose each line is: the number of lines before the customer's first.
    customers: Vec<usize>,
    /// By the places in the file; an order's follow all accounts'.
    tokens: RefCell<Vec<String>>,
    /// Customers that came while the backup was made.
    others: RefCell<usize>,
}

/// What the vault answers for a phone, by what became of the record.
#[derive(Default)]
pub struct Outcomes {
    pub erased: usize,
    kept: BTreeMap<Outcome, usize>,
    corrected: BTreeMap<Outcome, usize>,
}

impl Outcomes {
    pub fn kept_as(&self, outcome: Outcome) -> usize {
        self.kept.get(&outcome).copied().unwrap_or(0)
    }

    pub fn corrected_as(&self, outcome: Outcome) -> usize {
        self.corrected.get(&outcome).copied().unwrap_or(0)
    }
}

impl<'a> Shop<'a> {
    pub fn new(orders: &'a [Order]) -> Self {
        let mut first = BTreeMap::new();
        let number = |(n, order): (usize, &'a Order)| *first.entry(order.customer.as_str()).or_insert(n);
        let customers = orders.iter().enumerate().map(number).collect();
        Self { orders, customers, tokens: RefCell::default(), others: RefCell::default() }
    }

    /// Stores an account for everybody, an order with a parcel for some.
    pub fn store(&self, stage: &Stage) -> Result<(), Failure> {
        let accounts = self.orders.iter().enumerate().map(|(n, order)| order.account_request(format!("account-{n}")));
        let orders = self.with_orders().map(|(n, order)| order.request(format!("order-{n}")));
        let tokens = tokenized(stage, accounts.chain(orders).collect())?;
        let now = stage.now();
        for ((n, _), token) in self.with_orders().zip(tokens.iter().skip(self.orders.len())) {
            let request = GrantShipmentRequest {
                idempotency_key: format!("grant-{n}"),
                token: token.clone(),
                serial: serial(n),
                carrier: CARRIERS.first().copied().unwrap_or_default().to_owned(),
                not_before: Some(to_wire(now)),
                not_after: Some(to_wire(now.plus(30 * DAY))),
                read_limit: 3,
                parcel: 0,
            };
            let mut lifecycle = stage.lifecycle.clone();
            stage.run(answer(lifecycle.grant_shipment(request)))?;
        }
        self.tokens.replace(tokens);
        Ok(())
    }

    /// One that comes while the backup is made, and is nobody's in the file.
    pub fn store_one_more(&self, stage: &Stage, n: usize) -> Result<(), Failure> {
        let Some(order) = self.orders.first() else { return Ok(()) };
        let request =
            TokenizeRequest { subject: format!("meanwhile-{n}"), ..order.account_request(format!("meanwhile-{n}")) };
        *self.others.borrow_mut() += 1;
        tokenized(stage, vec![request]).map(drop)
    }

    pub fn erase_every_other(&self, stage: &Stage) -> Result<(), Failure> {
        let calls = self.places(Self::is_erased).into_iter().map(|(n, token)| {
            let mut tokens = stage.tokens.clone();
            let reason = EraseReason::SubjectRequest.into();
            let request = EraseRequest { idempotency_key: format!("erase-{n}"), token, reason };
            async move { answer(tokens.erase(request)).await.map(drop) }
        });
        stage.run(stream::iter(calls).buffer_unordered(IN_FLIGHT).try_collect())
    }

    /// Another phone than before.
    pub fn correct_some(&self, stage: &Stage) -> Result<(), Failure> {
        for (n, token) in self.places(Self::is_corrected) {
            let phone = FieldValue { field: Field::Phone.into(), value: Some(Value::Text(format!("+49302{n:07}"))) };
            let (fields, clear) = (vec![phone], Vec::new());
            let request =
                CorrectRequest { idempotency_key: format!("correct-{n}"), token, if_revision: 1, fields, clear };
            let mut tokens = stage.tokens.clone();
            stage.run(answer(tokens.correct(request)))?;
        }
        Ok(())
    }

    /// What every record's phone is answered with.
    pub fn outcomes(&self, stage: &Stage) -> Result<Outcomes, Failure> {
        let calls = self.places(|_, _| true).into_iter().map(|(n, token)| {
            let mut tokens = stage.tokens.clone();
            let (fields, purpose) = (vec![Field::Phone.into()], Purpose::SelfService.into());
            async move {
                let read = answer(tokens.detokenize(DetokenizeRequest { token, fields, purpose })).await?;
                Ok::<_, Failure>((n, read.fields.first().map(|field| field.outcome())))
            }
        });
        let read: Vec<_> = stage.run(stream::iter(calls).buffer_unordered(IN_FLIGHT).try_collect())?;
        let mut outcomes = Outcomes::default();
        for (n, outcome) in read {
            match outcome {
                Some(Outcome::Erased) if self.is_erased(n) => outcomes.erased += 1,
                Some(outcome) if self.is_corrected(n) => *outcomes.corrected.entry(outcome).or_default() += 1,
                Some(outcome) if !self.is_erased(n) => *outcomes.kept.entry(outcome).or_default() += 1,
                _ => {}
            }
        }
        Ok(outcomes)
    }

    pub fn records(&self) -> usize {
        self.tokens.borrow().len()
    }

    /// All that the vault was given of them.
    pub fn values(&self) -> usize {
        let of = |order: &Order| order.stored_values().count();
        let orders: usize = self.with_orders().map(|(_, order)| of(order) + 1).sum();
        self.orders.iter().map(of).sum::<usize>() + orders
    }

    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let texts: BTreeSet<&str> = self.orders.iter().flat_map(|order| order.stored_values()).collect();
        texts.into_iter()
    }

    pub fn erased(&self) -> usize {
        self.places(Self::is_erased).len()
    }

    pub fn corrected(&self) -> usize {
        self.places(Self::is_corrected).len()
    }

    pub fn kept(&self) -> usize {
        self.records() - self.erased()
    }

    /// Those kept whose phone is as it was, and is there.
    pub fn kept_untouched(&self) -> usize {
        let has_phone = |n: usize| self.order(n).is_some_and(|order| order.phone.is_some());
        self.places(|shop, n| !shop.is_erased(n) && !shop.is_corrected(n) && has_phone(n)).len()
    }

    /// How many of them are among the opened records.
    pub fn of_ours(&self, stage: &Stage, opened: &BTreeSet<TokenDigest>) -> usize {
        self.among(stage, opened, |_, _| true)
    }

    pub fn erased_of(&self, stage: &Stage, opened: &BTreeSet<TokenDigest>) -> usize {
        self.among(stage, opened, Self::is_erased)
    }

    pub fn corrected_of(&self, stage: &Stage, opened: &BTreeSet<TokenDigest>) -> usize {
        self.among(stage, opened, Self::is_corrected)
    }

    pub fn kept_of(&self, stage: &Stage, opened: &BTreeSet<TokenDigest>) -> usize {
        self.among(stage, opened, |shop, n| !shop.is_erased(n))
    }

    /// What the indexes are of, as somebody guesses who has the shop's own list of customers.
    pub fn guesses(&self) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
        let bad = |_| Failure::local("a value of the file is none that the vault takes");
        let of = |field: OfField, value: &[u8]| ("find", [&[Class::Account.code(), field.code()], value].concat());
        let mut guesses = Vec::new();
        for order in self.orders {
            guesses.push(("customer-reference", order.customer.as_bytes().to_vec()));
            if let Some(email) = &order.email {
                let email = Email::parse("email", email.clone()).map_err(bad)?;
                guesses.push(of(OfField::Email, email.normalized().as_bytes()));
            }
            if let Some(phone) = &order.phone {
                let phone = Phone::parse("phone", phone.clone()).map_err(bad)?;
                guesses.push(of(OfField::Phone, phone.expose().as_bytes()));
            }
        }
        let carrier = CARRIERS.first().copied().unwrap_or_default().as_bytes();
        guesses.extend(self.with_orders().map(|(n, _)| ("serial", [carrier, &[0], serial(n).as_bytes()].concat())));
        for n in 0..*self.others.borrow() {
            guesses.push(("customer-reference", format!("meanwhile-{n}").into_bytes()));
        }
        Ok(guesses)
    }

    fn with_orders(&self) -> impl Iterator<Item = (usize, &Order)> {
        self.orders.iter().enumerate().step_by(ORDERS)
    }

    fn order(&self, place: usize) -> Option<&Order> {
        self.orders.get(self.place_of_account(place))
    }

    /// Where the same line's account is.
    fn place_of_account(&self, place: usize) -> usize {
        place.checked_sub(self.orders.len()).map_or(place, |n| n * ORDERS)
    }

    /// Every other customer, with all that is of them: a kept record keeps its customer's reference.
    fn is_erased(&self, place: usize) -> bool {
        self.customers.get(self.place_of_account(place)).is_some_and(|customer| customer % 2 == 0)
    }

    fn is_corrected(&self, place: usize) -> bool {
        let is_chosen = place < self.orders.len() && place % CORRECTED == 1 && !self.is_erased(place);
        is_chosen && self.order(place).is_some_and(|order| order.phone.is_some())
    }

    /// The records that it is true of, with their tokens.
    fn places(&self, is_so: impl Fn(&Self, usize) -> bool) -> Vec<(usize, String)> {
        let tokens = self.tokens.borrow();
        tokens.iter().enumerate().filter(|(n, _)| is_so(self, *n)).map(|(n, token)| (n, token.clone())).collect()
    }

    fn among(&self, stage: &Stage, opened: &BTreeSet<TokenDigest>, is_so: impl Fn(&Self, usize) -> bool) -> usize {
        let digest = |token: &str| Token::parse(token).ok().map(|token| token.digest(&stage.tenant));
        let ours = self.places(is_so);
        ours.iter().filter(|(_, token)| digest(token).is_some_and(|digest| opened.contains(&digest))).count()
    }
}

fn serial(n: usize) -> String {
    format!("SW{n:09}")
}

/// Stores them side by side; answers the tokens in order.
fn tokenized(stage: &Stage, requests: Vec<TokenizeRequest>) -> Result<Vec<String>, Failure> {
    let calls = requests.into_iter().map(|request| {
        let mut tokens = stage.tokens.clone();
        async move { answer(tokens.tokenize(request)).await.map(|done| done.token) }
    });
    stage.run(stream::iter(calls).buffered(IN_FLIGHT).try_collect())
}
