//! Pieces that go before their record.

use std::fs;

use rusqlite::{Connection, OpenFlags};
use strongroom::audit::entry::Action;
use strongroom::domain::time::{DAY, MINUTE};
use strongroom::domain::vocabulary::{Field as Kept, Outcome as Told};
use strongroom::policy::retention::Policy;
use strongroom::rpc::proto::{DescribeRequest, EventKind, Field, GrantShipmentRequest, Outcome};
use tonic::Code;

use super::{address, correct, deliver, outcome, read, staged};
use crate::common::{House, order, text, wire_time};
use crate::people::{log, reason};

#[test]
fn a_phone_goes_first_and_then_the_street_and_the_city_stays_to_the_end() {
    let house = staged();
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    house.clock.advance(14 * DAY - MINUTE);
    assert_eq!((house.sweep(), outcome(&house, &token, Field::Phone)), (0, Outcome::Granted));
    house.clock.advance(MINUTE);
    // Unreadable at once, before any sweeping.
    assert_eq!(read(&house, &token, &[Field::Phone, Field::Email, Field::RecipientName]).len(), 3);
    assert_eq!(outcome(&house, &token, Field::Phone), Outcome::Expired);
    assert_eq!(outcome(&house, &token, Field::RecipientName), Outcome::Granted);
    assert_eq!(house.sweep(), 0, "the record goes on");
    assert_eq!(outcome(&house, &token, Field::Phone), Outcome::Expired, "and says why it has no phone");
    assert_eq!(address(&house, &token).lines, ["1 Kastanienallee", "Hinterhaus"]);
    house.clock.advance(16 * DAY);
    let unswept = address(&house, &token);
    house.sweep();
    for left in [unswept, address(&house, &token)] {
        assert!(left.lines.is_empty());
        assert_eq!(
            (left.locality.as_str(), left.postal_code.as_str(), left.country.as_str()),
            ("Berlin", "10435", "DE")
        );
    }
    let mut tokens = house.tokens();
    let described = house.run(tokens.describe(DescribeRequest { token: token.clone() })).unwrap().into_inner();
    assert_eq!((described.revision, described.due_by.as_str()), (3, "after delivered"));
    assert!(!described.fields.contains(&Field::Phone.into()) && described.fields.contains(&Field::Address.into()));
    house.clock.advance(30 * DAY);
    assert_eq!(outcome(&house, &token, Field::RecipientName), Outcome::Expired);
    assert_eq!(house.sweep(), 1);
    assert_eq!(outcome(&house, &token, Field::Phone), Outcome::Erased);
    let tenant = house.tenant();
    let vault = house.vault();
    let tallies = vault.store().read(|view| {
        let months = view.months(&tenant, i64::MIN, i64::MAX)?;
        view.tallies(&tenant, months.last().unwrap().month)
    });
    let countries: Vec<_> = tallies.unwrap().into_iter().map(|tally| tally.cell.country).collect();
    assert_eq!(countries, ["DE"], "an address without lines still counts its country");
    let told: Vec<_> =
        log(&house).into_iter().filter(|entry| entry.action == Action::Stage).map(|entry| entry.outcomes).collect();
    assert_eq!(told, [[(Kept::Phone, Told::Expired)], [(Kept::Address, Told::Expired)]]);
}

fn look(house: &House, sql: &str) -> Vec<Vec<u8>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(&house.config.store.database, flags).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn is_in_a_file(house: &House, part: &[u8]) -> bool {
    let files = fs::read_dir(house.data()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.into_iter().any(|path| fs::read(path).unwrap().windows(part.len()).any(|window| window == part))
}

#[test]
fn nothing_of_what_went_is_left_in_any_file() {
    let house = staged();
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    let keys = look(&house, "SELECT wrapped FROM dek WHERE record > 0");
    let values = look(&house, "SELECT bytes FROM sealed");
    assert!(keys.iter().chain(&values).all(|bytes| is_in_a_file(&house, bytes)), "the search finds what is there");
    house.clock.advance(14 * DAY);
    house.sweep();
    assert!(!keys.iter().chain(&values).any(|bytes| is_in_a_file(&house, bytes)));
    assert_eq!(look(&house, "SELECT bytes FROM sealed").len(), values.len() - 1, "no part for the phone");
    let ledger = fs::read_to_string(&house.config.store.ledger).unwrap();
    let superseded = "\"superseded\":{\"revision\":1,\"over\":[\"phone\"]}";
    assert_eq!((ledger.matches("\"superseded\"").count(), ledger.matches(superseded).count()), (1, 1), "{ledger}");
    assert_eq!(outcome(&house, &token, Field::RecipientName), Outcome::Granted, "the survivors open under the new key");
}

#[test]
fn an_event_holds_a_piece_up_in_time_and_brings_nothing_back_that_is_over() {
    let house = staged();
    let (held, over) = (house.tokenize(order(1)), house.tokenize(order(2)));
    for token in [&held, &over] {
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    house.clock.advance(13 * DAY);
    house.event(&held, EventKind::RefundOpened, 0).unwrap();
    house.clock.advance(DAY);
    // Not swept yet: what is heard now comes too late for the phone, if not for the record.
    house.event(&over, EventKind::RefundOpened, 0).unwrap();
    assert_eq!(outcome(&house, &over, Field::Phone), Outcome::Expired);
    assert_eq!(outcome(&house, &held, Field::Phone), Outcome::Granted);
    house.sweep();
    assert_eq!(outcome(&house, &over, Field::Phone), Outcome::Expired);
    assert_eq!(outcome(&house, &held, Field::Phone), Outcome::Granted);
    let sealed = look(&house, "SELECT bytes FROM sealed");
    assert_eq!(sealed.len(), 2 * 6 - 1, "the one's phone is gone, the other's is not");
    house.clock.advance(DAY);
    house.event(&held, EventKind::RefundSettled, 0).unwrap();
    assert_eq!(outcome(&house, &held, Field::Phone), Outcome::Expired, "at the settlement its time was over");
}

#[test]
fn a_field_that_is_over_takes_no_new_value_and_a_correction_leaves_it_behind() {
    let house = staged();
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    house.clock.advance(14 * DAY);
    let phone = || vec![text(Field::Phone, "+49 30 901821"), text(Field::RecipientName, "Vera Ottokar")];
    let refused = correct(&house, &token, 1, phone()).unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "RETENTION_OVER"));
    assert_eq!(correct(&house, &token, 1, vec![text(Field::RecipientName, "Vera Ottokar")]).unwrap(), 2);
    assert_eq!(look(&house, "SELECT bytes FROM sealed").len(), 5, "the correction left the phone behind");
    house.sweep();
    assert_eq!(reason(&correct(&house, &token, 2, phone()).unwrap_err()), "RETENTION_OVER");
    assert_eq!(outcome(&house, &token, Field::Phone), Outcome::Expired);
}

#[test]
fn without_its_street_an_address_is_no_carriers() {
    let house = House::under(Policy::parse(&super::STAGED.replace("\"P30D\"", "\"P30D\"\ncap = \"P2D\"")).unwrap());
    let token = house.tokenize(order(1));
    house.grant(&token, "SW-000001", "swift");
    assert_eq!(deliver(&house, "SW-000001").unwrap().address.unwrap().lines.len(), 2);
    house.clock.advance(2 * DAY);
    for _ in 0..2 {
        assert_eq!(deliver(&house, "SW-000001").unwrap_err().code(), Code::NotFound);
        house.sweep();
    }
    let request = GrantShipmentRequest {
        idempotency_key: "g".to_owned(),
        token,
        serial: "SW-000002".to_owned(),
        carrier: "swift".to_owned(),
        not_before: Some(wire_time(crate::common::START)),
        not_after: Some(wire_time(crate::common::START.plus(9 * DAY))),
        read_limit: 1,
        parcel: 0,
    };
    let mut lifecycle = house.lifecycle();
    assert_eq!(reason(&house.run(lifecycle.grant_shipment(request)).unwrap_err()), "EXPIRED");
}

#[test]
fn a_clock_that_leaps_hides_a_piece_and_destroys_nothing() {
    let house = staged();
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    house.clock.leap(20 * DAY);
    assert_eq!(outcome(&house, &token, Field::Phone), Outcome::Expired);
    house.sweep();
    house.event(&token, EventKind::Placed, 0).unwrap();
    assert_eq!(correct(&house, &token, 1, vec![text(Field::RecipientName, "Vera Ottokar")]).unwrap(), 2);
    house.clock.leap(-20 * DAY);
    assert_eq!(outcome(&house, &token, Field::Phone), Outcome::Granted);
}

#[test]
fn a_stage_that_was_missed_is_made_up_for_at_the_start() {
    let mut house = staged();
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    house.stop();
    house.clock.advance(40 * DAY);
    house.start();
    assert_eq!(look(&house, "SELECT bytes FROM sealed").len(), 5, "the start's own sweep took the phone");
    assert!(address(&house, &token).lines.is_empty());
}

#[test]
fn a_carrier_gets_the_phone_where_the_records_policy_says_so_and_nowhere_else() {
    let off = Policy::parse(Policy::CROSS_BORDER).unwrap();
    let on = Policy::parse(&Policy::CROSS_BORDER.replace("carrier = []", "carrier = [\"phone\"]")).unwrap();
    let mut house = House::under(off);
    let without = |n| {
        let mut request = order(n);
        request.fields.retain(|value| value.field() != Field::PaymentAccount);
        request
    };
    let plain = house.tokenize(without(1));
    house.grant(&plain, "SW-000001", "swift");
    assert_eq!(deliver(&house, "SW-000001").unwrap().phone, "");
    house.stop();
    house.config.policies.insert(house.tenant(), on);
    house.start();
    let wide = house.tokenize(without(2));
    house.grant(&wide, "SW-000002", "swift");
    assert_eq!(deliver(&house, "SW-000002").unwrap().phone, "+4930901820");
    assert_eq!(deliver(&house, "SW-000001").unwrap().phone, "", "a record lives by the policy it was collected under");
    let told = log(&house).into_iter().filter(|entry| entry.action == Action::GetDelivery);
    let phones: Vec<bool> = told.map(|entry| entry.outcomes.contains(&(Kept::Phone, Told::Granted))).collect();
    assert_eq!(phones, [false, true, false]);
}
