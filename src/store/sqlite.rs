//! The embedded store: SQLite, one writer thread, any number of readers.
//!
//! INVARIANT: only the writer thread writes; the database runs in WAL mode with `synchronous=FULL` (with NORMAL, WAL loses
//! acknowledged commits on a power cut) and `secure_delete`, under an exclusive process lock, on a SQLite whose version and
//! a schema whose version this build knows.

mod read;
mod write;
mod writer;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::lock::ProcessLock;
use super::tx::{Reads, Tx, View};
use super::{Flags, StoreError, StorePaths};
use crate::crypto::keyring::Keyring;
use crate::domain::fault::{Fault, planted};
use crate::domain::time::Clock;
use writer::{Copy, Writer};

/// Before this version a WAL could be corrupted by a checkpoint racing a writer.
const OLDEST_SQLITE: i32 = 3_051_003;

mod migrations {
    refinery::embed_migrations!("src/store/sqlite/migrations");
}

pub(super) struct Sqlite {
    paths: StorePaths,
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
    _lock: ProcessLock,
}

impl Sqlite {
    pub(super) fn open(
        paths: &StorePaths,
        reserve: u64,
        keyring: Arc<ArcSwap<Keyring>>,
        clock: Arc<dyn Clock>,
        flags: Arc<Flags>,
    ) -> Result<Self, StoreError> {
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(StoreError::Refused(format!("SQLite {} is too old", rusqlite::version())));
        }
        let lock = ProcessLock::take(&lock_of(&paths.database))?;
        create_private(&paths.database)?;
        let mut connection = connect(&paths.database, false)?;
        migrate(&mut connection)?;
        let writer = Writer::start(connection, paths, reserve, keyring, clock, flags)?;
        Ok(Self { paths: paths.clone(), writer, readers: Mutex::new(Vec::new()), _lock: lock })
    }

    pub(super) fn paths(&self) -> &StorePaths {
        &self.paths
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
        self.writer.submit(name, work)
    }

    pub(super) fn adopt<F>(
        &self,
        keyring: Arc<Keyring>,
        work: F,
    ) -> Result<oneshot::Receiver<Result<(), StoreError>>, StoreError>
    where
        F: Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static,
    {
        self.writer.adopt(keyring, work)
    }

    pub(super) fn truncate_log(&self) -> Result<oneshot::Receiver<Result<bool, StoreError>>, StoreError> {
        self.writer.truncate_log()
    }

    /// Copies the database into a new file beside the running writer; answers when the copy is whole and on disk.
    pub(super) fn copy(&self, to: &Path, told: Box<dyn FnMut(u64, u64) -> bool + Send>) -> Result<(), StoreError> {
        create_private(to)?;
        let (answer, copied) = oneshot::channel();
        self.writer.copy(Copy { to: to.to_owned(), told, answer })?;
        copied.blocking_recv().map_err(|_| StoreError::Closed)??;
        // One file without a log beside it, until it is a store again.
        let statement = "settle_copy";
        let copy = Connection::open(to).map_err(|source| sql(statement, source))?;
        copy.execute_batch("PRAGMA journal_mode=DELETE").map_err(|source| sql(statement, source))?;
        drop(copy);
        File::open(to).and_then(|file| file.sync_all()).map_err(|source| StoreError::io("writing the copy", source))
    }

    pub(super) fn allocate(&self) -> Result<i64, StoreError> {
        self.writer.allocate()
    }

    pub(super) fn skip_lost(&self) {
        self.writer.skip_lost();
    }

    pub(super) fn poisoned(&self) -> Option<String> {
        self.writer.poisoned()
    }

    /// Runs `work` in a read transaction on a connection of its own; connections are kept for the next reader.
    ///
    /// A keyring is in `keyring` from the end of the last commit under the one before it. So a snapshot that was fixed while
    /// one keyring stood there holds all that was ever written under those before, and nothing that only a later one opens.
    pub(super) fn read<T>(
        &self,
        keyring: &ArcSwap<Keyring>,
        work: impl FnOnce(&View<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let pooled = self.readers.lock().map_err(|_| StoreError::Closed)?.pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => connect(&self.paths.database, true)?,
        };
        let answer = {
            let reads = read::Reader { connection: &connection };
            let mut work = Some(work);
            loop {
                let standing = keyring.load();
                let answer = reads.within("read", || {
                    reads.fix_snapshot()?;
                    let still_stands = Arc::ptr_eq(&standing, &keyring.load());
                    match work.take_if(|_| still_stands) {
                        Some(work) => work(&View::new(&reads, &standing)).map(Some),
                        None => Ok(None),
                    }
                });
                if let Some(answer) = answer.transpose() {
                    break answer;
                }
            }
        };
        if !matches!(answer, Err(StoreError::Sql { .. }))
            && let Ok(mut readers) = self.readers.lock()
        {
            readers.push(connection);
        }
        answer
    }
}

pub(super) fn lock_of(database: &Path) -> PathBuf {
    database.with_extension("lock")
}

/// Makes the file where there is none, for our eyes alone; SQLite gives its log and shared memory the same permissions.
fn create_private(path: &Path) -> Result<(), StoreError> {
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(StoreError::io("making the database", source))
        }
        _made_or_there => Ok(()),
    }
}

fn connect(path: &Path, read_only: bool) -> Result<Connection, StoreError> {
    let access = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    };
    let statement = "connect";
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|source| sql(statement, source))?;
    let synchronous = if planted(Fault::SynchronousNormal) { "NORMAL" } else { "FULL" };
    let setup = if read_only {
        // SECURITY: nothing sorted or spilled may reach a temporary file. No mmap: every read writes its audit entry, so
        // every next read would map the file anew, at a quarter of its cost.
        "PRAGMA busy_timeout=5000; PRAGMA temp_store=MEMORY; PRAGMA query_only=ON;".to_owned()
    } else {
        format!(
            "PRAGMA busy_timeout=0; PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous}; \
             PRAGMA secure_delete=ON; PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=4000; \
             PRAGMA cache_size=-65536;"
        )
    };
    connection.execute_batch(&setup).map_err(|source| sql(statement, source))?;
    if !read_only {
        let told = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (synchronous, erasing) = told("synchronous")
            .and_then(|s| Ok((s, told("secure_delete")?)))
            .map_err(|source| sql(statement, source))?;
        if (synchronous, erasing) != (2, 1) {
            return Err(StoreError::Refused("the database does not synchronise fully, or does not erase".to_owned()));
        }
    }
    // A plan that may depend on a bound value (any `LIMIT ?`) would be made anew at every use: a sixth of the writer's time in a sweep.
    let stable = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true);
    stable.map_err(|source| sql(statement, source))?;
    // All there are.
    connection.set_prepared_statement_cache_capacity(256);
    Ok(connection)
}

/// Reads one snapshot of a database that this process need not hold.
pub(super) fn read_unheld<T>(
    database: &Path,
    work: impl FnOnce(&dyn Reads) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let connection = connect(database, true)?;
    let reads = read::Reader { connection: &connection };
    reads.within("read_unheld", || work(&reads))
}

/// Brings the schema to this build's version; a schema from a later build, or one that was edited, is refused.
fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    migrations::migrations::runner()
        .set_abort_divergent(true)
        .set_abort_missing(true)
        .run(connection)
        .map(drop)
        .map_err(|error| StoreError::Refused(format!("the database's schema is not this build's: {error}")))
}

/// An SQLite error by its statement's name, never its text.
fn sql(statement: &'static str, source: rusqlite::Error) -> StoreError {
    if let rusqlite::Error::InvalidColumnType(..)
    | rusqlite::Error::IntegralValueOutOfRange(..)
    | rusqlite::Error::Utf8Error(..) = source
    {
        return StoreError::Corrupt { table: statement, column: "of another type" };
    }
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::DiskFull,
        // The log's index in shared memory could not grow: a file on the same disk.
        _ if source.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => {
            StoreError::DiskFull
        }
        Some(rusqlite::ErrorCode::ConstraintViolation) => StoreError::Raced,
        _ => StoreError::Sql { statement, source: Arc::new(source) },
    }
}
