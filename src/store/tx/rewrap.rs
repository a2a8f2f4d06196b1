//! Moving rows from an older epoch to the active one. INVARIANT: a change is prepared from a snapshot and applied only to a row
//! that still carries the very stamp it was prepared from (a key: still lies under that epoch), and never makes a row: what was
//! erased or changed meanwhile stays so.

use super::{Stamp, Stamped, Tx, View};
use crate::crypto::keyring::EpochKeys;
use crate::crypto::mac::{IndexTag, Mac, mac, verify};
use crate::crypto::slot::Canonical;
use crate::domain::caller::CallerId;
use crate::domain::fault::{Fault, planted};
use crate::domain::id::{AnnouncementId, ApprovalId, DekId, Epoch, GrantId, HoldId, RecordId, SubjectId, TenantId};
use crate::domain::token::TokenDigest;
use crate::policy::cube::{Cell, Who};
use crate::store::StoreError;
use crate::store::rows::erasure::MonthRow;
use crate::store::rows::{DekRow, GrantRow, IndexRow, Row, SubjectRow};

/// Tables whose rows only need a new stamp. Those with keys or tags in them have functions of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    Record,
    Tombstone,
    Hold,
    /// Closed ones; an open one has a key in it.
    Month,
    Tally,
    Meta,
    Caller,
    Approval,
    PolicyInForce,
    Announcement,
}

/// One row of such a table, by its primary key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RowKey {
    Record(RecordId),
    Subject(SubjectId),
    Grant(GrantId),
    Tombstone(TokenDigest),
    Hold(HoldId),
    Month(TenantId, i64),
    Tally(TenantId, i64, Cell, Who),
    Meta(String),
    Caller(CallerId),
    Approval(TenantId, ApprovalId),
    PolicyInForce(TenantId),
    Announcement(AnnouncementId),
}

/// A row with what stamps it, whatever its type.
pub(crate) struct StampedRow {
    key: RowKey,
    table: &'static str,
    canonical: Canonical,
    stamp: Stamp,
}

impl StampedRow {
    pub(crate) fn of<R: Row>(key: impl FnOnce(&R) -> RowKey, (row, stamp): Stamped<R>) -> Self {
        Self { key: key(&row), table: R::TABLE, canonical: row.canonical(), stamp }
    }
}

/// Rows of one table under one epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowsUnder {
    pub table: String,
    pub epoch: Epoch,
    pub rows: u64,
}

/// A row on its way to the active epoch.
#[derive(Clone)]
pub struct Change {
    from: Epoch,
    to: Epoch,
    what: What,
}

#[derive(Clone)]
enum What {
    Dek { id: DekId, record: RecordId, wrapped: Vec<u8> },
    Index { id: i64, tag: IndexTag },
    Month { row: MonthRow, was: Mac },
    Row { key: RowKey, was: Mac, stamp: Stamp, tag: Option<IndexTag> },
}

/// A page of a table under an epoch: `after` is the last number of the page before, or how many rows to pass over where rows
/// have no numbers.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub epoch: Epoch,
    pub after: i64,
    pub limit: usize,
}

/// Rows by their numbers, each with its own verdict, as one that was altered must not hold up the others.
pub type EachOf<Id, R> = Vec<(Id, Mac, Result<R, StoreError>)>;

pub(crate) trait RewrapReads {
    fn has_tables(&self) -> Result<bool, StoreError>;
    /// Every table that has an `epoch` column, whether anyone here knows it or not.
    fn rows_under(&self, epoch: Option<Epoch>) -> Result<Vec<RowsUnder>, StoreError>;
    fn stamped_under(&self, table: Table, page: Page) -> Result<Vec<StampedRow>, StoreError>;
    fn deks_under(&self, page: Page) -> Result<Vec<DekRow>, StoreError>;
    fn subjects_under(&self, page: Page) -> Result<Vec<Stamped<SubjectRow>>, StoreError>;
    fn grants_under(&self, page: Page) -> Result<Vec<Stamped<GrantRow>>, StoreError>;
    fn index_under(&self, page: Page) -> Result<Vec<IndexRow>, StoreError>;
    /// Open months of statistics whose row or key lies under it.
    fn months_under(&self, page: Page) -> Result<Vec<Stamped<MonthRow>>, StoreError>;
    fn subject_of_dek(&self, dek: DekId) -> Result<Option<Stamped<SubjectRow>>, StoreError>;
}

/// Each answers how many rows were still as they had been.
pub(crate) trait RewrapWrites {
    fn rewrap_dek(&self, id: DekId, from: Epoch, to: Epoch, wrapped: &[u8]) -> Result<usize, StoreError>;
    fn retag_index(&self, id: i64, from: Epoch, to: Epoch, tag: &IndexTag) -> Result<usize, StoreError>;
    fn restamp(&self, key: &RowKey, was: &Mac, stamp: &Stamp) -> Result<usize, StoreError>;
    fn retag(&self, key: &RowKey, was: &Mac, stamp: &Stamp, tag: &IndexTag) -> Result<usize, StoreError>;
}

impl View<'_> {
    /// How many rows of each table lie under an epoch, or under each.
    pub fn rows_under(&self, epoch: Option<Epoch>) -> Result<Vec<RowsUnder>, StoreError> {
        self.reads.rows_under(epoch)
    }

    pub fn deks_under(&self, page: Page) -> Result<Vec<DekRow>, StoreError> {
        self.reads.deks_under(page)
    }

    pub fn subjects_under(&self, page: Page) -> Result<EachOf<SubjectId, SubjectRow>, StoreError> {
        Ok(self.reads.subjects_under(page)?.into_iter().map(|row| (row.0.id, row.1.mac, self.checked(row))).collect())
    }

    pub fn grants_under(&self, page: Page) -> Result<EachOf<GrantId, GrantRow>, StoreError> {
        Ok(self.reads.grants_under(page)?.into_iter().map(|row| (row.0.id, row.1.mac, self.checked(row))).collect())
    }

    pub fn index_under(&self, page: Page) -> Result<Vec<IndexRow>, StoreError> {
        self.reads.index_under(page)
    }

    /// Open months of statistics, each by its month's number.
    pub fn months_under(&self, page: Page) -> Result<EachOf<i64, MonthRow>, StoreError> {
        Ok(self.reads.months_under(page)?.into_iter().map(|row| (row.0.month, row.1.mac, self.checked(row))).collect())
    }

    pub fn subject_of_dek(&self, dek: DekId) -> Result<Option<SubjectRow>, StoreError> {
        self.authentic(self.reads.subject_of_dek(dek)?)
    }

    /// The rows of a page under the active epoch's stamp, how many there were, and the last one's number. A row that is not
    /// authentic is left as it is.
    pub fn restamped(&self, table: Table, page: Page) -> Result<(Vec<Change>, usize, i64), StoreError> {
        let (Some(from), to) = (self.keyring.epoch(page.epoch), self.keyring.active()) else {
            return Ok((Vec::new(), 0, page.after));
        };
        let rows = self.reads.stamped_under(table, page)?;
        let (found, mut changes, mut last) = (rows.len(), Vec::with_capacity(rows.len()), page.after);
        for row in rows {
            match &row.key {
                RowKey::Record(id) => last = id.0,
                RowKey::Hold(id) => last = id.0,
                RowKey::Announcement(id) => last = id.0,
                _ => {}
            }
            let bytes = row.canonical.as_bytes();
            if verify(from, row.table, bytes, &row.stamp.mac) {
                let stamp = Stamp { epoch: to.number(), mac: mac(to, row.table, bytes) };
                let what = What::Row { key: row.key, was: row.stamp.mac, stamp, tag: None };
                changes.push(Change { from: page.epoch, to: to.number(), what });
            }
        }
        Ok((changes, found, last))
    }
}

impl Change {
    pub fn dek(row: &DekRow, to: Epoch, wrapped: Vec<u8>) -> Self {
        Self { from: row.epoch, to, what: What::Dek { id: row.id, record: row.record, wrapped } }
    }

    pub fn index(row: &IndexRow, to: Epoch, tag: IndexTag) -> Self {
        Self { from: row.epoch, to, what: What::Index { id: row.id, tag } }
    }

    /// A subject with its tag as of `to`.
    pub fn subject(row: &SubjectRow, from: Epoch, was: Mac, to: &EpochKeys) -> Self {
        Self::row(RowKey::Subject(row.id), Some(row.tag), from, was, super::stamp_under(to, row))
    }

    /// A grant with its tag as of `to`, if it has one.
    pub fn grant(row: &GrantRow, from: Epoch, was: Mac, to: &EpochKeys) -> Self {
        Self::row(RowKey::Grant(row.id), row.tag, from, was, super::stamp_under(to, row))
    }

    /// An open month with its key wrapped under `to`.
    pub fn month(from: Epoch, row: MonthRow, was: Mac, to: &EpochKeys) -> Self {
        Self { from, to: to.number(), what: What::Month { row, was } }
    }

    fn row(key: RowKey, tag: Option<IndexTag>, from: Epoch, was: Mac, stamp: Stamp) -> Self {
        Self { from, to: stamp.epoch, what: What::Row { key, was, stamp, tag } }
    }
}

impl Tx<'_> {
    /// Applies changes to the rows that still lie where they were; answers how many did. `Raced`: the keyring is another one.
    pub fn rewrap(&self, changes: &[Change]) -> Result<usize, StoreError> {
        let mut moved = 0;
        for Change { from, to, what } in changes {
            self.under_the_active(*to)?;
            moved += match what {
                What::Dek { id, record, wrapped } => {
                    let there = self.writes.rewrap_dek(*id, *from, *to, wrapped)?;
                    if there == 0 && planted(Fault::RewrapUpserts) {
                        self.writes.insert_dek(&DekRow {
                            id: *id,
                            record: *record,
                            epoch: *to,
                            wrapped: wrapped.clone(),
                        })?;
                    }
                    there
                }
                What::Index { id, tag } => self.writes.retag_index(*id, *from, *to, tag)?,
                What::Month { row, was } => {
                    let lies = self.view.reads.month(&row.tenant, row.month)?;
                    let is_there = lies.is_some_and(|(_, stamp)| stamp.mac.as_bytes() == was.as_bytes());
                    if is_there {
                        self.put_month(row)?;
                    }
                    usize::from(is_there)
                }
                What::Row { key, was, stamp, tag: None } => self.writes.restamp(key, was, stamp)?,
                What::Row { key, was, stamp, tag: Some(tag) } => self.writes.retag(key, was, stamp, tag)?,
            };
        }
        Ok(moved)
    }
}
