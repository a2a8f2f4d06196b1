//! A 256-bit key, and the two functions that make keys and tags of it. INVARIANT: a key's bytes are read through
//! `expose()` only and wiped when it is dropped; one key has one use, told by the label it was derived under.
//!
//! Keys are written straight into memory that no core dump sees (`locked`), and a use of one leaves nothing on the stack
//! (`residue`). Only those that live for a call, the keys of single records, are carried in ordinary memory: there are tens of
//! thousands a second, and a core of an idle process finds them wiped.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::crypto::entropy::Entropy;
use crate::crypto::locked::Slot;
use crate::crypto::residue::{HASH, wiped};

/// `Debug` for a secret: the name of its type and nothing else.
macro_rules! debug_by_name {
    ($($secret:ident),*) => {$(
        impl std::fmt::Debug for $secret {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($secret))
            }
        }
    )*};
}
pub(crate) use debug_by_name;

pub struct Key(Bytes);

enum Bytes {
    Protected(Slot),
    Ordinary(Zeroizing<[u8; 32]>),
}

debug_by_name!(Key);

impl Key {
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::filled(|bytes| entropy.fill(bytes))
    }

    /// A key written in place by `fill`, so that no copy stays behind on the way.
    pub fn filled(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        match Slot::take() {
            Some(mut slot) => {
                fill(slot.bytes_mut());
                Self(Bytes::Protected(slot))
            }
            None => Self::fleeting(fill),
        }
    }

    /// The same for a key that is gone when the call is over.
    pub(super) fn fleeting(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        fill(&mut bytes);
        Self(Bytes::Ordinary(bytes))
    }

    /// The key for one use of this key: HKDF-SHA256 without salt, `label` as info (RFC 5869).
    pub fn derive(&self, label: &'static str) -> Self {
        Self::filled(|bytes| self.derive_into(label, bytes))
    }

    /// The same for a key that is gone when the call is over.
    pub(super) fn derive_fleeting(&self, label: &'static str) -> Self {
        Self::fleeting(|bytes| self.derive_into(label, bytes))
    }

    fn derive_into(&self, label: &'static str, out: &mut [u8; 32]) {
        wiped::<HASH, _>(|| hkdf_sha256(self.expose(), label.as_bytes(), out));
    }

    /// HMAC-SHA256 over length-prefixed parts, cut to 128 bits (RFC 2104 §5). Different lists of parts never meet.
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; 16] {
        let full: [u8; 32] = wiped::<HASH, _>(|| {
            let mut hmac = hmac_sha256(self.expose());
            for part in parts {
                hmac.update(&(part.len() as u64).to_be_bytes());
                hmac.update(part);
            }
            hmac.finalize().into_bytes().into()
        });
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = full;
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    pub fn expose(&self) -> &[u8; 32] {
        match &self.0 {
            Bytes::Protected(slot) => slot.bytes(),
            Bytes::Ordinary(bytes) => bytes,
        }
    }
}

#[expect(clippy::expect_used, reason = "HKDF-SHA256 gives up to 8160 bytes; no caller asks for more than a key")]
fn hkdf_sha256(secret: &[u8], info: &[u8], out: &mut [u8]) {
    Hkdf::<Sha256>::new(None, secret).expand(info, out).expect("a key is shorter than HKDF's bound");
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length (RFC 2104 §2)")]
fn hmac_sha256(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::filled(|bytes| *bytes = [byte; 32])
    }

    #[test]
    fn hkdf_agrees_with_rfc_5869_case_3() {
        let mut out = [0; 42];
        hkdf_sha256(&[0x0b; 22], b"", &mut out);
        let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
        assert_eq!(hex::encode(out), expected);
    }

    #[test]
    fn hmac_agrees_with_rfc_4231_case_2() {
        let hmac = hmac_sha256(b"Jefe").chain_update(b"what do ya want for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex::encode(hmac.finalize().into_bytes()), expected);
    }

    #[test]
    fn a_tag_is_the_head_of_the_hmac_of_the_framed_parts() {
        let framed = hmac_sha256(&[1; 32]).chain_update([0, 0, 0, 0, 0, 0, 0, 2]).chain_update(b"ab");
        assert_eq!(key(1).tag(&[b"ab"]), framed.finalize().into_bytes()[..16]);
    }

    #[test]
    fn lists_of_parts_that_concatenate_alike_differ() {
        let tags =
            [key(1).tag(&[b"ab", b"c"]), key(1).tag(&[b"a", b"bc"]), key(1).tag(&[b"abc"]), key(1).tag(&[b"abc", b""])];
        for (i, tag) in tags.iter().enumerate() {
            assert!(!tags[i + 1..].contains(tag));
        }
    }

    #[test]
    fn every_label_gives_another_key() {
        assert_ne!(key(1).derive("a").expose(), key(1).derive("b").expose());
        assert_ne!(key(1).derive("a").expose(), key(2).derive("a").expose());
    }

    #[test]
    fn debug_shows_the_type_only() {
        assert_eq!(format!("{:?}", key(0x41)), "Key");
    }
}
