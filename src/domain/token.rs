//! The token a shop keeps in place of a person's data. INVARIANT: a token has one spelling (bech32m, BIP 350, lower case),
//! and the store knows it only by a digest that is bound to its tenant.

use std::fmt;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::primitives::iter::{ByteIterExt, Fe32IterExt};
use bech32::{Bech32m, Hrp};
use sha2::{Digest, Sha256};
use zeroize::ZeroizeOnDrop;

use crate::domain::id::TenantId;

const KIND: &str = "srt";
/// "srt1", 160 bits in characters of 5, six characters of checksum.
const TEXT_LENGTH: usize = 42;

/// 160 random bits that stand for one record. Whoever holds it may ask for the record, so it is kept like a secret.
#[derive(ZeroizeOnDrop)]
pub struct Token([u8; 20]);

impl Token {
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The only spelling: 42 characters, `srt1…`.
    pub fn to_text(&self) -> String {
        let kind = Hrp::parse_unchecked(KIND);
        let mut text = String::with_capacity(TEXT_LENGTH);
        text.extend(self.0.iter().copied().bytes_to_fes().with_checksum::<Bech32m>(&kind).chars());
        text
    }

    pub fn parse(text: &str) -> Result<Self, BadToken> {
        // Bech32m also allows capitals; a second spelling of a token would be a second key in the shop's tables.
        if text.len() != TEXT_LENGTH || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(BadToken);
        }
        let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| BadToken)?;
        let mut token = Self([0; 20]);
        let mut bytes = checked.byte_iter();
        if checked.hrp() != Hrp::parse_unchecked(KIND) || bytes.len() != token.0.len() {
            return Err(BadToken);
        }
        token.0.iter_mut().zip(&mut bytes).for_each(|(place, byte)| *place = byte);
        Ok(token)
    }

    /// What the store looks the token up by. The same bytes are another digest under another tenant.
    pub fn digest(&self, tenant: &TenantId) -> TokenDigest {
        let mut hash = Sha256::new();
        for part in [b"strongroom/token".as_slice(), tenant.as_str().as_bytes()] {
            hash.update((part.len() as u32).to_be_bytes());
            hash.update(part);
        }
        hash.update(self.0);
        let mut digest = TokenDigest([0; 16]);
        digest.0.iter_mut().zip(hash.finalize()).for_each(|(place, byte)| *place = byte);
        digest
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The first 128 bits of SHA-256 over a domain tag, the tenant and the token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TokenDigest(pub [u8; 16]);

/// The text is no token. Carries nothing of what was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no token: a token is srt1 and 38 more lower-case characters, checksum included")]
pub struct BadToken;

#[cfg(test)]
mod tests {
    use super::*;
    use bech32::Bech32;
    use proptest::prelude::*;

    fn counting() -> Token {
        Token::from_bytes(std::array::from_fn(|i| i as u8))
    }

    #[test]
    fn the_text_is_the_documented_one() {
        assert_eq!(counting().to_text(), "srt1qqqsyqcyq5rqwzqfpg9scrgwpugpzysn7qwlrd");
    }

    #[test]
    fn the_digest_is_the_documented_one() {
        let mut preimage = b"\0\0\0\x10strongroom/token\0\0\0\x01k".to_vec();
        preimage.extend(0..20);
        assert_eq!(counting().digest(&"k".parse().unwrap()).0, Sha256::digest(preimage)[..16]);
    }

    #[test]
    fn a_digest_belongs_to_one_tenant() {
        assert_ne!(counting().digest(&"k".parse().unwrap()), counting().digest(&"g".parse().unwrap()));
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let text = counting().to_text();
        let bytes = counting().0;
        let spell = |hrp, bytes: &[u8]| bech32::encode::<Bech32m>(Hrp::parse_unchecked(hrp), bytes).unwrap();
        for (why, bad) in [
            ("upper case", text.to_uppercase()),
            ("mixed case", text.replace("srt1", "Srt1")),
            ("bech32, not bech32m", bech32::encode::<Bech32>(Hrp::parse_unchecked(KIND), &bytes).unwrap()),
            ("another kind", spell("sru", &bytes)),
            ("another kind of another length", spell("sr", &bytes)),
            ("short", spell(KIND, &bytes[..19])),
            ("long", spell(KIND, &[7; 21])),
            ("cut", text[..41].to_owned()),
            ("space before", format!(" {text}")),
            ("space after", format!("{text}\n")),
            ("a wide letter", text.replace('y', "ｙ")),
            ("nothing", String::new()),
        ] {
            assert_eq!(Token::parse(&bad).map(drop), Err(BadToken), "{why}");
        }
    }

    #[test]
    fn debug_tells_nothing() {
        assert_eq!(format!("{:?}", counting()), "Token");
    }

    proptest! {
        #[test]
        fn a_token_reads_back(bytes: [u8; 20]) {
            let token = Token::parse(&Token::from_bytes(bytes).to_text()).unwrap();
            prop_assert_eq!(token.as_bytes(), &bytes);
        }

        #[test]
        fn one_wrong_character_is_found(bytes: [u8; 20], place in 4..42_usize, letter in "[02-9ac-hj-np-z]") {
            let text = Token::from_bytes(bytes).to_text();
            let mut other = text.clone();
            other.replace_range(place..=place, &letter);
            prop_assert!(other == text || Token::parse(&other).is_err());
        }
    }
}
