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

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::StoreError;
use crate::crypto::entropy::OsEntropy;
use crate::crypto::keyring::{EpochKeys, Keyring};
use crate::crypto::line::{open_line, seal_line};
use crate::crypto::mac::head_mac;
use crate::crypto::slot::Canonical;
use crate::domain::fault::{Fault, abort_at};
use crate::domain::id::{Epoch, Revision, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::{EraseReason, Field};
use crate::policy::retention::Piece;
pub use learned::Learned;

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
pub struct Told {
    /// From 1.
    pub number: u64,
    /// The first line that was written together with it, in one commit: all of those are in a database, or none.
    pub first: u64,
    pub entry: LedgerEntry,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    seq: u64,
    first: u64,
    at: i64,
    tenant: String,
    record: String,
    #[serde(flatten)]
    event: Event,
    chain: String,
    epoch: u32,
    mac: String,
}

/// The first line of a ledger whose beginning was cut off. It needs no MAC: what it says is bound by the lines behind it, and a
/// database that would need what was before is refused.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    begins_after: u64,
    chain: String,
}

/// What a line tells, as it lies in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    Erased(String),
    Superseded {
        revision: u32,
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        replaced: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        over: Vec<String>,
    },
    EpochEnded(u32),
    Learned(String),
}

/// How far a reading has come.
struct Tip {
    last: u64,
    chain: [u8; 32],
    /// The last line's MAC was checked, and so all before it are bound.
    vouched: bool,
}

impl Tip {
    const START: Self = Self { last: 0, chain: [0; 32], vouched: true };

    fn of(begin: &Begin) -> Option<Self> {
        let mut chain = [0; 32];
        hex::decode_to_slice(&begin.chain, &mut chain).ok()?;
        Some(Self { last: begin.begins_after, chain, vouched: true })
    }

    fn vouched_for(self) -> Result<Self, StoreError> {
        let Self { last, vouched, .. } = self;
        let nobody =
            || StoreError::Refused(format!("no living epoch vouches for the erasure ledger's last entry {last}"));
        if vouched { Ok(self) } else { Err(nobody()) }
    }
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
pub fn read_after(path: &Path, keyring: &Keyring, after: u64) -> Result<Vec<Told>, StoreError> {
    let file = File::open(path).map_err(|source| StoreError::io("opening the erasure ledger", source))?;
    let mut found = Vec::new();
    let (begins_after, tip) = read_lines(&file, keyring, &mut |line, _| {
        if let Some((line, _)) = line.filter(|(line, _)| line.seq > after) {
            found.push(Told { number: line.seq, first: line.first, entry: line.entry(keyring)? });
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

fn broken(at: u64) -> StoreError {
    StoreError::Refused(format!("the erasure ledger is broken at its entry {at}"))
}

/// The next line, if it goes on from the tip and is authentic.
fn check_line(text: &str, Tip { last, chain, .. }: &Tip, keyring: &Keyring) -> Result<(Line, Tip), StoreError> {
    let broken = || broken(last + 1);
    let line: Line = serde_json::from_str(text).map_err(|_| broken())?;
    let next = link(chain, &line);
    // One spelling of a line alone: what is not bound does not exist.
    let is_canonical = serde_json::to_string(&line).is_ok_and(|again| again == text);
    if line.seq != last + 1 || line.first > line.seq || line.chain != hex::encode(next) || !is_canonical {
        return Err(broken());
    }
    let vouched = match keyring.epoch(Epoch(line.epoch)) {
        Some(epoch) if line.mac == hex::encode(head_mac(epoch, &next).as_bytes()) => true,
        // SECURITY: a destroyed epoch's MACs can be checked no more; the chain up to a living epoch's line still binds them.
        None if keyring.has_destroyed(Epoch(line.epoch)) => false,
        Some(_) | None => return Err(broken()),
    };
    let tip = Tip { last: line.seq, chain: next, vouched };
    Ok((line, tip))
}

impl Line {
    /// Without its chain and MAC.
    fn of(entry: &LedgerEntry, seq: u64, first: u64, epoch: &EpochKeys) -> Result<Self, StoreError> {
        let (tenant, record) = (entry.tenant.as_str().to_owned(), hex::encode(entry.record.0));
        let event = match &entry.event {
            LedgerEvent::Erased(reason) => Event::Erased(reason.as_str().to_owned()),
            LedgerEvent::Superseded { revision, replaced, over } => Event::Superseded {
                revision: revision.0,
                replaced: replaced.iter().map(|field| field.as_str().to_owned()).collect(),
                over: over.iter().map(|piece| piece.as_str().to_owned()).collect(),
            },
            LedgerEvent::EpochEnded(epoch) => Event::EpochEnded(epoch.0),
            LedgerEvent::Learned(learned) => {
                let context = context(seq, &tenant, &record);
                let sealed = seal_line(epoch, &context, &learned.to_bytes(), &OsEntropy);
                let failed = |_| StoreError::Refused("a fact is too long for the erasure ledger".to_owned());
                Event::Learned(STANDARD_NO_PAD.encode(sealed.map_err(failed)?))
            }
        };
        let (chain, epoch, mac) = (String::new(), epoch.number().0, String::new());
        Ok(Self { seq, first, at: entry.at.0, tenant, record, event, chain, epoch, mac })
    }

    fn entry(&self, keyring: &Keyring) -> Result<LedgerEntry, StoreError> {
        let broken = || broken(self.seq);
        let event = match &self.event {
            Event::Erased(reason) => LedgerEvent::Erased(EraseReason::parse(reason).ok_or_else(broken)?),
            Event::Superseded { revision, replaced, over } => {
                let replaced = replaced.iter().map(|name| Field::parse(name)).collect::<Option<_>>();
                let over = over.iter().map(|name| Piece::parse(name)).collect::<Option<_>>();
                let (Some(replaced), Some(over)) = (replaced, over) else { return Err(broken()) };
                LedgerEvent::Superseded { revision: Revision(*revision), replaced, over }
            }
            Event::EpochEnded(epoch) => LedgerEvent::EpochEnded(Epoch(*epoch)),
            Event::Learned(sealed) => {
                let epoch = keyring.epoch(Epoch(self.epoch)).ok_or_else(|| {
                    StoreError::Refused(format!(
                        "the erasure ledger's entry {} can be read no more: its epoch was destroyed, and with it every \
                         backup that would need it",
                        self.seq
                    ))
                })?;
                let sealed = STANDARD_NO_PAD.decode(sealed).map_err(|_| broken())?;
                let opened = open_line(epoch, &context(self.seq, &self.tenant, &self.record), &sealed);
                let learned = opened.ok().and_then(|bytes| Learned::from_bytes(&bytes)).ok_or_else(broken)?;
                LedgerEvent::Learned(Box::new(learned))
            }
        };
        let mut digest = [0; 16];
        hex::decode_to_slice(&self.record, &mut digest).map_err(|_| broken())?;
        let tenant = self.tenant.parse().map_err(|_| broken())?;
        Ok(LedgerEntry { at: Timestamp(self.at), tenant, record: TokenDigest(digest), event })
    }
}

/// The place of what lies sealed in a line.
fn context(seq: u64, tenant: &str, record: &str) -> Canonical {
    Canonical::new("strongroom/ledger/learned").u64(seq).bytes(tenant.as_bytes()).bytes(record.as_bytes())
}

fn link(chain: &[u8; 32], line: &Line) -> [u8; 32] {
    let bytes = Canonical::new("strongroom/ledger")
        .bytes(chain)
        .u64(line.seq)
        .u64(line.first)
        .i64(line.at)
        .bytes(line.tenant.as_bytes())
        .bytes(line.record.as_bytes());
    let list = |bytes: Canonical, names: &[String]| {
        names.iter().fold(bytes.u64(names.len() as u64), |bytes, name| bytes.bytes(name.as_bytes()))
    };
    let bytes = match &line.event {
        Event::Erased(reason) => bytes.u8(1).bytes(reason.as_bytes()),
        Event::Superseded { revision, replaced, over } => {
            list(list(bytes.u8(2).u64(u64::from(*revision)), replaced), over)
        }
        Event::EpochEnded(epoch) => bytes.u8(3).u64(u64::from(*epoch)),
        Event::Learned(sealed) => bytes.u8(4).bytes(sealed.as_bytes()),
    };
    Sha256::digest(bytes.as_bytes()).into()
}

/// A new file is durable only once its folder is.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| StoreError::io("syncing the erasure ledger's folder", source))
}
