//! Signs what is sent to a webhook, after the Standard Webhooks specification. INVARIANT: a signature binds the message's number,
//! the second it was sent at, and every byte of its body; while a secret is replaced, each message is signed by both.
//!
//! ```text
//! webhook-signature: v1,base64(HMAC-SHA-256(secret, id "." seconds "." body)) [ " v1," … ]
//! ```
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::crypto::entropy::Entropy;
use crate::crypto::key::debug_by_name;

const PREFIX: &str = "whsec_";
/// Bytes of a secret, by the specification.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;
/// The one in use and the one that replaces it.
const MOST: usize = 2;

/// The secrets that a receiver may know.
pub struct Secrets(Vec<Zeroizing<Vec<u8>>>);

debug_by_name!(Secrets);

/// Why a text holds no secrets. Tells nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("holds no secrets: one line, or two while one is replaced, of whsec_ and 24 to 64 bytes in base64")]
pub struct BadSecrets;

impl Secrets {
    /// One secret a line.
    pub fn parse(text: &str) -> Result<Self, BadSecrets> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secret = |line: &str| {
            let bytes = BASE64.decode(line.strip_prefix(PREFIX)?).map(Zeroizing::new).ok()?;
            LENGTHS.contains(&bytes.len()).then_some(bytes)
        };
        let secrets: Vec<_> = lines.map(secret).collect::<Option<_>>().ok_or(BadSecrets)?;
        if (1..=MOST).contains(&secrets.len()) { Ok(Self(secrets)) } else { Err(BadSecrets) }
    }

    /// A fresh one, as it stands in a file.
    pub fn mint(entropy: &dyn Entropy) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut_slice());
        let text = Zeroizing::new(BASE64.encode(bytes.as_slice()));
        Zeroizing::new([PREFIX, text.as_str()].concat())
    }

    /// The signature header of a message; `seconds` since 1970, UTC.
    pub fn sign(&self, id: &str, seconds: i64, body: &str) -> String {
        let seconds = seconds.to_string();
        let signatures = self.0.iter().filter_map(|secret| {
            // HMAC takes a key of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
            [id, ".", &seconds, ".", body].iter().for_each(|part| mac.update(part.as_bytes()));
            Some(format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;

    /// The specification's own example secret and message; the signature as its reference libraries make it.
    #[test]
    fn a_message_is_signed_as_the_reference_libraries_do() {
        let secrets = Secrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signed = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn two_secrets_sign_side_by_side() {
        let [one, two] = [1, 2].map(|seed| Secrets::mint(&SeededEntropy::new(seed)));
        let sign = |text: &str| Secrets::parse(text).unwrap().sign("m", 1, "{}");
        assert_eq!(sign(&format!("{}\n{}\n", *one, *two)), format!("{} {}", sign(&one), sign(&two)));
        assert_ne!(sign(&one), sign(&two));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_a_word_of_it() {
        let good = Secrets::mint(&SeededEntropy::new(1));
        let short = format!("{PREFIX}{}", BASE64.encode([1; 23]));
        let long = format!("{PREFIX}{}", BASE64.encode([1; 65]));
        let three = [good.as_str(); 3].join("\n");
        let half = format!("{}\ncanary-7f3a", *good);
        for bad in ["", "\n", "canary-7f3a", "whsec_", "whsec_canary!", good.trim_start_matches(PREFIX), &short, &long]
        {
            assert_eq!(Secrets::parse(bad).map(drop), Err(BadSecrets), "{bad}");
        }
        assert_eq!(Secrets::parse(&three).map(drop), Err(BadSecrets));
        assert_eq!(Secrets::parse(&half).map(drop), Err(BadSecrets));
        assert_eq!(format!("{:?}", Secrets::parse(&good).unwrap()), "Secrets");
    }
}
