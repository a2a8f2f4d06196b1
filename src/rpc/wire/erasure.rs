//! Holds, erasures and statistics on the wire. INVARIANT: as for all of the wire, nothing passes inward but parsed domain
//! types.

use std::mem::take;

use super::{Parsed, given, key, proto, refused, token, wire_time};
use crate::domain::field::{CaseReference, CustomerReference, FieldError, FieldReason};
use crate::domain::id::HoldId;
use crate::domain::vocabulary::{EraseReason, HoldKind};
use crate::vault::{
    EraseSubject, Gated, Gone, HoldShown, Keeping, KeptRecord, PlaceHold, PublishedMonth, SubjectNews, Which,
};
use proto::erase_subject_response::News;

pub(in crate::rpc) fn gone(gone: Gone) -> proto::EraseResponse {
    proto::EraseResponse { erased_at: Some(wire_time(gone.at)), receipt: gone.receipt.unwrap_or_default() }
}

pub(in crate::rpc) fn erase_subject(mut wire: proto::EraseSubjectRequest) -> Parsed<EraseSubject> {
    let reason = match wire.reason() {
        proto::EraseReason::SubjectRequest => EraseReason::SubjectRequest,
        proto::EraseReason::Cancellation => EraseReason::Cancellation,
        proto::EraseReason::Minor => EraseReason::Minor,
        proto::EraseReason::Unspecified | proto::EraseReason::Controller => {
            return refused("reason", FieldReason::Unknown);
        }
    };
    let which = which(take(&mut wire.token), take(&mut wire.subject), true)?;
    Ok(EraseSubject { key: key(take(&mut wire.idempotency_key))?, which, reason })
}

pub(in crate::rpc) fn place_hold(mut wire: proto::PlaceHoldRequest) -> Parsed<PlaceHold> {
    let kind = u8::try_from(wire.kind).ok().and_then(HoldKind::from_code);
    Ok(PlaceHold {
        key: key(take(&mut wire.idempotency_key))?,
        which: which(take(&mut wire.token), take(&mut wire.subject), wire.whole_subject)?,
        kind: kind.ok_or_else(|| FieldError::new("kind", FieldReason::Unknown))?,
        case: CaseReference::parse("case_reference", given("case_reference", take(&mut wire.case_reference))?)?,
    })
}

/// A record, or a subject by one of its records or by its reference.
fn which(text: String, subject: String, whole_subject: bool) -> Parsed<Which> {
    match (text.is_empty(), subject.is_empty()) {
        (true, true) => refused("token", FieldReason::Missing),
        (false, false) => refused("subject", FieldReason::Repeated),
        (true, false) => CustomerReference::parse("subject", subject).map(Which::Subject),
        (false, true) => {
            let token = token("token", &zeroize::Zeroizing::new(text))?;
            Ok(if whole_subject { Which::SubjectOf(token) } else { Which::Record(token) })
        }
    }
}

pub(in crate::rpc) fn news(news: SubjectNews) -> proto::EraseSubjectResponse {
    let news = match news {
        SubjectNews::Progress(destroyed) => News::Destroyed(destroyed),
        SubjectNews::Receipt(receipt) => News::Receipt(receipt),
        SubjectNews::Kept(record) => News::Kept(kept(record)),
    };
    proto::EraseSubjectResponse { news: Some(news) }
}

fn kept(kept: KeptRecord) -> proto::KeptRecord {
    let (reason, hold, waiting_for) = match kept.why {
        Keeping::Held(kind) => (proto::KeepReason::Held, i32::from(kind.code()), Vec::new()),
        Keeping::Waiting(kinds) => {
            (proto::KeepReason::Open, 0, kinds.iter().map(|kind| kind.as_str().to_owned()).collect())
        }
        Keeping::Tampered => (proto::KeepReason::Tampered, 0, Vec::new()),
    };
    proto::KeptRecord {
        token: kept.token.map(|token| token.to_text()).unwrap_or_default(),
        class: i32::from(kept.class.code()),
        reason: reason.into(),
        hold,
        waiting_for,
        until: kept.until.map(wire_time),
    }
}

const HOLD: &str = "hold-";

pub(in crate::rpc) fn hold_id(id: HoldId) -> String {
    format!("{HOLD}{id}")
}

pub(in crate::rpc) fn parse_hold_id(field: &str, text: &str) -> Parsed<HoldId> {
    let id = text.strip_prefix(HOLD).and_then(|number| number.parse().ok()).map(HoldId);
    id.ok_or_else(|| FieldError::new(field, if text.is_empty() { FieldReason::Missing } else { FieldReason::Unknown }))
}

pub(in crate::rpc) fn after(text: &str) -> Parsed<HoldId> {
    if text.is_empty() { Ok(HoldId(i64::MIN)) } else { parse_hold_id("after", text) }
}

pub(in crate::rpc) fn lifted(lifted: Gated<crate::domain::time::Timestamp>) -> proto::LiftHoldResponse {
    use proto::lift_hold_response::Result::{Done, PendingApproval};
    let result = match lifted {
        Gated::Done(at) => Done(wire_time(at)),
        Gated::Pending(pending) => PendingApproval(super::callers::pending(pending)),
    };
    proto::LiftHoldResponse { result: Some(result) }
}

pub(in crate::rpc) fn hold(shown: HoldShown) -> proto::Hold {
    let HoldShown { row, case } = shown;
    proto::Hold {
        hold_id: hold_id(row.id),
        kind: i32::from(row.kind.code()),
        case_reference: case.map(|case| case.as_str().to_owned()).unwrap_or_default(),
        whole_subject: row.record.is_none(),
        placed_by: row.placed_by.to_string(),
        placed_at: Some(wire_time(row.placed_at)),
        lifted_at: row.lifted_at.map(wire_time),
    }
}

/// Both ends of a range of months, each year × 12 + month − 1.
pub(in crate::rpc) fn months(wire: &proto::PublishedRequest) -> Parsed<(i64, i64)> {
    Ok((parse_month("from", &wire.from)?, parse_month("until", &wire.until)?))
}

fn parse_month(field: &str, text: &str) -> Parsed<i64> {
    if text.is_empty() {
        return refused(field, FieldReason::Missing);
    }
    let parse = || {
        let (year, month) = text.split_once('-').filter(|(year, month)| (year.len(), month.len()) == (4, 2))?;
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (year, month): (i64, i64) = (year.parse().ok()?, month.parse().ok()?);
        (is_number(&text.replace('-', "")) && (1..=12).contains(&month)).then_some(year * 12 + month - 1)
    };
    parse().ok_or_else(|| FieldError::new(field, FieldReason::NotAMonth))
}

fn month_text(month: i64) -> String {
    format!("{:04}-{:02}", month.div_euclid(12), month.rem_euclid(12) + 1)
}

pub(in crate::rpc) fn month(published: PublishedMonth) -> proto::PublishedMonth {
    let PublishedMonth { month, cube } = published;
    let cells = cube.cells.into_iter().map(|(cell, records)| proto::PublishedCell {
        class: i32::from(cell.class.code()),
        country: cell.country,
        records,
    });
    proto::PublishedMonth { month: month_text(month), cells: cells.collect(), other: cube.other }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::approval::Verb;

    #[test]
    fn every_enum_of_the_wire_has_the_domains_codes() {
        for kind in HoldKind::ALL {
            let name = format!("HOLD_KIND_{}", kind.as_str().to_uppercase());
            assert_eq!(proto::HoldKind::from_str_name(&name).map(|wire| wire as u8), Some(kind.code()), "{name}");
        }
        let lift = proto::Verb::try_from(i32::from(Verb::LiftHold as u8)).unwrap();
        assert_eq!(lift.as_str_name(), format!("VERB_{}", Verb::LiftHold.name().to_uppercase()));
    }

    #[test]
    fn a_month_goes_to_the_wire_and_back_and_nothing_else_does() {
        for text in ["2026-03", "2026-12", "2026-01", "0001-01"] {
            assert_eq!(month_text(parse_month("from", text).unwrap()), text);
        }
        for bad in ["2026", "2026-3", "2026-13", "2026-00", "+202-03", "2026-+3", "2026-03-01", "March"] {
            assert_eq!(parse_month("from", bad).unwrap_err().reason, FieldReason::NotAMonth, "{bad}");
        }
        assert_eq!(parse_month("from", "").unwrap_err().reason, FieldReason::Missing);
    }

    #[test]
    fn exactly_one_of_token_and_subject_says_who_is_meant() {
        let token = crate::domain::token::Token::from_bytes([1; 20]).to_text();
        let reason = |token: &str, subject: &str| which(token.to_owned(), subject.to_owned(), true).map(drop).err();
        assert_eq!(reason(&token, ""), None);
        assert_eq!(reason("", "anna"), None);
        assert_eq!(reason("", ""), Some(FieldError::new("token", FieldReason::Missing)));
        assert_eq!(reason(&token, "anna"), Some(FieldError::new("subject", FieldReason::Repeated)));
        assert_eq!(reason("srt1", ""), Some(FieldError::new("token", FieldReason::NotAToken)));
    }

    #[test]
    fn a_hold_is_named_by_its_number() {
        assert_eq!(parse_hold_id("hold_id", &hold_id(HoldId(17))).unwrap(), HoldId(17));
        for bad in ["17", "hold-", "hold-x", "grant-17"] {
            assert_eq!(parse_hold_id("hold_id", bad).unwrap_err().reason, FieldReason::Unknown, "{bad}");
        }
    }
}
