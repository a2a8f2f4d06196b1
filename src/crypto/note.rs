//! Signed notes: text with signatures below it, readable by people, verified by anyone who has the public key.
//! Source: C2SP signed-note (c2sp.org/signed-note), with its Ed25519 keys.
//!
//! INVARIANT: `open` answers a text only when it is, to the byte, what the key signed; a note's first line names its kind,
//! and whoever opens one asks for that kind, so that no signature on one kind of text serves another.
//!
//! ```text
//! strongroom/receipt/v1        the text: its first line is its kind
//! …                            more lines of it
//!                              an empty line
//! — strongroom a1b2c3d4…       em dash, the key's name, base64(key id (4) ‖ signature (64))
//! ```
//! A public key is written `name+key id in hex+base64(1 ‖ key)`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::crypto::signer::{PublicKey, Signer};

/// The name that our keys sign receipts under; a log's heads go by the log's own.
pub const NAME: &str = "strongroom";
/// The signature type of Ed25519.
const ED25519: u8 = 1;
/// No note of ours comes near this; nobody shall make us parse more.
const LONGEST: usize = 1 << 20;

/// Why a text is no note of that key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("this is no signed note: it lacks a text, an empty line, or a signature below it")]
    NotANote,
    #[error("the note is of another kind")]
    OtherKind,
    #[error("the note bears no signature of this key")]
    OtherKey,
    #[error("the signature does not fit the text: one of the two was altered")]
    BadSignature,
    #[error("this is no public key, which is written strongroom+12345678+base64")]
    NotAKey,
}

/// Signs a text, which must consist of lines, under the key's name.
pub fn sign(name: &str, signer: &Signer, text: &str) -> String {
    let signature = [key_id(name, &signer.public()).as_slice(), &signer.sign(text.as_bytes())].concat();
    format!("{text}\n— {name} {}\n", STANDARD.encode(signature))
}

/// The text of a note of that kind, its last line feed included.
pub fn open<'a>(note: &'a str, kind: &str, key: &PublicKey) -> Result<&'a str, NoteError> {
    if note.len() > LONGEST {
        return Err(NoteError::NotANote);
    }
    let split = note.rfind("\n\n").ok_or(NoteError::NotANote)?;
    let (text, signatures) = note.split_at(split + 1);
    let signatures = signatures.strip_prefix('\n').filter(|lines| lines.ends_with('\n')).ok_or(NoteError::NotANote)?;
    if text.bytes().any(|byte| byte < b' ' && byte != b'\n') {
        return Err(NoteError::NotANote);
    }
    if text.lines().next() != Some(kind) {
        return Err(NoteError::OtherKind);
    }
    let mut found = Err(NoteError::OtherKey);
    for line in signatures.lines() {
        let (name, signature) = signature(line).ok_or(NoteError::NotANote)?;
        let Some((id, signature)) = signature.split_first_chunk::<4>().filter(|_| name == NAME) else { continue };
        if *id == key_id(NAME, key) {
            let signature = signature.try_into().map_err(|_| NoteError::BadSignature)?;
            found =
                if key.verify(text.as_bytes(), signature) { Ok(text) } else { return Err(NoteError::BadSignature) };
        }
    }
    found
}

/// `— name base64`.
fn signature(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
    Some((name, STANDARD.decode(signature).ok().filter(|bytes| bytes.len() >= 5)?))
}

/// The public key as it is handed around.
pub fn key_text(name: &str, key: &PublicKey) -> String {
    let bytes = [&[ED25519][..], &key.0].concat();
    format!("{name}+{}+{}", hex::encode(key_id(name, key)), STANDARD.encode(bytes))
}

pub fn parse_key(text: &str) -> Result<PublicKey, NoteError> {
    let parse = || {
        let mut parts = text.trim().splitn(3, '+');
        let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
        let key: [u8; 33] = STANDARD.decode(key).ok()?.try_into().ok()?;
        let (&ED25519, key) = key.split_first()? else { return None };
        let key = PublicKey(key.try_into().ok()?);
        (name == NAME && id == hex::encode(key_id(NAME, &key))).then_some(key)
    };
    parse().ok_or(NoteError::NotAKey)
}

/// The first four bytes of SHA-256(name ‖ line feed ‖ type ‖ key).
pub fn key_id(name: &str, key: &PublicKey) -> [u8; 4] {
    let hash = Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(key.0).finalize();
    let [a, b, c, d, ..] = <[u8; 32]>::from(hash);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;
    use crate::crypto::key::Key;

    const TEXT: &str = "strongroom/receipt/v1\nrecord 00\n";
    const KIND: &str = "strongroom/receipt/v1";

    fn signer(seed: u64) -> Signer {
        Signer::generate(&SeededEntropy::new(seed))
    }

    /// The key is RFC 8032's test 2; id and encodings were computed apart from this code, with Python's hashlib and base64.
    #[test]
    fn the_key_is_written_as_c2sp_says() {
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let signer = Signer::from_seed(Key::filled(|key| *key = seed.try_into().unwrap()));
        let text = key_text(NAME, &signer.public());
        assert_eq!(text, "strongroom+f02a6b3f+AT1AF8PoQ4lakrcKp00bfrycmCzPLsSWjMDNVfEq9GYM");
        assert_eq!(parse_key(&format!("{text}\n")), Ok(signer.public()));
    }

    #[test]
    fn a_note_opens_to_its_text_and_with_its_key_alone() {
        let signer = signer(1);
        let note = sign(NAME, &signer, TEXT);
        assert_eq!(note.lines().nth(2), Some(""));
        assert_eq!(open(&note, KIND, &signer.public()), Ok(TEXT));
        assert_eq!(open(&note, KIND, &self::signer(2).public()), Err(NoteError::OtherKey));
        assert_eq!(open(&note, "strongroom/head/v1", &signer.public()), Err(NoteError::OtherKind));
    }

    #[test]
    fn a_second_signature_by_someone_else_does_no_harm() {
        let signer = signer(1);
        let other = format!("— witness {}\n", STANDARD.encode([7; 68]));
        assert_eq!(open(&(sign(NAME, &signer, TEXT) + &other), KIND, &signer.public()), Ok(TEXT));
    }

    #[test]
    fn every_flipped_bit_of_a_note_is_refused() {
        let signer = signer(1);
        let note = sign(NAME, &signer, TEXT);
        for bit in 0..note.len() * 8 {
            let mut bytes = note.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(altered) = String::from_utf8(bytes) {
                assert!(open(&altered, KIND, &signer.public()).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_no_note_is_named() {
        let signer = signer(1);
        let (public, note) = (signer.public(), sign(NAME, &signer, TEXT));
        let signature = note.lines().last().unwrap();
        let long = format!("{TEXT}{}", "x\n".repeat(LONGEST));
        for (bad, why) in [
            (String::new(), NoteError::NotANote),
            (TEXT.to_owned(), NoteError::NotANote),
            (note.trim_end().to_owned(), NoteError::NotANote),
            (format!("{TEXT}\n{}\n", signature.replace('—', "-")), NoteError::NotANote),
            (format!("{TEXT}\n{signature}!\n"), NoteError::NotANote),
            (format!("{TEXT}\t\n\n{signature}\n"), NoteError::NotANote),
            (sign(NAME, &signer, &long), NoteError::NotANote),
            (format!("{TEXT}more\n\n{signature}\n"), NoteError::BadSignature),
            (format!("{TEXT}\n{signature}\n").replace("record 00", "record 01"), NoteError::BadSignature),
        ] {
            assert_eq!(open(&bad, KIND, &public).map(str::to_owned), Err(why), "{:?}", &bad[..bad.len().min(90)]);
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let text = key_text(NAME, &signer(1).public());
        let (name, rest) = text.split_once('+').unwrap();
        for bad in ["", name, &format!("other+{rest}"), &text[..text.len() - 4], &text.replacen(&rest[..2], "zz", 1)] {
            assert_eq!(parse_key(bad), Err(NoteError::NotAKey), "{bad}");
        }
    }
}
