//! Key epochs and finding on the wire. INVARIANT: as for all of the wire, nothing passes inward but parsed domain types.

use std::mem::take;

use super::{MAX_PAGE, Parsed, class, given, proto, purpose, refused, time, wire_time};
use crate::crypto::rotation::Stage;
use crate::domain::field::{CustomerReference, Email, FieldReason, Phone};
use crate::domain::id::Epoch;
use crate::domain::time::{DAY, Timestamp};
use crate::vault::{Find, FoundTokens, Gated, ListedEpoch, ListedKeys, Pending, PostponeEpoch, Progress, Sought};

/// The records of a page, unless the request says otherwise.
const PAGE: usize = 50;

pub(in crate::rpc) fn find(mut wire: proto::FindRequest) -> Parsed<Find> {
    use proto::find_request::By;
    let (purpose, class) = (purpose(wire.purpose)?, class(wire.class)?);
    let by = match wire.by.take() {
        None => return refused("by", FieldReason::Missing),
        Some(By::Email(raw)) => Sought::Email(Email::parse("email", given("email", raw)?)?),
        Some(By::Phone(raw)) => Sought::Phone(Phone::parse("phone", given("phone", raw)?)?),
        Some(By::CustomerReference(raw)) => {
            let field = "customer_reference";
            Sought::CustomerReference(CustomerReference::parse(field, given(field, raw)?)?)
        }
    };
    let page_size = match usize::try_from(wire.page_size) {
        Ok(0) => PAGE,
        Ok(size) if size <= MAX_PAGE => size,
        _ => return refused("page_size", FieldReason::TooMany),
    };
    Ok(Find { purpose, class, by, page_size, page_token: take(&mut wire.page_token) })
}

pub(in crate::rpc) fn found(found: FoundTokens) -> proto::FindResponse {
    let tokens = found.tokens.iter().map(|token| token.to_text()).collect();
    proto::FindResponse { tokens, page_token: found.page_token }
}

pub(in crate::rpc) fn postpone_epoch(wire: &proto::PostponeEpochRequest) -> Parsed<PostponeEpoch> {
    Ok(PostponeEpoch { epoch: epoch("epoch", wire.epoch)?, until: time("until", wire.until)? })
}

pub(in crate::rpc) fn epoch(field: &str, number: u32) -> Parsed<Epoch> {
    if number == 0 { refused(field, FieldReason::Missing) } else { Ok(Epoch(number)) }
}

pub(in crate::rpc) fn progress(progress: Progress) -> proto::RotateKekResponse {
    let Progress { active, rows_moved, rows_left } = progress;
    proto::RotateKekResponse { active_epoch: active.0, rows_left, rows_moved }
}

pub(in crate::rpc) fn destroyed(epoch: Epoch, gated: Gated<()>) -> proto::DestroyEpochResponse {
    use proto::destroy_epoch_response::Result::{Done, PendingApproval};
    let result = match gated {
        Gated::Done(()) => Done(proto::EpochDestroyed { epoch: epoch.0 }),
        Gated::Pending(pending) => PendingApproval(self::pending(pending)),
    };
    proto::DestroyEpochResponse { result: Some(result) }
}

pub(in crate::rpc) fn postponed(epoch: Epoch, gated: Gated<Timestamp>) -> proto::PostponeEpochResponse {
    use proto::postpone_epoch_response::Result::{Done, PendingApproval};
    let result = match gated {
        Gated::Done(until) => Done(proto::EpochPostponed { epoch: epoch.0, until: Some(wire_time(until)) }),
        Gated::Pending(pending) => PendingApproval(self::pending(pending)),
    };
    proto::PostponeEpochResponse { result: Some(result) }
}

fn pending(pending: Pending) -> proto::PendingApproval {
    super::callers::pending(pending)
}

pub(in crate::rpc) fn listed(keys: ListedKeys) -> proto::ListKeysResponse {
    let copies = keys.copies.into_iter().map(|copy| proto::KeyringCopy {
        path: copy.path.display().to_string(),
        generation: copy.generation.map_or(0, |generation| generation.0),
    });
    let days = keys.schedule.horizon() / DAY + i64::from(keys.schedule.horizon() % DAY > 0);
    proto::ListKeysResponse {
        generation: keys.generation.0,
        epochs: keys.epochs.into_iter().map(key_epoch).collect(),
        copies: copies.collect(),
        backup_horizon_days: u32::try_from(days).unwrap_or(u32::MAX),
        warnings: keys.warnings,
    }
}

fn key_epoch(listed: ListedEpoch) -> proto::KeyEpoch {
    let ListedEpoch { facts, stage, postponed_until, rows } = listed;
    let (state, until, rewrap_by, destroy_at) = match stage {
        Stage::Prepared => (proto::EpochState::Prepared, None, None, None),
        Stage::Active { until } => (proto::EpochState::Active, Some(until), None, None),
        Stage::Retiring { rewrap_by, destroy_at } => {
            (proto::EpochState::Retiring, None, Some(rewrap_by), Some(destroy_at))
        }
    };
    proto::KeyEpoch {
        epoch: facts.number.0,
        state: state.into(),
        created_at: Some(wire_time(facts.created_at)),
        active_since: facts.active_since.map(wire_time),
        active_until: until.map(wire_time),
        rewrap_by: rewrap_by.map(wire_time),
        destroy_at: destroy_at.map(wire_time),
        postponed_until: postponed_until.map(wire_time),
        rows: rows.into_iter().map(|rows| proto::RowsUnderEpoch { table: rows.table, rows: rows.rows }).collect(),
    }
}
