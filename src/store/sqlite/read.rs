//! The statements that read. INVARIANT: every statement starts with its function's name, and a column that does not decode
//! is named without its value.

mod inquiry;
mod index;
mod rewrap;
pub(super) mod callers;
pub(super) mod erasure;
mod log;
mod retention;
mod webhook;

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};

use super::sql;
use crate::audit::verify::{Batch, Head};
use crate::crypto::mac::{IndexTag, Mac};
use crate::domain::id::{DekId, Epoch, GrantId, PolicyVersion, RecordId, Revision, SubjectId, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::{Class, EraseReason};
use crate::store::rows::{
    Counts, DekRow, FieldSet, GrantRow, IdempotencyRow, MetaRow, RecordRow, SubjectRow, TombstoneRow,
};
use crate::store::tx::{Reads, Stamp, Stamped};
use crate::store::{HeadStamp, StoreError};

pub(super) struct Reader<'a> {
    pub(super) connection: &'a Connection,
}

/// A decoded row, or the column that does not decode.
pub(super) type Decoded<T> = rusqlite::Result<Result<T, &'static str>>;

impl Reader<'_> {
    /// Runs `work` in one snapshot.
    pub(super) fn within<T>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.batch(name, "-- within\nBEGIN DEFERRED")?;
        let answer = work();
        self.batch(name, "-- within\nCOMMIT")?;
        answer
    }

    /// The first statement of a transaction fixes what it sees; this is the cheapest there is.
    pub(super) fn fix_snapshot(&self) -> Result<(), StoreError> {
        self.first("meta", "-- fix_snapshot\nSELECT 1 FROM meta LIMIT 1", [], |_| Ok(Ok(()))).map(drop)
    }

    fn batch(&self, name: &'static str, text: &str) -> Result<(), StoreError> {
        self.connection.prepare_cached(text).and_then(|mut s| s.execute([])).map(drop).map_err(|e| sql(name, e))
    }

    fn first<T>(
        &self,
        table: &'static str,
        text: &'static str,
        params: impl rusqlite::Params,
        decode: impl FnOnce(&SqlRow<'_>) -> Decoded<T>,
    ) -> Result<Option<T>, StoreError> {
        self.connection
            .prepare_cached(text)
            .and_then(|mut statement| statement.query_row(params, decode).optional())
            .map_err(|source| sql(table, source))?
            .transpose()
            .map_err(|column| StoreError::Corrupt { table, column })
    }

    pub(super) fn all<T>(
        &self,
        table: &'static str,
        text: &'static str,
        params: impl rusqlite::Params,
        decode: impl FnMut(&SqlRow<'_>) -> Decoded<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(text).map_err(|source| sql(table, source))?;
        let rows = statement.query_map(params, decode).map_err(|source| sql(table, source))?;
        rows.map(|row| match row {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(column)) => Err(StoreError::Corrupt { table, column }),
            Err(source) => Err(sql(table, source)),
        })
        .collect()
    }
}

macro_rules! need {
    ($value:expr, $column:literal) => {
        match $value {
            Some(value) => value,
            None => return Ok(Err($column)),
        }
    };
}

/// The same for what was decoded elsewhere.
macro_rules! need_ok {
    ($decoded:expr) => {
        match $decoded {
            Ok(value) => value,
            Err(column) => return Ok(Err(column)),
        }
    };
}

fn tenant(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<Option<TenantId>> {
    Ok(row.get_ref(column)?.as_str().ok().and_then(|text| text.parse().ok()))
}

fn array<const N: usize>(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<Option<[u8; N]>> {
    Ok(row.get_ref(column)?.as_blob().ok().and_then(|bytes| bytes.try_into().ok()))
}

fn stamp(row: &SqlRow<'_>) -> Decoded<Stamp> {
    let epoch = Epoch(row.get("epoch")?);
    Ok(Ok(Stamp { epoch, mac: Mac::from_bytes(need!(array(row, "mac")?, "mac")) }))
}

/// Decodes a row's own columns, then its stamp.
fn stamped<T>(row: &SqlRow<'_>, decode: fn(&SqlRow<'_>) -> Decoded<T>) -> Decoded<Stamped<T>> {
    let value = match decode(row)? {
        Ok(value) => value,
        Err(column) => return Ok(Err(column)),
    };
    Ok(stamp(row)?.map(|stamp| (value, stamp)))
}

fn record(row: &SqlRow<'_>) -> Decoded<RecordRow> {
    Ok(Ok(RecordRow {
        id: RecordId(row.get("id")?),
        tenant: need!(tenant(row, "tenant")?, "tenant"),
        digest: TokenDigest(need!(array(row, "digest")?, "digest")),
        subject: SubjectId(row.get("subject")?),
        class: need!(Class::from_code(row.get("class")?), "class"),
        policy_version: PolicyVersion(need!(array(row, "policy_version")?, "policy_version")),
        stored_at: Timestamp(row.get("stored_at")?),
        revision: Revision(row.get("revision")?),
        dek: DekId(row.get("dek")?),
        fields: FieldSet(row.get("fields")?),
        facts: row.get("facts")?,
        due: Timestamp(row.get("due")?),
        version: row.get("version")?,
    }))
}

fn dek(row: &SqlRow<'_>) -> Decoded<DekRow> {
    Ok(Ok(DekRow {
        id: DekId(row.get("id")?),
        record: RecordId(row.get("record")?),
        epoch: Epoch(row.get("epoch")?),
        wrapped: row.get("wrapped")?,
    }))
}

fn subject(row: &SqlRow<'_>) -> Decoded<SubjectRow> {
    let (leaving, unseen) = need_ok!(erasure::leaving(row)?);
    Ok(Ok(SubjectRow {
        id: SubjectId(row.get("id")?),
        tenant: need!(tenant(row, "tenant")?, "tenant"),
        tag: IndexTag(need!(array(row, "tag")?, "tag")),
        dek: DekId(row.get("dek")?),
        reference: row.get("reference")?,
        since: Timestamp(row.get("since")?),
        leaving,
        unseen,
        holds: row.get("holds")?,
    }))
}

fn grant(row: &SqlRow<'_>) -> Decoded<GrantRow> {
    let tag = match row.get_ref("tag")? {
        rusqlite::types::ValueRef::Null => None,
        _ => Some(IndexTag(need!(array(row, "tag")?, "tag"))),
    };
    let carrier = row.get_ref("carrier")?.as_str().ok().and_then(|text| text.parse().ok());
    Ok(Ok(GrantRow {
        id: GrantId(row.get("id")?),
        tenant: need!(tenant(row, "tenant")?, "tenant"),
        record: RecordId(row.get("record")?),
        parcel: row.get("parcel")?,
        carrier: need!(carrier, "carrier"),
        tag,
        not_before: Timestamp(row.get("not_before")?),
        not_after: Timestamp(row.get("not_after")?),
        read_limit: row.get("read_limit")?,
        reads: row.get("reads")?,
        ended_at: row.get::<_, Option<i64>>("ended_at")?.map(Timestamp),
        dek: DekId(row.get("dek")?),
        serial: row.get("serial")?,
    }))
}

pub(super) fn idempotency(row: &SqlRow<'_>) -> Decoded<IdempotencyRow> {
    Ok(Ok(IdempotencyRow {
        digest: need!(array(row, "digest")?, "digest"),
        request: need!(array(row, "request")?, "request"),
        record: RecordId(row.get("record")?),
        token: TokenDigest(need!(array(row, "token")?, "token")),
        result: row.get("result")?,
        recorded_at: Timestamp(row.get("recorded_at")?),
    }))
}

pub(super) fn tombstone(row: &SqlRow<'_>) -> Decoded<TombstoneRow> {
    let (erased, story) = need_ok!(erasure::erased(row)?);
    Ok(Ok(TombstoneRow {
        digest: TokenDigest(need!(array(row, "digest")?, "digest")),
        tenant: need!(tenant(row, "tenant")?, "tenant"),
        class: need!(Class::from_code(row.get("class")?), "class"),
        reason: need!(EraseReason::from_code(row.get("reason")?), "reason"),
        until: Timestamp(row.get("until")?),
        erased,
        story,
    }))
}

impl Reads for Reader<'_> {
    fn record_by_digest(&self, digest: &TokenDigest) -> Result<Option<Stamped<RecordRow>>, StoreError> {
        let text = "-- record_by_digest\nSELECT * FROM record WHERE digest = ?1";
        self.first("record", text, params![digest.0], |row| stamped(row, record))
    }

    fn record(&self, id: RecordId) -> Result<Option<Stamped<RecordRow>>, StoreError> {
        self.first("record", "-- record\nSELECT * FROM record WHERE id = ?1", params![id.0], |row| stamped(row, record))
    }

    fn record_version(&self, id: RecordId) -> Result<Option<u64>, StoreError> {
        let text = "-- record_version\nSELECT version FROM record WHERE id = ?1";
        self.first("record", text, params![id.0], |row| row.get(0).map(Ok))
    }

    fn records_due(&self, until: Timestamp, limit: usize) -> Result<Vec<RecordId>, StoreError> {
        let text = "-- records_due\nSELECT id FROM record WHERE due <= ?1 ORDER BY due LIMIT ?2";
        self.all("record", text, params![until.0, limit], |row| row.get(0).map(|id| Ok(RecordId(id))))
    }

    fn subject_has_records(&self, id: SubjectId) -> Result<bool, StoreError> {
        let text = "-- subject_has_records\nSELECT EXISTS (SELECT 1 FROM record WHERE subject = ?1)";
        Ok(self.first("record", text, params![id.0], |row| row.get(0).map(Ok))?.unwrap_or(false))
    }

    fn dek(&self, id: DekId) -> Result<Option<DekRow>, StoreError> {
        self.first("dek", "-- dek\nSELECT * FROM dek WHERE id = ?1", params![id.0], dek)
    }

    fn sealed(&self, record: RecordId, part: u8) -> Result<Option<Vec<u8>>, StoreError> {
        let text = "-- sealed\nSELECT bytes FROM sealed WHERE record = ?1 AND part = ?2";
        self.first("sealed", text, params![record.0, part], |row| row.get(0).map(Ok))
    }

    fn subject(&self, id: SubjectId) -> Result<Option<Stamped<SubjectRow>>, StoreError> {
        let text = "-- subject\nSELECT * FROM subject WHERE id = ?1";
        self.first("subject", text, params![id.0], |row| stamped(row, subject))
    }

    fn subject_by_tag(&self, tag: &IndexTag) -> Result<Option<Stamped<SubjectRow>>, StoreError> {
        let text = "-- subject_by_tag\nSELECT * FROM subject WHERE tag = ?1";
        self.first("subject", text, params![tag.0], |row| stamped(row, subject))
    }

    fn grant(&self, id: GrantId) -> Result<Option<Stamped<GrantRow>>, StoreError> {
        let text = "-- grant\nSELECT * FROM shipment_grant WHERE id = ?1";
        self.first("shipment_grant", text, params![id.0], |row| stamped(row, grant))
    }

    fn grant_by_tag(&self, tag: &IndexTag) -> Result<Option<Stamped<GrantRow>>, StoreError> {
        let text = "-- grant_by_tag\nSELECT * FROM shipment_grant WHERE tag = ?1";
        self.first("shipment_grant", text, params![tag.0], |row| stamped(row, grant))
    }

    fn grants_of(&self, record: RecordId) -> Result<Vec<Stamped<GrantRow>>, StoreError> {
        let text = "-- grants_of\nSELECT * FROM shipment_grant WHERE record = ?1 ORDER BY id";
        self.all("shipment_grant", text, params![record.0], |row| stamped(row, grant))
    }

    fn idempotency(&self, digest: &[u8; 16]) -> Result<Option<Stamped<IdempotencyRow>>, StoreError> {
        let text = "-- idempotency\nSELECT * FROM idempotency WHERE digest = ?1";
        self.first("idempotency", text, params![digest], |row| stamped(row, idempotency))
    }

    fn idempotency_of(&self, record: RecordId) -> Result<Vec<Stamped<IdempotencyRow>>, StoreError> {
        let text = "-- idempotency_of\nSELECT * FROM idempotency WHERE record = ?1";
        self.all("idempotency", text, params![record.0], |row| stamped(row, idempotency))
    }

    fn tombstone(&self, digest: &TokenDigest) -> Result<Option<Stamped<TombstoneRow>>, StoreError> {
        let text = "-- tombstone\nSELECT * FROM tombstone WHERE digest = ?1";
        self.first("tombstone", text, params![digest.0], |row| stamped(row, tombstone))
    }

    fn policies(&self) -> Result<Vec<(PolicyVersion, String)>, StoreError> {
        self.all("policy", "-- policies\nSELECT * FROM policy", [], |row| {
            Ok(Ok((PolicyVersion(need!(array(row, "version")?, "version")), row.get("text")?)))
        })
    }

    fn meta(&self, key: &'static str) -> Result<Option<Stamped<MetaRow>>, StoreError> {
        let text = "-- meta\nSELECT * FROM meta WHERE key = ?1";
        self.first("meta", text, params![key], |row| {
            let value = row.get("value")?;
            Ok(stamp(row)?.map(|stamp| (MetaRow { key: key.into(), value }, stamp)))
        })
    }

    fn counts(&self, until: Timestamp) -> Result<Counts, StoreError> {
        let text = "-- counts\nSELECT (SELECT COUNT(*) FROM record), (SELECT COUNT(*) FROM record WHERE due <= ?1), \
                    (SELECT MIN(due) FROM record WHERE due <= ?1), (SELECT COUNT(*) FROM tombstone)";
        let counts = self.first("record", text, params![until.0], |row| {
            Ok(Ok(Counts {
                records: row.get(0)?,
                due: row.get(1)?,
                oldest_due: row.get::<_, Option<i64>>(2)?.map(Timestamp),
                tombstones: row.get(3)?,
            }))
        })?;
        Ok(counts.unwrap_or_default())
    }

    fn audit_batches(
        &self,
        from: u64,
        limit: usize,
        each: &mut dyn FnMut(Batch, HeadStamp) -> bool,
    ) -> Result<(), StoreError> {
        let table = "audit_batch";
        let text = "-- audit_batches\nSELECT * FROM audit_batch WHERE first >= ?1 ORDER BY first LIMIT ?2";
        let mut statement = self.connection.prepare_cached(text).map_err(|source| sql(table, source))?;
        let mut rows = statement.query(params![from, limit]).map_err(|source| sql(table, source))?;
        while let Some(row) = rows.next().map_err(|source| sql(table, source))? {
            let (batch, stamp) = audit_batch(row)
                .map_err(|source| sql(table, source))?
                .map_err(|column| StoreError::Corrupt { table, column })?;
            if !each(batch, stamp) {
                break;
            }
        }
        Ok(())
    }
}

fn audit_batch(row: &SqlRow<'_>) -> Decoded<(Batch, HeadStamp)> {
    let root = need!(array(row, "root")?, "root");
    let head = Head { size: row.get("size")?, root, at: Timestamp(row.get("at")?) };
    let batch = Batch { first: row.get("first")?, entries: row.get("entries")?, head };
    Ok(Ok((batch, HeadStamp(row.get("mac")?))))
}
