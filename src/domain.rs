//! What the vault speaks of: tenants, callers, records, fields, events, time. INVARIANT: a value of a type in here is valid;
//! parsing happens at the edge, and nothing below this module exists for it.

pub mod announcement;
pub mod caller;
pub mod fault;
pub mod field;
pub mod id;
pub mod time;
pub mod token;
pub mod vocabulary;
