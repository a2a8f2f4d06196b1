//! Keys, seals, MACs and where randomness comes from: root key → epoch keys → one DEK per use → one seal per value.
//! INVARIANT: nothing is encrypted or authenticated without naming its place, and no secret leaves its type except
//! through `expose()`.

mod aead;
pub mod entropy;
pub mod envelope;
mod error;
pub mod hunt;
pub mod key;
pub mod keyring;
pub mod line;
pub mod locked;
pub mod mac;
pub mod note;
pub mod page;
mod residue;
pub mod root;
pub mod rotation;
pub mod signer;
pub mod slot;
pub mod state;
pub mod webhook;

pub use error::CryptoError;
