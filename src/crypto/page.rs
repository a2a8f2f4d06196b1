//! Page tokens that only we can read and make. INVARIANT: a page token opens only for the listing, tenant and caller that
//! its context names, and what it says of our internal order is not readable outside.

use crate::crypto::entropy::Entropy;
use crate::crypto::keyring::Keyring;
use crate::crypto::slot::Canonical;
use crate::crypto::{CryptoError, aead};
use crate::domain::id::Epoch;

const FORMAT: u8 = 1;

/// Seals where a listing stopped: `format ‖ epoch (4) ‖ nonce ‖ ciphertext ‖ tag`. `context` says whose listing of what.
pub fn seal_page(
    keyring: &Keyring,
    context: &Canonical,
    cursor: i64,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, CryptoError> {
    seal_place(keyring, context, [cursor], entropy)
}

/// `seal_page` for a listing whose place takes several numbers.
pub fn seal_place<const N: usize>(
    keyring: &Keyring,
    context: &Canonical,
    place: [i64; N],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, CryptoError> {
    let epoch = keyring.active();
    let [a, b, c, d] = epoch.number().0.to_be_bytes();
    let place = place.map(i64::to_be_bytes);
    let place = place.as_flattened();
    let aad = aad(epoch.number(), context);
    aead::seal(epoch.page_key(), aad.as_bytes(), &[FORMAT, a, b, c, d], &[place], place.len(), entropy)
}

pub fn open_page(keyring: &Keyring, context: &Canonical, token: &[u8]) -> Result<i64, CryptoError> {
    open_place(keyring, context, token).map(|[cursor]| cursor)
}

pub fn open_place<const N: usize>(
    keyring: &Keyring,
    context: &Canonical,
    token: &[u8],
) -> Result<[i64; N], CryptoError> {
    let (&FORMAT, rest) = token.split_first().ok_or(CryptoError::Truncated)? else {
        return Err(CryptoError::UnknownFormat);
    };
    let (number, sealed) = rest.split_first_chunk().ok_or(CryptoError::Truncated)?;
    let number = Epoch(u32::from_be_bytes(*number));
    let epoch = keyring.epoch(number).ok_or(CryptoError::UnknownEpoch(number))?;
    let opened = aead::open(epoch.page_key(), aad(number, context).as_bytes(), sealed)?;
    let (numbers, []) = opened.as_slice().as_chunks() else { return Err(CryptoError::BadPadding) };
    let place: [[u8; 8]; N] = numbers.try_into().map_err(|_| CryptoError::BadPadding)?;
    Ok(place.map(i64::from_be_bytes))
}

fn aad(epoch: Epoch, context: &Canonical) -> Canonical {
    Canonical::new("strongroom/page").u8(FORMAT).u64(u64::from(epoch.0)).bytes(context.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;
    use crate::crypto::root::RootKey;
    use crate::domain::time::Timestamp;

    #[test]
    fn a_page_token_outlives_a_rotation_but_serves_no_other_context() {
        let entropy = SeededEntropy::new(1);
        let keyring = Keyring::create(&RootKey::generate(&entropy), Timestamp(0), &entropy);
        let mine = Canonical::new("records").bytes(b"k").bytes(b"backend");
        let other = Canonical::new("records").bytes(b"x").bytes(b"backend");
        let token = seal_page(&keyring, &mine, 42, &entropy).unwrap();
        let rotated = keyring.with_new_epoch(Timestamp(1), &entropy);
        assert_eq!(open_page(&rotated, &mine, &token), Ok(42));
        assert_eq!(open_page(&rotated, &other, &token), Err(CryptoError::NotAuthentic));
    }

    #[test]
    fn a_place_of_several_numbers_is_no_place_of_another_count() {
        let entropy = SeededEntropy::new(1);
        let keyring = Keyring::create(&RootKey::generate(&entropy), Timestamp(0), &entropy);
        let context = Canonical::new("records");
        let token = seal_place(&keyring, &context, [i64::MIN, 0, 7], &entropy).unwrap();
        assert_eq!(open_place(&keyring, &context, &token), Ok([i64::MIN, 0, 7]));
        assert_eq!(open_page(&keyring, &context, &token), Err(CryptoError::BadPadding));
        assert_eq!(open_place::<4>(&keyring, &context, &token), Err(CryptoError::BadPadding));
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_refused() {
        let entropy = SeededEntropy::new(1);
        let keyring = Keyring::create(&RootKey::generate(&entropy), Timestamp(0), &entropy);
        let context = Canonical::new("records");
        let token = seal_page(&keyring, &context, 42, &entropy).unwrap();
        for at in 0..token.len() {
            let mut flipped = token.clone();
            flipped[at] ^= 1;
            assert!(open_page(&keyring, &context, &flipped).is_err(), "byte {at}");
            assert!(open_page(&keyring, &context, &token[..at]).is_err(), "cut at {at}");
        }
    }
}
