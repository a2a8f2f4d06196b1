//! The vault's signature on what it says to the world: heads of its log, receipts of what it erased. Ed25519 (RFC 8032).
//! INVARIANT: the secret seed leaves the keyring for nothing but signing and for deriving the key of the store's state, and
//! what is signed begins with the name of its kind (see `audit::checkpoint`), so that no signature on one kind of text serves
//! another.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::crypto::entropy::Entropy;
use crate::crypto::key::{Key, debug_by_name};
use crate::crypto::residue::{CIPHER, wiped};
use crate::crypto::state::StateKey;

/// What signs. Its seed is a `Key`, wiped when dropped and kept where long-lived keys are kept.
pub struct Signer {
    seed: Key,
    public: PublicKey,
    state: StateKey,
}

debug_by_name!(Signer);

/// What everybody may know, and verifies with: 32 bytes as of RFC 8032 §5.1.5.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PublicKey(pub [u8; 32]);

impl Signer {
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::from_seed(Key::generate(entropy))
    }

    pub(crate) fn from_seed(seed: Key) -> Self {
        let public = wiped::<CIPHER, _>(|| PublicKey(SigningKey::from_bytes(seed.expose()).verifying_key().to_bytes()));
        let state = StateKey::of(&seed);
        Self { seed, public, state }
    }

    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// 64 bytes, the same for the same message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        // Expanded for this one signature, and wiped with it.
        wiped::<CIPHER, _>(|| SigningKey::from_bytes(self.seed.expose()).sign(message).to_bytes())
    }

    /// What the digest of the store's rows is made with; like the signer, the same through all generations of the keyring.
    pub(crate) fn state(&self) -> &StateKey {
        &self.state
    }

    pub(crate) fn seed(&self) -> &Key {
        &self.seed
    }
}

impl PublicKey {
    /// By the strict rules: no malleable signature, no key of small order.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;

    fn bytes<const N: usize>(digits: &str) -> [u8; N] {
        hex::decode(digits).unwrap().try_into().unwrap()
    }

    #[test]
    fn signatures_agree_with_rfc_8032_test_2() {
        let seed = bytes("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let signer = Signer::from_seed(Key::filled(|key| *key = seed));
        assert_eq!(signer.public().0, bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"));
        let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c\
                        387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(signer.sign(&[0x72]), bytes(expected));
        assert!(signer.public().verify(&[0x72], &bytes(expected)));
    }

    #[test]
    fn every_flipped_bit_of_message_signature_and_key_is_refused() {
        let signer = Signer::generate(&SeededEntropy::new(1));
        let (public, signature) = (signer.public(), signer.sign(b"head"));
        assert!(public.verify(b"head", &signature) && !public.verify(b"heads", &signature));
        for bit in 0..512 {
            let mut flipped = signature;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!public.verify(b"head", &flipped), "bit {bit}");
        }
        for bit in 0..256 {
            let mut other = public;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!other.verify(b"head", &signature), "bit {bit}");
        }
    }

    #[test]
    fn debug_shows_the_type_only() {
        assert_eq!(format!("{:?}", Signer::generate(&SeededEntropy::new(1))), "Signer");
    }
}
