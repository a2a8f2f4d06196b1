//! The erasure ledger: an append-only file outside the database that says what was destroyed, so that a restored database
//! destroys it again before it serves; and what else a restored database must not have forgotten (`learned`).
//!
//! INVARIANT: an erasure is acknowledged only after its line is on disk; lines are chained (SHA-256) and authenticated under
//! an epoch's audit subkey, so a line that was altered, dropped or moved is found when the file is opened. One JSON object a
//! line, so that an auditor can read it; it holds token digests and reasons, never a value. What was learned lies sealed in its
//! line, under the epoch that is active then: it goes with that epoch, as the backups do that would need it. Lines that no living
//! epoch vouches for any more are cut off at the beginning, for the same reason: what is left says after which line it begins, and
//! a database that has not heard of that line is refused.

mod learned;
mod line;

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::StoreError;
use crate::crypto::keyring::Keyring;
use crate::crypto::mac::head_mac;
use crate::domain::fault::{Fault, abort_at};
use crate::domain::id::{Epoch, Revision, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::{EraseReason, Field};
use crate::policy::retention::Piece;
pub use learned::Learned;
use line::{Begin, Line, Tip, broken, check_line, link};

/// Something that a restored backup would undo.
#[derive(Clone, PartialEq, Debug)]
pub enum LedgerEvent {
    /// The whole record was destroyed.
    Erased(EraseReason),
    /// The values of every revision up to this one were: the record goes on without what they held of these fields, whose
    /// values were replaced or dropped, and of these pieces, whose time was over.
    Superseded { revision: Revision, replaced: Vec<Field>, over: Vec<Piece> },
    /// A key epoch was: no line is vouched for by it any more. The line's record is nobody's.
    EpochEnded(Epoch),
    /// A fact was learned. What is not about one record has nobody's for its record.
    Learned(Box<Learned>),
}

impl LedgerEvent {
    /// Whether something went that must not stay in the write-ahead log.
    pub fn destroys(&self) -> bool {
        match self {
            Self::Erased(_) | Self::Superseded { .. } | Self::EpochEnded(_) => true,
            Self::Learned(_) => false,
        }
    }
}

/// In place of a record, where a line is about none.
pub const NOBODY: TokenDigest = TokenDigest([0; 16]);

#[derive(Clone, PartialEq, Debug)]
pub struct LedgerEntry {
    pub at: Timestamp,
    pub tenant: TenantId,
    pub record: TokenDigest,
    pub event: LedgerEvent,
}

impl LedgerEntry {
    /// That something was learned; about the record, or nobody's.
    pub fn learned(tenant: &TenantId, record: TokenDigest, at: Timestamp, learned: Learned) -> Self {
        Self { at, tenant: tenant.clone(), record, event: LedgerEvent::Learned(Box::new(learned)) }
    }
}

/// An entry with its place.
#[derive(Clone, PartialEq, Debug)]
pub struct Placed {
    /// From 1.
    pub number: u64,
    /// The first line that was written together with it, in one commit: all of those are in a database, or none.
    pub first: u64,
    pub entry: LedgerEntry,
}

/// The open ledger; owned by the writer.
pub(super) struct Ledger {
    path: PathBuf,
    file: File,
    /// The line after which the file begins.
    begins_after: u64,
    last: u64,
    chain: [u8; 32],
    /// Of the whole lines, in bytes.
    length: u64,
}

impl Ledger {
    /// Opens or makes the file and checks every line. A last line without its line feed was never acknowledged and is cut.
    pub(super) fn open(path: &Path, keyring: &Keyring) -> Result<Self, StoreError> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| StoreError::io("opening the erasure ledger", source))?;
        sync_folder(path)?;
        let mut whole = 0;
        let (begins_after, tip) = read_lines(&file, keyring, &mut |_, bytes| {
            whole += bytes;
            Ok(())
        })?;
        let Tip { last, chain, .. } = tip.vouched_for()?;
        file.set_len(whole).map_err(|source| StoreError::io("cutting the erasure ledger's torn last line", source))?;
        file.seek(SeekFrom::End(0)).map_err(|source| StoreError::io("seeking in the erasure ledger", source))?;
        Ok(Self { path: path.to_owned(), file, begins_after, last, chain, length: whole })
    }

    /// The line after which the file begins; 0 for a whole one.
    pub(super) fn begins_after(&self) -> u64 {
        self.begins_after
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Appends and fsyncs. `DiskFull` leaves the file as it was; after any other error the caller must poison itself, for what
    /// the file holds is unknown until it is reopened.
    pub(super) fn append(&mut self, entries: &[LedgerEntry], keyring: &Keyring) -> Result<u64, StoreError> {
        let (mut last, mut chain) = (self.last, self.chain);
        let first = last + 1;
        let mut text = Vec::new();
        for entry in entries {
            last += 1;
            let mut line = Line::of(entry, last, first, keyring.active())?;
            chain = link(&chain, &line);
            line.chain = hex::encode(chain);
            line.mac = hex::encode(head_mac(keyring.active(), &chain).as_bytes());
            serde_json::to_writer(&mut text, &line)
                .map_err(|e| StoreError::io("encoding the erasure ledger", e.into()))?;
            text.push(b'\n');
        }
        let (half, rest) = text.split_at(text.len() / 2);
        let written = self.file.write_all(half).and_then(|()| {
            abort_at(Fault::AbortInLedger);
            self.file.write_all(rest)
        });
        if let Err(source) = written {
            // What was written of the lines is cut again; then the file is what it was, and a full disk is only that.
            let cut = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::End(0)));
            let full = matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
            return Err(match cut {
                Ok(_) if full => StoreError::DiskFull,
                _ => StoreError::io("writing the erasure ledger", source),
            });
        }
        self.file.sync_data().map_err(|source| StoreError::io("writing the erasure ledger", source))?;
        (self.last, self.chain, self.length) = (last, chain, self.length + text.len() as u64);
        Ok(last)
    }

    /// Cuts off the lines at the beginning that no living epoch vouches for; answers whether there were any. `Err`: the file
    /// is cut, and whether it stays so over a power cut is unknown: the caller must poison itself.
    pub(super) fn cut(&mut self, keyring: &Keyring) -> Result<bool, StoreError> {
        let cut = match self.cut_beside(keyring) {
            Ok(Some(cut)) => cut,
            Ok(None) => return Ok(false),
            Err(error) => {
                tracing::warn!(error = %error, "the erasure ledger cannot be cut; it stays as it is");
                return Ok(false);
            }
        };
        let Cut { file, begins_after, length } = cut;
        (self.file, self.begins_after, self.length) = (file, begins_after, length);
        sync_folder(&self.path)?;
        Ok(true)
    }

    /// Writes the rest beside the file and puts it in its place.
    fn cut_beside(&self, keyring: &Keyring) -> Result<Option<Cut>, StoreError> {
        let failed = |source| StoreError::io("cutting the erasure ledger", source);
        // The last line that goes, and where the first one that stays begins.
        let (mut gone, mut kept, mut place) = (None, None, 0);
        let mut whole = File::open(&self.path).map_err(failed)?;
        read_lines(&whole, keyring, &mut |line, bytes| {
            if let Some((line, chain)) = line {
                if kept.is_none() && keyring.epoch(Epoch(line.epoch)).is_none() {
                    gone = Some(Begin { begins_after: line.seq, chain: hex::encode(chain) });
                } else {
                    kept = kept.or(Some(place));
                }
            }
            place += bytes;
            Ok(())
        })?;
        let Some(begin) = gone else { return Ok(None) };
        let mut head = serde_json::to_vec(&begin).map_err(|error| failed(error.into()))?;
        head.push(b'\n');
        let partial = self.path.with_added_extension("partial");
        let write = || {
            let mut next = File::options();
            let mut next = next.create(true).truncate(true).read(true).write(true).mode(0o600).open(&partial)?;
            whole.seek(SeekFrom::Start(kept.unwrap_or(place)))?;
            next.write_all(&head)?;
            let rest = std::io::copy(&mut whole, &mut next)?;
            next.sync_all()?;
            std::fs::rename(&partial, &self.path)?;
            Ok((next, head.len() as u64 + rest))
        };
        let (file, length) = { write }().map_err(failed)?;
        Ok(Some(Cut { file, begins_after: begin.begins_after, length }))
    }
}

/// What a cut leaves.
struct Cut {
    file: File,
    begins_after: u64,
    length: u64,
}

/// Every entry after `after`, in order; what a restored database has to apply.
pub fn read_after(path: &Path, keyring: &Keyring, after: u64) -> Result<Vec<Placed>, StoreError> {
    let file = File::open(path).map_err(|source| StoreError::io("opening the erasure ledger", source))?;
    let mut found = Vec::new();
    let (begins_after, tip) = read_lines(&file, keyring, &mut |line, _| {
        if let Some((line, _)) = line.filter(|(line, _)| line.seq > after) {
            found.push(Placed { number: line.seq, first: line.first, entry: line.entry(keyring)? });
        }
        Ok(())
    })?;
    tip.vouched_for()?;
    if begins_after > after { Err(too_old(begins_after)) } else { Ok(found) }
}

/// Why a database is refused that has not heard of the line after which the ledger begins.
pub(super) fn too_old(begins_after: u64) -> StoreError {
    StoreError::Refused(format!(
        "the erasure ledger begins after its entry {begins_after}, of which this database has not heard: it is a copy older \
         than backups are kept"
    ))
}

/// A whole line, checked, with the chain up to it; `None` for the one that says where the file begins.
type Checked<'a> = Option<(&'a Line, &'a [u8; 32])>;

/// Calls `each` with every whole line and its length in bytes; answers after which line the file begins, and the tip.
fn read_lines(
    file: &File,
    keyring: &Keyring,
    each: &mut dyn FnMut(Checked<'_>, u64) -> Result<(), StoreError>,
) -> Result<(u64, Tip), StoreError> {
    let mut reader = BufReader::new(file);
    let (mut text, mut tip, mut begins_after, mut is_first) = (String::new(), Tip::START, 0, true);
    loop {
        text.clear();
        let bytes =
            reader.read_line(&mut text).map_err(|source| StoreError::io("reading the erasure ledger", source))?;
        let Some(line) = text.strip_suffix('\n') else { return Ok((begins_after, tip)) };
        let begin = is_first.then(|| serde_json::from_str::<Begin>(line).ok()).flatten();
        is_first = false;
        if let Some(begin) = begin {
            tip = Tip::of(&begin).ok_or_else(|| broken(begin.begins_after))?;
            begins_after = tip.last;
            each(None, bytes as u64)?;
            continue;
        }
        let (line, next) = check_line(line, &tip, keyring)?;
        tip = next;
        each(Some((&line, &tip.chain)), bytes as u64)?;
    }
}

/// A new file is durable only once its folder is.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| StoreError::io("syncing the erasure ledger's folder", source))
}
