//! `strongroom restore`: a backup becomes the database again. INVARIANT: under the database's name nothing appears before the
//! erasure ledger is applied to the last line and log and state are verified; killed on the way, it leaves nothing that a server
//! would serve, and is begun anew. Nothing that is there is overwritten.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::Failure;
use super::backup::bar;
use super::client::print_json;
use super::keys::unlock_either;
use super::serve::{failed, load, parts, runtime};
use crate::audit::manifest::Manifest;
use crate::config::Config;
use crate::crypto::keyring::Keyring;
use crate::domain::time::{Clock, SystemClock};
use crate::store::{LogVerdict, Store, StoreError, StorePaths, hold_place, verify_log, verify_state};
use crate::telemetry;
use crate::vault::{Applied, RootStatus, Vault, database_of};

const HELP: &str = "\
With the server stopped. Needs the backup (NAME.manifest, and NAME.db beside it), the keyring and its root, and the newest \
erasure ledger: what was erased since the backup is erased again before anything is served; superseded values, ended grants, \
holds, events, leaving subjects and suspended callers are as they were when the ledger was last written. What came into the vault \
after the backup is lost; what went after the ledger's copy was taken comes back. Without the ledger nothing is restored, for \
nobody could say what must not come back.

A database that is there is not touched: move it away first, with its -wal and -shm. With [audit] witness_file, put that file aside \
and keep it: a log that lost its end is behind it. Afterwards:
  strongroom serve --config strongroom.toml
  strongroom status                        # after a reboot destruction waits for `strongroom retention confirm-clock`

Example:
  strongroom restore --config strongroom.toml --from /backups/2026-03-01T120000.000000Z.manifest";

/// Make a backup the database again, by the erasure ledger
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// The server's configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The backup's manifest
    #[arg(long, value_name = "MANIFEST")]
    from: PathBuf,
}

/// What a restore did.
pub struct Restored {
    pub manifest: Manifest,
    pub applied: Applied,
    /// How many entries the log has, all of them verified.
    pub entries: u64,
    pub records: u64,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let config = load(&args.config)?;
    telemetry::init(&config.log).map_err(|error| failed("cannot start the log", &error))?;
    let keyring = unlock_either(&config)?.0;
    let Restored { manifest, applied, entries, records } =
        restore(&config, keyring, &args.from, Arc::new(SystemClock::new()))?;
    print_json(&json!({
        "backup_of": manifest.made_at.to_string(),
        "ledger_lines_applied": applied.lines,
        "erased_again": applied.erased,
        "records_without_a_superseded_value": applied.superseded,
        "values_to_be_sent_again": applied.values,
        "events": applied.events,
        "grants_ended": applied.grants_ended,
        "holds_placed": applied.holds_placed,
        "holds_lifted": applied.holds_lifted,
        "subjects_leaving": applied.leaving,
        "callers": applied.callers,
        "about_what_the_backup_had_not_or_knew": applied.beside,
        "approvals_void": applied.approvals,
        "log_entries_verified": entries,
        "records": records,
    }))
}

/// Restores onto where the configuration has its database. To be called outside any runtime.
pub fn restore(config: &Config, keyring: Keyring, manifest: &Path, clock: Arc<dyn Clock>) -> Result<Restored, Failure> {
    let database = &config.store.database;
    // To the end: a supervisor that starts the server meanwhile must not make a new database under this name.
    let _place = hold_place(&config.store).map_err(|error| match error {
        StoreError::Refused(_) => Failure::local(format!("a server holds {}: stop it first", database.display())),
        error => failed("cannot restore the backup", &error),
    })?;
    if database.exists() {
        return Err(Failure::local(format!("{} is there already: move it away first", database.display())));
    }
    // SECURITY: SQLite would take a log that lies there for the restored database's own.
    let log = beside(database, "-wal");
    if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Err(Failure::local(format!("{} is there still: move it away with its database", log.display())));
    }
    if !config.store.ledger.exists() {
        let ledger = config.store.ledger.display();
        return Err(Failure::local(format!(
            "there is no erasure ledger at {ledger}: bring its newest copy back first"
        )));
    }
    let told = checked(&keyring, manifest)?;
    // Its lock and its log are beside it under names of their own.
    let paths = StorePaths { database: database.with_extension("restoring.db"), ledger: config.store.ledger.clone() };
    clear(&paths.database)?;
    let copying = bar("MiB");
    let copied = copy(&database_of(manifest), &paths.database, &told, &copying);
    copying.finish_and_clear();
    let done = copied.and_then(|()| bring_up_to_date(config, keyring, &paths, clock));
    let (applied, entries, records) = done.inspect_err(|_| drop(clear(&paths.database)))?;
    // Closed in good order the database alone holds everything; what a full disk or somebody's reading kept in its log would be lost.
    let own_log = beside(&paths.database, "-wal");
    if fs::metadata(&own_log).is_ok_and(|log| log.len() > 0) {
        clear(&paths.database)?;
        return Err(Failure::local(format!(
            "{} could not be emptied: make room on the disk, let nobody read there, and begin anew",
            own_log.display()
        )));
    }
    for left in [log, beside(database, "-shm")] {
        remove(&left)?;
    }
    let in_place = fs::rename(&paths.database, database).and_then(|()| {
        let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    });
    in_place.map_err(|error| Failure::io(database, &error))?;
    clear(&paths.database)?;
    Ok(Restored { manifest: told, applied, entries, records })
}

/// The manifest, if it is this vault's and its backup can still be opened.
fn checked(keyring: &Keyring, path: &Path) -> Result<Manifest, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| Failure::io(path, &error))?;
    let manifest = Manifest::verify(&text, &keyring.signer().public())
        .map_err(|error| Failure::local(format!("{shown} is no manifest of this vault: {error}")))?;
    if let Some(epoch) = manifest.epochs.iter().find(|epoch| keyring.has_destroyed(**epoch)) {
        return Err(Failure::local(format!(
            "the backup is dead since {} at the latest: key epoch {epoch}, which opens it, was destroyed",
            manifest.dead_after
        )));
    }
    if keyring.generation() < manifest.generation {
        return Err(Failure::local(format!(
            "the keyring is of generation {}, and the backup has seen generation {}: bring the newest copy back",
            keyring.generation(),
            manifest.generation
        )));
    }
    Ok(manifest)
}

/// Copies a backup, which must be to the byte what its manifest says.
fn copy(from: &Path, to: &Path, manifest: &Manifest, bar: &ProgressBar) -> Result<(), Failure> {
    const MIB: usize = 1 << 20;
    let unread = |error: &io::Error| Failure::io(from, error);
    let mut source = File::open(from).map_err(|error| unread(&error))?;
    let unwritten = |error: io::Error| Failure::io(to, &error);
    let mut target = File::options().write(true).create_new(true).mode(0o600).open(to).map_err(unwritten)?;
    bar.set_length(manifest.bytes.div_ceil(MIB as u64));
    let (mut buffer, mut hash, mut bytes) = (vec![0; MIB], Sha256::new(), 0_u64);
    loop {
        let read = source.read(&mut buffer).map_err(|error| unread(&error))?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        hash.update(part);
        target.write_all(part).map_err(unwritten)?;
        bytes += read as u64;
        bar.set_position(bytes / MIB as u64);
    }
    target.sync_all().map_err(unwritten)?;
    if (bytes, <[u8; 32]>::from(hash.finalize())) != (manifest.bytes, manifest.sha256) {
        let from = from.display();
        return Err(Failure::local(format!("{from} is not what its manifest says: it was cut, altered or damaged")));
    }
    Ok(())
}

/// Applies the ledger, then verifies log and state; answers what was applied, the log's entries, the records.
fn bring_up_to_date(
    config: &Config,
    keyring: Keyring,
    paths: &StorePaths,
    clock: Arc<dyn Clock>,
) -> Result<(Applied, u64, u64), Failure> {
    let keyring = Arc::new(keyring);
    let unopened = |error: &dyn std::error::Error| failed("cannot restore the backup", error);
    let store = Store::open(paths, Arc::clone(&keyring), Arc::clone(&clock)).map_err(|error| unopened(&error))?;
    let parts = parts(config, store, clock, RootStatus::default());
    let applying = bar("lines of the erasure ledger");
    let shown = applying.clone();
    let mut told = move |line, lines| {
        shown.set_length(lines);
        shown.set_position(line);
    };
    let runtime = runtime().map_err(|error| failed("cannot start a runtime", &error))?;
    let restored = runtime.block_on(Vault::restore(parts, &mut told));
    applying.finish_and_clear();
    let (vault, applied) = restored.map_err(|error| unopened(&error))?;
    let counts = vault
        .store()
        .read(|view| view.counts(crate::domain::time::Timestamp(i64::MIN)))
        .map_err(|error| unopened(&error))?;
    drop(vault);
    drop(runtime);
    let entries = match verify_log(&paths.database, Some(&keyring), None).map_err(|error| unopened(&error))? {
        LogVerdict::Sound(verified) => verified.entries,
        LogVerdict::Flawed(flaw) => {
            return Err(Failure::local(format!("the backup's log is not whole: {flaw}; nothing was restored")));
        }
    };
    let flaws = verify_state(&paths.database, &keyring).map_err(|error| unopened(&error))?;
    if !flaws.is_empty() {
        return Err(Failure::local("the backup is not the store that its log left; nothing was restored".to_owned()));
    }
    Ok((applied, entries, counts.records))
}

/// What a restore makes on its way.
fn clear(database: &Path) -> Result<(), Failure> {
    let made =
        [database.to_owned(), beside(database, "-wal"), beside(database, "-shm"), database.with_extension("lock")];
    made.iter().try_for_each(|path| remove(path))
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io(path, &error)),
        _gone => Ok(()),
    }
}

/// What SQLite keeps beside a database.
fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.to_owned().into_os_string();
    name.push(ending);
    PathBuf::from(name)
}
