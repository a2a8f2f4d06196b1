//! The statements that write. INVARIANT: every statement starts with its function's name and answers how many rows it
//! changed; who calls checks the count.

mod callers;
mod erasure;
mod index;
mod rewrap;
pub(super) mod log;
mod retention;
mod webhook;

use rusqlite::{Connection, params};

use super::sql;
use crate::audit::verify::Batch;
use crate::domain::id::{DekId, PolicyVersion, RecordId, SubjectId};
use crate::domain::time::Timestamp;
use crate::store::rows::erasure::Erased;
use crate::store::rows::{DekRow, GrantRow, IdempotencyRow, MetaRow, RecordRow, SubjectRow, TombstoneRow};
use crate::store::tx::{Stamp, Writes};
use crate::store::{HeadStamp, StoreError};

use super::read::{self, Reader};

impl Reader<'_> {
    fn change(
        &self,
        table: &'static str,
        text: &'static str,
        params: impl rusqlite::Params,
    ) -> Result<usize, StoreError> {
        self.connection
            .prepare_cached(text)
            .and_then(|mut statement| statement.execute(params))
            .map_err(|source| sql(table, source))
    }

    /// Deletes rows that have served their time. One that cannot be decoded goes too.
    fn gone<R>(
        &self,
        table: &'static str,
        text: &'static str,
        params: impl rusqlite::Params,
        decode: fn(&rusqlite::Row<'_>) -> read::Decoded<R>,
    ) -> Result<Vec<Option<R>>, StoreError> {
        self.all(table, text, params, |row| Ok(Ok(decode(row).ok().and_then(Result::ok))))
    }
}

impl Writes for Reader<'_> {
    fn insert_record(&self, row: &RecordRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- insert_record\nINSERT INTO record (id, tenant, digest, subject, class, policy_version, stored_at, \
                    revision, dek, fields, facts, due, version, epoch, mac) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
        self.change(
            "record",
            text,
            params![
                row.id.0,
                row.tenant.as_str(),
                row.digest.0,
                row.subject.0,
                row.class.code(),
                row.policy_version.0,
                row.stored_at.0,
                row.revision.0,
                row.dek.0,
                row.fields.0,
                row.facts,
                row.due.0,
                row.version,
                stamp.epoch.0,
                stamp.mac.as_bytes(),
            ],
        )
    }

    fn update_record(&self, row: &RecordRow, stamp: &Stamp, version: u64) -> Result<usize, StoreError> {
        let text = "-- update_record\nUPDATE record SET revision = ?1, dek = ?2, fields = ?3, facts = ?4, due = ?5, \
                    version = ?6, epoch = ?7, mac = ?8 WHERE id = ?9 AND version = ?10";
        self.change(
            "record",
            text,
            params![
                row.revision.0,
                row.dek.0,
                row.fields.0,
                row.facts,
                row.due.0,
                row.version,
                stamp.epoch.0,
                stamp.mac.as_bytes(),
                row.id.0,
                version,
            ],
        )
    }

    fn delete_record(&self, id: RecordId) -> Result<usize, StoreError> {
        self.change("record", "-- delete_record\nDELETE FROM record WHERE id = ?1", params![id.0])
    }

    fn insert_dek(&self, row: &DekRow) -> Result<usize, StoreError> {
        let text =
            "-- insert_dek\nINSERT INTO dek (id, record, sealed_under, wrapped) VALUES (?1, ?2, ?3 + 16777216, ?4)";
        self.change("dek", text, params![row.id.0, row.record.0, row.epoch.0, row.wrapped])
    }

    fn delete_dek(&self, id: DekId) -> Result<usize, StoreError> {
        self.change("dek", "-- delete_dek\nDELETE FROM dek WHERE id = ?1", params![id.0])
    }

    fn delete_deks_of(&self, record: RecordId) -> Result<usize, StoreError> {
        self.change("dek", "-- delete_deks_of\nDELETE FROM dek WHERE record = ?1", params![record.0])
    }

    fn put_sealed(&self, record: RecordId, part: u8, bytes: &[u8]) -> Result<usize, StoreError> {
        let text = "-- put_sealed\nINSERT INTO sealed (record, part, bytes) VALUES (?1, ?2, ?3) \
                    ON CONFLICT (record, part) DO UPDATE SET bytes = excluded.bytes";
        self.change("sealed", text, params![record.0, part, bytes])
    }

    fn delete_sealed(&self, record: RecordId, part: u8) -> Result<usize, StoreError> {
        let text = "-- delete_sealed\nDELETE FROM sealed WHERE record = ?1 AND part = ?2";
        self.change("sealed", text, params![record.0, part])
    }

    fn delete_sealed_of(&self, record: RecordId) -> Result<usize, StoreError> {
        self.change("sealed", "-- delete_sealed_of\nDELETE FROM sealed WHERE record = ?1", params![record.0])
    }

    fn insert_subject(&self, row: &SubjectRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- insert_subject\nINSERT INTO subject (id, tenant, tag, dek, reference, since, epoch, mac) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        self.change(
            "subject",
            text,
            params![
                row.id.0,
                row.tenant.as_str(),
                row.tag.0,
                row.dek.0,
                row.reference,
                row.since.0,
                stamp.epoch.0,
                stamp.mac.as_bytes(),
            ],
        )
    }

    fn delete_subject(&self, id: SubjectId) -> Result<usize, StoreError> {
        self.change("subject", "-- delete_subject\nDELETE FROM subject WHERE id = ?1", params![id.0])
    }

    fn insert_grant(&self, row: &GrantRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- insert_grant\nINSERT INTO shipment_grant (id, tenant, record, parcel, carrier, tag, not_before, \
                    not_after, read_limit, reads, ended_at, dek, serial, epoch, mac) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
        self.change(
            "shipment_grant",
            text,
            params![
                row.id.0,
                row.tenant.as_str(),
                row.record.0,
                row.parcel,
                row.carrier.as_str(),
                row.tag.as_ref().map(|tag| tag.0),
                row.not_before.0,
                row.not_after.0,
                row.read_limit,
                row.reads,
                row.ended_at.map(|at| at.0),
                row.dek.0,
                row.serial,
                stamp.epoch.0,
                stamp.mac.as_bytes(),
            ],
        )
    }

    fn update_grant(&self, row: &GrantRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- update_grant\nUPDATE shipment_grant SET tag = ?1, reads = ?2, ended_at = ?3, serial = ?4, \
                    epoch = ?5, mac = ?6 WHERE id = ?7";
        self.change(
            "shipment_grant",
            text,
            params![
                row.tag.as_ref().map(|tag| tag.0),
                row.reads,
                row.ended_at.map(|at| at.0),
                row.serial,
                stamp.epoch.0,
                stamp.mac.as_bytes(),
                row.id.0,
            ],
        )
    }

    fn delete_grants_of(&self, record: RecordId) -> Result<usize, StoreError> {
        let text = "-- delete_grants_of\nDELETE FROM shipment_grant WHERE record = ?1";
        self.change("shipment_grant", text, params![record.0])
    }

    fn insert_idempotency(&self, row: &IdempotencyRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- insert_idempotency\nINSERT INTO idempotency (digest, request, record, token, result, recorded_at, \
                    epoch, mac) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        self.change(
            "idempotency",
            text,
            params![
                row.digest,
                row.request,
                row.record.0,
                row.token.0,
                row.result,
                row.recorded_at.0,
                stamp.epoch.0,
                stamp.mac.as_bytes(),
            ],
        )
    }

    fn update_idempotency(&self, row: &IdempotencyRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- update_idempotency\nUPDATE idempotency SET request = ?1, result = ?2, epoch = ?3, mac = ?4 \
                    WHERE digest = ?5";
        self.change(
            "idempotency",
            text,
            params![row.request, row.result, stamp.epoch.0, stamp.mac.as_bytes(), row.digest,],
        )
    }

    fn expire_idempotency(&self, before: Timestamp, limit: usize) -> Result<Vec<Option<IdempotencyRow>>, StoreError> {
        // Ids grow with time, so the oldest are the first; the limit bounds the look even where none has expired.
        let text = "-- expire_idempotency\nDELETE FROM idempotency WHERE recorded_at < ?1 AND id IN \
                    (SELECT id FROM idempotency ORDER BY id LIMIT ?2) RETURNING *";
        self.gone("idempotency", text, params![before.0, limit], read::idempotency)
    }

    fn put_tombstone(&self, row: &TombstoneRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- put_tombstone\nINSERT OR REPLACE INTO tombstone (digest, tenant, class, reason, until, epoch, mac, \
                    facts, story) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        self.change(
            "tombstone",
            text,
            params![
                row.digest.0,
                row.tenant.as_str(),
                row.class.code(),
                row.reason.code(),
                row.until.0,
                stamp.epoch.0,
                stamp.mac.as_bytes(),
                row.erased.as_ref().map(Erased::to_bytes),
                row.story.map(|story| story.0),
            ],
        )
    }

    fn expire_tombstones(&self, before: Timestamp, limit: usize) -> Result<Vec<Option<TombstoneRow>>, StoreError> {
        let text = "-- expire_tombstones\nDELETE FROM tombstone WHERE digest IN \
                    (SELECT digest FROM tombstone WHERE until < ?1 ORDER BY until LIMIT ?2) RETURNING *";
        self.gone("tombstone", text, params![before.0, limit], read::tombstone)
    }

    fn put_policy(&self, version: &PolicyVersion, text: &str) -> Result<usize, StoreError> {
        let statement = "-- put_policy\nINSERT OR IGNORE INTO policy (version, text) VALUES (?1, ?2)";
        self.change("policy", statement, params![version.0, text])
    }

    fn put_meta(&self, row: &MetaRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- put_meta\nINSERT INTO meta (key, value, epoch, mac) VALUES (?1, ?2, ?3, ?4) \
                    ON CONFLICT (key) DO UPDATE SET value = excluded.value, epoch = excluded.epoch, mac = excluded.mac";
        self.change("meta", text, params![row.key.as_ref(), row.value, stamp.epoch.0, stamp.mac.as_bytes()])
    }
}

/// One group commit's audit entries with the tree head they lead to.
pub(super) fn insert_audit_batch(connection: &Connection, batch: &Batch, stamp: &HeadStamp) -> Result<(), StoreError> {
    let text = "-- insert_audit_batch\nINSERT INTO audit_batch (first, size, at, entries, root, mac) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let head = &batch.head;
    let row = params![batch.first, head.size, head.at.0, batch.entries, head.root, stamp.0];
    Reader { connection }.change("audit_batch", text, row).map(drop)
}
