//! Where a keyring lies: its file, and the registered copies of it. INVARIANT: `install` has answered well only when every
//! place holds this very generation, fsynced and read back, and what the copy read back unwraps is what this keyring wrapped.

use std::path::{Path, PathBuf};

use super::{Keyring, KeyringError, peek};
use crate::crypto::entropy::Entropy;
use crate::crypto::envelope::{Dek, unwrap, wrap};
use crate::crypto::slot::{DekUse, WrapSlot};
use crate::domain::fault::{Fault, planted};
use crate::domain::id::{BadName, DekId, Generation, PolicyVersion, RecordId, SubjectId, TenantId};
use crate::domain::time::Timestamp;

/// The keyring's file and its registered copies.
#[derive(Clone, Default, Debug)]
pub struct Places {
    /// `None`: the keyring lives in memory alone, and stays as it is.
    pub file: Option<PathBuf>,
    /// Better on other devices, and never beside a backup of the database.
    pub copies: Vec<PathBuf>,
}

/// One registered copy, as it lies there.
#[derive(Debug)]
pub struct CopyState {
    pub path: PathBuf,
    /// `None`: it is not there, or cannot be read.
    pub generation: Option<Generation>,
}

#[derive(Debug, thiserror::Error)]
#[error("the keyring's copy at {}: {why}", path.display())]
pub struct NotInPlace {
    pub path: PathBuf,
    #[source]
    pub why: Why,
}

#[derive(Debug, thiserror::Error)]
pub enum Why {
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error("what was read back is not what was written")]
    NotTheSame,
    #[error("no file for the keyring is configured")]
    NoFile,
    #[error(
        "it is of generation {copy}, newer than the keyring's generation {keyring}: the keyring is an old one; bring the copy \
         back in its place"
    )]
    Newer { copy: Generation, keyring: Generation },
}

impl Places {
    /// Writes the keyring to its file, then to every copy, and reads each back.
    pub fn install(&self, keyring: &Keyring, entropy: &dyn Entropy) -> Result<(), NotInPlace> {
        let file = self.file.as_ref().ok_or(NotInPlace { path: PathBuf::new(), why: Why::NoFile })?;
        let copies = if planted(Fault::CopiesSkipped) { &[][..] } else { &self.copies };
        std::iter::once(file).chain(copies).try_for_each(|path| put(keyring, path, entropy))
    }

    /// Brings every copy up to this generation. Answers those that could not be, each with why.
    ///
    /// Errors: a copy is newer than the keyring, which therefore must not be used.
    pub fn settle(&self, keyring: &Keyring, entropy: &dyn Entropy) -> Result<Vec<NotInPlace>, NotInPlace> {
        let mut behind = Vec::new();
        for path in &self.copies {
            if let Ok(copy) = peek(path).map(|header| header.generation)
                && copy > keyring.generation()
            {
                let why = Why::Newer { copy, keyring: keyring.generation() };
                return Err(NotInPlace { path: path.clone(), why });
            }
            if !keyring.read_back(path).is_ok_and(|copy| copy.is_the_same_as(keyring)) {
                behind.extend(put(keyring, path, entropy).err());
            }
        }
        Ok(behind)
    }

    /// Every copy as it lies there now.
    pub fn copy_states(&self) -> Vec<CopyState> {
        let state = |path: &PathBuf| CopyState {
            path: path.clone(),
            generation: peek(path).ok().map(|header| header.generation),
        };
        self.copies.iter().map(state).collect()
    }
}

fn put(keyring: &Keyring, path: &Path, entropy: &dyn Entropy) -> Result<(), NotInPlace> {
    let failed = |why| NotInPlace { path: path.to_owned(), why };
    keyring.save(path, entropy).map_err(|error| failed(error.into()))?;
    let back = keyring.read_back(path).map_err(|error| failed(error.into()))?;
    let whole = back.is_the_same_as(keyring) && round_trips(keyring, &back, entropy);
    if whole { Ok(()) } else { Err(failed(Why::NotTheSame)) }
}

/// The canary: a key wrapped under each epoch in memory is unwrapped by the one read back.
fn round_trips(keyring: &Keyring, back: &Keyring, entropy: &dyn Entropy) -> bool {
    let Ok(tenant) = "canary".parse().map_err(|_: BadName| ()) else { return false };
    let ours = keyring.prepared().into_iter().chain(keyring.epochs());
    let theirs = back.prepared().into_iter().chain(back.epochs());
    ours.zip(theirs).all(|(ours, theirs)| {
        let tenant: &TenantId = &tenant;
        let slot = WrapSlot {
            epoch: ours.number(),
            dek: DekId(0),
            tenant,
            record: RecordId(0),
            subject: SubjectId(0),
            dek_use: DekUse::Subject,
            class: None,
            policy_version: PolicyVersion([0; 32]),
            stored_at: Timestamp(0),
        };
        let key = Dek::generate(entropy);
        let unwrapped = wrap(ours, &slot, &key, entropy).and_then(|wrapped| unwrap(theirs, &slot, &wrapped));
        unwrapped.is_ok_and(|unwrapped| unwrapped.audit_tag(0) == key.audit_tag(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;
    use crate::crypto::root::RootKey;

    struct Fixture {
        folder: tempfile::TempDir,
        entropy: SeededEntropy,
        keyring: Keyring,
        places: Places,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let entropy = SeededEntropy::new(1);
            let keyring = Keyring::create(&RootKey::generate(&entropy), Timestamp(0), &entropy);
            let at = |name: &str| folder.path().join(name);
            let places = Places { file: Some(at("keyring")), copies: vec![at("a"), at("b")] };
            Self { folder, entropy, keyring, places }
        }
    }

    #[test]
    fn every_place_holds_the_generation_or_the_place_that_does_not_is_named() {
        let Fixture { folder, entropy, keyring, mut places } = Fixture::new();
        let next = keyring.with_prepared(Timestamp(1), &entropy);
        places.install(&next, &entropy).unwrap();
        for name in ["keyring", "a", "b"] {
            assert!(next.read_back(&folder.path().join(name)).unwrap().is_the_same_as(&next), "{name}");
        }
        places.copies.push(folder.path().join("no such folder/c"));
        let refused = places.install(&next, &entropy).unwrap_err();
        assert!(refused.to_string().contains("no such folder/c"), "{refused}");
        assert!(Places::default().install(&next, &entropy).is_err());
    }

    #[test]
    fn a_copy_that_is_behind_missing_or_damaged_is_brought_up_and_a_newer_one_refuses_the_keyring() {
        let Fixture { folder, entropy, keyring, places } = Fixture::new();
        let next = keyring.with_prepared(Timestamp(1), &entropy);
        keyring.save(&places.copies[0], &entropy).unwrap();
        assert_eq!(places.settle(&next, &entropy).unwrap().len(), 0);
        assert!(places.copy_states().iter().all(|copy| copy.generation == Some(next.generation())));
        std::fs::write(&places.copies[1], b"SRKR damaged").unwrap();
        assert_eq!(places.settle(&next, &entropy).unwrap().len(), 0);
        assert!(next.read_back(&places.copies[1]).unwrap().is_the_same_as(&next));
        let refused = places.settle(&keyring, &entropy).unwrap_err();
        assert!(matches!(refused.why, Why::Newer { .. }), "{refused}");
        let gone = Places { copies: vec![folder.path().join("unplugged/keyring")], ..places };
        assert_eq!(gone.settle(&next, &entropy).unwrap().len(), 1);
        assert_eq!(gone.copy_states()[0].generation, None);
    }

    #[test]
    fn a_copy_with_another_key_under_the_same_numbers_does_not_pass() {
        let Fixture { folder, entropy, keyring, .. } = Fixture::new();
        let (one, other) =
            (keyring.with_new_epoch(Timestamp(1), &entropy), keyring.with_new_epoch(Timestamp(1), &entropy));
        other.save(&folder.path().join("a"), &entropy).unwrap();
        let back = one.read_back(&folder.path().join("a")).unwrap();
        assert!(!back.is_the_same_as(&one) && !round_trips(&one, &back, &entropy));
        assert!(back.is_the_same_as(&other) && round_trips(&other, &back, &entropy));
    }
}
