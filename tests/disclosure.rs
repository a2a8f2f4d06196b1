//! Legal disclosure: with a case reference and two people, once, for that record, those fields and that case; in the log before it
//! leaves.
//!
//! Planted faults: a disclosure takes one person's word. By hand: a hold that is not looked at again in the transaction; either
//! turned a test of this file red.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;
#[cfg(feature = "planted")]
#[path = "common/planted.rs"]
mod planted;

use common::{House, order, text};
use people::{
    approvals, callers, enrol_here, enrol_of, key_of, log, mint, mint_as, mint_with_key_of, reason, refusals,
};
use prost::Message as _;
use strongroom::audit::entry::{Action, Entry, RefusalCode, Verdict};
use strongroom::domain::caller::Role;
use strongroom::domain::time::DAY;
use strongroom::domain::vocabulary as words;
use strongroom::policy::retention::Policy;
use strongroom::rpc::proto::disclosure_service_client::DisclosureServiceClient;
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::field_result::Value;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    Approval, ApproveRequest, CorrectRequest, DescribeRequest, DetokenizeRequest, DiscloseRequest, Disclosure,
    EnrolCallerRequest, EraseRequest, EventKind, Field, HoldKind, LiftHoldRequest, ListHoldsRequest, Outcome,
    PlaceHoldRequest, Purpose, ShowApprovalRequest, disclose_response, lift_hold_response,
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

fn hold(house: &House, token: &str) -> String {
    hold_as(house, token, "hold")
}

fn hold_as(house: &House, token: &str, key: &str) -> String {
    let place = PlaceHoldRequest {
        idempotency_key: key.to_owned(),
        token: token.to_owned(),
        subject: String::new(),
        whole_subject: false,
        kind: HoldKind::Authority.into(),
        case_reference: CASE.to_owned(),
    };
    let mut office = ErasureServiceClient::new(house.channel(OFFICER.0, OFFICER.1));
    house.run(office.place_hold(place)).unwrap().into_inner().hold_id
}

/// Lifts it with a second person's word.
fn lift(house: &House, hold_id: &str) {
    let mut office = ErasureServiceClient::new(house.channel(OFFICER.0, OFFICER.1));
    let request = LiftHoldRequest { hold_id: hold_id.to_owned() };
    let reply = house.run(office.lift_hold(request.clone())).unwrap().into_inner();
    let Some(lift_hold_response::Result::PendingApproval(pending)) = reply.result else { unreachable!() };
    approve(house, SECOND, &pending.approval_id).unwrap();
    let reply = house.run(office.lift_hold(request)).unwrap().into_inner();
    assert!(matches!(reply.result, Some(lift_hold_response::Result::Done(_))));
}

fn read(house: &House, token: &str, field: Field) -> Outcome {
    let (fields, purpose) = (vec![field.into()], Purpose::SubjectRequest.into());
    let mut office = TokenServiceClient::new(house.channel(OFFICER.0, OFFICER.1));
    let request = DetokenizeRequest { token: token.to_owned(), fields, purpose };
    house.run(office.detokenize(request)).unwrap().into_inner().fields.first().unwrap().outcome()
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
    hold(&house, &held);
    house.clock.advance(61 * DAY);
    let gone = ask(&house, &free, &FIELDS, CASE).unwrap().unwrap();
    assert_eq!(outcomes(&gone), vec![Outcome::Expired; 2]);
    let id = pending(&house, &held);
    approve(&house, SECOND, &id).unwrap();
    let done = ask(&house, &held, &FIELDS, CASE).unwrap().unwrap();
    assert_eq!(outcomes(&done), vec![Outcome::Granted; 2]);
    assert_eq!(read(&house, &held, Field::Phone), Outcome::Expired);
}

/// The phone goes after a fortnight and the street after a month.
const STAGED: &str = "id = 'staged'\nzone = 'UTC'\n[class.order]\naction = 'desensitize'\nafter.delivered = 'P60D'\ncap = 'P1Y'\n\
                      fields = ['recipient_name', 'address', 'phone', 'email', 'payment_account']\n\
                      [class.order.field.phone]\nafter.delivered = 'P14D'\n\
                      [class.order.field.address_lines]\nafter.delivered = 'P30D'\n";

fn lines(done: &Disclosure) -> usize {
    match &done.fields.first().unwrap().value {
        Some(Value::Address(address)) => address.lines.len(),
        _ => 0,
    }
}

#[test]
fn a_piece_that_is_over_and_held_is_kept_and_disclosed_and_goes_when_the_hold_is_lifted() {
    let house = House::under(Policy::parse(STAGED).unwrap());
    let (held, free) = (house.tokenize(order(1)), house.tokenize(order(2)));
    for token in [&held, &free] {
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    let placed = hold(&house, &held);
    house.clock.advance(31 * DAY);
    house.sweep();
    let revision = |token: &str| {
        let request = DescribeRequest { token: token.to_owned() };
        house.run(house.tokens().describe(request)).unwrap().into_inner().revision
    };
    let sealed = || -> u32 {
        let database = rusqlite::Connection::open(&house.config.store.database).unwrap();
        database.query_row("SELECT COUNT(*) FROM sealed", [], |row| row.get(0)).unwrap()
    };
    assert_eq!((revision(&held), revision(&free)), (1, 2), "a hold stops stages");
    assert_eq!(sealed(), 6 + 5, "the one has its phone, the other has not");
    assert_eq!(read(&house, &held, Field::Phone), Outcome::Expired, "which nobody reads any more for that");
    let disclosed = |token: &str| {
        approve(&house, SECOND, &pending(&house, token)).unwrap();
        ask(&house, token, &FIELDS, CASE).unwrap().unwrap()
    };
    let done = disclosed(&held);
    assert_eq!((outcomes(&done), lines(&done)), (vec![Outcome::Granted; 2], 2));
    let done = disclosed(&free);
    assert_eq!((outcomes(&done), lines(&done)), (vec![Outcome::Granted, Outcome::Expired], 0));
    // Agreed to while it was held, asked for when it is not.
    approve(&house, SECOND, &pending(&house, &held)).unwrap();
    lift(&house, &placed);
    let done = ask(&house, &held, &FIELDS, CASE).unwrap().unwrap();
    assert_eq!((outcomes(&done), lines(&done)), (vec![Outcome::Granted, Outcome::Expired], 0));
    house.sweep();
    assert_eq!((revision(&held), sealed()), (2, 5 + 5), "and the piece goes by itself");
}

#[test]
fn what_is_held_no_more_is_disclosed_to_nobody_whatever_was_agreed_to_before() {
    let house = House::new();
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    let placed = hold(&house, &token);
    house.clock.advance(61 * DAY);
    assert_eq!(house.sweep(), 0);
    let id = pending(&house, &token);
    approve(&house, SECOND, &id).unwrap();
    lift(&house, &placed);
    let done = ask(&house, &token, &FIELDS, CASE).unwrap().unwrap();
    assert!(outcomes(&done) == [Outcome::Expired; 2] && done.fields.iter().all(|one| one.value.is_none()));
    assert_eq!(house.sweep(), 1);
    let done = ask(&house, &token, &FIELDS, CASE).unwrap().unwrap();
    assert_eq!(outcomes(&done), [Outcome::Erased; 2]);
}

/// Eight disclosures at once: an approval serves one of them.
#[test]
fn of_many_at_once_one_is_served() {
    let house = House::new();
    let token = house.tokenize(order(1));
    approve(&house, SECOND, &pending(&house, &token)).unwrap();
    let lanes: Vec<_> = (0..8).map(|_| house.channel(OFFICER.0, OFFICER.1)).collect();
    let fields = FIELDS.map(i32::from).to_vec();
    let ask = DiscloseRequest { token, fields, case: CASE.to_owned() };
    let served = house.run(async {
        let asks = lanes.into_iter().map(|lane| {
            let ask = ask.clone();
            tokio::spawn(async move { DisclosureServiceClient::new(lane).disclose(ask).await })
        });
        let mut served = 0;
        for ask in asks.collect::<Vec<_>>() {
            let reply = ask.await.unwrap().unwrap().into_inner();
            served += usize::from(matches!(reply.result, Some(disclose_response::Result::Done(_))));
        }
        served
    });
    assert_eq!(served, 1);
    assert_eq!(log(&house).iter().filter(|entry| entry.action == Action::Disclose).count(), 1);
}

/// A disclosure and the lifting of the hold that it rests on, at once, over and over: the log's order is the truth.
#[test]
fn no_disclosure_overtakes_the_lifting_of_the_hold_that_it_rests_on() {
    let rounds = if std::env::var_os("STRONGROOM_FULL").is_some() { 400 } else { 40 };
    let house = House::new();
    let tokens: Vec<_> = (0..rounds).map(|n| house.tokenize(order(n))).collect();
    for token in &tokens {
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    let holds: Vec<_> = tokens.iter().map(|token| hold_as(&house, token, token)).collect();
    house.clock.advance(61 * DAY);
    for (token, hold_id) in tokens.into_iter().zip(holds) {
        let lift = LiftHoldRequest { hold_id };
        let mut office = ErasureServiceClient::new(house.channel(OFFICER.0, OFFICER.1));
        let reply = house.run(office.lift_hold(lift.clone())).unwrap().into_inner();
        let Some(lift_hold_response::Result::PendingApproval(waits)) = reply.result else { unreachable!() };
        approve(&house, SECOND, &waits.approval_id).unwrap();
        approve(&house, SECOND, &pending(&house, &token)).unwrap();
        let before = log(&house).len();
        let mut lane = DisclosureServiceClient::new(house.channel(OFFICER.0, OFFICER.1));
        let ask = DiscloseRequest { token, fields: FIELDS.map(i32::from).into(), case: CASE.to_owned() };
        house.run(async {
            let asked = tokio::spawn(async move { lane.disclose(ask).await });
            let lifted = tokio::spawn(async move { office.lift_hold(lift).await });
            asked.await.unwrap().unwrap();
            lifted.await.unwrap().unwrap();
        });
        let entries = log(&house);
        let mut after = entries.iter().skip(before).skip_while(|entry| entry.action != Action::LiftHold).peekable();
        assert!(after.peek().is_some());
        let granted = |entry: &Entry| entry.outcomes.iter().any(|(_, outcome)| *outcome == words::Outcome::Granted);
        assert!(!after.any(granted), "disclosed after its hold was lifted");
    }
}

#[test]
fn another_tenants_officer_discloses_nothing_of_ours_and_is_told_nothing() {
    let mut house = House::new();
    house.stop();
    let rival = "rival";
    let policy = house.config.policies.get(&house.tenant()).unwrap().clone();
    house.config.policies.insert(rival.parse().unwrap(), policy);
    let path = format!("tenant/{rival}/privacy-officer/theirs");
    mint_as(&house, &path, (Role::PrivacyOfficer, "theirs"));
    enrol_of(&house, &path, vec![key_of(&house, Role::PrivacyOfficer, "theirs")]);
    house.start();
    let token = house.tokenize(order(1));
    approve(&house, SECOND, &pending(&house, &token)).unwrap();
    let unknown = strongroom::domain::token::Token::from_bytes([7; 20]).to_text();
    let theirs = (Role::PrivacyOfficer, "theirs");
    let told = |token: &str| {
        let refused = ask_as(&house, theirs, token, &FIELDS, CASE).unwrap_err();
        (refused.code(), refused.message().to_owned(), refused.details().to_vec())
    };
    assert_eq!(told(&token), told(&unknown));
    let held = hold(&house, &token);
    let mut office = ErasureServiceClient::new(house.channel(theirs.0, theirs.1));
    let listed = house.run(office.list_holds(ListHoldsRequest { after: String::new() })).unwrap().into_inner();
    assert!(listed.holds.is_empty());
    let lifted = house.run(office.lift_hold(LiftHoldRequest { hold_id: held })).unwrap_err();
    assert_eq!(reason(&lifted), "NOT_FOUND");
    assert!(ask(&house, &token, &FIELDS, CASE).unwrap().is_ok());
}

#[cfg(feature = "planted")]
#[test]
fn planted_disclosures_by_one_persons_word_turn_these_tests_red() {
    for test in [
        "it_takes_two_people_serves_once_and_is_in_the_log_under_the_approvals_number",
        "who_asked_or_has_their_key_or_may_not_decide_is_no_second_person",
        "an_approval_is_for_that_token_those_fields_and_that_case",
    ] {
        let (passed, printed) = planted::with_fault("disclosure-unwatched", test);
        assert!(!passed && printed.contains("panicked"), "{test}: {printed}");
    }
}
