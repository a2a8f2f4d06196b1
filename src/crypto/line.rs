//! Seals what a line of the erasure ledger remembers beside an erasure. INVARIANT: it opens only in its line and under the epoch
//! that was active when it was written; with that epoch's key the line's content goes, which is when the last backup that could
//! need it is dead too.

use zeroize::Zeroizing;

use crate::crypto::entropy::Entropy;
use crate::crypto::keyring::EpochKeys;
use crate::crypto::slot::Canonical;
use crate::crypto::{CryptoError, aead};

const FORMAT: u8 = 1;
/// The shortest plaintext: what is shorter is filled up, so that lengths tell little.
const BUCKET: usize = 128;

/// `format ‖ nonce ‖ ciphertext ‖ tag`. `context` names the line; `bytes` must not end in a zero.
pub fn seal_line(
    epoch: &EpochKeys,
    context: &Canonical,
    bytes: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, CryptoError> {
    let size = bytes.len().next_power_of_two().max(BUCKET);
    aead::seal(epoch.ledger_key(), aad(epoch, context).as_bytes(), &[FORMAT], &[bytes], size, entropy)
}

pub fn open_line(epoch: &EpochKeys, context: &Canonical, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let (&FORMAT, rest) = sealed.split_first().ok_or(CryptoError::Truncated)? else {
        return Err(CryptoError::UnknownFormat);
    };
    let mut opened = aead::open(epoch.ledger_key(), aad(epoch, context).as_bytes(), rest)?;
    let length = opened.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    opened.truncate(length);
    Ok(opened)
}

fn aad(epoch: &EpochKeys, context: &Canonical) -> Canonical {
    Canonical::new("strongroom/line").u8(FORMAT).u64(u64::from(epoch.number().0)).bytes(context.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;
    use crate::crypto::keyring::Keyring;
    use crate::crypto::root::RootKey;
    use crate::domain::id::Epoch;
    use crate::domain::time::Timestamp;

    #[test]
    fn a_line_opens_in_its_place_and_under_its_epoch_alone() {
        let entropy = SeededEntropy::new(1);
        let keyring = Keyring::create(&RootKey::generate(&entropy), Timestamp(0), &entropy);
        let keyring = keyring.with_new_epoch(Timestamp(1), &entropy);
        let (old, new) = (keyring.epoch(Epoch(1)).unwrap(), keyring.active());
        let (mine, other) = (Canonical::new("line").u64(1), Canonical::new("line").u64(2));
        for text in [&b"{}"[..], &[b'x'; 300]] {
            let sealed = seal_line(old, &mine, text, &entropy).unwrap();
            assert_eq!(open_line(old, &mine, &sealed).unwrap().as_slice(), text);
            assert_eq!(open_line(old, &other, &sealed), Err(CryptoError::NotAuthentic));
            assert_eq!(open_line(new, &mine, &sealed), Err(CryptoError::NotAuthentic));
            for at in 0..sealed.len() {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1;
                assert!(open_line(old, &mine, &flipped).is_err(), "byte {at}");
                assert!(open_line(old, &mine, &sealed[..at]).is_err(), "cut at {at}");
            }
        }
        let lengths = [2, 100].map(|length| seal_line(old, &mine, &vec![b'x'; length], &entropy).unwrap().len());
        assert_eq!(lengths[0], lengths[1]);
    }
}
