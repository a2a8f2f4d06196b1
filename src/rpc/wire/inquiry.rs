//! Questions and answers on the wire. INVARIANT: as for all of the wire, nothing passes inward but parsed domain types; what goes
//! out of an entry is all but its subject's tag.

use prost_types::Timestamp as WireTime;

use super::callers::{certificate, hash, named};
use super::{Parsed, grant_id, proto, refused, time, token, wire_time};
use crate::audit::entry::{Actor, Entry, RequestId, Verdict, Whom};
use crate::audit::words::tell;
use crate::domain::caller::Role;
use crate::domain::field::{FieldError, FieldReason};
use crate::domain::id::CallerName;
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::{Class, Field, Outcome, Purpose};
use crate::store::rows::FieldSet;
use crate::vault::{
    Explain, FieldShown, Part, Period, Refusals, Refused, Seen, SeenBy, SubjectSeen, Summary, UnusedGrant,
    UnusedGrants, WhoSaw, WhyUnused,
};

pub(in crate::rpc) fn who_saw(wire: &proto::WhoSawRequest, now: Timestamp) -> Parsed<WhoSaw> {
    let since = match wire.since {
        None => Timestamp(i64::MIN),
        Some(_) => begin(wire.since)?,
    };
    let period = period(since, wire.until, now)?;
    Ok(WhoSaw { token: token("token", &wire.token)?, period, everything: wire.everything })
}

pub(in crate::rpc) fn seen_by(wire: &proto::SeenByRequest, now: Timestamp) -> Parsed<SeenBy> {
    let (caller, certificate) = (named(wire.role, &wire.name)?, certificate(&wire.certificate)?);
    Ok(SeenBy { caller, certificate, period: period(begin(wire.since)?, wire.until, now)? })
}

pub(in crate::rpc) fn refusals(wire: &proto::RefusalsRequest, now: Timestamp) -> Parsed<Refusals> {
    Ok(Refusals { period: period(begin(wire.since)?, wire.until, now)? })
}

pub(in crate::rpc) fn unused_grants(wire: &proto::UnusedGrantsRequest, now: Timestamp) -> Parsed<UnusedGrants> {
    let began_before = match wire.began_before {
        None => now,
        Some(_) => time("began_before", wire.began_before)?,
    };
    Ok(UnusedGrants { began_before })
}

pub(in crate::rpc) fn explain(wire: &proto::ExplainRequest) -> Parsed<Explain> {
    if wire.request_id.is_empty() {
        return refused("request_id", FieldReason::Missing);
    }
    Ok(Explain { request: RequestId(hash("request_id", &wire.request_id)?) })
}

fn begin(since: Option<WireTime>) -> Parsed<Timestamp> {
    time("since", since).map_err(|_| FieldError::new("since", FieldReason::NotAPeriod))
}

/// Without an end, a period goes up to the question itself.
fn period(since: Timestamp, until: Option<WireTime>, now: Timestamp) -> Parsed<Period> {
    let bad = || FieldError::new("until", FieldReason::NotAPeriod);
    let until = match until {
        None => now.plus(1).max(since.plus(1)),
        Some(_) => time("until", until).map_err(|_| bad())?,
    };
    if since < until { Ok(Period { since, until }) } else { Err(bad()) }
}

/// One part of an answer: how far it is, or rows.
fn part<T, W>(part: Part<T>, wire: fn(T) -> W) -> (u32, Vec<W>) {
    match part {
        Part::Read(permille) => (permille.into(), Vec::new()),
        Part::Rows(rows) => (1_000, rows.into_iter().map(wire).collect()),
    }
}

pub(in crate::rpc) fn entries_seen(answer: Part<Entry>) -> proto::WhoSawResponse {
    let (read_permille, entries) = part(answer, entry);
    proto::WhoSawResponse { read_permille, entries }
}

pub(in crate::rpc) fn entries_explained(answer: Part<Entry>) -> proto::ExplainResponse {
    let (read_permille, entries) = part(answer, entry);
    proto::ExplainResponse { read_permille, entries }
}

pub(in crate::rpc) fn refusal_groups(answer: Part<Refused>) -> proto::RefusalsResponse {
    let (read_permille, groups) = part(answer, group);
    proto::RefusalsResponse { read_permille, groups }
}

pub(in crate::rpc) fn grants_unused(answer: Part<UnusedGrant>) -> proto::UnusedGrantsResponse {
    proto::UnusedGrantsResponse { grants: part(answer, grant).1 }
}

pub(in crate::rpc) fn subjects_seen(answer: Part<Seen>) -> proto::SeenByResponse {
    let mut wire = proto::SeenByResponse { read_permille: 1_000, ..Default::default() };
    match answer {
        Part::Read(permille) => wire.read_permille = permille.into(),
        Part::Rows(rows) => rows.into_iter().for_each(|row| match row {
            Seen::Subject(subject) => wire.subjects.push(subject_seen(subject)),
            Seen::Summary(sums) => wire.summary = Some(summary(sums)),
        }),
    }
    wire
}

fn entry(entry: Entry) -> proto::AuditEntry {
    let words = tell(&entry);
    let (role, name, certificate) = match entry.actor {
        Actor::Vault => Default::default(),
        Actor::Caller { role, name, certificate } => (code(role), text(&name), hex::encode(certificate)),
    };
    let (about_role, about_name, about_certificate) = match entry.whom {
        None | Some(Whom::Epoch { .. }) => Default::default(),
        Some(Whom::Caller { role, name }) => (code(role), text(&name), String::new()),
        Some(Whom::Certificate { role, name, certificate }) => (code(role), text(&name), hex::encode(certificate)),
    };
    proto::AuditEntry {
        at: Some(wire_time(entry.at)),
        request_id: entry.request.to_string(),
        role,
        name,
        certificate,
        action: entry.action.to_string(),
        class: entry.class.map_or(0, Class::code).into(),
        purpose: entry.purpose.map_or(0, Purpose::code).into(),
        refusal: match entry.verdict {
            Verdict::Done => String::new(),
            Verdict::Refused(refusal) => refusal.to_string(),
        },
        fields: entry.outcomes.into_iter().map(outcome).collect(),
        about_role,
        about_name,
        about_certificate,
        words,
    }
}

fn code(role: Role) -> i32 {
    i32::from(role as u8)
}

fn text(name: &CallerName) -> String {
    name.as_str().to_owned()
}

fn outcome((field, outcome): (Field, Outcome)) -> proto::FieldOutcome {
    proto::FieldOutcome { field: field.code().into(), outcome: outcome.code().into() }
}

fn group(group: Refused) -> proto::RefusalGroup {
    let (role, name) = group.by.map(|(role, name)| (code(role), text(&name))).unwrap_or_default();
    proto::RefusalGroup {
        refusal: group.code.to_string(),
        why: group.code.meaning().to_owned(),
        action: group.action.to_string(),
        role,
        name,
        times: group.times,
        first: Some(wire_time(group.first)),
        last: Some(wire_time(group.last)),
        last_request_id: group.request.to_string(),
    }
}

fn grant(unused: UnusedGrant) -> proto::UnusedGrant {
    let (grant, state) = (unused.grant, unused.why);
    proto::UnusedGrant {
        grant_id: grant_id(grant.id),
        carrier: text(&grant.carrier),
        parcel: grant.parcel,
        state: match state {
            WhyUnused::Open => proto::UnusedGrantState::Open.into(),
            WhyUnused::Over => proto::UnusedGrantState::Over.into(),
            WhyUnused::Ended => proto::UnusedGrantState::Ended.into(),
        },
        not_before: Some(wire_time(grant.not_before)),
        not_after: Some(wire_time(grant.not_after)),
        ended_at: grant.ended_at.map(wire_time),
        read_limit: grant.read_limit,
    }
}

fn subject_seen(seen: SubjectSeen) -> proto::SubjectSeen {
    proto::SubjectSeen {
        tokens: seen.tokens.iter().map(|token| token.to_text()).collect(),
        times: seen.shown.times,
        first: Some(wire_time(seen.shown.first)),
        last: Some(wire_time(seen.shown.last)),
        granted: codes(seen.shown.granted),
        masked: codes(seen.shown.masked),
    }
}

fn codes(fields: FieldSet) -> Vec<i32> {
    fields.iter().map(|field| field.code().into()).collect()
}

fn summary(sums: Summary) -> proto::SeenSummary {
    proto::SeenSummary {
        answered: sums.answered,
        showed: sums.showed,
        refused: sums.refused,
        subjects: sums.subjects,
        subjects_without_token: sums.without_token,
        gone_subject_days: sums.gone_subject_days,
        fields: sums.fields.into_iter().map(field_seen).collect(),
    }
}

fn field_seen(sum: FieldShown) -> proto::FieldSeen {
    proto::FieldSeen {
        field: sum.field.code().into(),
        outcome: sum.outcome.code().into(),
        times: sum.times,
        subjects: sum.subjects,
        first: Some(wire_time(sum.first)),
        last: Some(wire_time(sum.last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_a_beginning_and_ends_after_it() {
        let at = |micros| Some(wire_time(Timestamp(micros)));
        let ask = |since, until| refusals(&proto::RefusalsRequest { since, until }, Timestamp(9)).map(|ask| ask.period);
        let period = |since, until| Period { since: Timestamp(since), until: Timestamp(until) };
        assert_eq!(ask(at(3), at(4)), Ok(period(3, 4)));
        assert_eq!(ask(at(3), None), Ok(period(3, 10)), "the question's own moment is in it");
        assert_eq!(ask(at(12), None), Ok(period(12, 13)), "what is ahead is empty, not an error");
        let bad = |field| Err(FieldError::new(field, FieldReason::NotAPeriod));
        assert_eq!(ask(None, None), bad("since"));
        assert_eq!(ask(at(4), at(4)), bad("until"));
        assert_eq!(ask(at(4), Some(WireTime { seconds: 0, nanos: -1 })), bad("until"));
    }
}
