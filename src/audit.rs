//! What happened, provably whole. INVARIANT: the log is an RFC 6962 tree over canonical entries from the first entry on, and
//! no entry carries a token, a value or anything a client chose.

pub mod entry;
pub mod receipt;
pub mod tree;
pub mod verify;
