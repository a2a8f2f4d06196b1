//! Reading the index of findable values. INVARIANT: as for every row, a column that does not decode is named without its value.

use rusqlite::{Row as SqlRow, params};

use super::{Decoded, Reader, array};
use crate::crypto::mac::IndexTag;
use crate::domain::id::{Epoch, RecordId, SubjectId};
use crate::domain::vocabulary::Field;
use crate::store::StoreError;
use crate::store::rows::IndexRow;
use crate::store::tx::index::IndexReads;

impl IndexReads for Reader<'_> {
    fn index_rows(&self, tag: &IndexTag, after: i64, limit: usize) -> Result<Vec<IndexRow>, StoreError> {
        let text = "-- index_rows\nSELECT * FROM index_tag WHERE tag = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        self.all("index_tag", text, params![tag.0, after, limit], index_row)
    }

    fn record_ids_of(&self, subject: SubjectId, after: i64, limit: usize) -> Result<Vec<RecordId>, StoreError> {
        let text = "-- record_ids_of\nSELECT id FROM record WHERE subject = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        self.all("record", text, params![subject.0, after, limit], |row| row.get(0).map(|id| Ok(RecordId(id))))
    }
}

pub(super) fn index_row(row: &SqlRow<'_>) -> Decoded<IndexRow> {
    let Some(field) = Field::from_code(row.get("field")?) else { return Ok(Err("field")) };
    let Some(tag) = array(row, "tag")? else { return Ok(Err("tag")) };
    Ok(Ok(IndexRow {
        id: row.get("id")?,
        record: RecordId(row.get("record")?),
        field,
        tag: IndexTag(tag),
        epoch: Epoch(row.get("epoch")?),
    }))
}
