//! Destroying a record: the one way, whoever asks (a timer, a person, a restored ledger). INVARIANT: the erasure ledger holds
//! the line before the commit; the commit removes keys, values, grants and the row at once, so there is no half; the
//! write-ahead log is truncated before anyone is told. What remains is a tombstone, until its time, and for a desensitized
//! record one more in a counter.

use super::loaded::{Loaded, Why};
use super::{Error, Vault};
use crate::domain::field::FieldValue;
use crate::domain::time::{DAY, Timestamp};
use crate::domain::vocabulary::{EraseReason, Field};
use crate::store::ledger::{LedgerEntry, LedgerEvent};
use crate::store::rows::{RecordRow, TombstoneRow};
use crate::store::{StoreError, Tx, View};

/// How long a token keeps answering "erased" before it is simply unknown.
const TOMBSTONE: i64 = 400 * DAY;

/// When an erased record was.
pub(crate) fn erased_at(tombstone: &TombstoneRow) -> Timestamp {
    tombstone.until.plus(-TOMBSTONE)
}

/// The cell of the statistics that a desensitized record adds to.
#[derive(Clone)]
pub(crate) struct Cell {
    pub(crate) country: String,
    pub(crate) month: i64,
}

/// Destroys the record within `tx`, by the ledger's line that the same commit waits for. The caller logs.
pub(crate) fn destroy(
    tx: &mut Tx<'_>,
    record: &RecordRow,
    reason: EraseReason,
    cell: Option<&Cell>,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.note_erasure(LedgerEntry {
        at: now,
        tenant: record.tenant.clone(),
        record: record.digest,
        event: LedgerEvent::Erased(reason),
    });
    destroy_noted(tx, record, reason, cell, now)
}

/// `destroy` for what the ledger already tells of.
pub(crate) fn destroy_noted(
    tx: &Tx<'_>,
    record: &RecordRow,
    reason: EraseReason,
    cell: Option<&Cell>,
    now: Timestamp,
) -> Result<(), StoreError> {
    // The keys first: if anything below were ever split off, this would be the point of no return.
    tx.delete_deks_of(record.id)?;
    // A key's `record` is only an index: what the authenticated rows name goes whatever that says.
    let grants = tx.grants_of(record.id)?;
    for dek in grants.iter().map(|grant| grant.dek).chain([record.dek]) {
        if tx.dek(dek)?.is_some() {
            tx.delete_dek(dek)?;
        }
    }
    tx.delete_sealed_of(record.id)?;
    tx.delete_index_of(record.id)?;
    tx.delete_grants_of(record.id)?;
    tx.blank_idempotency_of(record.id)?;
    tx.delete_record(record.id)?;
    let until = now.plus(TOMBSTONE);
    let (digest, tenant) = (record.digest, record.tenant.clone());
    tx.put_tombstone(&TombstoneRow { digest, tenant, class: record.class, reason, until })?;
    if !tx.subject_has_records(record.subject)?
        && let Some(subject) = tx.subject(record.subject)?
    {
        tx.delete_dek(subject.dek)?;
        tx.delete_subject(subject.id)?;
    }
    match cell.map(|cell| tx.count(&record.tenant, record.class, &cell.country, cell.month)) {
        // A counter that was altered must not keep records alive: the record goes uncounted, and reading the statistics says so.
        Some(Err(StoreError::Tampered { table })) => {
            tracing::error!(table, "a counter fails its authentication; a record is destroyed without being counted");
            Ok(())
        }
        Some(counted) => counted,
        None => Ok(()),
    }
}

impl Vault {
    /// Where a record that goes now will be counted. Opens the address for its country; an address that does not open
    /// counts under no country, for it must not keep a due record alive.
    pub(crate) fn cell(&self, view: &View<'_>, loaded: &Loaded, now: Timestamp) -> Cell {
        let open = || -> Result<Option<String>, StoreError> {
            if !loaded.row.fields.holds(Field::Address) {
                return Ok(None);
            }
            let key = loaded.key(view)?;
            Ok(match loaded.open_field(view, &key, Field::Address, &Why::Count)? {
                Some(FieldValue::Address(address)) => Some(address.country().to_owned()),
                _ => None,
            })
        };
        let country = open().unwrap_or_else(|error| {
            tracing::error!(%error, "the address of a due record does not open; it is counted without its country");
            None
        });
        let date = now.to_jiff().to_zoned(jiff::tz::TimeZone::UTC);
        let month = i64::from(date.year()) * 12 + i64::from(date.month()) - 1;
        Cell { country: country.unwrap_or_default(), month }
    }

    /// Truncates the write-ahead log, so that nothing of what was destroyed stays in it. Readers hold it for microseconds; one
    /// that holds it for longer makes this answer `Unavailable`, and asking again goes on from here.
    pub(crate) async fn truncate_log(&self) -> Result<(), Error> {
        for _ in 0..200 {
            if self.store().truncate_log().await? {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let why = "a long reader keeps the write-ahead log from being truncated";
        Err(Error::Unavailable(StoreError::Refused(why.to_owned())))
    }
}
