//! What questions read: the log in bulk, and rows by the page. INVARIANT: a page examines a bounded number of rows whoever they
//! belong to, and every row of facts is authenticated before its tenant is believed.

use super::{Stamped, View};
use crate::domain::id::{GrantId, RecordId, SubjectId, TenantId};
use crate::store::StoreError;
use crate::store::rows::{GrantRow, RecordRow, SubjectRow};

pub(crate) trait InquiryReads {
    /// Appends the packed entries of whole batches to `packed`: those from entry `from` on and before `end`, in order, until it
    /// holds `bytes` or there are no more. Answers the entry to go on from; `from` itself when there was none.
    fn audit_entries(&self, from: u64, end: u64, bytes: usize, packed: &mut Vec<u8>) -> Result<u64, StoreError>;
    fn subjects_after(&self, after: SubjectId, limit: usize) -> Result<Vec<Stamped<SubjectRow>>, StoreError>;
    fn records_of(
        &self,
        subject: SubjectId,
        before: RecordId,
        limit: usize,
    ) -> Result<Vec<Stamped<RecordRow>>, StoreError>;
    fn grants_after(&self, after: GrantId, limit: usize) -> Result<Vec<Stamped<GrantRow>>, StoreError>;
}

/// One tenant's rows of a page, and the last id that was examined; `None` once there is nothing behind it.
pub type Page<R, I> = (Vec<R>, Option<I>);

impl View<'_> {
    /// Packed entries of the audit log, appended to `packed`, from entry `from` on and before entry `end` (where a batch ends):
    /// about as many `bytes`. Answers the entry to go on from; `from` itself when there was none.
    pub fn audit_entries(&self, from: u64, end: u64, bytes: usize, packed: &mut Vec<u8>) -> Result<u64, StoreError> {
        self.reads.audit_entries(from, end, bytes, packed)
    }

    /// A tenant's data subjects, oldest first.
    pub fn subjects_after(
        &self,
        tenant: &TenantId,
        after: SubjectId,
        limit: usize,
    ) -> Result<Page<SubjectRow, SubjectId>, StoreError> {
        let rows = self.reads.subjects_after(after, limit)?;
        let rows: Vec<SubjectRow> = rows.into_iter().map(|row| self.checked(row)).collect::<Result<_, _>>()?;
        let next = rows.last().filter(|_| rows.len() == limit).map(|row| row.id);
        Ok((rows.into_iter().filter(|row| row.tenant == *tenant).collect(), next))
    }

    /// A data subject's records, newest first.
    pub fn records_of(&self, subject: SubjectId, before: RecordId, limit: usize) -> Result<Vec<RecordRow>, StoreError> {
        self.reads.records_of(subject, before, limit)?.into_iter().map(|row| self.checked(row)).collect()
    }

    /// A tenant's shipment grants, oldest first.
    pub fn grants_after(
        &self,
        tenant: &TenantId,
        after: GrantId,
        limit: usize,
    ) -> Result<Page<GrantRow, GrantId>, StoreError> {
        let rows = self.reads.grants_after(after, limit)?;
        let rows: Vec<GrantRow> = rows.into_iter().map(|row| self.checked(row)).collect::<Result<_, _>>()?;
        let next = rows.last().filter(|_| rows.len() == limit).map(|row| row.id);
        Ok((rows.into_iter().filter(|row| row.tenant == *tenant).collect(), next))
    }
}
