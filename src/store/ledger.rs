//! The erasure ledger: an append-only file outside the database that says what was destroyed, so that a restored database
//! destroys it again before it serves.
//!
//! INVARIANT: an erasure is acknowledged only after its line is on disk; lines are chained (SHA-256) and authenticated under
//! an epoch's audit subkey, so a line that was altered, dropped or moved is found when the file is opened. One JSON object a
//! line, so that an auditor can read it; it holds token digests and reasons, never a value.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::StoreError;
use crate::crypto::keyring::Keyring;
use crate::crypto::mac::head_mac;
use crate::crypto::slot::Canonical;
use crate::domain::fault::{Fault, abort_at};
use crate::domain::id::{Epoch, Revision, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::EraseReason;

/// Something destroyed that a restored backup would bring back.
#[derive(Clone, PartialEq, Debug)]
pub enum LedgerEvent {
    /// The whole record.
    Erased(EraseReason),
    /// The values of every revision up to this one: the record was corrected.
    Superseded(Revision),
    /// A key epoch: no line is vouched for by it any more. The line's record is nobody's.
    EpochEnded(Epoch),
}

#[derive(Clone, PartialEq, Debug)]
pub struct LedgerEntry {
    pub at: Timestamp,
    pub tenant: TenantId,
    pub record: TokenDigest,
    pub event: LedgerEvent,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: u64,
    at: i64,
    tenant: String,
    record: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    erased: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    superseded: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    epoch_ended: Option<u32>,
    chain: String,
    epoch: u32,
    mac: String,
}

/// How far a reading has come.
struct Tip {
    last: u64,
    chain: [u8; 32],
    /// The last line's MAC was checked, and so all before it are bound.
    vouched: bool,
}

struct Checked {
    tip: Tip,
    entry: LedgerEntry,
}

impl Tip {
    const START: Self = Self { last: 0, chain: [0; 32], vouched: true };

    fn vouched_for(self) -> Result<Self, StoreError> {
        let Self { last, vouched, .. } = self;
        let nobody =
            || StoreError::Refused(format!("no living epoch vouches for the erasure ledger's last entry {last}"));
        if vouched { Ok(self) } else { Err(nobody()) }
    }
}

/// The open ledger; owned by the writer.
pub(super) struct Ledger {
    file: File,
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
        let (mut tip, mut whole) = (Tip::START, 0);
        read_lines(&file, &mut |text, bytes| {
            tip = check_line(text, &tip, keyring)?.tip;
            whole += bytes;
            Ok(())
        })?;
        let Tip { last, chain, .. } = tip.vouched_for()?;
        file.set_len(whole).map_err(|source| StoreError::io("cutting the erasure ledger's torn last line", source))?;
        file.seek(SeekFrom::End(0)).map_err(|source| StoreError::io("seeking in the erasure ledger", source))?;
        Ok(Self { file, last, chain, length: whole })
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Appends and fsyncs. `DiskFull` leaves the file as it was; after any other error the caller must poison itself, for what
    /// the file holds is unknown until it is reopened.
    pub(super) fn append(&mut self, entries: &[LedgerEntry], keyring: &Keyring) -> Result<u64, StoreError> {
        let epoch = keyring.active();
        let (mut last, mut chain) = (self.last, self.chain);
        let mut text = Vec::new();
        for entry in entries {
            last += 1;
            chain = link(&chain, last, entry);
            let (erased, superseded, epoch_ended) = match entry.event {
                LedgerEvent::Erased(reason) => (Some(reason.as_str().to_owned()), None, None),
                LedgerEvent::Superseded(revision) => (None, Some(revision.0), None),
                LedgerEvent::EpochEnded(epoch) => (None, None, Some(epoch.0)),
            };
            let line = Line {
                seq: last,
                at: entry.at.0,
                tenant: entry.tenant.as_str().to_owned(),
                record: hex::encode(entry.record.0),
                erased,
                superseded,
                epoch_ended,
                chain: hex::encode(chain),
                epoch: epoch.number().0,
                mac: hex::encode(head_mac(epoch, &chain).as_bytes()),
            };
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
}

/// Every entry after `after`, in order, with its number; what a restored database has to apply.
pub fn read_after(path: &Path, keyring: &Keyring, after: u64) -> Result<Vec<(u64, LedgerEntry)>, StoreError> {
    let file = File::open(path).map_err(|source| StoreError::io("opening the erasure ledger", source))?;
    let (mut tip, mut found) = (Tip::START, Vec::new());
    read_lines(&file, &mut |text, _| {
        let checked = check_line(text, &tip, keyring)?;
        tip = checked.tip;
        if tip.last > after {
            found.push((tip.last, checked.entry));
        }
        Ok(())
    })?;
    tip.vouched_for()?;
    Ok(found)
}

/// Calls `each` with every whole line and its length in bytes.
fn read_lines(file: &File, each: &mut dyn FnMut(&str, u64) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let mut reader = BufReader::new(file);
    let mut text = String::new();
    loop {
        text.clear();
        let bytes =
            reader.read_line(&mut text).map_err(|source| StoreError::io("reading the erasure ledger", source))?;
        let Some(line) = text.strip_suffix('\n') else { return Ok(()) };
        each(line, bytes as u64)?;
    }
}

fn check_line(text: &str, Tip { last, chain, .. }: &Tip, keyring: &Keyring) -> Result<Checked, StoreError> {
    let broken = || StoreError::Refused(format!("the erasure ledger is broken at its entry {}", last + 1));
    let line: Line = serde_json::from_str(text).map_err(|_| broken())?;
    let mut digest = [0; 16];
    hex::decode_to_slice(&line.record, &mut digest).map_err(|_| broken())?;
    let event = match (&line.erased, line.superseded, line.epoch_ended) {
        (Some(reason), None, None) => LedgerEvent::Erased(EraseReason::parse(reason).ok_or_else(broken)?),
        (None, Some(revision), None) => LedgerEvent::Superseded(Revision(revision)),
        (None, None, Some(epoch)) => LedgerEvent::EpochEnded(Epoch(epoch)),
        _ => return Err(broken()),
    };
    let entry = LedgerEntry {
        at: Timestamp(line.at),
        tenant: line.tenant.parse().map_err(|_| broken())?,
        record: TokenDigest(digest),
        event,
    };
    let next = link(chain, line.seq, &entry);
    if line.seq != last + 1 || line.chain != hex::encode(next) || line.record != hex::encode(digest) {
        return Err(broken());
    }
    let vouched = match keyring.epoch(Epoch(line.epoch)) {
        Some(epoch) if line.mac == hex::encode(head_mac(epoch, &next).as_bytes()) => true,
        // SECURITY: a destroyed epoch's MACs can be checked no more; the chain up to a living epoch's line still binds them.
        None if keyring.has_destroyed(Epoch(line.epoch)) => false,
        Some(_) | None => return Err(broken()),
    };
    Ok(Checked { tip: Tip { last: line.seq, chain: next, vouched }, entry })
}

fn link(chain: &[u8; 32], seq: u64, entry: &LedgerEntry) -> [u8; 32] {
    let (kind, detail) = match entry.event {
        LedgerEvent::Erased(reason) => (1, u64::from(reason.code())),
        LedgerEvent::Superseded(revision) => (2, u64::from(revision.0)),
        LedgerEvent::EpochEnded(epoch) => (3, u64::from(epoch.0)),
    };
    let bytes = Canonical::new("strongroom/ledger")
        .bytes(chain)
        .u64(seq)
        .i64(entry.at.0)
        .bytes(entry.tenant.as_str().as_bytes())
        .bytes(&entry.record.0)
        .u8(kind)
        .u64(detail);
    Sha256::digest(bytes.as_bytes()).into()
}

/// A new file is durable only once its folder is.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| StoreError::io("syncing the erasure ledger's folder", source))
}
