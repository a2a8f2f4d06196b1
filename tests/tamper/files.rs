//! The log, the ledger and the keyring as whole pieces: what was cut, moved, repeated or brought back from an old copy is
//! found and named; what a restored database would bring back to life is destroyed again before anything is served.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, params};
use strongroom::audit::entry::{Action, Entry, RefusalCode, Verdict};
use strongroom::audit::verify::{Flaw, Head, What, unpack};
use strongroom::crypto::entropy::OsEntropy;
use strongroom::crypto::keyring::Keyring;
use strongroom::domain::time::{SimulatedClock, Timestamp};
use strongroom::domain::vocabulary::{EraseReason, EventKind, Field, Outcome, Purpose};
use strongroom::store::ledger::{LedgerEvent, read_after};
use strongroom::store::{LogVerdict, Store, StoreError, StorePaths, verify_log};
use strongroom::vault::{Detokenize, Vault};

use super::story::{self, Copy, SHOP, Step, Story, call, settle};
use super::{dice, full};

fn flaw(story: &Story, paths: &StorePaths, known: Option<Head>) -> Option<Flaw> {
    match verify_log(&paths.database, Some(&story.keyring), known).unwrap() {
        LogVerdict::Flawed(flaw) => Some(flaw),
        LogVerdict::Sound(_) => None,
    }
}

/// A copy whose database was changed by the statements.
fn edited(story: &Story, edit: impl FnOnce(&Connection)) -> Copy {
    let copy = story.copy();
    edit(&Connection::open(&copy.paths.database).unwrap());
    copy
}

fn firsts(story: &Story) -> Vec<i64> {
    let connection = Connection::open(story.paths().database).unwrap();
    let mut statement = connection.prepare("SELECT first FROM audit_batch ORDER BY first").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_log_that_was_altered_is_named_by_its_first_bad_batch() {
    let (story, dice) = (Story::tell(), dice());
    let firsts = firsts(&story);
    assert_eq!(flaw(&story, &story.paths(), None), None);
    for (number, first) in firsts.iter().enumerate() {
        let number = number as u64;
        let flipped = edited(&story, |connection| {
            let read = "SELECT entries FROM audit_batch WHERE first = ?1";
            let mut entries: Vec<u8> = connection.query_row(read, [first], |row| row.get(0)).unwrap();
            let place = dice.below(entries.len());
            entries[place] ^= 1 << dice.below(8);
            connection
                .execute("UPDATE audit_batch SET entries = ?1 WHERE first = ?2", params![entries, first])
                .unwrap();
        });
        assert_eq!(flaw(&story, &flipped.paths, None).unwrap().batch, number, "flipped");
        let dropped = edited(&story, |connection| {
            connection.execute("DELETE FROM audit_batch WHERE first = ?1", [first]).unwrap();
        });
        let found = flaw(&story, &dropped.paths, None).unwrap();
        if number + 1 < firsts.len() as u64 {
            assert_eq!((found.batch, found.what), (number, What::Gap), "dropped");
        } else {
            assert_eq!(found.what, What::TailCut);
        }
    }
}

#[test]
fn batches_that_change_places_are_named_by_the_first_of_them() {
    let story = Story::tell();
    let firsts = firsts(&story);
    for (number, pair) in firsts.windows(2).enumerate() {
        let swapped = edited(&story, |connection| {
            let text = "UPDATE audit_batch SET first = ?2 WHERE first = ?1";
            for (from, to) in [(pair[0], -1), (pair[1], pair[0]), (-1, pair[1])] {
                connection.execute(text, [from, to]).unwrap();
            }
        });
        assert_eq!(flaw(&story, &swapped.paths, None).unwrap().batch, number as u64);
    }
}

#[test]
fn a_log_cut_at_its_end_is_found_with_the_keyring_or_with_a_head_kept_elsewhere() {
    let story = Story::tell();
    let firsts = firsts(&story);
    let connection = Connection::open(story.paths().database).unwrap();
    let (size, root, at) = connection
        .query_row("SELECT size, root, at FROM audit_batch ORDER BY first DESC LIMIT 1", [], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, [u8; 32]>(1)?, row.get::<_, i64>(2)?))
        })
        .unwrap();
    let known = Head { size, root, at: Timestamp(at) };
    let cut = edited(&story, |connection| {
        connection.execute("DELETE FROM audit_batch WHERE first >= ?1", [firsts[firsts.len() / 2]]).unwrap();
    });
    assert_eq!(flaw(&story, &cut.paths, None).unwrap().what, What::TailCut);
    assert!(matches!(verify_log(&cut.paths.database, None, None).unwrap(), LogVerdict::Sound(_)), "nothing to go by");
    let told = verify_log(&cut.paths.database, None, Some(known)).unwrap();
    assert!(matches!(told, LogVerdict::Flawed(Flaw { what: What::TailCut, .. })));
    assert!(story.store(&cut.paths).is_err(), "a store whose log was cut does not start");
}

/// Three records erased, one left: three lines.
const THREE_LINES: &[Step] = &[
    Step::Order("left", "anna", "DE"),
    Step::Order("one", "bert", "DE"),
    Step::Order("two", "carl", "DE"),
    Step::Order("three", "dora", "DE"),
    Step::Erase("one", EraseReason::Cancellation),
    Step::Erase("two", EraseReason::SubjectRequest),
    Step::Erase("three", EraseReason::Minor),
];

/// Why a store with this ledger does not open.
fn refused(story: &Story, paths: &StorePaths, ledger: &[u8]) -> Result<(), String> {
    std::fs::write(&paths.ledger, ledger).unwrap();
    match story.store(paths) {
        Ok(_) => Ok(()),
        Err(StoreError::Refused(why)) => Err(why),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_ledger_with_one_bit_changed_is_refused_and_the_entry_named() {
    let (story, dice) = (Story::tell_steps(THREE_LINES), dice());
    let (copy, whole) = (story.copy(), std::fs::read(story.paths().ledger).unwrap());
    let text = String::from_utf8(whole.clone()).unwrap();
    let kinds = ["\"erased\":", "\"learned\":"].map(|kind| text.matches(kind).count());
    assert!(kinds[0] == 3 && kinds[1] > 0, "{kinds:?}: what was erased, and who may come in");
    assert_eq!(refused(&story, &copy.paths, &whole), Ok(()));
    let mut passed = Vec::new();
    for place in 0..whole.len() {
        // The highest bit would make it no text at all.
        let bit = dice.below(7);
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << bit;
        // Opening a whole store takes its time.
        if full() || place % 4 == 0 {
            match refused(&story, &copy.paths, &flipped) {
                Err(why) => assert!(why.contains("entry"), "{why}"),
                Ok(()) => passed.push((place, bit)),
            }
        }
        for bit in 0..8 {
            flipped[place] = whole[place] ^ 1 << bit;
            std::fs::write(&copy.paths.ledger, &flipped).unwrap();
            // Without its line feed the last line was never acknowledged; that it was applied is what the store goes by.
            if read_after(&copy.paths.ledger, &story.keyring, 0).is_ok() && place + 1 < whole.len() {
                passed.push((place, bit));
            }
        }
    }
    let context = |place: usize| String::from_utf8_lossy(&whole[place.saturating_sub(12)..=place]).into_owned();
    let passed: Vec<_> = passed.into_iter().map(|(place, bit)| format!("bit {bit} after {}", context(place))).collect();
    assert!(passed.is_empty(), "{} flips passed: {passed:#?}", passed.len());
}

#[test]
fn a_ledger_vouched_for_under_an_epoch_that_never_was_is_refused() {
    let story = Story::tell_steps(THREE_LINES);
    let whole = std::fs::read_to_string(story.paths().ledger).unwrap();
    let forged = whole.replace("\"epoch\":1", "\"epoch\":9");
    assert_ne!(forged, whole);
    assert!(refused(&story, &story.copy().paths, forged.as_bytes()).is_err());
}

#[test]
fn a_ledger_with_lines_dropped_moved_or_repeated_is_refused() {
    let story = Story::tell_steps(THREE_LINES);
    let (copy, whole) = (story.copy(), std::fs::read_to_string(story.paths().ledger).unwrap());
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let orders: [&[usize]; 10] =
        [&[1, 2], &[0, 2], &[0, 1], &[0], &[], &[1, 0, 2], &[0, 2, 1], &[2, 1, 0], &[0, 1, 1, 2], &[0, 1, 2, 2]];
    for order in orders {
        let ledger: String = order.iter().map(|line| lines[*line]).collect();
        let why = refused(&story, &copy.paths, ledger.as_bytes()).expect_err(&format!("{order:?}"));
        assert!(why.contains("entry"), "{order:?}: {why}");
    }
    assert_eq!(refused(&story, &copy.paths, whole.as_bytes()), Ok(()));
}

#[test]
fn a_torn_last_line_is_cut_and_the_ledger_goes_on_from_there() {
    let story = Story::tell_steps(THREE_LINES);
    let (copy, whole) = (story.copy(), std::fs::read_to_string(story.paths().ledger).unwrap());
    for torn in [&whole[..1], &whole[..40], &whole[..whole.find('\n').unwrap()]] {
        assert_eq!(refused(&story, &copy.paths, format!("{whole}{torn}").as_bytes()), Ok(()));
        assert_eq!(std::fs::read_to_string(&copy.paths.ledger).unwrap(), whole);
    }
    let runtime = story::runtime();
    let before = read_after(&copy.paths.ledger, &story.keyring, 0).unwrap().len() as u64;
    let vault = story.reopen(&runtime, &copy.paths).unwrap();
    runtime.block_on(story.ask(&vault, &Step::Erase("left", EraseReason::Controller), story.end, 1)).unwrap();
    drop(vault);
    assert_eq!(read_after(&copy.paths.ledger, &story.keyring, before).unwrap().len(), 1);
    story.store(&copy.paths).unwrap();
}

fn outcome(story: &Story, vault: &Vault, record: &str) -> Outcome {
    let ask = Detokenize {
        token: story.known.token(record),
        fields: vec![Field::RecipientName],
        purpose: Purpose::Fulfilment,
    };
    story::runtime().block_on(vault.detokenize(&call(SHOP, 1), &ask)).unwrap().fields[0].outcome
}

fn entries(vault: &Vault, keep: impl Fn(&Entry) -> bool) -> usize {
    let mut count = 0;
    let mut each = |entries: Vec<Entry>| count += entries.iter().filter(|entry| keep(entry)).count();
    vault
        .store()
        .audit_batches(&mut |batch, _| {
            each(unpack(&batch.entries).unwrap());
            true
        })
        .unwrap();
    count
}

/// What is counted, by country.
fn tallied(database: &Path) -> Vec<(String, i64)> {
    let connection = Connection::open(database).unwrap();
    let mut statement = connection.prepare("SELECT country, SUM(count) FROM tally GROUP BY country").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_restored_database_destroys_again_what_the_ledger_says_was_destroyed() {
    // Before: two records that are due, two that are not. After: the due ones swept, one of the others erased.
    let story = Story::tell_steps(&[
        Step::Order("swept-1", "anna", "DE"),
        Step::Order("swept-2", "anna", "FR"),
        Step::Event("swept-1", EventKind::Delivered, 0),
        Step::Event("swept-2", EventKind::Delivered, 0),
        Step::Later(59),
        Step::Order("erased", "bert", "DE"),
        Step::Order("left", "bert", "DE"),
    ]);
    let (runtime, newer, restored) = (story::runtime(), story.copy(), story.copy());
    let vault = story.reopen(&runtime, &newer.paths).unwrap();
    assert_eq!(runtime.block_on(vault.sweep()).unwrap().destroyed, 2);
    let erase = Step::Erase("erased", EraseReason::SubjectRequest);
    runtime.block_on(story.ask(&vault, &erase, story.end, 1)).unwrap();
    drop(vault);
    let statistics = tallied(&newer.paths.database);
    assert_eq!(statistics, [("DE".to_owned(), 1), ("FR".to_owned(), 1)]);
    std::fs::copy(&newer.paths.ledger, &restored.paths.ledger).unwrap();
    for opening in ["the first", "the second"] {
        let vault = story.reopen(&runtime, &restored.paths).unwrap();
        for gone in ["swept-1", "swept-2", "erased"] {
            assert_eq!(outcome(&story, &vault, gone), Outcome::Erased, "{opening}: {gone}");
        }
        assert_eq!(outcome(&story, &vault, "left"), Outcome::Granted, "{opening}");
        assert_eq!(entries(&vault, |entry| entry.action == Action::ReplayLedger), 3, "{opening}");
        drop(vault);
        assert_eq!(tallied(&restored.paths.database), statistics, "{opening}");
        settle(&restored.paths.database);
        let connection = Connection::open(&restored.paths.database).unwrap();
        let keys: i64 = connection.query_row("SELECT COUNT(*) FROM dek", [], |row| row.get(0)).unwrap();
        assert_eq!(keys, 2, "{opening}: one of the record that is left, one of its subject");
    }
    let told = read_after(&restored.paths.ledger, &story.keyring, 0).unwrap();
    let erased = told.iter().filter(|line| matches!(line.entry.event, LedgerEvent::Erased(_)));
    assert_eq!(erased.count(), 3, "the ledger tells it once");
}

#[test]
fn an_old_keyring_is_refused_by_a_database_that_has_seen_a_newer_one() {
    let story = Story::tell_steps(THREE_LINES);
    let copy = story.copy();
    let open = |keyring: &Arc<Keyring>| {
        Store::open(&copy.paths, Arc::clone(keyring), Arc::new(SimulatedClock::starting_at(story.end))).map(drop)
    };
    let newer = Arc::new(story.keyring.with_new_epoch(story.end, &OsEntropy));
    open(&story.keyring).unwrap();
    open(&newer).unwrap();
    assert!(open(&story.keyring).is_err());
    open(&newer).unwrap();
}

#[test]
fn an_erased_records_key_goes_even_if_someone_has_bent_the_index_that_leads_to_it() {
    let story = Story::tell_steps(&[Step::Order("left", "anna", "DE"), Step::Order("one", "bert", "DE")]);
    let mut key = 0;
    let bent = edited(&story, |connection| {
        let digest = story.known.token("one").digest(&"kitchenware".parse().unwrap());
        key = connection.query_row("SELECT dek FROM record WHERE digest = ?1", [digest.0], |row| row.get(0)).unwrap();
        connection.execute("UPDATE dek SET record = record + 100000 WHERE id = ?1", [key]).unwrap();
    });
    let runtime = story::runtime();
    let vault = story.reopen(&runtime, &bent.paths).unwrap();
    let erase = Step::Erase("one", EraseReason::SubjectRequest);
    let erased = runtime.block_on(story.ask(&vault, &erase, story.end, 1));
    drop(vault);
    let connection = Connection::open(&bent.paths.database).unwrap();
    let text = "SELECT COUNT(*) FROM dek WHERE id = ?1";
    let left: i64 = connection.query_row(text, [key], |row| row.get(0)).unwrap();
    assert!(erased.is_err() || left == 0, "the erasure is acknowledged and the key still there");
}

#[test]
fn a_spoiled_row_keeps_no_other_record_from_being_destroyed() {
    let story = Story::tell_steps(&[
        Step::Order("spoiled", "anna", "DE"),
        Step::Order("other", "bert", "DE"),
        Step::Event("spoiled", EventKind::Delivered, 0),
        Step::Event("other", EventKind::Delivered, 0),
        Step::Later(58),
        Step::Event("spoiled", EventKind::Completed, 0),
    ]);
    let bent = edited(&story, |connection| {
        let changed = connection.execute("UPDATE idempotency SET recorded_at = recorded_at + 1", []).unwrap();
        assert_eq!(changed, 1, "only the last key is still remembered");
    });
    let runtime = story::runtime();
    let vault = story.reopen(&runtime, &bent.paths).unwrap();
    let swept = runtime.block_on(vault.sweep());
    assert_eq!(outcome(&story, &vault, "other"), Outcome::Erased, "{swept:?}");
    assert!(entries(&vault, |entry| entry.verdict == Verdict::Refused(RefusalCode::Tampered)) > 0);
}
