//! Where the root key comes from: one trait, one file a source. INVARIANT: a source that others could read or replace gives no
//! root key, an error names the source's role and never its contents, and whatever waits for a network or a device gives up
//! after `PATIENCE`.
//!
//! ```text
//! passphrase, key file, credential   the source holds the key, or what the key is stretched from
//! transit, PKCS#11, AWS KMS          a random key is made here once and wrapped over there; the wrapped key stands in the
//!                                    keyring's clear header, and unlocking has it unwrapped again
//! shares                             the key is split among people once, and lies nowhere; unlocking gathers enough of them
//! ```
//! What a source needs to find its key again is the `RootHeader`: it stands in the clear in the keyring file and is authenticated
//! with it, so nothing in it is believed before the keyring has opened.

mod aws_kms;
mod file;
mod outside;
mod pkcs11;
pub mod shares;
mod transit;

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::crypto::entropy::Entropy;
use crate::crypto::key::{Key, debug_by_name};
use shares::{Share, ShareSet};

pub use aws_kms::AwsKms;
pub use file::{MIN_PASSPHRASE, mint_key_file, mint_passphrase_file, same_device, write_secret};
pub(crate) use file::{OWNER_ONLY, read_owner_only, sync_folder_of};
pub use outside::{Address, BadAddress, PATIENCE, Trouble};
pub use pkcs11::Pkcs11;
pub use transit::Transit;

/// The key above all others; opens the keyring and nothing else. It knows how it was made, so that the keyring can say so.
pub struct RootKey {
    key: Key,
    header: RootHeader,
}

debug_by_name!(RootKey, Fresh);

/// Tells a wrong root key from a damaged keyring; reveals nothing that would help to find the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RootCheck(pub [u8; 16]);

/// One place that a root key comes from. May wait for a network or a device; may be called from any thread.
pub trait Source {
    /// Two words for errors and the status.
    fn kind(&self) -> &'static str;

    /// A root key for a new keyring, with the header that leads to it again. `cost` is for passphrases.
    fn fresh(&self, cost: Argon2Cost, entropy: &dyn Entropy) -> Result<Fresh, RootError>;

    /// The root key as `header` says.
    fn unlock(&self, header: &RootHeader) -> Result<Key, RootError>;

    /// The file on this machine that gives the key away, if there is one.
    fn path(&self) -> Option<PathBuf> {
        None
    }

    /// Makes what the source needs and lacks, where that is ours to make; answers whether anything was made.
    fn mint(&self, _entropy: &dyn Entropy) -> Result<bool, RootError> {
        Ok(false)
    }
}

/// A root key that was just made.
pub struct Fresh {
    pub root: RootKey,
    /// For people to keep; empty unless the source is shares.
    pub shares: Vec<Share>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RootSource {
    PassphraseFile {
        path: PathBuf,
    },
    KeyFile {
        path: PathBuf,
    },
    /// A systemd credential by its name: what a key file would hold.
    Credential {
        name: CredentialName,
    },
    Transit(Transit),
    Pkcs11(Pkcs11),
    AwsKms(AwsKms),
    Shares(Split),
}

/// A systemd credential's name: one plain file name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialName(String);

impl std::str::FromStr for CredentialName {
    type Err = BadCredentialName;

    fn from_str(raw: &str) -> Result<Self, BadCredentialName> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_one = (1..=255).contains(&raw.len()) && raw.bytes().all(plain) && !raw.starts_with('.');
        if is_one { Ok(Self(raw.to_owned())) } else { Err(BadCredentialName) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is no credential's name: 1 to 255 characters of A-Z, a-z, 0-9, '.', '-' and '_', not starting with '.'")]
pub struct BadCredentialName;

/// Into how many shares the root key is split, and how many of them make it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Split {
    shares: u8,
    threshold: u8,
}

impl Split {
    pub const MOST: u8 = 32;

    pub fn new(shares: i64, threshold: i64) -> Result<Self, BadSplit> {
        if !(2..=i64::from(Self::MOST)).contains(&shares) || !(2..=shares).contains(&threshold) {
            return Err(BadSplit);
        }
        let small = |number: i64| u8::try_from(number).map_err(|_| BadSplit);
        Ok(Self { shares: small(shares)?, threshold: small(threshold)? })
    }

    pub fn shares(self) -> u8 {
        self.shares
    }

    pub fn threshold(self) -> u8 {
        self.threshold
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is no way to split a key: 2 to 32 shares, and a threshold from 2 to that number")]
pub struct BadSplit;

/// How a root key is found again. Stands in the keyring's clear header and is authenticated with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RootHeader {
    Passphrase {
        cost: Argon2Cost,
        salt: [u8; 16],
    },
    /// The key as it is, in a file or a credential.
    KeyFile,
    Wrapped(Wrapped),
    Shares(ShareSet),
}

/// A root key that only an outside service can unwrap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrapped {
    pub by: Wrapper,
    /// What the service calls the key that wraps, at most 255 bytes.
    pub key: String,
    /// The service's own form, at most 4096 bytes; it tells the wrapping key's version or the mechanism where there is one.
    pub blob: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrapper {
    Transit,
    Pkcs11,
    AwsKms,
}

impl Wrapper {
    const fn role(self) -> &'static str {
        match self {
            Self::Transit => transit::ROLE,
            Self::Pkcs11 => pkcs11::ROLE,
            Self::AwsKms => aws_kms::ROLE,
        }
    }
}

/// Argon2id's cost (RFC 9106).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Argon2Cost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl Argon2Cost {
    /// RFC 9106's second recommendation, with one lane: 64 MiB, three passes.
    pub const STANDARD: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };

    /// SECURITY: the cost is read from a header before anything is authenticated; whoever forges one must not be able to
    /// take all memory or stop the start for hours.
    const MOST: Self = Self { memory_kib: 1024 * 1024, passes: 16, lanes: 4 };
}

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("the {role} cannot be read")]
    Unreadable { role: &'static str, source: io::Error },
    #[error("the {role} cannot be written")]
    Unwritable { role: &'static str, source: io::Error },
    #[error("the {role} is not a regular file")]
    NotAFile { role: &'static str },
    #[error("the {role} belongs to neither this user nor root")]
    ForeignOwner { role: &'static str },
    #[error("the {role} is open to others than its owner: set its mode to 0600 or 0400")]
    NotOwnerOnly { role: &'static str },
    #[error("the {role} is longer than 4096 bytes")]
    TooLong { role: &'static str },
    #[error("the passphrase file is not UTF-8 text")]
    NotText,
    #[error("the passphrase is shorter than 12 characters")]
    ShortPassphrase,
    #[error("the {role} holds neither 32 raw bytes nor 64 hexadecimal digits")]
    NotAKey { role: &'static str },
    #[error("the {role} holds no single line of printable ASCII")]
    NotALine { role: &'static str },
    #[error(
        "no credentials were passed to this process: systemd sets CREDENTIALS_DIRECTORY where LoadCredential= or LoadCredentialEncrypted= names one"
    )]
    NoCredentials,
    #[error("the keyring was made with another kind of root source: a {expected}")]
    OtherSource { expected: &'static str },
    #[error("the keyring asks for an Argon2id cost that is outside our bounds")]
    Cost,
    #[error("the {role} {trouble}")]
    Outside { role: &'static str, trouble: Trouble },
    #[error("the root key is split into shares: {threshold} of its keepers bring it back with `strongroom unseal`")]
    NeedsShares { threshold: u8 },
    #[error("shares are handed out when a keyring is made or its root replaced, all of them at once")]
    SharesNotHeldBack,
    #[error("this build cannot ask AWS KMS: build it with `--features aws-kms`")]
    NotBuilt,
}

impl RootSource {
    fn source(&self) -> Box<dyn Source + '_> {
        match self {
            Self::PassphraseFile { path } => Box::new(file::Passphrase { path }),
            Self::KeyFile { path } => Box::new(file::KeyFile { path }),
            Self::Credential { name } => Box::new(file::Credential { name: &name.0 }),
            Self::Transit(transit) => Box::new(transit),
            Self::Pkcs11(pkcs11) => Box::new(pkcs11),
            Self::AwsKms(kms) => Box::new(kms),
            Self::Shares(split) => Box::new(*split),
        }
    }

    /// Two words for errors and the status.
    pub fn kind(&self) -> &'static str {
        self.source().kind()
    }

    /// The file on this machine that gives the key away, if there is one.
    pub fn path(&self) -> Option<PathBuf> {
        self.source().path()
    }

    /// Makes what the source needs and lacks, where that is ours to make; answers whether anything was made.
    pub fn mint(&self, entropy: &dyn Entropy) -> Result<bool, RootError> {
        self.source().mint(entropy)
    }

    /// A root key for a new keyring: what wraps it is asked once.
    pub fn fresh(&self, cost: Argon2Cost, entropy: &dyn Entropy) -> Result<Fresh, RootError> {
        self.source().fresh(cost, entropy)
    }

    /// The header of `fresh`, for `unlock` to follow. Shares have none without their keepers.
    pub fn fresh_header(&self, cost: Argon2Cost, entropy: &dyn Entropy) -> Result<RootHeader, RootError> {
        match self {
            Self::Shares(_) => Err(RootError::SharesNotHeldBack),
            _ => Ok(self.fresh(cost, entropy)?.root.header),
        }
    }

    /// Asks the source for the root key as `header` says. Takes about 0.2 s for a passphrase at the standard cost, and
    /// `PATIENCE` at most where someone else has to answer.
    pub fn unlock(&self, header: &RootHeader) -> Result<RootKey, RootError> {
        Ok(RootKey { key: self.source().unlock(header)?, header: header.clone() })
    }
}

/// For people: the kind, and where it is.
impl fmt::Display for RootSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PassphraseFile { path } | Self::KeyFile { path } => write!(f, "{} {}", self.kind(), path.display()),
            Self::Credential { name } => write!(f, "{} {}", self.kind(), name.0),
            Self::Transit(transit) => write!(f, "key {} of the {} {}", transit.key, self.kind(), transit.address),
            Self::Pkcs11(pkcs11) => write!(f, "key {} of the {} {}", pkcs11.key, self.kind(), pkcs11.token),
            Self::AwsKms(kms) => write!(f, "key {} of {}", kms.key_id, self.kind()),
            Self::Shares(split) => write!(f, "{} of {} shares", split.threshold, split.shares),
        }
    }
}

impl RootKey {
    /// A fresh key, as a key file would hold it.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self { key: Key::generate(entropy), header: RootHeader::KeyFile }
    }

    pub fn header(&self) -> &RootHeader {
        &self.header
    }

    pub fn check(&self) -> RootCheck {
        RootCheck(self.key.derive("strongroom/root-check").tag(&[]))
    }

    /// As `Keyring::held`.
    pub(super) fn held(&self) -> Vec<(String, &Key)> {
        vec![("the root".to_owned(), &self.key)]
    }

    /// The key that seals the keyring file.
    pub(crate) fn keyring_key(&self) -> Key {
        self.key.derive("strongroom/keyring")
    }
}

impl Fresh {
    fn of(key: Key, header: RootHeader) -> Self {
        Self { root: RootKey { key, header }, shares: Vec::new() }
    }
}

impl RootHeader {
    /// What made the root key, for errors.
    fn role(&self) -> &'static str {
        match self {
            Self::Passphrase { .. } => file::PASSPHRASE_FILE,
            Self::KeyFile => file::KEY_FILE,
            Self::Wrapped(wrapped) => wrapped.by.role(),
            Self::Shares(_) => shares::ROLE,
        }
    }

    fn other_source(&self) -> RootError {
        RootError::OtherSource { expected: self.role() }
    }

    /// The header's kind, and its body of at most 8 KiB.
    pub(crate) fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Passphrase { cost, salt } => {
                let numbers = [cost.memory_kib, cost.passes, cost.lanes].map(u32::to_be_bytes);
                (1, [numbers.as_flattened(), salt].concat())
            }
            Self::KeyFile => (2, Vec::new()),
            Self::Wrapped(Wrapped { by, key, blob }) => {
                let kind = match by {
                    Wrapper::Transit => 3,
                    Wrapper::Pkcs11 => 4,
                    Wrapper::AwsKms => 5,
                };
                let length = u8::try_from(key.len()).unwrap_or(u8::MAX);
                (kind, [&[length], key.as_bytes(), blob].concat())
            }
            Self::Shares(set) => (6, set.to_bytes()),
        }
    }

    /// Strict: what it takes, `encode` gives back to the byte.
    pub(crate) fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        match kind {
            1 => {
                let (numbers, salt) = body.split_first_chunk::<12>()?;
                let ([memory_kib, passes, lanes], []) = numbers.as_chunks::<4>() else { return None };
                let [memory_kib, passes, lanes] = [memory_kib, passes, lanes].map(|number| u32::from_be_bytes(*number));
                let cost = Argon2Cost { memory_kib, passes, lanes };
                Some(Self::Passphrase { cost, salt: salt.try_into().ok()? })
            }
            2 => body.is_empty().then_some(Self::KeyFile),
            3 => Wrapped::decode(Wrapper::Transit, body).map(Self::Wrapped),
            4 => Wrapped::decode(Wrapper::Pkcs11, body).map(Self::Wrapped),
            5 => Wrapped::decode(Wrapper::AwsKms, body).map(Self::Wrapped),
            6 => ShareSet::from_bytes(body).map(Self::Shares),
            _ => None,
        }
    }
}

impl Wrapped {
    const MOST_KEY: usize = 255;
    const MOST_BLOB: usize = 4096;

    /// Errors: what the service answered does not fit its place.
    fn new(by: Wrapper, key: &str, blob: Vec<u8>) -> Result<Self, RootError> {
        let wrapped = Self { by, key: key.to_owned(), blob };
        if wrapped.fits() { Ok(wrapped) } else { Err(outside::trouble(by.role(), Trouble::Nonsense)) }
    }

    fn decode(by: Wrapper, body: &[u8]) -> Option<Self> {
        let (length, rest) = body.split_first()?;
        let (key, blob) = rest.split_at_checked(usize::from(*length))?;
        let wrapped = Self { by, key: std::str::from_utf8(key).ok()?.to_owned(), blob: blob.to_vec() };
        wrapped.fits().then_some(wrapped)
    }

    fn fits(&self) -> bool {
        let name = (1..=Self::MOST_KEY).contains(&self.key.len()) && !self.key.contains(char::is_control);
        name && (1..=Self::MOST_BLOB).contains(&self.blob.len())
    }

    /// The blob of a header that this wrapper's key made. SECURITY: the name of the key is the configuration's, never the
    /// header's, which nobody has authenticated yet.
    fn of<'a>(header: &'a RootHeader, by: Wrapper, key: Option<&str>) -> Result<&'a [u8], RootError> {
        match header {
            RootHeader::Wrapped(wrapped) if wrapped.by == by => {
                let is_ours = key.is_none_or(|key| key == wrapped.key);
                if is_ours { Ok(&wrapped.blob) } else { Err(outside::trouble(by.role(), Trouble::OtherKey)) }
            }
            other => Err(other.other_source()),
        }
    }
}

/// The key that an outside service unwrapped.
fn unwrapped(role: &'static str, bytes: &[u8]) -> Result<Key, RootError> {
    let bytes: &[u8; 32] = bytes.try_into().map_err(|_| outside::trouble(role, Trouble::Nonsense))?;
    Ok(Key::filled(|key| key.copy_from_slice(bytes)))
}

/// Named in every wrapping that can name a purpose: what was wrapped for something else does not unwrap as a root key.
const PURPOSE: &str = "strongroom/root";

#[cfg(test)]
pub(crate) const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 16, passes: 1, lanes: 1 };

#[cfg(test)]
mod tests;
