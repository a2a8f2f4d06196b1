//! A record's life through the whole vault, over the wire: tokens, outcomes, grants, events, corrections, the end.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use common::{House, order, text, wire_time};
use strongroom::domain::caller::Role;
use strongroom::domain::time::{Clock, DAY, MINUTE};
use strongroom::rpc::proto::field_result::Value;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    ConfirmDeliveryRequest, CorrectRequest, DescribeRequest, DetokenizeRequest, EraseReason, EraseRequest, EventKind,
    Field, GetDeliveryRequest, Outcome, Purpose, RecordState, ReportEventRequest, RevokeShipmentRequest,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn read(house: &House, token: &str, fields: &[Field], purpose: Purpose) -> Vec<(Outcome, Option<Value>)> {
    read_as(house, Role::Shop, "backend", token, fields, purpose).unwrap()
}

fn read_as(
    house: &House,
    role: Role,
    name: &str,
    token: &str,
    fields: &[Field],
    purpose: Purpose,
) -> Result<Vec<(Outcome, Option<Value>)>, Status> {
    let request = DetokenizeRequest {
        token: token.to_owned(),
        fields: fields.iter().map(|field| (*field).into()).collect(),
        purpose: purpose.into(),
    };
    let mut client = TokenServiceClient::new(house.channel(role, name));
    let reply = house.run(client.detokenize(request))?.into_inner();
    Ok(reply.fields.into_iter().map(|one| (one.outcome(), one.value)).collect())
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().unwrap().reason.clone()
}

/// All that a caller is told but the time of day.
fn told(status: &Status) -> (Code, &str, &[u8]) {
    (status.code(), status.message(), status.details())
}

fn field(status: &Status) -> String {
    status.get_error_details().bad_request().unwrap().field_violations[0].field.clone()
}

fn text_of(value: &Option<Value>) -> &str {
    match value {
        Some(Value::Text(text)) => text,
        _ => panic!("no text"),
    }
}

#[test]
fn what_goes_in_comes_out_by_purpose_and_outcome() {
    let house = House::new();
    let token = house.tokenize(order(1));
    assert!(token.starts_with("srt1"));
    let asked = [Field::RecipientName, Field::Address, Field::Phone, Field::Email];
    let got = read(&house, &token, &asked, Purpose::Fulfilment);
    assert_eq!(got[0].0, Outcome::Granted);
    assert_eq!(text_of(&got[0].1), "Wilhelmina Ottokar 1");
    assert_eq!(text_of(&got[2].1), "+4930901820");
    assert_eq!(got[3], (Outcome::Denied, None));
    let got = read(&house, &token, &[Field::Phone, Field::Note, Field::PaymentAccount], Purpose::SelfService);
    assert_eq!(got[0].0, Outcome::Granted);
    assert_eq!(got[1].0, Outcome::Denied);
    assert_eq!(got[2].0, Outcome::Masked);
    assert!(text_of(&got[2].1).len() < "pay-account-000001".len());
    let mut bare = order(2);
    bare.fields.truncate(1);
    let token = house.tokenize(bare);
    assert_eq!(read(&house, &token, &[Field::Phone], Purpose::Fulfilment), [(Outcome::NotSet, None)]);
}

#[test]
fn the_same_key_answers_the_same_token_and_another_request_under_it_is_refused() {
    let house = House::new();
    let token = house.tokenize(order(1));
    assert_eq!(house.tokenize(order(1)), token);
    let mut other = order(1);
    other.fields.pop();
    let mut tokens = house.tokens();
    let refused = house.run(tokens.tokenize(other)).unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED"));
    house.clock.advance(8 * DAY);
    house.sweep();
    assert_ne!(house.tokenize(order(1)), token, "a key is forgotten after its window");
}

#[test]
fn a_field_the_class_does_not_collect_is_refused_by_name() {
    let house = House::new();
    let mut tokens = house.tokens();
    let mut request = order(1);
    request.fields.push(text(Field::Note, "ring twice"));
    let refused = house.run(tokens.tokenize(request)).unwrap_err();
    assert_eq!((reason(&refused).as_str(), field(&refused).as_str()), ("NOT_COLLECTED", "note"));
    let mut request = order(1);
    request.fields[0] = text(Field::RecipientName, "4111 1111 1111 1111");
    let refused = house.run(tokens.tokenize(request)).unwrap_err();
    assert_eq!((reason(&refused).as_str(), field(&refused).as_str()), ("CARD_NUMBER", "recipient_name"));
    assert!(!format!("{refused:?}").contains("4111"));
}

#[test]
fn a_correction_makes_the_next_revision_and_needs_the_last_one() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let mut tokens = house.tokens();
    let request = CorrectRequest {
        idempotency_key: "c1".to_owned(),
        token: token.clone(),
        if_revision: 1,
        fields: vec![text(Field::RecipientName, "Vera Ottokar")],
        clear: vec![Field::Email.into()],
    };
    assert_eq!(house.run(tokens.correct(request.clone())).unwrap().into_inner().revision, 2);
    assert_eq!(house.run(tokens.correct(request.clone())).unwrap().into_inner().revision, 2, "a repeat answers alike");
    let stale = CorrectRequest { idempotency_key: "c2".to_owned(), ..request };
    assert_eq!(reason(&house.run(tokens.correct(stale)).unwrap_err()), "REVISION_CONFLICT");
    let got = read(&house, &token, &[Field::RecipientName, Field::Email], Purpose::Notification);
    assert_eq!(text_of(&got[0].1), "Vera Ottokar");
    assert_eq!(got[1].0, Outcome::NotSet);
    assert_eq!(house.tokenize(order(1)), token, "the token of the first request is still found by its key");
}

#[test]
fn a_record_is_due_sixty_days_after_signing_and_waits_for_what_is_open() {
    let house = House::new();
    let (plain, waiting) = (house.tokenize(order(1)), house.tokenize(order(2)));
    house.clock.advance(10 * DAY);
    for token in [&plain, &waiting] {
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    house.clock.advance(20 * DAY);
    house.event(&waiting, EventKind::RefundOpened, 0).unwrap();
    house.clock.advance(40 * DAY - MINUTE);
    assert_eq!(read(&house, &plain, &[Field::Phone], Purpose::Fulfilment)[0].0, Outcome::Granted);
    house.clock.advance(MINUTE);
    assert_eq!(
        read(&house, &plain, &[Field::Phone, Field::Email], Purpose::Fulfilment),
        [(Outcome::Expired, None), (Outcome::Denied, None)]
    );
    assert_eq!(reason(&house.event(&plain, EventKind::RefundOpened, 0).unwrap_err()), "TOO_LATE");
    assert_eq!(house.sweep(), 1);
    assert_eq!(read(&house, &plain, &[Field::Phone], Purpose::Fulfilment), [(Outcome::Erased, None)]);
    assert_eq!(reason(&house.event(&plain, EventKind::RefundOpened, 1).unwrap_err()), "ERASED");
    assert_eq!(read(&house, &waiting, &[Field::Phone], Purpose::Fulfilment)[0].0, Outcome::Granted);
    house.clock.advance(DAY);
    house.event(&waiting, EventKind::RefundSettled, 0).unwrap();
    assert_eq!(read(&house, &waiting, &[Field::Phone], Purpose::Fulfilment)[0].0, Outcome::Expired);
    assert_eq!(house.sweep(), 1);
}

#[test]
fn a_carrier_sees_its_own_parcel_in_its_window_so_often_and_no_longer_than_to_delivery() {
    let house = House::new();
    let token = house.tokenize(order(7));
    house.grant(&token, "SW-000007", "swift");
    let get = |name: &str, serial: &str| {
        let mut carrier = house.carrier(name);
        house
            .run(carrier.get_delivery(GetDeliveryRequest { serial: serial.to_owned() }))
            .map(tonic::Response::into_inner)
    };
    let own = get("swift", "SW-000007").unwrap();
    assert_eq!(own.serial, "SW-000007");
    assert_eq!(own.address.as_ref().unwrap().lines[0], "7 Kastanienallee");
    let unknown = get("swift", "SW-000008").unwrap_err();
    let foreign = get("parcelo", "SW-000007").unwrap_err();
    assert_eq!(told(&unknown), told(&foreign));
    for _ in 0..9 {
        get("swift", "SW-000007").unwrap();
    }
    let used_up = get("swift", "SW-000007").unwrap_err();
    assert_eq!(told(&used_up), told(&unknown));
    house.clock.advance(DAY);
    let mut carrier = house.carrier("swift");
    let confirm = ConfirmDeliveryRequest {
        idempotency_key: "d7".to_owned(),
        serial: "SW-000007".to_owned(),
        delivered_at: Some(wire_time(house.clock.now().plus(400 * DAY))),
    };
    house.run(carrier.confirm_delivery(confirm.clone())).unwrap();
    house.run(carrier.confirm_delivery(confirm)).unwrap();
    assert_eq!(get("swift", "SW-000007").unwrap_err().code(), Code::NotFound);
    let mut tokens = house.tokens();
    let described = house.run(tokens.describe(DescribeRequest { token })).unwrap().into_inner();
    assert_eq!(described.due_by, "after delivered");
    assert_eq!(described.due, Some(wire_time(house.clock.now().plus(60 * DAY))), "a carrier's clock is clamped");
}

#[test]
fn a_grant_works_in_its_window_alone_and_ends_when_it_is_revoked() {
    let house = House::new();
    let token = house.tokenize(order(7));
    let grant = house.grant(&token, "SW-000007", "swift");
    let get = || {
        let mut carrier = house.carrier("swift");
        house.run(carrier.get_delivery(GetDeliveryRequest { serial: "SW-000007".to_owned() }))
    };
    get().unwrap();
    house.clock.advance(31 * DAY);
    assert_eq!(get().unwrap_err().code(), Code::NotFound);
    house.clock.leap(-31 * DAY);
    get().unwrap();
    let mut lifecycle = house.lifecycle();
    let revoke = RevokeShipmentRequest { idempotency_key: "r".to_owned(), grant_id: grant };
    house.run(lifecycle.revoke_shipment(revoke.clone())).unwrap();
    house.run(lifecycle.revoke_shipment(revoke)).unwrap();
    assert_eq!(get().unwrap_err().code(), Code::NotFound);
}

#[test]
fn erasing_is_for_good_and_answers_the_same_again() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let mut tokens = house.tokens();
    let request = EraseRequest {
        idempotency_key: "e1".to_owned(),
        token: token.clone(),
        reason: EraseReason::SubjectRequest.into(),
    };
    house.run(tokens.erase(request.clone())).unwrap();
    house.run(tokens.erase(request.clone())).unwrap();
    house.run(tokens.erase(EraseRequest { idempotency_key: "e2".to_owned(), ..request })).unwrap();
    assert_eq!(read(&house, &token, &[Field::Phone], Purpose::Fulfilment), [(Outcome::Erased, None)]);
    let described = house.run(tokens.describe(DescribeRequest { token })).unwrap().into_inner();
    assert_eq!((described.state(), described.erase_reason.as_str()), (RecordState::Erased, "subject_request"));
    assert_eq!(reason(&house.run(tokens.tokenize(order(1))).unwrap_err()), "ERASED");
}

#[test]
fn unknown_foreign_and_forbidden_tokens_answer_byte_equal() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let other = strongroom::domain::token::Token::from_bytes([7; 20]).to_text();
    let asked = [Field::Phone];
    let desk =
        |token: &str| read_as(&house, Role::CustomerService, "desk", token, &asked, Purpose::AfterSales).unwrap_err();
    let (forbidden, missing) = (desk(&token), desk(&other));
    assert_eq!(told(&forbidden), told(&missing));
    assert_eq!(forbidden.details(), missing.details());
    assert_eq!(forbidden.code(), Code::NotFound);
}

#[test]
fn an_event_from_the_future_is_refused_by_name() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let mut lifecycle = house.lifecycle();
    let request = ReportEventRequest {
        idempotency_key: "f".to_owned(),
        token,
        kind: EventKind::Delivered.into(),
        ordinal: 0,
        occurred_at: Some(wire_time(house.clock.now().plus(6 * MINUTE))),
    };
    let refused = house.run(lifecycle.report_event(request)).unwrap_err();
    assert_eq!((reason(&refused).as_str(), field(&refused).as_str()), ("NOT_A_TIME", "occurred_at"));
}

#[test]
fn a_clock_that_leaps_makes_reads_refuse_and_destroys_nothing() {
    let mut house = House::new();
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    house.clock.leap(365 * DAY);
    assert_eq!(read(&house, &token, &[Field::Phone], Purpose::Fulfilment)[0].0, Outcome::Expired);
    assert_eq!(house.sweep(), 0, "the mark goes no faster than the boot clock");
    house.stop();
    house.start();
    assert_eq!(house.sweep(), 0, "nor after a restart");
    house.clock.leap(-365 * DAY);
    assert_eq!(read(&house, &token, &[Field::Phone], Purpose::Fulfilment)[0].0, Outcome::Granted);
    let mut operations = house.operations();
    house.clock.leap(365 * DAY);
    let time = Some(wire_time(house.clock.now()));
    house.run(operations.confirm_clock(strongroom::rpc::proto::ConfirmClockRequest { time })).unwrap();
    assert_eq!(house.sweep(), 1, "an operator vouched for the clock");
}

#[test]
fn everything_is_still_there_after_a_restart() {
    let mut house = House::new();
    let token = house.tokenize(order(1));
    house.grant(&token, "SW-000001", "swift");
    house.stop();
    house.start();
    assert_eq!(read(&house, &token, &[Field::Phone], Purpose::Fulfilment)[0].0, Outcome::Granted);
    let mut carrier = house.carrier("swift");
    house.run(carrier.get_delivery(GetDeliveryRequest { serial: "SW-000001".to_owned() })).unwrap();
}

#[test]
fn a_forbidden_token_is_told_no_more_once_its_record_is_erased() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let other = strongroom::domain::token::Token::from_bytes([7; 20]).to_text();
    let desk = |token: &str| {
        read_as(&house, Role::CustomerService, "desk", token, &[Field::Phone], Purpose::AfterSales).unwrap_err()
    };
    let before = desk(&token);
    let mut tokens = house.tokens();
    let request =
        EraseRequest { idempotency_key: "e1".to_owned(), token: token.clone(), reason: EraseReason::Minor.into() };
    house.run(tokens.erase(request)).unwrap();
    assert_eq!(told(&before), told(&desk(&token)));
    assert_eq!(told(&before), told(&desk(&other)));
}
