//! The state of the store against its log: a single row that is put back to an older, authentic version is found and named.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use strongroom::domain::caller::Role;
use strongroom::domain::time::DAY;
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::{
    self, CorrectRequest, EraseRequest, GetDeliveryRequest, LiftHoldRequest, PlaceHoldRequest, SuspendCallerRequest,
    TokenizeRequest, lift_hold_response,
};
use strongroom::store::{LogVerdict, StateFlaw, verify_log, verify_state};

use super::{approve, exported, people};
use crate::common::{House, order, text};

type Rows = BTreeMap<Vec<String>, Vec<Value>>;

/// Every row of a table by its key, with all its columns: MAC and epoch too.
fn rows(database: &Path, table: &str, key: &[&str]) -> Rows {
    let connection = Connection::open(database).unwrap();
    let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut found = Rows::new();
    let mut read = statement.query([]).unwrap();
    while let Some(row) = read.next().unwrap() {
        let values: Vec<Value> = (0..names.len()).map(|at| row.get(at).unwrap()).collect();
        let place = |name: &&str| format!("{:?}", values[names.iter().position(|known| known == name).unwrap()]);
        found.insert(key.iter().map(place).collect(), values);
    }
    found
}

fn put(database: &Path, table: &str, row: &[Value]) {
    let connection = Connection::open(database).unwrap();
    let places: Vec<String> = (1..=row.len()).map(|at| format!("?{at}")).collect();
    let sql = format!("INSERT OR REPLACE INTO {table} VALUES ({})", places.join(", "));
    assert_eq!(connection.execute(&sql, params_from_iter(row)).unwrap(), 1);
}

const TABLES: &[(&str, &[&str])] = &[
    ("record", &["id"]),
    ("subject", &["id"]),
    ("shipment_grant", &["id"]),
    ("idempotency", &["id"]),
    ("tombstone", &["digest"]),
    ("tally", &["tenant", "month", "class", "country", "who"]),
    ("caller", &["tenant", "role", "name"]),
    ("approval", &["tenant", "id"]),
];

fn all(database: &Path) -> BTreeMap<&'static str, Rows> {
    TABLES.iter().map(|(table, key)| (*table, rows(database, table, key))).collect()
}

/// A story in which rows of every table change; answers what they were in the middle.
fn lived() -> (House, BTreeMap<&'static str, Rows>) {
    let mut house = House::new();
    (0..3).for_each(|n| drop(house.tokenize(order(n))));
    // One customer's, so that both are counted in one tally.
    let later = TokenizeRequest { subject: order(90).subject, ..order(91) };
    let (sold, sold_later) = (house.tokenize(order(90)), house.tokenize(later));
    house.event(&sold, proto::EventKind::Delivered, 0).unwrap();
    house.clock.advance(2 * DAY);
    house.event(&sold_later, proto::EventKind::Delivered, 0).unwrap();
    house.clock.advance(59 * DAY);
    assert_eq!(house.sweep(), 1);
    let (stays, erased) = (house.tokenize(order(92)), house.tokenize(order(93)));
    house.grant(&stays, "SW000000097", "swift");
    let read = |house: &House| {
        let request = GetDeliveryRequest { serial: "SW000000097".to_owned() };
        house.run(house.carrier("swift").get_delivery(request)).unwrap();
    };
    read(&house);
    let pending = exported(&house, proto::ExportRequest { year: 0, from_entry: 0, size: 0 }).unwrap().unwrap_err();
    house.stop();
    let before = all(&house.config.store.database);
    house.start();
    // Every table changes on: an approval, a correction, a read of a parcel, an erasure, a suspension, a second count.
    approve(&house, pending);
    let correct = CorrectRequest {
        idempotency_key: "correct".to_owned(),
        token: stays,
        if_revision: 1,
        fields: vec![text(proto::Field::Phone, "+49 30 901821")],
        clear: Vec::new(),
    };
    house.run(house.tokens().correct(correct)).unwrap();
    read(&house);
    let reason = proto::EraseReason::Minor.into();
    let erase = EraseRequest { idempotency_key: "erase".to_owned(), token: erased, reason };
    house.run(house.tokens().erase(erase)).unwrap();
    let (role, name) = (proto::Role::Carrier.into(), "parcelo".to_owned());
    let suspend = SuspendCallerRequest { role, name, certificate: String::new() };
    house.run(people::callers(&house, "office").suspend_caller(suspend)).unwrap();
    house.clock.advance(2 * DAY);
    assert_eq!(house.sweep(), 1);
    house.stop();
    (house, before)
}

/// What is done to one row of the finished store.
enum Rollback<'a> {
    /// An older version is put back, byte for byte.
    Older(&'a [Value]),
    /// A deleted row is brought back.
    Deleted(&'a [Value]),
    /// A new row is deleted.
    New(&'a [Value]),
}

fn undo(connection: &Connection, table: &str, row: &[Value]) {
    let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    drop(statement.query([]).unwrap());
    let which: Vec<String> = names.iter().enumerate().map(|(at, name)| format!("{name} IS ?{}", at + 1)).collect();
    let sql = format!("DELETE FROM {table} WHERE {}", which.join(" AND "));
    assert_eq!(connection.execute(&sql, params_from_iter(row)).unwrap(), 1);
}

#[test]
fn a_single_row_put_back_brought_back_or_deleted_is_found_and_named() {
    let (house, before) = lived();
    let database = &house.config.store.database;
    let keyring = people::keyring(&house);
    assert_eq!(verify_state(database, &keyring).unwrap(), [], "the store as the vault left it");
    let after = all(database);
    let kept = std::fs::read(database).unwrap();
    let mut tried: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for (table, rows) in &after {
        let older = before[table].iter().filter(|(key, row)| rows.get(*key).is_some_and(|now| now != *row));
        let deleted = before[table].iter().filter(|(key, _)| !rows.contains_key(*key));
        let new = rows.iter().filter(|(key, _)| !before[table].contains_key(*key));
        let changes = older
            .map(|(_, row)| Rollback::Older(row))
            .take(4)
            .chain(deleted.map(|(_, row)| Rollback::Deleted(row)).take(2))
            .chain(new.map(|(_, row)| Rollback::New(row)).take(2));
        for change in changes {
            let row = match change {
                Rollback::Older(row) => {
                    put(database, table, row);
                    tried.entry(table).or_default()[0] += 1;
                    row
                }
                Rollback::Deleted(row) => {
                    put(database, table, row);
                    tried.entry(table).or_default()[1] += 1;
                    row
                }
                Rollback::New(row) => {
                    undo(&Connection::open(database).unwrap(), table, row);
                    tried.entry(table).or_default()[2] += 1;
                    row
                }
            };
            // The log itself is whole: every row has its own authentic MAC.
            assert!(matches!(verify_log(database, Some(&keyring), None).unwrap(), LogVerdict::Sound(_)));
            let found = verify_state(database, &keyring).unwrap();
            assert_eq!(found.len(), 1, "a rollback in {table} went unnoticed, or was not told from others: {found:?}");
            let StateFlaw::Row { table: named, row: which } = &found[0] else { panic!("{found:?}") };
            assert_eq!(named, table);
            if let (Value::Integer(id), true) = (&row[0], ["record", "subject", "shipment_grant"].contains(table)) {
                assert_eq!(which, &id.to_string());
            }
            if *table == "caller" {
                assert_eq!(which, "tenant/kitchenware/carrier/parcelo");
            }
            std::fs::write(database, &kept).unwrap();
            for suffix in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
            }
        }
    }
    println!("older, brought back, deleted: {tried:?}");
    assert_eq!(tried.len(), TABLES.len(), "every table had a row to roll back: {tried:?}");
    for table in ["record", "shipment_grant", "idempotency", "tally", "caller", "approval"] {
        assert!(tried[table][0] > 0, "no older version of {table}");
    }
}

#[test]
fn an_open_month_and_a_hold_put_back_are_found_and_named() {
    let mut house = House::new();
    let (sold, kept) = (house.tokenize(order(1)), house.tokenize(order(2)));
    house.event(&sold, proto::EventKind::Delivered, 0).unwrap();
    house.clock.advance(61 * DAY);
    assert_eq!(house.sweep(), 1);
    let mut officer = ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    let place = PlaceHoldRequest {
        idempotency_key: "hold".to_owned(),
        token: kept,
        subject: String::new(),
        whole_subject: false,
        kind: proto::HoldKind::Court.into(),
        case_reference: "12 O 345/26".to_owned(),
    };
    let hold = house.run(officer.place_hold(place)).unwrap().into_inner().hold_id;
    drop(officer);
    house.stop();
    let database = house.config.store.database.clone();
    let keys = [("hold", &["id"][..]), ("month", &["tenant", "month"])];
    let before = keys.map(|(table, key)| rows(&database, table, key));
    house.start();
    let mut officer = ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    let lift = LiftHoldRequest { hold_id: hold };
    let pending = house.run(officer.lift_hold(lift.clone())).unwrap().into_inner().result.unwrap();
    let lift_hold_response::Result::PendingApproval(pending) = pending else { panic!("one person was enough") };
    approve(&house, pending.approval_id);
    house.run(officer.lift_hold(lift)).unwrap();
    drop(officer);
    house.clock.advance(40 * DAY);
    house.sweep();
    house.stop();
    let keyring = people::keyring(&house);
    assert_eq!(verify_state(&database, &keyring).unwrap(), []);
    let whole = std::fs::read(&database).unwrap();
    for ((table, _), rows) in keys.iter().zip(&before) {
        put(&database, table, rows.values().next().unwrap());
        let found = verify_state(&database, &keyring).unwrap();
        assert!(matches!(found[..], [StateFlaw::Row { table: named, .. }] if named == *table), "{found:?}");
        std::fs::write(&database, &whole).unwrap();
    }
}

#[test]
fn several_rows_and_an_older_state_are_found_too() {
    let (house, before) = lived();
    let database = &house.config.store.database;
    let keyring = people::keyring(&house);
    let after = all(database);
    let older: Vec<_> = before["record"].iter().filter(|(key, _)| !after["record"].contains_key(*key)).collect();
    assert!(older.len() >= 2);
    older.iter().for_each(|(_, row)| put(database, "record", row));
    assert_eq!(verify_state(database, &keyring).unwrap(), [StateFlaw::Rows { table: "record" }]);
    let connection = Connection::open(database).unwrap();
    let meta = connection.query_row("SELECT value, epoch, mac FROM meta WHERE key = 'audit_state'", [], |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
    });
    let (value, epoch, mac) = meta.unwrap();
    drop(connection);
    // The state goes with the log: an older one, with its own good MAC, does not fit, here and at the next start.
    let mut house = house;
    house.start();
    super::append(&house, 0..3);
    house.stop();
    let connection = Connection::open(database_of(&house)).unwrap();
    let sql = "UPDATE meta SET value = ?1, epoch = ?2, mac = ?3 WHERE key = 'audit_state'";
    assert_eq!(connection.execute(sql, rusqlite::params![value, epoch, mac]).unwrap(), 1);
    drop(connection);
    let found = verify_state(database_of(&house), &keyring).unwrap();
    assert!(matches!(found.as_slice(), [StateFlaw::Older { .. }]), "{found:?}");
    let clock = std::sync::Arc::new(house.clock.clone());
    let refused = strongroom::cli::serve::Running::start(house.config.clone(), clock).map(drop).unwrap_err();
    assert!(refused.message.contains("the store's state is from when the log had"), "{}", refused.message);
}

fn database_of(house: &House) -> &Path {
    &house.config.store.database
}

/// A digest that does not look at what rows say lets every older version pass; the test above must see that.
#[cfg(feature = "planted")]
#[test]
fn planted_blind_state_lets_older_versions_pass_and_is_found() {
    let run = |fault: &str| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "state::a_single_row_put_back_brought_back_or_deleted_is_found_and_named"]);
        let output = command.env("STRONGROOM_PLANTED_FAULT", fault).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (sound, report) = run("none");
    assert!(sound, "{report}");
    let (sound, report) = run("state-blind");
    assert!(!sound && report.contains("went unnoticed"), "{report}");
}
