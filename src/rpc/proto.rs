//! The protocol as generated from `proto/strongroom/v1`, and what its annotations say. INVARIANT: `Debug` of a message prints
//! its name and nothing else, so that no log, error or panic can carry what it holds.

#![expect(clippy::all, reason = "generated code")]

include!(concat!(env!("OUT_DIR"), "/strongroom.v1.rs"));
include!(concat!(env!("OUT_DIR"), "/redacted.rs"));

/// `METHODS`: every RPC's path with the numbers of the roles that may call it. `STREAMS`: those that answer in a stream.
pub mod annotations {
    include!(concat!(env!("OUT_DIR"), "/annotations.rs"));
}

/// The file descriptor set of the protocol, its custom options included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
