//! Reading the log's leaves, nodes and checkpoints, and every row of the state. INVARIANT: as for every statement, a column that
//! does not decode is named without its value.

use std::ops::Range;

use rusqlite::{Row as SqlRow, params};

use super::super::sql;
use super::retention::policy_in_force;
use super::{Decoded, Reader, array, callers, erasure, grant, idempotency, record, subject, tombstone};
use crate::audit::tree::Hash;
use crate::audit::verify::leaves;
use crate::store::StoreError;
use crate::store::state::{Fact, Facts};
use crate::store::tx::log::{KeptNote, LogReads};

fn note(row: &SqlRow<'_>) -> Decoded<KeptNote> {
    Ok(Ok(KeptNote {
        first: row.get("first")?,
        size: row.get("size")?,
        is_last: row.get("last")?,
        note: row.get("note")?,
    }))
}

impl LogReads for Reader<'_> {
    fn leaves(&self, range: Range<u64>, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), StoreError> {
        let table = "audit_batch";
        let text = "-- leaves\nSELECT first, entries FROM audit_batch WHERE first >= \
                    (SELECT COALESCE(MAX(first), 0) FROM audit_batch WHERE first <= ?1) AND first < ?2 ORDER BY first";
        let mut statement = self.connection.prepare_cached(text).map_err(|source| sql(table, source))?;
        let mut rows = statement.query(params![range.start, range.end]).map_err(|source| sql(table, source))?;
        while let Some(row) = rows.next().map_err(|source| sql(table, source))? {
            let first: u64 = row.get(0).map_err(|source| sql(table, source))?;
            let packed = row.get_ref(1).map_err(|source| sql(table, source))?.as_blob().ok();
            let corrupt = StoreError::Corrupt { table, column: "entries" };
            let leaves = packed.and_then(leaves).ok_or(corrupt)?;
            (first..).zip(leaves).filter(|(number, _)| range.contains(number)).for_each(|(n, leaf)| each(n, leaf));
        }
        Ok(())
    }

    fn node(&self, level: u8, end: u64) -> Result<Option<Hash>, StoreError> {
        let text = "-- node\nSELECT hash FROM audit_node WHERE \"end\" = ?1 AND level = ?2";
        self.first("audit_node", text, params![end, level], |row| Ok(array(row, "hash")?.ok_or("hash")))
    }

    fn nodes(&self, ends: Range<u64>) -> Result<u64, StoreError> {
        let text = "-- nodes\nSELECT COUNT(*) FROM audit_node WHERE \"end\" >= ?1 AND \"end\" < ?2";
        let count = self.first("audit_node", text, params![ends.start, ends.end], |row| row.get(0).map(Ok));
        Ok(count?.unwrap_or(0))
    }

    fn note(&self, first: u64, size: u64) -> Result<Option<KeptNote>, StoreError> {
        let text = "-- note\nSELECT * FROM checkpoint WHERE first = ?1 AND size = ?2";
        self.first("checkpoint", text, params![first, size], note)
    }

    fn newest_note(&self, first: u64) -> Result<Option<KeptNote>, StoreError> {
        let text = "-- newest_note\nSELECT * FROM checkpoint WHERE first = ?1 ORDER BY size DESC LIMIT 1";
        self.first("checkpoint", text, params![first], note)
    }

    fn notes_after(&self, seen: Option<(u64, u64)>, limit: usize) -> Result<Vec<KeptNote>, StoreError> {
        let text =
            "-- notes_after\nSELECT * FROM checkpoint WHERE (first, size) > (?1, ?2) ORDER BY first, size LIMIT ?3";
        // What lies before 0 is none of ours, and must be seen.
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (first, size) = seen.map_or((i64::MIN, 0), |(first, size)| (number(first), number(size)));
        self.all("checkpoint", text, params![first, size, limit], note)
    }

    fn last_notes(&self) -> Result<Vec<KeptNote>, StoreError> {
        self.all("checkpoint", "-- last_notes\nSELECT * FROM checkpoint WHERE last = 1 ORDER BY first", [], note)
    }
}

impl Facts for Reader<'_> {
    fn facts(&self, each: &mut dyn FnMut(Fact<'_>)) -> Result<(), StoreError> {
        self.scan("record", "-- facts\nSELECT * FROM record", record, |row| each(Fact::Record(&row)))?;
        self.scan("subject", "-- facts\nSELECT * FROM subject", subject, |row| each(Fact::Subject(&row)))?;
        self.scan("shipment_grant", "-- facts\nSELECT * FROM shipment_grant", grant, |row| each(Fact::Grant(&row)))?;
        let text = "-- facts\nSELECT * FROM idempotency";
        self.scan("idempotency", text, idempotency, |row| each(Fact::Idempotency(&row)))?;
        self.scan("tombstone", "-- facts\nSELECT * FROM tombstone", tombstone, |row| each(Fact::Tombstone(&row)))?;
        self.scan("caller", "-- facts\nSELECT * FROM caller", callers::enrolment, |row| each(Fact::Caller(&row)))?;
        self.scan("approval", "-- facts\nSELECT * FROM approval", callers::approval, |row| each(Fact::Approval(&row)))?;
        let text = "-- facts\nSELECT * FROM policy_in_force";
        self.scan("policy_in_force", text, policy_in_force, |row| each(Fact::PolicyInForce(&row)))?;
        self.scan("hold", "-- facts\nSELECT * FROM hold", erasure::hold, |row| each(Fact::Hold(&row)))?;
        self.scan("month", "-- facts\nSELECT * FROM month", erasure::month, |row| each(Fact::Month(&row)))?;
        self.scan("tally", "-- facts\nSELECT * FROM tally", erasure::tally, |row| each(Fact::Tally(&row)))
    }
}

impl Reader<'_> {
    /// Every row, one in memory at a time.
    fn scan<R>(
        &self,
        table: &'static str,
        text: &'static str,
        decode: fn(&SqlRow<'_>) -> Decoded<R>,
        mut each: impl FnMut(R),
    ) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(text).map_err(|source| sql(table, source))?;
        let mut rows = statement.query([]).map_err(|source| sql(table, source))?;
        while let Some(row) = rows.next().map_err(|source| sql(table, source))? {
            let decoded = decode(row).map_err(|source| sql(table, source))?;
            each(decoded.map_err(|column| StoreError::Corrupt { table, column })?);
        }
        Ok(())
    }
}
