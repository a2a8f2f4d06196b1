//! The policy in force in transactions. INVARIANT: as for every row of facts, authenticated as read and as written.

use super::{Stamp, Stamped, Tx, View, one};
use crate::domain::id::TenantId;
use crate::store::StoreError;
use crate::store::rows::retention::PolicyInForceRow;

pub(crate) trait RetentionReads {
    fn policy_in_force(&self, tenant: &TenantId) -> Result<Option<Stamped<PolicyInForceRow>>, StoreError>;
}

pub(crate) trait RetentionWrites {
    fn put_policy_in_force(&self, row: &PolicyInForceRow, stamp: &Stamp) -> Result<usize, StoreError>;
}

impl View<'_> {
    /// `None`: this store has not served the tenant yet.
    pub fn policy_in_force(&self, tenant: &TenantId) -> Result<Option<PolicyInForceRow>, StoreError> {
        self.authentic(self.reads.policy_in_force(tenant)?)
    }
}

impl Tx<'_> {
    pub fn put_policy_in_force(&self, row: &PolicyInForceRow) -> Result<(), StoreError> {
        one(self.writes.put_policy_in_force(row, &self.stamp(row)))
    }
}
