//! The log in transactions: where it stands, its leaves, nodes and checkpoints. INVARIANT: leaves and nodes are handed on as they
//! lie; who makes a proof of them checks that it leads to a head that is vouched for.

use std::ops::Range;

use super::{Tx, View, one};
use crate::audit::checkpoint::LogName;
use crate::audit::log::Tip;
use crate::audit::proof::Hashes;
use crate::audit::tree::{Hash, leaf_hash};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::rows::{MetaRow, Row as _};
use crate::store::state::{Facts, State};

/// A signed head as it lies in the store. The note says all of it again; who believes it reads that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptNote {
    /// The number of its tree's first entry in the whole log.
    pub first: u64,
    pub size: u64,
    pub is_last: bool,
    pub note: String,
}

/// The end of a year: the tree is closed under this name, and the next one begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    pub name: LogName,
    pub year: i16,
    pub at: Timestamp,
}

pub(crate) trait LogReads: Facts {
    /// The leaves with these numbers in the whole log, in order.
    fn leaves(&self, range: Range<u64>, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), StoreError>;
    fn node(&self, level: u8, end: u64) -> Result<Option<Hash>, StoreError>;
    /// How many nodes lie in the store that end within the range.
    fn nodes(&self, ends: Range<u64>) -> Result<u64, StoreError>;
    fn note(&self, first: u64, size: u64) -> Result<Option<KeptNote>, StoreError>;
    fn newest_note(&self, first: u64) -> Result<Option<KeptNote>, StoreError>;
    /// At most `limit` notes behind the one of this tree and size, in order; from the very first on without one.
    fn notes_after(&self, seen: Option<(u64, u64)>, limit: usize) -> Result<Vec<KeptNote>, StoreError>;
    /// The notes that closed a tree, in order.
    fn last_notes(&self) -> Result<Vec<KeptNote>, StoreError>;
}

pub(crate) trait LogWrites {
    fn put_note(&self, note: &KeptNote) -> Result<usize, StoreError>;
    fn delete_note(&self, first: u64, size: u64) -> Result<usize, StoreError>;
    /// Deletes at most `limit` batches whose entries lie in the range.
    fn delete_batches(&self, range: Range<u64>, limit: usize) -> Result<usize, StoreError>;
    fn delete_nodes(&self, ends: Range<u64>, limit: usize) -> Result<usize, StoreError>;
    /// Deletes at most `limit` notes of the trees before this entry, those that closed one excepted.
    fn delete_notes(&self, before: u64, limit: usize) -> Result<usize, StoreError>;
}

/// The first entry that is kept: every tree before it has served its time.
const KEPT_FROM: &str = "audit_kept_from";

impl View<'_> {
    /// The log's last tree as of the last commit.
    pub fn audit_tip(&self) -> Result<Tip, StoreError> {
        let corrupt = StoreError::Corrupt { table: MetaRow::TABLE, column: "value" };
        match self.meta_bytes("audit_frontier")? {
            None => Ok(Tip::default()),
            Some(bytes) => Tip::from_bytes(&bytes).ok_or(corrupt),
        }
    }

    pub fn audit_kept_from(&self) -> Result<u64, StoreError> {
        Ok(u64::try_from(self.meta_i64(KEPT_FROM)?.unwrap_or(0)).unwrap_or(0))
    }

    pub fn note(&self, first: u64, size: u64) -> Result<Option<KeptNote>, StoreError> {
        self.reads.note(first, size)
    }

    pub fn newest_note(&self, first: u64) -> Result<Option<KeptNote>, StoreError> {
        self.reads.newest_note(first)
    }

    pub fn last_notes(&self) -> Result<Vec<KeptNote>, StoreError> {
        self.reads.last_notes()
    }

    /// The canonical bytes of these entries of the tree that begins at `first`.
    pub fn leaves(&self, first: u64, range: Range<u64>) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut leaves = Vec::new();
        let count = range.end.saturating_sub(range.start);
        self.reads.leaves(first + range.start..first + range.end, &mut |_, leaf| leaves.push(leaf.to_vec()))?;
        let gap = StoreError::Corrupt { table: "audit_batch", column: "entries" };
        if leaves.len() as u64 == count { Ok(leaves) } else { Err(gap) }
    }

    /// The tree that begins at `first`, for proofs.
    pub fn tree(&self, first: u64) -> Tree<'_> {
        Tree { view: self, first }
    }

    pub(crate) fn node(&self, level: u8, end: u64) -> Result<Option<Hash>, StoreError> {
        self.reads.node(level, end)
    }

    /// The state as it was saved, and how many tables it knows; `None` when the store never had one.
    pub(crate) fn state(&self) -> Result<Option<(State, usize)>, StoreError> {
        let Some(bytes) = self.meta_bytes("audit_state")? else { return Ok(None) };
        let state = State::from_bytes(&bytes, self.keyring.signer().state());
        state.map(Some).ok_or(StoreError::Corrupt { table: MetaRow::TABLE, column: "value" })
    }
}

/// One tree's hashes in the store.
pub struct Tree<'a> {
    view: &'a View<'a>,
    first: u64,
}

impl Hashes for Tree<'_> {
    type Error = StoreError;

    fn node(&self, level: u8, end: u64) -> Result<Hash, StoreError> {
        let missing = StoreError::Corrupt { table: "audit_node", column: "hash" };
        self.view.node(level, self.first + end)?.ok_or(missing)
    }

    fn leaves(&self, range: Range<u64>) -> Result<Vec<Hash>, StoreError> {
        Ok(self.view.leaves(self.first, range)?.iter().map(|leaf| leaf_hash(leaf)).collect())
    }
}

impl Tx<'_> {
    /// Closes the tree behind the entries of this commit, with a last checkpoint, and begins the next one.
    pub fn cut_log(&mut self, cut: Cut) {
        self.cut = Some(cut);
    }

    /// Keeps a note; keeping it again changes nothing.
    pub fn put_note(&self, note: &KeptNote) -> Result<(), StoreError> {
        if self.view.note(note.first, note.size)?.is_some() { Ok(()) } else { one(self.writes.put_note(note)) }
    }

    /// Says that every tree before this entry has served its time. Before anything of it is deleted.
    pub fn set_audit_kept_from(&self, first: u64) -> Result<(), StoreError> {
        self.set_meta_i64(KEPT_FROM, i64::try_from(first).unwrap_or(i64::MAX))
    }

    /// Deletes some of the trees that have served their time, their last notes excepted; answers whether there may be more.
    pub fn delete_unkept(&self, limit: usize) -> Result<bool, StoreError> {
        let kept_from = self.audit_kept_from()?;
        let batches = self.writes.delete_batches(0..kept_from, limit)?;
        let nodes = self.writes.delete_nodes(1..kept_from + 1, limit)?;
        let notes = self.writes.delete_notes(kept_from, limit)?;
        Ok([batches, nodes, notes].contains(&limit))
    }
}
