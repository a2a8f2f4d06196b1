//! Moving what lies under an older epoch to the active one. INVARIANT: nothing is opened but what a tag is made of, and that stays
//! within this file; a row that cannot be judged is left as it is, counted, and keeps its epoch alive.
//!
//! One pass goes through the tables in order, a chunk at a time: prepared from a snapshot here, applied by the writer to the rows
//! that still lie where they were, while the next chunk is prepared. How far it has come is what still lies under the old epoch:
//! nothing else is kept, so a pass that was killed goes on with the next.

use std::ops::ControlFlow;

use super::erase_subject::REFERENCE;
use super::error::unopened;
use super::find::{find_tag, indexable};
use super::loaded::Why;
use super::shipment::{serial_slot, serial_tag};
use super::{Error, Vault};
use crate::crypto::envelope::{Dek, Sealed, WrappedDek, open, unwrap, wrap};
use crate::crypto::keyring::EpochKeys;
use crate::crypto::mac::index_tag;
use crate::crypto::slot::{DekUse, Part, SealSlot, WrapSlot};
use crate::domain::id::{Epoch, RecordId, Revision, SubjectId};
use crate::store::rows::{DekRow, GrantRow, IndexRow, SubjectRow};
use crate::store::{Change, Page, StoreError, Table, View};

/// Rows moved in one transaction: less than a millisecond of the writer's time.
const CHUNK: usize = 128;

/// A stage of a pass. Keys go first: a tag is made anew by whichever key is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Keys,
    Stamps(Table),
    Subjects,
    Grants,
    Index,
    /// Open months of statistics: each has a key in its row.
    Months,
}

const STAGES: &[Stage] = &[
    Stage::Keys,
    Stage::Stamps(Table::Record),
    Stage::Subjects,
    Stage::Grants,
    Stage::Index,
    Stage::Stamps(Table::Tombstone),
    Stage::Stamps(Table::Hold),
    Stage::Months,
    Stage::Stamps(Table::Month),
    Stage::Stamps(Table::Tally),
    Stage::Stamps(Table::Caller),
    Stage::Stamps(Table::Approval),
    Stage::Stamps(Table::PolicyInForce),
    Stage::Stamps(Table::Announcement),
    Stage::Stamps(Table::Meta),
];

/// Some rows of a table on their way.
struct Batch {
    changes: Vec<Change>,
    /// How many were looked at; fewer than a chunk: the table is through.
    found: usize,
    /// The last one's number.
    last: i64,
}

impl Batch {
    fn new(page: Page) -> Self {
        Self { changes: Vec::new(), found: 0, last: page.after }
    }

    /// Takes a row's change in. A row that is spoiled is passed over; any other error ends the batch.
    fn take(&mut self, id: i64, change: Result<Change, StoreError>) -> Result<(), StoreError> {
        (self.found, self.last) = (self.found + 1, id);
        match change {
            Ok(change) => self.changes.push(change),
            Err(StoreError::Tampered { .. } | StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Vault {
    /// One pass over all that lies under `from`; answers how many rows it had changes for, and how many it moved. `pace` is told of each chunk and may end it.
    pub(super) async fn rewrap(
        &self,
        from: Epoch,
        mut pace: impl AsyncFnMut(usize) -> ControlFlow<()>,
    ) -> Result<(u64, u64), Error> {
        let (mut tried, mut moved) = (0, 0);
        for stage in STAGES {
            let mut page = Page { epoch: from, after: if stage.is_numbered() { i64::MIN } else { 0 }, limit: CHUNK };
            let mut in_flight = None;
            loop {
                let Batch { changes, found, last } = self.store().read(|view| self.batch(view, *stage, page))?;
                let (some, passed_over) = (changes.len(), found - changes.len());
                tried += some as u64;
                let started = (some > 0).then(|| self.store().submit("rewrap", move |tx| tx.rewrap(&changes)));
                let done = std::mem::replace(&mut in_flight, started.transpose()?);
                if let Some(done) = done {
                    moved += committed(done).await?;
                }
                if let ControlFlow::Break(()) = pace(some).await {
                    if let Some(last) = in_flight {
                        moved += committed(last).await?;
                    }
                    return Ok((tried, moved));
                }
                page.after =
                    if stage.is_numbered() { last } else { page.after + i64::try_from(passed_over).unwrap_or(0) };
                if found < CHUNK {
                    break;
                }
                if !stage.is_numbered()
                    && let Some(done) = in_flight.take()
                {
                    // Without numbers, the next page is what this one has left behind.
                    moved += committed(done).await?;
                }
            }
            if let Some(last) = in_flight {
                moved += committed(last).await?;
            }
        }
        Ok((tried, moved))
    }

    fn batch(&self, view: &View<'_>, stage: Stage, page: Page) -> Result<Batch, StoreError> {
        let mut batch = Batch::new(page);
        let (Some(from), to) = (view.keyring().epoch(page.epoch), view.keyring().active()) else { return Ok(batch) };
        match stage {
            Stage::Stamps(table) => {
                let (changes, found, last) = view.restamped(table, page)?;
                batch = Batch { changes, found, last };
            }
            Stage::Keys => {
                for row in view.deks_under(page)? {
                    batch.take(row.id.0, self.rewrapped(view, &row, from, to))?;
                }
            }
            Stage::Subjects => {
                for (SubjectId(id), was, row) in view.subjects_under(page)? {
                    let row = row.and_then(|row| self.retagged_subject(view, row, to));
                    batch.take(id, row.map(|row| Change::subject(&row, from.number(), was, to)))?;
                }
            }
            Stage::Grants => {
                for (id, was, row) in view.grants_under(page)? {
                    let row = row.and_then(|row| self.retagged_grant(view, row, to));
                    batch.take(id.0, row.map(|row| Change::grant(&row, from.number(), was, to)))?;
                }
            }
            Stage::Index => {
                for row in view.index_under(page)? {
                    batch.take(row.id, self.reindexed(view, &row, to))?;
                }
            }
            Stage::Months => {
                for (month, was, row) in view.months_under(page)? {
                    let row = row.and_then(|row| self.rewrapped_month(view, &row));
                    batch.take(month, row.map(|row| Change::month(from.number(), row, was, to)))?;
                }
            }
        }
        Ok(batch)
    }

    /// A key under the active epoch, in the very place that it was wrapped for.
    fn rewrapped(&self, view: &View<'_>, row: &DekRow, from: &EpochKeys, to: &EpochKeys) -> Result<Change, StoreError> {
        let lost = StoreError::Tampered { table: "dek" };
        let wrapped = WrappedDek::from_bytes(row.wrapped.clone());
        let again = |old: &WrapSlot<'_>| -> Result<Change, StoreError> {
            let key = unwrap(from, old, &wrapped).map_err(unopened("dek"))?;
            let new = WrapSlot { epoch: to.number(), ..*old };
            let wrapped = wrap(to, &new, &key, self.entropy()).map_err(unopened("dek"))?;
            Ok(Change::dek(row, to.number(), wrapped.as_bytes().to_vec()))
        };
        if row.record == RecordId(0) {
            let subject = view.subject_of_dek(row.id)?.ok_or(lost)?;
            return again(&subject.wrap_slot(row.epoch));
        }
        let record = view.record(row.record)?.ok_or(lost.clone())?;
        if record.dek == row.id {
            return again(&record.wrap_slot(row.epoch, row.id, DekUse::Revision(record.revision)));
        }
        let grant = view.grants_of(record.id)?.into_iter().find(|grant| grant.dek == row.id).ok_or(lost)?;
        again(&record.wrap_slot(row.epoch, row.id, DekUse::Grant(grant.id)))
    }

    fn retagged_subject(&self, view: &View<'_>, mut row: SubjectRow, to: &EpochKeys) -> Result<SubjectRow, StoreError> {
        let dek = view.dek(row.dek)?.ok_or(StoreError::Tampered { table: "dek" })?;
        let key = unwrapped(view, &dek, &row.wrap_slot(dek.epoch))?;
        let (part, revision) = (Part::CustomerReference, Revision(0));
        let slot = SealSlot { tenant: &row.tenant, record: RecordId(0), part, revision, dek: row.dek };
        let sealed = Sealed::from_bytes(row.reference.clone());
        let reference = open(&key, &slot, &sealed).map_err(unopened("subject"))?;
        row.tag = index_tag(to, &row.tenant, REFERENCE, reference.expose());
        Ok(row)
    }

    fn retagged_grant(&self, view: &View<'_>, mut row: GrantRow, to: &EpochKeys) -> Result<GrantRow, StoreError> {
        if row.tag.is_some() {
            let record = view.record(row.record)?.ok_or(StoreError::Tampered { table: "shipment_grant" })?;
            let dek = view.dek(row.dek)?.ok_or(StoreError::Tampered { table: "dek" })?;
            let key = unwrapped(view, &dek, &record.wrap_slot(dek.epoch, dek.id, DekUse::Grant(row.id)))?;
            let slot = serial_slot(&record.tenant, &record, row.id, row.dek);
            let sealed = Sealed::from_bytes(row.serial.clone());
            let serial = open(&key, &slot, &sealed).map_err(unopened("shipment_grant"))?;
            row.tag = Some(serial_tag(to, &row.tenant, &row.carrier, serial.expose()));
        }
        Ok(row)
    }

    fn reindexed(&self, view: &View<'_>, row: &IndexRow, to: &EpochKeys) -> Result<Change, StoreError> {
        let lost = StoreError::Tampered { table: "index_tag" };
        let record = view.record(row.record)?.ok_or(lost.clone())?;
        let loaded = self.loaded(view, record, self.now())?;
        let key = loaded.key(view)?;
        let value = loaded.open_field(view, &key, row.field, &Why::Reindex)?.and_then(|value| indexable(&value));
        let (tenant, class) = (&loaded.row.tenant, loaded.row.class);
        let tag = find_tag(to, tenant, class, row.field, &value.ok_or(lost)?);
        Ok(Change::index(row, to.number(), tag))
    }
}

impl Stage {
    /// Whether the rows have numbers to go on after.
    fn is_numbered(self) -> bool {
        matches!(
            self,
            Self::Keys
                | Self::Subjects
                | Self::Grants
                | Self::Index
                | Self::Stamps(Table::Record | Table::Hold | Table::Announcement)
        )
    }
}

async fn committed(done: tokio::sync::oneshot::Receiver<Result<usize, StoreError>>) -> Result<u64, Error> {
    Ok(done.await.map_err(|_| StoreError::Closed)?? as u64)
}

fn unwrapped(view: &View<'_>, dek: &DekRow, slot: &WrapSlot<'_>) -> Result<Dek, StoreError> {
    let epoch = view.keyring().epoch(dek.epoch).ok_or(StoreError::Tampered { table: "dek" })?;
    unwrap(epoch, slot, &WrappedDek::from_bytes(dek.wrapped.clone())).map_err(unopened("dek"))
}
