//! Holds, leaving subjects, erasures' stories and statistics in transactions. INVARIANT: as for every row of facts,
//! authenticated as read and as written.

use super::{Stamp, Stamped, Tx, View, one, stamp_under};
use crate::domain::id::{DekId, Epoch, ErasureId, HoldId, RecordId, SubjectId, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::store::StoreError;
use crate::store::rows::erasure::{HoldRow, MonthRow, MonthState, TallyRow};
use crate::store::rows::{Row as _, SubjectRow, TombstoneRow};
use crate::store::state::Fact;

pub(crate) trait ErasureReads {
    fn deks_of(&self, record: RecordId) -> Result<Vec<(DekId, Epoch)>, StoreError>;
    fn subjects_unseen(&self, limit: usize) -> Result<Vec<SubjectId>, StoreError>;
    fn tombstones_of(
        &self,
        story: ErasureId,
        after: Option<TokenDigest>,
        limit: usize,
    ) -> Result<Vec<Stamped<TombstoneRow>>, StoreError>;
    fn hold(&self, id: HoldId) -> Result<Option<Stamped<HoldRow>>, StoreError>;
    fn holds_of(&self, subject: SubjectId) -> Result<Vec<Stamped<HoldRow>>, StoreError>;
    fn holds(&self, tenant: &TenantId, after: HoldId, limit: usize) -> Result<Vec<Stamped<HoldRow>>, StoreError>;
    fn holds_lifted(&self, before: Timestamp, limit: usize) -> Result<Vec<Stamped<HoldRow>>, StoreError>;
    fn records_due_between(&self, after: Timestamp, until: Timestamp) -> Result<u64, StoreError>;
    fn month(&self, tenant: &TenantId, month: i64) -> Result<Option<Stamped<MonthRow>>, StoreError>;
    fn months(&self, tenant: &TenantId, from: i64, until: i64) -> Result<Vec<Stamped<MonthRow>>, StoreError>;
    fn tally(&self, row: &TallyRow) -> Result<Option<Stamped<TallyRow>>, StoreError>;
    fn tallies(&self, tenant: &TenantId, month: i64) -> Result<Vec<Stamped<TallyRow>>, StoreError>;
    fn has_tallies(&self, tenant: &TenantId, before: i64) -> Result<bool, StoreError>;
}

pub(crate) trait ErasureWrites {
    fn update_subject(&self, row: &SubjectRow, stamp: &Stamp) -> Result<usize, StoreError>;
    fn insert_hold(&self, row: &HoldRow, stamp: &Stamp) -> Result<usize, StoreError>;
    fn update_hold(&self, row: &HoldRow, stamp: &Stamp) -> Result<usize, StoreError>;
    fn delete_hold(&self, id: HoldId) -> Result<usize, StoreError>;
    fn put_month(&self, row: &MonthRow, stamp: &Stamp) -> Result<usize, StoreError>;
    fn put_tally(&self, row: &TallyRow, stamp: &Stamp) -> Result<usize, StoreError>;
    /// Answers the rows that went, `None` for one that cannot be decoded.
    fn delete_tallies(&self, tenant: &TenantId, before: i64, limit: usize)
    -> Result<Vec<Option<TallyRow>>, StoreError>;
}

impl View<'_> {
    /// The keys filed under a record, with the epochs they are wrapped under. Unauthenticated: `record` is only an index.
    pub fn deks_of(&self, record: RecordId) -> Result<Vec<(DekId, Epoch)>, StoreError> {
        self.reads.deks_of(record)
    }

    /// Subjects that leave and have records which nobody has looked at since they were asked to.
    pub fn subjects_unseen(&self, limit: usize) -> Result<Vec<SubjectId>, StoreError> {
        self.reads.subjects_unseen(limit)
    }

    /// What one subject's erasure has destroyed, by digest.
    pub fn tombstones_of(
        &self,
        story: ErasureId,
        after: Option<TokenDigest>,
        limit: usize,
    ) -> Result<Vec<TombstoneRow>, StoreError> {
        self.reads.tombstones_of(story, after, limit)?.into_iter().map(|row| self.checked(row)).collect()
    }

    pub fn hold(&self, id: HoldId) -> Result<Option<HoldRow>, StoreError> {
        self.authentic(self.reads.hold(id)?)
    }

    /// Every hold on a subject or a record of it, lifted ones included.
    pub fn holds_of(&self, subject: SubjectId) -> Result<Vec<HoldRow>, StoreError> {
        self.reads.holds_of(subject)?.into_iter().map(|row| self.checked(row)).collect()
    }

    /// A tenant's holds after that number, oldest first.
    pub fn holds(&self, tenant: &TenantId, after: HoldId, limit: usize) -> Result<Vec<HoldRow>, StoreError> {
        self.reads.holds(tenant, after, limit)?.into_iter().map(|row| self.checked(row)).collect()
    }

    /// Holds of any tenant that were lifted before that instant.
    pub fn holds_lifted(&self, before: Timestamp, limit: usize) -> Result<Vec<HoldRow>, StoreError> {
        self.reads.holds_lifted(before, limit)?.into_iter().map(|row| self.checked(row)).collect()
    }

    /// How many records the index has as due after the one instant and until the other.
    pub fn records_due_between(&self, after: Timestamp, until: Timestamp) -> Result<u64, StoreError> {
        self.reads.records_due_between(after, until)
    }

    pub fn month(&self, tenant: &TenantId, month: i64) -> Result<Option<MonthRow>, StoreError> {
        self.authentic(self.reads.month(tenant, month)?)
    }

    /// A tenant's months of that range, both ends included, in order.
    pub fn months(&self, tenant: &TenantId, from: i64, until: i64) -> Result<Vec<MonthRow>, StoreError> {
        self.reads.months(tenant, from, until)?.into_iter().map(|row| self.checked(row)).collect()
    }

    pub fn tallies(&self, tenant: &TenantId, month: i64) -> Result<Vec<TallyRow>, StoreError> {
        self.reads.tallies(tenant, month)?.into_iter().map(|row| self.checked(row)).collect()
    }

    /// Whether there are rows of months before that one.
    pub fn has_tallies(&self, tenant: &TenantId, before: i64) -> Result<bool, StoreError> {
        self.reads.has_tallies(tenant, before)
    }
}

impl Tx<'_> {
    /// Replaces what the row says of the subject's leaving and its holds, and nothing else.
    pub fn update_subject(&self, row: &SubjectRow) -> Result<(), StoreError> {
        // The row stays under its epoch, as its tag was made under it too, and only a rewrap makes both anew.
        let (old, lies) = self.view.reads.subject(row.id)?.ok_or(StoreError::Raced)?;
        let epoch = self.view.keyring.epoch(lies.epoch).ok_or(StoreError::Tampered { table: SubjectRow::TABLE })?;
        one(self.writes.update_subject(row, &stamp_under(epoch, row)))?;
        self.lost([Fact::Subject(&old)]);
        self.gained(Fact::Subject(row));
        Ok(())
    }

    pub fn insert_hold(&self, row: &HoldRow) -> Result<(), StoreError> {
        one(self.writes.insert_hold(row, &self.stamp(row)))?;
        self.gained(Fact::Hold(row));
        Ok(())
    }

    /// Replaces what lifting changes; everything else about a hold is fixed when it is placed.
    pub fn update_hold(&self, row: &HoldRow) -> Result<(), StoreError> {
        let old = self.view.reads.hold(row.id)?;
        one(self.writes.update_hold(row, &self.stamp(row)))?;
        self.lost(old.as_ref().map(|(old, _)| Fact::Hold(old)));
        self.gained(Fact::Hold(row));
        Ok(())
    }

    pub fn delete_hold(&self, id: HoldId) -> Result<(), StoreError> {
        let old = self.view.reads.hold(id)?;
        one(self.writes.delete_hold(id))?;
        self.lost(old.as_ref().map(|(old, _)| Fact::Hold(old)));
        Ok(())
    }

    pub fn put_month(&self, row: &MonthRow) -> Result<(), StoreError> {
        if let MonthState::Open { epoch, .. } = &row.state {
            self.under_the_active(*epoch)?;
        }
        let old = self.view.reads.month(&row.tenant, row.month)?;
        one(self.writes.put_month(row, &self.stamp(row)))?;
        self.lost(old.as_ref().map(|(old, _)| Fact::Month(old)));
        self.gained(Fact::Month(row));
        Ok(())
    }

    /// One more of a person in a cell of an open month; a month that is not open is `Raced`.
    pub fn count(&self, one_more: &TallyRow) -> Result<(), StoreError> {
        match self.view.month(&one_more.tenant, one_more.month)?.map(|month| month.state) {
            Some(MonthState::Open { .. }) => {}
            Some(MonthState::Closed { .. }) | None => return Err(StoreError::Raced),
        }
        let known = self.view.authentic(self.view.reads.tally(one_more)?)?;
        let count = known.as_ref().map_or(0, |row| row.count).saturating_add(1);
        let row = TallyRow { count, ..one_more.clone() };
        one(self.writes.put_tally(&row, &self.stamp(&row)))?;
        self.lost(known.as_ref().map(Fact::Tally));
        self.gained(Fact::Tally(&row));
        Ok(())
    }

    /// Deletes rows of the months before that one, at most `limit`.
    pub fn delete_tallies(&self, tenant: &TenantId, before: i64, limit: usize) -> Result<usize, StoreError> {
        let gone = self.writes.delete_tallies(tenant, before, limit)?;
        self.lost(gone.iter().flatten().map(Fact::Tally));
        Ok(gone.len())
    }
}
