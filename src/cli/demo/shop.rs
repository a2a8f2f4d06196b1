//! The shop's days and its carriers': orders go behind tokens and come back, parcels are granted and asked for. INVARIANT: what is
//! counted here was seen on the wire, and compared with the file and not with anything the vault says.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tonic::Code;

use super::orders::Order;
use super::plan::{CARRIERS, Story};
use super::stage::Stage;
use super::wire::{Answer, get_delivery, is_exactly};
use crate::cli::Failure;
use crate::cli::client::{answer, plain_name, reason_name, to_wire};
use crate::domain::time::DAY;
use crate::rpc::proto::field_result::Value;
use crate::rpc::proto::{
    BatchDetokenizeRequest, DetokenizeResponse, Field, FieldResult, GrantShipmentRequest, Outcome, Purpose,
    TokenizeStreamRequest, batch_detokenize_item, tokenize_stream_response,
};

/// How many calls are under way at once.
pub const IN_FLIGHT: usize = 32;
/// The most that one batch may ask for.
const PAGE: usize = 256;
/// Longer than any delivery of the stories.
const GRANTED_FOR: i64 = 60 * DAY;

pub struct Shop<'a> {
    pub stage: &'a Stage,
    pub orders: &'a [Order],
    pub stories: &'a [Story],
    /// By the orders' places; none for one that the vault refused.
    pub tokens: Vec<Option<String>>,
    pub grants: Vec<Option<String>>,
    /// Orders that the vault refused, with its reasons.
    pub refused: Vec<String>,
    /// How many orders came back as they are in the file.
    pub equal: usize,
    pub seen: Seen,
    /// What a carrier is told of a number that never was.
    nothing: Option<Answer>,
}

/// What the carriers were answered.
#[derive(Default)]
pub struct Seen {
    pub asked: usize,
    /// Their own parcels' answers: exactly the address and the serial.
    pub own: usize,
    /// Other carriers' parcels: nothing, byte for byte.
    pub others: usize,
    /// Their own parcels', asked for again once signed for: nothing, byte for byte.
    pub signed: usize,
    /// Carriers that were answered anything else, ever.
    pub more: BTreeSet<&'static str>,
}

/// What a carrier should see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Right {
    Parcel,
    Nothing,
}

impl<'a> Shop<'a> {
    pub fn new(stage: &'a Stage, orders: &'a [Order], stories: &'a [Story]) -> Self {
        Self {
            stage,
            orders,
            stories,
            tokens: vec![None; orders.len()],
            grants: vec![None; orders.len()],
            refused: Vec::new(),
            equal: 0,
            seen: Seen::default(),
            nothing: None,
        }
    }

    /// One day: its orders go behind tokens, are read back, and their parcels are granted and asked for by everyone.
    pub fn sell(&mut self, day: i64) -> Result<(), Failure> {
        let placed = self.stories.iter().enumerate().filter(|(_, story)| story.placed == day).map(|(order, _)| order);
        let placed: Vec<usize> = placed.collect();
        self.tokenize(&placed)?;
        let stored: Vec<usize> = placed.into_iter().filter(|order| self.token(*order).is_some()).collect();
        self.read_back(&stored)?;
        self.grant(&stored)?;
        self.ask_for(&stored)
    }

    pub fn token(&self, order: usize) -> Option<&String> {
        self.tokens.get(order).and_then(Option::as_ref)
    }

    fn tokenize(&mut self, placed: &[usize]) -> Result<(), Failure> {
        let requests = placed.iter().filter_map(|order| {
            let item = self.orders.get(*order)?.request(format!("order-{order}"));
            Some(TokenizeStreamRequest { item: Some(item) })
        });
        let requests: Vec<_> = requests.collect();
        let mut vault = self.stage.tokens.clone();
        let results = self.stage.run(async {
            let results = answer(vault.tokenize_stream(stream::iter(requests))).await?;
            results.map_err(Failure::from).try_collect::<Vec<_>>().await
        })?;
        for (order, result) in placed.iter().zip(results) {
            match result.result {
                Some(tokenize_stream_response::Result::Done(done)) => put(&mut self.tokens, *order, done.token),
                Some(tokenize_stream_response::Result::Error(error)) => {
                    let (reason, field) = (reason_name(error.reason()), plain_name(&error.field));
                    self.refused.push(format!("order {}: {field}: {reason}", order + 1));
                }
                None => return Err(Failure::refused("the vault answered without a result")),
            }
        }
        Ok(())
    }

    fn read_back(&mut self, stored: &[usize]) -> Result<(), Failure> {
        let fields = [Field::RecipientName, Field::Address, Field::Phone, Field::Email];
        let read = self.read(stored, &fields)?;
        let equal = stored.iter().zip(read).filter(|(order, read)| {
            let order = self.orders.get(**order);
            order.zip(read.as_ref()).is_some_and(|(order, read)| is_the_files(order, &read.fields))
        });
        self.equal += equal.count();
        Ok(())
    }

    /// Reads fields of records for the customers' own accounts.
    pub fn read(&self, stored: &[usize], fields: &[Field]) -> Result<Vec<Option<DetokenizeResponse>>, Failure> {
        let mut vault = self.stage.tokens.clone();
        let mut read = Vec::with_capacity(stored.len());
        for page in stored.chunks(PAGE) {
            let request = BatchDetokenizeRequest {
                tokens: page.iter().filter_map(|order| self.token(*order).cloned()).collect(),
                fields: fields.iter().map(|field| i32::from(*field)).collect(),
                purpose: Purpose::SelfService.into(),
            };
            let items = self.stage.run(answer(vault.batch_detokenize(request)))?.items;
            read.extend(items.into_iter().map(|item| match item.result {
                Some(batch_detokenize_item::Result::Done(done)) => Some(done),
                Some(batch_detokenize_item::Result::Error(_)) | None => None,
            }));
        }
        Ok(read)
    }

    fn grant(&mut self, stored: &[usize]) -> Result<(), Failure> {
        let now = self.stage.now();
        let calls = stored.iter().filter_map(|order| {
            let story = self.stories.get(*order)?;
            let request = GrantShipmentRequest {
                idempotency_key: format!("parcel-{order}"),
                token: self.token(*order)?.clone(),
                serial: story.serial.clone(),
                carrier: CARRIERS.get(story.carrier)?.to_string(),
                not_before: Some(to_wire(now)),
                not_after: Some(to_wire(now.plus(GRANTED_FOR))),
                read_limit: 10,
                parcel: 0,
            };
            let mut vault = self.stage.lifecycle.clone();
            Some(async move { Ok::<_, Failure>((*order, answer(vault.grant_shipment(request)).await?.grant_id)) })
        });
        let granted = stream::iter(calls.collect::<Vec<_>>()).buffer_unordered(IN_FLIGHT).try_collect::<Vec<_>>();
        for (order, grant) in self.stage.run(granted)? {
            put(&mut self.grants, order, grant);
        }
        Ok(())
    }

    /// Every carrier asks for every one of these parcels.
    fn ask_for(&mut self, stored: &[usize]) -> Result<(), Failure> {
        let questions = stored.iter().flat_map(|order| (0..CARRIERS.len()).map(move |carrier| (*order, carrier)));
        let questions: Vec<_> = questions
            .filter_map(|(order, carrier)| {
                let own = self.stories.get(order)?.carrier == carrier;
                Some((order, carrier, if own { Right::Parcel } else { Right::Nothing }))
            })
            .collect();
        for (right, is_right) in self.ask(questions)? {
            self.seen.asked += 1;
            match right {
                Right::Parcel => self.seen.own += usize::from(is_right),
                Right::Nothing => self.seen.others += usize::from(is_right),
            }
        }
        Ok(())
    }

    /// Their own carriers ask again for parcels that were signed for.
    pub fn ask_again(&mut self, signed: &[usize]) -> Result<(), Failure> {
        let questions =
            signed.iter().filter_map(|order| Some((*order, self.stories.get(*order)?.carrier, Right::Nothing)));
        let answers = self.ask(questions.collect())?;
        self.seen.signed += answers.iter().filter(|(_, is_right)| *is_right).count();
        Ok(())
    }

    /// Asks, and judges the raw bytes of every answer.
    fn ask(&mut self, questions: Vec<(usize, usize, Right)>) -> Result<Vec<(Right, bool)>, Failure> {
        if self.nothing.is_none() {
            let Some(channel) = self.stage.carriers.first() else { return Ok(Vec::new()) };
            self.nothing = Some(self.stage.run(get_delivery(channel.clone(), "AA000000000"))?);
        }
        let calls = questions.into_iter().filter_map(|(order, carrier, right)| {
            let (channel, story) = (self.stage.carriers.get(carrier)?.clone(), self.stories.get(order)?);
            Some(async move { Ok::<_, Failure>((order, carrier, right, get_delivery(channel, &story.serial).await?)) })
        });
        let answers = stream::iter(calls.collect::<Vec<_>>()).buffer_unordered(IN_FLIGHT).try_collect::<Vec<_>>();
        let mut judged = Vec::new();
        for (order, carrier, right, answer) in self.stage.run(answers)? {
            let is_right = match (&answer, right) {
                (Answer::Message(reply), Right::Parcel) => {
                    let (order, story) = (self.orders.get(order), self.stories.get(order));
                    order.zip(story).is_some_and(|(order, story)| is_exactly(reply, &order.address, &story.serial))
                }
                (Answer::Refusal(Code::NotFound, _), Right::Nothing) => Some(&answer) == self.nothing.as_ref(),
                (Answer::Message(_) | Answer::Refusal(..), Right::Parcel | Right::Nothing) => false,
            };
            if !is_right {
                self.seen.more.extend(CARRIERS.get(carrier));
            }
            judged.push((right, is_right));
        }
        Ok(judged)
    }
}

fn put(places: &mut [Option<String>], order: usize, text: String) {
    if let Some(place) = places.get_mut(order) {
        *place = Some(text);
    }
}

/// Name, address, phone and email as the file has them; of what it does not have, nothing.
fn is_the_files(order: &Order, read: &[FieldResult]) -> bool {
    let text = |text: Option<&String>| match text {
        Some(text) => (Outcome::Granted, Some(Value::Text(text.clone()))),
        None => (Outcome::NotSet, None),
    };
    let expected = [
        text(Some(&order.name)),
        (Outcome::Granted, Some(Value::Address(order.address.on_the_wire()))),
        text(order.phone_e164().as_ref()),
        text(order.email.as_ref()),
    ];
    read.iter().map(|field| (field.outcome(), field.value.clone())).eq(expected)
}
