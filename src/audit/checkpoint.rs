//! Heads of the log, signed: C2SP tlog-checkpoint in a C2SP signed-note, Ed25519. INVARIANT: a note has exactly one byte form
//! for what it says, `read` takes no other, and what is signed begins with `strongroom/log/`, so that no signature on anything
//! else the vault says serves as one.
//!
//! ```text
//! strongroom/log/shop.example/2026       the origin: this vault's log, its tree of 2026
//! 4711                                   entries of the tree
//! q1Jm…=                                 its RFC 6962 head
//! first 18442                            the number of its first entry in the vault's whole log
//! time 2026-12-31T23:59:59.9Z            when this was said
//! last                                   nothing will be added: the year was over
//!
//! — strongroom/log/shop.example Az3u…=   key's name; key's hash ‖ signature
//! ```
//! The key's name is the log's, without the year: one key verifies all years.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tree::Hash;
use crate::crypto::note;
use crate::crypto::signer::{PublicKey, Signer};
use crate::domain::time::Timestamp;

const KIND: &str = "strongroom/log/";

/// What a vault's log goes by in the world: 1 to 255 of a-z, 0-9, '.', '-' and '_'.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogName(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a log's name is 1 to 255 characters of a-z, 0-9, '.', '-' and '_'")]
pub struct BadLogName;

impl FromStr for LogName {
    type Err = BadLogName;
    fn from_str(raw: &str) -> Result<Self, BadLogName> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let is_name = (1..=255).contains(&raw.len()) && raw.bytes().all(fits);
        if is_name { Ok(Self(raw.to_owned())) } else { Err(BadLogName) }
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A head of one year's tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub name: LogName,
    pub year: i16,
    /// The number of the tree's first entry in the whole log.
    pub first: u64,
    pub size: u64,
    pub root: Hash,
    pub at: Timestamp,
    /// The tree is closed.
    pub is_last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadNote {
    #[error("the text is no checkpoint of a log")]
    Malformed,
    #[error("the checkpoint is not signed by this key")]
    NotSigned,
}

impl Checkpoint {
    pub fn origin(&self) -> String {
        format!("{KIND}{}/{}", self.name, self.year)
    }

    /// What is signed.
    fn text(&self) -> String {
        let Self { size, first, at, .. } = self;
        let last = if self.is_last { "last\n" } else { "" };
        format!("{}\n{size}\n{}\nfirst {first}\ntime {at}\n{last}", self.origin(), STANDARD.encode(self.root))
    }

    /// The note: text, empty line, signature line.
    pub fn sign(&self, signer: &Signer) -> String {
        note::sign(&key_name(&self.name), signer, &self.text())
    }

    /// Reads a note without believing it.
    pub fn read(note: &str) -> Result<Self, BadNote> {
        let (checkpoint, _) = Self::split(note)?;
        Ok(checkpoint)
    }

    /// Reads a note of this vault's own key.
    pub fn verify(note: &str, public: &PublicKey) -> Result<Self, BadNote> {
        let (checkpoint, signature) = Self::split(note)?;
        let key = key_name(&checkpoint.name);
        let signed = signature.strip_prefix(format!("\u{2014} {key} ").as_str()).ok_or(BadNote::NotSigned)?;
        let bytes = STANDARD.decode(signed).map_err(|_| BadNote::Malformed)?;
        let (hash, signature) = bytes.split_first_chunk::<4>().ok_or(BadNote::Malformed)?;
        let signature = signature.try_into().map_err(|_| BadNote::Malformed)?;
        let is_ours = *hash == note::key_id(&key, public) && public.verify(checkpoint.text().as_bytes(), signature);
        if is_ours { Ok(checkpoint) } else { Err(BadNote::NotSigned) }
    }

    /// The checkpoint, and its one signature line.
    fn split(note: &str) -> Result<(Self, &str), BadNote> {
        let (text, signature) = note.split_once("\n\n").ok_or(BadNote::Malformed)?;
        let signature = signature.strip_suffix('\n').filter(|line| !line.contains('\n')).ok_or(BadNote::Malformed)?;
        let checkpoint = Self::parse(text).ok_or(BadNote::Malformed)?;
        // One form for one meaning: leading zeros, other base64 and the like are other texts.
        let is_canonical = checkpoint.text().strip_suffix('\n') == Some(text);
        if is_canonical { Ok((checkpoint, signature)) } else { Err(BadNote::Malformed) }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let (name, year) = lines.next()?.strip_prefix(KIND)?.split_once('/')?;
        let checkpoint = Self {
            name: name.parse().ok()?,
            year: year.parse().ok()?,
            size: lines.next()?.parse().ok()?,
            root: STANDARD.decode(lines.next()?).ok()?.try_into().ok()?,
            first: lines.next()?.strip_prefix("first ")?.parse().ok()?,
            at: Timestamp::from_jiff(lines.next()?.strip_prefix("time ")?.parse().ok()?),
            is_last: match lines.next() {
                None => false,
                Some("last") => true,
                Some(_) => return None,
            },
        };
        lines.next().is_none().then_some(checkpoint)
    }
}

/// The key in the form that verifiers take: name, hash and key, joined by plus signs.
pub fn verifier_key(name: &LogName, public: &PublicKey) -> String {
    note::key_text(&key_name(name), public)
}

fn key_name(name: &LogName) -> String {
    format!("{KIND}{name}")
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::crypto::entropy::SeededEntropy;

    fn sample(is_last: bool) -> Checkpoint {
        let name = "shop.example".parse().unwrap();
        Checkpoint { name, year: 2026, first: 5, size: 4711, root: [7; 32], at: Timestamp(1_000_000), is_last }
    }

    #[test]
    fn a_note_says_what_was_signed_and_verifies_by_its_own_key_alone() {
        let (signer, other) = (Signer::generate(&SeededEntropy::new(1)), Signer::generate(&SeededEntropy::new(2)));
        for is_last in [false, true] {
            let note = sample(is_last).sign(&signer);
            assert_eq!(Checkpoint::verify(&note, &signer.public()), Ok(sample(is_last)));
            assert_eq!(Checkpoint::read(&note), Ok(sample(is_last)));
            assert_eq!(Checkpoint::verify(&note, &other.public()), Err(BadNote::NotSigned));
        }
    }

    #[test]
    fn the_text_is_as_the_specifications_have_it() {
        let signer = Signer::generate(&SeededEntropy::new(1));
        let note = sample(true).sign(&signer);
        let root = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
        let text = format!(
            "strongroom/log/shop.example/2026\n4711\n{root}\nfirst 5\ntime 1970-01-01T00:00:01Z\nlast\n\n\
             \u{2014} strongroom/log/shop.example "
        );
        let signed = STANDARD.decode(note.strip_prefix(text.as_str()).unwrap().trim_end()).unwrap();
        let key = verifier_key(&sample(true).name, &signer.public());
        let [name, hash, encoded] = key.splitn(3, '+').collect::<Vec<_>>().try_into().unwrap();
        assert_eq!((name, hash), ("strongroom/log/shop.example", hex::encode(&signed[..4]).as_str()));
        // SHA-256(name ‖ 0x0a ‖ 0x01 ‖ key) cut to four bytes, made here by hand.
        let encoded = STANDARD.decode(encoded).unwrap();
        assert_eq!(hex::encode(&Sha256::digest([name.as_bytes(), b"\n", &encoded].concat())[..4]), hash);
    }

    #[test]
    fn every_flipped_bit_of_a_note_is_refused() {
        let signer = Signer::generate(&SeededEntropy::new(1));
        let note = sample(true).sign(&signer).into_bytes();
        for bit in 0..note.len() * 8 {
            let mut bad = note.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let Ok(text) = String::from_utf8(bad) else { continue };
            assert!(Checkpoint::verify(&text, &signer.public()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let signer = Signer::generate(&SeededEntropy::new(1));
        let note = sample(false).sign(&signer);
        for bad in [
            note.replace("4711", "04711"),
            note.replace("4711", "+4711"),
            note.replace("/2026", "/02026"),
            note.replace("time 1970-01-01T00:00:01Z", "time 1970-01-01T00:00:01.0Z"),
            note.replace("\n\n", "\nmore\n\n"),
            note.replace("strongroom/log/shop", "strongroom/log/Shop"),
            format!("{note}\u{2014} other AAAA\n"),
            format!("{note}\n"),
            note.trim_end().to_owned(),
            String::new(),
        ] {
            assert_eq!(Checkpoint::read(&bad), Err(BadNote::Malformed), "{bad}");
        }
    }
}
