//! The manifest of a backup: what the copy is, and until when it is anything. INVARIANT: it is signed by the vault, so a copy is
//! restored only as the vault made it; it names no data subject, and no key or root is in a backup.
//!
//! ```text
//! strongroom/backup/v1
//! made-at 2026-03-01T12:00:00Z
//! bytes 1048576                      of the database's copy, and its SHA-256
//! sha256 9f86…
//! log-entries 4711                   the checkpoint: so many entries has the copy's log, and this is the root of its last tree
//! log-root 3b2c…
//! ledger-line 12                     the last line of the erasure ledger that the copy has heard of
//! epochs 3 4                         whose keys open it
//! generation 9                       of the keyring, at least
//! dead-after 2026-03-31T12:00:00Z    by then every one of those epochs is destroyed, and nobody opens the copy any more
//!
//! — strongroom …
//! ```

use crate::crypto::note::{self, NoteError};
use crate::crypto::signer::{PublicKey, Signer};
use crate::domain::id::{Epoch, Generation};
use crate::domain::time::Timestamp;

const KIND: &str = "strongroom/backup/v1";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    pub made_at: Timestamp,
    pub bytes: u64,
    pub sha256: [u8; 32],
    pub log_entries: u64,
    pub log_root: [u8; 32],
    pub ledger_line: u64,
    /// Oldest first.
    pub epochs: Vec<Epoch>,
    pub generation: Generation,
    pub dead_after: Timestamp,
}

/// Why something is no manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("the signature is good, but this is not what a manifest says; is it of a later version?")]
    NotAManifest,
}

impl Manifest {
    pub fn sign(&self, signer: &Signer) -> String {
        note::sign(note::NAME, signer, &self.text())
    }

    /// What a signed text says, if it is a manifest of that key.
    pub fn verify(signed: &str, key: &PublicKey) -> Result<Self, ManifestError> {
        let text = note::open(signed, KIND, key)?;
        let manifest = parsed(text).ok_or(ManifestError::NotAManifest)?;
        // One spelling only: what is read is what was signed.
        if manifest.text() == text { Ok(manifest) } else { Err(ManifestError::NotAManifest) }
    }

    fn text(&self) -> String {
        let Self { made_at, bytes, sha256, log_entries, log_root, ledger_line, epochs, generation, dead_after } = self;
        let epochs: Vec<String> = epochs.iter().map(ToString::to_string).collect();
        format!(
            "{KIND}\nmade-at {made_at}\nbytes {bytes}\nsha256 {}\nlog-entries {log_entries}\nlog-root {}\n\
             ledger-line {ledger_line}\nepochs {}\ngeneration {generation}\ndead-after {dead_after}\n",
            hex::encode(sha256),
            hex::encode(log_root),
            epochs.join(" "),
        )
    }
}

fn parsed(text: &str) -> Option<Manifest> {
    let mut lines = text.lines().skip(1);
    let mut after = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    Some(Manifest {
        made_at: time(&after("made-at")?)?,
        bytes: after("bytes")?.parse().ok()?,
        sha256: digest(&after("sha256")?)?,
        log_entries: after("log-entries")?.parse().ok()?,
        log_root: digest(&after("log-root")?)?,
        ledger_line: after("ledger-line")?.parse().ok()?,
        epochs: after("epochs")?.split(' ').map(|number| number.parse().ok().map(Epoch)).collect::<Option<_>>()?,
        generation: Generation(after("generation")?.parse().ok()?),
        dead_after: time(&after("dead-after")?)?,
    })
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().map(Timestamp::from_jiff)
}

fn digest(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;

    #[test]
    fn a_manifest_is_what_its_vault_signed_to_the_byte() {
        let signer = Signer::generate(&SeededEntropy::new(1));
        let manifest = Manifest {
            made_at: Timestamp(1_767_571_200_123_456),
            bytes: 4096,
            sha256: [1; 32],
            log_entries: 4711,
            log_root: [2; 32],
            ledger_line: 12,
            epochs: vec![Epoch(3), Epoch(4)],
            generation: Generation(9),
            dead_after: Timestamp(1_770_163_200_123_456),
        };
        let signed = manifest.sign(&signer);
        assert!(signed.contains("\nepochs 3 4\ngeneration 9\ndead-after 2026-02-04T"), "{signed}");
        assert_eq!(Manifest::verify(&signed, &signer.public()), Ok(manifest.clone()));
        let other = Signer::generate(&SeededEntropy::new(2)).public();
        assert_eq!(Manifest::verify(&signed, &other), Err(NoteError::OtherKey.into()));
        for (old, new) in [("bytes 4096", "bytes 04096"), ("epochs 3 4", "epochs"), ("generation 9\n", "")] {
            let text = manifest.text().replacen(old, new, 1);
            let signed = note::sign(note::NAME, &signer, &text);
            assert_eq!(Manifest::verify(&signed, &signer.public()), Err(ManifestError::NotAManifest), "{new}");
        }
        for at in 0..signed.len() {
            let mut bytes = signed.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(Manifest::verify(&text, &signer.public()).is_err(), "byte {at}");
            }
        }
    }
}
