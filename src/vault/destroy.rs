//! Destroying a record: the one way, whoever asks (a timer, a person, a restored ledger). INVARIANT: no hold stands against
//! it in the transaction that does it; the erasure ledger holds the line before the commit; the commit removes keys, values,
//! grants and the row at once, so there is no half; the write-ahead log is truncated before anyone is told. What remains is
//! a tombstone, until its time, of which a receipt is made, for a desensitized record one more in a month's tally, and what
//! webhooks are still to be told.

use super::announce::Hearers;
use super::{Error, Vault};
use crate::audit::entry::Entry;
use crate::domain::announcement::{Announcement, News};
use crate::domain::fault::{Fault, abort_at};
use crate::domain::id::{DekId, Epoch, ErasureId, RecordId, SubjectId};
use crate::domain::time::{DAY, Timestamp};
use crate::domain::vocabulary::{EraseReason, HoldKind};
use crate::policy::hold::stands_against;
use crate::store::ledger::{LedgerEntry, LedgerEvent};
use crate::store::rows::erasure::{Erased, HoldRow, TallyRow};
use crate::store::rows::{RecordRow, SubjectRow, TombstoneRow};
use crate::store::{StoreError, Tx, View};

/// How long a token keeps answering "erased" before it is simply unknown.
const TOMBSTONE: i64 = 400 * DAY;

/// When an erased record was.
pub(crate) fn erased_at(tombstone: &TombstoneRow) -> Timestamp {
    tombstone.erased.as_ref().map_or(tombstone.until.plus(-TOMBSTONE), |erased| erased.at)
}

/// Proof that no hold stands against destroying the record for that reason; good within its transaction.
#[must_use]
pub(crate) struct Cleared<'a> {
    record: &'a RecordRow,
    reason: EraseReason,
}

/// Asks the holds.
pub(crate) fn clear<'a>(
    view: &View<'_>,
    record: &'a RecordRow,
    reason: EraseReason,
) -> Result<Result<Cleared<'a>, HoldKind>, StoreError> {
    let holds = in_force(view, record)?;
    let against = stands_against(reason, holds.iter().map(|hold| hold.kind));
    Ok(against.map_or(Ok(Cleared { record, reason }), Err))
}

/// The holds on a record, by whichever name. The subject knows how many there are on all of its own: who deletes a hold's row
/// lifts nothing by it.
pub(crate) fn in_force(view: &View<'_>, record: &RecordRow) -> Result<Vec<HoldRow>, StoreError> {
    let subject = view.subject(record.subject)?.ok_or(StoreError::Tampered { table: "subject" })?;
    let mut holds = view.holds_of(record.subject)?;
    if holds.iter().filter(|hold| hold.lifted_at.is_none()).count() as u64 != u64::from(subject.holds) {
        return Err(StoreError::Tampered { table: "hold" });
    }
    holds.retain(|hold| hold.is_on(record.id));
    Ok(holds)
}

/// One hold more or less in force on a subject and its records.
pub(crate) fn count_holds(tx: &Tx<'_>, subject: SubjectId, change: i32) -> Result<(), StoreError> {
    let row = tx.subject(subject)?.ok_or(StoreError::Raced)?;
    let holds = row.holds.checked_add_signed(change).ok_or(StoreError::Tampered { table: "subject" })?;
    tx.update_subject(&SubjectRow { holds, ..row })
}

/// What a destruction tells.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) at: Timestamp,
    /// When no backup can open it any more.
    pub(crate) in_backups_by: Timestamp,
    pub(crate) entry: Entry,
    /// Where a desensitized record is counted.
    pub(crate) tally: Option<TallyRow>,
    /// The erasure of its subject that it is part of.
    pub(crate) story: Option<ErasureId>,
    /// The webhooks that hear of it.
    pub(crate) hearers: Hearers,
}

/// Destroys the record within `tx`, by the ledger's line that the same commit waits for, and logs it.
pub(crate) fn destroy(tx: &mut Tx<'_>, cleared: Cleared<'_>, told: Told) -> Result<(), StoreError> {
    let Cleared { record, reason } = cleared;
    tx.note(LedgerEntry {
        at: told.at,
        tenant: record.tenant.clone(),
        record: record.digest,
        event: LedgerEvent::Erased(reason),
    });
    destroy_noted(tx, record, reason, tx.last_line(), told)
}

/// `destroy` for what the ledger already tells of in that line.
pub(crate) fn destroy_noted(
    tx: &mut Tx<'_>,
    record: &RecordRow,
    reason: EraseReason,
    line: u64,
    told: Told,
) -> Result<(), StoreError> {
    let mut keys = delete_keys(tx, record)?;
    abort_at(Fault::AbortInDestroy);
    tx.delete_sealed_of(record.id)?;
    tx.delete_index_of(record.id)?;
    tx.delete_due_told(record.id)?;
    tx.delete_grants_of(record.id)?;
    for hold in in_force(tx, record)?.iter().filter(|hold| hold.record.is_some()) {
        tx.delete_hold(hold.id)?;
        count_holds(tx, record.subject, -1)?;
    }
    tx.blank_idempotency_of(record.id)?;
    tx.delete_record(record.id)?;
    keys.extend(delete_subject(tx, record)?);
    let Told { at, in_backups_by, entry, tally, story, hearers } = told;
    let (tenant, class, news) = (record.tenant.clone(), Some(record.class), News::Erased);
    hearers.hear_of(tx, &Announcement { tenant, record: record.digest, class, reason, at, news })?;
    let erased = Erased { at, in_backups_by, entry: tx.next_entry(), line, keys };
    tx.put_tombstone(&TombstoneRow {
        digest: record.digest,
        tenant: record.tenant.clone(),
        class: record.class,
        reason,
        until: at.plus(TOMBSTONE),
        erased: Some(erased),
        story,
    })?;
    tx.log(entry);
    match tally.map(|tally| tx.count(&tally)) {
        // A tally that was altered must not keep records alive: the record goes uncounted, and its month is not published.
        Some(Err(StoreError::Tampered { table })) => {
            tracing::error!(table, "a tally fails its authentication; a record is destroyed without being counted");
            Ok(())
        }
        Some(counted) => counted,
        None => Ok(()),
    }
}

/// The keys first: if anything after it were ever split off, this would be the point of no return.
fn delete_keys(tx: &Tx<'_>, record: &RecordRow) -> Result<Vec<(DekId, Epoch)>, StoreError> {
    let mut keys = tx.deks_of(record.id)?;
    tx.delete_deks_of(record.id)?;
    // A key's `record` is only an index: what the authenticated rows name goes whatever that says.
    let grants = tx.grants_of(record.id)?;
    for id in grants.iter().map(|grant| grant.dek).chain([record.dek]) {
        if let Some(dek) = tx.dek(id)? {
            keys.push((dek.id, dek.epoch));
            tx.delete_dek(dek.id)?;
        }
    }
    Ok(keys)
}

/// The subject goes with its last record, and with it whatever is filed under it; answers its key.
fn delete_subject(tx: &Tx<'_>, record: &RecordRow) -> Result<Option<(DekId, Epoch)>, StoreError> {
    if tx.subject_has_records(record.subject)? {
        return Ok(None);
    }
    let Some(subject) = tx.subject(record.subject)? else { return Ok(None) };
    let dek = tx.dek(subject.dek)?.ok_or(StoreError::Tampered { table: "dek" })?;
    for hold in tx.holds_of(subject.id)?.iter().filter(|hold| hold.lifted_at.is_none()) {
        tx.delete_hold(hold.id)?;
    }
    // Requests about the whole subject are filed under its number, which no record has.
    tx.blank_idempotency_of(RecordId(subject.id.0))?;
    tx.delete_dek(dek.id)?;
    tx.delete_subject(subject.id)?;
    Ok(Some((dek.id, dek.epoch)))
}

impl Vault {
    /// When no backup can open any more what goes at that instant, by the schedule of the keys.
    pub(crate) fn in_backups_by(&self, at: Timestamp) -> Timestamp {
        at.plus(self.inner.parts.keys.schedule.horizon())
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
