//! Protobuf to the domain and back. INVARIANT: nothing passes inward but parsed domain types; a refusal names the request's
//! field; bytes that were parsed are moved, not copied, so that they are wiped with the domain's value.

pub(super) mod audit;
pub(super) mod callers;
pub(super) mod erasure;
pub(super) mod inquiry;
pub(super) mod keys;
pub(super) mod retention;

use std::mem::take;

use prost_types::Timestamp as WireTime;

use super::proto;
use crate::crypto::locked::Memory;
use crate::domain::field::{
    Address, CaseReference, CustomerReference, Email, EmergencyContact, FieldError, FieldReason, FieldValue,
    IdempotencyKey, Name, Note, PaymentAccount, Phone, RawAddress, Serial,
};
use crate::domain::id::{CallerName, GrantId, Revision};
use crate::domain::time::{SECOND, Timestamp};
use crate::domain::token::Token;
use crate::domain::vocabulary::{Class, EraseReason, EventKind, Field, Purpose};
use crate::vault::{
    ConfirmDelivery, Correct, Delivery, Description, Detokenize, Detokenized, Disclose, Erase, Error, Gated,
    GrantShipment, RecordState, Released, ReportEvent, Reported, RevokeShipment, Status, Tokenize, Vault,
};

/// The most fields a request may name; there are fewer in the vocabulary.
const MAX_FIELDS: usize = 16;
/// The most records of one page.
pub(super) const MAX_PAGE: usize = 256;

type Parsed<T> = Result<T, FieldError>;

fn refused<T>(field: &str, reason: FieldReason) -> Parsed<T> {
    Err(FieldError::new(field, reason))
}

pub(super) fn tokenize(mut wire: proto::TokenizeRequest) -> Parsed<Tokenize> {
    let class = class(wire.class)?;
    let key = key(take(&mut wire.idempotency_key))?;
    let subject = CustomerReference::parse("subject", given("subject", take(&mut wire.subject))?)?;
    Ok(Tokenize { key, subject, class, fields: values(take(&mut wire.fields))? })
}

pub(super) fn detokenize(wire: proto::DetokenizeRequest) -> Parsed<Detokenize> {
    let (fields, purpose) = (fields("fields", &wire.fields)?, purpose(wire.purpose)?);
    Ok(Detokenize { token: token("token", &wire.token)?, fields, purpose })
}

pub(super) fn disclose(mut wire: proto::DiscloseRequest) -> Parsed<Disclose> {
    let (fields, case) = (fields("fields", &wire.fields)?, CaseReference::parse("case", take(&mut wire.case))?);
    Ok(Disclose { token: token("token", &wire.token)?, fields, case })
}

/// A page; a token that does not parse refuses its item, not the page.
pub(super) fn batch_detokenize(wire: proto::BatchDetokenizeRequest) -> Parsed<Vec<Parsed<Detokenize>>> {
    let (asked, purpose) = (fields("fields", &wire.fields)?, purpose(wire.purpose)?);
    match wire.tokens.len() {
        0 => refused("tokens", FieldReason::Missing),
        1..=MAX_PAGE => {
            let ask = |text: &String| Ok(Detokenize { token: token("tokens", text)?, fields: asked.clone(), purpose });
            Ok(wire.tokens.iter().map(ask).collect())
        }
        _ => refused("tokens", FieldReason::TooMany),
    }
}

pub(super) fn correct(mut wire: proto::CorrectRequest) -> Parsed<Correct> {
    if wire.if_revision == 0 {
        return refused("if_revision", FieldReason::Missing);
    }
    Ok(Correct {
        key: key(take(&mut wire.idempotency_key))?,
        token: token("token", &wire.token)?,
        if_revision: Revision(wire.if_revision),
        fields: if wire.fields.is_empty() { Vec::new() } else { values(take(&mut wire.fields))? },
        clear: if wire.clear.is_empty() { Vec::new() } else { fields("clear", &wire.clear)? },
    })
}

pub(super) fn erase(mut wire: proto::EraseRequest) -> Parsed<Erase> {
    let reason = match proto::EraseReason::try_from(wire.reason) {
        Ok(proto::EraseReason::SubjectRequest) => EraseReason::SubjectRequest,
        Ok(proto::EraseReason::Cancellation) => EraseReason::Cancellation,
        Ok(proto::EraseReason::Minor) => EraseReason::Minor,
        Ok(proto::EraseReason::Controller) => EraseReason::Controller,
        Ok(proto::EraseReason::Unspecified) | Err(_) => return refused("reason", FieldReason::Unknown),
    };
    Ok(Erase { key: key(take(&mut wire.idempotency_key))?, token: token("token", &wire.token)?, reason })
}

pub(super) fn report_event(mut wire: proto::ReportEventRequest) -> Parsed<ReportEvent> {
    let kind = u8::try_from(wire.kind).ok().and_then(EventKind::from_code);
    Ok(ReportEvent {
        key: key(take(&mut wire.idempotency_key))?,
        token: token("token", &wire.token)?,
        kind: kind.ok_or_else(|| FieldError::new("kind", FieldReason::Unknown))?,
        ordinal: wire.ordinal,
        occurred_at: time("occurred_at", wire.occurred_at)?,
    })
}

/// The serial is parsed by its carrier's own pattern, which exempts it from the card-number refusal.
pub(super) fn grant_shipment(mut wire: proto::GrantShipmentRequest, vault: &Vault) -> Parsed<GrantShipment> {
    let carrier: CallerName = wire.carrier.parse().map_err(|_| FieldError::new("carrier", FieldReason::NotAName))?;
    let serial = Serial::parse("serial", take(&mut wire.serial), vault.serial_pattern(&carrier))?;
    Ok(GrantShipment {
        key: key(take(&mut wire.idempotency_key))?,
        token: token("token", &wire.token)?,
        serial,
        carrier,
        not_before: time("not_before", wire.not_before)?,
        not_after: time("not_after", wire.not_after)?,
        read_limit: wire.read_limit,
        parcel: wire.parcel,
    })
}

pub(super) fn revoke_shipment(mut wire: proto::RevokeShipmentRequest) -> Parsed<RevokeShipment> {
    let grant = wire.grant_id.strip_prefix("grant-").and_then(|number| number.parse().ok()).map(GrantId);
    let grant = grant.ok_or_else(|| FieldError::new("grant_id", FieldReason::Unknown))?;
    Ok(RevokeShipment { key: key(take(&mut wire.idempotency_key))?, grant })
}

pub(super) fn grant_id(id: GrantId) -> String {
    format!("grant-{id}")
}

pub(super) fn serial(raw: String, carrier: &CallerName, vault: &Vault) -> Parsed<Serial> {
    Serial::parse("serial", raw, vault.serial_pattern(carrier))
}

pub(super) fn confirm_delivery(
    mut wire: proto::ConfirmDeliveryRequest,
    carrier: &CallerName,
    vault: &Vault,
) -> Parsed<ConfirmDelivery> {
    Ok(ConfirmDelivery {
        key: key(take(&mut wire.idempotency_key))?,
        serial: serial(take(&mut wire.serial), carrier, vault)?,
        delivered_at: time("delivered_at", wire.delivered_at)?,
    })
}

pub(super) fn token(field: &str, text: &str) -> Parsed<Token> {
    Token::parse(text).map_err(|_| FieldError::new(field, FieldReason::NotAToken))
}

fn key(raw: String) -> Parsed<IdempotencyKey> {
    IdempotencyKey::parse("idempotency_key", given("idempotency_key", raw)?)
}

/// proto3 cannot tell an empty text from none.
fn given(field: &str, raw: String) -> Parsed<String> {
    if raw.is_empty() { refused(field, FieldReason::Missing) } else { Ok(raw) }
}

fn class(code: i32) -> Parsed<Class> {
    let class = u8::try_from(code).ok().and_then(Class::from_code);
    class.ok_or_else(|| FieldError::new("class", FieldReason::Unknown))
}

fn purpose(code: i32) -> Parsed<Purpose> {
    let purpose = u8::try_from(code).ok().and_then(Purpose::from_code);
    purpose.ok_or_else(|| FieldError::new("purpose", FieldReason::Unknown))
}

fn fields(name: &str, codes: &[i32]) -> Parsed<Vec<Field>> {
    if codes.is_empty() {
        return refused(name, FieldReason::Missing);
    }
    if codes.len() > MAX_FIELDS {
        return refused(name, FieldReason::TooMany);
    }
    let mut fields = Vec::with_capacity(codes.len());
    for code in codes {
        match u8::try_from(*code).ok().and_then(Field::from_code) {
            None => return refused(name, FieldReason::Unknown),
            Some(field) if fields.contains(&field) => return refused(name, FieldReason::Repeated),
            Some(field) => fields.push(field),
        }
    }
    Ok(fields)
}

fn values(wire: Vec<proto::FieldValue>) -> Parsed<Vec<FieldValue>> {
    match wire.len() {
        0 => refused("fields", FieldReason::Missing),
        1..=MAX_FIELDS => wire.into_iter().map(value).collect(),
        _ => refused("fields", FieldReason::TooMany),
    }
}

/// One field's value, parsed. A refusal goes by the field's own name: `phone`, `address.lines[0]`.
fn value(wire: proto::FieldValue) -> Parsed<FieldValue> {
    use proto::field_value::Value;
    let field = u8::try_from(wire.field).ok().and_then(Field::from_code);
    let field = field.ok_or_else(|| FieldError::new("fields", FieldReason::Unknown))?;
    let name = field.as_str();
    let raw = wire.value.ok_or_else(|| FieldError::new(name, FieldReason::Missing))?;
    Ok(match (field, raw) {
        (Field::Address, Value::Address(mut raw)) => FieldValue::Address(Address::parse(
            name,
            RawAddress {
                lines: take(&mut raw.lines),
                locality: take(&mut raw.locality),
                region: take(&mut raw.region),
                postal_code: take(&mut raw.postal_code),
                country: take(&mut raw.country),
            },
        )?),
        (Field::EmergencyContact, Value::EmergencyContact(mut raw)) => {
            FieldValue::EmergencyContact(EmergencyContact::parse(name, take(&mut raw.name), take(&mut raw.phone))?)
        }
        (Field::AccountName, Value::Text(raw)) => FieldValue::AccountName(Name::parse(name, raw)?),
        (Field::RecipientName, Value::Text(raw)) => FieldValue::RecipientName(Name::parse(name, raw)?),
        (Field::Phone, Value::Text(raw)) => FieldValue::Phone(Phone::parse(name, raw)?),
        (Field::Email, Value::Text(raw)) => FieldValue::Email(Email::parse(name, raw)?),
        (Field::PaymentAccount, Value::Text(raw)) => FieldValue::PaymentAccount(PaymentAccount::parse(name, raw)?),
        (Field::Note, Value::Text(raw)) => FieldValue::Note(Note::parse(name, raw)?),
        (
            Field::Address
            | Field::EmergencyContact
            | Field::AccountName
            | Field::RecipientName
            | Field::Phone
            | Field::Email
            | Field::PaymentAccount
            | Field::Note,
            Value::Text(_) | Value::Address(_) | Value::EmergencyContact(_),
        ) => return refused(name, FieldReason::WrongKind),
    })
}

fn time(field: &str, wire: Option<WireTime>) -> Parsed<Timestamp> {
    let not_a_time = || FieldError::new(field, FieldReason::NotATime);
    let wire = wire.ok_or_else(not_a_time)?;
    let nanos = i64::from(wire.nanos);
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(not_a_time());
    }
    wire.seconds.checked_mul(SECOND).and_then(|at| at.checked_add(nanos / 1_000)).map(Timestamp).ok_or_else(not_a_time)
}

pub(super) fn vouched(wire: &proto::ConfirmClockRequest) -> Parsed<Timestamp> {
    time("time", wire.time)
}

pub(super) fn wire_time(at: Timestamp) -> WireTime {
    let nanos = i32::try_from(at.0.rem_euclid(SECOND) * 1_000).unwrap_or(0);
    WireTime { seconds: at.0.div_euclid(SECOND), nanos }
}

pub(super) fn detokenized(done: Detokenized) -> proto::DetokenizeResponse {
    let fields = done.fields.into_iter().map(|one| proto::FieldResult {
        field: i32::from(one.field.code()),
        outcome: i32::from(one.outcome.code()),
        value: one.value.map(released),
    });
    proto::DetokenizeResponse { fields: fields.collect(), revision: done.revision.map_or(0, |revision| revision.0) }
}

pub(super) fn disclosed(gated: Gated<Detokenized>) -> proto::DiscloseResponse {
    use proto::disclose_response::Result::{Done, PendingApproval};
    let result = match gated {
        Gated::Done(done) => {
            let proto::DetokenizeResponse { fields, revision } = detokenized(done);
            Done(proto::Disclosure { fields, revision })
        }
        Gated::Pending(pending) => PendingApproval(callers::pending(pending)),
    };
    proto::DiscloseResponse { result: Some(result) }
}

fn released(value: Released) -> proto::field_result::Value {
    use proto::field_result::Value;
    let text = |text: &str| Value::Text(text.to_owned());
    match value {
        Released::Masked(masked) => text(&masked),
        Released::Whole(FieldValue::Address(value)) => Value::Address(address(&value)),
        Released::Whole(FieldValue::EmergencyContact(value)) => Value::EmergencyContact(proto::EmergencyContact {
            name: value.name().expose().to_owned(),
            phone: value.phone().expose().to_owned(),
        }),
        Released::Whole(FieldValue::AccountName(value) | FieldValue::RecipientName(value)) => text(value.expose()),
        Released::Whole(FieldValue::Phone(value)) => text(value.expose()),
        Released::Whole(FieldValue::Email(value)) => text(value.expose()),
        Released::Whole(FieldValue::PaymentAccount(value)) => text(value.expose()),
        Released::Whole(FieldValue::Note(value)) => text(value.expose()),
    }
}

fn address(value: &Address) -> proto::Address {
    proto::Address {
        lines: value.lines().map(str::to_owned).collect(),
        locality: value.locality().to_owned(),
        region: value.region().to_owned(),
        postal_code: value.postal_code().to_owned(),
        country: value.country().to_owned(),
    }
}

/// A carrier's whole reply. A serial that is no text can only come from tampering.
pub(super) fn delivery(done: &Delivery) -> Result<proto::GetDeliveryResponse, Error> {
    let serial = std::str::from_utf8(done.serial.expose()).map_err(|_| Error::Tampered { table: "shipment_grant" })?;
    Ok(proto::GetDeliveryResponse {
        address: Some(address(&done.address)),
        serial: serial.to_owned(),
        phone: done.phone.as_ref().map(|phone| phone.expose().to_owned()).unwrap_or_default(),
    })
}

pub(super) fn reported(done: Reported) -> proto::ReportEventResponse {
    proto::ReportEventResponse { due: Some(wire_time(done.due)), due_by: done.due_by }
}

pub(super) fn description(done: Description) -> proto::DescribeResponse {
    match done {
        Description::Erased(reason) => proto::DescribeResponse {
            state: proto::RecordState::Erased.into(),
            erase_reason: reason.as_str().to_owned(),
            ..Default::default()
        },
        Description::Kept { state, class, revision, stored_at, due, due_by, fields, policy_version, held_by } => {
            proto::DescribeResponse {
                state: match state {
                    RecordState::Live => proto::RecordState::Live.into(),
                    RecordState::Expired => proto::RecordState::Expired.into(),
                },
                class: i32::from(class.code()),
                revision: revision.0,
                stored_at: Some(wire_time(stored_at)),
                due: Some(wire_time(due)),
                due_by,
                fields: fields.into_iter().map(|field| i32::from(field.code())).collect(),
                policy_version: hex::encode(policy_version.0),
                erase_reason: String::new(),
                held_by: held_by.into_iter().map(|kind| i32::from(kind.code())).collect(),
            }
        }
    }
}

pub(super) fn status(status: Status) -> proto::StatusResponse {
    let lag = status.counts.oldest_due.map_or(0, |due| status.mark.since(due) / SECOND);
    let (policy_id, policy_version) = status.policy.unwrap_or_default();
    proto::StatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: Some(wire_time(status.now)),
        started_at: Some(wire_time(status.started_at)),
        records_live: status.counts.records - status.counts.due,
        records_due: status.counts.due,
        tombstones: status.counts.tombstones,
        audit_entries: status.audit_entries,
        audit_root: hex::encode(status.audit_root),
        ledger_entries: status.ledger_entries,
        active_epoch: status.active_epoch.0,
        keyring_generation: status.generation.0,
        root_source: status.root_source,
        sweep_lag_seconds: u64::try_from(lag).unwrap_or(0),
        mark: Some(wire_time(status.mark)),
        warnings: status.warnings,
        sweep_paused: status.paused,
        policy_id,
        policy_version: hex::encode(policy_version),
        protection: Some(proto::Protection {
            key_memory: match status.key_memory {
                Memory::Secret => "memfd_secret",
                Memory::Locked => "mlock",
                Memory::Ordinary => "heap",
            }
            .to_owned(),
            no_core: status.confinement.no_core,
            landlock_abi: status.confinement.landlock_abi,
            seccomp: status.confinement.seccomp,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_enum_of_the_wire_has_the_domains_codes() {
        for field in Field::ALL {
            let name = format!("FIELD_{}", field.as_str().to_uppercase());
            assert_eq!(proto::Field::from_str_name(&name).map(|wire| wire as u8), Some(field.code()), "{name}");
        }
        for purpose in Purpose::ALL {
            let name = format!("PURPOSE_{}", purpose.as_str().to_uppercase());
            assert_eq!(proto::Purpose::from_str_name(&name).map(|wire| wire as u8), Some(purpose.code()), "{name}");
        }
        for kind in EventKind::ALL {
            let name = format!("EVENT_KIND_{}", kind.as_str().to_uppercase());
            assert_eq!(proto::EventKind::from_str_name(&name).map(|wire| wire as u8), Some(kind.code()), "{name}");
        }
        for role in crate::domain::caller::Role::ALL {
            let name = format!("ROLE_{}", role.as_str().to_uppercase().replace('-', "_"));
            assert_eq!(proto::Role::from_str_name(&name).map(|wire| wire as u8), Some(role as u8), "{name}");
        }
        for class in Class::ALL {
            let name = format!("CLASS_{}", class.as_str().to_uppercase());
            assert_eq!(proto::Class::from_str_name(&name).map(|wire| wire as u8), Some(class.code()), "{name}");
        }
        for outcome in crate::domain::vocabulary::Outcome::ALL {
            let name = format!("OUTCOME_{}", outcome.as_str().to_uppercase());
            assert_eq!(proto::Outcome::from_str_name(&name).map(|wire| wire as u8), Some(outcome.code()), "{name}");
        }
    }

    #[test]
    fn a_time_goes_to_the_wire_and_back() {
        for micros in [0, 1, -1, 1_700_000_000_123_456, -62_135_596_800_000_000] {
            assert_eq!(time("at", Some(wire_time(Timestamp(micros)))).unwrap(), Timestamp(micros));
        }
        assert!(time("at", Some(WireTime { seconds: i64::MAX, nanos: 0 })).is_err());
        assert!(time("at", Some(WireTime { seconds: 0, nanos: -1 })).is_err());
    }
}
