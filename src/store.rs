//! Where everything rests. `Store` runs named transactions in the domain's words; a backend (`sqlite`, one day its
//! PostgreSQL twin) knows rows and SQL, and nothing above this module knows either.
//!
//! INVARIANT: what `run` has answered is durable, together with the audit entries it appended and, before it, the erasure
//! ledger's; a closure that fails leaves nothing behind and sinks none of the closures committed with it. Every row of facts
//! is authenticated when read: one that was altered, moved or made outside the vault answers `Tampered`, never data. A snapshot
//! and a commit each have one keyring, which knows every epoch that their rows lie under.
//!
//! How a write goes (`sqlite::writer`):
//! ```text
//! queue → BEGIN → for each closure: SAVEPOINT, run, RELEASE or ROLLBACK TO → erasure ledger: append, fsync
//!       → audit batch, nodes, state → COMMIT (synchronous=FULL) → after erasures: wal_checkpoint(TRUNCATE) → answers
//! ```

mod ids;
pub mod forensic;
pub mod ledger;
mod lock;
pub mod reserve;
mod log;
pub mod rows;
mod sqlite;
pub mod state;
mod tx;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use crate::audit::entry::Entry;
use crate::audit::log::Tip;
use crate::audit::verify::{Batch, Flaw, Head, Verified, Verifier, What};
use crate::crypto::keyring::{EpochKeys, Keyring};
use crate::crypto::mac::{Mac, head_mac, verify_head};
use crate::domain::id::{Epoch, Generation};
use crate::domain::time::Clock;
use reserve::ReserveState;
pub use state::StateFlaw;
pub use tx::log::{Cut, KeptNote, Tree};
pub use tx::rewrap::{Change, Page, RowsUnder, Table};
pub use tx::{Tx, View};

/// Why the store did not do as asked. Carries names of tables and files, never what they hold.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("another transaction was first; run again")]
    Raced,
    #[error("a row of {table} fails its authentication")]
    Tampered { table: &'static str },
    #[error("a row of {table} cannot be decoded: {column}")]
    Corrupt { table: &'static str, column: &'static str },
    #[error("the disk is full")]
    DiskFull,
    #[error("another process holds the database's write lock")]
    Busy,
    #[error("the store refuses since an earlier commit failed; restart to recover: {0}")]
    Poisoned(String),
    #[error("the store is closed")]
    Closed,
    #[error("{0}")]
    Refused(String),
    #[error("{context}: {source}")]
    Io { context: String, source: Arc<std::io::Error> },
    #[error("in {statement}: {source}")]
    Sql { statement: &'static str, source: Arc<rusqlite::Error> },
}

impl StoreError {
    pub(crate) fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        StoreError::Io { context: context.into(), source: Arc::new(source) }
    }
}

/// Where the store's files are.
#[derive(Clone, Debug)]
pub struct StorePaths {
    /// The SQLite database; its WAL and lock lie beside it.
    pub database: PathBuf,
    /// The erasure ledger; another device is better.
    pub ledger: PathBuf,
}

/// The open store; cheap to clone. The last clone dropped closes it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    backend: sqlite::Sqlite,
    keyring: Arc<ArcSwap<Keyring>>,
    flags: Arc<Flags>,
    reserve_bytes: u64,
}

/// Sees every entry that is committed.
type Witness = Box<dyn Fn(&Entry) + Send + Sync>;

/// What the writer tells those above it, beside its answers.
#[derive(Default)]
struct Flags {
    reserve: AtomicU8,
    witness: OnceLock<Witness>,
}

impl Flags {
    fn reserve(&self, state: ReserveState) {
        self.reserve.store(state as u8, Ordering::Relaxed);
    }

    fn committed(&self, entry: &Entry) {
        if let Some(witness) = self.witness.get() {
            witness(entry);
        }
    }
}

/// Whether somebody holds the store: a server that serves it, or a holder whose writer has not come to its end.
pub fn is_held(paths: &StorePaths) -> bool {
    lock::ProcessLock::take(&sqlite::lock_of(&paths.database)).is_err()
}

/// The store's lock without the store: while it lives nobody serves what lies there, or makes a new one.
pub struct Place {
    _lock: lock::ProcessLock,
}

/// Takes the place of a store. Errors: somebody holds it.
pub fn hold_place(paths: &StorePaths) -> Result<Place, StoreError> {
    Ok(Place { _lock: lock::ProcessLock::take(&sqlite::lock_of(&paths.database))? })
}

impl Store {
    /// Opens (or makes) the store: takes the exclusive process lock, migrates, checks the keyring's generation against the
    /// one recorded, the erasure ledger against the database, and the audit tree's frontier against its last head.
    pub fn open(paths: &StorePaths, keyring: Arc<Keyring>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::open_reserving(paths, 0, keyring, clock)
    }

    /// `open`, with so many bytes of disk kept back for taking away.
    pub fn open_reserving(
        paths: &StorePaths,
        reserve: u64,
        keyring: Arc<Keyring>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let flags = Arc::new(Flags::default());
        let keyring = Arc::new(ArcSwap::new(keyring));
        let backend = sqlite::Sqlite::open(paths, reserve, Arc::clone(&keyring), clock, Arc::clone(&flags))?;
        let store = Self { inner: Arc::new(Inner { backend, keyring, flags, reserve_bytes: reserve }) };
        store.check_generation()?;
        Ok(store)
    }

    /// Runs `work` in a durable transaction and answers once it is on disk. `work` may run more than once; it must depend
    /// on nothing but the transaction and what it captured. On `Err` nothing of it remains.
    pub async fn run<T, F>(&self, name: &'static str, work: F) -> Result<T, StoreError>
    where
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.inner.backend.submit(name, work)?.await.map_err(|_| StoreError::Closed)?
    }

    /// `run` that does not wait: the answer comes when it is on disk.
    pub(crate) fn submit<T, F>(
        &self,
        name: &'static str,
        work: F,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError>
    where
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.inner.backend.submit(name, work)
    }

    /// Goes on under another generation of the keyring, which must be saved by now, from a commit of its own on that notes the
    /// generation and does `work`. If that fails, all stays under the old one.
    pub async fn adopt<F>(&self, keyring: Arc<Keyring>, work: F) -> Result<(), StoreError>
    where
        F: Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static,
    {
        let generation = i64::try_from(keyring.generation().0).unwrap_or(i64::MAX);
        let adopt = move |tx: &mut Tx<'_>| {
            tx.set_meta_i64("keyring_generation", generation)?;
            work(tx)
        };
        self.inner.backend.adopt(keyring, adopt)?.await.map_err(|_| StoreError::Closed)?
    }

    /// `run` for plain threads.
    pub fn run_blocking<T, F>(&self, name: &'static str, work: F) -> Result<T, StoreError>
    where
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.inner.backend.submit(name, work)?.blocking_recv().map_err(|_| StoreError::Closed)?
    }

    /// Reads one consistent snapshot, on the caller's thread.
    pub fn read<T>(&self, work: impl FnOnce(&View<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.inner.backend.read(&self.inner.keyring, work)
    }

    /// Copies the database into a new file, while everything goes on; `told` hears how many pages of how many are left, and
    /// answers whether to go on. The copy is as of its end. On the caller's thread, which must be a plain one. `DiskFull`, before
    /// anything is written: it would take the room that those who take away live on, whose disk this may be.
    pub fn copy(&self, to: &Path, told: impl FnMut(u64, u64) -> bool + Send + 'static) -> Result<(), StoreError> {
        let bytes = std::fs::metadata(&self.paths().database)
            .map_err(|source| StoreError::io("looking at the database", source))?
            .len();
        if !reserve::leaves_room(to, bytes, self.inner.reserve_bytes) {
            return Err(StoreError::DiskFull);
        }
        self.inner.backend.copy(to, Box::new(told))
    }

    /// A number nobody had before, growing with time: for records, subjects, keys and grants.
    pub fn allocate(&self) -> Result<i64, StoreError> {
        self.inner.backend.allocate()
    }

    /// Numbers go on behind all that were given out after the copy that this store is: somebody may still hold one of those.
    /// From the next commit on.
    pub(crate) fn skip_lost_numbers(&self) {
        self.inner.backend.skip_lost();
    }

    /// The keyring as it stands. What is written by an older one is refused as `Raced`.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.inner.keyring.load_full()
    }

    /// Truncates the write-ahead log, so that nothing deleted stays in it. `false` when a reader held it; try again.
    pub async fn truncate_log(&self) -> Result<bool, StoreError> {
        self.inner.backend.truncate_log()?.await.map_err(|_| StoreError::Closed)?
    }

    /// Every audit batch in order, one in memory at a time, until `each` answers `false`.
    pub fn audit_batches(&self, each: &mut dyn FnMut(Batch, HeadStamp) -> bool) -> Result<(), StoreError> {
        self.read(|view| view.audit_batches(0, usize::MAX >> 1, each))
    }

    /// Shows `witness` every audit entry from now on, once it is on disk and before anyone is answered; the first one asked stays.
    pub fn witness(&self, witness: impl Fn(&Entry) + Send + Sync + 'static) {
        let _ = self.inner.flags.witness.set(Box::new(witness));
    }

    /// Whether there is room kept back for taking away.
    pub fn reserve(&self) -> ReserveState {
        match self.inner.flags.reserve.load(Ordering::Relaxed) {
            held if held == ReserveState::Held as u8 => ReserveState::Held,
            released if released == ReserveState::Released as u8 => ReserveState::Released,
            _ => ReserveState::None,
        }
    }

    /// How much is kept back on each disk.
    pub fn reserve_bytes(&self) -> u64 {
        self.inner.reserve_bytes
    }

    /// Why the store refuses, if it does.
    pub fn poisoned(&self) -> Option<String> {
        self.inner.backend.poisoned()
    }

    pub fn paths(&self) -> &StorePaths {
        self.inner.backend.paths()
    }

    fn check_generation(&self) -> Result<(), StoreError> {
        let have = self.keyring().generation().0;
        let recorded = self.read(|view| view.meta_i64("keyring_generation"))?.unwrap_or(0);
        let recorded_generation = u64::try_from(recorded).unwrap_or(0);
        if have < recorded_generation {
            return Err(StoreError::Refused(format!(
                "the keyring is of generation {have}, but this database has seen generation {recorded_generation}: \
                 an old copy of the keyring cannot open what was written since"
            )));
        }
        if have > recorded_generation {
            let have = i64::try_from(have).unwrap_or(i64::MAX);
            self.run_blocking("record_generation", move |tx| tx.set_meta_i64("keyring_generation", have))?;
        }
        Ok(())
    }
}

/// What a copy of a database says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copied {
    pub log_entries: u64,
    /// Of the log's last tree.
    pub log_root: [u8; 32],
    pub ledger_line: u64,
    /// Under which anything in it lies, oldest first.
    pub epochs: Vec<Epoch>,
    pub generation: Generation,
}

/// Reads a copy that nobody holds.
pub fn copied(database: &Path, keyring: &Keyring) -> Result<Copied, StoreError> {
    sqlite::read_unheld(database, |reads| {
        let view = View::new(reads, keyring);
        let number = |key| Ok(u64::try_from(view.meta_i64(key)?.unwrap_or(0)).unwrap_or(0));
        let tip = view.audit_tip()?;
        let epochs: BTreeSet<Epoch> = view.rows_under(None)?.into_iter().map(|under| under.epoch).collect();
        Ok(Copied {
            log_entries: tip.entries(),
            log_root: tip.frontier.root(),
            ledger_line: number("ledger_applied")?,
            epochs: epochs.into_iter().collect(),
            generation: Generation(number("keyring_generation")?),
        })
    })
}

/// Which generation of its keyring a database has seen, as it says; 0 where there is none yet. To be believed only once the
/// store is open.
pub fn recorded_generation(database: &Path) -> Result<u64, StoreError> {
    if !database.exists() {
        return Ok(0);
    }
    let value = sqlite::read_unheld(database, |reads| match reads.has_tables()? {
        true => Ok(reads.meta("keyring_generation")?.map(|(row, _)| row.value)),
        false => Ok(None),
    })?;
    Ok(value.and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes))
}

/// Reads the whole audit log of a database, beside a running server or without one, and says where it first goes wrong.
/// With the keyring, every head's MAC is checked too; `known` is a head from elsewhere that the log must lead to or past.
///
/// A log whose first trees have served their time begins with the first entry that is kept; of those trees the last
/// checkpoints are checked.
pub fn verify_log(database: &Path, keyring: Option<&Keyring>, known: Option<Head>) -> Result<LogVerdict, StoreError> {
    let kept_from = sqlite::read_unheld(database, |reads| log::kept_from(reads, keyring))?;
    if let Some(known) = known.as_ref().filter(|known| known.size > 0 && known.size <= kept_from) {
        let nothing = Verifier::from(kept_from, None);
        let closed = sqlite::read_unheld(database, |reads| log::closed(reads, keyring, &nothing))?;
        match closed.map(|closed| log::known_before(&closed, known)) {
            Ok(Ok(())) => {}
            Ok(Err(log::KnownBefore::Forked)) => return Ok(LogVerdict::Flawed(nothing.flaw(What::Forked))),
            Ok(Err(log::KnownBefore::Expired)) => {
                return Err(StoreError::Refused(
                    "the known head is of a year whose entries are not kept any more".into(),
                ));
            }
            Err(flaw) => return Ok(LogVerdict::Flawed(flaw)),
        }
    }
    let mut verifier = Verifier::from(kept_from, known);
    let (mut batches, mut next, mut flaw) = (0, kept_from, None);
    let mut beside = log::Beside::default();
    loop {
        // A page a snapshot: a long one would keep the write-ahead log from being truncated.
        let page = sqlite::read_unheld(database, |reads| {
            let closed = match log::closed(reads, keyring, &verifier)? {
                Ok(closed) => closed,
                Err(found) => {
                    flaw = Some(found);
                    return Ok((0, true, None));
                }
            };
            let (mut read, mut failed) = (0, None);
            reads.audit_batches(next, PAGE, &mut |batch, stamp| {
                let vouched = keyring.is_none_or(|keyring| stamp.fits(keyring, &batch.head));
                next = batch.head.size;
                read += 1;
                let followed = log::cross(&mut verifier, &closed).and_then(|()| verifier.follow(&batch, vouched));
                match followed.map(|()| beside.follow(reads, &verifier)) {
                    Ok(Ok(followed)) => flaw = followed.err(),
                    Ok(Err(error)) => failed = Some(error),
                    Err(found) => flaw = Some(found),
                }
                flaw.is_none() && failed.is_none()
            })?;
            // The frontier is authenticated and goes with every commit: it knows of batches that were cut off at the end.
            let last = read < PAGE;
            if last && flaw.is_none() && failed.is_none() {
                let finished = beside.finish(reads, keyring, &verifier, kept_from)?;
                flaw = finished.and_then(|()| log::cross(&mut verifier, &closed)).err();
            }
            let frontier = keyring.filter(|_| last).map(|keyring| View::new(reads, keyring).audit_tip());
            failed.map_or(Ok(()), Err)?;
            Ok((read, last, frontier.transpose()?))
        });
        let (read, last, frontier) = page?;
        batches += read as u64;
        if let Some(flaw) = flaw {
            return Ok(LogVerdict::Flawed(flaw));
        }
        if last {
            let verified = match verifier.finish() {
                Ok(verified) => verified,
                Err(flaw) => return Ok(LogVerdict::Flawed(flaw)),
            };
            let fits = |tip: &Tip| tip.entries() == verified.entries && tip.frontier.root() == verified.root;
            if frontier.is_some_and(|frontier| !fits(&frontier)) {
                return Ok(LogVerdict::Flawed(Flaw { batch: batches, entry: verified.entries, what: What::TailCut }));
            }
            return Ok(LogVerdict::Sound(verified));
        }
    }
}

/// Compares every row of facts with the state that goes with the log; the log itself is `verify_log`'s to check. Reads one
/// snapshot, which keeps the write-ahead log from being truncated meanwhile: of a large store, read a copy.
pub fn verify_state(database: &Path, keyring: &Keyring) -> Result<Vec<StateFlaw>, StoreError> {
    sqlite::read_unheld(database, |reads| {
        let view = View::new(reads, keyring);
        let (entries, state) = (view.audit_tip()?.entries(), view.state()?);
        state::compare(reads, state.as_ref().map(|(state, _)| state), entries, keyring.signer().state())
    })
}

/// Batches of the log read in one snapshot.
const PAGE: usize = 1_000;

/// What reading the whole log has found.
#[derive(Debug)]
pub enum LogVerdict {
    Sound(Verified),
    Flawed(Flaw),
}

/// What vouches for a stored head: the epoch (u32, big-endian) and the MAC under its audit subkey.
pub struct HeadStamp(pub(crate) Vec<u8>);

impl HeadStamp {
    pub(crate) fn of(epoch: &EpochKeys, head: &Head) -> Self {
        Self([&epoch.number().0.to_be_bytes()[..], head_mac(epoch, &head.to_bytes()).as_bytes()].concat())
    }

    /// Whether this keyring stamped `head`. A head of a destroyed epoch cannot be checked any more: the tree up to a living
    /// epoch's head, or the frontier, binds it; who reads a log must come to one of them.
    pub fn fits(&self, keyring: &Keyring, head: &Head) -> bool {
        let Some((number, mac)) = self.0.split_first_chunk::<4>() else { return false };
        let (number, Ok(mac)) = (Epoch(u32::from_be_bytes(*number)), mac.try_into()) else { return false };
        match keyring.epoch(number) {
            Some(epoch) => verify_head(epoch, &head.to_bytes(), &Mac::from_bytes(mac)),
            None => keyring.has_destroyed(number),
        }
    }
}
