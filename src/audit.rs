//! What happened, provably whole. INVARIANT: the log is an RFC 6962 tree over canonical entries from the first entry on, and
//! no entry carries a token, a value or anything a client chose.

pub mod checkpoint;
pub mod entry;
pub mod receipt;
pub mod export;
pub mod log;
pub mod manifest;
pub mod proof;
pub mod tree;
pub mod verify;
pub mod words;
