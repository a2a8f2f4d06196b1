//! The keyring: every epoch that is still needed, in one small file sealed under the root key. INVARIANT: a keyring always
//! has an active epoch, a keyring in memory never changes (each change is the next generation), and the file on disk is at
//! every instant one whole generation, authentic to its last byte.

pub mod places;

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
#[derive(Clone)]
pub struct EpochKeys {
    facts: EpochFacts,
    secrets: Arc<Secrets>,
}

/// What is known of an epoch beside its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochFacts {
    pub number: Epoch,
    pub created_at: Timestamp,
    /// Since when it wraps what is new; `None`: it is prepared and wraps nothing yet.
    pub active_since: Option<Timestamp>,
}

struct Secrets {
    key: Key,
    wrap: Key,
    mac: Key,
    index: Key,
    idempotency: Key,
    audit: Key,
    page: Key,
    ledger: Key,
}

pub struct Keyring {
    generation: Generation,
    seal: Arc<RootSeal>,
    signer: Arc<Signer>,
    /// The next epoch, on its way to every copy of the keyring.
    prepared: Option<EpochKeys>,
    active: EpochKeys,
    /// Newest first.
    older: Vec<EpochKeys>,
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
        let active = EpochKeys::generate(Epoch(1), now, entropy).activated(now);
        let (seal, signer) = (Arc::new(RootSeal::of(root)), Arc::new(Signer::generate(entropy)));
        Self { generation: Generation(1), seal, signer, prepared: None, active, older: Vec::new() }
    }

    /// The next generation: a fresh epoch above all present ones, which wraps nothing before `promoted`. One that was prepared
    /// before goes.
    pub fn with_prepared(&self, now: Timestamp, entropy: &dyn Entropy) -> Self {
        let number = Epoch(self.active.number().0.saturating_add(1));
        Self { prepared: Some(EpochKeys::generate(number, now, entropy)), ..self.next() }
    }

    /// The next generation: the prepared epoch is the active one; `None` where none is prepared.
    ///
    /// Nothing may be wrapped under it before this generation was saved, or a crash would lose what it wraps.
    pub fn promoted(&self, now: Timestamp) -> Option<Self> {
        let active = self.prepared.clone()?.activated(now);
        Some(Self { prepared: None, older: self.epochs().cloned().collect(), active, ..self.next() })
    }

    /// The next generation with a fresh active epoch: both steps at once, for keyrings that have no copies.
    pub fn with_new_epoch(&self, now: Timestamp, entropy: &dyn Entropy) -> Self {
        let prepared = self.with_prepared(now, entropy);
        prepared.promoted(now).map(|next| Self { generation: prepared.generation, ..next }).unwrap_or(prepared)
    }

    /// The next generation without one of the older epochs; `None` where there is no such.
    pub fn without(&self, number: Epoch) -> Option<Self> {
        let older: Vec<_> = self.older.iter().filter(|epoch| epoch.number() != number).cloned().collect();
        (older.len() < self.older.len()).then(|| Self { older, ..self.next() })
    }

    /// The next generation: the same epochs, for `root` to seal from now on.
    pub fn with_root(&self, root: &RootKey) -> Self {
        Self { seal: Arc::new(RootSeal::of(root)), ..self.next() }
    }

    /// Whether this generation is sealed under `root` already.
    pub fn is_sealed_under(&self, root: &RootKey) -> bool {
        self.seal.check.0.ct_eq(&root.check().0).into()
    }

    /// What the file says of its root.
    pub fn root_header(&self) -> &RootHeader {
        &self.seal.header
    }

    /// The same, as a generation of its own.
    fn next(&self) -> Self {
        Self {
            generation: Generation(self.generation.0.saturating_add(1)),
            seal: Arc::clone(&self.seal),
            signer: Arc::clone(&self.signer),
            prepared: self.prepared.clone(),
            active: self.active.clone(),
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
        self.epochs().find(|epoch| epoch.number() == number)
    }

    /// Newest first; the first is the active one. A prepared epoch is none of them.
    pub fn epochs(&self) -> impl Iterator<Item = &EpochKeys> {
        std::iter::once(&self.active).chain(&self.older)
    }

    pub fn prepared(&self) -> Option<&EpochKeys> {
        self.prepared.as_ref()
    }

    /// Whether the epoch is over: no key of it is left, and none will ever be again.
    pub fn has_destroyed(&self, number: Epoch) -> bool {
        (1..self.active.number().0).contains(&number.0) && self.epoch(number).is_none()
    }

    /// Every key that lives as long as this keyring, by name: what nobody must find in the memory of a process.
    pub(super) fn held(&self) -> Vec<(String, &Key)> {
        let own = [("the file's seal", &self.seal.key), ("the signer's seed", self.signer.seed())];
        let own = own.map(|(name, key)| (name.to_owned(), key));
        own.into_iter().chain(self.prepared.iter().chain(self.epochs()).flat_map(EpochKeys::held)).collect()
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
        let seal = Arc::new(RootSeal::of(root));
        let body = aead::open(&seal.key, aad(clear).as_bytes(), sealed).map_err(|_| KeyringError::NotAuthentic)?;
        Self::decode_body(&body, parsed.generation, seal)
    }

    /// Reads a file back that this generation, or another of the same root, was saved to. Errors: as of `load`.
    pub fn read_back(&self, path: &Path) -> Result<Self, KeyringError> {
        let bytes = read(path)?;
        let (clear, sealed) = Clear::split(&bytes)?;
        let parsed = Clear::decode(clear)?;
        if !bool::from(parsed.check.0.ct_eq(&self.seal.check.0)) {
            return Err(KeyringError::WrongRoot);
        }
        let body = aead::open(&self.seal.key, aad(clear).as_bytes(), sealed).map_err(|_| KeyringError::NotAuthentic)?;
        Self::decode_body(&body, parsed.generation, Arc::clone(&self.seal))
    }

    /// Whether the other is the same generation to the last key.
    pub fn is_the_same_as(&self, other: &Self) -> bool {
        self.generation == other.generation && bool::from(self.encode_body().as_slice().ct_eq(&other.encode_body()))
    }

    fn encode_body(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(SEED + EPOCH * (2 + self.older.len())));
        body.extend_from_slice(self.signer.seed().expose());
        for EpochKeys { facts, secrets } in self.prepared.iter().chain(self.epochs()) {
            body.extend_from_slice(&facts.number.0.to_be_bytes());
            for at in [Some(facts.created_at), facts.active_since] {
                body.extend_from_slice(&at.map_or(NEVER, |at| at.0).to_be_bytes());
            }
            body.extend_from_slice(secrets.key.expose());
        }
        body
    }

    fn decode_body(body: &[u8], generation: Generation, seal: Arc<RootSeal>) -> Result<Self, KeyringError> {
        let (seed, entries) = body.split_first_chunk::<SEED>().ok_or(KeyringError::Malformed)?;
        let signer = Arc::new(Signer::from_seed(Key::filled(|bytes| bytes.copy_from_slice(seed))));
        let (entries, rest) = entries.as_chunks::<EPOCH>();
        let mut epochs = entries.iter().map(decode_epoch).collect::<Option<Vec<_>>>().ok_or(KeyringError::Malformed)?;
        let newest_first = epochs.is_sorted_by(|a, b| a.number() > b.number());
        let is_prepared = epochs.first().is_some_and(|epoch| epoch.facts.active_since.is_none());
        let prepared = is_prepared.then(|| epochs.remove(0));
        let all_were_active = epochs.iter().all(|epoch| epoch.facts.active_since.is_some());
        if !rest.is_empty() || !newest_first || !all_were_active || epochs.is_empty() {
            return Err(KeyringError::Malformed);
        }
        let active = epochs.remove(0);
        Ok(Self { generation, seal, signer, prepared, active, older: epochs })
    }
}

/// What the file at `path` says of itself: how to make its root key, and its generation.
pub fn peek(path: &Path) -> Result<KeyringHeader, KeyringError> {
    let bytes = read(path)?;
    let clear = Clear::decode(Clear::split(&bytes)?.0)?;
    Ok(KeyringHeader { generation: clear.generation, root: clear.root })
}

impl EpochKeys {
    fn generate(number: Epoch, now: Timestamp, entropy: &dyn Entropy) -> Self {
        let facts = EpochFacts { number, created_at: now, active_since: None };
        Self { facts, secrets: Arc::new(Secrets::of(Key::generate(entropy))) }
    }

    fn activated(self, now: Timestamp) -> Self {
        Self { facts: EpochFacts { active_since: Some(now), ..self.facts }, ..self }
    }

    fn held(&self) -> Vec<(String, &Key)> {
        let Secrets { key, wrap, mac, index, idempotency, audit, page, ledger } = &*self.secrets;
        let keys = [key, wrap, mac, index, idempotency, audit, page, ledger];
        let uses = ["own", "wrap", "mac", "index", "idempotency", "audit", "page", "ledger"];
        let number = self.facts.number.0;
        keys.into_iter().zip(uses).map(|(key, use_)| (format!("epoch {number}, {use_} key"), key)).collect()
    }

    pub fn facts(&self) -> &EpochFacts {
        &self.facts
    }

    pub fn number(&self) -> Epoch {
        self.facts.number
    }

    pub fn created_at(&self) -> Timestamp {
        self.facts.created_at
    }

    pub(crate) fn wrap_key(&self) -> &Key {
        &self.secrets.wrap
    }

    pub(crate) fn mac_key(&self) -> &Key {
        &self.secrets.mac
    }

    pub(crate) fn index_key(&self) -> &Key {
        &self.secrets.index
    }

    pub(crate) fn idempotency_key(&self) -> &Key {
        &self.secrets.idempotency
    }

    pub(crate) fn audit_key(&self) -> &Key {
        &self.secrets.audit
    }

    pub(crate) fn page_key(&self) -> &Key {
        &self.secrets.page
    }

    pub(crate) fn ledger_key(&self) -> &Key {
        &self.secrets.ledger
    }
}

impl Secrets {
    fn of(key: Key) -> Self {
        Self {
            wrap: key.derive("strongroom/epoch/wrap"),
            mac: key.derive("strongroom/epoch/mac"),
            index: key.derive("strongroom/epoch/index"),
            idempotency: key.derive("strongroom/epoch/idempotency"),
            audit: key.derive("strongroom/epoch/audit"),
            page: key.derive("strongroom/epoch/page"),
            ledger: key.derive("strongroom/epoch/ledger"),
            key,
        }
    }
}

/// The signer's seed, before the epochs.
const SEED: usize = 32;
/// One epoch in the file: number (4); created at, active since (8 each); key (32).
const EPOCH: usize = 52;
/// In place of an instant that there is none of.
const NEVER: i64 = i64::MIN;

fn decode_epoch(entry: &[u8; EPOCH]) -> Option<EpochKeys> {
    let (number, rest) = entry.split_first_chunk()?;
    let (times, key) = rest.split_first_chunk::<16>()?;
    let key: &[u8; 32] = key.try_into().ok()?;
    let key = Key::filled(|bytes| bytes.copy_from_slice(key));
    let (times, _) = times.as_chunks::<8>();
    let mut times = times.iter().map(|at| Some(i64::from_be_bytes(*at)).filter(|at| *at != NEVER).map(Timestamp));
    let facts = EpochFacts {
        number: Epoch(u32::from_be_bytes(*number)),
        created_at: times.next()??,
        active_since: times.next()?,
    };
    Some(EpochKeys { facts, secrets: Arc::new(Secrets::of(key)) })
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
