//! What every backend of the store must keep, said through `Store`, `Tx` and `View` alone. A backend is a way to open the same
//! store again; each claim is one test of each backend.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;

use strongroom::audit::entry::{Action, Actor, Entry, RequestId, Verdict};
use strongroom::audit::verify::{Verifier, unpack};
use strongroom::crypto::entropy::OsEntropy;
use strongroom::crypto::keyring::Keyring;
use strongroom::crypto::mac::IndexTag;
use strongroom::crypto::root::RootKey;
use strongroom::domain::id::{
    DekId, Epoch, ErasureId, GrantId, HoldId, PolicyVersion, RecordId, Revision, SubjectId, TenantId,
};
use strongroom::domain::time::{DAY, SimulatedClock, Timestamp};
use strongroom::domain::token::TokenDigest;
use strongroom::domain::vocabulary::{Class, EraseReason, EventKind, Field, HoldKind};
use strongroom::policy::cube::{Cell, Who};
use strongroom::policy::facts::Event;
use strongroom::policy::leaving::Leaving;
use strongroom::policy::retention::Piece;
use strongroom::store::ledger::{Learned, LedgerEntry, LedgerEvent, Placed, read_after};
use strongroom::store::rows::erasure::{Erased, HoldRow, MonthRow, MonthState, TallyRow};
use strongroom::store::rows::{
    DekRow, FieldSet, GrantRow, IdempotencyRow, NewIdempotency, RecordRow, SubjectRow, TombstoneRow,
};
use strongroom::store::{LogVerdict, Store, StoreError, StorePaths, Tx, verify_log};
use tempfile::TempDir;

/// A place where one store lives.
trait Backend {
    fn open(&self) -> Result<Store, StoreError>;
}

struct Sqlite {
    folder: TempDir,
    keyring: Arc<Keyring>,
}

impl Sqlite {
    fn new() -> Self {
        let keyring = Keyring::create(&RootKey::generate(&OsEntropy), NOW, &OsEntropy);
        Self { folder: tempfile::tempdir().unwrap(), keyring: Arc::new(keyring) }
    }
}

impl Backend for Sqlite {
    fn open(&self) -> Result<Store, StoreError> {
        let folder = self.folder.path();
        let paths = StorePaths { database: folder.join("vault.db"), ledger: folder.join("erasures.jsonl") };
        Store::open(&paths, Arc::clone(&self.keyring), Arc::new(SimulatedClock::starting_at(NOW)))
    }
}

macro_rules! contract {
    ($($claim:ident)*) => {
        mod sqlite {
            $(#[test]
            fn $claim() {
                super::$claim(&super::Sqlite::new());
            })*
        }
    };
}

contract! {
    what_run_answered_is_there_after_reopening
    a_closure_that_fails_leaves_nothing_and_sinks_none_of_its_neighbours
    a_closure_sees_what_it_has_written_and_no_one_else_does_before_the_commit
    a_second_row_where_one_may_be_is_raced
    an_update_of_another_version_is_raced
    deleting_what_is_not_there_is_raced
    of_many_writers_of_one_version_exactly_one_succeeds
    ids_grow_and_are_never_repeated
    a_read_is_one_snapshot
    audit_entries_live_and_die_with_their_closure
    the_log_goes_on_after_reopening_and_verifies
    the_ledger_holds_an_erasure_when_it_is_answered_and_none_of_a_failed_closure
    with_an_epoch_the_ledger_loses_the_lines_that_were_for_its_backups
    a_second_holder_is_refused_until_the_first_is_gone
    deleting_a_records_rows_leaves_its_neighbours_rows
    blanking_forgets_the_requests_of_one_record_alone
    a_grant_is_found_by_its_tag_until_it_ends
    counts_are_of_what_is_there
    tallies_count_by_person_in_an_open_month_alone
    a_hold_is_on_its_record_or_subject_until_it_is_lifted_and_remembered_for_its_time
    a_leaving_subject_is_found_until_all_of_it_was_seen_and_its_story_afterwards
    an_erasure_knows_its_place_in_log_and_ledger_whoever_shares_its_commit
    keys_and_tombstones_expire_after_their_time_and_not_before
    due_records_come_oldest_first
    dues_are_paged_by_place_and_equal_ones_by_id
    the_log_is_read_in_bulk_by_whole_batches_and_no_further_than_asked
    subjects_and_grants_come_by_the_page_and_of_one_tenant
    a_subjects_records_come_newest_first
    what_was_made_under_an_older_epoch_is_raced_once_another_is_active
    a_snapshot_knows_every_epoch_of_its_rows_while_epochs_come_and_go
    a_keyring_whose_first_commit_fails_is_not_adopted
}

const NOW: Timestamp = Timestamp(1_767_571_200_000_000);

fn tenant() -> TenantId {
    "kitchenware".parse().unwrap()
}

fn digest(n: i64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

fn record(id: i64) -> RecordRow {
    RecordRow {
        id: RecordId(id),
        tenant: tenant(),
        digest: TokenDigest(digest(id)),
        subject: SubjectId(id + 1_000_000),
        class: Class::Order,
        policy_version: PolicyVersion([7; 32]),
        stored_at: NOW,
        revision: Revision(1),
        dek: DekId(id + 2_000_000),
        fields: FieldSet::default().with(Field::Address),
        facts: vec![1],
        due: NOW.plus(DAY),
        version: 1,
    }
}

fn dek(id: i64, record: i64) -> DekRow {
    DekRow { id: DekId(id), record: RecordId(record), epoch: Epoch(1), wrapped: vec![5; 60] }
}

fn subject(id: i64) -> SubjectRow {
    SubjectRow {
        id: SubjectId(id),
        tenant: tenant(),
        tag: IndexTag(digest(id)),
        dek: DekId(id),
        reference: vec![9; 80],
        since: NOW,
        leaving: None,
        unseen: None,
        holds: 0,
    }
}

fn grant(id: i64, record: i64) -> GrantRow {
    GrantRow {
        id: GrantId(id),
        tenant: tenant(),
        record: RecordId(record),
        parcel: 0,
        carrier: "swift".parse().unwrap(),
        tag: Some(IndexTag(digest(id))),
        not_before: NOW,
        not_after: NOW.plus(DAY),
        read_limit: 3,
        reads: 0,
        ended_at: None,
        dek: DekId(id),
        serial: vec![4; 80],
    }
}

fn new(row: IdempotencyRow) -> NewIdempotency {
    NewIdempotency { row, epoch: Epoch(1), elsewhere: Vec::new() }
}

fn key(n: i64, record: i64, recorded_at: Timestamp) -> IdempotencyRow {
    IdempotencyRow {
        digest: digest(n),
        request: [3; 16],
        record: RecordId(record),
        token: TokenDigest(digest(record)),
        result: vec![1, 2, 3],
        recorded_at,
    }
}

fn tombstone(n: i64, until: Timestamp) -> TombstoneRow {
    let (digest, class) = (TokenDigest(digest(n)), Class::Order);
    TombstoneRow { digest, tenant: tenant(), class, reason: EraseReason::Minor, until, erased: None, story: None }
}

fn entry(n: u8) -> Entry {
    Entry {
        at: NOW,
        request: RequestId([n; 16]),
        tenant: tenant(),
        actor: Actor::Vault,
        action: Action::Tokenize,
        class: Some(Class::Order),
        purpose: None,
        verdict: Verdict::Done,
        outcomes: Vec::new(),
        subject: None,
        whom: None,
        count: None,
    }
}

fn erasure(n: i64) -> LedgerEntry {
    LedgerEntry {
        at: NOW,
        tenant: tenant(),
        record: TokenDigest(digest(n)),
        event: LedgerEvent::Erased(EraseReason::Controller),
    }
}

/// A closure's own refusal, told apart from the store's.
fn refusal() -> StoreError {
    StoreError::Refused("the closure's own".to_owned())
}

fn write<T: Send + 'static>(store: &Store, work: impl Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static) -> T {
    store.run_blocking("test", work).unwrap()
}

fn is_raced<T>(store: &Store, work: impl Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static) -> bool
where
    T: Send + 'static,
{
    matches!(store.run_blocking("test", work), Err(StoreError::Raced))
}

/// Submits all at once, so that they share commits, and answers what each was told.
fn at_once<T, F>(store: &Store, works: Vec<F>) -> Vec<Result<T, StoreError>>
where
    T: Send + 'static,
    F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let all = works.into_iter().map(|work| store.run("test", work));
    runtime.block_on(futures_util::future::join_all(all))
}

fn what_run_answered_is_there_after_reopening(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let answer = write(&store, |tx| {
        tx.insert_record(&record(1))?;
        tx.insert_dek(&dek(1, 1))?;
        tx.put_sealed(RecordId(1), 3, &[8; 100])?;
        tx.insert_subject(&subject(1))?;
        tx.insert_grant(&grant(1, 1))?;
        tx.insert_idempotency(&new(key(1, 1, NOW)))?;
        tx.put_tombstone(&tombstone(9, NOW))?;
        tx.set_meta_i64("mark", -5)?;
        Ok("done")
    });
    assert_eq!(answer, "done");
    drop(store);
    let store = backend.open().unwrap();
    store
        .read(|view| {
            assert_eq!(view.record(RecordId(1))?, Some(record(1)));
            assert_eq!(view.record_by_digest(&record(1).digest)?, Some(record(1)));
            assert_eq!(view.dek(DekId(1))?, Some(dek(1, 1)));
            assert_eq!(view.sealed(RecordId(1), 3)?, Some(vec![8; 100]));
            assert_eq!(view.subject(SubjectId(1))?, Some(subject(1)));
            assert_eq!(view.subject_by_tag(&subject(1).tag)?, Some(subject(1)));
            assert_eq!(view.grant(GrantId(1))?, Some(grant(1, 1)));
            assert_eq!(view.idempotency(&digest(1))?, Some(key(1, 1, NOW)));
            assert_eq!(view.tombstone(&TokenDigest(digest(9)))?, Some(tombstone(9, NOW)));
            assert_eq!(view.meta_i64("mark")?, Some(-5));
            assert_eq!(view.record(RecordId(2))?, None);
            assert_eq!(view.meta_i64("another")?, None);
            Ok(())
        })
        .unwrap();
}

fn a_closure_that_fails_leaves_nothing_and_sinks_none_of_its_neighbours(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let fails = |n: i64| n % 3 == 0;
    let works: Vec<_> = (1..=300)
        .map(|n| {
            move |tx: &mut Tx<'_>| {
                tx.insert_record(&record(n))?;
                tx.insert_dek(&dek(n, n))?;
                tx.log(entry(1));
                tx.note(erasure(n));
                if n % 6 == 0 {
                    // Fails by the store's own judgement: there is such a key already.
                    tx.insert_dek(&dek(n, n))?;
                }
                if n % 3 == 0 { Err(refusal()) } else { Ok(n) }
            }
        })
        .collect();
    for (n, answer) in (1..).zip(at_once(&store, works)) {
        match answer {
            Ok(answered) => assert!(!fails(n) && answered == n),
            Err(StoreError::Raced) => assert_eq!(n % 6, 0),
            Err(StoreError::Refused(_)) => assert_eq!(n % 6, 3),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(store.poisoned(), None);
    drop(store);
    let store = backend.open().unwrap();
    let (frontier, there) = store
        .read(|view| {
            let is_there = |n: i64| Ok((view.record(RecordId(n))?.is_some(), view.dek(DekId(n))?.is_some()));
            Ok((view.audit_frontier()?.size(), (1..=300).map(is_there).collect::<Result<Vec<_>, StoreError>>()?))
        })
        .unwrap();
    for (n, there) in (1..).zip(there) {
        assert_eq!(there, (!fails(n), !fails(n)), "{n}");
    }
    assert_eq!(frontier, 200);
    assert_eq!(read_after(&store.paths().ledger, &store.keyring(), 0).unwrap().len(), 200);
}

fn a_closure_sees_what_it_has_written_and_no_one_else_does_before_the_commit(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let other = store.clone();
    let seen = write(&store, move |tx| {
        tx.insert_record(&record(1))?;
        let outside = other.read(|view| view.record(RecordId(1)))?;
        Ok((tx.record(RecordId(1))?, outside))
    });
    assert_eq!(seen, (Some(record(1)), None));
    assert!(store.read(|view| view.record(RecordId(1))).unwrap().is_some());
}

fn a_second_row_where_one_may_be_is_raced(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    write(&store, |tx| {
        tx.insert_record(&record(1))?;
        tx.insert_dek(&dek(1, 1))?;
        tx.insert_subject(&subject(1))?;
        tx.insert_grant(&grant(1, 1))?;
        tx.insert_idempotency(&new(key(1, 1, NOW)))
    });
    assert!(is_raced(&store, |tx| tx.insert_record(&record(1))));
    assert!(is_raced(&store, |tx| tx.insert_record(&RecordRow { id: RecordId(2), ..record(1) })), "same digest");
    assert!(is_raced(&store, |tx| tx.insert_dek(&dek(1, 2))));
    assert!(is_raced(&store, |tx| tx.insert_subject(&SubjectRow { id: SubjectId(2), ..subject(1) })), "same tag");
    assert!(is_raced(&store, |tx| tx.insert_grant(&GrantRow { id: GrantId(2), ..grant(1, 1) })), "same tag");
    assert!(is_raced(&store, |tx| tx.insert_idempotency(&new(key(1, 2, NOW)))));
    write(&store, |tx| tx.insert_record(&record(2)));
}

fn an_update_of_another_version_is_raced(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let at_version = |version| RecordRow { version, facts: vec![2], ..record(1) };
    write(&store, |tx| tx.insert_record(&record(1)));
    for version in [1, 3, u64::from(u32::MAX)] {
        assert!(is_raced(&store, move |tx| tx.update_record(&at_version(version))), "{version}");
    }
    assert_eq!(store.read(|view| view.record(RecordId(1))).unwrap(), Some(record(1)));
    write(&store, move |tx| tx.update_record(&at_version(2)));
    assert!(is_raced(&store, move |tx| tx.update_record(&at_version(2))), "a second time");
    assert_eq!(store.read(|view| view.record(RecordId(1))).unwrap(), Some(at_version(2)));
    assert_eq!(store.read(|view| view.record_version(RecordId(1))).unwrap(), Some(2));
    assert!(is_raced(&store, |tx| tx.update_record(&RecordRow { version: 2, ..record(7) })), "no such record");
}

fn deleting_what_is_not_there_is_raced(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    assert!(is_raced(&store, |tx| tx.delete_record(RecordId(1))));
    assert!(is_raced(&store, |tx| tx.delete_dek(DekId(1))));
    assert!(is_raced(&store, |tx| tx.delete_sealed(RecordId(1), 3)));
    assert!(is_raced(&store, |tx| tx.delete_subject(SubjectId(1))));
    assert!(is_raced(&store, |tx| tx.update_grant(&grant(1, 1))));
    let none = write(&store, |tx| {
        Ok((tx.delete_deks_of(RecordId(1))?, tx.delete_sealed_of(RecordId(1))?, tx.delete_grants_of(RecordId(1))?))
    });
    assert_eq!(none, (0, 0, 0), "what may be any number may be none");
}

fn of_many_writers_of_one_version_exactly_one_succeeds(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    write(&store, |tx| tx.insert_record(&record(1)));
    for round in 2..10 {
        let works: Vec<_> = (0..20)
            .map(|writer| {
                move |tx: &mut Tx<'_>| {
                    tx.update_record(&RecordRow { version: round, facts: vec![writer], ..record(1) })?;
                    Ok(writer)
                }
            })
            .collect();
        let (won, lost): (Vec<_>, Vec<_>) = at_once(&store, works).into_iter().partition(Result::is_ok);
        assert!(lost.into_iter().all(|answer| matches!(answer, Err(StoreError::Raced))));
        let [Ok(winner)] = won.as_slice() else { panic!("{} writers won", won.len()) };
        let row = store.read(|view| view.record(RecordId(1))).unwrap().unwrap();
        assert_eq!((row.version, row.facts), (round, vec![*winner]));
    }
}

fn ids_grow_and_are_never_repeated(backend: &dyn Backend) {
    let mut all = BTreeSet::new();
    for _ in 0..3 {
        let store = backend.open().unwrap();
        let before = all.last().copied().unwrap_or(0);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let store = store.clone();
                std::thread::spawn(move || (0..5_000).map(|_| store.allocate().unwrap()).collect::<Vec<i64>>())
            })
            .collect();
        for thread in threads {
            let ids = thread.join().unwrap();
            assert!(ids.is_sorted() && ids[0] > before, "grow, restarts included");
            assert!(ids.into_iter().all(|id| all.insert(id)), "never repeated");
        }
    }
}

fn a_read_is_one_snapshot(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    write(&store, |tx| tx.insert_record(&record(1)));
    let changed = RecordRow { version: 2, due: NOW, ..record(1) };
    let (before, after) = store
        .read(|view| {
            let before = view.record(RecordId(1))?;
            let next = changed.clone();
            write(&store, move |tx| {
                tx.update_record(&next)?;
                tx.insert_record(&record(2))
            });
            assert_eq!(view.record(RecordId(2))?, None);
            assert_eq!(view.counts(NOW)?.records, 1);
            Ok((before, view.record(RecordId(1))?))
        })
        .unwrap();
    assert_eq!((before, after), (Some(record(1)), Some(record(1))));
    assert_eq!(store.read(|view| view.record(RecordId(1))).unwrap(), Some(changed));
}

/// Every entry of the log, after its heads were checked against the tree, the keyring and the frontier.
fn verified(store: &Store) -> Vec<Entry> {
    let (mut verifier, mut entries) = (Verifier::new(None), Vec::new());
    store
        .audit_batches(&mut |batch, stamp| {
            assert!(stamp.fits(&store.keyring(), &batch.head));
            verifier.follow(&batch, true).unwrap();
            entries.extend(unpack(&batch.entries).unwrap());
            true
        })
        .unwrap();
    let (told, frontier) = (verifier.finish().unwrap(), store.read(|view| view.audit_frontier()).unwrap());
    assert_eq!((told.entries, told.root), (frontier.size(), frontier.root()));
    entries
}

fn audit_entries_live_and_die_with_their_closure(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    assert_eq!(verified(&store), []);
    let seen = store.clone();
    write(&store, move |tx| {
        tx.log(entry(1));
        tx.log(entry(2));
        assert_eq!(seen.read(|view| Ok(view.audit_frontier()?.size()))?, 0, "not before the commit");
        Ok(())
    });
    assert_eq!(verified(&store), [entry(1), entry(2)]);
    let failed = store.run_blocking("test", |tx| -> Result<(), StoreError> {
        tx.log(entry(3));
        Err(refusal())
    });
    assert!(matches!(failed, Err(StoreError::Refused(_))));
    assert_eq!(verified(&store), [entry(1), entry(2)]);
    write(&store, |tx| tx.insert_record(&record(1)));
    assert_eq!(verified(&store).len(), 2, "a write that logs nothing adds nothing");
}

fn the_log_goes_on_after_reopening_and_verifies(backend: &dyn Backend) {
    let mut expected = Vec::new();
    let mut database = None;
    for round in 0..4 {
        let store = backend.open().unwrap();
        let works: Vec<_> = (0..=round * 7)
            .map(|n| {
                move |tx: &mut Tx<'_>| {
                    tx.log(entry(n));
                    Ok(n)
                }
            })
            .collect();
        let answers = at_once(&store, works).into_iter().map(|answer| entry(answer.unwrap()));
        expected.extend(answers);
        assert_eq!(verified(&store), expected);
        database = Some((store.paths().database.clone(), store.keyring()));
    }
    let (database, keyring) = database.unwrap();
    let verdict = verify_log(&database, Some(&keyring), None).unwrap();
    assert!(matches!(verdict, LogVerdict::Sound(told) if told.entries == expected.len() as u64), "{verdict:?}");
}

fn the_ledger_holds_an_erasure_when_it_is_answered_and_none_of_a_failed_closure(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let told = |store: &Store| read_after(&store.paths().ledger, &store.keyring(), 0).unwrap();
    for n in 1..=5 {
        write(&store, move |tx| {
            tx.note(erasure(n));
            Ok(())
        });
        let line = Placed { number: n.cast_unsigned(), first: n.cast_unsigned(), entry: erasure(n) };
        assert_eq!(told(&store).last(), Some(&line));
        assert_eq!(store.read(|view| view.meta_i64("ledger_applied")).unwrap(), Some(n));
        let failed = store.run_blocking("test", |tx| -> Result<(), StoreError> {
            tx.note(erasure(99));
            Err(refusal())
        });
        assert!(failed.is_err());
    }
    assert_eq!(told(&store).len(), 5);
    drop(store);
    let store = backend.open().unwrap();
    write(&store, |tx| {
        tx.note(LedgerEntry { event: superseded(), ..erasure(6) });
        tx.note(LedgerEntry { event: learned(), ..erasure(7) });
        Ok(())
    });
    assert_eq!(told(&store).len(), 7);
    let last = read_after(&store.paths().ledger, &store.keyring(), 5).unwrap();
    let places: Vec<_> = last.iter().map(|line| (line.number, line.first)).collect();
    assert_eq!(places, [(6, 6), (7, 6)], "written together, they are told as such");
    let events: Vec<_> = last.into_iter().map(|line| line.entry.event).collect();
    assert_eq!(events, [superseded(), learned()]);
    // What was learned stands sealed in its line.
    let text = std::fs::read_to_string(&store.paths().ledger).unwrap();
    assert!(text.contains("\"replaced\":[\"phone\"],\"over\":[\"address_lines\"]"), "{text}");
    assert!(text.contains("\"learned\":\"") && !text.contains("happened") && !text.contains("delivered"), "{text}");
}

fn with_an_epoch_the_ledger_loses_the_lines_that_were_for_its_backups(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let adopt = |keyring: Keyring| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(store.adopt(Arc::new(keyring), |_| Ok(()))).unwrap();
    };
    let note = |n: i64| {
        write(&store, move |tx| {
            tx.note(if n % 2 == 0 { erasure(n) } else { LedgerEntry { event: learned(), ..erasure(n) } });
            Ok(())
        });
    };
    (1..=5).for_each(note);
    let path = store.paths().ledger.clone();
    let whole = std::fs::read_to_string(&path).unwrap();
    adopt(store.keyring().with_new_epoch(NOW, &OsEntropy));
    (6..=8).for_each(note);
    adopt(store.keyring().without(Epoch(1)).unwrap());
    note(9);
    let numbers = |after| {
        let told = read_after(&path, &store.keyring(), after)?;
        Ok::<_, StoreError>(told.into_iter().map(|line| line.number).collect::<Vec<_>>())
    };
    assert_eq!(numbers(5).unwrap(), [6, 7, 8, 9]);
    assert_eq!(numbers(7).unwrap(), [8, 9]);
    let refused = numbers(4).unwrap_err().to_string();
    assert!(refused.contains("begins after its entry 5"), "{refused}");
    let cut = std::fs::read_to_string(&path).unwrap();
    let gone: Vec<&str> = whole.lines().collect();
    assert!(
        cut.starts_with("{\"begins_after\":5,\"chain\":\"") && !gone.iter().any(|line| cut.contains(line)),
        "{cut}"
    );
    assert_eq!(cut.lines().count(), 5);
    // Nothing more is to be cut, and what says where it begins is bound by what follows.
    adopt(store.keyring().with_new_epoch(NOW, &OsEntropy));
    note(10);
    assert_eq!(numbers(9).unwrap(), [10]);
    let cut = std::fs::read_to_string(&path).unwrap();
    for forged in [
        cut.replacen(":5,", ":6,", 1),
        cut.replacen("\"chain\":\"", "\"chain\":\"0", 1),
        cut.replacen(":5,", ":05,", 1),
    ] {
        std::fs::write(&path, forged).unwrap();
        assert!(numbers(9).is_err());
    }
    let without_a_line = cut.lines().enumerate().filter(|(n, _)| *n != 1).map(|(_, line)| format!("{line}\n"));
    std::fs::write(&path, without_a_line.collect::<String>()).unwrap();
    assert!(numbers(9).is_err());
    std::fs::write(&path, cut).unwrap();
    assert_eq!(numbers(9).unwrap(), [10]);
}

fn superseded() -> LedgerEvent {
    let (replaced, over) = (vec![Field::Phone], vec![Piece::AddressLines]);
    LedgerEvent::Superseded { revision: Revision(2), replaced, over }
}

fn learned() -> LedgerEvent {
    let (kind, occurred_at, recorded_at) = (EventKind::Delivered, Timestamp(1), Timestamp(2));
    LedgerEvent::Learned(Box::new(Learned::Happened(Event { kind, ordinal: 0, occurred_at, recorded_at })))
}

fn a_second_holder_is_refused_until_the_first_is_gone(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let clone = store.clone();
    for _ in 0..2 {
        let Err(StoreError::Refused(why)) = backend.open() else { panic!("two hold one store") };
        assert!(why.contains("another process"), "{why}");
    }
    write(&store, |tx| tx.insert_record(&record(1)));
    drop(store);
    assert!(backend.open().is_err(), "a clone holds it too");
    drop(clone);
    assert!(backend.open().unwrap().read(|view| view.record(RecordId(1))).unwrap().is_some());
}

fn deleting_a_records_rows_leaves_its_neighbours_rows(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    write(&store, |tx| {
        for n in [1, 2] {
            tx.insert_record(&record(n))?;
            for of in 0..3_u8 {
                tx.insert_dek(&dek(n * 10 + i64::from(of), n))?;
                tx.put_sealed(RecordId(n), of, &[of])?;
            }
            tx.insert_grant(&grant(n * 10, n))?;
            tx.insert_grant(&grant(n * 10 + 1, n))?;
        }
        Ok(())
    });
    let gone = write(&store, |tx| {
        tx.delete_sealed(RecordId(1), 0)?;
        let gone =
            (tx.delete_deks_of(RecordId(1))?, tx.delete_sealed_of(RecordId(1))?, tx.delete_grants_of(RecordId(1))?);
        tx.delete_record(RecordId(1))?;
        Ok(gone)
    });
    assert_eq!(gone, (3, 2, 2));
    store
        .read(|view| {
            assert_eq!(view.record(RecordId(1))?, None);
            assert_eq!(view.grants_of(RecordId(1))?, []);
            assert_eq!(view.record(RecordId(2))?, Some(record(2)));
            assert_eq!(view.grants_of(RecordId(2))?, [grant(20, 2), grant(21, 2)]);
            for of in 0..3_u8 {
                assert_eq!(view.dek(DekId(10 + i64::from(of)))?, None);
                assert_eq!(view.sealed(RecordId(1), of)?, None);
                assert_eq!(view.dek(DekId(20 + i64::from(of)))?, Some(dek(20 + i64::from(of), 2)));
                assert_eq!(view.sealed(RecordId(2), of)?, Some(vec![of]));
            }
            assert!(view.subject_has_records(record(2).subject)?);
            assert!(!view.subject_has_records(record(1).subject)?);
            Ok(())
        })
        .unwrap();
    write(&store, |tx| tx.put_sealed(RecordId(2), 1, b"anew"));
    assert_eq!(store.read(|view| view.sealed(RecordId(2), 1)).unwrap(), Some(b"anew".to_vec()));
}

fn blanking_forgets_the_requests_of_one_record_alone(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    write(&store, |tx| {
        for n in 1..=4 {
            tx.insert_idempotency(&new(key(n, n % 2, NOW)))?;
        }
        tx.blank_idempotency_of(RecordId(1))
    });
    let blank = |n| IdempotencyRow { request: [0; 16], result: Vec::new(), ..key(n, 1, NOW) };
    let rows = store.read(|view| (1..=4).map(|n| Ok(view.idempotency(&digest(n))?.unwrap())).collect());
    let rows: Vec<IdempotencyRow> = rows.unwrap();
    assert_eq!(rows, [blank(1), key(2, 0, NOW), blank(3), key(4, 0, NOW)]);
}

fn a_grant_is_found_by_its_tag_until_it_ends(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    write(&store, |tx| {
        tx.insert_grant(&grant(1, 1))?;
        tx.insert_grant(&grant(2, 1))
    });
    let by_tag = |store: &Store, id: i64| store.read(move |view| view.grant_by_tag(&IndexTag(digest(id)))).unwrap();
    let read = GrantRow { reads: 2, ..grant(1, 1) };
    let next = read.clone();
    write(&store, move |tx| tx.update_grant(&next));
    assert_eq!(by_tag(&store, 1), Some(read));
    let ended = |id| GrantRow { tag: None, ended_at: Some(NOW), serial: Vec::new(), ..grant(id, 1) };
    write(&store, move |tx| {
        tx.update_grant(&ended(1))?;
        tx.update_grant(&ended(2))
    });
    assert_eq!((by_tag(&store, 1), by_tag(&store, 2)), (None, None), "any number of grants may have no tag");
    assert_eq!(store.read(|view| view.grants_of(RecordId(1))).unwrap(), [ended(1), ended(2)]);
}

fn counts_are_of_what_is_there(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let counts = |store: &Store| store.read(|view| view.counts(NOW)).unwrap();
    let empty = counts(&store);
    assert_eq!((empty.records, empty.due, empty.oldest_due, empty.tombstones), (0, 0, None, 0));
    write(&store, |tx| {
        for n in 1..=5 {
            tx.insert_record(&RecordRow { due: NOW.plus((n - 3) * DAY), ..record(n) })?;
        }
        tx.put_tombstone(&tombstone(1, NOW))?;
        tx.put_tombstone(&tombstone(2, NOW))
    });
    let full = counts(&store);
    assert_eq!((full.records, full.due, full.oldest_due, full.tombstones), (5, 3, Some(NOW.plus(-2 * DAY)), 2));
}

fn tally(country: &str, who: u8) -> TallyRow {
    let cell = Cell { class: Class::Order, country: country.to_owned() };
    TallyRow { tenant: tenant(), month: 5, cell, who: Who([who; 16]), count: 0 }
}

fn tallies_count_by_person_in_an_open_month_alone(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let month = |number, state| MonthRow { tenant: tenant(), month: number, state };
    let open = MonthState::Open { epoch: Epoch(1), key: vec![1; 60] };
    let closed = MonthState::Closed { at: NOW, cube: vec![0; 8] };
    assert!(is_raced(&store, |tx| tx.count(&tally("DE", 1))), "a month that has not begun counts nothing");
    let (first, other) = (month(5, open.clone()), month(4, closed.clone()));
    let rows = [first.clone(), other.clone()];
    write(&store, move |tx| rows.iter().try_for_each(|row| tx.put_month(row)));
    let works: Vec<_> = [("DE", 1), ("DE", 1), ("FR", 1), ("DE", 2)]
        .into_iter()
        .map(|(country, who)| move |tx: &mut Tx<'_>| tx.count(&tally(country, who)))
        .collect();
    assert!(at_once(&store, works).iter().all(Result::is_ok));
    let found = store.read(|view| view.tallies(&tenant(), 5)).unwrap();
    let found: Vec<_> = found.iter().map(|row| (row.cell.country.as_str(), row.who.0[0], row.count)).collect();
    assert_eq!(found, [("DE", 1, 2), ("DE", 2, 1), ("FR", 1, 1)]);
    let range = |from, until| store.read(|view| view.months(&tenant(), from, until)).unwrap();
    assert_eq!((range(0, 9), range(5, 9), range(6, 9)), (vec![other, first.clone()], vec![first], vec![]));
    let over = month(5, closed);
    write(&store, move |tx| tx.put_month(&over));
    assert!(is_raced(&store, |tx| tx.count(&tally("DE", 1))), "a closed month counts no more");
    assert!(!store.read(|view| view.has_tallies(&tenant(), 5)).unwrap());
    assert_eq!(write(&store, |tx| tx.delete_tallies(&tenant(), 5, 9)), 0);
    assert_eq!(write(&store, |tx| tx.delete_tallies(&tenant(), 6, 2)), 2);
    assert_eq!(write(&store, |tx| tx.delete_tallies(&tenant(), 6, 2)), 1);
    assert!(!store.read(|view| view.has_tallies(&tenant(), 6)).unwrap());
}

fn hold(id: i64, subject: i64, record: Option<i64>) -> HoldRow {
    HoldRow {
        id: HoldId(id),
        tenant: tenant(),
        subject: SubjectId(subject),
        record: record.map(RecordId),
        kind: HoldKind::Court,
        reference: vec![6; 80],
        placed_by: "tenant/kitchenware/privacy-officer/office".parse().unwrap(),
        placed_at: NOW,
        lifted_at: None,
    }
}

fn a_hold_is_on_its_record_or_subject_until_it_is_lifted_and_remembered_for_its_time(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let holds = [hold(1, 7, Some(70)), hold(2, 7, None), hold(3, 8, Some(80))];
    let rows = holds.clone();
    write(&store, move |tx| rows.iter().try_for_each(|row| tx.insert_hold(row)));
    let of = |subject| store.read(|view| view.holds_of(SubjectId(subject))).unwrap();
    assert_eq!(of(7), holds[..2]);
    let on =
        |record: i64| of(7).into_iter().filter(|hold| hold.is_on(RecordId(record))).map(|hold| hold.id.0).collect();
    assert_eq!((on(70), on(71)), (vec![1, 2], vec![2]));
    let lifted = HoldRow { reference: Vec::new(), lifted_at: Some(NOW.plus(5)), ..hold(1, 7, Some(70)) };
    let row = lifted.clone();
    write(&store, move |tx| tx.update_hold(&row));
    assert_eq!(store.read(|view| view.hold(HoldId(1))).unwrap(), Some(lifted));
    assert_eq!((on(70), on(71)), (vec![2], vec![2]));
    let page = |after| store.read(|view| view.holds(&tenant(), HoldId(after), 2)).unwrap();
    assert_eq!(page(0).iter().map(|hold| hold.id.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(page(2).iter().map(|hold| hold.id.0).collect::<Vec<_>>(), [3]);
    let over = |before| store.read(|view| view.holds_lifted(before, 9)).unwrap().len();
    assert_eq!((over(NOW.plus(5)), over(NOW.plus(6))), (0, 1));
    write(&store, |tx| tx.delete_hold(HoldId(1)));
    write(&store, |tx| tx.delete_hold(HoldId(2)));
    assert!(of(7).is_empty() && is_raced(&store, |tx| tx.delete_hold(HoldId(2))));
}

fn a_leaving_subject_is_found_until_all_of_it_was_seen_and_its_story_afterwards(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let story = ErasureId([7; 16]);
    let leaving = Leaving { at: NOW, reason: EraseReason::Cancellation, story, last: RecordId(9) };
    let asked = SubjectRow { leaving: Some(leaving), unseen: Some(RecordId(0)), ..subject(1) };
    let row = asked.clone();
    write(&store, move |tx| {
        tx.insert_subject(&subject(1))?;
        tx.insert_subject(&subject(2))?;
        tx.update_subject(&row)
    });
    assert_eq!(store.read(|view| view.subject(SubjectId(1))).unwrap(), Some(asked.clone()));
    assert_eq!(store.read(|view| view.subjects_unseen(9)).unwrap(), [SubjectId(1)]);
    let seen = SubjectRow { unseen: None, ..asked };
    write(&store, move |tx| tx.update_subject(&seen));
    assert!(store.read(|view| view.subjects_unseen(9)).unwrap().is_empty());
    let erased = Erased { at: NOW, in_backups_by: NOW, entry: 3, line: 4, keys: vec![(DekId(5), Epoch(1))] };
    let gone = |n: i64| TombstoneRow { erased: Some(erased.clone()), story: Some(story), ..tombstone(n, NOW) };
    let rows = [gone(11), gone(12), gone(13), tombstone(14, NOW)];
    let inserted = rows.clone();
    write(&store, move |tx| inserted.iter().try_for_each(|row| tx.put_tombstone(row)));
    let page = |after| store.read(|view| view.tombstones_of(story, after, 2)).unwrap();
    assert_eq!(page(None), rows[..2]);
    assert_eq!(page(Some(rows[1].digest)), rows[2..3]);
    assert!(page(Some(rows[2].digest)).is_empty());
}

fn an_erasure_knows_its_place_in_log_and_ledger_whoever_shares_its_commit(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let works: Vec<_> = (1..=100)
        .map(|n: i64| {
            move |tx: &mut Tx<'_>| {
                tx.log(entry(1));
                tx.note(erasure(n));
                let places = (n, tx.next_entry(), tx.last_line());
                tx.log(Entry { request: RequestId([u8::try_from(n).unwrap(); 16]), ..entry(0) });
                if n % 7 == 0 { Err(refusal()) } else { Ok(places) }
            }
        })
        .collect();
    let told: Vec<_> = at_once(&store, works).into_iter().flatten().collect();
    assert_eq!(told.len(), 100 - 14);
    let mut entries = Vec::new();
    let mut each = |packed: Vec<u8>| entries.extend(unpack(&packed).unwrap());
    store
        .audit_batches(&mut |batch, _| {
            each(batch.entries);
            true
        })
        .unwrap();
    let keyring = store.keyring();
    let lines = read_after(&store.paths().ledger, &keyring, 0).unwrap();
    for (n, place, line) in told {
        assert_eq!(entries[usize::try_from(place).unwrap()].request.0[0], u8::try_from(n).unwrap());
        let told = &lines[usize::try_from(line).unwrap() - 1];
        assert_eq!((told.number, &told.entry), (line, &erasure(n)));
        assert!(told.first <= line, "the first of its commit");
    }
}

fn keys_and_tombstones_expire_after_their_time_and_not_before(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    write(&store, |tx| {
        for n in 0..10 {
            tx.insert_idempotency(&new(key(n, 1, NOW.plus(n))))?;
            tx.put_tombstone(&tombstone(n, NOW.plus(n)))?;
        }
        Ok(())
    });
    let expire = |limit| {
        move |tx: &mut Tx<'_>| {
            Ok((tx.expire_idempotency(NOW.plus(5), limit)?, tx.expire_tombstones(NOW.plus(5), limit)?))
        }
    };
    assert_eq!(write(&store, expire(3)), (3, 3), "no more than were asked for");
    assert_eq!(write(&store, expire(100)), (2, 2));
    assert_eq!(write(&store, expire(100)), (0, 0), "nothing whose time has only just come");
    let left = store.read(|view| {
        let left =
            |n: i64| Ok((view.idempotency(&digest(n))?.is_some(), view.tombstone(&TokenDigest(digest(n)))?.is_some()));
        (0..10).map(left).collect::<Result<Vec<_>, StoreError>>()
    });
    let expected: Vec<_> = (0..10).map(|n| (n >= 5, n >= 5)).collect();
    assert_eq!(left.unwrap(), expected);
}

fn due_records_come_oldest_first(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    write(&store, |tx| {
        for (id, due) in [(1, 4), (2, 0), (3, -7), (4, 1), (5, -2)] {
            tx.insert_record(&RecordRow { due: NOW.plus(due), ..record(id) })?;
        }
        Ok(())
    });
    let due = |limit| store.read(move |view| view.records_due(NOW, limit)).unwrap();
    assert_eq!(due(10), [RecordId(3), RecordId(5), RecordId(2)]);
    assert_eq!(due(2), [RecordId(3), RecordId(5)]);
}

fn dues_are_paged_by_place_and_equal_ones_by_id(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    write(&store, |tx| {
        for (id, due) in [(1, 4), (2, 0), (3, -7), (4, 0), (5, -7), (6, 0), (7, 5)] {
            tx.insert_record(&RecordRow { due: NOW.plus(due), ..record(id) })?;
        }
        Ok(())
    });
    let page = |due: i64, id, limit| {
        let after = (NOW.plus(due), RecordId(id));
        let found = store.read(|view| view.records_due_after(after, NOW.plus(4), limit)).unwrap();
        found.into_iter().map(|(due, id)| (due.since(NOW), id.0)).collect::<Vec<_>>()
    };
    let all = [(-7, 3), (-7, 5), (0, 2), (0, 4), (0, 6), (4, 1)];
    assert_eq!(page(i64::MIN >> 1, i64::MIN, 10), all);
    for (at, (due, id)) in all.into_iter().enumerate() {
        assert_eq!(page(due, id, 10), all[at + 1..], "behind {due}, {id}");
        assert_eq!(page(due, id, 2), all[at + 1..].iter().copied().take(2).collect::<Vec<_>>());
    }
    assert_eq!(page(5, 0, 10), [], "a place beyond the end");
}

fn the_log_is_read_in_bulk_by_whole_batches_and_no_further_than_asked(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    for n in 1..=5 {
        write(&store, move |tx| {
            (0..n).for_each(|_| tx.log(entry(n)));
            Ok(())
        });
    }
    let read = |from, end, bytes| {
        let mut packed = b"".to_vec();
        let next = store.read(|view| view.audit_entries(from, end, bytes, &mut packed)).unwrap();
        (unpack(&packed).unwrap().iter().map(|entry| entry.request.0[0]).collect::<Vec<_>>(), next)
    };
    assert_eq!(read(0, 15, usize::MAX), (vec![1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5], 15));
    assert_eq!(read(0, 15, 1), (vec![1], 1), "one batch at least");
    assert_eq!(read(1, 15, 1), (vec![2, 2], 3));
    assert_eq!(read(3, 6, usize::MAX), (vec![3, 3, 3], 6), "what came later is not read");
    assert_eq!(read(15, 15, usize::MAX), (vec![], 15));
    assert_eq!(read(15, 99, usize::MAX), (vec![], 15));
}

fn subjects_and_grants_come_by_the_page_and_of_one_tenant(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let garden: TenantId = "garden".parse().unwrap();
    let of = |n: i64| if n % 3 == 0 { "garden".parse().unwrap() } else { tenant() };
    write(&store, move |tx| {
        for n in 1..=7 {
            tx.insert_subject(&SubjectRow { tenant: of(n), ..subject(n) })?;
            tx.insert_grant(&GrantRow { tenant: of(n), ..grant(n, 1) })?;
        }
        Ok(())
    });
    let subjects = |tenant: &TenantId, after, limit| {
        let (rows, next) = store.read(|view| view.subjects_after(tenant, SubjectId(after), limit)).unwrap();
        (rows.into_iter().map(|row| row.id.0).collect::<Vec<_>>(), next.map(|id| id.0))
    };
    let grants = |tenant: &TenantId, after, limit| {
        let (rows, next) = store.read(|view| view.grants_after(tenant, GrantId(after), limit)).unwrap();
        (rows.into_iter().map(|row| row.id.0).collect::<Vec<_>>(), next.map(|id| id.0))
    };
    for (tenant, after, limit, expected) in [
        (&tenant(), i64::MIN, 4, (vec![1, 2, 4], Some(4))),
        (&tenant(), 4, 4, (vec![5, 7], None)),
        (&garden, i64::MIN, 2, (vec![], Some(2))),
        (&garden, 2, 2, (vec![3], Some(4))),
        (&garden, 7, 2, (vec![], None)),
    ] {
        assert_eq!(subjects(tenant, after, limit), expected);
        assert_eq!(grants(tenant, after, limit), expected);
    }
}

fn a_subjects_records_come_newest_first(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let of = |id: i64, subject: i64| RecordRow { subject: SubjectId(subject), ..record(id) };
    write(&store, move |tx| (1..=6).try_for_each(|id| tx.insert_record(&of(id, id % 2))));
    let ids = |before, limit| -> Vec<i64> {
        let rows = store.read(|view| view.records_of(SubjectId(1), RecordId(before), limit)).unwrap();
        rows.into_iter().map(|row| row.id.0).collect()
    };
    assert_eq!(ids(i64::MAX, 2), [5, 3]);
    assert_eq!(ids(3, 2), [1]);
    assert_eq!(ids(1, 2), [0_i64; 0]);
}

fn adopt(store: &Store, next: Keyring, work: impl Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.adopt(Arc::new(next), work)).unwrap();
}

fn what_was_made_under_an_older_epoch_is_raced_once_another_is_active(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    write(&store, |tx| tx.insert_idempotency(&new(key(1, 1, NOW))));
    adopt(&store, store.keyring().with_new_epoch(NOW, &OsEntropy), |_| Ok(()));
    assert!(is_raced(&store, |tx| tx.insert_dek(&dek(1, 1))));
    assert!(is_raced(&store, |tx| tx.insert_idempotency(&new(key(2, 1, NOW)))));
    let again = || NewIdempotency { epoch: Epoch(2), elsewhere: vec![digest(1)], ..new(key(3, 1, NOW)) };
    assert!(is_raced(&store, move |tx| tx.insert_idempotency(&again())), "the key is there, under the older epoch");
    let other = || NewIdempotency { epoch: Epoch(2), elsewhere: vec![digest(9)], ..new(key(3, 1, NOW)) };
    write(&store, move |tx| tx.insert_idempotency(&other()));
    write(&store, |tx| tx.insert_dek(&DekRow { epoch: Epoch(2), ..dek(1, 1) }));
    assert_eq!(store.read(|view| view.meta_i64("keyring_generation")).unwrap(), Some(2));
}

fn a_snapshot_knows_every_epoch_of_its_rows_while_epochs_come_and_go(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    write(&store, |tx| tx.insert_record(&record(1)));
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reads = 0;
                    while !over.load(std::sync::atomic::Ordering::SeqCst) {
                        let seen = store.read(|view| {
                            let newest = view.keyring().active().number();
                            Ok((newest, view.record(RecordId(1))?.unwrap().version))
                        });
                        // Never of an epoch that the snapshot's keyring does not know; behind it only by the commit that adopts.
                        let (newest, version) = seen.unwrap();
                        assert!([version, version + 1].contains(&u64::from(newest.0)), "{newest} {version}");
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for version in 2..=60 {
            // The record is brought under the new epoch in the very commit that adopts it; then the old one goes.
            let next = store.keyring().with_new_epoch(NOW, &OsEntropy);
            adopt(&store, next, move |tx| tx.update_record(&RecordRow { version, ..record(1) }));
            let old = Epoch(u32::try_from(version).unwrap() - 1);
            // The store's own numbers lie under the old one, so it can go only for this record.
            adopt(&store, store.keyring().without(old).unwrap(), |_| Ok(()));
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        let reads: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(reads > 100, "{reads} reads");
    });
}

fn a_keyring_whose_first_commit_fails_is_not_adopted(backend: &dyn Backend) {
    let store = backend.open().unwrap();
    let next = Arc::new(store.keyring().with_new_epoch(NOW, &OsEntropy));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(store.adopt(next, |_| Err(refusal()))).is_err());
    assert_eq!(store.keyring().active().number(), Epoch(1));
    assert_eq!(store.read(|view| view.meta_i64("keyring_generation")).unwrap(), Some(1));
    write(&store, |tx| tx.insert_dek(&dek(1, 1)));
}
