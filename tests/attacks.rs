//! What fresh eyes tried against the vault and must not try again: each test is an attack, or an accident, that once worked.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[allow(dead_code, reason = "every suite uses its part")]
#[path = "common/raw.rs"]
mod raw;

use std::fs;

use common::{House, START, order, text, wire_time};
use rusqlite::Connection;
use strongroom::audit::entry::{Action, RefusalCode, Verdict};
use strongroom::audit::verify::unpack;
use strongroom::cli::mint::CertFolder;
use strongroom::domain::caller::Role;
use strongroom::domain::time::{Clock, DAY, SystemClock};
use strongroom::policy::retention::Policy;
use strongroom::rpc::proto::{
    ConfirmDeliveryRequest, CorrectRequest, DescribeRequest, EraseReason, EraseRequest, EventKind, Field,
    GetDeliveryRequest, RecordState, TokenizeStreamRequest,
};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().unwrap().reason.clone()
}

fn refusals(house: &House, action: Action, code: RefusalCode) -> usize {
    let mut found = 0;
    let mut note = |packed: &[u8]| {
        let entries = unpack(packed).unwrap();
        found += entries.iter().filter(|e| e.action == action && e.verdict == Verdict::Refused(code)).count();
    };
    house
        .vault()
        .store()
        .audit_batches(&mut |batch, _| {
            note(&batch.entries);
            true
        })
        .unwrap();
    found
}

fn get(house: &House, carrier: &str, serial: &str) -> Result<(), Status> {
    let mut client = house.carrier(carrier);
    house.run(client.get_delivery(GetDeliveryRequest { serial: serial.to_owned() })).map(drop)
}

#[test]
fn a_carrier_reads_no_more_once_the_shop_says_the_parcel_is_delivered_or_the_order_cancelled() {
    let house = House::new();
    for (n, kind) in [(1, EventKind::Delivered), (2, EventKind::Returned), (3, EventKind::Cancelled)] {
        let token = house.tokenize(order(n));
        let serial = format!("SW-00000{n}");
        house.grant(&token, &serial, "swift");
        get(&house, "swift", &serial).unwrap();
        house.event(&token, kind, 0).unwrap();
        assert_eq!(get(&house, "swift", &serial).unwrap_err().code(), Code::NotFound, "{kind:?}");
    }
}

#[test]
fn a_delivery_ends_every_carriers_grant_for_that_parcel() {
    let house = House::new();
    let token = house.tokenize(order(1));
    house.grant(&token, "SW-000001", "swift");
    house.grant(&token, "PA-000001", "parcelo");
    let confirm = ConfirmDeliveryRequest {
        idempotency_key: "d".to_owned(),
        serial: "SW-000001".to_owned(),
        delivered_at: Some(wire_time(house.clock.now())),
    };
    let mut swift = house.carrier("swift");
    house.run(swift.confirm_delivery(confirm)).unwrap();
    assert_eq!(get(&house, "parcelo", "PA-000001").unwrap_err().code(), Code::NotFound);
}

#[test]
fn a_carriers_clock_cannot_make_a_record_due() {
    let house = House::new();
    house.clock.advance(100 * DAY);
    let token = house.tokenize(order(1));
    house.grant(&token, "SW-000001", "swift");
    house.clock.advance(29 * DAY);
    let confirm = ConfirmDeliveryRequest {
        idempotency_key: "d".to_owned(),
        serial: "SW-000001".to_owned(),
        delivered_at: Some(wire_time(START)),
    };
    let mut swift = house.carrier("swift");
    house.run(swift.confirm_delivery(confirm)).unwrap();
    let mut tokens = house.tokens();
    let described = house.run(tokens.describe(DescribeRequest { token })).unwrap().into_inner();
    assert_eq!(described.state(), RecordState::Live);
    let earliest = house.clock.now().plus(-7 * DAY).plus(60 * DAY);
    assert_eq!(described.due, Some(wire_time(earliest)), "a week back at most");
}

#[test]
fn a_carrier_cannot_confirm_long_after_its_window() {
    let house = House::new();
    let token = house.tokenize(order(1));
    house.grant(&token, "SW-000001", "swift");
    house.clock.advance(38 * DAY);
    let confirm = ConfirmDeliveryRequest {
        idempotency_key: "d".to_owned(),
        serial: "SW-000001".to_owned(),
        delivered_at: Some(wire_time(START)),
    };
    let mut swift = house.carrier("swift");
    assert_eq!(house.run(swift.confirm_delivery(confirm)).unwrap_err().code(), Code::NotFound);
}

#[test]
fn a_confirmation_repeated_after_the_erasure_tells_a_carrier_nothing() {
    let house = House::new();
    let token = house.tokenize(order(1));
    house.grant(&token, "SW-000001", "swift");
    let confirm = ConfirmDeliveryRequest {
        idempotency_key: "d".to_owned(),
        serial: "SW-000001".to_owned(),
        delivered_at: Some(wire_time(house.clock.now())),
    };
    let mut swift = house.carrier("swift");
    house.run(swift.confirm_delivery(confirm.clone())).unwrap();
    erase(&house, &token, "e").unwrap();
    house.run(swift.confirm_delivery(confirm)).unwrap();
}

fn erase(house: &House, token: &str, key: &str) -> Result<prost_types::Timestamp, Status> {
    let request = EraseRequest {
        idempotency_key: key.to_owned(),
        token: token.to_owned(),
        reason: EraseReason::SubjectRequest.into(),
    };
    let mut tokens = house.tokens();
    house.run(tokens.erase(request)).map(|reply| reply.into_inner().erased_at.unwrap())
}

#[test]
fn erasing_again_answers_the_first_erasures_time() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let first = erase(&house, &token, "e1").unwrap();
    house.clock.advance(DAY);
    assert_eq!(erase(&house, &token, "e1").unwrap(), first);
    assert_eq!(erase(&house, &token, "e2").unwrap(), first);
}

#[test]
fn a_record_lives_by_the_policy_it_was_collected_under() {
    let mut house = House::new();
    let token = house.tokenize(order(1));
    let before = describe(&house, &token);
    house.stop();
    let longer = Policy::KITCHENWARE.replace("cap = \"P1Y\"", "cap = \"P9Y\"");
    house.config.policies.insert(house.tenant(), Policy::parse(&longer).unwrap());
    house.start();
    assert_eq!(describe(&house, &token), before);
    let later = house.tokenize(order(2));
    assert_ne!(describe(&house, &later).1, before.1, "a later record lives by the later policy");
    house.stop();
    let orderless = Policy::KITCHENWARE.replace("[class.order]", "[class.order_gone]");
    assert!(Policy::parse(&orderless).is_err());
    house.start();
    house.clock.advance(366 * DAY);
    assert_eq!(house.sweep(), 1, "the first is swept by its own cap, the second is not due for years");
}

fn describe(house: &House, token: &str) -> (Option<prost_types::Timestamp>, String) {
    let mut tokens = house.tokens();
    let described = house.run(tokens.describe(DescribeRequest { token: token.to_owned() })).unwrap().into_inner();
    (described.due, described.policy_version)
}

/// Every byte of the store's files.
fn files(house: &House) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(house.data()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.file_name().unwrap().to_str().unwrap().starts_with("strongroom.db") {
            bytes.extend(fs::read(path).unwrap());
        }
    }
    bytes
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_correction_leaves_neither_key_nor_value_of_the_old_revision_in_any_file() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let database = &house.config.store.database;
    let look = |sql: &str| -> Vec<Vec<u8>> {
        let connection = Connection::open_with_flags(database, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let keys = look("SELECT wrapped FROM dek WHERE record > 0");
    let values = look("SELECT bytes FROM sealed");
    assert!(keys.iter().chain(&values).all(|bytes| holds(&files(&house), bytes)), "the search finds what is there");
    let request = CorrectRequest {
        idempotency_key: "c".to_owned(),
        token,
        if_revision: 1,
        fields: vec![text(Field::RecipientName, "Vera Ottokar")],
        clear: vec![],
    };
    let mut tokens = house.tokens();
    house.run(tokens.correct(request)).unwrap();
    let left = files(&house);
    assert!(!keys.iter().chain(&values).any(|bytes| holds(&left, bytes)));
}

#[test]
fn a_long_reader_of_the_database_delays_an_erasures_answer_and_nobody_else() {
    let house = House::new();
    let (token, other) = (house.tokenize(order(1)), house.tokenize(order(2)));
    let database = &house.config.store.database;
    let reader = Connection::open_with_flags(database, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    reader.query_row("SELECT COUNT(*) FROM record", [], |row| row.get::<_, i64>(0)).unwrap();
    let refused = erase(&house, &token, "e").unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "UNAVAILABLE"));
    describe(&house, &other);
    reader.execute_batch("COMMIT").unwrap();
    erase(&house, &token, "e").unwrap();
}

/// The write lock in another's hands, as a backup or a person at a prompt has it.
fn write_lock(house: &House) -> Connection {
    let other = Connection::open(&house.config.store.database).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

/// Planted once: a busy BEGIN that fails the commit like any other error, as it did; the server ended.
#[test]
fn a_write_lock_held_elsewhere_is_waited_for_then_answered_and_poisons_nothing() {
    let house = House::new();
    let mut tokens = house.tokens();
    let other = write_lock(&house);
    let (clock, began) = (SystemClock::new(), SystemClock::new().boot());
    let refused = house.run(tokens.tokenize(order(1))).unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "UNAVAILABLE"));
    assert!(clock.boot() - began < 5_000_000, "for a while, not for good");
    assert_eq!(house.vault().store().poisoned(), None);
    other.execute_batch("ROLLBACK").unwrap();
    house.run(tokens.tokenize(order(1))).unwrap();
    // A lock that is held for a moment is not even noticed.
    let other = write_lock(&house);
    let lets_go = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        other.execute_batch("ROLLBACK").unwrap();
    });
    house.run(tokens.tokenize(order(2))).unwrap();
    lets_go.join().unwrap();
}

#[test]
fn closed_in_good_order_the_database_file_alone_holds_everything() {
    let mut house = House::new();
    let token = house.tokenize(order(1));
    house.stop();
    let wal = house.config.store.database.with_extension("db-wal");
    assert!(!wal.exists() || fs::metadata(&wal).unwrap().len() == 0);
    house.start();
    describe(&house, &token);
}

#[test]
fn a_new_database_beside_an_old_ledger_is_refused() {
    let mut house = House::new();
    let token = house.tokenize(order(1));
    erase(&house, &token, "e").unwrap();
    house.stop();
    let database = house.config.store.database.clone();
    for suffix in ["db", "db-wal", "db-shm"] {
        let _ = fs::remove_file(database.with_extension(suffix));
    }
    let clock = std::sync::Arc::new(house.clock.clone());
    let refused = strongroom::cli::serve::Running::start(house.config.clone(), clock).err().unwrap();
    assert!(refused.to_string().contains("is the data disk mounted?"), "{refused}");
}

#[test]
fn a_revoked_certificate_is_refused_on_live_calls_streams_and_health() {
    let house = House::new();
    let channel = house.channel(Role::Shop, "backend");
    let mut tokens = strongroom::rpc::proto::token_service_client::TokenServiceClient::new(channel.clone());
    let token = house.run(tokens.tokenize(order(1))).unwrap().into_inner().token;
    let (send, items) = tokio::sync::mpsc::channel(4);
    let stream = tokio_stream::wrappers::ReceiverStream::new(items);
    let item = |n| TokenizeStreamRequest { item: Some(order(n)) };
    let mut results = house.run(async {
        send.send(item(2)).await.unwrap();
        tokens.tokenize_stream(stream).await.unwrap().into_inner()
    });
    house.run(results.next()).unwrap().unwrap();

    let certs = house.data().join("certs");
    let now = SystemClock::new().now();
    CertFolder::open(&certs).unwrap().revoke(&certs.join("shop-backend.pem"), now).unwrap();
    house.running().reload();

    let refused = house.run(tokens.describe(DescribeRequest { token })).unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "IDENTITY_REFUSED"));
    house.run(send.send(item(3))).unwrap();
    let refused = house.run(results.next()).unwrap().unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "IDENTITY_REFUSED"));
    let health = raw::call(channel.clone(), "/grpc.health.v1.Health/Check", Request::new(Vec::new()));
    assert_eq!(house.run(health).unwrap_err().code(), Code::Unauthenticated);
    let garbage = raw::call(channel, "/strongroom.v1.TokenService/Detokenize", Request::new(vec![0xff; 9]));
    assert_eq!(house.run(garbage).unwrap_err().code(), Code::Unauthenticated);
}

#[test]
fn a_request_that_cannot_be_read_is_refused_by_reason_and_logged() {
    let house = House::new();
    let shop = house.channel(Role::Shop, "backend");
    let garbage = raw::call(shop.clone(), "/strongroom.v1.TokenService/Detokenize", Request::new(vec![0xff; 9]));
    let refused = house.run(garbage).unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "MALFORMED"));
    assert_eq!(refusals(&house, Action::Detokenize, RefusalCode::Invalid), 1);
    let large = raw::call(shop, "/strongroom.v1.TokenService/Detokenize", Request::new(vec![0; 300 * 1024]));
    assert_eq!(reason(&house.run(large).unwrap_err()), "MALFORMED");
    assert_eq!(refusals(&house, Action::Detokenize, RefusalCode::Invalid), 2);
    let carrier = house.channel(Role::Carrier, "swift");
    let garbage = raw::call(carrier, "/strongroom.v1.TokenService/Detokenize", Request::new(vec![0xff; 9]));
    assert_eq!(reason(&house.run(garbage).unwrap_err()), "ROLE_NOT_ALLOWED");
    assert_eq!(refusals(&house, Action::Detokenize, RefusalCode::Forbidden), 1);
}

/// NORMAL loses acknowledged commits on a power cut, which no kill can show: so the setting is read back, and refused.
#[cfg(feature = "planted")]
#[test]
fn planted_normal_synchronisation_does_not_open_the_store() {
    use strongroom::cli::{dev, serve::Running};
    use strongroom::crypto::entropy::OsEntropy;
    use strongroom::domain::fault::{Fault, plant};
    plant(Fault::SynchronousNormal);
    let dir = tempfile::tempdir().unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    let prepared = dev::prepare(&dir.path().join("data"), Some(free), &SystemClock::new(), &OsEntropy);
    let started = prepared.and_then(|config| Running::start(config, std::sync::Arc::new(SystemClock::new())));
    let refused = started.err().unwrap();
    assert!(refused.to_string().contains("does not synchronise fully"), "{refused}");
}
