//! Callers and approvals on the wire. INVARIANT: as for all of the wire, nothing passes inward but parsed domain types.

use super::{Parsed, proto, refused, wire_time};
use crate::domain::caller::{CertificateHash, Role, SpkiHash};
use crate::domain::field::{FieldError, FieldReason};
use crate::domain::id::ApprovalId;
use crate::domain::time::Timestamp;
use crate::policy::approval::{Approval, State};
use crate::policy::enrolment::{BadPins, MAX_PINS, Pins};
use crate::vault::{EnrolCaller, Enrolled, Named, Pending, ReplacePins, ResumeCaller, SuspendCaller};

pub(in crate::rpc) fn enrol_caller(wire: &proto::EnrolCallerRequest) -> Parsed<EnrolCaller> {
    let caller = named(wire.role, &wire.name)?;
    let pins = pins(caller.role, &wire.pins)?;
    let issuer = if wire.issuer.is_empty() { None } else { Some(SpkiHash(hash("issuer", &wire.issuer)?)) };
    Ok(EnrolCaller { caller, issuer, pins })
}

pub(in crate::rpc) fn suspend_caller(wire: &proto::SuspendCallerRequest) -> Parsed<SuspendCaller> {
    Ok(SuspendCaller { caller: named(wire.role, &wire.name)?, certificate: certificate(&wire.certificate)? })
}

pub(in crate::rpc) fn resume_caller(wire: &proto::ResumeCallerRequest) -> Parsed<ResumeCaller> {
    Ok(ResumeCaller { caller: named(wire.role, &wire.name)?, certificate: certificate(&wire.certificate)? })
}

pub(in crate::rpc) fn replace_pins(wire: &proto::ReplacePinsRequest) -> Parsed<ReplacePins> {
    let caller = named(wire.role, &wire.name)?;
    let pins = pins(caller.role, &wire.pins)?;
    Ok(ReplacePins { caller, pins })
}

pub(in crate::rpc) fn approval_id(text: &str) -> Parsed<ApprovalId> {
    if text.is_empty() {
        return refused("approval_id", FieldReason::Missing);
    }
    hash("approval_id", text).map(ApprovalId)
}

pub(super) fn named(role: i32, name: &str) -> Parsed<Named> {
    let role = u8::try_from(role).ok().and_then(Role::from_code);
    let role = role.ok_or_else(|| FieldError::new("role", FieldReason::Unknown))?;
    let name = name.parse().map_err(|_| FieldError::new("name", FieldReason::NotAName))?;
    Ok(Named { role, name })
}

fn pins(role: Role, wire: &[String]) -> Parsed<Pins> {
    if wire.len() > MAX_PINS {
        return refused("pins", FieldReason::TooMany);
    }
    let keys: Vec<SpkiHash> = wire.iter().map(|text| hash("pins", text).map(SpkiHash)).collect::<Parsed<_>>()?;
    Pins::new(role, keys).map_err(|bad| {
        FieldError::new(
            "pins",
            match bad {
                BadPins::Missing => FieldReason::Missing,
                BadPins::TooMany => FieldReason::TooMany,
                BadPins::Repeated => FieldReason::Repeated,
            },
        )
    })
}

pub(super) fn certificate(text: &str) -> Parsed<Option<CertificateHash>> {
    if text.is_empty() { Ok(None) } else { hash("certificate", text).map(|hash| Some(CertificateHash(hash))) }
}

/// `N` bytes in hexadecimal digits.
pub(super) fn hash<const N: usize>(field: &str, text: &str) -> Parsed<[u8; N]> {
    let mut bytes = [0; N];
    let decoded = hex::decode_to_slice(text, &mut bytes);
    decoded.map(|()| bytes).map_err(|_| FieldError::new(field, FieldReason::NotAHash))
}

/// `days_left` asks the clock that certificates go by.
pub(in crate::rpc) fn caller(caller: Enrolled, days_left: impl FnOnce(Timestamp) -> i64) -> proto::Caller {
    let Enrolled { enrolment, certificate_good_until, locked_out_until } = caller;
    let days = certificate_good_until.map_or(0, days_left);
    proto::Caller {
        role: i32::from(enrolment.id.role as u8),
        name: enrolment.id.name.as_str().to_owned(),
        standing: i32::from(enrolment.standing as u8),
        issuer: hex::encode(enrolment.issuer.0),
        pins: enrolment.pins.keys().iter().map(|key| hex::encode(key.0)).collect(),
        suspended_certificates: enrolment.suspended.iter().map(|certificate| hex::encode(certificate.0)).collect(),
        enrolled_by: enrolment.enrolled_by.map(|by| by.to_string()).unwrap_or_default(),
        since: Some(wire_time(enrolment.since)),
        certificate_good_until: certificate_good_until.map(wire_time),
        certificate_days_left: i32::try_from(days).unwrap_or(if days < 0 { i32::MIN } else { i32::MAX }),
        locked_out_until: locked_out_until.map(wire_time),
    }
}

pub(in crate::rpc) fn pending(pending: Pending) -> proto::PendingApproval {
    proto::PendingApproval { approval_id: pending.id.to_string(), expires_at: Some(wire_time(pending.expires_at)) }
}

pub(in crate::rpc) fn approval(approval: Approval, now: Timestamp) -> proto::Approval {
    use proto::ApprovalState as Shown;
    let has_expired = approval.has_expired(now);
    let (state, said, used_at) = match approval.state {
        State::Open if has_expired => (Shown::Expired, None, None),
        State::Open => (Shown::Open, None, None),
        State::Approved(said) if has_expired => (Shown::Expired, Some(said), None),
        State::Approved(said) => (Shown::Approved, Some(said), None),
        State::Rejected(said) => (Shown::Rejected, Some(said), None),
        State::Used(said, at) => (Shown::Used, Some(said), Some(at)),
    };
    let decided_at = said.as_ref().map(|said| wire_time(said.at));
    let (decided_by, decided_key) = said.map(|said| (said.by.to_string(), hex::encode(said.key.0))).unwrap_or_default();
    proto::Approval {
        approval_id: approval.id.to_string(),
        verb: i32::from(approval.verb as u8),
        about: approval.about,
        digest: hex::encode(approval.digest.0),
        state: state.into(),
        asked_by: approval.asked.by.to_string(),
        asked_key: hex::encode(approval.asked.key.0),
        asked_at: Some(wire_time(approval.asked.at)),
        expires_at: Some(wire_time(approval.expires_at)),
        decided_by,
        decided_key,
        decided_at,
        used_at: used_at.map(wire_time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::approval::Verb;
    use crate::policy::enrolment::Standing;

    #[test]
    fn every_enum_of_the_wire_has_the_domains_codes() {
        for code in 1..=u8::MAX {
            let wire = proto::Verb::try_from(i32::from(code)).ok().map(|wire| wire.as_str_name().to_owned());
            let verb = Verb::from_code(code).map(|verb| format!("VERB_{}", verb.name().to_uppercase()));
            assert_eq!(wire, verb, "{code}");
        }
        assert_eq!(proto::CallerStanding::Active as u8, Standing::Active as u8);
        assert_eq!(proto::CallerStanding::Suspended as u8, Standing::Suspended as u8);
    }

    #[test]
    fn a_hash_is_so_many_hexadecimal_digits_and_nothing_else() {
        assert_eq!(approval_id(&"0f".repeat(16)).unwrap(), ApprovalId([15; 16]));
        for bad in ["", "0f", &"0f".repeat(17), &"0g".repeat(16)] {
            assert!(approval_id(bad).is_err(), "{bad}");
        }
    }
}
