//! The index of findable values in transactions. INVARIANT: a row is made under the active epoch, in the transaction that stores
//! its value, and goes with that value.

use super::{Tx, View, one};
use crate::crypto::mac::IndexTag;
use crate::domain::id::{RecordId, SubjectId};
use crate::store::StoreError;
use crate::store::rows::IndexRow;

pub(crate) trait IndexReads {
    fn index_rows(&self, tag: &IndexTag, after: i64, limit: usize) -> Result<Vec<IndexRow>, StoreError>;
    fn record_ids_of(&self, subject: SubjectId, after: i64, limit: usize) -> Result<Vec<RecordId>, StoreError>;
}

pub(crate) trait IndexWrites {
    fn insert_index(&self, row: &IndexRow) -> Result<usize, StoreError>;
    fn delete_index_of(&self, record: RecordId) -> Result<usize, StoreError>;
}

impl View<'_> {
    /// Where a tag leads, oldest first; to be believed of no record whose field does not hold the value.
    pub fn index_rows(&self, tag: &IndexTag, after: i64, limit: usize) -> Result<Vec<IndexRow>, StoreError> {
        self.reads.index_rows(tag, after, limit)
    }

    /// A subject's records, oldest first; to be believed of no record whose own row names another subject.
    pub fn record_ids_of(&self, subject: SubjectId, after: i64, limit: usize) -> Result<Vec<RecordId>, StoreError> {
        self.reads.record_ids_of(subject, after, limit)
    }
}

impl Tx<'_> {
    /// `Raced` when the tag was made under an epoch that is not the active one any more.
    pub fn insert_index(&self, row: &IndexRow) -> Result<(), StoreError> {
        self.under_the_active(row.epoch)?;
        one(self.writes.insert_index(row))
    }

    pub fn delete_index_of(&self, record: RecordId) -> Result<usize, StoreError> {
        self.writes.delete_index_of(record)
    }
}
