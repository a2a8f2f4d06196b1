//! Seals one value under its DEK, and wraps one DEK under an epoch. INVARIANT: sealed bytes open only in the slot they were
//! sealed for, and their length tells no more than a bucket.

use std::fmt;

use zeroize::Zeroizing;

use crate::crypto::entropy::Entropy;
use crate::crypto::key::{Key, debug_by_name};
use crate::crypto::keyring::EpochKeys;
use crate::crypto::slot::{SealSlot, WrapSlot};
use crate::crypto::{CryptoError, aead};
use crate::domain::fault::{Fault, planted};

/// The longest plaintext that can be sealed, in bytes: the largest bucket is 64 KiB.
pub const MAX_PLAINTEXT: usize = MAX_BUCKET - LENGTH;

const FORMAT: u8 = 1;
/// Plaintext in the clear: what the planted fault writes, so that the leak scanner can show it would find it.
const FORMAT_UNSEALED: u8 = 0;
const LENGTH: usize = size_of::<u32>();
const MIN_BUCKET: usize = 64;
const MAX_BUCKET: usize = 64 * 1024;

/// A data encryption key. Destroying every wrap of it destroys what it sealed.
pub struct Dek(Key);

/// `format ‖ nonce (24) ‖ ciphertext ‖ tag (16)`, the ciphertext one bucket long.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

/// `format ‖ nonce (24) ‖ encrypted DEK (32) ‖ tag (16)`.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedDek(Vec<u8>);

/// An opened value.
pub struct Plaintext(Zeroizing<Vec<u8>>);

debug_by_name!(Dek, Plaintext);

/// Seals `plaintext` for `slot`. Errors: `PlaintextTooLong`.
pub fn seal(dek: &Dek, slot: &SealSlot, plaintext: &[u8], entropy: &dyn Entropy) -> Result<Sealed, CryptoError> {
    if planted(Fault::SealingOff) {
        return Ok(Sealed([&[FORMAT_UNSEALED], plaintext].concat()));
    }
    let length = u32::try_from(plaintext.len()).map_err(|_| CryptoError::PlaintextTooLong)?.to_be_bytes();
    let bucket = bucket(plaintext.len()).ok_or(CryptoError::PlaintextTooLong)?;
    aead::seal(&dek.0, slot.aad(FORMAT).as_bytes(), &[FORMAT], &[&length, plaintext], bucket, entropy).map(Sealed)
}

/// Opens what was sealed for `slot` under `dek`.
pub fn open(dek: &Dek, slot: &SealSlot, sealed: &Sealed) -> Result<Plaintext, CryptoError> {
    match sealed.0.split_first().ok_or(CryptoError::Truncated)? {
        (&FORMAT, rest) => unpad(aead::open(&dek.0, slot.aad(FORMAT).as_bytes(), rest)?),
        (&FORMAT_UNSEALED, rest) if planted(Fault::SealingOff) => Ok(Plaintext(Zeroizing::new(rest.to_vec()))),
        _ => Err(CryptoError::UnknownFormat),
    }
}

/// Wraps `dek` under the epoch that `slot` names. Errors: `UnknownEpoch` when `epoch` is another.
pub fn wrap(epoch: &EpochKeys, slot: &WrapSlot, dek: &Dek, entropy: &dyn Entropy) -> Result<WrappedDek, CryptoError> {
    same_epoch(epoch, slot)?;
    let key = dek.0.expose();
    aead::seal(epoch.wrap_key(), slot.aad(FORMAT).as_bytes(), &[FORMAT], &[key], key.len(), entropy).map(WrappedDek)
}

/// Unwraps the DEK that was wrapped for `slot`. Errors: `UnknownEpoch` when `epoch` is not the one that `slot` names.
pub fn unwrap(epoch: &EpochKeys, slot: &WrapSlot, wrapped: &WrappedDek) -> Result<Dek, CryptoError> {
    same_epoch(epoch, slot)?;
    let (&FORMAT, rest) = wrapped.0.split_first().ok_or(CryptoError::Truncated)? else {
        return Err(CryptoError::UnknownFormat);
    };
    let opened = aead::open(epoch.wrap_key(), slot.aad(FORMAT).as_bytes(), rest)?;
    let key: &[u8; 32] = opened.first_chunk().filter(|key| key.len() == opened.len()).ok_or(CryptoError::BadPadding)?;
    Ok(Dek(Key::fleeting(|bytes| bytes.copy_from_slice(key))))
}

fn same_epoch(epoch: &EpochKeys, slot: &WrapSlot) -> Result<(), CryptoError> {
    if epoch.number() == slot.epoch { Ok(()) } else { Err(CryptoError::UnknownEpoch(slot.epoch)) }
}

/// The bucket for a plaintext of `length` bytes and its length prefix: a power of two.
fn bucket(length: usize) -> Option<usize> {
    (length <= MAX_PLAINTEXT).then(|| (length + LENGTH).next_power_of_two().max(MIN_BUCKET))
}

/// Cuts `length ‖ plaintext ‖ zeros` down to the plaintext, in place.
fn unpad(mut padded: Zeroizing<Vec<u8>>) -> Result<Plaintext, CryptoError> {
    let prefix = padded.first_chunk().ok_or(CryptoError::BadPadding)?;
    let length = usize::try_from(u32::from_be_bytes(*prefix)).map_err(|_| CryptoError::BadPadding)?;
    if bucket(length) != Some(padded.len()) {
        return Err(CryptoError::BadPadding);
    }
    padded.copy_within(LENGTH..LENGTH + length, 0);
    padded.truncate(length);
    Ok(Plaintext(padded))
}

impl Dek {
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(Key::fleeting(|bytes| entropy.fill(bytes)))
    }

    /// What the audit log calls a subject on one day, of the subject's own DEK: when that dies, nobody can tell any more
    /// which entries were the subject's, nor which entries of different days belong together.
    pub fn audit_tag(&self, utc_day: i64) -> [u8; 16] {
        self.audit_tags()(utc_day)
    }

    /// The tags of any number of days, for the price of one derivation.
    pub fn audit_tags(&self) -> impl Fn(i64) -> [u8; 16] + use<> {
        let key = self.0.derive_fleeting("strongroom/subject-tag");
        move |utc_day| key.tag(&[&utc_day.to_be_bytes()])
    }
}

impl Dek {
    /// What an open month of statistics calls a person, of the month's own DEK: equal for equal references, and nothing any
    /// more once the month is closed and its DEK gone.
    pub fn month_tag(&self, reference: &Plaintext) -> [u8; 16] {
        self.0.derive("strongroom/month-tag").tag(&[reference.expose()])
    }
}

impl Plaintext {
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

macro_rules! stored_bytes {
    ($($name:ident),*) => {$(
        impl $name {
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// Stored bytes; whether they are sound shows when they are opened.
            pub fn from_bytes(bytes: Vec<u8>) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }
    )*};
}
stored_bytes!(Sealed, WrappedDek);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;
    use crate::crypto::keyring::Keyring;
    use crate::crypto::root::RootKey;
    use crate::crypto::slot::samples::*;
    use crate::domain::id::Epoch;
    use crate::domain::time::Timestamp;
    use proptest::prelude::*;

    fn seeded() -> (SeededEntropy, Dek) {
        let entropy = SeededEntropy::new(1);
        let dek = Dek::generate(&entropy);
        (entropy, dek)
    }

    fn keyring(entropy: &dyn Entropy) -> Keyring {
        let root = RootKey::generate(entropy);
        Keyring::create(&root, Timestamp(0), entropy).with_new_epoch(Timestamp(1), entropy)
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_to_the_same_bytes(plaintext in prop::collection::vec(any::<u8>(), 0..700)) {
            let (entropy, dek) = seeded();
            let sealed = seal(&dek, &seal_slot(), &plaintext, &entropy).unwrap();
            let stored = Sealed::from_bytes(sealed.as_bytes().to_vec());
            let opened = open(&dek, &seal_slot(), &stored).unwrap();
            prop_assert_eq!(opened.expose(), &plaintext[..]);
        }
    }

    #[test]
    fn a_sealed_value_opens_in_no_other_slot_and_under_no_other_dek() {
        let (entropy, dek) = seeded();
        let sealed = seal(&dek, &seal_slot(), b"canary", &entropy).unwrap();
        for other in other_seal_slots() {
            assert_eq!(open(&dek, &other, &sealed).unwrap_err(), CryptoError::NotAuthentic, "{other:?}");
        }
        let other = Dek::generate(&entropy);
        assert_eq!(open(&other, &seal_slot(), &sealed).unwrap_err(), CryptoError::NotAuthentic);
    }

    #[test]
    fn a_wrapped_dek_unwraps_in_no_other_slot() {
        let (entropy, dek) = seeded();
        let keyring = keyring(&entropy);
        let epoch = keyring.epoch(Epoch(1)).unwrap();
        let wrapped = wrap(epoch, &wrap_slot(), &dek, &entropy).unwrap();
        assert_eq!(unwrap(epoch, &wrap_slot(), &wrapped).unwrap().0.expose(), dek.0.expose());
        for other in other_wrap_slots() {
            assert_eq!(unwrap(epoch, &other, &wrapped).unwrap_err(), CryptoError::NotAuthentic, "{other:?}");
        }
    }

    #[test]
    fn a_wrapped_dek_unwraps_in_no_other_epoch() {
        let (entropy, dek) = seeded();
        let keyring = keyring(&entropy);
        let (old, new) = (keyring.epoch(Epoch(1)).unwrap(), keyring.active());
        let wrapped = wrap(old, &wrap_slot(), &dek, &entropy).unwrap();
        let moved = WrapSlot { epoch: new.number(), ..wrap_slot() };
        assert_eq!(unwrap(new, &moved, &wrapped).unwrap_err(), CryptoError::NotAuthentic);
        assert_eq!(unwrap(new, &wrap_slot(), &wrapped).unwrap_err(), CryptoError::UnknownEpoch(Epoch(1)));
        assert_eq!(wrap(old, &moved, &dek, &entropy).unwrap_err(), CryptoError::UnknownEpoch(Epoch(2)));
    }

    #[test]
    fn rewrapping_leaves_sealed_values_as_they_are() {
        let (entropy, dek) = seeded();
        let keyring = keyring(&entropy);
        let sealed = seal(&dek, &seal_slot(), b"canary", &entropy).unwrap();
        let wrapped = wrap(keyring.epoch(Epoch(1)).unwrap(), &wrap_slot(), &dek, &entropy).unwrap();
        let dek = unwrap(keyring.epoch(Epoch(1)).unwrap(), &wrap_slot(), &wrapped).unwrap();
        let moved = WrapSlot { epoch: Epoch(2), ..wrap_slot() };
        let rewrapped = wrap(keyring.active(), &moved, &dek, &entropy).unwrap();
        let dek = unwrap(keyring.active(), &moved, &rewrapped).unwrap();
        assert_eq!(open(&dek, &seal_slot(), &sealed).unwrap().expose(), b"canary");
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let (entropy, dek) = seeded();
        let keyring = keyring(&entropy);
        let epoch = keyring.epoch(Epoch(1)).unwrap();
        let sealed = seal(&dek, &seal_slot(), b"canary", &entropy).unwrap().0;
        let wrapped = wrap(epoch, &wrap_slot(), &dek, &entropy).unwrap().0;
        let flip = |bytes: &[u8], bit: usize| {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        };
        let expected = |bit| if bit < 8 { CryptoError::UnknownFormat } else { CryptoError::NotAuthentic };
        for bit in 0..sealed.len() * 8 {
            assert_eq!(open(&dek, &seal_slot(), &Sealed(flip(&sealed, bit))).unwrap_err(), expected(bit), "{bit}");
        }
        for bit in 0..wrapped.len() * 8 {
            let flipped = WrappedDek(flip(&wrapped, bit));
            assert_eq!(unwrap(epoch, &wrap_slot(), &flipped).unwrap_err(), expected(bit), "{bit}");
        }
    }

    #[test]
    fn every_truncation_and_any_longer_value_is_refused() {
        let (entropy, dek) = seeded();
        let keyring = keyring(&entropy);
        let epoch = keyring.epoch(Epoch(1)).unwrap();
        let sealed = seal(&dek, &seal_slot(), b"canary", &entropy).unwrap().0;
        let wrapped = wrap(epoch, &wrap_slot(), &dek, &entropy).unwrap().0;
        let shortest = 1 + aead::NONCE + 16;
        let expected = |length| if length < shortest { CryptoError::Truncated } else { CryptoError::NotAuthentic };
        for length in 0..sealed.len() {
            let cut = Sealed(sealed[..length].to_vec());
            assert_eq!(open(&dek, &seal_slot(), &cut).unwrap_err(), expected(length), "{length}");
        }
        for length in 0..wrapped.len() {
            let cut = WrappedDek(wrapped[..length].to_vec());
            assert_eq!(unwrap(epoch, &wrap_slot(), &cut).unwrap_err(), expected(length), "{length}");
        }
        let longer = Sealed([&sealed[..], &[0]].concat());
        assert_eq!(open(&dek, &seal_slot(), &longer).unwrap_err(), CryptoError::NotAuthentic);
    }

    #[test]
    fn lengths_within_a_bucket_look_alike() {
        let (entropy, dek) = seeded();
        let sealed_length = |length| seal(&dek, &seal_slot(), &vec![b'x'; length], &entropy).unwrap().as_bytes().len();
        let overhead = 1 + aead::NONCE + 16;
        for (bucket, lengths) in [(64, 0..=60), (128, 61..=124), (256, 125..=252), (512, 253..=508)] {
            for length in lengths {
                assert_eq!(sealed_length(length), overhead + bucket, "{length}");
            }
        }
        assert_eq!(sealed_length(MAX_PLAINTEXT), overhead + MAX_BUCKET);
        let refused = seal(&dek, &seal_slot(), &vec![b'x'; MAX_PLAINTEXT + 1], &entropy);
        assert_eq!(refused.unwrap_err(), CryptoError::PlaintextTooLong);
    }

    #[test]
    fn authentic_bytes_with_an_impossible_length_are_refused() {
        let (entropy, dek) = seeded();
        let aad = seal_slot().aad(FORMAT);
        for (length, size) in [(61_u32, 64), (u32::MAX, 64), (1, 128), (0, 0), (0, 3), (0, 65)] {
            let prefix = length.to_be_bytes();
            let parts: &[&[u8]] = if size < LENGTH { &[] } else { &[&prefix] };
            let sealed = aead::seal(&dek.0, aad.as_bytes(), &[FORMAT], parts, size, &entropy).unwrap();
            let opened = open(&dek, &seal_slot(), &Sealed(sealed));
            assert_eq!(opened.unwrap_err(), CryptoError::BadPadding, "{length} in {size}");
        }
    }

    #[test]
    fn an_unsealed_value_is_refused_by_a_vault_that_seals() {
        let (_, dek) = seeded();
        let unsealed = Sealed(vec![FORMAT_UNSEALED, b'x']);
        assert_eq!(open(&dek, &seal_slot(), &unsealed).unwrap_err(), CryptoError::UnknownFormat);
    }

    #[test]
    fn an_audit_tag_holds_for_one_subject_and_one_day() {
        let (entropy, dek) = seeded();
        let other = Dek::generate(&entropy);
        assert_eq!(dek.audit_tag(20_000), dek.audit_tag(20_000));
        assert_ne!(dek.audit_tag(20_000), dek.audit_tag(20_001));
        assert_ne!(dek.audit_tag(20_000), other.audit_tag(20_000));
    }

    #[test]
    fn debug_shows_no_value() {
        let (entropy, dek) = seeded();
        let sealed = seal(&dek, &seal_slot(), b"canary-7f3a", &entropy).unwrap();
        let opened = open(&dek, &seal_slot(), &sealed).unwrap();
        assert_eq!(format!("{dek:?} {sealed:?} {opened:?}"), "Dek Sealed(105 bytes) Plaintext");
    }
}
