//! Room on disk that is kept back for taking away. INVARIANT: while a disk is full, what erases, revokes and suspends still
//! commits, out of the reserve; what stores and reads is refused until the reserve is whole again, so it never eats that room.
//!
//! The reserve is a file of real blocks beside the database, and one beside the erasure ledger where that is another device:
//! ```text
//! HELD ──a transaction that takes away finds the disk full──▶ RELEASED: the file is emptied, that transaction runs again,
//!  ▲                                                                    all others are answered DiskFull without work
//!  └──────────── before some later commit, room for all of it ◀─────────┘
//! ```

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::{StoreError, StorePaths};
use crate::domain::fault::{Fault, planted};

/// The transactions that may use the reserve, by name: those that take away (data, grants, authority), what a start needs before
/// it can, and what tells an operator why the rest is refused.
pub const TAKES_AWAY: &[&str] = &[
    "erase",
    "erase_subject",
    "leave",
    "sweep",
    "stage",
    "sweep_window",
    "pause_sweep",
    "begin_month",
    "close_month",
    "delete_tallies",
    "expire",
    "expire_holds",
    "replay_ledger",
    "announced",
    "drop_announcements",
    "record_generation",
    "keep_policies",
    "first_marks",
    "start",
    "revoke_shipment",
    "destroy_epoch",
    "epoch_destroyed",
    "suspend_caller",
    "confirm_clock",
    "status",
];

/// Whether the reserve is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReserveState {
    /// No reserve is configured.
    #[default]
    None,
    Held,
    /// A disk is full, or has no room for the reserve: nothing but taking away is done.
    Released,
}

/// The reserves of a store's disks, which are held and released together.
pub(super) struct Reserve {
    files: Vec<PathBuf>,
    bytes: u64,
    held: bool,
}

impl Reserve {
    /// Takes `bytes` on every device of the store; where there is no room it starts released.
    pub(super) fn open(paths: &StorePaths, bytes: u64) -> Result<Self, StoreError> {
        let bytes = if planted(Fault::NoReserve) { 0 } else { bytes };
        let mut files = vec![beside(&paths.database)];
        if device(&paths.database)? != device(&paths.ledger)? {
            files.push(beside(&paths.ledger));
        }
        let mut reserve = Self { files, bytes, held: false };
        match bytes {
            0 => reserve.give_back(),
            _ => reserve.restore(),
        }
        if reserve.state() == ReserveState::Released {
            tracing::warn!("no room for the disk reserve: until there is, only what takes away is done");
        }
        Ok(reserve)
    }

    pub(super) fn state(&self) -> ReserveState {
        match (self.bytes, self.held) {
            (0, _) => ReserveState::None,
            (_, true) => ReserveState::Held,
            (_, false) => ReserveState::Released,
        }
    }

    /// Gives the room to whoever writes next. `false`: it is given already, or there never was any.
    pub(super) fn release(&mut self) -> bool {
        if self.state() != ReserveState::Held {
            return false;
        }
        self.give_back();
        self.held = false;
        tracing::error!(
            "the disk is full: the reserve is released, and only what takes away is done until there is room"
        );
        true
    }

    /// Takes the room again where it was given and is there now.
    pub(super) fn restore(&mut self) {
        if self.state() != ReserveState::Released {
            return;
        }
        let taken = self.files.iter().all(|file| has_room(file, self.bytes) && take(file, self.bytes).is_ok());
        if taken {
            self.held = true;
            tracing::info!(bytes = self.bytes, "the disk reserve is whole");
        } else {
            // Half a reserve would keep the other device's erasures from their room.
            self.give_back();
        }
    }

    fn give_back(&self) {
        for file in self.files.iter().filter(|file| file.exists()) {
            if let Err(error) = File::options().write(true).open(file).and_then(|open| open.set_len(0)) {
                tracing::error!(%error, "the disk reserve cannot be emptied");
            }
        }
    }
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".reserve");
    PathBuf::from(name)
}

fn device(file: &Path) -> Result<u64, StoreError> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let metadata = std::fs::metadata(file).or_else(|_| std::fs::metadata(folder));
    metadata.map(|found| found.dev()).map_err(|source| StoreError::io("looking at the store's devices", source))
}

/// Whether a new file of so many bytes leaves the reserve's room to the writers of its disk.
pub(super) fn leaves_room(file: &Path, bytes: u64, reserve: u64) -> bool {
    planted(Fault::NoReserve) || has_room(file, bytes.saturating_add(reserve))
}

/// Asked first, since a file system may keep what a failed allocation took until then.
fn has_room(file: &Path, bytes: u64) -> bool {
    if allocated(file) >= bytes {
        return true;
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    statvfs(folder).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes)
}

fn allocated(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |metadata| metadata.blocks().saturating_mul(512).min(metadata.len()))
}

/// Makes the file `bytes` long, every block of it real.
fn take(path: &Path, bytes: u64) -> std::io::Result<()> {
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    if allocated(path) != bytes {
        file.set_len(0)?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            // A file system without allocation: written out instead.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                std::io::copy(&mut std::io::Read::take(std::io::repeat(0x5a), bytes), &mut &file)?;
            }
            allocated => allocated?,
        }
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 256 * 1024;

    fn paths(folder: &Path) -> StorePaths {
        StorePaths { database: folder.join("vault.db"), ledger: folder.join("erasures") }
    }

    fn blocks(folder: &Path) -> u64 {
        allocated(&folder.join("vault.db.reserve"))
    }

    #[test]
    fn a_reserve_is_real_blocks_that_are_given_and_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(&paths(folder.path()), SIZE).unwrap();
        assert_eq!((reserve.state(), blocks(folder.path())), (ReserveState::Held, SIZE));
        assert!(reserve.release() && !reserve.release());
        assert_eq!((reserve.state(), blocks(folder.path())), (ReserveState::Released, 0));
        reserve.restore();
        assert_eq!((reserve.state(), blocks(folder.path())), (ReserveState::Held, SIZE));
    }

    #[test]
    fn a_reserve_of_another_size_is_made_anew_and_none_gives_its_room_back() {
        let folder = tempfile::tempdir().unwrap();
        for size in [SIZE, 2 * SIZE, SIZE, 0] {
            Reserve::open(&paths(folder.path()), size).unwrap();
            assert_eq!(blocks(folder.path()), size);
        }
    }

    #[test]
    fn a_reserve_larger_than_its_disk_is_released_from_the_start_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(&paths(folder.path()), 1 << 60).unwrap();
        assert_eq!((reserve.state(), blocks(folder.path())), (ReserveState::Released, 0));
    }

    #[test]
    fn every_name_on_the_list_is_a_transaction_of_the_vault() {
        let mut source = ["src/store.rs", "src/vault.rs"].map(|file| std::fs::read_to_string(file).unwrap()).concat();
        for file in std::fs::read_dir("src/vault").unwrap() {
            source += &std::fs::read_to_string(file.unwrap().path()).unwrap_or_default();
        }
        for name in TAKES_AWAY {
            assert!(source.contains(&format!("(\"{name}\"")), "{name}");
        }
    }
}
