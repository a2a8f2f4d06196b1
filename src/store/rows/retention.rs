//! The row about the policy in force. INVARIANT: as for every row, `canonical` names every column.

use super::Row;
use crate::crypto::slot::Canonical;
use crate::domain::id::{PolicyVersion, TenantId};
use crate::domain::time::Timestamp;

/// Which policy a tenant's new records live by.
#[derive(Clone, PartialEq, Debug)]
pub struct PolicyInForceRow {
    pub tenant: TenantId,
    pub version: PolicyVersion,
    pub since: Timestamp,
    /// The one that may take its place though it shortens something; `None`: only one that does not.
    pub allowed: Option<PolicyVersion>,
}

impl Row for PolicyInForceRow {
    const TABLE: &'static str = "policy_in_force";
    fn canonical(&self) -> Canonical {
        Canonical::new("strongroom/row/policy_in_force")
            .bytes(self.tenant.as_str().as_bytes())
            .bytes(&self.version.0)
            .i64(self.since.0)
            .bytes(self.allowed.as_ref().map_or(&[], |version| version.0.as_slice()))
    }
}
