//! The keyring: every epoch that is still needed, in one small file sealed under the root key. INVARIANT: a keyring always
//! has an active epoch, and the file on disk is at every instant one whole generation, authentic to its last byte.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::aead;
use crate::crypto::entropy::Entropy;
use crate::crypto::key::{Key, debug_by_name};
use crate::crypto::root::{RootCheck, RootHeader, RootKey, sync_folder_of};
use crate::crypto::signer::Signer;
use crate::crypto::slot::Canonical;
use crate::domain::id::{Epoch, Generation};
use crate::domain::time::Timestamp;

/// The keys of one epoch: one that is kept, and one derived from it for each use.
pub struct EpochKeys {
    number: Epoch,
    created_at: Timestamp,
    key: Key,
    wrap: Key,
    mac: Key,
    index: Key,
    idempotency: Key,
    audit: Key,
    page: Key,
}

pub struct Keyring {
    generation: Generation,
    seal: Arc<RootSeal>,
    signer: Arc<Signer>,
    active: Arc<EpochKeys>,
    /// Newest first.
    older: Vec<Arc<EpochKeys>>,
}

debug_by_name!(EpochKeys, Keyring, RootSeal);

/// What a keyring file is sealed with: a key derived from the root key, and what the file says of that root. It opens what the
/// process holds in memory anyway and nothing else, so that the root itself can be wiped once the keyring is open.
struct RootSeal {
    header: RootHeader,
    check: RootCheck,
    key: Key,
}

impl RootSeal {
    fn of(root: &RootKey) -> Self {
        Self { header: root.header().clone(), check: root.check(), key: root.keyring_key() }
    }
}

/// What a keyring file says before it is unlocked. Believe it only after `load`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyringHeader {
    pub generation: Generation,
    pub root: RootHeader,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("the keyring cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("the keyring cannot be written")]
    Unwritable(#[source] io::Error),
    #[error("the file is no keyring")]
    NotAKeyring,
    #[error("the keyring is of an unknown format")]
    UnknownFormat,
    #[error("the keyring is cut short")]
    Truncated,
    #[error("the root key is not the one this keyring was made with")]
    WrongRoot,
    #[error("the keyring was altered or damaged")]
    NotAuthentic,
    /// Authentic bytes that are no keyring: a defect of the writer.
    #[error("the keyring opens to a malformed list of epochs")]
    Malformed,
    #[error("the keyring is too large")]
    TooLarge,
}

impl Keyring {
    /// Generation 1 with epoch 1, for `root` alone to seal.
    pub fn create(root: &RootKey, now: Timestamp, entropy: &dyn Entropy) -> Self {
        let active = Arc::new(EpochKeys::new(Epoch(1), now, Key::generate(entropy)));
        let signer = Arc::new(Signer::generate(entropy));
        Self { generation: Generation(1), seal: Arc::new(RootSeal::of(root)), signer, active, older: Vec::new() }
    }

    /// The next generation: a fresh active epoch above all present ones.
    ///
    /// Nothing may be wrapped under it before it was saved, or a crash would lose what it wraps.
    pub fn with_new_epoch(&self, now: Timestamp, entropy: &dyn Entropy) -> Self {
        let number = Epoch(self.active.number.0.saturating_add(1));
        let older = std::iter::once(&self.active).chain(&self.older).cloned().collect();
        let active = Arc::new(EpochKeys::new(number, now, Key::generate(entropy)));
        Self { active, older, ..self.next() }
    }

    /// The next generation: the same epochs, for `root` to seal from now on.
    pub fn with_root(&self, root: &RootKey) -> Self {
        Self { seal: Arc::new(RootSeal::of(root)), ..self.next() }
    }

    /// The same, as a generation of its own.
    fn next(&self) -> Self {
        Self {
            generation: Generation(self.generation.0.saturating_add(1)),
            seal: Arc::clone(&self.seal),
            signer: Arc::clone(&self.signer),
            active: Arc::clone(&self.active),
            older: self.older.clone(),
        }
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What signs the vault's word; the same through all generations, so that what was signed long ago still verifies.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    pub fn active(&self) -> &EpochKeys {
        &self.active
    }

    pub fn epoch(&self, number: Epoch) -> Option<&EpochKeys> {
        self.epochs().find(|epoch| epoch.number == number)
    }

    /// Newest first; the first is the active one.
    pub fn epochs(&self) -> impl Iterator<Item = &EpochKeys> {
        std::iter::once(&self.active).chain(&self.older).map(Arc::as_ref)
    }

    /// Replaces the file at `path` by this generation, durably, or leaves the old one.
    pub fn save(&self, path: &Path, entropy: &dyn Entropy) -> Result<(), KeyringError> {
        let RootSeal { header, check, key } = &*self.seal;
        let clear = Clear { generation: self.generation, check: *check, root: header.clone() }.encode();
        let body = self.encode_body();
        let sealed = aead::seal(key, aad(&clear).as_bytes(), &clear, &[&body], body.len(), entropy)
            .ok()
            .filter(|sealed| sealed.len() as u64 <= MAX_FILE)
            .ok_or(KeyringError::TooLarge)?;
        replace(path, &sealed).map_err(KeyringError::Unwritable)
    }

    /// Opens the file with its root. Errors: `WrongRoot` when it was sealed under another.
    pub fn load(path: &Path, root: &RootKey) -> Result<Self, KeyringError> {
        let bytes = read(path)?;
        let (clear, sealed) = Clear::split(&bytes)?;
        let parsed = Clear::decode(clear)?;
        if !bool::from(parsed.check.0.ct_eq(&root.check().0)) {
            return Err(KeyringError::WrongRoot);
        }
        if sealed.len() < aead::NONCE {
            return Err(KeyringError::Truncated);
        }
        let seal = RootSeal::of(root);
        let body = aead::open(&seal.key, aad(clear).as_bytes(), sealed).map_err(|_| KeyringError::NotAuthentic)?;
        Self::decode_body(&body, parsed.generation, seal)
    }

    fn encode_body(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(SEED + EPOCH * (1 + self.older.len())));
        body.extend_from_slice(self.signer.seed().expose());
        for epoch in self.epochs() {
            body.extend_from_slice(&epoch.number.0.to_be_bytes());
            body.extend_from_slice(&epoch.created_at.0.to_be_bytes());
            body.extend_from_slice(epoch.key.expose());
        }
        body
    }

    fn decode_body(body: &[u8], generation: Generation, seal: RootSeal) -> Result<Self, KeyringError> {
        let (seed, entries) = body.split_first_chunk::<SEED>().ok_or(KeyringError::Malformed)?;
        let signer = Arc::new(Signer::from_seed(Key::filled(|bytes| *bytes = *seed)));
        let (entries, rest) = entries.as_chunks::<EPOCH>();
        let mut epochs = entries.iter().map(decode_epoch).collect::<Option<Vec<_>>>().ok_or(KeyringError::Malformed)?;
        let newest_first = epochs.is_sorted_by(|a, b| a.number > b.number);
        if !rest.is_empty() || !newest_first || epochs.is_empty() {
            return Err(KeyringError::Malformed);
        }
        let active = epochs.remove(0);
        Ok(Self { generation, seal: Arc::new(seal), signer, active, older: epochs })
    }
}

/// What the file at `path` says of itself: how to make its root key, and its generation.
pub fn peek(path: &Path) -> Result<KeyringHeader, KeyringError> {
    let bytes = read(path)?;
    let clear = Clear::decode(Clear::split(&bytes)?.0)?;
    Ok(KeyringHeader { generation: clear.generation, root: clear.root })
}

impl EpochKeys {
    fn new(number: Epoch, created_at: Timestamp, key: Key) -> Self {
        Self {
            number,
            created_at,
            wrap: key.derive("strongroom/epoch/wrap"),
            mac: key.derive("strongroom/epoch/mac"),
            index: key.derive("strongroom/epoch/index"),
            idempotency: key.derive("strongroom/epoch/idempotency"),
            audit: key.derive("strongroom/epoch/audit"),
            page: key.derive("strongroom/epoch/page"),
            key,
        }
    }

    pub fn number(&self) -> Epoch {
        self.number
    }

    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    pub(crate) fn wrap_key(&self) -> &Key {
        &self.wrap
    }

    pub(crate) fn mac_key(&self) -> &Key {
        &self.mac
    }

    pub(crate) fn index_key(&self) -> &Key {
        &self.index
    }

    pub(crate) fn idempotency_key(&self) -> &Key {
        &self.idempotency
    }

    pub(crate) fn audit_key(&self) -> &Key {
        &self.audit
    }

    pub(crate) fn page_key(&self) -> &Key {
        &self.page
    }
}

/// The signer's seed, before the epochs.
const SEED: usize = 32;
/// One epoch in the file: number (4), created at (8), key (32).
const EPOCH: usize = 44;

fn decode_epoch(entry: &[u8; EPOCH]) -> Option<Arc<EpochKeys>> {
    let (number, rest) = entry.split_first_chunk()?;
    let (created_at, key) = rest.split_first_chunk()?;
    let key: &[u8; 32] = key.try_into().ok()?;
    let key = Key::filled(|bytes| *bytes = *key);
    let (number, created_at) = (Epoch(u32::from_be_bytes(*number)), Timestamp(i64::from_be_bytes(*created_at)));
    Some(Arc::new(EpochKeys::new(number, created_at, key)))
}

const MAGIC: [u8; 4] = *b"SRKR";
const FORMAT: u8 = 2;
/// Far above any keyring: twenty thousand epochs.
const MAX_FILE: u64 = 1024 * 1024;

/// The clear header: magic (4), format (1), generation (8), root check (16), kind of root (1), length of what that kind needs
/// (2), and so many bytes of it.
struct Clear {
    generation: Generation,
    check: RootCheck,
    root: RootHeader,
}

/// The part of the header that every kind of root has.
const CLEAR: usize = 4 + 1 + 8 + 16 + 1 + 2;

impl Clear {
    fn encode(&self) -> Vec<u8> {
        let (kind, body) = self.root.encode();
        let generation = self.generation.0.to_be_bytes();
        // No kind needs more than 8 KiB; a longer one would not be read back.
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&MAGIC[..], &[FORMAT], &generation, &self.check.0, &[kind], &length, &body].concat()
    }

    /// The header, and what is sealed behind it.
    fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), KeyringError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(if MAGIC.starts_with(bytes) { KeyringError::Truncated } else { KeyringError::NotAKeyring });
        }
        // Before its length is looked at: another format may have none.
        if bytes.get(MAGIC.len()).is_some_and(|format| *format != FORMAT) {
            return Err(KeyringError::UnknownFormat);
        }
        let (fixed, _) = bytes.split_first_chunk::<CLEAR>().ok_or(KeyringError::Truncated)?;
        let [.., high, low] = fixed;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        bytes.split_at_checked(CLEAR + length).ok_or(KeyringError::Truncated)
    }

    fn decode(clear: &[u8]) -> Result<Self, KeyringError> {
        let mut rest = clear;
        let _magic_and_format = take::<5>(&mut rest)?;
        let generation = Generation(u64::from_be_bytes(take(&mut rest)?));
        let check = RootCheck(take(&mut rest)?);
        let [kind, _, _] = take(&mut rest)?;
        let root = RootHeader::decode(kind, rest).ok_or(KeyringError::UnknownFormat)?;
        Ok(Self { generation, check, root })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], KeyringError> {
    let (head, tail) = rest.split_first_chunk().ok_or(KeyringError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

fn aad(clear: &[u8]) -> Canonical {
    Canonical::new("strongroom/keyring").bytes(clear)
}

fn read(path: &Path) -> Result<Vec<u8>, KeyringError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(KeyringError::Unreadable)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(KeyringError::Unreadable)?;
    if bytes.len() as u64 > MAX_FILE { Err(KeyringError::TooLarge) } else { Ok(bytes) }
}

/// Writes beside, flushes, renames over, flushes the folder: a crash leaves the old file or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _left_by_a_crash_or_absent => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_folder_of(path)
}

#[cfg(test)]
mod tests;
