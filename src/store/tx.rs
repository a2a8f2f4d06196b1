//! Transactions in the domain's words. INVARIANT: every row of facts is authenticated as it is read and as it is written,
//! here and nowhere else, so that a backend cannot forget it; row counts are checked.

pub(crate) mod callers;
pub(crate) mod erasure;
pub(crate) mod inquiry;
pub(crate) mod index;
pub(crate) mod rewrap;
pub(crate) mod log;
pub(crate) mod retention;
pub(crate) mod webhook;

use std::cell::RefCell;
use std::ops::Deref;

use super::ledger::LedgerEntry;
use super::rows::{
    Counts, DekRow, GrantRow, IdempotencyRow, MetaRow, NewIdempotency, RecordRow, Row, SubjectRow, TombstoneRow,
};
use super::state::{Fact, Tally};
use super::{HeadStamp, StoreError};
use crate::audit::entry::Entry;
use crate::audit::tree::Frontier;
use crate::audit::verify::Batch;
use crate::crypto::keyring::{EpochKeys, Keyring};
use crate::crypto::mac::{IndexTag, Mac, mac, verify};
use crate::domain::id::{DekId, Epoch, GrantId, PolicyVersion, RecordId, SubjectId};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;

/// What authenticates one row: the epoch whose subkey made it, and the MAC over every other column.
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    pub epoch: Epoch,
    pub mac: Mac,
}

pub(crate) type Stamped<R> = (R, Stamp);

/// What a backend can read. It decodes and counts; it judges nothing.
pub(crate) trait Reads:
    callers::CallerReads
    + erasure::ErasureReads
    + index::IndexReads
    + inquiry::InquiryReads
    + log::LogReads
    + retention::RetentionReads
    + rewrap::RewrapReads
    + webhook::WebhookReads
{
    fn record_by_digest(&self, digest: &TokenDigest) -> Result<Option<Stamped<RecordRow>>, StoreError>;
    fn record(&self, id: RecordId) -> Result<Option<Stamped<RecordRow>>, StoreError>;
    fn record_version(&self, id: RecordId) -> Result<Option<u64>, StoreError>;
    fn records_due(&self, until: Timestamp, limit: usize) -> Result<Vec<RecordId>, StoreError>;
    fn subject_has_records(&self, id: SubjectId) -> Result<bool, StoreError>;
    fn dek(&self, id: DekId) -> Result<Option<DekRow>, StoreError>;
    fn sealed(&self, record: RecordId, part: u8) -> Result<Option<Vec<u8>>, StoreError>;
    fn subject(&self, id: SubjectId) -> Result<Option<Stamped<SubjectRow>>, StoreError>;
    fn subject_by_tag(&self, tag: &IndexTag) -> Result<Option<Stamped<SubjectRow>>, StoreError>;
    fn grant(&self, id: GrantId) -> Result<Option<Stamped<GrantRow>>, StoreError>;
    fn grant_by_tag(&self, tag: &IndexTag) -> Result<Option<Stamped<GrantRow>>, StoreError>;
    fn grants_of(&self, record: RecordId) -> Result<Vec<Stamped<GrantRow>>, StoreError>;
    fn idempotency(&self, digest: &[u8; 16]) -> Result<Option<Stamped<IdempotencyRow>>, StoreError>;
    fn idempotency_of(&self, record: RecordId) -> Result<Vec<Stamped<IdempotencyRow>>, StoreError>;
    fn tombstone(&self, digest: &TokenDigest) -> Result<Option<Stamped<TombstoneRow>>, StoreError>;
    fn policies(&self) -> Result<Vec<(PolicyVersion, String)>, StoreError>;
    fn meta(&self, key: &'static str) -> Result<Option<Stamped<MetaRow>>, StoreError>;
    fn counts(&self, until: Timestamp) -> Result<Counts, StoreError>;
    /// Batches from entry `from` on, at most `limit`, in order, until `each` answers `false`.
    fn audit_batches(
        &self,
        from: u64,
        limit: usize,
        each: &mut dyn FnMut(Batch, HeadStamp) -> bool,
    ) -> Result<(), StoreError>;
}

/// What a backend can change. Answers how many rows changed.
pub(crate) trait Writes:
    Reads
    + callers::CallerWrites
    + erasure::ErasureWrites
    + index::IndexWrites
    + log::LogWrites
    + retention::RetentionWrites
    + rewrap::RewrapWrites
    + webhook::WebhookWrites
{
    fn insert_record(&self, row: &RecordRow, stamp: &Stamp) -> Result<usize, StoreError>;
    fn update_record(&self, row: &RecordRow, stamp: &Stamp, version: u64) -> Result<usize, StoreError>;
    fn delete_record(&self, id: RecordId) -> Result<usize, StoreError>;
    fn insert_dek(&self, row: &DekRow) -> Result<usize, StoreError>;
    fn delete_dek(&self, id: DekId) -> Result<usize, StoreError>;
    fn delete_deks_of(&self, record: RecordId) -> Result<usize, StoreError>;
    fn put_sealed(&self, record: RecordId, part: u8, bytes: &[u8]) -> Result<usize, StoreError>;
    fn delete_sealed(&self, record: RecordId, part: u8) -> Result<usize, StoreError>;
    fn delete_sealed_of(&self, record: RecordId) -> Result<usize, StoreError>;
    fn insert_subject(&self, row: &SubjectRow, stamp: &Stamp) -> Result<usize, StoreError>;
    fn delete_subject(&self, id: SubjectId) -> Result<usize, StoreError>;
    fn insert_grant(&self, row: &GrantRow, stamp: &Stamp) -> Result<usize, StoreError>;
    fn update_grant(&self, row: &GrantRow, stamp: &Stamp) -> Result<usize, StoreError>;
    fn delete_grants_of(&self, record: RecordId) -> Result<usize, StoreError>;
    fn insert_idempotency(&self, row: &IdempotencyRow, stamp: &Stamp) -> Result<usize, StoreError>;
    fn update_idempotency(&self, row: &IdempotencyRow, stamp: &Stamp) -> Result<usize, StoreError>;
    /// Answers the rows that went, `None` for one that cannot be decoded.
    fn expire_idempotency(&self, before: Timestamp, limit: usize) -> Result<Vec<Option<IdempotencyRow>>, StoreError>;
    fn put_tombstone(&self, row: &TombstoneRow, stamp: &Stamp) -> Result<usize, StoreError>;
    /// Answers the rows that went, `None` for one that cannot be decoded.
    fn expire_tombstones(&self, before: Timestamp, limit: usize) -> Result<Vec<Option<TombstoneRow>>, StoreError>;
    fn put_policy(&self, version: &PolicyVersion, text: &str) -> Result<usize, StoreError>;
    fn put_meta(&self, row: &MetaRow, stamp: &Stamp) -> Result<usize, StoreError>;
}

/// A consistent snapshot, with the keyring it was written under: every row in it is of one of its epochs.
pub struct View<'a> {
    reads: &'a dyn Reads,
    keyring: &'a Keyring,
}

impl<'a> View<'a> {
    pub(crate) fn new(reads: &'a dyn Reads, keyring: &'a Keyring) -> Self {
        Self { reads, keyring }
    }

    pub fn record_by_digest(&self, digest: &TokenDigest) -> Result<Option<RecordRow>, StoreError> {
        self.authentic(self.reads.record_by_digest(digest)?)
    }

    pub fn record(&self, id: RecordId) -> Result<Option<RecordRow>, StoreError> {
        self.authentic(self.reads.record(id)?)
    }

    /// The record's version as stored, unauthenticated: good for noticing a change, for nothing else.
    pub fn record_version(&self, id: RecordId) -> Result<Option<u64>, StoreError> {
        self.reads.record_version(id)
    }

    /// The oldest records whose `due` column has passed. The column is an index; who acts on it computes `due` again.
    pub fn records_due(&self, until: Timestamp, limit: usize) -> Result<Vec<RecordId>, StoreError> {
        self.reads.records_due(until, limit)
    }

    pub fn subject_has_records(&self, id: SubjectId) -> Result<bool, StoreError> {
        self.reads.subject_has_records(id)
    }

    pub fn dek(&self, id: DekId) -> Result<Option<DekRow>, StoreError> {
        self.reads.dek(id)
    }

    pub fn sealed(&self, record: RecordId, part: u8) -> Result<Option<Vec<u8>>, StoreError> {
        self.reads.sealed(record, part)
    }

    pub fn subject(&self, id: SubjectId) -> Result<Option<SubjectRow>, StoreError> {
        self.authentic(self.reads.subject(id)?)
    }

    pub fn subject_by_tag(&self, tag: &IndexTag) -> Result<Option<SubjectRow>, StoreError> {
        self.authentic(self.reads.subject_by_tag(tag)?)
    }

    pub fn grant(&self, id: GrantId) -> Result<Option<GrantRow>, StoreError> {
        self.authentic(self.reads.grant(id)?)
    }

    pub fn grant_by_tag(&self, tag: &IndexTag) -> Result<Option<GrantRow>, StoreError> {
        self.authentic(self.reads.grant_by_tag(tag)?)
    }

    pub fn grants_of(&self, record: RecordId) -> Result<Vec<GrantRow>, StoreError> {
        self.reads.grants_of(record)?.into_iter().map(|row| self.checked(row)).collect()
    }

    pub fn idempotency(&self, digest: &[u8; 16]) -> Result<Option<IdempotencyRow>, StoreError> {
        self.authentic(self.reads.idempotency(digest)?)
    }

    pub fn tombstone(&self, digest: &TokenDigest) -> Result<Option<TombstoneRow>, StoreError> {
        self.authentic(self.reads.tombstone(digest)?)
    }

    /// Every policy that a record may have been collected under. The text is the version's preimage; who parses it checks that.
    pub fn policies(&self) -> Result<Vec<(PolicyVersion, String)>, StoreError> {
        self.reads.policies()
    }

    pub fn meta_i64(&self, key: &'static str) -> Result<Option<i64>, StoreError> {
        let Some(row) = self.authentic(self.reads.meta(key)?)? else { return Ok(None) };
        let bytes = row.value.try_into().map_err(|_| StoreError::Corrupt { table: MetaRow::TABLE, column: "value" })?;
        Ok(Some(i64::from_le_bytes(bytes)))
    }

    pub(crate) fn meta_bytes(&self, key: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.authentic(self.reads.meta(key)?)?.map(|row| row.value))
    }

    /// The log's last tree as of the last commit: that of the year.
    pub fn audit_frontier(&self) -> Result<Frontier, StoreError> {
        Ok(self.audit_tip()?.frontier)
    }

    /// `until` bounds what counts as due.
    pub fn counts(&self, until: Timestamp) -> Result<Counts, StoreError> {
        self.reads.counts(until)
    }

    /// Batches of the audit log from entry `from` on, at most `limit`, in order, until `each` answers `false`.
    pub fn audit_batches(
        &self,
        from: u64,
        limit: usize,
        each: &mut dyn FnMut(Batch, HeadStamp) -> bool,
    ) -> Result<(), StoreError> {
        self.reads.audit_batches(from, limit, each)
    }

    pub fn keyring(&self) -> &Keyring {
        self.keyring
    }

    fn authentic<R: Row>(&self, found: Option<Stamped<R>>) -> Result<Option<R>, StoreError> {
        found.map(|row| self.checked(row)).transpose()
    }

    fn checked<R: Row>(&self, (row, stamp): Stamped<R>) -> Result<R, StoreError> {
        let tampered = StoreError::Tampered { table: R::TABLE };
        let Some(epoch) = self.keyring.epoch(stamp.epoch) else { return Err(tampered) };
        if verify(epoch, R::TABLE, row.canonical().as_bytes(), &stamp.mac) { Ok(row) } else { Err(tampered) }
    }
}

/// A transaction that may write. What it appends to the log and the ledger lives and dies with it.
pub struct Tx<'a> {
    view: View<'a>,
    writes: &'a dyn Writes,
    pub(crate) entries: Vec<Entry>,
    pub(crate) ledger: Vec<LedgerEntry>,
    pub(crate) cut: Option<log::Cut>,
    /// What the writes so far change in the sums of the state.
    pub(crate) change: RefCell<Tally>,
    begins: Places,
}

/// Where in the log and the ledger a transaction's own entries begin, should it stand.
#[derive(Clone, Copy, Default)]
pub(crate) struct Places {
    /// The number of the first audit entry, from 0.
    pub entry: u64,
    /// The number of the last line before, from 1; 0: there is none.
    pub line: u64,
}

impl<'a> Deref for Tx<'a> {
    type Target = View<'a>;
    fn deref(&self) -> &View<'a> {
        &self.view
    }
}

impl<'a> Tx<'a> {
    pub(crate) fn new(reads: &'a dyn Reads, writes: &'a dyn Writes, keyring: &'a Keyring, begins: Places) -> Self {
        let view = View::new(reads, keyring);
        let (entries, ledger, change) = (Vec::new(), Vec::new(), RefCell::default());
        Self { view, writes, entries, ledger, cut: None, change, begins }
    }

    /// Appends to the audit log, in the commit of this transaction.
    pub fn log(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// The number that the next entry logged here has in the log, from 0, should this transaction stand.
    pub fn next_entry(&self) -> u64 {
        self.begins.entry + self.entries.len() as u64
    }

    /// Appends to the erasure ledger, durably before the commit of this transaction.
    pub fn note(&mut self, entry: LedgerEntry) {
        self.ledger.push(entry);
    }

    /// The number of the ledger's line that was noted here last, from 1, should this transaction stand.
    pub fn last_line(&self) -> u64 {
        self.begins.line + self.ledger.len() as u64
    }

    pub fn insert_record(&self, row: &RecordRow) -> Result<(), StoreError> {
        one(self.writes.insert_record(row, &self.stamp(row)))?;
        self.gained(Fact::Record(row));
        Ok(())
    }

    /// Replaces the row; `row.version` must be one more than what is stored, else `Raced`.
    pub fn update_record(&self, row: &RecordRow) -> Result<(), StoreError> {
        let old = self.view.reads.record(row.id)?;
        one(self.writes.update_record(row, &self.stamp(row), row.version.wrapping_sub(1)))?;
        self.lost(old.as_ref().map(|(old, _)| Fact::Record(old)));
        self.gained(Fact::Record(row));
        Ok(())
    }

    pub fn delete_record(&self, id: RecordId) -> Result<(), StoreError> {
        let old = self.view.reads.record(id)?;
        one(self.writes.delete_record(id))?;
        self.lost(old.as_ref().map(|(old, _)| Fact::Record(old)));
        Ok(())
    }

    /// `Raced` when the key was wrapped under an epoch that is not the active one any more.
    pub fn insert_dek(&self, row: &DekRow) -> Result<(), StoreError> {
        self.under_the_active(row.epoch)?;
        one(self.writes.insert_dek(row))
    }

    pub fn delete_dek(&self, id: DekId) -> Result<(), StoreError> {
        one(self.writes.delete_dek(id))
    }

    /// Destroys every key of a record: its revision's and its grants'.
    pub fn delete_deks_of(&self, record: RecordId) -> Result<usize, StoreError> {
        self.writes.delete_deks_of(record)
    }

    pub fn put_sealed(&self, record: RecordId, part: u8, bytes: &[u8]) -> Result<(), StoreError> {
        one(self.writes.put_sealed(record, part, bytes))
    }

    pub fn delete_sealed(&self, record: RecordId, part: u8) -> Result<(), StoreError> {
        one(self.writes.delete_sealed(record, part))
    }

    pub fn delete_sealed_of(&self, record: RecordId) -> Result<usize, StoreError> {
        self.writes.delete_sealed_of(record)
    }

    pub fn insert_subject(&self, row: &SubjectRow) -> Result<(), StoreError> {
        one(self.writes.insert_subject(row, &self.stamp(row)))?;
        self.gained(Fact::Subject(row));
        Ok(())
    }

    pub fn delete_subject(&self, id: SubjectId) -> Result<(), StoreError> {
        let old = self.view.reads.subject(id)?;
        one(self.writes.delete_subject(id))?;
        self.lost(old.as_ref().map(|(old, _)| Fact::Subject(old)));
        Ok(())
    }

    pub fn insert_grant(&self, row: &GrantRow) -> Result<(), StoreError> {
        one(self.writes.insert_grant(row, &self.stamp(row)))?;
        self.gained(Fact::Grant(row));
        Ok(())
    }

    /// Stays under its epoch as long as it has a tag: that was made under it too, and only a rewrap makes both anew.
    pub fn update_grant(&self, row: &GrantRow) -> Result<(), StoreError> {
        let (old, lies) = self.view.reads.grant(row.id)?.ok_or(StoreError::Raced)?;
        let stamp = if row.tag.is_some() {
            let epoch = self.view.keyring.epoch(lies.epoch);
            stamp_under(epoch.ok_or(StoreError::Tampered { table: GrantRow::TABLE })?, row)
        } else {
            self.stamp(row)
        };
        one(self.writes.update_grant(row, &stamp))?;
        self.lost([Fact::Grant(&old)]);
        self.gained(Fact::Grant(row));
        Ok(())
    }

    pub fn delete_grants_of(&self, record: RecordId) -> Result<usize, StoreError> {
        let old = self.view.reads.grants_of(record)?;
        let deleted = self.writes.delete_grants_of(record)?;
        self.lost(old.iter().map(|(old, _)| Fact::Grant(old)));
        Ok(deleted)
    }

    /// `Raced` when the key is there already, under whichever epoch, or its digest was made under an epoch that is not the
    /// active one any more.
    pub fn insert_idempotency(&self, new: &NewIdempotency) -> Result<(), StoreError> {
        self.under_the_active(new.epoch)?;
        for digest in &new.elsewhere {
            if self.view.reads.idempotency(digest)?.is_some() {
                return Err(StoreError::Raced);
            }
        }
        one(self.writes.insert_idempotency(&new.row, &self.stamp(&new.row)))?;
        self.gained(Fact::Idempotency(&new.row));
        Ok(())
    }

    /// Forgets what was asked and answered about a record, and keeps only that the keys were used: a keyed digest of a
    /// request could be searched for by whoever holds the keys.
    pub fn blank_idempotency_of(&self, record: RecordId) -> Result<(), StoreError> {
        for (old, stamp) in self.view.reads.idempotency_of(record)? {
            let old = self.view.checked((old, stamp))?;
            let row = IdempotencyRow { request: [0; 16], result: Vec::new(), ..old.clone() };
            // Under its own epoch, whose key made the digest that finds it.
            let epoch = self.view.keyring.epoch(stamp.epoch);
            let epoch = epoch.ok_or(StoreError::Tampered { table: IdempotencyRow::TABLE })?;
            one(self.writes.update_idempotency(&row, &stamp_under(epoch, &row)))?;
            self.lost([Fact::Idempotency(&old)]);
            self.gained(Fact::Idempotency(&row));
        }
        Ok(())
    }

    pub fn expire_idempotency(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let gone = self.writes.expire_idempotency(before, limit)?;
        self.lost(gone.iter().flatten().map(Fact::Idempotency));
        Ok(gone.len())
    }

    pub fn put_tombstone(&self, row: &TombstoneRow) -> Result<(), StoreError> {
        // Whatever lies in its place must not keep a record from going.
        let old = self.view.reads.tombstone(&row.digest).ok().flatten();
        one(self.writes.put_tombstone(row, &self.stamp(row)))?;
        self.lost(old.as_ref().map(|(old, _)| Fact::Tombstone(old)));
        self.gained(Fact::Tombstone(row));
        Ok(())
    }

    pub fn expire_tombstones(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let gone = self.writes.expire_tombstones(before, limit)?;
        self.lost(gone.iter().flatten().map(Fact::Tombstone));
        Ok(gone.len())
    }

    /// Keeps a policy; keeping it again changes nothing.
    pub fn put_policy(&self, version: &PolicyVersion, text: &str) -> Result<(), StoreError> {
        self.writes.put_policy(version, text).map(drop)
    }

    pub fn set_meta_i64(&self, key: &'static str, value: i64) -> Result<(), StoreError> {
        self.set_meta_bytes(key, value.to_le_bytes().to_vec())
    }

    pub(crate) fn set_meta_bytes(&self, key: &'static str, value: Vec<u8>) -> Result<(), StoreError> {
        let row = MetaRow { key: key.into(), value };
        one(self.writes.put_meta(&row, &self.stamp(&row)))
    }

    fn under_the_active(&self, epoch: Epoch) -> Result<(), StoreError> {
        if epoch == self.view.keyring.active().number() { Ok(()) } else { Err(StoreError::Raced) }
    }

    fn stamp(&self, row: &impl Row) -> Stamp {
        stamp(self.view.keyring, row)
    }

    /// A row was written: it is in the state now.
    fn gained(&self, fact: Fact<'_>) {
        self.change.borrow_mut().gain(self.view.keyring.signer().state(), fact);
    }

    /// Rows were replaced or deleted, as they lay: one that was altered outside the vault leaves the state with a difference.
    fn lost<'f>(&self, facts: impl IntoIterator<Item = Fact<'f>>) {
        let key = self.view.keyring.signer().state();
        facts.into_iter().for_each(|fact| self.change.borrow_mut().lose(key, fact));
    }
}

pub(crate) fn stamp<R: Row>(keyring: &Keyring, row: &R) -> Stamp {
    stamp_under(keyring.active(), row)
}

pub(crate) fn stamp_under<R: Row>(epoch: &EpochKeys, row: &R) -> Stamp {
    Stamp { epoch: epoch.number(), mac: mac(epoch, R::TABLE, row.canonical().as_bytes()) }
}

/// A statement that must change exactly one row; none means that someone else was first.
fn one(changed: Result<usize, StoreError>) -> Result<(), StoreError> {
    match changed? {
        1 => Ok(()),
        _ => Err(StoreError::Raced),
    }
}
