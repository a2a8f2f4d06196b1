//! Strongroom is a PII vault: it keeps the names, addresses and contacts of a shop's customers behind tokens, gives every
//! caller only the fields it may see, encrypts everything at rest, and destroys each record when its retention is over.
//!
//! How a request flows, and where it may not skip:
//! ```text
//! socket → rpc::listener   TLS 1.3, client certificate, CRL, no resumption, handshake time-out
//!        → rpc::identity   exactly one URI SAN, exact trust domain, path grammar → Caller
//!        → rpc::door       enrolled, in force, by its CA and its key; its role among those the RPC names
//!        → rpc::wire       protobuf → domain types: parse, limits, card numbers refused
//!        → vault use case
//!            load     the record's facts, authenticated; its sealed fields
//!            gate 1   policy::release: may this role, for this purpose, see these fields of this class? → Permit
//!            gate 2   facts: same tenant · not due, not erased · grant, window, count
//!            open     only the permitted fields, each bound to its slot → Held
//!            log      one durable write: unchanged since loaded? count, append the entry → Receipt
//!            release  Held + Receipt → plaintext
//!        → rpc::wire       a typed outcome for every field asked for
//! ```
//! Below `rpc` nothing is asynchronous but the wait for a commit. Modules are listed from the bottom up; imports go down only,
//! and a test asserts it.

// In layer order.
pub mod domain;
pub mod policy;
pub mod crypto;
pub mod audit;
pub mod store;
pub mod vault;
pub mod rpc;
pub mod config;
pub mod telemetry;
pub mod cli;
