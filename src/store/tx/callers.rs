//! Callers and approvals in transactions. INVARIANT: as for every row of facts, authenticated as read and as written.

use super::{Stamp, Stamped, Tx, View, one};
use crate::domain::caller::CallerId;
use crate::domain::id::{ApprovalId, TenantId};
use crate::domain::time::Timestamp;
use crate::policy::approval::Approval;
use crate::policy::enrolment::Enrolment;
use crate::store::StoreError;
use crate::store::state::Fact;

/// A row, or why this one row cannot be decoded.
pub(crate) type Each<R> = Result<Stamped<R>, StoreError>;

pub(crate) trait CallerReads {
    fn enrolment(&self, id: &CallerId) -> Result<Option<Stamped<Enrolment>>, StoreError>;
    fn enrolments(&self) -> Result<Vec<Each<Enrolment>>, StoreError>;
    fn approval(&self, tenant: &TenantId, id: ApprovalId) -> Result<Option<Stamped<Approval>>, StoreError>;
    fn approvals(&self, tenant: &TenantId, asked_since: Timestamp) -> Result<Vec<Each<Approval>>, StoreError>;
}

pub(crate) trait CallerWrites {
    fn insert_enrolment(&self, row: &Enrolment, stamp: &Stamp) -> Result<usize, StoreError>;
    fn update_enrolment(&self, row: &Enrolment, stamp: &Stamp) -> Result<usize, StoreError>;
    fn insert_approval(&self, row: &Approval, stamp: &Stamp) -> Result<usize, StoreError>;
    fn update_approval(&self, row: &Approval, stamp: &Stamp) -> Result<usize, StoreError>;
    /// Answers the rows that went, `None` for one that cannot be decoded.
    fn expire_approvals(
        &self,
        tenant: &TenantId,
        asked_before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Option<Approval>>, StoreError>;
}

impl View<'_> {
    pub fn enrolment(&self, id: &CallerId) -> Result<Option<Enrolment>, StoreError> {
        self.authentic(self.reads.enrolment(id)?)
    }

    /// Every enrolment of every tenant. One that is not authentic is answered as such beside the others, so that it shuts out
    /// nobody else.
    pub fn enrolments(&self) -> Result<Vec<Result<Enrolment, StoreError>>, StoreError> {
        Ok(self.reads.enrolments()?.into_iter().map(|row| self.checked(row?)).collect())
    }

    pub fn approval(&self, tenant: &TenantId, id: ApprovalId) -> Result<Option<Approval>, StoreError> {
        self.authentic(self.reads.approval(tenant, id)?)
    }

    /// A tenant's approvals asked for since then, newest first.
    pub fn approvals(&self, tenant: &TenantId, asked_since: Timestamp) -> Result<Vec<Approval>, StoreError> {
        self.reads.approvals(tenant, asked_since)?.into_iter().map(|row| self.checked(row?)).collect()
    }
}

impl Tx<'_> {
    pub fn insert_enrolment(&self, row: &Enrolment) -> Result<(), StoreError> {
        one(self.writes.insert_enrolment(row, &self.stamp(row)))?;
        self.gained(Fact::Caller(row));
        Ok(())
    }

    /// Replaces the row; `row.version` must be one more than what is stored, else `Raced`.
    pub fn update_enrolment(&self, row: &Enrolment) -> Result<(), StoreError> {
        let old = self.reads.enrolment(&row.id)?;
        one(self.writes.update_enrolment(row, &self.stamp(row)))?;
        self.lost(old.as_ref().map(|(old, _)| Fact::Caller(old)));
        self.gained(Fact::Caller(row));
        Ok(())
    }

    pub fn insert_approval(&self, row: &Approval) -> Result<(), StoreError> {
        one(self.writes.insert_approval(row, &self.stamp(row)))?;
        self.gained(Fact::Approval(row));
        Ok(())
    }

    /// Replaces the state; everything else about an approval is fixed when it is asked for.
    pub fn update_approval(&self, row: &Approval) -> Result<(), StoreError> {
        let old = self.reads.approval(&row.tenant, row.id)?;
        one(self.writes.update_approval(row, &self.stamp(row)))?;
        self.lost(old.as_ref().map(|(old, _)| Fact::Approval(old)));
        self.gained(Fact::Approval(row));
        Ok(())
    }

    pub fn expire_approvals(&self, tenant: &TenantId, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let gone = self.writes.expire_approvals(tenant, before, limit)?;
        self.lost(gone.iter().flatten().map(Fact::Approval));
        Ok(gone.len())
    }
}
