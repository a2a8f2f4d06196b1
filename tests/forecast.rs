//! What disappears in the days to come: forecast, then lived day by day and compared; what changes a forecast, what keeps something
//! from going, who is told what, and pages that are complete while records go.
//!
//! `STRONGROOM_FULL=1` lives more orders for longer; `STRONGROOM_SEED` replays a run. Planted faults: what goes before its record is
//! left out; another shop's records are told; everything is due a day early.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "forecast/command.rs"]
mod command;
mod common;
#[path = "forecast/pages.rs"]
mod pages;
#[path = "common/people.rs"]
mod people;
#[cfg(feature = "planted")]
#[path = "common/planted.rs"]
mod planted;
#[path = "forecast/restored.rs"]
mod restored;
#[path = "forecast/truth.rs"]
mod truth;

use std::collections::BTreeMap;

use common::{House, order};
use people::{approvals, log, reason};
use rusqlite::Connection;
use strongroom::audit::entry::{Action, Verdict};
use strongroom::domain::caller::Role;
use strongroom::domain::time::{Clock as _, DAY, HOUR};
use strongroom::domain::token::Token;
use strongroom::policy::retention::Policy;
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::retention_service_client::RetentionServiceClient;
use strongroom::rpc::proto::{
    ApproveRequest, Class, Ending, EventKind, ExplainRetentionRequest, ForecastGroup, ForecastRecord, HoldKind,
    LiftHoldRequest, PlaceHoldRequest, RetentionForecastRequest, RetentionForecastResponse, RetentionOutlookRequest,
    RetentionOutlookResponse, lift_hold_response,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Phone and street first, the city to the end; by the clocks of a place that changes them.
const STAGED: &str = r#"
id = "staged"
zone = "Europe/Berlin"

[class.order]
fields = ["recipient_name", "address", "phone", "email", "payment_account"]
action = "desensitize"
wait_for = ["refund"]
# Section 1: the shop's own sixty days.
after.delivered = "P60D"
cap = "P85D"

[class.order.field.phone]
wait_for = ["refund"]
# Section 2: nobody rings after a fortnight.
after.delivered = "P14D"

[class.order.field.address_lines]
# Section 3: the street goes a month after delivery.
after.delivered = "P30D"

[class.account]
fields = ["account_name", "email"]
action = "purge"
# Section 4: an account that sleeps.
inactive_after = "P40D"
cap = "P80D"
"#;

const OFFICER: (Role, &str) = (Role::PrivacyOfficer, "office");
const SHOP: (Role, &str) = (Role::Shop, "backend");
const OPERATOR: (Role, &str) = (Role::Operator, "oncall");

fn staged() -> House {
    House::under(Policy::parse(STAGED).unwrap())
}

fn retention(house: &House, (role, name): (Role, &str)) -> RetentionServiceClient<Channel> {
    RetentionServiceClient::new(house.channel(role, name))
}

fn asked(days: u32, page_size: u32) -> RetentionForecastRequest {
    RetentionForecastRequest { days, page_size, page_token: Vec::new() }
}

fn page(
    house: &House,
    caller: (Role, &str),
    request: RetentionForecastRequest,
) -> Result<RetentionForecastResponse, Status> {
    house.run(retention(house, caller).retention_forecast(request)).map(tonic::Response::into_inner)
}

/// Every page of a forecast.
fn pages(house: &House, caller: (Role, &str), days: u32, size: u32) -> Vec<RetentionForecastResponse> {
    let (mut vault, mut request, mut pages) = (retention(house, caller), asked(days, size), Vec::new());
    loop {
        let page = house.run(vault.retention_forecast(request.clone())).unwrap().into_inner();
        request.page_token.clone_from(&page.page_token);
        pages.push(page);
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

/// Every page of an outlook, as an operator gets it.
fn outlook(house: &House, days: u32) -> Vec<RetentionOutlookResponse> {
    let (mut vault, mut pages) = (retention(house, OPERATOR), Vec::<RetentionOutlookResponse>::new());
    loop {
        let page_token = pages.last().map(|page| page.page_token.clone()).unwrap_or_default();
        let request = RetentionOutlookRequest { days, page_token };
        let page = house.run(vault.retention_outlook(request)).unwrap().into_inner();
        let is_last = page.page_token.is_empty();
        pages.push(page);
        if is_last {
            return pages;
        }
    }
}

fn records(house: &House, days: u32) -> Vec<ForecastRecord> {
    pages(house, OFFICER, days, 256).into_iter().flat_map(|page| page.records).collect()
}

/// What goes of one record, with the reason, in the order in which it goes.
fn goes(house: &House, token: &str, days: u32) -> Vec<(String, String)> {
    let record = records(house, days).into_iter().find(|record| record.digest == digest(house, token));
    let goes = record.map(|record| record.goes).unwrap_or_default();
    goes.into_iter().map(|going| (going.piece, going.why.unwrap().due_by)).collect()
}

fn told<'a>(pieces: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    pieces.into_iter().map(|(piece, why)| (piece.to_owned(), why.to_owned())).collect()
}

#[test]
fn events_bring_what_they_start_into_the_forecast_and_take_out_what_they_hold_up() {
    let house = staged();
    let token = house.tokenize(order(1));
    assert_eq!(goes(&house, &token, 84), [], "the cap is a day beyond");
    assert_eq!(goes(&house, &token, 86), told([("", "cap")]));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    let all = [("phone", "after delivered"), ("address_lines", "after delivered"), ("", "after delivered")];
    assert_eq!(goes(&house, &token, 60), told(all));
    assert_eq!(goes(&house, &token, 59), told(all[..2].iter().copied()));
    assert_eq!(goes(&house, &token, 13), []);
    house.clock.advance(DAY);
    house.event(&token, EventKind::RefundOpened, 0).unwrap();
    // The street waits for nothing; the record for the refund, at most until its cap.
    let waiting = "cap, waiting for refund_settled";
    assert_eq!(goes(&house, &token, 86), told([("address_lines", "after delivered"), ("", waiting)]));
    house.clock.advance(62 * DAY);
    house.sweep();
    assert_eq!(goes(&house, &token, 86), told([("", waiting)]), "the street is gone");
    house.event(&token, EventKind::RefundSettled, 0).unwrap();
    assert_eq!(goes(&house, &token, 1), told([("", "at refund_settled")]), "with the phone");
    house.sweep();
    assert_eq!(records(&house, 400), []);
}

#[test]
fn what_came_too_late_to_hold_a_piece_up_leaves_it_in_the_forecast() {
    let house = staged();
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    house.clock.advance(14 * DAY);
    house.event(&token, EventKind::RefundOpened, 0).unwrap();
    assert_eq!(goes(&house, &token, 1), told([("phone", "over")]));
    house.sweep();
    assert_eq!(goes(&house, &token, 1), []);
}

#[test]
fn why_something_goes_is_what_explaining_the_record_says() {
    let house = staged();
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    let request = ExplainRetentionRequest { token: token.clone() };
    let explained = house.run(retention(&house, SHOP).explain_retention(request)).unwrap().into_inner();
    let forecast = records(&house, 60);
    let [record] = &forecast[..] else { panic!("{}", forecast.len()) };
    let whys: Vec<_> = record.goes.iter().map(|going| (going.piece.clone(), going.why.clone())).collect();
    let pieces = explained.pieces.into_iter().map(|piece| (piece.piece, piece.why));
    let expected: Vec<_> = pieces.chain([(String::new(), explained.record)]).collect();
    assert_eq!(whys, expected);
    assert!(whys[0].1.as_ref().unwrap().source.starts_with("Section 2"));
    let endings: Vec<_> = record.goes.iter().map(|going| going.ending()).collect();
    assert_eq!(endings, [Ending::Shredded, Ending::Shredded, Ending::Desensitized]);
    assert_eq!((record.class(), record.token.as_str()), (Class::Order, token.as_str()));
}

#[test]
fn what_a_hold_keeps_is_forecast_as_held_and_stays_until_it_is_lifted() {
    let house = staged();
    let (kept, free) = (house.tokenize(order(1)), house.tokenize(order(2)));
    for token in [&kept, &free] {
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    let mut office = ErasureServiceClient::new(house.channel(OFFICER.0, OFFICER.1));
    let place = PlaceHoldRequest {
        idempotency_key: "hold".to_owned(),
        token: kept.clone(),
        kind: HoldKind::Court.into(),
        case_reference: "12 O 345/26".to_owned(),
        ..Default::default()
    };
    let hold_id = house.run(office.place_hold(place)).unwrap().into_inner().hold_id;
    let holds = |record: &ForecastRecord| record.goes.iter().map(|going| going.held_by()).collect::<Vec<_>>();
    let held: BTreeMap<_, _> = records(&house, 60).iter().map(|one| (one.token.clone(), holds(one))).collect();
    assert_eq!(held[&kept], [HoldKind::Court; 3]);
    assert_eq!(held[&free], [HoldKind::Unspecified; 3]);
    house.clock.advance(61 * DAY);
    assert_eq!(house.sweep(), 1);
    // Overdue, and told as of today: unreadable, so that its token opens nothing and is not told.
    let pages = pages(&house, OFFICER, 1, 256);
    let [record] = &pages[0].records[..] else { panic!("{}", pages[0].records.len()) };
    assert_eq!((holds(record), record.token.as_str()), (vec![HoldKind::Court; 3], ""));
    assert_eq!(record.digest, digest(&house, &kept));
    let today = "2026-03-07";
    assert!(pages[0].groups.iter().all(|group| group.day == today && group.held_by() == HoldKind::Court));
    let lift = LiftHoldRequest { hold_id };
    let pending = house.run(office.lift_hold(lift.clone())).unwrap().into_inner().result;
    let Some(lift_hold_response::Result::PendingApproval(pending)) = pending else { panic!("lifted by one") };
    let approve = ApproveRequest { approval_id: pending.approval_id };
    house.run(approvals(&house, Role::KeyAdmin, "office").approve(approve)).unwrap();
    house.run(office.lift_hold(lift)).unwrap();
    assert_eq!(holds(&records(&house, 1)[0]), [HoldKind::Unspecified; 3]);
    assert_eq!((house.sweep(), records(&house, 400).len()), (1, 0));
}

fn digest(house: &House, token: &str) -> String {
    hex::encode(Token::parse(token).unwrap().digest(&house.tenant()).0)
}

/// Groups summed up, whichever page they were on.
fn summed<'a>(pages: impl IntoIterator<Item = &'a Vec<ForecastGroup>>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for group in pages.into_iter().flatten() {
        let ForecastGroup { day, piece, due_by, rule, .. } = group;
        let name =
            format!("{day} {:?} {piece} {:?} {due_by} {rule} {:?}", group.class(), group.ending(), group.held_by());
        *sums.entry(name).or_default() += group.records;
    }
    sums
}

#[test]
fn tokens_are_told_to_the_privacy_officer_digests_to_the_shop_and_an_operator_sees_sums() {
    let house = staged();
    let tokens: Vec<_> = (0..5).map(|n| house.tokenize(order(n))).collect();
    for token in &tokens {
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    let [officer, shop] = [OFFICER, SHOP].map(|caller| pages(&house, caller, 60, 2));
    let operator = outlook(&house, 60);
    let sums = |pages: &[RetentionForecastResponse]| summed(pages.iter().map(|page| &page.groups));
    let outlook = summed(operator.iter().map(|page| &page.groups));
    let named = |pages: &[RetentionForecastResponse]| -> Vec<(String, String)> {
        let records = pages.iter().flat_map(|page| &page.records);
        records.map(|record| (record.token.clone(), record.digest.clone())).collect()
    };
    let expected = |is_told: bool| -> Vec<_> {
        let token = |token: &String| if is_told { token.clone() } else { String::new() };
        tokens.iter().map(|one| (token(one), digest(&house, one))).collect()
    };
    assert_eq!((named(&officer), named(&shop)), (expected(true), expected(false)));
    assert_eq!((officer.len(), operator.len(), outlook.values().sum::<u64>()), (3, 1, 15));
    assert!(sums(&officer) == outlook && sums(&shop) == outlook);
    let street = "2026-02-04 CLASS_ORDER address_lines ENDING_SHREDDED after delivered \
                  order.field.address_lines.after.delivered = \"P30D\" HOLD_KIND_UNSPECIFIED";
    assert_eq!(outlook.get(street), Some(&5), "{outlook:?}");
    assert_eq!(operator[0].zone, "Europe/Berlin");
    let told: Vec<_> = log(&house).into_iter().map(|entry| (entry.action, entry.verdict)).collect();
    let count = |action| told.iter().filter(|told| **told == (action, Verdict::Done)).count();
    assert_eq!(count(Action::RetentionForecast), officer.len() + shop.len());
    assert_eq!(count(Action::RetentionOutlook), operator.len());
}

#[test]
fn what_is_asked_wrongly_is_refused_by_the_fields_name() {
    let house = staged();
    let token = |text: &[u8]| RetentionForecastRequest { page_token: text.to_vec(), ..asked(7, 1) };
    for (request, field, why) in [
        (asked(0, 1), "days", "MISSING"),
        (asked(401, 1), "days", "TOO_MANY"),
        (asked(7, 257), "page_size", "TOO_MANY"),
        (token(b"page 2"), "page_token", "UNKNOWN"),
    ] {
        let refused = page(&house, OFFICER, request).unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, why), "{field}");
        assert!(format!("{refused:?}").contains(field), "{refused:?}");
    }
    let outlook = RetentionOutlookRequest { days: 401, page_token: Vec::new() };
    let refused = house.run(retention(&house, OPERATOR).retention_outlook(outlook)).unwrap_err();
    assert_eq!(reason(&refused), "TOO_MANY");
    for caller in [(Role::Carrier, "swift"), (Role::Auditor, "office"), (Role::KeyAdmin, "office"), OPERATOR] {
        let refused = page(&house, caller, asked(7, 1)).unwrap_err();
        assert_eq!(reason(&refused), "ROLE_NOT_ALLOWED");
    }
}

#[test]
fn a_record_that_was_altered_is_counted_and_the_others_are_told() {
    let mut house = staged();
    let tokens: Vec<_> = (0..3).map(|n| house.tokenize(order(n))).collect();
    for token in &tokens {
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    house.stop();
    let connection = Connection::open(&house.config.store.database).unwrap();
    // Said to be due today, and nothing else of it.
    let changed = connection.execute(
        "UPDATE record SET due = ?1 WHERE rowid = (SELECT MAX(rowid) FROM record)",
        [house.clock.now().plus(HOUR).0],
    );
    assert_eq!(changed.unwrap(), 1);
    drop(connection);
    house.start();
    for _ in 0..2 {
        let answer = page(&house, OFFICER, asked(60, 256)).unwrap();
        let told: Vec<_> = answer.records.iter().map(|record| record.token.clone()).collect();
        assert_eq!((answer.altered, told), (1, tokens[..2].to_vec()));
    }
    let tampers = log(&house).into_iter().filter(|entry| entry.action == Action::Tamper).count();
    assert_eq!(tampers, 1, "told once, however often it is met");
}

#[cfg(feature = "planted")]
#[test]
fn planted_forecasts_that_are_wrong_turn_these_tests_red() {
    for (fault, test) in [
        ("forecast-blind", "truth::what_goes_day_by_day_is_what_was_forecast"),
        ("due-early", "events_bring_what_they_start_into_the_forecast_and_take_out_what_they_hold_up"),
        ("holds-off", "what_a_hold_keeps_is_forecast_as_held_and_stays_until_it_is_lifted"),
        ("forecast-foreign", "pages::another_shops_records_are_not_in_it_and_a_page_that_shows_none_is_not_the_last"),
    ] {
        let (passed, printed) = planted::with_fault(fault, test);
        assert!(!passed && printed.contains("panicked"), "{fault}: {printed}");
    }
}
