//! Root keys that lie in files: a passphrase stretched by Argon2id, a key as it is, a systemd credential. INVARIANT: what
//! counts is the file that was opened, not its name: a regular one, ours or root's, that nobody else could read or write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{Argon2Cost, Fresh, RootError, RootHeader, Source};
use crate::crypto::entropy::{Entropy, array};
use crate::crypto::key::Key;
use crate::crypto::residue::{CIPHER, wiped};

/// Passphrases shorter than this are refused, in characters.
pub const MIN_PASSPHRASE: usize = 12;
const MAX_FILE: u64 = 4096;

pub(super) const PASSPHRASE_FILE: &str = "passphrase file";
pub(super) const KEY_FILE: &str = "key file";
const CREDENTIAL: &str = "credential";
/// Where systemd puts a service's credentials (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

pub(super) struct Passphrase<'a> {
    pub path: &'a Path,
}

impl Source for Passphrase<'_> {
    fn kind(&self) -> &'static str {
        PASSPHRASE_FILE
    }

    fn fresh(&self, cost: Argon2Cost, entropy: &dyn Entropy) -> Result<Fresh, RootError> {
        let header = RootHeader::Passphrase { cost, salt: array(entropy) };
        Ok(Fresh::of(self.unlock(&header)?, header))
    }

    fn unlock(&self, header: &RootHeader) -> Result<Key, RootError> {
        let RootHeader::Passphrase { cost, salt } = header else { return Err(header.other_source()) };
        stretch(passphrase(&read_owner_only(self.path, PASSPHRASE_FILE, OWNER_ONLY)?)?, *cost, salt)
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.path.to_owned())
    }

    fn mint(&self, entropy: &dyn Entropy) -> Result<bool, RootError> {
        unless_there(self.path, || mint_passphrase_file(self.path, entropy))
    }
}

pub(super) struct KeyFile<'a> {
    pub path: &'a Path,
}

impl Source for KeyFile<'_> {
    fn kind(&self) -> &'static str {
        KEY_FILE
    }

    fn fresh(&self, _cost: Argon2Cost, _entropy: &dyn Entropy) -> Result<Fresh, RootError> {
        Ok(Fresh::of(self.unlock(&RootHeader::KeyFile)?, RootHeader::KeyFile))
    }

    fn unlock(&self, header: &RootHeader) -> Result<Key, RootError> {
        let RootHeader::KeyFile = header else { return Err(header.other_source()) };
        parse_key(&read_owner_only(self.path, KEY_FILE, OWNER_ONLY)?, KEY_FILE)
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.path.to_owned())
    }

    fn mint(&self, entropy: &dyn Entropy) -> Result<bool, RootError> {
        unless_there(self.path, || mint_key_file(self.path, entropy))
    }
}

/// What a key file would hold, so that a key file can become a credential without another keyring.
pub(super) struct Credential<'a> {
    pub name: &'a str,
}

impl Source for Credential<'_> {
    fn kind(&self) -> &'static str {
        CREDENTIAL
    }

    fn fresh(&self, _cost: Argon2Cost, _entropy: &dyn Entropy) -> Result<Fresh, RootError> {
        Ok(Fresh::of(self.unlock(&RootHeader::KeyFile)?, RootHeader::KeyFile))
    }

    fn unlock(&self, header: &RootHeader) -> Result<Key, RootError> {
        let RootHeader::KeyFile = header else { return Err(header.other_source()) };
        let path = self.path().ok_or(RootError::NoCredentials)?;
        parse_key(&read_owner_only(&path, CREDENTIAL, CREDENTIAL_MODE)?, CREDENTIAL)
    }

    fn path(&self) -> Option<PathBuf> {
        std::env::var_os(CREDENTIALS).map(|folder| Path::new(&folder).join(self.name))
    }
}

fn unless_there(path: &Path, mint: impl FnOnce() -> Result<(), RootError>) -> Result<bool, RootError> {
    if path.symlink_metadata().is_ok() { Ok(false) } else { mint().map(|()| true) }
}

/// Writes a new key file: 64 hexadecimal digits, mode 0600. Never overwrites.
pub fn mint_key_file(path: &Path, entropy: &dyn Entropy) -> Result<(), RootError> {
    let digits = wiped::<CIPHER, _>(|| Zeroizing::new(hex::encode(Key::generate(entropy).expose())));
    write_secret(path, &digits).map_err(|source| RootError::Unwritable { role: KEY_FILE, source })
}

/// Writes a new passphrase file: 160 random bits as 40 characters, mode 0600. Never overwrites.
pub fn mint_passphrase_file(path: &Path, entropy: &dyn Entropy) -> Result<(), RootError> {
    let random = Zeroizing::new(array::<20>(entropy));
    let phrase = Zeroizing::new(hex::encode(*random));
    write_secret(path, &phrase).map_err(|source| RootError::Unwritable { role: PASSPHRASE_FILE, source })
}

/// Whether both paths lie on one device: whoever takes that disk takes both.
pub fn same_device(a: &Path, b: &Path) -> io::Result<bool> {
    Ok(fs::metadata(a)?.dev() == fs::metadata(b)?.dev())
}

/// Creates a file of mode 0600 with one line, and makes it and its name durable. Never overwrites.
pub fn write_secret(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(line.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    sync_folder_of(path)
}

pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// The permissions that a secret's file must not have.
pub(crate) const OWNER_ONLY: u32 = 0o077;
/// systemd lets a service read its credential by an access list, whose mask shows as the group's permission to read.
const CREDENTIAL_MODE: u32 = 0o037;

/// A secret that a library takes as text: one line of printable ASCII.
pub(super) fn read_line(path: &Path, role: &'static str) -> Result<Zeroizing<String>, RootError> {
    let bytes = read_owner_only(path, role, OWNER_ONLY)?;
    let line = without_newline(&bytes);
    let text =
        std::str::from_utf8(line).ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()));
    text.map(|text| Zeroizing::new(text.to_owned())).ok_or(RootError::NotALine { role })
}

/// Symbolic links are followed (mounted secrets are links); what counts is the file that was opened, so nobody can swap it
/// between the check and the read.
pub(crate) fn read_owner_only(
    path: &Path,
    role: &'static str,
    forbidden: u32,
) -> Result<Zeroizing<Vec<u8>>, RootError> {
    let unreadable = |source| RootError::Unreadable { role, source };
    // Without NONBLOCK, opening a pipe that nobody writes would hang the start.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let facts = file.metadata().map_err(unreadable)?;
    if !facts.is_file() {
        return Err(RootError::NotAFile { role });
    }
    if facts.uid() != rustix::process::geteuid().as_raw() && facts.uid() != 0 {
        return Err(RootError::ForeignOwner { role });
    }
    if facts.mode() & forbidden != 0 {
        return Err(RootError::NotOwnerOnly { role });
    }
    if facts.len() > MAX_FILE {
        return Err(RootError::TooLong { role });
    }
    // Room for all of it from the start: a growing vector would leave unwiped copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_FILE).unwrap_or(usize::MAX)));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn without_newline(bytes: &[u8]) -> &[u8] {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn passphrase(bytes: &[u8]) -> Result<&[u8], RootError> {
    let phrase = without_newline(bytes);
    let characters = std::str::from_utf8(phrase).map_err(|_| RootError::NotText)?.chars().count();
    if characters < MIN_PASSPHRASE { Err(RootError::ShortPassphrase) } else { Ok(phrase) }
}

fn parse_key(bytes: &[u8], role: &'static str) -> Result<Key, RootError> {
    if bytes.len() == 32 {
        return Ok(Key::filled(|key| key.copy_from_slice(bytes)));
    }
    let mut parsed = Err(RootError::NotAKey { role });
    let digits = without_newline(bytes);
    let key = Key::filled(|key| {
        parsed = wiped::<CIPHER, _>(|| hex::decode_to_slice(digits, key)).map_err(|_| RootError::NotAKey { role })
    });
    parsed.map(|()| key)
}

fn stretch(passphrase: &[u8], cost: Argon2Cost, salt: &[u8; 16]) -> Result<Key, RootError> {
    let most = Argon2Cost::MOST;
    if cost.memory_kib > most.memory_kib || cost.passes > most.passes || cost.lanes > most.lanes {
        return Err(RootError::Cost);
    }
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None).map_err(|_| RootError::Cost)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut stretched = Err(argon2::Error::OutOfMemory);
    let key = Key::filled(|key| stretched = wiped::<CIPHER, _>(|| argon2.hash_password_into(passphrase, salt, key)));
    stretched.map(|()| key).map_err(|_| RootError::Cost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;
    use crate::crypto::root::{CHEAP, RootKey, RootSource};
    use std::os::unix::fs::{PermissionsExt, symlink};

    const HEADER: RootHeader = RootHeader::Passphrase { cost: CHEAP, salt: [1; 16] };

    fn written(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn unlock_passphrase(path: PathBuf) -> Result<RootKey, RootError> {
        RootSource::PassphraseFile { path }.unlock(&HEADER)
    }

    fn unlock_key(path: PathBuf) -> Result<RootKey, RootError> {
        RootSource::KeyFile { path }.unlock(&RootHeader::KeyFile)
    }

    #[test]
    fn argon2id_agrees_with_rfc_9106() {
        let params = argon2::ParamsBuilder::new()
            .m_cost(32)
            .t_cost(3)
            .p_cost(4)
            .data(argon2::AssociatedData::new(&[4; 12]).unwrap())
            .build()
            .unwrap();
        let argon2 = Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params).unwrap();
        let mut out = [0; 32];
        argon2.hash_password_into(&[1; 32], &[2; 16], &mut out).unwrap();
        assert_eq!(hex::encode(out), "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
    }

    #[test]
    fn a_minted_file_unlocks_to_the_same_key_every_time_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let entropy = SeededEntropy::new(1);
        let (key, phrase) = (folder.path().join("root.key"), folder.path().join("root.passphrase"));
        mint_key_file(&key, &entropy).unwrap();
        mint_passphrase_file(&phrase, &entropy).unwrap();
        for path in [&key, &phrase] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(unlock_key(key.clone()).unwrap().check(), unlock_key(key.clone()).unwrap().check());
        let check = unlock_passphrase(phrase.clone()).unwrap().check();
        assert_eq!(check, unlock_passphrase(phrase.clone()).unwrap().check());
        let salted = RootHeader::Passphrase { cost: CHEAP, salt: [2; 16] };
        assert_ne!(check, RootSource::PassphraseFile { path: phrase.clone() }.unlock(&salted).unwrap().check());
        assert!(matches!(mint_key_file(&key, &entropy), Err(RootError::Unwritable { .. })));
        assert!(matches!(mint_passphrase_file(&phrase, &entropy), Err(RootError::Unwritable { .. })));
    }

    #[test]
    fn a_file_open_to_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o777] {
            let path = written(folder.path(), "secret", &[7; 32], mode);
            assert!(matches!(unlock_key(path.clone()), Err(RootError::NotOwnerOnly { role: KEY_FILE })), "{mode:o}");
            let refused = unlock_passphrase(path);
            assert!(matches!(refused, Err(RootError::NotOwnerOnly { role: PASSPHRASE_FILE })), "{mode:o}");
        }
        for mode in [0o400, 0o600] {
            unlock_key(written(folder.path(), "ours", &[7; 32], mode)).unwrap();
        }
    }

    #[test]
    fn only_a_regular_file_is_read_whatever_name_leads_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let device = folder.path().join("device");
        symlink("/dev/zero", &device).unwrap();
        for odd in [fifo, device, folder.path().to_owned()] {
            assert!(matches!(unlock_key(odd), Err(RootError::NotAFile { .. })));
        }
        let (open, link) = (written(folder.path(), "open", &[7; 32], 0o644), folder.path().join("link"));
        symlink(open, &link).unwrap();
        assert!(matches!(unlock_key(link), Err(RootError::NotOwnerOnly { .. })));
        let (ours, link) = (written(folder.path(), "ours", &[7; 32], 0o600), folder.path().join("mounted"));
        symlink(ours, &link).unwrap();
        unlock_key(link).unwrap();
        assert!(matches!(unlock_key(folder.path().join("none")), Err(RootError::Unreadable { .. })));
    }

    #[test]
    fn a_key_file_is_32_bytes_or_64_digits() {
        let folder = tempfile::tempdir().unwrap();
        let unlock = |bytes: &[u8]| unlock_key(written(folder.path(), "key", bytes, 0o600));
        let raw = unlock(&[0xab; 32]).unwrap().check();
        for same in ["ab".repeat(32), "AB".repeat(32), "ab".repeat(32) + "\n", "ab".repeat(32) + "\r\n"] {
            assert_eq!(unlock(same.as_bytes()).unwrap().check(), raw);
        }
        let digits = "ab".repeat(32);
        let bad = [vec![], vec![1; 31], vec![1; 33], vec![b'x'; 64], digits.as_bytes()[1..].to_vec(), vec![b'a'; 66]];
        for bytes in bad {
            assert!(matches!(unlock(&bytes), Err(RootError::NotAKey { role: KEY_FILE })), "{} bytes", bytes.len());
        }
        assert!(matches!(unlock(&[b'a'; 4097]), Err(RootError::TooLong { .. })));
    }

    #[test]
    fn a_passphrase_has_12_characters_and_no_newline() {
        let folder = tempfile::tempdir().unwrap();
        let unlock = |bytes: &[u8]| unlock_passphrase(written(folder.path(), "phrase", bytes, 0o600));
        let check = unlock(b"twelve chars").unwrap().check();
        assert_eq!(check, unlock(b"twelve chars\n").unwrap().check());
        assert_eq!(check, unlock(b"twelve chars\r\n").unwrap().check());
        assert_ne!(check, unlock(b"twelve chars\n\n").unwrap().check());
        assert!(matches!(unlock("é".repeat(11).as_bytes()), Err(RootError::ShortPassphrase)));
        assert!(matches!(unlock(b"eleven char\n"), Err(RootError::ShortPassphrase)));
        assert!(matches!(unlock(&[0xff; 20]), Err(RootError::NotText)));
    }

    #[test]
    fn a_source_of_the_other_kind_and_a_cost_out_of_bounds_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), "secret", &[b'a'; 64], 0o600);
        let crossed = RootSource::KeyFile { path: path.clone() }.unlock(&HEADER);
        assert!(matches!(crossed, Err(RootError::OtherSource { expected: PASSPHRASE_FILE })));
        let source = RootSource::PassphraseFile { path };
        assert!(matches!(source.unlock(&RootHeader::KeyFile), Err(RootError::OtherSource { expected: KEY_FILE })));
        for cost in [
            Argon2Cost { memory_kib: Argon2Cost::MOST.memory_kib + 1, ..CHEAP },
            Argon2Cost { passes: Argon2Cost::MOST.passes + 1, ..CHEAP },
            Argon2Cost { lanes: Argon2Cost::MOST.lanes + 1, memory_kib: 64, ..CHEAP },
            Argon2Cost { memory_kib: 0, ..CHEAP },
            Argon2Cost { passes: 0, ..CHEAP },
            Argon2Cost { lanes: 0, ..CHEAP },
        ] {
            let header = RootHeader::Passphrase { cost, salt: [0; 16] };
            assert!(matches!(source.unlock(&header), Err(RootError::Cost)), "{cost:?}");
        }
    }

    #[test]
    fn a_folder_shares_its_device_with_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = written(folder.path(), "file", b"", 0o600);
        assert!(same_device(folder.path(), &file).unwrap());
        assert!(!same_device(folder.path(), Path::new("/proc/self/status")).unwrap());
        assert!(same_device(folder.path(), &folder.path().join("none")).is_err());
    }
}
