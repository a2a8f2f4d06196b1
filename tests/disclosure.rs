//! Legal disclosure: with a case reference and two people, once, for that record, those fields and that case; in the log before it
//! leaves.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;

use common::{House, order, text};
use people::{approvals, callers, enrol_here, key_of, log, mint, mint_with_key_of, reason, refusals};
use prost::Message as _;
use strongroom::audit::entry::{Action, RefusalCode, Verdict};
use strongroom::domain::caller::Role;
use strongroom::domain::time::DAY;
use strongroom::domain::vocabulary as words;
use strongroom::rpc::proto::disclosure_service_client::DisclosureServiceClient;
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::field_result::Value;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    Approval, ApproveRequest, CorrectRequest, DetokenizeRequest, DiscloseRequest, Disclosure, EnrolCallerRequest,
    EraseRequest, EventKind, Field, HoldKind, Outcome, PlaceHoldRequest, Purpose, ShowApprovalRequest,
    disclose_response,
};
use tonic::{Code, Status};

const CASE: &str = "4 Js 123/26";
const FIELDS: [Field; 2] = [Field::Address, Field::Phone];
const OFFICER: (Role, &str) = (Role::PrivacyOfficer, "office");
const SECOND: (Role, &str) = (Role::KeyAdmin, "office");

/// What was disclosed, or the number of the request that waits.
fn ask(house: &House, token: &str, fields: &[Field], case: &str) -> Result<Result<Disclosure, String>, Status> {
    ask_as(house, OFFICER, token, fields, case)
}

fn ask_as(
    house: &House,
    (role, name): (Role, &str),
    token: &str,
    fields: &[Field],
    case: &str,
) -> Result<Result<Disclosure, String>, Status> {
    use disclose_response::Result::{Done, PendingApproval};
    let request = DiscloseRequest {
        token: token.to_owned(),
        fields: fields.iter().map(|field| i32::from(*field)).collect(),
        case: case.to_owned(),
    };
    let mut vault = DisclosureServiceClient::new(house.channel(role, name));
    Ok(match house.run(vault.disclose(request))?.into_inner().result.unwrap() {
        Done(done) => Ok(done),
        PendingApproval(pending) => Err(pending.approval_id),
    })
}

fn pending(house: &House, token: &str) -> String {
    ask(house, token, &FIELDS, CASE).unwrap().unwrap_err()
}

fn approve(house: &House, (role, name): (Role, &str), id: &str) -> Result<Approval, Status> {
    let mut approvals = approvals(house, role, name);
    let answer = house.run(approvals.approve(ApproveRequest { approval_id: id.to_owned() }));
    answer.map(|answer| answer.into_inner().approval.unwrap())
}

fn outcomes(done: &Disclosure) -> Vec<Outcome> {
    done.fields.iter().map(|one| one.outcome()).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn it_takes_two_people_serves_once_and_is_in_the_log_under_the_approvals_number() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let id = pending(&house, &token);
    assert_eq!(pending(&house, &token), id, "asking again finds the request that waits");
    let mut second = approvals(&house, SECOND.0, SECOND.1);
    let shown = house.run(second.show_approval(ShowApprovalRequest { approval_id: id.clone() })).unwrap().into_inner();
    let about = shown.approval.as_ref().unwrap().about.clone();
    assert!(about.starts_with("disclose the address and phone of record "), "{about}");
    assert!(about.ends_with(" (order) in the case 4 Js 123/26"), "{about}");
    let approved = approve(&house, SECOND, &id).unwrap();
    for bytes in [shown.encode_to_vec(), approved.encode_to_vec()] {
        for secret in ["Kastanienallee", "4930901820", token.as_str()] {
            assert!(!holds(&bytes, secret), "the second person is shown {secret}");
        }
    }
    let is_disclosed = |house: &House| log(house).iter().any(|entry| entry.action == Action::Disclose);
    assert!(!is_disclosed(&house));

    let done = ask(&house, &token, &FIELDS, CASE).unwrap().unwrap();
    assert_eq!((outcomes(&done), done.revision), (vec![Outcome::Granted; 2], 1));
    assert!(matches!(&done.fields[1].value, Some(Value::Text(phone)) if phone == "+4930901820"));
    assert!(matches!(&done.fields[0].value, Some(Value::Address(address)) if address.locality == "Berlin"));
    assert_ne!(pending(&house, &token), id, "an approval serves once");

    let story: Vec<_> = log(&house).into_iter().filter(|entry| entry.request.to_string() == id).collect();
    let told: Vec<_> = story.iter().map(|entry| entry.action).collect();
    assert_eq!(told, [Action::RequestApproval, Action::ShowApproval, Action::Approve, Action::Disclose]);
    let entry = story.last().unwrap();
    assert_eq!((entry.verdict, entry.purpose), (Verdict::Done, Some(words::Purpose::LegalDisclosure)));
    assert!(entry.class == Some(words::Class::Order) && entry.subject.is_some());
    let granted = |field| (field, words::Outcome::Granted);
    assert_eq!(entry.outcomes, [granted(words::Field::Address), granted(words::Field::Phone)]);
    for entry in log(&house) {
        assert!(!holds(&entry.to_bytes(), "Kastanienallee") && !holds(&entry.to_bytes(), "4930901820"));
    }
}

#[test]
fn an_approval_is_for_that_token_those_fields_and_that_case() {
    let house = House::new();
    let (token, other) = (house.tokenize(order(1)), house.tokenize(order(2)));
    let id = pending(&house, &token);
    approve(&house, SECOND, &id).unwrap();
    for (token, fields, case) in [
        (&other, &FIELDS[..], CASE),
        (&token, &FIELDS[..1], CASE),
        (&token, &[Field::Address, Field::Phone, Field::Email], CASE),
        (&token, &FIELDS[..], "4 Js 124/26"),
    ] {
        assert_ne!(ask(&house, token, fields, case).unwrap().unwrap_err(), id);
    }
    assert!(ask(&house, &token, &FIELDS, CASE).unwrap().is_ok());
}

#[test]
fn who_asked_or_has_their_key_or_may_not_decide_is_no_second_person() {
    let mut house = House::new();
    house.stop();
    mint_with_key_of(&house, (Role::KeyAdmin, "twin"), OFFICER);
    enrol_here(&house, Role::KeyAdmin, "twin", vec![key_of(&house, Role::KeyAdmin, "twin")]);
    mint(&house, Role::PrivacyOfficer, "deputy");
    enrol_here(&house, Role::PrivacyOfficer, "deputy", vec![key_of(&house, Role::PrivacyOfficer, "deputy")]);
    house.start();
    let token = house.tokenize(order(1));
    let id = pending(&house, &token);
    for (decides, told) in [
        (OFFICER, "NOT_TWO_PEOPLE"),
        ((Role::KeyAdmin, "twin"), "NOT_TWO_PEOPLE"),
        ((Role::Operator, "oncall"), "ROLE_NOT_ALLOWED"),
    ] {
        assert_eq!(reason(&approve(&house, decides, &id).unwrap_err()), told, "{decides:?}");
    }
    approve(&house, (Role::PrivacyOfficer, "deputy"), &id).unwrap();
    let deputy = (Role::PrivacyOfficer, "deputy");
    assert!(ask_as(&house, deputy, &token, &FIELDS, CASE).unwrap().is_err(), "the approval is the asker's");
    assert!(ask(&house, &token, &FIELDS, CASE).unwrap().is_ok());
}

#[test]
fn who_was_enrolled_by_the_other_is_no_second_person() {
    let house = House::new();
    mint(&house, Role::PrivacyOfficer, "puppet");
    let pins = vec![hex::encode(key_of(&house, Role::PrivacyOfficer, "puppet").0)];
    let (role, name, issuer) = (Role::PrivacyOfficer as i32, "puppet".to_owned(), String::new());
    let mut admin = callers(&house, SECOND.1);
    house.run(admin.enrol_caller(EnrolCallerRequest { role, name, issuer, pins })).unwrap();
    let token = house.tokenize(order(1));
    let puppet = (Role::PrivacyOfficer, "puppet");
    let id = ask_as(&house, puppet, &token, &FIELDS, CASE).unwrap().unwrap_err();
    assert_eq!(reason(&approve(&house, SECOND, &id).unwrap_err()), "NOT_TWO_PEOPLE");
    assert_eq!(refusals(&house).last(), Some(&(Action::Approve, RefusalCode::SameLine)));
    assert!(ask_as(&house, puppet, &token, &FIELDS, CASE).unwrap().is_err());
}

#[test]
fn other_roles_bad_references_unknown_tokens_and_the_purpose_at_detokenize_are_refused() {
    let house = House::new();
    let token = house.tokenize(order(1));
    for (role, name) in [(Role::Shop, "backend"), SECOND, (Role::Operator, "oncall"), (Role::Auditor, "office")] {
        let refused = ask_as(&house, (role, name), &token, &FIELDS, CASE).unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "ROLE_NOT_ALLOWED"));
        assert_eq!(refusals(&house).last(), Some(&(Action::Disclose, RefusalCode::Forbidden)));
    }
    for case in ["", " ", "anna@example.org", "4111 1111 1111 1111"] {
        assert_eq!(ask(&house, &token, &FIELDS, case).unwrap_err().code(), Code::InvalidArgument, "{case}");
        assert_eq!(refusals(&house).last(), Some(&(Action::Disclose, RefusalCode::Invalid)));
    }
    let unknown = strongroom::domain::token::Token::from_bytes([7; 20]).to_text();
    assert_eq!(reason(&ask(&house, &unknown, &FIELDS, CASE).unwrap_err()), "NOT_FOUND");
    let mut tokens = TokenServiceClient::new(house.channel(OFFICER.0, OFFICER.1));
    let (fields, purpose) = (vec![Field::Phone.into()], Purpose::LegalDisclosure.into());
    let read = house.run(tokens.detokenize(DetokenizeRequest { token, fields, purpose }));
    assert_eq!(reason(&read.unwrap_err()), "NOT_FOUND");
}

#[test]
fn a_record_that_was_corrected_meanwhile_is_disclosed_as_it_is_now() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let id = pending(&house, &token);
    approve(&house, SECOND, &id).unwrap();
    let correct = CorrectRequest {
        idempotency_key: "correct".to_owned(),
        token: token.clone(),
        if_revision: 1,
        fields: vec![text(Field::Phone, "+49 30 901821")],
        clear: Vec::new(),
    };
    house.run(house.tokens().correct(correct)).unwrap();
    let done = ask(&house, &token, &FIELDS, CASE).unwrap().unwrap();
    assert_eq!(done.revision, 2);
    assert!(matches!(&done.fields[1].value, Some(Value::Text(phone)) if phone == "+4930901821"));
}

#[test]
fn of_an_expired_or_an_erased_record_only_that_is_told() {
    let house = House::new();
    let (token, gone) = (house.tokenize(order(1)), house.tokenize(order(2)));
    let id = pending(&house, &gone);
    approve(&house, SECOND, &id).unwrap();
    let erase = EraseRequest { idempotency_key: "erase".to_owned(), token: gone.clone(), reason: 1 };
    house.run(house.tokens().erase(erase)).unwrap();
    let done = ask(&house, &gone, &FIELDS, CASE).unwrap().unwrap();
    assert_eq!((outcomes(&done), done.revision), (vec![Outcome::Erased; 2], 0));
    house.clock.advance(4_000 * DAY);
    let done = ask(&house, &token, &FIELDS, CASE).unwrap().unwrap();
    assert_eq!((outcomes(&done), done.revision), (vec![Outcome::Expired; 2], 0));
    assert!(done.fields.iter().all(|one| one.value.is_none()));
}

#[test]
fn a_hold_lets_two_people_disclose_what_is_expired_for_everybody_else() {
    let house = House::new();
    let (held, free) = (house.tokenize(order(1)), house.tokenize(order(2)));
    for token in [&held, &free] {
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    let place = PlaceHoldRequest {
        idempotency_key: "hold".to_owned(),
        token: held.clone(),
        subject: String::new(),
        whole_subject: false,
        kind: HoldKind::Authority.into(),
        case_reference: CASE.to_owned(),
    };
    let mut office = ErasureServiceClient::new(house.channel(OFFICER.0, OFFICER.1));
    house.run(office.place_hold(place)).unwrap();
    house.clock.advance(61 * DAY);
    let gone = ask(&house, &free, &FIELDS, CASE).unwrap().unwrap();
    assert_eq!(outcomes(&gone), vec![Outcome::Expired; 2]);
    let id = pending(&house, &held);
    approve(&house, SECOND, &id).unwrap();
    let done = ask(&house, &held, &FIELDS, CASE).unwrap().unwrap();
    assert_eq!(outcomes(&done), vec![Outcome::Granted; 2]);
    let (fields, purpose) = (vec![Field::Phone.into()], Purpose::SubjectRequest.into());
    let mut office = TokenServiceClient::new(house.channel(OFFICER.0, OFFICER.1));
    let read = house.run(office.detokenize(DetokenizeRequest { token: held, fields, purpose }));
    assert_eq!(read.unwrap().into_inner().fields[0].outcome(), Outcome::Expired);
}
