//! Legal holds: placed by the privacy officer, lifted by two people, stopping destruction and never the refusal to read.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;
#[cfg(feature = "planted")]
#[path = "common/planted.rs"]
mod planted;

use common::{House, order, text};
use people::{approvals, log, reason, refusals};
use strongroom::audit::entry::{Action, RefusalCode, Verdict};
use strongroom::domain::caller::Role;
use strongroom::domain::time::DAY;
use strongroom::domain::token::Token;
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    ApproveRequest, CorrectRequest, DescribeRequest, DetokenizeRequest, EraseReason, EraseRequest, EventKind, Field,
    Hold, HoldKind, LiftHoldRequest, ListHoldsRequest, Outcome, PlaceHoldRequest, Purpose, RecordState,
    lift_hold_response,
};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn officer(house: &House) -> ErasureServiceClient<Channel> {
    ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"))
}

fn asked(token: &str, kind: HoldKind) -> PlaceHoldRequest {
    PlaceHoldRequest {
        idempotency_key: format!("hold-{kind:?}-{}", token.get(..14).unwrap_or(token)),
        token: token.to_owned(),
        subject: String::new(),
        whole_subject: false,
        kind: kind.into(),
        case_reference: "12 O 345/26".to_owned(),
    }
}

fn place(house: &House, request: PlaceHoldRequest) -> Result<String, Status> {
    house.run(officer(house).place_hold(request)).map(|reply| reply.into_inner().hold_id)
}

/// Asks for a hold to be lifted: the approval's number as long as it waits.
fn lift(house: &House, hold: &str) -> Result<Option<String>, Status> {
    let reply = house.run(officer(house).lift_hold(LiftHoldRequest { hold_id: hold.to_owned() }))?.into_inner();
    Ok(match reply.result.unwrap() {
        lift_hold_response::Result::Done(_) => None,
        lift_hold_response::Result::PendingApproval(pending) => Some(pending.approval_id),
    })
}

/// Lifts it with a second person's word.
fn lift_by_two(house: &House, hold: &str) {
    let approval_id = lift(house, hold).unwrap().unwrap();
    house.run(approvals(house, Role::KeyAdmin, "office").approve(ApproveRequest { approval_id })).unwrap();
    assert_eq!(lift(house, hold).unwrap(), None);
}

fn list(house: &House) -> Vec<Hold> {
    house.run(officer(house).list_holds(ListHoldsRequest { after: String::new() })).unwrap().into_inner().holds
}

fn erase(house: &House, token: &str, why: EraseReason) -> Result<(), Status> {
    let idempotency_key = format!("erase-{why:?}-{}", token.get(..14).unwrap());
    let request = EraseRequest { idempotency_key, token: token.to_owned(), reason: why.into() };
    house.run(house.tokens().erase(request)).map(drop)
}

/// The hold's kind that an answer names.
fn held_by(answer: Result<(), Status>) -> String {
    let refused = answer.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "HELD"));
    assert!(!format!("{refused:?}").contains("345/26"), "the case is nobody's business");
    refused.get_error_details().error_info().unwrap().metadata.get("hold").unwrap().clone()
}

fn outcome(house: &House, token: &str) -> Outcome {
    let request = DetokenizeRequest {
        token: token.to_owned(),
        fields: vec![Field::Phone.into()],
        purpose: Purpose::SubjectRequest.into(),
    };
    let mut office = TokenServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    house.run(office.detokenize(request)).unwrap().into_inner().fields.first().unwrap().outcome()
}

fn described(house: &House, token: &str) -> (RecordState, Vec<HoldKind>) {
    let request = DescribeRequest { token: token.to_owned() };
    let found = house.run(house.tokens().describe(request)).unwrap().into_inner();
    (found.state(), found.held_by().collect())
}

#[test]
fn a_held_record_that_is_due_is_unreadable_and_not_destroyed_and_goes_at_once_when_the_hold_is_lifted() {
    let mut house = House::new();
    let (held, free) = (house.tokenize(order(1)), house.tokenize(order(2)));
    for token in [&held, &free] {
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    let hold = place(&house, asked(&held, HoldKind::Authority)).unwrap();
    assert_eq!(described(&house, &held), (RecordState::Live, vec![HoldKind::Authority]));
    assert_eq!(outcome(&house, &held), Outcome::Granted, "a hold does not stop the use that policy allows");
    house.clock.advance(61 * DAY);
    assert_eq!(house.sweep(), 1);
    assert_eq!((outcome(&house, &held), outcome(&house, &free)), (Outcome::Expired, Outcome::Erased));
    assert_eq!(described(&house, &held), (RecordState::Expired, vec![HoldKind::Authority]));
    house.stop();
    house.start();
    assert_eq!(house.sweep(), 0, "nor after a restart");
    house.clock.advance(1_000 * DAY);
    assert_eq!((house.sweep(), outcome(&house, &held)), (0, Outcome::Expired), "past every cap");
    lift_by_two(&house, &hold);
    assert_eq!((house.sweep(), outcome(&house, &held)), (1, Outcome::Erased));
}

#[test]
fn erasing_or_correcting_a_held_record_answers_with_the_holds_kind() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let dispute = place(&house, asked(&token, HoldKind::Dispute)).unwrap();
    for why in [EraseReason::SubjectRequest, EraseReason::Cancellation, EraseReason::Controller] {
        assert_eq!(held_by(erase(&house, &token, why)), "dispute");
    }
    let court = place(&house, asked(&token, HoldKind::Court)).unwrap();
    assert_eq!(held_by(erase(&house, &token, EraseReason::Controller)), "court");
    let correct = CorrectRequest {
        idempotency_key: "correct".to_owned(),
        token: token.clone(),
        if_revision: 1,
        fields: vec![text(Field::RecipientName, "Somebody Else")],
        clear: Vec::new(),
    };
    assert_eq!(held_by(house.run(house.tokens().correct(correct.clone())).map(drop)), "court");
    assert!(refusals(&house).contains(&(Action::Erase, RefusalCode::Held)));
    assert!(refusals(&house).contains(&(Action::Correct, RefusalCode::Held)));
    lift_by_two(&house, &court);
    assert_eq!(held_by(erase(&house, &token, EraseReason::Controller)), "dispute");
    lift_by_two(&house, &dispute);
    house.run(house.tokens().correct(CorrectRequest { idempotency_key: "again".to_owned(), ..correct })).unwrap();
    erase(&house, &token, EraseReason::Controller).unwrap();
}

#[test]
fn a_minors_erasure_waits_for_a_courts_hold_alone() {
    let house = House::new();
    let (disputed, ordered) = (house.tokenize(order(1)), house.tokenize(order(2)));
    place(&house, asked(&disputed, HoldKind::Dispute)).unwrap();
    place(&house, asked(&disputed, HoldKind::Authority)).unwrap();
    let court = place(&house, asked(&ordered, HoldKind::Court)).unwrap();
    erase(&house, &disputed, EraseReason::Minor).unwrap();
    assert_eq!(outcome(&house, &disputed), Outcome::Erased);
    assert_eq!(held_by(erase(&house, &ordered, EraseReason::Minor)), "court");
    assert_eq!(list(&house).len(), 1, "the holds of what is gone are gone");
    lift_by_two(&house, &court);
    erase(&house, &ordered, EraseReason::Minor).unwrap();
}

#[test]
fn a_hold_on_a_subject_is_on_every_record_of_it_later_ones_included_and_on_nobody_elses() {
    let house = House::new();
    let mut second = order(2);
    second.subject = order(1).subject;
    let (first, other) = (house.tokenize(order(1)), house.tokenize(order(3)));
    let by_reference =
        PlaceHoldRequest { subject: order(1).subject, token: String::new(), ..asked("ref", HoldKind::Court) };
    let hold = place(&house, by_reference).unwrap();
    let later = house.tokenize(second);
    for token in [&first, &later] {
        assert_eq!(held_by(erase(&house, token, EraseReason::Minor)), "court");
    }
    erase(&house, &other, EraseReason::Controller).unwrap();
    let by_token = PlaceHoldRequest { whole_subject: true, ..asked(&later, HoldKind::Dispute) };
    let dispute = place(&house, by_token).unwrap();
    lift_by_two(&house, &hold);
    assert_eq!(held_by(erase(&house, &first, EraseReason::Controller)), "dispute");
    lift_by_two(&house, &dispute);
    erase(&house, &first, EraseReason::Controller).unwrap();
    erase(&house, &later, EraseReason::Controller).unwrap();
    let unknown =
        PlaceHoldRequest { subject: "nobody".to_owned(), token: String::new(), ..asked("no", HoldKind::Court) };
    assert_eq!(reason(&place(&house, unknown).unwrap_err()), "NOT_FOUND");
}

#[test]
fn lifting_takes_two_people_and_is_told_under_one_number() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let hold = place(&house, asked(&token, HoldKind::Court)).unwrap();
    let id = lift(&house, &hold).unwrap().unwrap();
    assert_eq!(lift(&house, &hold).unwrap().as_ref(), Some(&id), "asking again finds the request that waits");
    let own = house
        .run(approvals(&house, Role::PrivacyOfficer, "office").approve(ApproveRequest { approval_id: id.clone() }));
    assert_eq!(reason(&own.unwrap_err()), "NOT_TWO_PEOPLE");
    assert_eq!(held_by(erase(&house, &token, EraseReason::Controller)), "court", "one person lifts nothing");
    house.run(approvals(&house, Role::Operator, "oncall").approve(ApproveRequest { approval_id: id.clone() })).unwrap();
    assert_eq!(lift(&house, &hold).unwrap(), None);
    assert_eq!(lift(&house, &hold).unwrap(), None, "again answers the same");
    let story = log(&house).into_iter().filter(|entry| entry.request.to_string() == id);
    let done = story.filter(|entry| entry.verdict == Verdict::Done).map(|entry| entry.action);
    assert_eq!(done.collect::<Vec<_>>(), [Action::RequestApproval, Action::Approve, Action::LiftHold]);
    let unknown = lift(&house, "hold-987654321").unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "NOT_FOUND"));
}

#[test]
fn a_hold_is_listed_with_its_case_until_it_is_lifted_and_placed_once_however_often_it_is_asked_for() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let hold = place(&house, asked(&token, HoldKind::Court)).unwrap();
    assert_eq!(place(&house, asked(&token, HoldKind::Court)).unwrap(), hold);
    let other = PlaceHoldRequest { case_reference: "99".to_owned(), ..asked(&token, HoldKind::Court) };
    assert_eq!(reason(&place(&house, other).unwrap_err()), "IDEMPOTENCY_KEY_REUSED");
    let listed = list(&house);
    assert_eq!((listed.len(), listed[0].hold_id.as_str()), (1, hold.as_str()));
    assert_eq!((listed[0].kind(), listed[0].case_reference.as_str()), (HoldKind::Court, "12 O 345/26"));
    assert_eq!(listed[0].placed_by, "tenant/kitchenware/privacy-officer/office");
    lift_by_two(&house, &hold);
    let listed = list(&house);
    assert!(listed[0].lifted_at.is_some() && listed[0].case_reference.is_empty());
    house.clock.advance(91 * DAY);
    house.sweep();
    assert!(list(&house).is_empty(), "remembered as long as an approval");
    let after = ListHoldsRequest { after: "grant-1".to_owned() };
    assert_eq!(reason(&house.run(officer(&house).list_holds(after)).unwrap_err()), "UNKNOWN");
}

#[test]
fn what_is_no_hold_is_refused_by_the_fields_name() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let good = || asked(&token, HoldKind::Court);
    for (request, field, why) in [
        (PlaceHoldRequest { kind: 0, ..good() }, "kind", "UNKNOWN"),
        (PlaceHoldRequest { kind: 9, ..good() }, "kind", "UNKNOWN"),
        (PlaceHoldRequest { case_reference: String::new(), ..good() }, "case_reference", "MISSING"),
        (PlaceHoldRequest { case_reference: "Müller ./. Shop".to_owned(), ..good() }, "case_reference", "NOT_A_CASE"),
        (PlaceHoldRequest { token: String::new(), ..good() }, "token", "MISSING"),
        (PlaceHoldRequest { subject: "anna".to_owned(), ..good() }, "subject", "REPEATED"),
        (PlaceHoldRequest { token: "srt1nothing".to_owned(), ..good() }, "token", "NOT_A_TOKEN"),
        (PlaceHoldRequest { idempotency_key: String::new(), ..good() }, "idempotency_key", "MISSING"),
    ] {
        let refused = place(&house, request).unwrap_err();
        let violation = refused.get_error_details().bad_request().unwrap().field_violations.first().unwrap().clone();
        assert_eq!((violation.field.as_str(), reason(&refused).as_str()), (field, why));
    }
    erase(&house, &token, EraseReason::Controller).unwrap();
    assert_eq!(reason(&place(&house, good()).unwrap_err()), "ERASED");
    let nobodys = asked(&Token::from_bytes([7; 20]).to_text(), HoldKind::Court);
    assert_eq!(reason(&place(&house, nobodys).unwrap_err()), "NOT_FOUND");
}

#[test]
fn deleting_a_holds_row_lifts_nothing() {
    let house = House::new();
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    place(&house, asked(&token, HoldKind::Court)).unwrap();
    let database = rusqlite::Connection::open(&house.config.store.database).unwrap();
    assert_eq!(database.execute("DELETE FROM hold", []).unwrap(), 1);
    assert_eq!(reason(&erase(&house, &token, EraseReason::Controller).unwrap_err()), "TAMPERED");
    house.clock.advance(61 * DAY);
    assert_eq!(house.sweep(), 0);
    assert!(refusals(&house).contains(&(Action::Tamper, RefusalCode::Tampered)));
}

#[cfg(feature = "planted")]
#[test]
fn planted_holds_that_stop_nothing_are_noticed() {
    let test = "erasing_or_correcting_a_held_record_answers_with_the_holds_kind";
    let (passed, printed) = planted::with_fault("holds-off", test);
    assert!(!passed, "{printed}");
}
