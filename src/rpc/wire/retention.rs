//! Explanations, forecasts and policies on the wire. INVARIANT: as for all of the wire, nothing passes inward but parsed domain types.

use super::callers::pending;
use super::{MAX_PAGE, Parsed, proto, refused, wire_time};
use crate::domain::field::FieldReason;
use crate::policy::retention::{Change, Policy};
use crate::vault::{
    Explained, Explanation, Forecast, ForecastPage, Gated, Goes, Group, PieceDue, Proposed, RecordGoes, RecordState,
    WhyDue,
};

/// More than any policy needs; every rule is compared on many days.
const LONGEST: usize = 64 * 1024;
/// A year, and a month to plan it in.
const MOST_DAYS: u16 = 400;
/// The records of a page, unless the request says otherwise.
const PAGE: usize = 50;

pub(in crate::rpc) fn policy(text: &str) -> Parsed<Policy> {
    match text.len() {
        0 => refused("policy", FieldReason::Missing),
        1..=LONGEST => Policy::parse(text).or_else(|_| refused("policy", FieldReason::NotAPolicy)),
        _ => refused("policy", FieldReason::TooLong),
    }
}

pub(in crate::rpc) fn forecast(wire: proto::RetentionForecastRequest) -> Parsed<Forecast> {
    let days = days(wire.days)?;
    let page_size = match usize::try_from(wire.page_size) {
        Ok(0) => PAGE,
        Ok(size) if size <= MAX_PAGE => size,
        _ => return refused("page_size", FieldReason::TooMany),
    };
    Ok(Forecast { days, page_size, page_token: wire.page_token })
}

/// Sums come in whole pages: those of one record would be that record.
pub(in crate::rpc) fn outlook(wire: proto::RetentionOutlookRequest) -> Parsed<Forecast> {
    Ok(Forecast { days: days(wire.days)?, page_size: MAX_PAGE, page_token: wire.page_token })
}

fn days(days: u32) -> Parsed<u16> {
    match u16::try_from(days) {
        Ok(0) => refused("days", FieldReason::Missing),
        Ok(days) if days <= MOST_DAYS => Ok(days),
        _ => refused("days", FieldReason::TooMany),
    }
}

pub(in crate::rpc) fn forecast_page(page: ForecastPage) -> proto::RetentionForecastResponse {
    proto::RetentionForecastResponse {
        asked_at: Some(wire_time(page.asked_at)),
        until: Some(wire_time(page.until)),
        zone: page.zone,
        tenant: page.tenant.to_string(),
        records: page.records.into_iter().map(record_goes).collect(),
        groups: page.groups.into_iter().map(group).collect(),
        altered: page.altered,
        reached: Some(wire_time(page.reached)),
        page_token: page.page_token,
    }
}

pub(in crate::rpc) fn outlook_page(page: ForecastPage) -> proto::RetentionOutlookResponse {
    proto::RetentionOutlookResponse {
        asked_at: Some(wire_time(page.asked_at)),
        until: Some(wire_time(page.until)),
        zone: page.zone,
        groups: page.groups.into_iter().map(group).collect(),
        altered: page.altered,
        reached: Some(wire_time(page.reached)),
        page_token: page.page_token,
    }
}

fn record_goes(going: RecordGoes) -> proto::ForecastRecord {
    proto::ForecastRecord {
        digest: hex::encode(going.digest.0),
        token: going.token.map(|token| token.to_text()).unwrap_or_default(),
        class: i32::from(going.class.code()),
        goes: going.goes.into_iter().map(disappearance).collect(),
    }
}

fn disappearance(Goes { piece, ending, why, held_by }: Goes) -> proto::Disappearance {
    proto::Disappearance {
        piece: piece.map(|piece| piece.as_str().to_owned()).unwrap_or_default(),
        ending: ending as i32,
        why: Some(why_due(why)),
        held_by: held_by.map_or(0, |kind| i32::from(kind.code())),
    }
}

fn group((group, records): (Group, u64)) -> proto::ForecastGroup {
    let Group { day, class, piece, ending, due_by, rule, source, held_by } = group;
    proto::ForecastGroup {
        day: day.to_string(),
        class: i32::from(class.code()),
        piece: piece.map(|piece| piece.as_str().to_owned()).unwrap_or_default(),
        ending: ending as i32,
        due_by,
        rule,
        source,
        held_by: held_by.map_or(0, |kind| i32::from(kind.code())),
        records,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::field::FieldError;
    use crate::vault::Ending;

    #[test]
    fn a_forecast_is_of_1_to_400_days_and_256_records_a_page() {
        let ask =
            |days, page_size| forecast(proto::RetentionForecastRequest { days, page_size, page_token: Vec::new() });
        let refused = |days, page_size| ask(days, page_size).map(drop).err();
        assert_eq!((ask(1, 0).unwrap().page_size, ask(400, 256).unwrap().days), (PAGE, 400));
        assert_eq!(refused(0, 1), Some(FieldError::new("days", FieldReason::Missing)));
        for days in [401, 65_536, u32::MAX] {
            assert_eq!(refused(days, 1), Some(FieldError::new("days", FieldReason::TooMany)), "{days}");
        }
        assert_eq!(refused(7, 257), Some(FieldError::new("page_size", FieldReason::TooMany)));
    }

    #[test]
    fn every_ending_has_the_protocols_number() {
        for (ending, name) in [
            (Ending::Purged, "ENDING_PURGED"),
            (Ending::Desensitized, "ENDING_DESENSITIZED"),
            (Ending::Erased, "ENDING_ERASED"),
            (Ending::Shredded, "ENDING_SHREDDED"),
        ] {
            assert_eq!(proto::Ending::from_str_name(name).map(i32::from), Some(ending as i32), "{name}");
        }
    }
}
