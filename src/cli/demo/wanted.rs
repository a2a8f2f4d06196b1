//! The control of the theft: an account in use and an order of the last day. INVARIANT: both are stored, and readable for whom
//! they are meant for, when the thief comes; an attack that does not open them proves nothing about the rest.

use super::orders::Order;
use super::plan::CARRIERS;
use super::stage::Stage;
use crate::cli::Failure;
use crate::cli::client::{answer, to_wire};
use crate::domain::time::DAY;
use crate::rpc::proto::{
    DetokenizeRequest, EventKind, Field, GrantShipmentRequest, Outcome, Purpose, ReportEventRequest,
};

#[derive(Default)]
pub struct StillWanted {
    pub tokens: Vec<String>,
}

impl StillWanted {
    /// Some weeks before the end: an account comes, and is in use.
    pub fn open_account(&mut self, stage: &Stage, people: &[Order]) -> Result<(), Failure> {
        let Some(person) = people.first() else { return Ok(()) };
        let request = person.account_request("control-account".to_owned());
        let token = stage.run(answer(stage.tokens.clone().tokenize(request)))?.token;
        let event = ReportEventRequest {
            idempotency_key: "control-active".to_owned(),
            token: token.clone(),
            kind: EventKind::AccountActive.into(),
            ordinal: 0,
            occurred_at: Some(to_wire(stage.now())),
        };
        stage.run(answer(stage.lifecycle.clone().report_event(event)))?;
        self.tokens.push(token);
        Ok(())
    }

    /// On the last day: an order is placed, and its parcel granted.
    pub fn place_order(&mut self, stage: &Stage, people: &[Order]) -> Result<(), Failure> {
        let Some(person) = people.last() else { return Ok(()) };
        let request = person.request("control-order".to_owned());
        let token = stage.run(answer(stage.tokens.clone().tokenize(request)))?.token;
        let [carrier, ..] = CARRIERS;
        let grant = GrantShipmentRequest {
            idempotency_key: "control-parcel".to_owned(),
            token: token.clone(),
            serial: "ZZ000000000".to_owned(),
            carrier: carrier.to_owned(),
            not_before: Some(to_wire(stage.now())),
            not_after: Some(to_wire(stage.now().plus(30 * DAY))),
            read_limit: 10,
            parcel: 0,
        };
        stage.run(answer(stage.lifecycle.clone().grant_shipment(grant)))?;
        self.tokens.push(token);
        Ok(())
    }

    pub fn are_readable(&self, stage: &Stage) -> Result<bool, Failure> {
        for token in &self.tokens {
            let (fields, purpose) = (vec![Field::Email.into()], Purpose::SelfService.into());
            let request = DetokenizeRequest { token: token.clone(), fields, purpose };
            let reply = stage.run(answer(stage.tokens.clone().detokenize(request)))?;
            if !reply.fields.iter().map(|field| field.outcome()).eq([Outcome::Granted]) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
