//! What can go wrong with a sealed value. INVARIANT: an error names the malformation, never a byte of the value or key.

use crate::domain::id::Epoch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    #[error("sealed bytes are of an unknown format")]
    UnknownFormat,
    #[error("sealed bytes are cut short")]
    Truncated,
    #[error("sealed bytes do not belong to this place and key")]
    NotAuthentic,
    /// Authentic bytes whose inner layout is not ours: a defect of the writer, not of the storage.
    #[error("sealed bytes open to a malformed plaintext")]
    BadPadding,
    #[error("the plaintext is longer than a sealed value may be")]
    PlaintextTooLong,
    #[error("the keyring holds no key for epoch {0}")]
    UnknownEpoch(Epoch),
}
