//! Claims about the keyring and its file.

use super::*;
use crate::crypto::entropy::SeededEntropy;
use crate::crypto::root::{CHEAP, RootSource, Split, Wrapped, Wrapper};
use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;

struct Fixture {
    folder: tempfile::TempDir,
    entropy: SeededEntropy,
    root: RootKey,
}

impl Fixture {
    fn new() -> Self {
        let entropy = SeededEntropy::new(1);
        let root = RootKey::generate(&entropy);
        Self { folder: tempfile::tempdir().unwrap(), entropy, root }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("keyring")
    }

    fn two_epochs(&self) -> Keyring {
        Keyring::create(&self.root, Timestamp(10), &self.entropy).with_new_epoch(Timestamp(20), &self.entropy)
    }

    fn saved(&self) -> Vec<u8> {
        self.two_epochs().save(&self.path(), &self.entropy).unwrap();
        fs::read(self.path()).unwrap()
    }

    /// What loading `bytes` answers.
    fn load(&self, bytes: &[u8]) -> Result<Keyring, KeyringError> {
        let path = self.folder.path().join("altered");
        fs::write(&path, bytes).unwrap();
        Keyring::load(&path, &self.root)
    }
}

fn keys(keyring: &Keyring) -> Vec<(Epoch, Timestamp, [u8; 32])> {
    keyring.epochs().map(|epoch| (epoch.number(), epoch.created_at(), *epoch.secrets.key.expose())).collect()
}

#[test]
fn a_saved_keyring_loads_with_the_same_epochs_newest_first() {
    let fixture = Fixture::new();
    let keyring = fixture.two_epochs();
    keyring.save(&fixture.path(), &fixture.entropy).unwrap();
    let loaded = Keyring::load(&fixture.path(), &fixture.root).unwrap();
    assert_eq!(keys(&loaded), keys(&keyring));
    assert_eq!(loaded.signer().public(), keyring.signer().public());
    assert_eq!(keys(&loaded).iter().map(|(number, ..)| number.0).collect::<Vec<_>>(), [2, 1]);
    assert_eq!((loaded.active().number(), loaded.generation()), (Epoch(2), Generation(2)));
    assert_eq!(loaded.epoch(Epoch(1)).unwrap().created_at(), Timestamp(10));
    assert!(loaded.epoch(Epoch(0)).is_none() && loaded.epoch(Epoch(3)).is_none());
}

#[test]
fn the_file_is_owner_only_shows_its_header_and_no_key() {
    let fixture = Fixture::new();
    let bytes = fixture.saved();
    assert_eq!(fs::metadata(fixture.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let header = KeyringHeader { generation: Generation(2), root: RootHeader::KeyFile };
    assert_eq!(peek(&fixture.path()).unwrap(), header);
    assert_eq!(peek(&fixture.path()).unwrap().generation, Generation(2));
    for (_, _, key) in keys(&Keyring::load(&fixture.path(), &fixture.root).unwrap()) {
        assert!(bytes.windows(16).all(|window| key.windows(16).all(|part| part != window)));
    }
}

#[test]
fn saving_replaces_the_file_and_whatever_a_crash_left_beside_it() {
    let fixture = Fixture::new();
    fs::write(fixture.folder.path().join("keyring.new"), b"half").unwrap();
    fixture.saved();
    let next = Keyring::load(&fixture.path(), &fixture.root).unwrap().with_new_epoch(Timestamp(30), &fixture.entropy);
    next.save(&fixture.path(), &fixture.entropy).unwrap();
    assert_eq!(peek(&fixture.path()).unwrap().generation, Generation(3));
    assert_eq!(fs::read_dir(fixture.folder.path()).unwrap().count(), 1);
}

#[test]
fn every_flipped_bit_is_refused_and_the_generation_cannot_be_altered() {
    let fixture = Fixture::new();
    let bytes = fixture.saved();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let refused = fixture.load(&flipped).unwrap_err();
        let named = match bit / 8 {
            0..4 => matches!(refused, KeyringError::NotAKeyring),
            4 => matches!(refused, KeyringError::UnknownFormat),
            13..29 => matches!(refused, KeyringError::WrongRoot),
            // Another kind, or a length that is not this kind's, or beyond the file.
            29..32 => matches!(refused, KeyringError::UnknownFormat | KeyringError::Truncated),
            _ => matches!(refused, KeyringError::NotAuthentic),
        };
        assert!(named, "bit {bit}: {refused:?}");
    }
}

#[test]
fn every_truncation_and_any_longer_file_is_refused() {
    let fixture = Fixture::new();
    let bytes = fixture.saved();
    for length in 0..bytes.len() {
        let refused = fixture.load(&bytes[..length]).unwrap_err();
        let cut = length < CLEAR + aead::NONCE;
        let named = if cut {
            matches!(refused, KeyringError::Truncated)
        } else {
            matches!(refused, KeyringError::NotAuthentic)
        };
        assert!(named, "{length} bytes: {refused:?}");
    }
    assert!(matches!(fixture.load(&[&bytes[..], &[0]].concat()), Err(KeyringError::NotAuthentic)));
    assert!(matches!(fixture.load(&vec![0; 1024 * 1024 + 1]), Err(KeyringError::TooLarge)));
    assert!(matches!(
        Keyring::load(&fixture.folder.path().join("none"), &fixture.root),
        Err(KeyringError::Unreadable(_))
    ));
}

#[test]
fn only_the_root_that_it_is_sealed_under_opens_it() {
    let fixture = Fixture::new();
    fixture.saved();
    let other = RootKey::generate(&fixture.entropy);
    let load = |root: &RootKey| Keyring::load(&fixture.path(), root);
    assert!(matches!(load(&other), Err(KeyringError::WrongRoot)));
    let keyring = load(&fixture.root).unwrap();
    let moved = keyring.with_root(&other);
    moved.save(&fixture.path(), &fixture.entropy).unwrap();
    assert!(matches!(load(&fixture.root), Err(KeyringError::WrongRoot)));
    assert_eq!(keys(&load(&other).unwrap()), keys(&keyring));
    assert_eq!(load(&other).unwrap().generation().0, keyring.generation().0 + 1);
}

#[test]
fn the_header_leads_a_passphrase_to_the_root_key() {
    let fixture = Fixture::new();
    let source = RootSource::PassphraseFile { path: fixture.folder.path().join("passphrase") };
    assert!(source.mint(&fixture.entropy).unwrap() && !source.mint(&fixture.entropy).unwrap());
    let root = source.fresh(CHEAP, &fixture.entropy).unwrap().root;
    let keyring = Keyring::create(&root, Timestamp(10), &fixture.entropy);
    keyring.save(&fixture.path(), &fixture.entropy).unwrap();
    let again = source.unlock(&peek(&fixture.path()).unwrap().root).unwrap();
    assert_eq!(keys(&Keyring::load(&fixture.path(), &again).unwrap()), keys(&keyring));
}

#[test]
fn an_authentic_file_without_a_sound_list_of_epochs_is_refused() {
    let entry = |number: u32| [&number.to_be_bytes()[..], &[0; 48]].concat();
    let body = |entries: &[Vec<u8>]| [&[7; SEED][..], &entries.concat()].concat();
    let short = body(&[entry(1)])[1..].to_vec();
    let refused =
        [vec![], vec![7; SEED - 1], body(&[]), short, body(&[entry(1), entry(2)]), body(&[entry(2), entry(2)])];
    for body in refused {
        let decoded = Keyring::decode_body(
            &body,
            Generation(1),
            Arc::new(RootSeal::of(&RootKey::generate(&SeededEntropy::new(2)))),
        );
        assert!(matches!(decoded, Err(KeyringError::Malformed)), "{} bytes", body.len());
    }
    assert!(
        Keyring::decode_body(
            &body(&[entry(2), entry(1)]),
            Generation(1),
            Arc::new(RootSeal::of(&RootKey::generate(&SeededEntropy::new(2))))
        )
        .is_ok()
    );
}

#[test]
fn every_use_of_every_epoch_has_its_own_key() {
    let keyring = Fixture::new().two_epochs();
    let uses = |epoch: &EpochKeys| {
        let Secrets { key, wrap, mac, index, idempotency, audit, page, ledger } = &*epoch.secrets;
        [key, wrap, mac, index, idempotency, audit, page, ledger].map(|key| *key.expose())
    };
    let distinct: HashSet<[u8; 32]> = keyring.epochs().flat_map(uses).collect();
    assert_eq!(distinct.len(), 16);
}

#[test]
fn a_prepared_epoch_wraps_nothing_until_it_is_promoted() {
    let fixture = Fixture::new();
    let first = Keyring::create(&fixture.root, Timestamp(10), &fixture.entropy);
    let prepared = first.with_prepared(Timestamp(20), &fixture.entropy);
    assert_eq!((prepared.active().number(), prepared.generation()), (Epoch(1), Generation(2)));
    assert!(prepared.epoch(Epoch(2)).is_none() && prepared.prepared().is_some());
    prepared.save(&fixture.path(), &fixture.entropy).unwrap();
    let loaded = Keyring::load(&fixture.path(), &fixture.root).unwrap();
    assert!(loaded.is_the_same_as(&prepared) && !loaded.is_the_same_as(&first));
    assert!(loaded.read_back(&fixture.path()).unwrap().is_the_same_as(&prepared));
    let promoted = loaded.promoted(Timestamp(30)).unwrap();
    assert_eq!((promoted.active().number(), promoted.generation()), (Epoch(2), Generation(3)));
    assert_eq!(promoted.active().facts().active_since, Some(Timestamp(30)));
    assert_eq!(promoted.prepared().map(EpochKeys::number), None);
    assert!(promoted.promoted(Timestamp(40)).is_none());
}

#[test]
fn an_older_epoch_goes_and_the_active_one_never_does() {
    let fixture = Fixture::new();
    let keyring = fixture.two_epochs();
    assert!(keyring.without(Epoch(2)).is_none() && keyring.without(Epoch(3)).is_none());
    let gone = keyring.without(Epoch(1)).unwrap();
    assert!(gone.has_destroyed(Epoch(1)) && !gone.has_destroyed(Epoch(2)) && !gone.has_destroyed(Epoch(0)));
    assert!(!keyring.has_destroyed(Epoch(1)) && !gone.has_destroyed(Epoch(3)));
    assert_eq!(gone.epochs().count(), 1);
}

#[test]
fn debug_shows_types_only() {
    let fixture = Fixture::new();
    let keyring = fixture.two_epochs();
    assert_eq!(format!("{:?} {:?} {:?}", keyring, keyring.active(), fixture.root), "Keyring EpochKeys RootKey");
}

/// A header of every kind, with the longest and the shortest bodies.
fn headers() -> Vec<RootHeader> {
    let wrapped =
        |by, key: &str, blob: usize| RootHeader::Wrapped(Wrapped { by, key: key.to_owned(), blob: vec![7; blob] });
    let entropy = SeededEntropy::new(3);
    let split = |shares, threshold| {
        let source = RootSource::Shares(Split::new(shares, threshold).unwrap());
        source.fresh(CHEAP, &entropy).unwrap().root.header().clone()
    };
    vec![
        RootHeader::Passphrase { cost: CHEAP, salt: [5; 16] },
        RootHeader::KeyFile,
        wrapped(Wrapper::Transit, "k", 1),
        wrapped(Wrapper::Pkcs11, "roots", 61),
        wrapped(Wrapper::AwsKms, &"k".repeat(255), 4096),
        split(2, 2),
        split(32, 32),
    ]
}

#[test]
fn a_header_of_every_kind_is_read_back_and_every_flipped_bit_of_it_is_refused() {
    for header in headers() {
        let fixture = Fixture::new();
        let mut keyring = fixture.two_epochs();
        let seal = RootSeal { header: header.clone(), ..RootSeal::of(&fixture.root) };
        keyring.seal = Arc::new(seal);
        keyring.save(&fixture.path(), &fixture.entropy).unwrap();
        assert_eq!(peek(&fixture.path()).unwrap().root, header);
        let bytes = fs::read(fixture.path()).unwrap();
        assert_eq!(keys(&fixture.load(&bytes).unwrap()), keys(&keyring));
        let body = CLEAR + header.encode().1.len();
        // Of the longest, a sample; the length and kind of each, to the bit.
        for bit in (29 * 8..body * 8).step_by(if body > 1000 { 97 } else { 1 }) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(fixture.load(&flipped).is_err(), "bit {bit} of {header:?}");
        }
    }
}

#[test]
fn a_headers_body_has_one_spelling() {
    for header in headers() {
        let (kind, body) = header.encode();
        assert_eq!(RootHeader::decode(kind, &body), Some(header.clone()));
        for other in (0..=u8::MAX).filter(|other| *other != kind) {
            assert_ne!(RootHeader::decode(other, &body), Some(header.clone()));
        }
        for shorter in 0..body.len().min(64) {
            assert_ne!(RootHeader::decode(kind, &body[..shorter]), Some(header.clone()));
        }
        assert_ne!(RootHeader::decode(kind, &[&body[..], &[0]].concat()), Some(header));
    }
    let wrapped = |key: &[u8], blob: usize| [&[key.len() as u8], key, &vec![7; blob]].concat();
    for bad in [wrapped(b"", 9), wrapped(b"k\n", 9), wrapped(b"\xff", 9), wrapped(b"k", 0), wrapped(b"k", 4097)] {
        assert_eq!(RootHeader::decode(3, &bad), None);
    }
}
