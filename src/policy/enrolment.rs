//! Who may come in. INVARIANT: a certificate alone is no authority: its identity must be enrolled, in force, signed by the CA
//! that the enrolment names, and carry a key that the enrolment pins, where it pins any.

use std::fmt;

use crate::domain::caller::{Caller, CallerId, CertificateHash, Role, SpkiHash};
use crate::domain::time::Timestamp;

/// Roles whose keys must be pinned: a CA that is taken over can mint their names, and not their keys.
pub const PINNED: [Role; 3] = [Role::KeyAdmin, Role::Operator, Role::PrivacyOfficer];

/// Two slots, so that a new key can be brought in before the old one goes.
pub const MAX_PINS: usize = 2;

/// How many certificates of one caller may be suspended one by one; past it, suspend the caller.
pub const MAX_SUSPENDED: usize = 16;

/// Whether an enrolled caller may act. Codes are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Standing {
    Active = 1,
    Suspended = 2,
}

impl Standing {
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Active, Self::Suspended].into_iter().find(|standing| *standing as u8 == code)
    }
}

/// One caller's authority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Enrolment {
    pub id: CallerId,
    /// The key of the CA that issues this caller's certificates.
    pub issuer: SpkiHash,
    pub standing: Standing,
    pub pins: Pins,
    /// Certificates that are refused though the caller is in force.
    pub suspended: Vec<CertificateHash>,
    /// `None`: enrolled on the machine itself.
    pub enrolled_by: Option<CallerId>,
    /// The head of the line of enrolments that led here, itself enrolled on the machine. Two callers of one line may be one
    /// person and its puppets.
    pub line: CallerId,
    pub since: Timestamp,
    /// Counts the changes, from 1.
    pub version: u64,
}

/// Up to two keys, each given once; at least one where the role needs it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pins(Vec<SpkiHash>);

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadPins {
    #[error("this role's key must be pinned")]
    Missing,
    #[error("a caller has two slots for pins")]
    TooMany,
    #[error("the same key is pinned twice")]
    Repeated,
}

impl Pins {
    pub fn new(role: Role, keys: Vec<SpkiHash>) -> Result<Self, BadPins> {
        match keys.as_slice() {
            [] if PINNED.contains(&role) => Err(BadPins::Missing),
            [one, other] if one == other => Err(BadPins::Repeated),
            keys if keys.len() > MAX_PINS => Err(BadPins::TooMany),
            _ => Ok(Self(keys)),
        }
    }

    pub fn keys(&self) -> &[SpkiHash] {
        &self.0
    }

    fn let_in(&self, key: &SpkiHash) -> bool {
        self.0.is_empty() || self.0.contains(key)
    }
}

/// Why an authentic certificate does not let its bearer in. For the log; the caller is told that its identity is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unwelcome {
    NotEnrolled,
    /// The name is enrolled under another role only.
    RoleMismatch,
    Suspended,
    /// This one certificate is suspended.
    CertificateSuspended,
    IssuerMismatch,
    SpkiMismatch,
}

impl fmt::Display for Unwelcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotEnrolled => "not_enrolled",
            Self::RoleMismatch => "role_mismatch",
            Self::Suspended => "suspended",
            Self::CertificateSuspended => "certificate_suspended",
            Self::IssuerMismatch => "issuer_mismatch",
            Self::SpkiMismatch => "spki_mismatch",
        })
    }
}

impl Enrolment {
    /// Whether this enrolment lets `caller` in. Tenant, role and name are those it was found by, and are compared again.
    pub fn admit(&self, caller: &Caller) -> Result<(), Unwelcome> {
        if self.id.role != caller.role {
            return Err(Unwelcome::RoleMismatch);
        }
        let keys = caller.keys.filter(|_| self.id.tenant == caller.tenant && self.id.name == caller.name);
        let keys = keys.ok_or(Unwelcome::NotEnrolled)?;
        if self.standing != Standing::Active {
            return Err(Unwelcome::Suspended);
        }
        if self.suspended.contains(&caller.certificate) {
            return Err(Unwelcome::CertificateSuspended);
        }
        if self.issuer != keys.issuer {
            return Err(Unwelcome::IssuerMismatch);
        }
        if self.pins.let_in(&keys.own) { Ok(()) } else { Err(Unwelcome::SpkiMismatch) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::caller::CallerKeys;

    pub fn enrolment(path: &str, key: u8) -> Enrolment {
        let id: CallerId = path.parse().unwrap();
        let pins = Pins::new(id.role, vec![SpkiHash([key; 32])]).unwrap();
        Enrolment {
            line: id.clone(),
            id,
            issuer: SpkiHash([100; 32]),
            standing: Standing::Active,
            pins,
            suspended: Vec::new(),
            enrolled_by: None,
            since: Timestamp(0),
            version: 1,
        }
    }

    fn caller(path: &str, own: u8, issuer: u8) -> Caller {
        let uri = format!("spiffe://shop.test/{path}");
        let caller = Caller::from_uri(&uri, "shop.test", CertificateHash([7; 32])).unwrap();
        caller.with_keys(CallerKeys { own: SpkiHash([own; 32]), issuer: SpkiHash([issuer; 32]) })
    }

    const ADMIN: &str = "tenant/k/key-admin/anna";

    #[test]
    fn who_is_as_enrolled_comes_in() {
        assert_eq!(enrolment(ADMIN, 1).admit(&caller(ADMIN, 1, 100)), Ok(()));
        let overlap = Pins::new(Role::KeyAdmin, vec![SpkiHash([1; 32]), SpkiHash([2; 32])]).unwrap();
        let enrolled = Enrolment { pins: overlap, ..enrolment(ADMIN, 1) };
        assert_eq!(enrolled.admit(&caller(ADMIN, 2, 100)), Ok(()));
        let unpinned = Enrolment { pins: Pins::default(), ..enrolment("tenant/k/shop/backend", 1) };
        assert_eq!(unpinned.admit(&caller("tenant/k/shop/backend", 9, 100)), Ok(()));
    }

    #[test]
    fn every_way_not_to_be_as_enrolled_has_its_reason() {
        let good = || enrolment(ADMIN, 1);
        let keyless = Caller { keys: None, ..caller(ADMIN, 1, 100) };
        for (enrolled, shown, why) in [
            (good(), caller("tenant/k/operator/anna", 1, 100), Unwelcome::RoleMismatch),
            (good(), caller("tenant/k/key-admin/bert", 1, 100), Unwelcome::NotEnrolled),
            (good(), caller("tenant/other/key-admin/anna", 1, 100), Unwelcome::NotEnrolled),
            (good(), keyless, Unwelcome::NotEnrolled),
            (good(), caller(ADMIN, 2, 100), Unwelcome::SpkiMismatch),
            (good(), caller(ADMIN, 1, 101), Unwelcome::IssuerMismatch),
            (Enrolment { standing: Standing::Suspended, ..good() }, caller(ADMIN, 1, 100), Unwelcome::Suspended),
            (
                Enrolment { suspended: vec![CertificateHash([7; 32])], ..good() },
                caller(ADMIN, 1, 100),
                Unwelcome::CertificateSuspended,
            ),
        ] {
            assert_eq!(enrolled.admit(&shown), Err(why));
        }
    }

    #[test]
    fn pins_are_two_at_most_and_one_at_least_for_who_is_powerful() {
        let keys = |codes: &[u8]| codes.iter().map(|code| SpkiHash([*code; 32])).collect::<Vec<_>>();
        for role in Role::ALL {
            assert_eq!(Pins::new(role, keys(&[])).is_err(), PINNED.contains(&role), "{role:?}");
            assert!(Pins::new(role, keys(&[1, 2])).is_ok());
            assert_eq!(Pins::new(role, keys(&[1, 1])), Err(BadPins::Repeated));
            assert_eq!(Pins::new(role, keys(&[1, 2, 3])), Err(BadPins::TooMany));
        }
    }
}
