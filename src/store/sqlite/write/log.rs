//! Writing the log's nodes and checkpoints, and deleting what has served its time. INVARIANT: as for every statement, it answers
//! how many rows it changed; nodes are appended in the order of their ends, so that a commit touches the last page alone.

use std::ops::Range;

use rusqlite::{Connection, params};

use super::super::read::Reader;
use crate::audit::tree::Node;
use crate::store::StoreError;
use crate::store::tx::log::{KeptNote, LogWrites};

impl LogWrites for Reader<'_> {
    fn put_note(&self, note: &KeptNote) -> Result<usize, StoreError> {
        let text = "-- put_note\nINSERT INTO checkpoint (first, size, last, note) VALUES (?1, ?2, ?3, ?4)";
        self.change("checkpoint", text, params![note.first, note.size, note.is_last, note.note])
    }

    fn delete_note(&self, first: u64, size: u64) -> Result<usize, StoreError> {
        let text = "-- delete_note\nDELETE FROM checkpoint WHERE first = ?1 AND size = ?2";
        self.change("checkpoint", text, params![first, size])
    }

    fn delete_batches(&self, range: Range<u64>, limit: usize) -> Result<usize, StoreError> {
        let text = "-- delete_batches\nDELETE FROM audit_batch WHERE first IN \
                    (SELECT first FROM audit_batch WHERE first >= ?1 AND first < ?2 ORDER BY first LIMIT ?3)";
        self.change("audit_batch", text, params![range.start, range.end, limit])
    }

    fn delete_nodes(&self, ends: Range<u64>, limit: usize) -> Result<usize, StoreError> {
        let text = "-- delete_nodes\nDELETE FROM audit_node WHERE (\"end\", level) IN \
                    (SELECT \"end\", level FROM audit_node WHERE \"end\" >= ?1 AND \"end\" < ?2 ORDER BY \"end\" LIMIT ?3)";
        self.change("audit_node", text, params![ends.start, ends.end, limit])
    }

    fn delete_notes(&self, before: u64, limit: usize) -> Result<usize, StoreError> {
        let text = "-- delete_notes\nDELETE FROM checkpoint WHERE last = 0 AND (first, size) IN \
                    (SELECT first, size FROM checkpoint WHERE first < ?1 AND last = 0 ORDER BY first, size LIMIT ?2)";
        self.change("checkpoint", text, params![before, limit])
    }
}

pub(in super::super) fn insert_node(connection: &Connection, node: &Node) -> Result<(), StoreError> {
    let text = "-- insert_node\nINSERT INTO audit_node (\"end\", level, hash) VALUES (?1, ?2, ?3)";
    Reader { connection }.change("audit_node", text, params![node.end, node.level, node.hash]).map(drop)
}
