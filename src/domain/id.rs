//! Identifiers. INVARIANT: no bare integer, string or byte vector names a thing; every id is its own type, and none of
//! them carries personal data.

use std::fmt;

/// One shop. Grammar: `[a-z][a-z0-9-]{0,62}`; it is the first component of every key, AAD and audit entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TenantId(String);

impl TenantId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for TenantId {
    type Err = BadName;
    fn from_str(raw: &str) -> Result<Self, BadName> {
        label(raw).map(Self)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of one workload within its tenant and role (the last segment of its SPIFFE ID). Same grammar as a tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallerName(String);

impl CallerName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for CallerName {
    type Err = BadName;
    fn from_str(raw: &str) -> Result<Self, BadName> {
        label(raw).map(Self)
    }
}

/// The name of one webhook, its operator's choice. Same grammar as a tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HookName(String);

impl HookName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for HookName {
    type Err = BadName;
    fn from_str(raw: &str) -> Result<Self, BadName> {
        label(raw).map(Self)
    }
}

impl fmt::Display for HookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no `[a-z][a-z0-9-]{0,62}`. Carries nothing of what was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 63 characters of a-z, 0-9 and '-', starting with a letter")]
pub struct BadName;

fn label(raw: &str) -> Result<String, BadName> {
    let mut bytes = raw.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
    let follows = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if starts && follows && raw.len() <= 63 { Ok(raw.to_owned()) } else { Err(BadName) }
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}

numbers! {
    /// A record's internal number: grows with time, never leaves the process.
    RecordId(i64);
    /// A data subject's internal number.
    SubjectId(i64);
    /// A shipment grant's number, unique in the store.
    GrantId(i64);
    /// A legal hold's number, unique in the store.
    HoldId(i64);
    /// An announcement's place in the outbox: grows with time, never leaves the process.
    AnnouncementId(i64);
    /// A wrapped data encryption key's number.
    DekId(i64);
    /// A record's revision, from 1; every correction makes the next one.
    Revision(u32);
    /// A key encryption key's epoch, from 1.
    Epoch(u32);
    /// How often the keyring was written, from 1.
    Generation(u64);
}

impl Revision {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// SHA-256 of the policy file a record was collected under.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PolicyVersion(pub [u8; 32]);

/// An approval's number: that of the request which asked for it, so that the log tells the whole story under one number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ApprovalId(pub [u8; 16]);

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The number of a subject's erasure: that of the request which asked for it, so that the log tells it under one number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ErasureId(pub [u8; 16]);

impl fmt::Display for ErasureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_outside_the_grammar_is_refused() {
        for bad in ["", "A", "1a", "-a", "a_b", "a/b", "a.b", "é", &"a".repeat(64)] {
            assert_eq!(bad.parse::<TenantId>(), Err(BadName));
        }
        assert_eq!("shop-1".parse::<TenantId>().unwrap().as_str(), "shop-1");
    }
}
