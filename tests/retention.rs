//! Retention through the whole vault, over the wire: pieces that go before their record, what a carrier gets where a policy says
//! so, why something is due, and a policy that shortens something.
//!
//! Planted faults: a piece that is over is released all the same; a record goes on with what is over of it; a shortening takes
//! force by one person's word.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;
#[cfg(feature = "planted")]
#[path = "common/planted.rs"]
mod planted;
#[path = "common/people.rs"]
mod people;
#[path = "retention/propose.rs"]
mod propose;
#[path = "retention/stages.rs"]
mod stages;

use common::House;
use strongroom::policy::retention::Policy;
use strongroom::rpc::proto::field_result::Value;
use strongroom::rpc::proto::{
    CorrectRequest, DetokenizeRequest, Field, FieldValue, GetDeliveryRequest, Outcome, Purpose,
};
use tonic::Status;

/// Phone and street first, the city to the end.
const STAGED: &str = r#"
id = "staged"
zone = "UTC"

[class.order]
fields = ["recipient_name", "address", "phone", "email", "payment_account"]
action = "desensitize"
wait_for = ["refund"]
# Section 1: the shop's own sixty days.
after.delivered = "P60D"
cap = "P1Y"

[class.order.field.phone]
wait_for = ["refund"]
# Section 2: nobody rings after a fortnight.
after.delivered = "P14D"

[class.order.field.address_lines]
# Section 3: the street goes a month after delivery.
after.delivered = "P30D"
"#;

fn staged() -> House {
    House::under(Policy::parse(STAGED).unwrap())
}

fn read(house: &House, token: &str, fields: &[Field]) -> Vec<(Outcome, Option<Value>)> {
    let request = DetokenizeRequest {
        token: token.to_owned(),
        fields: fields.iter().map(|field| (*field).into()).collect(),
        purpose: Purpose::Fulfilment.into(),
    };
    let mut tokens = house.tokens();
    let reply = house.run(tokens.detokenize(request)).unwrap().into_inner();
    reply.fields.into_iter().map(|one| (one.outcome(), one.value)).collect()
}

fn outcome(house: &House, token: &str, field: Field) -> Outcome {
    read(house, token, &[field])[0].0
}

fn address(house: &House, token: &str) -> strongroom::rpc::proto::Address {
    match read(house, token, &[Field::Address]).remove(0) {
        (Outcome::Granted, Some(Value::Address(address))) => address,
        other => panic!("{:?}", other.0),
    }
}

fn correct(house: &House, token: &str, revision: u32, fields: Vec<FieldValue>) -> Result<u32, Status> {
    let request = CorrectRequest {
        idempotency_key: format!("correct-{revision}-{}", fields.len()),
        token: token.to_owned(),
        if_revision: revision,
        fields,
        clear: Vec::new(),
    };
    let mut tokens = house.tokens();
    house.run(tokens.correct(request)).map(|reply| reply.into_inner().revision)
}

fn deliver(house: &House, serial: &str) -> Result<strongroom::rpc::proto::GetDeliveryResponse, Status> {
    let mut carrier = house.carrier("swift");
    house.run(carrier.get_delivery(GetDeliveryRequest { serial: serial.to_owned() })).map(tonic::Response::into_inner)
}

#[cfg(feature = "planted")]
#[test]
fn planted_stages_that_are_not_kept_to_turn_these_tests_red() {
    for (fault, test) in [
        ("stage-readable", "stages::a_phone_goes_first_and_then_the_street_and_the_city_stays_to_the_end"),
        ("stage-kept", "stages::nothing_of_what_went_is_left_in_any_file"),
        ("due-early", "stages::a_phone_goes_first_and_then_the_street_and_the_city_stays_to_the_end"),
        ("shortening-unwatched", "propose::a_policy_that_shortens_something_waits_for_a_second_person"),
    ] {
        let (passed, printed) = planted::with_fault(fault, test);
        assert!(!passed && printed.contains("panicked"), "{fault}: {printed}");
    }
}
