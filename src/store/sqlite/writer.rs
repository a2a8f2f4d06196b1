//! The writer thread: group commit. INVARIANT: an answer is sent only after the commit that holds its work, its audit entries
//! and its head of the audit tree is on disk, and after the erasure ledger's lines are; if a commit fails, every later
//! one is refused until a restart has recovered, for what the disk then holds is unknown.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::read::Reader;
use super::{sql, write};
use crate::audit::entry::Entry;
use crate::audit::tree::Frontier;
use crate::audit::verify::Batch;
use crate::crypto::keyring::Keyring;
use crate::domain::fault::{Fault, abort_at, planted};
use crate::domain::time::Clock;
use crate::store::ids::Ids;
use crate::store::ledger::{Ledger, LedgerEntry};
use crate::store::tx::{Places, Tx, Writes as _, stamp};
use crate::store::{HeadStamp, StoreError, StorePaths, rows::MetaRow};

/// How many closures one commit may hold.
const GROUP: usize = 512;
/// How many may wait; past it the store answers at once that it cannot.
const QUEUE: usize = 8_192;

enum Job {
    Work(Box<dyn Work>),
    TruncateLog(oneshot::Sender<Result<bool, StoreError>>),
}

/// A closure with the place its answer goes to.
trait Work: Send {
    fn name(&self) -> &'static str;
    /// Runs the closure and keeps its answer; `true` when its effects should stand.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Sends the answer kept, or the reason why nothing of it stands.
    fn answer(&mut self, failed: Option<&StoreError>);
}

struct Pending<T, F> {
    name: &'static str,
    work: F,
    answer: Option<Result<T, StoreError>>,
    to: Option<oneshot::Sender<Result<T, StoreError>>>,
}

impl<T, F> Work for Pending<T, F>
where
    F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        let answer = (self.work)(tx);
        let stands = answer.is_ok();
        self.answer = Some(answer);
        stands
    }

    fn answer(&mut self, failed: Option<&StoreError>) {
        let answer = match failed {
            Some(error) => Some(Err(error.clone())),
            None => self.answer.take(),
        };
        if let (Some(to), Some(answer)) = (self.to.take(), answer) {
            // Who asked may be gone; what was done stands all the same.
            let _ = to.send(answer);
        }
    }
}

pub(super) struct Writer {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    poison: Arc<OnceLock<String>>,
    ids: Arc<Ids>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        paths: &StorePaths,
        keyring: Arc<Keyring>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let ledger = Ledger::open(&paths.ledger, &keyring)?;
        let poison = Arc::new(OnceLock::new());
        let (frontier, bound, fresh) = recover(&connection, &keyring, &ledger)?;
        let ids = Arc::new(Ids::from(bound));
        let (jobs, queue) = sync_channel(QUEUE);
        let mut state = State {
            connection,
            ledger,
            frontier,
            keyring,
            clock,
            poison: Arc::clone(&poison),
            ids: Arc::clone(&ids),
            truncate_owed: false,
        };
        if fresh {
            state.put_meta("ledger_applied", 0_i64.to_le_bytes().to_vec())?;
        }
        // An empty commit reserves the first ids, and shows that the disk takes writes.
        state.try_commit(&mut [])?;
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || state.serve(&queue))
            .map_err(|source| StoreError::io("starting the writer", source))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), poison, ids })
    }

    pub(super) fn submit<T, F>(
        &self,
        name: &'static str,
        work: F,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError>
    where
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (to, answer) = oneshot::channel();
        self.send(Job::Work(Box::new(Pending { name, work, answer: None, to: Some(to) })))?;
        Ok(answer)
    }

    pub(super) fn truncate_log(&self) -> Result<oneshot::Receiver<Result<bool, StoreError>>, StoreError> {
        let (to, answer) = oneshot::channel();
        self.send(Job::TruncateLog(to))?;
        Ok(answer)
    }

    pub(super) fn allocate(&self) -> Result<i64, StoreError> {
        self.ids.allocate()
    }

    pub(super) fn poisoned(&self) -> Option<String> {
        self.poison.get().cloned()
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        if let Some(why) = self.poison.get() {
            return Err(StoreError::Poisoned(why.clone()));
        }
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => Err(StoreError::Refused("the write queue is full".to_owned())),
            Some(Err(TrySendError::Disconnected(_))) | None => Err(StoreError::Closed),
        }
    }
}

impl Drop for Writer {
    /// Lets what is queued finish.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A writer that panics leaves nobody to answer: the store is poisoned, so that the server notices and ends.
struct Guard(Arc<OnceLock<String>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.set("the writer panicked".to_owned());
        }
    }
}

struct State {
    connection: Connection,
    ledger: Ledger,
    frontier: Frontier,
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    poison: Arc<OnceLock<String>>,
    ids: Arc<Ids>,
    /// An erasure was committed while a reader held the log; it is truncated as soon as that goes.
    truncate_owed: bool,
}

/// What one commit adds beside the closures' own writes.
#[derive(Default)]
struct Appended {
    entries: Vec<Entry>,
    ledger: Vec<LedgerEntry>,
}

impl Appended {
    /// Where the process ends if that is planted, and something is erased.
    fn abort_at(&self, fault: Fault) {
        if !self.ledger.is_empty() {
            abort_at(fault);
        }
    }
}

impl State {
    fn serve(mut self, queue: &Receiver<Job>) {
        let _guard = Guard(Arc::clone(&self.poison));
        while let Ok(first) = queue.recv() {
            let mut works = Vec::new();
            let mut truncations = Vec::new();
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Work(work) => works.push(work),
                    Job::TruncateLog(to) => truncations.push(to),
                }
                if works.len() < GROUP {
                    next = queue.try_recv().ok();
                }
            }
            if !works.is_empty() {
                self.commit(&mut works);
            }
            if !truncations.is_empty() || self.truncate_owed {
                let done = self.truncate();
                for to in truncations {
                    let _ = to.send(done.clone());
                }
            }
        }
        // Closed in good order, the database file alone holds everything.
        let _ = self.truncate();
    }

    fn commit(&mut self, works: &mut [Box<dyn Work>]) {
        if planted(Fault::EarlyAcknowledgement) {
            return self.commit_early(works);
        }
        match self.try_commit(works) {
            Ok(erased) => {
                if erased {
                    abort_at(Fault::AbortAfterCommit);
                    // An erasure is acknowledged once the log no longer holds what it deleted.
                    self.truncate_owed = true;
                    let _ = self.truncate();
                    abort_at(Fault::AbortBeforeAnswer);
                }
                works.iter_mut().for_each(|work| work.answer(None));
            }
            Err(error) => {
                let _ = self.batch("rollback", "-- rollback\nROLLBACK");
                if !matches!(error, StoreError::DiskFull) {
                    tracing::error!(error = %error, "a commit failed; the store refuses until it is restarted");
                    let _ = self.poison.set(error.to_string());
                }
                works.iter_mut().for_each(|work| work.answer(Some(&error)));
            }
        }
    }

    /// The planted fault: answers first, commits later.
    fn commit_early(&mut self, works: &mut [Box<dyn Work>]) {
        let _ = self.batch("begin", "-- begin\nBEGIN IMMEDIATE");
        let mut appended = Appended::default();
        works.iter_mut().for_each(|work| self.savepoint(work.as_mut(), &mut appended).unwrap_or(()));
        works.iter_mut().for_each(|work| work.answer(None));
        std::thread::sleep(std::time::Duration::from_millis(20));
        let _ = self.append(&appended).and_then(|_| self.batch("commit", "-- commit\nCOMMIT"));
    }

    /// Runs and commits all; `true` when something was erased.
    fn try_commit(&mut self, works: &mut [Box<dyn Work>]) -> Result<bool, StoreError> {
        if let Some(why) = self.poison.get() {
            return Err(StoreError::Poisoned(why.clone()));
        }
        let before = self.frontier.clone();
        self.batch("begin", "-- begin\nBEGIN IMMEDIATE")?;
        let mut appended = Appended::default();
        for work in works.iter_mut() {
            self.savepoint(work.as_mut(), &mut appended)?;
        }
        let bound = self.ids.wanted();
        let committed = self
            .append(&appended)
            .and_then(|()| bound.map_or(Ok(()), |bound| self.put_meta("next_id", bound.to_le_bytes().to_vec())))
            .map(|()| appended.abort_at(Fault::AbortBeforeCommit))
            .and_then(|()| self.batch("commit", "-- commit\nCOMMIT"));
        if let Err(error) = committed {
            self.frontier = before;
            return Err(error);
        }
        if let Some(bound) = bound {
            self.ids.reserved(bound);
        }
        Ok(!appended.ledger.is_empty())
    }

    /// Runs one closure; if it fails, nothing of it remains and its neighbours are not touched.
    fn savepoint(&self, work: &mut dyn Work, appended: &mut Appended) -> Result<(), StoreError> {
        self.batch("savepoint", "-- savepoint\nSAVEPOINT closure")?;
        let rows = Reader { connection: &self.connection };
        let begins = Places {
            entry: self.frontier.size() + appended.entries.len() as u64,
            line: self.ledger.last() + appended.ledger.len() as u64,
        };
        let mut tx = Tx::new(&rows, &rows, &self.keyring, begins);
        let started = self.clock.boot();
        if work.run(&mut tx) {
            appended.entries.append(&mut tx.entries);
            appended.ledger.append(&mut tx.ledger);
        } else {
            self.batch("rollback_closure", "-- rollback_closure\nROLLBACK TO closure")?;
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
            abort_at(Fault::AbortBeforeLedger);
            let applied = self.ledger.append(&appended.ledger, &self.keyring)?;
            abort_at(Fault::AbortAfterLedger);
            self.put_meta("ledger_applied", applied.to_le_bytes().to_vec())?;
        }
        if appended.entries.is_empty() {
            return Ok(());
        }
        let batch = Batch::extend(&mut self.frontier, &appended.entries, self.clock.now());
        let vouched = HeadStamp::of(self.keyring.active(), &batch.head);
        write::insert_audit_batch(&self.connection, &batch, &vouched)?;
        self.put_meta("audit_frontier", self.frontier.to_bytes())
    }

    fn put_meta(&self, key: &'static str, value: Vec<u8>) -> Result<(), StoreError> {
        let row = MetaRow { key, value };
        Reader { connection: &self.connection }.put_meta(&row, &stamp(&self.keyring, &row)).map(drop)
    }

    fn truncate(&mut self) -> Result<bool, StoreError> {
        if planted(Fault::WalKept) {
            self.truncate_owed = false;
            return Ok(true);
        }
        let text = "-- truncate_log\nPRAGMA wal_checkpoint(TRUNCATE)";
        let busy: i64 = self
            .connection
            .prepare_cached(text)
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(|source| sql("truncate_log", source))?;
        self.truncate_owed = busy != 0;
        Ok(busy == 0)
    }

    fn batch(&self, name: &'static str, text: &str) -> Result<(), StoreError> {
        let run = |text: &str| self.connection.prepare_cached(text)?.execute([]);
        run(text).map(drop).map_err(|source| sql(name, source))
    }
}

/// Checks that what the database remembers of the log and the ledger agrees with what they are; answers the log's frontier
/// the first id that nobody can have, and whether this store is new.
fn recover(connection: &Connection, keyring: &Keyring, ledger: &Ledger) -> Result<(Frontier, i64, bool), StoreError> {
    let rows = Reader { connection };
    let tx = Tx::new(&rows, &rows, keyring, Places::default());
    let newest = "-- newest_epoch\nSELECT COALESCE(MAX(epoch), 0) FROM meta";
    let newest: u32 =
        connection.query_row(newest, [], |row| row.get(0)).map_err(|source| sql("newest_epoch", source))?;
    if newest > keyring.active().number().0 {
        return Err(StoreError::Refused(format!(
            "this database was written under epoch {newest}, which the keyring does not hold: it is an old copy, or another's"
        )));
    }
    let last = last_head(connection)?;
    // From the first entry of the log on, what the store remembers of itself is there; a row that is not was deleted.
    let remembered = |key: &'static str, fresh: i64| match (tx.meta_i64(key)?, &last) {
        (Some(value), _) => Ok(value),
        (None, None) => Ok(fresh),
        (None, Some(_)) => Err(StoreError::Refused(format!("the database has lost its own note of {key}"))),
    };
    remembered("keyring_generation", 0)?;
    let applied = remembered("ledger_applied", 0)?;
    if last.is_none() && tx.meta_i64("ledger_applied")?.is_none() && ledger.last() > 0 {
        return Err(StoreError::Refused(format!(
            "the database is new, but the erasure ledger beside it tells of {} erasures: is the data disk mounted? To \
             begin anew, begin with a new ledger",
            ledger.last()
        )));
    }
    if u64::try_from(applied).unwrap_or(0) > ledger.last() {
        return Err(StoreError::Refused(format!(
            "the erasure ledger ends at entry {}, but this database has applied entry {applied}: the ledger was cut or \
             replaced; bring the newest copy back",
            ledger.last()
        )));
    }
    let broken = || StoreError::Refused("the audit log's frontier does not fit its last head".to_owned());
    let frontier = tx.audit_frontier()?;
    match last {
        None if frontier.size() == 0 => {}
        Some((size, root)) if size == frontier.size() && root == frontier.root() => {}
        _ => return Err(broken()),
    }
    Ok((frontier, remembered("next_id", 1)?, tx.meta_i64("ledger_applied")?.is_none()))
}

fn last_head(connection: &Connection) -> Result<Option<(u64, [u8; 32])>, StoreError> {
    let text = "-- last_head\nSELECT size, root FROM audit_batch ORDER BY first DESC LIMIT 1";
    rusqlite::OptionalExtension::optional(connection.query_row(text, [], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(|source| sql("last_head", source))
}
