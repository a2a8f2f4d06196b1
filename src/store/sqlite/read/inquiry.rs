//! Reading what questions ask for. INVARIANT: as for every row, a column that does not decode is named without its value.

use rusqlite::params;

use super::{Reader, grant, record, sql, stamped, subject};
use crate::domain::id::{GrantId, RecordId, SubjectId};
use crate::store::StoreError;
use crate::store::rows::{GrantRow, RecordRow, SubjectRow};
use crate::store::tx::Stamped;
use crate::store::tx::inquiry::InquiryReads;

impl InquiryReads for Reader<'_> {
    fn audit_entries(&self, from: u64, end: u64, bytes: usize, packed: &mut Vec<u8>) -> Result<u64, StoreError> {
        let table = "audit_batch";
        // Columns by number: by name, finding them would cost more than reading them.
        let text =
            "-- audit_entries\nSELECT size, entries FROM audit_batch WHERE first >= ?1 AND first < ?2 ORDER BY first";
        let mut statement = self.connection.prepare_cached(text).map_err(|source| sql(table, source))?;
        let mut rows = statement.query(params![from, end]).map_err(|source| sql(table, source))?;
        let mut next = from;
        while packed.len() < bytes
            && let Some(row) = rows.next().map_err(|source| sql(table, source))?
        {
            let entries = row.get_ref(1).map_err(|source| sql(table, source))?;
            packed.extend_from_slice(entries.as_blob().map_err(|_| StoreError::Corrupt { table, column: "entries" })?);
            let size: u64 = row.get(0).map_err(|source| sql(table, source))?;
            if size <= next {
                return Err(StoreError::Corrupt { table, column: "size" });
            }
            next = size;
        }
        Ok(next)
    }

    fn subjects_after(&self, after: SubjectId, limit: usize) -> Result<Vec<Stamped<SubjectRow>>, StoreError> {
        let text = "-- subjects_after\nSELECT * FROM subject WHERE id > ?1 ORDER BY id LIMIT ?2";
        self.all("subject", text, params![after.0, limit], |row| stamped(row, subject))
    }

    fn records_of(
        &self,
        subject: SubjectId,
        before: RecordId,
        limit: usize,
    ) -> Result<Vec<Stamped<RecordRow>>, StoreError> {
        let text = "-- records_of\nSELECT * FROM record WHERE subject = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";
        self.all("record", text, params![subject.0, before.0, limit], |row| stamped(row, record))
    }

    fn grants_after(&self, after: GrantId, limit: usize) -> Result<Vec<Stamped<GrantRow>>, StoreError> {
        let text = "-- grants_after\nSELECT * FROM shipment_grant WHERE id > ?1 ORDER BY id LIMIT ?2";
        self.all("shipment_grant", text, params![after.0, limit], |row| stamped(row, grant))
    }
}
