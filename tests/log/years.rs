//! Several years in one test: trees are cut, expire, and leave their last head.

use base64::Engine as _;
use rusqlite::Connection;
use strongroom::audit::entry::Action;
use strongroom::audit::log;
use strongroom::audit::verify::Head;
use strongroom::cli::audit::verify_bytes;
use strongroom::domain::time::{DAY, Timestamp};
use strongroom::rpc::proto::{CheckpointRequest, ConsistencyProofRequest, ExportRequest, InclusionProofRequest};
use strongroom::store::{LogVerdict, verify_log, verify_state};

use super::{append, auditor, export_of, exported, head, people};
use crate::common::House;

/// Lives on to an instant, and does then what the keeper does.
fn live_to(house: &House, when: &str) {
    let to = Timestamp::from_jiff(when.parse().unwrap());
    let now = strongroom::domain::time::Clock::now(&house.clock);
    house.clock.advance(to.since(now));
    house.sweep();
    while house.run(house.vault().keep_log()).unwrap().more {}
}

fn rows(house: &House, table: &str) -> u64 {
    let connection = Connection::open(&house.config.store.database).unwrap();
    connection.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

fn sound(house: &House) {
    let database = &house.config.store.database;
    loop {
        let keyring = people::keyring(house);
        let (verdict, state) = (verify_log(database, Some(&keyring), None), verify_state(database, &keyring));
        if people::keyring(house).generation() != keyring.generation() {
            // The keys went on meanwhile: what lies there now may be under an epoch that this keyring does not know.
            continue;
        }
        let verdict = verdict.unwrap();
        assert!(matches!(verdict, LogVerdict::Sound(_)), "{verdict:?}");
        assert_eq!(state.unwrap(), []);
        return;
    }
}

#[test]
fn a_log_is_cut_every_year_and_an_expired_one_leaves_its_last_head() {
    let mut house = House::new();
    house.config.audit.keeping.keep_years = 2;
    house.stop();
    house.start();
    append(&house, 0..600);
    let (first, key) = head(&house);
    assert!(first.starts_with("strongroom/log/strongroom.dev/2026\n"), "{first}");
    live_to(&house, "2026-12-31T23:59:59Z");
    assert!(head(&house).0.contains("/2026\n"));
    live_to(&house, "2027-01-01T00:00:00Z");
    append(&house, 600..700);
    let (second, same) = head(&house);
    assert!(second.contains("/2027\n") && same == key, "one key for all years");
    sound(&house);

    // The closed year: its last head, its export, its proofs; and the early head still leads to it.
    let mut client = auditor(&house);
    let last = house.run(client.checkpoint(CheckpointRequest { year: 2026 })).unwrap().into_inner().note;
    assert!(last.contains("\nlast\n\n"));
    let closed = export_of(&house, 2026);
    assert!(verify_bytes(closed.as_bytes(), &key, &format!("{first}\n{last}\n{second}"), None).is_ok());
    assert!(house.run(client.inclusion_proof(InclusionProofRequest { year: 2026, entry: 3 })).is_ok());
    assert!(house.run(client.consistency_proof(ConsistencyProofRequest { year: 2026, from_size: 9 })).is_ok());
    let opened = export_of(&house, 0);
    assert!(verify_bytes(opened.as_bytes(), &key, &second, None).is_ok());
    let told: Vec<Action> = people::log(&house).iter().map(|entry| entry.action).collect();
    assert!(told.contains(&Action::CutLog));

    // A restart between years, and years that pass.
    house.stop();
    house.start();
    live_to(&house, "2028-06-01T00:00:00Z");
    append(&house, 700..710);
    sound(&house);
    let batches = rows(&house, "audit_batch");
    live_to(&house, "2029-01-01T00:00:00Z");
    sound(&house);
    assert!(rows(&house, "audit_batch") < batches, "2026 was closed two years ago");
    assert_eq!(
        people::log(&house)
            .iter()
            .filter(|entry| entry.action == Action::ExpireLog && log::year(entry.at) > 2026)
            .count(),
        1
    );

    // What remains of 2026: its last head, and nothing else.
    let mut client = auditor(&house);
    let remains = house.run(client.checkpoint(CheckpointRequest { year: 2026 })).unwrap().into_inner().note;
    assert_eq!(remains, last);
    let gone = house.run(client.inclusion_proof(InclusionProofRequest { year: 2026, entry: 3 })).unwrap_err();
    assert_eq!(people::reason(&gone), "NOT_IN_THE_LOG");
    let connection = Connection::open(&house.config.store.database).unwrap();
    let kept: Vec<(u64, bool)> = connection
        .prepare("SELECT size, last FROM checkpoint WHERE first = 0")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let size: u64 = last.lines().nth(1).unwrap().parse().unwrap();
    assert_eq!(kept, [(size, true)]);
    let left: u64 = connection.query_row("SELECT MIN(first) FROM audit_batch", [], |row| row.get(0)).unwrap();
    assert_eq!(left, size);
    assert_eq!(
        connection
            .query_row("SELECT COUNT(*) FROM audit_node WHERE \"end\" <= ?1", [size], |row| row.get::<_, u64>(0))
            .unwrap(),
        0
    );
    house.stop();
    house.start();
    sound(&house);
    let request = ExportRequest { year: 2026, from_entry: 0, size: 0 };
    if let Ok(Err(pending)) = exported(&house, request) {
        super::approve(&house, pending);
    }
    assert_eq!(people::reason(&exported(&house, request).unwrap_err()), "NOT_IN_THE_LOG");

    // A head that somebody kept of 2026: its last one is met, another at that size is a fork, one before it cannot be judged.
    let bytes = base64::engine::general_purpose::STANDARD.decode(last.lines().nth(2).unwrap()).unwrap();
    let known = |size, root: [u8; 32]| {
        let keyring = people::keyring(&house);
        verify_log(&house.config.store.database, Some(&keyring), Some(Head { size, root, at: Timestamp(0) }))
    };
    assert!(matches!(known(size, bytes.try_into().unwrap()), Ok(LogVerdict::Sound(_))));
    assert!(matches!(known(size, [7; 32]), Ok(LogVerdict::Flawed(_))));
    assert!(known(size - 1, [7; 32]).is_err());

    // Expired entries that are passed off as kept, and kept ones that are passed off as expired, are found.
    house.stop();
    let tampered = |sql: &str| {
        let connection = Connection::open(&house.config.store.database).unwrap();
        assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
        verify_log(&house.config.store.database, Some(&people::keyring(&house)), None)
    };
    let verdict = tampered("DELETE FROM checkpoint WHERE first = 0");
    assert!(matches!(verdict, Ok(LogVerdict::Flawed(_))), "{verdict:?}");
    let verdict = tampered(&format!("DELETE FROM audit_batch WHERE first >= {size} AND first < {size} + 50"));
    assert!(matches!(verdict, Ok(LogVerdict::Flawed(_))), "{verdict:?}");
}

/// The wall clock leaps ahead by years: nothing is cut and nothing expires, for the mark has not moved.
#[test]
fn a_clock_that_leaps_cuts_and_expires_nothing() {
    let house = House::new();
    append(&house, 0..20);
    let batches = rows(&house, "audit_batch");
    house.clock.leap(9 * 366 * DAY);
    house.sweep();
    assert!(!house.run(house.vault().keep_log()).unwrap().more);
    assert!(head(&house).0.contains("/2026\n"));
    assert!(rows(&house, "audit_batch") >= batches);
}
