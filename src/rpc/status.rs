//! Errors on their way out. INVARIANT: the one place where the vault's errors become gRPC's; every text is fixed, every reason
//! is the protocol's enum, a field is named and never its value, and all that must look alike is byte-equal.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::limits::may_tell;
use super::proto::{ErrorReason, ItemError};
use crate::domain::field::{FieldError, FieldReason};
use crate::domain::vocabulary::HoldKind;
use crate::store::StoreError;
use crate::vault::Error;

const DOMAIN: &str = "strongroom";

pub(super) fn status(error: &Error) -> Status {
    let (code, text) = match error {
        Error::Invalid(invalid) => return invalid_argument(invalid),
        // SECURITY: unknown, foreign and forbidden are one answer: do not reveal who is stored.
        Error::NotFound => (Code::NotFound, "no such record or grant"),
        Error::RevisionConflict => (Code::Aborted, "the record's revision is another; read it again"),
        Error::TooLate => (Code::FailedPrecondition, "the record was due before this arrived"),
        Error::Erased => (Code::FailedPrecondition, "the record is erased"),
        Error::Expired => (Code::FailedPrecondition, "the record's retention is over"),
        Error::KeyReused => (Code::AlreadyExists, "the idempotency key was used for a different request"),
        Error::Tampered { .. } => (Code::DataLoss, "stored data failed its authentication; the operator has been told"),
        Error::Unavailable(cause) => {
            if may_tell() {
                tracing::warn!(%cause, "a call was answered UNAVAILABLE");
            }
            let full = "the vault's disk is full: nothing is stored or read until there is room";
            let text = "the vault cannot answer durably now; retry with the same idempotency key";
            (Code::Unavailable, if matches!(cause, StoreError::DiskFull) { full } else { text })
        }
        Error::AlreadyEnrolled => (Code::AlreadyExists, "the identity is enrolled otherwise"),
        Error::NotTwoPeople => (Code::PermissionDenied, "this takes a second person"),
        Error::RoleNotAllowed => return role_not_allowed(),
        Error::Held(kind) => return held(*kind),
        Error::NotErased => (Code::FailedPrecondition, "the record is not erased"),
        Error::EpochInUse => (Code::FailedPrecondition, "the epoch is the active one, or something lies under it"),
        Error::KeyringNotSaved => {
            (Code::Unavailable, "the keyring could not be saved in all its places; no key has changed; see the log")
        }
        Error::NoNextRoot => {
            (Code::FailedPrecondition, "no next root is configured, or it cannot be used; see the log")
        }
        Error::NoBackupFolder => (Code::FailedPrecondition, "no folder for backups is configured"),
        Error::ApprovalOver => (Code::FailedPrecondition, "the approval is decided, carried out, or out of time"),
        Error::ClockAstray => (Code::FailedPrecondition, "the vault's clock is not at the time that was vouched for"),
        Error::ClockBehind => {
            (Code::FailedPrecondition, "the vault's clock is behind the time that is known to have passed")
        }
    };
    detailed(code, text, reason(error), None)
}

/// The certificate is no longer good, or speaks for nobody here. The log knows why.
pub(super) fn identity_refused() -> Status {
    detailed(Code::Unauthenticated, "the certificate is not accepted", ErrorReason::IdentityRefused, None)
}

pub(super) fn role_not_allowed() -> Status {
    detailed(Code::PermissionDenied, "the certificate's role may not call this", ErrorReason::RoleNotAllowed, None)
}

/// The bytes are none of our messages, too many, or did not arrive in time.
pub(super) fn malformed() -> Status {
    detailed(Code::InvalidArgument, "the request cannot be read", ErrorReason::Malformed, None)
}

/// More calls than the caller's limit.
pub(super) fn rate_limited(again: Duration) -> Status {
    later("more calls than this caller may make; slow down", ErrorReason::RateLimited, again)
}

/// Refused too often before.
pub(super) fn locked_out(again: Duration) -> Status {
    later("this certificate was refused too often and is locked out for a while", ErrorReason::LockedOut, again)
}

fn later(text: &'static str, reason: ErrorReason, again: Duration) -> Status {
    let mut details = told(reason);
    details.set_retry_info(Some(again));
    Status::with_error_details(Code::ResourceExhausted, text, details)
}

/// Alive, but in no state to serve.
pub(super) fn not_ready() -> Status {
    detailed(Code::Unavailable, "the vault refuses until it is restarted", ErrorReason::Unavailable, None)
}

/// No key is in memory. What was not answered can be sent again, with the same idempotency key, once the vault is open.
pub(super) fn sealed() -> Status {
    detailed(Code::Unavailable, "the vault is sealed", ErrorReason::Sealed, None)
}

pub(super) fn cannot_open() -> Status {
    detailed(Code::Unavailable, "the vault does not open; the operator's log tells why", ErrorReason::CannotOpen, None)
}

pub(super) fn too_many_attempts() -> Status {
    detailed(Code::ResourceExhausted, "too many attempts; try again in a second", ErrorReason::Unavailable, None)
}

pub(super) fn invalid_argument(invalid: &FieldError) -> Status {
    detailed(Code::InvalidArgument, "the request is not valid", field_reason(invalid.reason), Some(invalid))
}

/// The same error as one item's result in a batch.
pub(super) fn item_error(error: &Error) -> ItemError {
    let field = match error {
        Error::Invalid(invalid) => invalid.field.clone(),
        _ => String::new(),
    };
    ItemError { reason: reason(error).into(), field }
}

/// Names the hold's kind, and nothing of its case.
fn held(kind: HoldKind) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("HELD", DOMAIN, [("hold".to_owned(), kind.as_str().to_owned())]);
    let text = "a legal hold stands against it; it is lifted by two people";
    Status::with_error_details(Code::FailedPrecondition, text, details)
}

fn name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

fn told(reason: ErrorReason) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    details.set_error_info(name(reason), DOMAIN, std::collections::HashMap::new());
    details
}

fn detailed(code: Code, text: &'static str, reason: ErrorReason, invalid: Option<&FieldError>) -> Status {
    let mut details = told(reason);
    if let Some(invalid) = invalid {
        let name = name(reason);
        details.add_bad_request_violation(invalid.field.as_str(), format!("{name}: {}", invalid.reason));
    }
    Status::with_error_details(code, text, details)
}

fn reason(error: &Error) -> ErrorReason {
    match error {
        Error::Invalid(invalid) => field_reason(invalid.reason),
        Error::NotFound => ErrorReason::NotFound,
        Error::RevisionConflict => ErrorReason::RevisionConflict,
        Error::TooLate => ErrorReason::TooLate,
        Error::Erased => ErrorReason::Erased,
        Error::Expired => ErrorReason::Expired,
        Error::KeyReused => ErrorReason::IdempotencyKeyReused,
        Error::Tampered { .. } => ErrorReason::Tampered,
        Error::Unavailable(StoreError::DiskFull) => ErrorReason::DiskFull,
        Error::Unavailable(_) => ErrorReason::Unavailable,
        Error::AlreadyEnrolled => ErrorReason::AlreadyEnrolled,
        Error::NotTwoPeople => ErrorReason::NotTwoPeople,
        Error::RoleNotAllowed => ErrorReason::RoleNotAllowed,
        Error::Held(_) => ErrorReason::Held,
        Error::NotErased => ErrorReason::NotErased,
        Error::ApprovalOver => ErrorReason::ApprovalOver,
        Error::ClockAstray => ErrorReason::ClockAstray,
        Error::ClockBehind => ErrorReason::ClockBehind,
        Error::EpochInUse => ErrorReason::EpochInUse,
        Error::KeyringNotSaved => ErrorReason::KeyringNotSaved,
        Error::NoNextRoot => ErrorReason::NoNextRoot,
        Error::NoBackupFolder => ErrorReason::NoBackupFolder,
    }
}

fn field_reason(reason: FieldReason) -> ErrorReason {
    match reason {
        FieldReason::Missing => ErrorReason::Missing,
        FieldReason::NotCollected => ErrorReason::NotCollected,
        FieldReason::Unknown => ErrorReason::Unknown,
        FieldReason::Empty => ErrorReason::Empty,
        FieldReason::TooShort => ErrorReason::TooShort,
        FieldReason::TooLong => ErrorReason::TooLong,
        FieldReason::TooMany => ErrorReason::TooMany,
        FieldReason::ControlCharacter => ErrorReason::ControlCharacter,
        FieldReason::CardNumber => ErrorReason::CardNumber,
        FieldReason::NotAPhone => ErrorReason::NotAPhone,
        FieldReason::NotAnEmail => ErrorReason::NotAnEmail,
        FieldReason::NotACountry => ErrorReason::NotACountry,
        FieldReason::NotASerial => ErrorReason::NotASerial,
        FieldReason::NotPrintableAscii => ErrorReason::NotPrintableAscii,
        FieldReason::NotFindable => ErrorReason::NotFindable,
        FieldReason::NotAToken => ErrorReason::NotAToken,
        FieldReason::WrongKind => ErrorReason::WrongKind,
        FieldReason::Repeated => ErrorReason::Repeated,
        FieldReason::NotATime => ErrorReason::NotATime,
        FieldReason::NotAWindow => ErrorReason::NotAWindow,
        FieldReason::NotAName => ErrorReason::NotAName,
        FieldReason::NotInTheLog => ErrorReason::NotInTheLog,
        FieldReason::NotAHash => ErrorReason::NotAHash,
        FieldReason::NotAMonth => ErrorReason::NotAMonth,
        FieldReason::NotAPeriod => ErrorReason::NotAPeriod,
        FieldReason::RetentionOver => ErrorReason::RetentionOver,
        FieldReason::NotAPolicy => ErrorReason::NotAPolicy,
        FieldReason::NotACase => ErrorReason::NotACase,
        FieldReason::NotAShare => ErrorReason::NotAShare,
        FieldReason::OtherShares => ErrorReason::OtherShares,
        FieldReason::WrongShare => ErrorReason::WrongShare,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_reason_keeps_its_name_on_the_wire() {
        for reason in FieldReason::ALL {
            assert_eq!(field_reason(*reason).as_str_name(), format!("ERROR_REASON_{}", reason.as_str()));
        }
    }

    #[test]
    fn who_is_too_fast_is_told_when_to_come_again() {
        for (status, reason) in [
            (rate_limited(Duration::from_millis(300)), "RATE_LIMITED"),
            (locked_out(Duration::from_millis(300)), "LOCKED_OUT"),
        ] {
            let details = status.get_error_details();
            assert_eq!(
                (status.code(), details.error_info().unwrap().reason.as_str()),
                (Code::ResourceExhausted, reason)
            );
            assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_millis(300)));
        }
    }

    #[test]
    fn a_refused_field_is_named_in_the_details() {
        let status = invalid_argument(&FieldError::new("address.lines[1]", FieldReason::CardNumber));
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "CARD_NUMBER");
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "address.lines[1]");
    }
}
