//! Statistics: one fixed partition, a month at a time, published once; and an attack by somebody who knows everything that was
//! ever stored and every figure that was ever published.
//!
//! `STRONGROOM_FULL=1` attacks a larger shop over more months; `STRONGROOM_SEED=<printed seed>` repeats a run.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;

use std::collections::{BTreeMap, BTreeSet};

use common::{House, address, order, text};
use people::{log, reason, refusals};
use strongroom::audit::entry::{Action, RefusalCode};
use strongroom::crypto::entropy::{Entropy, OsEntropy, SeededEntropy, array};
use strongroom::domain::caller::Role;
use strongroom::domain::time::{Clock as _, DAY, Timestamp};
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::key_service_client::KeyServiceClient;
use strongroom::rpc::proto::statistics_service_client::StatisticsServiceClient;
use strongroom::rpc::proto::{
    self, Class, EventKind, Field, PublishedMonth, PublishedRequest, StatusRequest, TokenizeRequest,
};
use tonic::Status;
use tonic_types::StatusExt;

fn published(house: &House, from: &str, until: &str) -> Result<Vec<PublishedMonth>, Status> {
    let mut vault = StatisticsServiceClient::new(house.channel(Role::Operator, "oncall"));
    let request = PublishedRequest { from: from.to_owned(), until: until.to_owned() };
    house.run(vault.published(request)).map(|reply| reply.into_inner().months)
}

fn all(house: &House) -> Vec<PublishedMonth> {
    published(house, "2025-01", "2028-12").unwrap()
}

/// An order of a customer's, to a country.
fn to(n: usize, customer: &str, country: &str) -> TokenizeRequest {
    let fields = vec![text(Field::RecipientName, "Somebody"), address(&["1 Street"], "Town", "12345", country)];
    TokenizeRequest { subject: customer.to_owned(), fields, ..order(n) }
}

/// Stores orders and has them signed for at once, so that they are desensitized 60 days later.
fn sell(house: &House, orders: impl IntoIterator<Item = TokenizeRequest>) -> Vec<String> {
    let tokens: Vec<String> = orders.into_iter().map(|order| house.tokenize(order)).collect();
    tokens.iter().for_each(|token| house.event(token, EventKind::Delivered, 0).unwrap());
    tokens
}

/// Days pass, each with its sweep.
fn pass(house: &House, days: i64) {
    for _ in 0..days {
        house.clock.advance(DAY);
        house.sweep();
    }
}

fn cells(month: &PublishedMonth) -> Vec<(&str, u64)> {
    month.cells.iter().map(|cell| (cell.country.as_str(), cell.records)).collect()
}

#[test]
fn an_open_month_its_tallies_and_a_hold_go_along_to_the_next_epoch() {
    let house = House::new();
    sell(&house, (0..12).map(|n| to(n, &format!("de-{n}"), "DE")));
    let hold = proto::PlaceHoldRequest {
        idempotency_key: "hold".to_owned(),
        token: house.tokenize(to(50, "held", "DE")),
        kind: proto::HoldKind::Court.into(),
        case_reference: "12 O 345/26".to_owned(),
        ..Default::default()
    };
    let mut officer = ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    house.run(officer.place_hold(hold)).unwrap();
    pass(&house, 61);
    let vault = house.vault();
    let was = vault.store().keyring().active().number();
    let mut keys = KeyServiceClient::new(house.channel(Role::KeyAdmin, "office"));
    house.run(async {
        // Refused if the schedule was first: then it has rotated.
        if let Ok(moving) = keys.rotate_kek(proto::RotateKekRequest { active_epoch: was.0 }).await {
            let mut moving = moving.into_inner();
            while let Ok(Some(_)) = moving.message().await {}
        }
    });
    let old = || {
        let rows = vault.store().read(|view| view.rows_under(None)).unwrap();
        rows.into_iter()
            .filter(|rows| ["hold", "month", "tally"].contains(&rows.table.as_str()) && rows.epoch <= was)
            .count()
    };
    for _ in 0..100 {
        if old() == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(old(), 0);
    // Its key went along: the month's last orders are counted and published as ever.
    pass(&house, 25);
    let published = all(&house);
    assert_eq!((cells(&published[0]), published[0].other), (vec![("DE", 12)], 0));
}

#[test]
fn a_month_is_published_when_it_is_over_and_never_changes() {
    let mut house = House::new();
    // 2026-01-05: desensitized on 2026-03-06.
    sell(&house, (0..12).map(|n| to(n, &format!("de-{n}"), "DE")));
    sell(&house, (20..25).map(|n| to(n, &format!("fr-{n}"), "FR")));
    sell(&house, (30..36).map(|n| to(n, &format!("it-{n}"), "IT")));
    pass(&house, 61);
    assert!(all(&house).is_empty(), "March is not over");
    pass(&house, 24);
    assert!(all(&house).is_empty(), "on the 31st neither");
    house.clock.advance(DAY);
    house.sweep();
    let first = all(&house);
    assert_eq!(first.iter().map(|month| month.month.as_str()).collect::<Vec<_>>(), ["2026-03"]);
    let march = first.first().unwrap();
    assert_eq!((cells(march), march.other), (vec![("DE", 12)], 11));
    assert_eq!(march.cells.first().unwrap().class(), Class::Order);
    assert_eq!(log(&house).iter().filter(|entry| entry.action == Action::CloseMonth).count(), 1);
    // More of the same, later: another month's business.
    sell(&house, (40..60).map(|n| to(n, &format!("de-{n}"), "DE")));
    house.stop();
    house.start();
    pass(&house, 120);
    let later = all(&house);
    assert_eq!(later.first(), Some(march));
    assert_eq!(later.iter().map(|month| month.month.as_str()).collect::<Vec<_>>(), ["2026-03", "2026-05"]);
    assert_eq!(published(&house, "2026-04", "2026-05").unwrap(), later.get(1..).unwrap());
}

#[test]
fn nothing_that_tells_one_person_from_another_outlives_the_month() {
    let house = House::new();
    sell(&house, (0..30).map(|n| to(n, &format!("de-{n}"), "DE")));
    pass(&house, 61);
    let database = rusqlite::Connection::open(&house.config.store.database).unwrap();
    let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT COUNT(*) FROM tally"), 30);
    assert_eq!(count("SELECT COUNT(*) FROM month WHERE length(key) > 0"), 1);
    let key: Vec<u8> = database.query_row("SELECT key FROM month", [], |row| row.get(0)).unwrap();
    pass(&house, 26);
    assert_eq!(
        (count("SELECT COUNT(*) FROM tally"), count("SELECT COUNT(*) FROM month WHERE length(key) > 0")),
        (0, 0)
    );
    for file in ["strongroom.db", "strongroom.db-wal"] {
        let bytes = std::fs::read(house.data().join(file)).unwrap();
        assert!(!bytes.windows(key.len()).any(|window| window == key), "the month's key is still in {file}");
    }
}

#[test]
fn one_person_is_one_person_however_many_records_and_however_often_forgotten_in_between() {
    let house = House::new();
    // Nine customers with three orders each, and one who comes back after being forgotten: the same one, by reference.
    sell(&house, (0..27).map(|n| to(n, &format!("de-{}", n % 9), "DE")));
    pass(&house, 61);
    let back = to(99, "de-0", "DE");
    let token = house.tokenize(back);
    let long_ago = strongroom::rpc::proto::ReportEventRequest {
        idempotency_key: "long-ago".to_owned(),
        token,
        kind: EventKind::Delivered.into(),
        ordinal: 0,
        occurred_at: Some(common::wire_time(house.clock.now().plus(-61 * DAY))),
    };
    house.run(house.lifecycle().report_event(long_ago)).unwrap();
    assert_eq!(house.sweep(), 1, "forgotten a second time in the same month");
    pass(&house, 26);
    let months = all(&house);
    let march = months.first().unwrap();
    assert_eq!((march.month.as_str(), cells(march), march.other), ("2026-03", vec![], 0), "nine are too few");
}

#[test]
fn what_is_erased_on_request_is_not_counted() {
    let house = House::new();
    let tokens = sell(&house, (0..10).map(|n| to(n, &format!("de-{n}"), "DE")));
    let request = strongroom::rpc::proto::EraseRequest {
        idempotency_key: "e".to_owned(),
        token: tokens.first().unwrap().clone(),
        reason: strongroom::rpc::proto::EraseReason::SubjectRequest.into(),
    };
    house.run(house.tokens().erase(request)).unwrap();
    pass(&house, 90);
    assert!(all(&house).iter().all(|month| month.cells.is_empty() && month.other == 0));
}

#[test]
fn there_is_no_other_question_to_ask() {
    let house = House::new();
    for (from, until, field, why) in [
        ("", "2026-03", "from", "MISSING"),
        ("2026-01", "", "until", "MISSING"),
        ("2026-1", "2026-03", "from", "NOT_A_MONTH"),
        ("2026-01", "2026-03-01", "until", "NOT_A_MONTH"),
        ("2026-03", "2026-01", "until", "NOT_A_MONTH"),
        ("1999-01", "2026-01", "until", "NOT_A_MONTH"),
    ] {
        let refused = published(&house, from, until).unwrap_err();
        let violation = refused.get_error_details().bad_request().unwrap().field_violations.first().unwrap().clone();
        assert_eq!((violation.field.as_str(), reason(&refused).as_str()), (field, why), "{from} {until}");
    }
    assert_eq!(refusals(&house).len(), 6);
    let mut auditor = StatisticsServiceClient::new(house.channel(Role::Auditor, "office"));
    let request = PublishedRequest { from: "2026-01".to_owned(), until: "2026-03".to_owned() };
    assert_eq!(reason(&house.run(auditor.published(request)).unwrap_err()), "ROLE_NOT_ALLOWED");
}

#[test]
fn a_tally_that_was_altered_withholds_its_month_and_is_told_of() {
    let house = House::new();
    sell(&house, (0..20).map(|n| to(n, &format!("de-{n}"), "DE")));
    pass(&house, 61);
    let database = rusqlite::Connection::open(&house.config.store.database).unwrap();
    database.execute("UPDATE tally SET count = 1000 WHERE who = (SELECT MIN(who) FROM tally)", []).unwrap();
    pass(&house, 26);
    let months = all(&house);
    let march = months.first().unwrap();
    assert_eq!((cells(march), march.other), (vec![], 0));
    assert!(refusals(&house).contains(&(Action::Tamper, RefusalCode::Tampered)));
}

// The attack.

/// What the attacker knows of one record: all there is.
struct Known {
    customer: String,
    country: String,
    /// `2026-03`: when it was desensitized.
    month: String,
}

fn month(at: Timestamp) -> String {
    at.to_jiff().to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m").to_string()
}

/// Every group of people that some published figure, or a difference between figures, speaks of. The attacker knows who is in
/// which cell, so he knows of each figure whom it counts; and as every record is in one cell of one month alone and figures
/// of different months share nobody's record, all he can make of them are sums of disjoint groups, and what is left of a
/// month when its figures are taken from the total that he can count himself.
fn groups(known: &[Known], months: &[PublishedMonth]) -> Vec<BTreeSet<String>> {
    let mut groups = Vec::new();
    for published in months {
        let mut cells: BTreeMap<&str, Vec<&Known>> = BTreeMap::new();
        for record in known.iter().filter(|record| record.month == published.month) {
            cells.entry(&record.country).or_default().push(record);
        }
        let people = |records: &[&Known]| records.iter().map(|record| record.customer.clone()).collect::<BTreeSet<_>>();
        for cell in &published.cells {
            let records = cells.remove(cell.country.as_str()).expect("a figure about nobody");
            assert_eq!(records.len() as u64, cell.records, "{} {}", published.month, cell.country);
            groups.push(people(&records));
        }
        let rest: Vec<&Known> = cells.into_values().flatten().collect();
        // `other`, or the difference between the attacker's own total and what is published.
        if published.other > 0 {
            assert_eq!(rest.len() as u64, published.other, "{}", published.month);
        }
        if published.other > 0 || !published.cells.is_empty() {
            groups.push(people(&rest));
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}

fn attack(fault_is_planted: bool) -> (Vec<BTreeSet<String>>, usize) {
    let is_full = std::env::var_os("STRONGROOM_FULL").is_some() && !fault_is_planted;
    let seed = std::env::var("STRONGROOM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from_le_bytes(array(&OsEntropy)));
    println!("STRONGROOM_SEED={seed}");
    let dice = SeededEntropy::new(seed);
    let below = |end: u64| u64::from_le_bytes(array(&dice as &dyn Entropy)) % end;
    let (orders, days) = if is_full { (1_500, 300) } else { (220, 75) };
    // Few large countries, many small ones; most customers order once, some often.
    let countries = ["DE", "DE", "DE", "DE", "FR", "FR", "IT", "ES", "AT", "CH", "BE", "NL", "LU", "MT"];
    let mut when: Vec<(i64, TokenizeRequest)> = (0..orders)
        .map(|n| {
            let customer = if below(3) == 0 { below(12) } else { 100 + below(orders as u64) };
            let country = countries[usize::try_from(below(countries.len() as u64)).unwrap()];
            (i64::try_from(below(days)).unwrap(), to(n, &format!("customer-{customer}"), country))
        })
        .collect();
    when.sort_by_key(|(day, _)| *day);
    let house = House::new();
    let (mut known, mut today) = (Vec::new(), 0);
    let (mut tokens, mut lifecycle) = (house.tokens(), house.lifecycle());
    for (day, request) in when {
        pass(&house, day - today);
        today = day;
        let strongroom::rpc::proto::field_value::Value::Address(address) = request.fields[1].value.clone().unwrap()
        else {
            unreachable!()
        };
        let (customer, country) = (request.subject.clone(), address.country.clone());
        let token = house.run(tokens.tokenize(request)).unwrap().into_inner().token;
        let now = house.clock.now();
        let signed = strongroom::rpc::proto::ReportEventRequest {
            idempotency_key: format!("signed-{}", known.len()),
            token,
            kind: EventKind::Delivered.into(),
            ordinal: 0,
            occurred_at: Some(common::wire_time(now)),
        };
        house.run(lifecycle.report_event(signed)).unwrap();
        known.push(Known { customer, country, month: month(now.plus(60 * DAY)) });
    }
    pass(&house, 95);
    let status = house.run(house.operations().status(StatusRequest {})).unwrap().into_inner();
    assert_eq!(status.records_live + status.records_due, 0);
    let months = all(&house);
    let figures = months.iter().map(|month| month.cells.len() + usize::from(month.other > 0)).sum();
    println!("{} records, {} months, {figures} figures", known.len(), months.len());
    assert!(months.len() >= 3);
    (groups(&known, &months), figures)
}

#[test]
fn an_attack_with_all_that_was_ever_stored_and_published_singles_out_nobody() {
    let (groups, figures) = attack(false);
    assert!(figures >= 4, "the attack had something to work with");
    let fewest = groups.iter().map(BTreeSet::len).min().unwrap();
    println!("the smallest group that any figure or difference speaks of: {fewest} people");
    assert!(fewest >= 10);
}

#[cfg(feature = "planted")]
#[test]
fn planted_small_cells_are_what_the_attack_finds() {
    strongroom::domain::fault::plant(strongroom::domain::fault::Fault::SmallCells);
    let (groups, _) = attack(true);
    assert!(groups.iter().any(|group| group.len() < 10));
}
