//! The writer thread: group commit. INVARIANT: an answer is sent only after the commit that holds its work, its audit entries
//! and its head of the audit tree is on disk, and after the erasure ledger's lines are; if a commit fails, every later
//! one is refused until a restart has recovered, for what the disk then holds is unknown. Two failures leave the disk as it was
//! and are answered as what they are: it is full (`store::reserve` tells who may still write), or another process holds the
//! database's write lock. A commit is made under one keyring, and keyrings change between commits.

mod copy;
mod queue;
mod recover;

use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use rusqlite::{Connection, ErrorCode};

pub(super) use queue::{Copy, Writer};
use queue::{Guard, Job, Work};
use recover::{Recovered, recover};

use super::read::Reader;
use super::{sql, write};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::entry::Entry;
use crate::audit::log::{Tip, year};
use crate::audit::proof::STORED_FROM;
use crate::audit::tree::Node;
use crate::crypto::keyring::Keyring;
use crate::domain::fault::{Fault, abort_at, planted};
use crate::domain::time::Clock;
use crate::domain::time::SECOND;
use crate::store::ids::Ids;
use crate::store::ledger::{Ledger, LedgerEntry};
use crate::store::reserve::{Reserve, ReserveState, TAKES_AWAY};
use crate::store::state::{State as Sums, Tally};
use crate::store::tx::log::{Cut, KeptNote, LogReads as _, LogWrites as _};
use crate::store::tx::{Places, Reads as _, Tx, Writes as _, stamp};
use crate::store::{Flags, HeadStamp, StoreError, StorePaths, rows::MetaRow};

/// How many closures one commit may hold.
const GROUP: usize = 512;
/// How often, and how far apart, a commit is begun while another process holds the write lock. Two such waits, one in the queue
/// and one's own, are within the second in which a refusal is promised.
const BEGINS: usize = 80;
const BEGIN_AGAIN: Duration = Duration::from_millis(5);

struct State<'c> {
    connection: &'c Connection,
    ledger: Ledger,
    /// The log's last tree.
    tip: Tip,
    /// The state of all rows, as of the last commit.
    sums: Sums,
    keyring: Arc<Keyring>,
    /// The same, for those who read.
    shared: Arc<ArcSwap<Keyring>>,
    clock: Arc<dyn Clock>,
    poison: Arc<OnceLock<String>>,
    ids: Arc<Ids>,
    reserve: Reserve,
    flags: Arc<Flags>,
    /// An erasure was committed while a reader held the log; it is truncated as soon as that goes.
    truncate_owed: bool,
}

/// What one commit adds beside the closures' own writes.
#[derive(Default)]
struct Appended {
    entries: Vec<Entry>,
    ledger: Vec<LedgerEntry>,
    cut: Option<Cut>,
    change: Tally,
}

impl Appended {
    /// Whether something goes that must not stay in the write-ahead log.
    fn destroys(&self) -> bool {
        self.ledger.iter().any(|entry| entry.event.destroys())
    }

    /// Where the process ends if that is planted, and something is erased.
    fn abort_at(&self, fault: Fault) {
        if self.destroys() {
            abort_at(fault);
        }
    }
}

impl<'c> State<'c> {
    /// Checks what is there, and shows that the disk takes writes.
    fn open(
        connection: &'c Connection,
        paths: &StorePaths,
        reserve: u64,
        shared: Arc<ArcSwap<Keyring>>,
        clock: Arc<dyn Clock>,
        poison: Arc<OnceLock<String>>,
        flags: Arc<Flags>,
    ) -> Result<Self, StoreError> {
        let keyring = shared.load_full();
        let ledger = Ledger::open(&paths.ledger, &keyring)?;
        let reserve = Reserve::open(paths, reserve)?;
        let Recovered { tip, sums, adopted, bound, fresh } = recover(connection, &keyring, &ledger)?;
        let ids = Arc::new(Ids::from(bound));
        let truncate_owed = false;
        let mut state =
            Self { connection, ledger, tip, sums, keyring, shared, clock, poison, ids, reserve, flags, truncate_owed };
        if fresh {
            state.put_meta("ledger_applied", 0_i64.to_le_bytes().to_vec())?;
        }
        if adopted {
            state.adopt_log()?;
        }
        // An empty commit reserves the first ids, and shows that the disk takes writes.
        match state.try_commit(&mut []) {
            // On a full disk a restarted store must still be able to erase.
            Err(StoreError::DiskFull) if state.reserve.release() => {
                let _ = state.batch("rollback", "-- rollback\nROLLBACK");
                state.try_commit(&mut [])?;
            }
            committed => drop(committed?),
        }
        state.flags.reserve(state.reserve.state());
        Ok(state)
    }

    fn serve(mut self, queue: &Receiver<Job>) {
        let _guard = Guard(Arc::clone(&self.poison));
        while let Ok(first) = queue.recv() {
            if let Some(copy) = self.turn(first, queue) {
                self.copy(copy, queue);
            }
        }
        // Closed in good order, the database file alone holds everything.
        let _ = self.truncate();
    }

    /// Does `first` and what is queued behind it, as far as one commit may hold it; answers a copy that is wanted.
    fn turn(&mut self, first: Job, queue: &Receiver<Job>) -> Option<Copy> {
        let (mut works, mut truncations, mut adoption, mut copy) = (Vec::new(), Vec::new(), None, None);
        let mut next = Some(first);
        while let Some(job) = next.take() {
            match job {
                Job::Work(work) => works.push(work),
                Job::TruncateLog(to) => truncations.push(to),
                // What was queued before these is committed under the old keyring, or in the copy.
                Job::Adopt(keyring, work) => {
                    adoption = Some((keyring, work));
                    break;
                }
                Job::Copy(wanted) => {
                    copy = Some(wanted);
                    break;
                }
            }
            if works.len() < GROUP {
                next = queue.try_recv().ok();
            }
        }
        if !works.is_empty() {
            self.commit(&mut works);
        }
        if let Some((keyring, work)) = adoption {
            self.adopt(keyring, work);
        }
        if !truncations.is_empty() || self.truncate_owed {
            let done = self.truncate();
            for to in truncations {
                let _ = to.send(done.clone());
            }
        }
        copy
    }

    fn commit(&mut self, works: &mut Vec<Box<dyn Work>>) {
        self.reserve.restore();
        if self.reserve.state() == ReserveState::Released {
            refuse_but_taking_away(works);
            if works.is_empty() {
                return self.flags.reserve(ReserveState::Released);
            }
        }
        let started = self.clock.boot();
        let mut committed = self.try_commit(works);
        if matches!(committed, Err(StoreError::DiskFull)) {
            let _ = self.batch("rollback", "-- rollback\nROLLBACK");
            if works.iter().any(|work| takes_away(work.as_ref())) && self.reserve.release() {
                refuse_but_taking_away(works);
                committed = self.try_commit(works);
            }
        }
        self.flags.reserve(self.reserve.state());
        match committed {
            Ok(erased) => {
                if erased {
                    abort_at(Fault::AbortAfterCommit);
                    // An erasure is acknowledged once the log no longer holds what it deleted.
                    self.truncate_owed = true;
                    let _ = self.truncate();
                    abort_at(Fault::AbortBeforeAnswer);
                }
                works.iter_mut().for_each(|work| work.answer(None));
                metrics::histogram!("strongroom_commit_seconds").record(seconds(self.clock.boot() - started));
                metrics::histogram!("strongroom_commit_transactions").record(count(works.len()));
            }
            Err(error) => {
                self.failed(&error);
                works.iter_mut().for_each(|work| work.answer(Some(&error)));
            }
        }
    }

    /// Nothing of a commit stands; unless the disk is known to be as it was, nothing more is committed.
    fn failed(&self, error: &StoreError) {
        let _ = self.batch("rollback", "-- rollback\nROLLBACK");
        metrics::counter!("strongroom_commits_failed_total").increment(1);
        if !matches!(error, StoreError::DiskFull | StoreError::Busy) {
            tracing::error!(error = %error, "a commit failed; the store refuses until it is restarted");
            let _ = self.poison.set(error.to_string());
        }
    }

    /// Commits `work` as the first one under `keyring`; when it does not stand, all stays with the old keyring.
    fn adopt(&mut self, keyring: Arc<Keyring>, work: Box<dyn Work>) {
        let old = std::mem::replace(&mut self.keyring, Arc::clone(&keyring));
        // Before the commit: whoever reads what it wrote must know its epoch, and nothing written by now needs the old one alone.
        self.shared.store(keyring);
        let mut works = [work];
        match self.try_commit(&mut works) {
            Ok(_) if works.iter().all(|work| work.stands()) => self.cut_ledger(&old),
            Ok(_) => self.fall_back(old),
            Err(error) => {
                self.fall_back(old);
                self.failed(&error);
                return works.iter_mut().for_each(|work| work.answer(Some(&error)));
            }
        }
        works.iter_mut().for_each(|work| work.answer(None));
    }

    /// With an epoch the ledger's lines go that were for its backups.
    fn cut_ledger(&mut self, old: &Keyring) {
        if old.epochs().all(|epoch| self.keyring.epoch(epoch.number()).is_some()) {
            return;
        }
        if let Err(error) = self.ledger.cut(&self.keyring) {
            self.failed(&error);
        }
    }

    fn fall_back(&mut self, old: Arc<Keyring>) {
        self.shared.store(Arc::clone(&old));
        self.keyring = old;
    }

    /// Runs and commits all; `true` when something was erased.
    fn try_commit(&mut self, works: &mut [Box<dyn Work>]) -> Result<bool, StoreError> {
        if let Some(why) = self.poison.get() {
            return Err(StoreError::Poisoned(why.clone()));
        }
        let before = (self.tip.clone(), self.sums);
        self.begin()?;
        let mut appended = Appended::default();
        for work in works.iter_mut() {
            self.savepoint(work.as_mut(), &mut appended)?;
        }
        if planted(Fault::EarlyAcknowledgement) {
            works.iter_mut().for_each(|work| work.answer(None));
            std::thread::sleep(Duration::from_millis(20));
        }
        let bound = self.ids.wanted();
        let committed = self
            .append(&appended)
            .and_then(|()| bound.map_or(Ok(()), |bound| self.put_meta("next_id", bound.to_le_bytes().to_vec())))
            .map(|()| appended.abort_at(Fault::AbortBeforeCommit))
            .and_then(|()| self.batch("commit", "-- commit\nCOMMIT"));
        if let Err(error) = committed {
            (self.tip, self.sums) = before;
            return Err(error);
        }
        if let Some(bound) = bound {
            self.ids.reserved(bound);
        }
        metrics::counter!("strongroom_audit_entries_total").increment(appended.entries.len() as u64);
        appended.entries.iter().for_each(|entry| self.flags.committed(entry));
        Ok(appended.destroys())
    }

    /// Begins a transaction. One that finds the write lock taken (by a backup, a person at a prompt) has written nothing: it is
    /// tried again for a while and then is no more than busy. The connection's own waiting stays off, for a checkpoint's sake.
    fn begin(&self) -> Result<(), StoreError> {
        for _ in 0..BEGINS {
            match self.batch("begin", "-- begin\nBEGIN IMMEDIATE") {
                Err(StoreError::Sql { source, .. }) if source.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                    std::thread::sleep(BEGIN_AGAIN);
                }
                begun => return begun,
            }
        }
        Err(StoreError::Busy)
    }

    /// Runs one closure; if it fails, nothing of it remains and its neighbours are not touched.
    fn savepoint(&self, work: &mut dyn Work, appended: &mut Appended) -> Result<(), StoreError> {
        self.batch("savepoint", "-- savepoint\nSAVEPOINT closure")?;
        let rows = Reader { connection: self.connection };
        let begins = Places {
            entry: self.tip.entries() + appended.entries.len() as u64,
            line: self.ledger.last() + appended.ledger.len() as u64,
        };
        let mut tx = Tx::new(&rows, &rows, &self.keyring, begins);
        let started = self.clock.boot();
        match work.run(&mut tx) {
            Ok(()) => {
                appended.entries.append(&mut tx.entries);
                appended.ledger.append(&mut tx.ledger);
                appended.cut = tx.cut.take().or(appended.cut.take());
                appended.change.add(&tx.change.borrow());
            }
            // SQLite may have rolled everything back, savepoints included.
            Err(StoreError::DiskFull) => return Err(StoreError::DiskFull),
            Err(_) => self.batch("rollback_closure", "-- rollback_closure\nROLLBACK TO closure")?,
        }
        self.batch("release_closure", "-- release_closure\nRELEASE closure")?;
        let micros = self.clock.boot() - started;
        if micros > 1_000_000 {
            tracing::warn!(closure = work.name(), micros, "a transaction held the writer for long");
        }
        Ok(())
    }

    /// Writes what the closures appended: the ledger to its own disk first, then the audit batch into this commit.
    fn append(&mut self, appended: &Appended) -> Result<(), StoreError> {
        if !appended.ledger.is_empty() {
            appended.abort_at(Fault::AbortBeforeLedger);
            let applied = self.ledger.append(&appended.ledger, &self.keyring)?;
            appended.abort_at(Fault::AbortAfterLedger);
            self.put_meta("ledger_applied", applied.to_le_bytes().to_vec())?;
        }
        if !appended.entries.is_empty() {
            self.append_entries(&appended.entries)?;
        }
        if let Some(cut) = &appended.cut {
            self.cut(cut)?;
        }
        if !(appended.entries.is_empty() && appended.change.is_nothing()) {
            self.sums.tally.add(&appended.change);
            self.put_sums()?;
        }
        Ok(())
    }

    fn append_entries(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let mut nodes = Vec::new();
        let batch = self.tip.extend(entries, self.clock.now(), &mut |node| nodes.push(node));
        let vouched = HeadStamp::of(self.keyring.active(), &batch.head);
        write::insert_audit_batch(self.connection, &batch, &vouched)?;
        self.put_nodes(&nodes)?;
        self.put_meta("audit_frontier", self.tip.to_bytes())
    }

    fn put_nodes(&self, nodes: &[Node]) -> Result<(), StoreError> {
        let stored = nodes.iter().filter(|node| node.level >= STORED_FROM);
        stored.into_iter().try_for_each(|node| write::log::insert_node(self.connection, node))
    }

    /// Closes the year's tree with its last checkpoint, and begins the next one.
    fn cut(&mut self, Cut { name, year, at }: &Cut) -> Result<(), StoreError> {
        let (first, size) = (self.tip.first, self.tip.frontier.size());
        if size == 0 || *year <= self.tip.year {
            return Ok(());
        }
        let root = self.tip.frontier.root();
        let (name, at) = (name.clone(), *at);
        let last = Checkpoint { name, year: self.tip.year, first, size, root, at, is_last: true };
        let rows = Reader { connection: self.connection };
        rows.delete_note(first, size)?;
        let note = last.sign(self.keyring.signer());
        rows.put_note(&KeptNote { first, size, is_last: true, note })?;
        self.tip = self.tip.next(*year);
        self.put_meta("audit_frontier", self.tip.to_bytes())
    }

    fn put_sums(&mut self) -> Result<(), StoreError> {
        self.sums = Sums { entries: self.tip.entries(), number: self.sums.number + 1, ..self.sums };
        self.put_meta("audit_state", self.sums.to_bytes(self.keyring.signer().state()))
    }

    /// Brings a store of an earlier build up to this one: its one log gets a name and its nodes, its rows become the state.
    fn adopt_log(&mut self) -> Result<(), StoreError> {
        self.batch("adopt_log", "-- adopt_log\nBEGIN IMMEDIATE")?;
        let rows = Reader { connection: self.connection };
        if self.tip.is_unnamed() {
            let mut again = Tip::default();
            let mut nodes = Vec::new();
            rows.leaves(0..self.tip.entries(), &mut |_, leaf| {
                let hash = crate::audit::tree::leaf_hash(leaf);
                again.frontier.append_hash(hash, &mut |node| nodes.push(node));
            })?;
            if again.frontier != self.tip.frontier {
                return Err(StoreError::Refused("the audit log's entries do not lead to its frontier".to_owned()));
            }
            self.put_nodes(&nodes)?;
            rows.audit_batches(0, 1, &mut |batch, _| {
                self.tip.year = year(batch.head.at);
                false
            })?;
            self.put_meta("audit_frontier", self.tip.to_bytes())?;
        }
        self.put_sums()?;
        self.batch("adopt_log", "-- adopt_log\nCOMMIT")
    }

    fn put_meta(&self, key: &'static str, value: Vec<u8>) -> Result<(), StoreError> {
        let row = MetaRow { key: key.into(), value };
        Reader { connection: self.connection }.put_meta(&row, &stamp(&self.keyring, &row)).map(drop)
    }

    fn truncate(&mut self) -> Result<bool, StoreError> {
        if planted(Fault::WalKept) {
            self.truncate_owed = false;
            return Ok(true);
        }
        let mut busy = self.checkpoint();
        // What was erased leaves the log though the database file must grow for it.
        if matches!(busy, Err(StoreError::DiskFull)) && self.reserve.release() {
            busy = self.checkpoint();
        }
        self.flags.reserve(self.reserve.state());
        self.truncate_owed = busy?;
        Ok(!self.truncate_owed)
    }

    /// `true`: a reader held the log.
    fn checkpoint(&self) -> Result<bool, StoreError> {
        let text = "-- truncate_log\nPRAGMA wal_checkpoint(TRUNCATE)";
        let busy = |text| self.connection.prepare_cached(text)?.query_row([], |row| row.get::<_, i64>(0));
        busy(text).map(|busy| busy != 0).map_err(|source| sql("truncate_log", source))
    }

    fn batch(&self, name: &'static str, text: &str) -> Result<(), StoreError> {
        let run = |text: &str| self.connection.prepare_cached(text)?.execute([]);
        run(text).map(drop).map_err(|source| sql(name, source))
    }
}

fn takes_away(work: &dyn Work) -> bool {
    TAKES_AWAY.contains(&work.name())
}

/// Answers all others that the disk is full.
fn refuse_but_taking_away(works: &mut Vec<Box<dyn Work>>) {
    works.retain_mut(|work| {
        let stays = takes_away(work.as_ref());
        if !stays {
            work.answer(Some(&StoreError::DiskFull));
        }
        stays
    });
}

#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / SECOND as f64
}

#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn count(things: usize) -> f64 {
    things as f64
}

#[cfg(test)]
mod tests;
