//! Why a use case did not do as asked. INVARIANT: an error names fields and tables, never what is in them, and never tells
//! an unknown token from a foreign or a forbidden one.

use crate::crypto::CryptoError;
use crate::domain::field::{FieldError, FieldReason};
use crate::domain::vocabulary::HoldKind;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] FieldError),
    #[error("no such record or grant for this caller")]
    NotFound,
    #[error("the record's revision is another")]
    RevisionConflict,
    #[error("the record was due before this arrived")]
    TooLate,
    #[error("the record is erased")]
    Erased,
    #[error("the record's retention is over")]
    Expired,
    #[error("the idempotency key was used for another request")]
    KeyReused,
    #[error("stored data of {table} failed its authentication")]
    Tampered { table: &'static str },
    #[error("the vault cannot answer durably: {0}")]
    Unavailable(StoreError),
    #[error("this identity is enrolled otherwise")]
    AlreadyEnrolled,
    #[error("this takes a second person")]
    NotTwoPeople,
    #[error("the role does not decide this")]
    RoleNotAllowed,
    #[error("a legal hold ({0}) stands against it")]
    Held(HoldKind),
    #[error("the record is not erased")]
    NotErased,
    #[error("the epoch is active, or something lies under it")]
    EpochInUse,
    #[error("the keyring could not be saved in all its places")]
    KeyringNotSaved,
    #[error("no next root key can be used")]
    NoNextRoot,
    #[error("no folder for backups is configured")]
    NoBackupFolder,
    #[error("the approval is decided, used or out of time")]
    ApprovalOver,
    #[error("the clock is not at the time that was vouched for")]
    ClockAstray,
    #[error("the clock is behind the time that is known to have passed")]
    ClockBehind,
}

impl Error {
    pub(crate) fn invalid(field: &str, reason: FieldReason) -> Self {
        Error::Invalid(FieldError::new(field, reason))
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Tampered { table } | StoreError::Corrupt { table, .. } => Error::Tampered { table },
            other => Error::Unavailable(other),
        }
    }
}

/// What cannot be opened where it lies was altered or moved.
pub(crate) fn unopened(table: &'static str) -> impl FnOnce(CryptoError) -> StoreError {
    move |_| StoreError::Tampered { table }
}
