//! Backups: a copy of the database beside the running vault, with a signed manifest. INVARIANT: a backup is one only once its
//! manifest lies beside it, and that is written last; neither keyring nor root is ever in it, so that it opens for nobody else, and for
//! nobody at all once its epochs are destroyed.
//!
//! How it goes: the entry of the log first; then the writer copies a few pages between its commits (`Store::copy`), so nothing waits
//! for it and what is written meanwhile is in the copy; then the copy's own words on log, ledger and epochs become the manifest.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::call::{Call, Draft};
use super::{Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::audit::manifest::Manifest;
use crate::domain::time::Timestamp;
use crate::store::{StoreError, copied};

/// How far a backup is.
#[derive(Clone, Debug)]
pub enum BackupProgress {
    /// So many pages of so many are copied.
    Copying {
        pages: u64,
        of: u64,
    },
    /// It is on disk: the manifest's path, and what it says.
    Done {
        manifest: PathBuf,
        dead_after: Timestamp,
    },
    Failed(StoreError),
}

/// The backup under way, or the last one.
#[derive(Default)]
pub(crate) struct BackingUp {
    progress: Mutex<Option<watch::Receiver<BackupProgress>>>,
    /// The vault is to be let go.
    given_up: AtomicBool,
}

/// The ending of a manifest's name, and of its database's.
const MANIFEST: &str = "manifest";
const DATABASE: &str = "db";
/// Of what is not whole yet.
const PARTIAL: &str = "partial";

impl Vault {
    /// Makes a backup in the configured folder and tells how it goes on; while one is being made, tells of that one. Who does not
    /// listen any more stops nothing.
    pub async fn backup(&self, call: &Call) -> Result<watch::Receiver<BackupProgress>, Error> {
        let draft = Draft::of(call, Action::Backup, self.now());
        let Some(folder) = self.inner.parts.backups.clone() else {
            return self.refuse(draft, RefusalCode::NoBackupFolder, Error::NoBackupFolder).await;
        };
        self.log(draft.done()).await?;
        let mut under_way = self.inner.backing_up.progress.lock().map_err(|_| StoreError::Closed)?;
        // One whose thread is gone says nothing more.
        let goes_on = |one: &&watch::Receiver<BackupProgress>| is_copying(&one.borrow()) && one.has_changed().is_ok();
        if let Some(progress) = under_way.as_ref().filter(goes_on) {
            return Ok(progress.clone());
        }
        let (tell, progress) = watch::channel(BackupProgress::Copying { pages: 0, of: 0 });
        *under_way = Some(progress.clone());
        let vault = self.clone();
        std::thread::Builder::new()
            .name("backup".to_owned())
            .spawn(move || {
                let copying = tell.clone();
                let told = move |left: u64, of: u64| {
                    copying.send_replace(BackupProgress::Copying { pages: of.saturating_sub(left), of });
                    true
                };
                let done = vault.back_up(&folder, told).map(|(manifest, path)| {
                    tracing::info!(entries = manifest.log_entries, line = manifest.ledger_line, "a backup is made");
                    BackupProgress::Done { manifest: path, dead_after: manifest.dead_after }
                });
                tell.send_replace(done.unwrap_or_else(|error| {
                    tracing::error!(reason = %error, "a backup failed");
                    BackupProgress::Failed(error)
                }));
            })
            .map_err(|source| StoreError::io("starting a backup", source))?;
        Ok(progress)
    }

    /// Has a backup that is being made end soon, and none begin: the vault is to be let go, and a copy would hold it.
    pub fn give_up_backups(&self) {
        self.inner.backing_up.given_up.store(true, Ordering::SeqCst);
    }

    /// Makes a backup in the folder, on the caller's thread; `told` as of `Store::copy`. Answers the manifest and its path. One
    /// that fails leaves nothing: what fills a disk must not stay there.
    pub fn back_up(
        &self,
        folder: &Path,
        told: impl FnMut(u64, u64) -> bool + Send + 'static,
    ) -> Result<(Manifest, PathBuf), StoreError> {
        clear_partial(folder)?;
        let made_at = self.now();
        let name = made_at.to_jiff().strftime("%Y-%m-%dT%H%M%S%.6fZ").to_string();
        let path = |ending: &str| folder.join(format!("{name}.{ending}"));
        self.copy_and_sign(made_at, &path, told).inspect_err(|_| {
            for left in [PARTIAL, MANIFEST, DATABASE].map(path) {
                let _ = fs::remove_file(left);
            }
        })
    }

    fn copy_and_sign(
        &self,
        made_at: Timestamp,
        path: &dyn Fn(&str) -> PathBuf,
        mut told: impl FnMut(u64, u64) -> bool + Send + 'static,
    ) -> Result<(Manifest, PathBuf), StoreError> {
        let (partial, vault) = (path(PARTIAL), Arc::downgrade(&self.inner));
        let is_wanted = move || vault.upgrade().is_some_and(|vault| !vault.backing_up.given_up.load(Ordering::SeqCst));
        let goes_on = is_wanted.clone();
        self.store().copy(&partial, move |left, of| told(left, of) && goes_on())?;
        let copy = copied(&partial, &self.keyring())?;
        let failed = |source| StoreError::io("writing a backup", source);
        let given_up = || StoreError::Refused("the backup was given up".to_owned());
        let (bytes, sha256) = digest(&partial, &is_wanted).map_err(failed)?.ok_or_else(given_up)?;
        let manifest = Manifest {
            made_at,
            bytes,
            sha256,
            log_entries: copy.log_entries,
            log_root: copy.log_root,
            ledger_line: copy.ledger_line,
            epochs: copy.epochs,
            generation: copy.generation,
            // By now, not by its beginning: what was written meanwhile is in it.
            dead_after: self.in_backups_by(self.now()),
        };
        fs::rename(&partial, path(DATABASE)).map_err(failed)?;
        let signed = manifest.sign(self.keyring().signer());
        write_new(&partial, signed.as_bytes()).map_err(failed)?;
        fs::rename(&partial, path(MANIFEST)).map_err(failed)?;
        let folder = partial.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok((manifest, path(MANIFEST)))
    }
}

/// The copy of the database that belongs to a manifest.
pub fn database_of(manifest: &Path) -> PathBuf {
    manifest.with_extension(DATABASE)
}

/// A file's length and SHA-256; `None`: it is not wanted any more.
fn digest(path: &Path, is_wanted: &dyn Fn() -> bool) -> std::io::Result<Option<(u64, [u8; 32])>> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
    while is_wanted() {
        let read = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            return Ok(Some((bytes, hash.finalize().into())));
        };
        hash.update(part);
        bytes += read as u64;
    }
    Ok(None)
}

fn is_copying(progress: &BackupProgress) -> bool {
    matches!(progress, BackupProgress::Copying { .. })
}

/// What a killed backup left. Another's file that ends so is not ours to delete.
fn clear_partial(folder: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::io("looking at the folder of the backups", source);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_ours = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(is_name);
        if is_ours && path.extension().is_some_and(|ending| ending == PARTIAL) {
            fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}

/// As a backup is called, after the instant it was begun.
fn is_name(stem: &str) -> bool {
    let shape = "0000-00-00T000000.000000Z";
    let fits = |(is, like): (char, char)| if like == '0' { is.is_ascii_digit() } else { is == like };
    stem.len() == shape.len() && stem.chars().zip(shape.chars()).all(fits)
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
