//! Writing the index of findable values. INVARIANT: as for every statement, it answers how many rows it changed.

use rusqlite::params;

use super::super::read::Reader;
use crate::domain::id::RecordId;
use crate::store::StoreError;
use crate::store::rows::IndexRow;
use crate::store::tx::index::IndexWrites;

impl IndexWrites for Reader<'_> {
    fn insert_index(&self, row: &IndexRow) -> Result<usize, StoreError> {
        let text = "-- insert_index\nINSERT INTO index_tag (id, record, field, tag, epoch) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.change("index_tag", text, params![row.id, row.record.0, row.field.code(), row.tag.0, row.epoch.0])
    }

    fn delete_index_of(&self, record: RecordId) -> Result<usize, StoreError> {
        self.change("index_tag", "-- delete_index_of\nDELETE FROM index_tag WHERE record = ?1", params![record.0])
    }
}
