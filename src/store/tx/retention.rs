//! The policy in force, and records by their due, in transactions. INVARIANT: as for every row of facts, authenticated as read and as written.

use super::callers::Each;
use super::{Stamp, Tx, View, one};
use crate::domain::id::{RecordId, TenantId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::rows::retention::PolicyInForceRow;
use crate::store::state::Fact;

pub(crate) trait RetentionReads {
    fn policies_in_force(&self) -> Result<Vec<Each<PolicyInForceRow>>, StoreError>;
    fn records_due_after(
        &self,
        after: (Timestamp, RecordId),
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, RecordId)>, StoreError>;
}

pub(crate) trait RetentionWrites {
    fn put_policy_in_force(&self, row: &PolicyInForceRow, stamp: &Stamp) -> Result<usize, StoreError>;
}

/// How many rows there are, so that one that was deleted is missed.
const COUNT: &str = "policies_in_force";

impl View<'_> {
    /// What every tenant that was ever served lives by.
    pub fn policies_in_force(&self) -> Result<Vec<PolicyInForceRow>, StoreError> {
        let rows = self.reads.policies_in_force()?.into_iter().map(|row| self.checked(row?));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let expected = self.meta_i64(COUNT)?.unwrap_or(0);
        let is_whole = usize::try_from(expected).is_ok_and(|expected| expected == rows.len());
        if is_whole { Ok(rows) } else { Err(StoreError::Tampered { table: "policy_in_force" }) }
    }

    /// Records of whichever tenant by their `due` column, equal ones by id, behind that place and until that instant. The column is
    /// an index; who tells of it computes `due` again.
    pub fn records_due_after(
        &self,
        after: (Timestamp, RecordId),
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, RecordId)>, StoreError> {
        self.reads.records_due_after(after, until, limit)
    }

    /// `None`: this store has not served the tenant yet.
    pub fn policy_in_force(&self, tenant: &TenantId) -> Result<Option<PolicyInForceRow>, StoreError> {
        Ok(self.policies_in_force()?.into_iter().find(|row| row.tenant == *tenant))
    }
}

impl Tx<'_> {
    pub fn put_policy_in_force(&self, row: &PolicyInForceRow) -> Result<(), StoreError> {
        let known = self.policies_in_force()?;
        if known.iter().all(|known| known.tenant != row.tenant) {
            self.set_meta_i64(COUNT, i64::try_from(known.len() + 1).unwrap_or(i64::MAX))?;
        }
        one(self.writes.put_policy_in_force(row, &self.stamp(row)))?;
        self.lost(known.iter().filter(|known| known.tenant == row.tenant).map(Fact::PolicyInForce));
        self.gained(Fact::PolicyInForce(row));
        Ok(())
    }
}
