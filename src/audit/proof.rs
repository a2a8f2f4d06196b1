//! Proofs of RFC 6962 §2.1 out of stored hashes: that an entry is in a tree, that one tree is the beginning of another.
//! INVARIANT: making a proof reads at most two stored hashes a level and at most 512 leaves, whatever the tree's size; and a
//! proof is checked before it is handed out, so that spoiled hashes make an error and never a wrong proof.
//!
//! Of the complete subtrees only those of `STORED_FROM` levels and more are kept (two rows for 256 entries); what is smaller is
//! made again from the entries themselves. The same cut gives an export its sections.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::tree::{Frontier, Hash, node_hash};

/// The level from which subtrees are stored.
pub const STORED_FROM: u8 = 8;
/// Leaves of a subtree of that level.
pub const SECTION: u64 = 1 << STORED_FROM;

/// Where a tree's hashes are. Numbers are counted in the tree.
pub trait Hashes {
    type Error;
    /// The complete subtree of 2^`level` leaves, at least `SECTION`, that ends before leaf `end`.
    fn node(&self, level: u8, end: u64) -> Result<Hash, Self::Error>;
    /// The hashes of these leaves, all of them; at most `SECTION`.
    fn leaves(&self, range: Range<u64>) -> Result<Vec<Hash>, Self::Error>;
}

/// The tree's head when it had `size` leaves.
pub fn root<H: Hashes>(tree: &H, size: u64) -> Result<Hash, H::Error> {
    subtree(tree, &(0..size))
}

/// `PATH(index, D[size])` of RFC 6962 §2.1.1; `index` below `size`.
pub fn inclusion<H: Hashes>(tree: &H, index: u64, size: u64) -> Result<Vec<Hash>, H::Error> {
    path(tree, index, size, 1)
}

/// The same for the section that starts at `first`: its path in the tree whose leaves are the sections' heads. Sections being
/// whole subtrees (the last one the right edge's), that tree has the shape of RFC 6962 again.
pub fn section<H: Hashes>(tree: &H, first: u64, size: u64) -> Result<Vec<Hash>, H::Error> {
    path(tree, first, size, SECTION)
}

/// `PROOF(from, D[size])` of RFC 6962 §2.1.2; `from` at most `size`.
pub fn consistency<H: Hashes>(tree: &H, from: u64, size: u64) -> Result<Vec<Hash>, H::Error> {
    let (mut range, mut beside, mut is_known) = (0..size, Vec::new(), true);
    while range.end != from && from > 0 {
        let middle = range.start + split(&range);
        if from <= middle {
            beside.push(middle..range.end);
            range = range.start..middle;
        } else {
            beside.push(range.start..middle);
            range = middle..range.end;
            is_known = false;
        }
    }
    if !is_known {
        beside.push(range);
    }
    beside.iter().rev().map(|range| subtree(tree, range)).collect()
}

/// The heads of the complete subtrees that the first `size` leaves fall into, the largest first.
pub fn peaks<H: Hashes>(tree: &H, size: u64) -> Result<Vec<Hash>, H::Error> {
    let (mut at, mut peaks) = (0, Vec::new());
    for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
        peaks.push(subtree(tree, &(at..at + (1 << level)))?);
        at += 1 << level;
    }
    Ok(peaks)
}

/// The head that a path leads to; `None` when it cannot be a path of that place (RFC 9162 §2.1.3.2).
pub fn led_to(index: u64, size: u64, leaf: Hash, path: &[Hash]) -> Option<Hash> {
    let (mut at, mut last) = (index, size.checked_sub(1).filter(|last| index <= *last)?);
    let mut head = leaf;
    for beside in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            head = node_hash(beside, &head);
            let lone = if at == 0 { 0 } else { at.trailing_zeros() };
            (at, last) = (at >> lone, last >> lone);
        } else {
            head = node_hash(&head, beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(head)
}

/// Whether the proof shows that the tree of `size` leaves with the head `root` begins with that of `from` leaves and head
/// `old` (RFC 9162 §2.1.4.2).
pub fn is_beginning(from: u64, old: Hash, size: u64, root: Hash, proof: &[Hash]) -> bool {
    if from == size {
        return proof.is_empty() && old == root;
    }
    if from == 0 || from > size {
        return false;
    }
    let (first, rest) = match proof {
        rest if from.is_power_of_two() => (old, rest),
        [first, rest @ ..] => (*first, rest),
        [] => return false,
    };
    let complete = (from - 1).trailing_ones();
    let (mut at, mut last) = ((from - 1) >> complete, (size - 1) >> complete);
    let (mut begun, mut whole) = (first, first);
    for beside in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            (begun, whole) = (node_hash(beside, &begun), node_hash(beside, &whole));
            let lone = if at == 0 { 0 } else { at.trailing_zeros() };
            (at, last) = (at >> lone, last >> lone);
        } else {
            whole = node_hash(&whole, beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && begun == old && whole == root
}

/// What lies beside the way from the head to the subtree of at most `least` leaves that holds leaf `index`; the lowest first.
fn path<H: Hashes>(tree: &H, index: u64, size: u64, least: u64) -> Result<Vec<Hash>, H::Error> {
    let (mut range, mut beside) = (0..size, Vec::new());
    while range.end - range.start > least {
        let middle = range.start + split(&range);
        if index < middle {
            beside.push(middle..range.end);
            range = range.start..middle;
        } else {
            beside.push(range.start..middle);
            range = middle..range.end;
        }
    }
    beside.iter().rev().map(|range| subtree(tree, range)).collect()
}

/// The largest power of two below the range's length, which is at least 2.
fn split(range: &Range<u64>) -> u64 {
    let last = (range.end - range.start).saturating_sub(1).max(1);
    1 << last.ilog2()
}

/// MTH of a range that RFC 6962's splitting leads to.
fn subtree<H: Hashes>(tree: &H, range: &Range<u64>) -> Result<Hash, H::Error> {
    let length = range.end - range.start;
    if length == 0 {
        return Ok(Sha256::digest([]).into());
    }
    if length >= SECTION && length.is_power_of_two() {
        // At most 63: no tree has 2^64 leaves.
        return tree.node(length.trailing_zeros() as u8, range.end);
    }
    if length <= SECTION {
        let mut frontier = Frontier::new();
        tree.leaves(range.clone())?.into_iter().for_each(|leaf| frontier.append_hash(leaf, &mut |_| {}));
        return Ok(frontier.root());
    }
    let middle = range.start + split(range);
    Ok(node_hash(&subtree(tree, &(range.start..middle))?, &subtree(tree, &(middle..range.end))?))
}

#[cfg(test)]
mod tests;
