//! Explanations and policies on the wire. INVARIANT: as for all of the wire, nothing passes inward but parsed domain types.

use super::callers::pending;
use super::{Parsed, proto, refused, wire_time};
use crate::domain::field::FieldReason;
use crate::policy::retention::{Change, Policy};
use crate::vault::{Explained, Explanation, Gated, PieceDue, Proposed, RecordState, WhyDue};

/// More than any policy needs; every rule is compared on many days.
const LONGEST: usize = 64 * 1024;

pub(in crate::rpc) fn policy(text: &str) -> Parsed<Policy> {
    match text.len() {
        0 => refused("policy", FieldReason::Missing),
        1..=LONGEST => Policy::parse(text).or_else(|_| refused("policy", FieldReason::NotAPolicy)),
        _ => refused("policy", FieldReason::TooLong),
    }
}

pub(in crate::rpc) fn explanation(done: Explanation) -> proto::ExplainRetentionResponse {
    match done {
        Explanation::Erased(reason) => proto::ExplainRetentionResponse {
            state: proto::RecordState::Erased.into(),
            erase_reason: reason.as_str().to_owned(),
            ..Default::default()
        },
        Explanation::Kept(explained) => kept(*explained),
    }
}

fn kept(explained: Explained) -> proto::ExplainRetentionResponse {
    let Explained { state, class, stored_at, policy_id, policy_version, record, pieces } = explained;
    proto::ExplainRetentionResponse {
        state: match state {
            RecordState::Live => proto::RecordState::Live.into(),
            RecordState::Expired => proto::RecordState::Expired.into(),
        },
        class: i32::from(class.code()),
        stored_at: Some(wire_time(stored_at)),
        policy_id,
        policy_version: hex::encode(policy_version.0),
        record: Some(why_due(record)),
        pieces: pieces.into_iter().map(piece_due).collect(),
        erase_reason: String::new(),
    }
}

fn piece_due(PieceDue { piece, is_over, why }: PieceDue) -> proto::PieceDue {
    proto::PieceDue { piece: piece.as_str().to_owned(), over: is_over, why: why.map(why_due) }
}

fn why_due(why: WhyDue) -> proto::WhyDue {
    let (rule, line, source) = why.cited.map(|cited| (cited.rule, cited.line, cited.source)).unwrap_or_default();
    proto::WhyDue {
        due: Some(wire_time(why.due)),
        due_by: why.due_by,
        rule,
        line: u32::try_from(line).unwrap_or(0),
        source,
        waiting_for: why.waiting_for.iter().map(|kind| i32::from(kind.code())).collect(),
    }
}

pub(in crate::rpc) fn proposed(done: Proposed) -> proto::ProposePolicyResponse {
    use proto::propose_policy_response::Result::{Done, PendingApproval};
    let policy_version = hex::encode(done.version.0);
    proto::ProposePolicyResponse {
        changes: done.changes.into_iter().map(change).collect(),
        result: Some(match done.result {
            Gated::Done(()) => Done(proto::PolicyAllowed { policy_version }),
            Gated::Pending(waiting) => PendingApproval(pending(waiting)),
        }),
    }
}

fn change(change: Change) -> proto::PolicyChange {
    proto::PolicyChange {
        rule: change.rule,
        old: change.old.unwrap_or_default(),
        new: change.new.unwrap_or_default(),
        effect: change.effect.as_str().to_owned(),
    }
}
