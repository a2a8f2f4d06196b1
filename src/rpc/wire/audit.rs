//! The log's heads and proofs on the wire. INVARIANT: as for all of the wire, nothing passes inward but parsed domain types.

use super::{Parsed, proto};
use crate::audit::tree::Hash;
use crate::domain::field::{FieldError, FieldReason};
use crate::vault::{InclusionProof, TakeOut};

/// 0 stays 0: the current year.
pub(in crate::rpc) fn year(wire: u32) -> Parsed<i16> {
    let year = i16::try_from(wire).ok().filter(|year| *year <= 9999);
    year.ok_or_else(|| FieldError::new("year", FieldReason::NotInTheLog))
}

pub(in crate::rpc) fn export(wire: &proto::ExportRequest) -> Parsed<TakeOut> {
    Ok(TakeOut { year: year(wire.year)?, from: wire.from_entry, size: wire.size })
}

pub(in crate::rpc) fn hashes(hashes: Vec<Hash>) -> Vec<Vec<u8>> {
    hashes.into_iter().map(|hash| hash.to_vec()).collect()
}

pub(in crate::rpc) fn inclusion(made: InclusionProof) -> proto::InclusionProofResponse {
    proto::InclusionProofResponse {
        note: made.proof.head.note,
        leaf_hash: made.leaf_hash.to_vec(),
        hashes: hashes(made.proof.hashes),
        entry: made.entry.unwrap_or_default(),
    }
}
