//! Looks for a vault's long-lived keys in bytes that must not hold them: a core, the memory of a process, a disk. INVARIANT: a
//! key is found by either half of it, as it lies in memory, as the ciphers lay it out, or as text; what is told is its name.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::crypto::keyring::Keyring;
use crate::crypto::root::RootKey;

/// The shape in which a key, or half of it, was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Form {
    Bytes,
    /// Bytes in reverse within each 4 or 8: how SHA-2 and the like load their input.
    Words,
    /// Exclusive-or with HMAC's pads (RFC 2104 §2), in bytes or in words: whoever has it has the key.
    Padded,
    Hex,
    /// As a part of any base64, standard or URL-safe.
    Base64,
}

/// A key that was found, by the name of its use and epoch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Found {
    pub key: String,
    pub form: Form,
}

/// Searches for all keys in all forms at once.
pub struct Hunter {
    automaton: AhoCorasick,
    /// For each pattern of the automaton: the key, and the form that the pattern is.
    patterns: Vec<(usize, Form)>,
    keys: Vec<String>,
}

/// There are too many keys to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are too many keys to look for them at once")]
pub struct TooMany;

impl Hunter {
    /// Hunts for everything that opens what `keyring` protects: its root, what its file is sealed with, its signer's seed, the
    /// key of each epoch and each key derived from that.
    pub fn new(root: &RootKey, keyring: &Keyring) -> Result<Self, TooMany> {
        let named = root.held().into_iter().chain(keyring.held());
        let (mut texts, mut patterns, mut keys) = (Zeroizing::new(Vec::new()), Vec::new(), Vec::new());
        for (number, (name, key)) in named.enumerate() {
            keys.push(name);
            for (form, text) in forms(key.expose()) {
                texts.push(text);
                patterns.push((number, form));
            }
        }
        let automaton = AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(texts.iter());
        Ok(Self { automaton: automaton.map_err(|_| TooMany)?, patterns, keys })
    }

    /// The names of the keys that are looked for.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Every key in `bytes`, each form of it once.
    pub fn find(&self, bytes: &[u8]) -> BTreeSet<Found> {
        let found = self.automaton.find_overlapping_iter(bytes).filter_map(|found| {
            let (number, form) = self.patterns.get(found.pattern().as_usize())?;
            Some(Found { key: self.keys.get(*number)?.clone(), form: *form })
        });
        found.collect()
    }
}

const IPAD: u8 = 0x36;
const OPAD: u8 = 0x5c;

/// A key's halves as they could lie anywhere, each written out once.
fn forms(key: &[u8; 32]) -> BTreeSet<(Form, Vec<u8>)> {
    let mut forms = BTreeSet::new();
    for half in key.as_chunks::<16>().0 {
        for pad in [0, IPAD, OPAD] {
            for word in [1, 4, 8] {
                let form = match (pad, word) {
                    (0, 1) => Form::Bytes,
                    (0, _) => Form::Words,
                    _ => Form::Padded,
                };
                let words = half.chunks(word).flat_map(|word| word.iter().rev());
                forms.insert((form, words.map(|byte| byte ^ pad).collect()));
            }
        }
        forms.insert((Form::Hex, hex::encode(half).into_bytes()));
        forms.insert((Form::Hex, hex::encode_upper(half).into_bytes()));
        // How many bytes stand before it in a group of three, and the first digit that tells of it alone.
        for (before, first) in [(0, 0), (1, 2), (2, 3)] {
            let shifted = [vec![0; before].as_slice(), half].concat();
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let text = engine.encode(&shifted);
                forms.extend(text.get(first..shifted.len() / 3 * 4).map(|own| (Form::Base64, own.as_bytes().to_vec())));
            }
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::{SeededEntropy, array};
    use crate::domain::time::Timestamp;

    fn hunted() -> (RootKey, Keyring, Hunter) {
        let entropy = SeededEntropy::new(1);
        let root = RootKey::generate(&entropy);
        let keyring = Keyring::create(&root, Timestamp(0), &entropy).with_new_epoch(Timestamp(1), &entropy);
        let hunter = Hunter::new(&root, &keyring).unwrap();
        (root, keyring, hunter)
    }

    fn noise() -> Vec<u8> {
        array::<4_096>(&SeededEntropy::new(2)).to_vec()
    }

    #[test]
    fn every_key_that_lives_long_is_hunted() {
        let (_, _, hunter) = hunted();
        // The root; what seals the file, the seed; for two epochs the key and seven derived from it.
        assert_eq!(hunter.keys().len(), 1 + 2 + 2 * 8);
        assert!(hunter.find(&noise()).is_empty());
    }

    #[test]
    fn either_half_of_a_key_is_found_in_every_form_wherever_it_stands() {
        let (root, keyring, hunter) = hunted();
        let held: Vec<_> = root.held().into_iter().chain(keyring.held()).collect();
        for (name, key) in held {
            for half in key.expose().chunks(16) {
                let swapped =
                    |size: usize| -> Vec<u8> { half.chunks(size).flat_map(|w| w.iter().rev()).copied().collect() };
                let padded =
                    |bytes: Vec<u8>, pad: u8| -> Vec<u8> { bytes.into_iter().map(|byte| byte ^ pad).collect() };
                let mut looks = vec![
                    (Form::Bytes, half.to_vec()),
                    (Form::Words, swapped(4)),
                    (Form::Words, swapped(8)),
                    (Form::Padded, padded(half.to_vec(), 0x36)),
                    (Form::Padded, padded(swapped(4), 0x5c)),
                    (Form::Hex, hex::encode(half).into_bytes()),
                    (Form::Hex, hex::encode_upper(half).into_bytes()),
                ];
                for before in 0..3 {
                    let whole = [&noise()[..before], half, b"behind"].concat();
                    looks.push((Form::Base64, STANDARD_NO_PAD.encode(&whole).into_bytes()));
                    looks.push((Form::Base64, URL_SAFE_NO_PAD.encode(&whole).into_bytes()));
                }
                for (form, look) in looks {
                    let mut bytes = noise();
                    bytes.splice(1_001..1_001, look);
                    let found = hunter.find(&bytes);
                    assert!(found.contains(&Found { key: name.clone(), form }), "{name} as {form:?}: {found:?}");
                    assert!(found.iter().all(|found| found.key == name), "{found:?}");
                }
            }
        }
    }
}
