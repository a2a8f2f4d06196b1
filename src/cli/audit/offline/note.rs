//! C2SP signed notes and checkpoints for the verifier. INVARIANT: one signature line, the one of the key that is asked for; one
//! form for one meaning.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use super::tree::Hash;

/// A public key as `strongroom audit key` prints it: name, hash and key, joined by plus signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    hash: [u8; 4],
    key: VerifyingKey,
}

impl VerifierKey {
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(3, '+');
        let (name, hash, encoded) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = STANDARD.decode(encoded).ok()?;
        let (1, key) = bytes.split_first().map(|(kind, key)| (*kind, key))? else { return None };
        let key = VerifyingKey::from_bytes(key.try_into().ok()?).ok()?;
        let whole = Sha256::digest([name.as_bytes(), b"\n", &bytes].concat());
        let expected = *whole.first_chunk::<4>()?;
        (hex::encode(expected) == hash).then(|| Self { name: name.to_owned(), hash: expected, key })
    }

    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }
}

/// A signed head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    origin: String,
    pub size: u64,
    pub root: Hash,
    /// The number of the tree's first entry in the vault's whole log.
    pub first: u64,
    pub time: jiff::Timestamp,
    /// The tree is closed.
    pub is_last: bool,
    pub key: VerifierKey,
}

impl Note {
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Reads a note that this key has signed.
    pub fn verify(note: &str, key: &VerifierKey) -> Option<Self> {
        let (text, signatures) = note.split_once("\n\n")?;
        let signed = signatures.strip_prefix(&format!("\u{2014} {} ", key.name))?.strip_suffix('\n')?;
        let bytes = STANDARD.decode(signed).ok()?;
        let (hash, signature) = bytes.split_first_chunk::<4>()?;
        let text = format!("{text}\n");
        if *hash != key.hash || !key.verify(text.as_bytes(), signature) {
            return None;
        }
        // What follows is the signer's word; it is read strictly all the same.
        let mut lines = text.lines();
        let origin = lines.next()?.to_owned();
        origin.strip_prefix(&key.name)?.strip_prefix('/')?;
        let note = Self {
            origin,
            size: lines.next()?.parse().ok()?,
            root: STANDARD.decode(lines.next()?).ok()?.try_into().ok()?,
            first: lines.next()?.strip_prefix("first ")?.parse().ok()?,
            time: lines.next()?.strip_prefix("time ")?.parse().ok()?,
            is_last: lines.next().map(|line| line == "last").unwrap_or(false),
            key: key.clone(),
        };
        Some(note)
    }
}

/// The notes of this key in a text, one or many as in a witness file; what is no such note is passed over.
pub fn notes_in(text: &str, key: &VerifierKey) -> Vec<Note> {
    let (mut found, mut paragraph, mut before) = (Vec::new(), String::new(), String::new());
    for line in text.split_inclusive('\n') {
        if line == "\n" {
            before = std::mem::take(&mut paragraph);
        } else if line.starts_with('\u{2014}') && paragraph.is_empty() {
            found.extend(Note::verify(&format!("{before}\n{line}"), key));
        } else {
            paragraph.push_str(line);
        }
    }
    found
}
