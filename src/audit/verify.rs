//! Reads a log from its first entry and says where it first goes wrong. INVARIANT: a log that verifies holds, entry by entry,
//! what its heads vouch for; only a tail cut off at the end of a batch needs a head from elsewhere to be missed.

use super::entry::{Entry, Reader, put};
use super::log::Tip;
use super::tree::{Frontier, Hash, Node, leaf_hash};
use crate::domain::time::Timestamp;

const HEAD_FORMAT: u8 = 1;

/// The tree after a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Entries of the whole log; the root is that of the year's tree alone.
    pub size: u64,
    pub root: Hash,
    pub at: Timestamp,
}

impl Head {
    /// What a MAC or a signature is made over: format, size, root, time; integers big-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[HEAD_FORMAT], &self.size.to_be_bytes()[..], &self.root, &self.at.0.to_be_bytes()].concat()
    }
}

/// What one commit added to the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Index of its first entry, from 0.
    pub first: u64,
    /// Packed entries, at least one.
    pub entries: Vec<u8>,
    pub head: Head,
}

/// Entries in their canonical bytes, each behind its length.
pub fn pack(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    entries.iter().for_each(|entry| put(&mut out, &entry.to_bytes()));
    out
}

pub fn unpack(packed: &[u8]) -> Option<Vec<Entry>> {
    let mut reader = Reader(packed);
    let mut entries = Vec::new();
    while !reader.0.is_empty() {
        entries.push(Entry::from_bytes(reader.bytes()?)?);
    }
    Some(entries)
}

/// The canonical bytes of packed entries, not looked at.
pub fn leaves(packed: &[u8]) -> Option<Vec<&[u8]>> {
    let mut reader = Reader(packed);
    let mut leaves = Vec::new();
    while !reader.0.is_empty() {
        leaves.push(reader.bytes()?);
    }
    Some(leaves)
}

/// A whole log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified {
    pub entries: u64,
    pub root: Hash,
}

/// The first bad place of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("batch {batch}, entry {entry}: {what}")]
pub struct Flaw {
    /// From 0.
    pub batch: u64,
    /// Index in the whole log, from 0: the entry itself where it can be told, else the batch's first.
    pub entry: u64,
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum What {
    #[error("entries are missing before this batch")]
    Gap,
    #[error("the batch tells of entries that were already told")]
    Repeated,
    #[error("the head is not vouched for")]
    HeadForged,
    #[error("the batch is empty")]
    Empty,
    #[error("the bytes are no entry")]
    Undecodable,
    #[error("the batch holds fewer entries than its head counts")]
    Cut,
    #[error("the batch holds more entries than its head counts")]
    Added,
    #[error("an entry of the batch is not what its head vouches for")]
    Altered,
    #[error("the log is shorter than it is known to have been")]
    TailCut,
    #[error("the log is not the one that is known")]
    Forked,
    #[error("the year's last checkpoint is not what its entries lead to")]
    Closing,
    #[error("a stored hash is not what the entries lead to")]
    Node,
    #[error("a stored checkpoint is not what the entries lead to, or not signed")]
    Checkpoint,
}

/// Checks a whole log. `known` is a head kept elsewhere, if there is one; `head_ok` says whether a batch's head is
/// vouched for.
pub fn verify(
    batches: impl IntoIterator<Item = Batch>,
    known: Option<Head>,
    mut head_ok: impl FnMut(&Batch) -> bool,
) -> Result<Verified, Flaw> {
    let mut verifier = Verifier::new(known);
    for batch in batches {
        verifier.follow(&batch, head_ok(&batch))?;
    }
    verifier.finish()
}

/// Checks a log as it comes, batch by batch, in memory that grows with the logarithm of its length.
#[derive(Debug)]
pub struct Verifier {
    known: Option<Head>,
    /// The tree that is being followed; its year is nothing that entries tell.
    tip: Tip,
    batches: u64,
    /// Subtrees completed by the batch that was followed last.
    completed: Vec<Node>,
}

impl Verifier {
    pub fn new(known: Option<Head>) -> Self {
        Self::from(0, known)
    }

    /// For a log whose first trees have served their time: `first` is the number of the first entry that is kept.
    pub fn from(first: u64, known: Option<Head>) -> Self {
        let tip = Tip { year: 0, first, frontier: Frontier::new() };
        Self { known, tip, batches: 0, completed: Vec::new() }
    }

    /// Entries so far, those before the first one that is kept included.
    pub fn entries(&self) -> u64 {
        self.tip.entries()
    }

    /// The first entry of the tree that is being followed.
    pub fn first(&self) -> u64 {
        self.tip.first
    }

    /// The head of the tree that is being followed.
    pub fn root(&self) -> Hash {
        self.tip.frontier.root()
    }

    /// The subtrees that the last batch completed; their ends are counted in the whole log.
    pub fn completed(&self) -> &[Node] {
        &self.completed
    }

    /// A flaw at the entry that would come next.
    pub fn flaw(&self, what: What) -> Flaw {
        Flaw { batch: self.batches, entry: self.entries(), what }
    }

    /// A year is over: the next batch begins a tree. `last` is the head that the year was closed with.
    pub fn cut(&mut self, last: &Hash) -> Result<(), Flaw> {
        if self.root() != *last {
            return Err(self.flaw(What::Closing));
        }
        self.tip = self.tip.next(0);
        Ok(())
    }

    /// The next batch; `head_ok` says whether its head is vouched for. After a flaw nothing more is worth following.
    pub fn follow(&mut self, batch: &Batch, head_ok: bool) -> Result<(), Flaw> {
        let number = self.batches;
        self.continues(batch, head_ok).map_err(|(entry, what)| Flaw { batch: number, entry, what })?;
        self.batches += 1;
        Ok(())
    }

    /// The log ends here.
    pub fn finish(self) -> Result<Verified, Flaw> {
        let (entries, root) = (self.entries(), self.root());
        if self.known.is_some_and(|known| entries < known.size) {
            return Err(Flaw { batch: self.batches, entry: entries, what: What::TailCut });
        }
        Ok(Verified { entries, root })
    }

    /// One batch on top of what went before; an error names the entry.
    fn continues(&mut self, batch: &Batch, head_ok: bool) -> Result<(), (u64, What)> {
        let first = self.entries();
        let bad = |what| Err((first, what));
        if batch.first > first {
            return bad(What::Gap);
        }
        if batch.first < first {
            return bad(What::Repeated);
        }
        if !head_ok {
            return bad(What::HeadForged);
        }
        if batch.entries.is_empty() {
            return bad(What::Empty);
        }
        self.completed.clear();
        let mut reader = Reader(&batch.entries);
        while !reader.0.is_empty() {
            let leaf = reader.bytes().filter(|leaf| Entry::from_bytes(leaf).is_some());
            let leaf = leaf_hash(leaf.ok_or((self.entries(), What::Undecodable))?);
            let (base, completed) = (self.tip.first, &mut self.completed);
            self.tip.frontier.append_hash(leaf, &mut |node| completed.push(Node { end: base + node.end, ..node }));
            if self.is_forked() {
                return bad(What::Forked);
            }
        }
        let size = self.entries();
        if size < batch.head.size {
            return Err((size, What::Cut));
        }
        if size > batch.head.size {
            return Err((batch.head.size, What::Added));
        }
        if self.root() != batch.head.root {
            return bad(What::Altered);
        }
        Ok(())
    }

    /// As long as the known log was, and not the same.
    fn is_forked(&self) -> bool {
        let known = self.known.as_ref();
        known.is_some_and(|known| known.size == self.entries() && known.root != self.root())
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::{any_entry, sample};
    use super::*;
    use proptest::prelude::*;

    /// Only the heads of `log()` are vouched for.
    fn check(log: &[Batch], known: Option<&Head>) -> Result<Verified, Flaw> {
        let genuine: Vec<Head> = self::log().into_iter().map(|batch| batch.head).collect();
        verify(log.to_vec(), known.cloned(), |batch| genuine.contains(&batch.head))
    }

    /// Five batches of one, two, three, one, two entries.
    fn log() -> Vec<Batch> {
        let mut tip = Tip::default();
        let mut next = 0;
        [1, 2, 3, 1, 2u8]
            .into_iter()
            .map(|len| {
                let entries: Vec<Entry> = (next..next + len).map(sample).collect();
                next += len;
                tip.extend(&entries, Timestamp(i64::from(next)), &mut |_| {})
            })
            .collect()
    }

    fn flaw(batch: u64, entry: u64, what: What) -> Result<Verified, Flaw> {
        Err(Flaw { batch, entry, what })
    }

    #[test]
    fn a_whole_log_verifies_alone_and_against_each_of_its_heads() {
        let log = log();
        let last = &log[4].head;
        assert_eq!(check(&log, None), Ok(Verified { entries: 9, root: last.root }));
        for batch in &log {
            assert!(check(&log, Some(&batch.head)).is_ok());
        }
        assert_eq!(check(&[], None).unwrap().entries, 0);
    }

    #[test]
    fn every_flipped_byte_is_found_in_its_batch() {
        let log = log();
        for number in 0..log.len() {
            let place = number as u64;
            let mut bad = log.clone();
            for at in 0..bad[number].entries.len() {
                bad[number].entries[at] ^= 1;
                let found = check(&bad, None).unwrap_err();
                assert_eq!(found.batch, place, "byte {at}: {found}");
                assert!(found.entry >= log[number].first && found.entry <= log[number].head.size, "byte {at}: {found}");
                bad[number].entries[at] ^= 1;
            }
            for at in 0..32 {
                bad[number].head.root[at] ^= 1;
                assert_eq!(check(&bad, None), flaw(place, log[number].first, What::HeadForged));
                bad[number].head.root[at] ^= 1;
            }
            for bit in 0..64 {
                bad[number].head.size ^= 1 << bit;
                assert_eq!(check(&bad, None), flaw(place, log[number].first, What::HeadForged));
                bad[number].head.size ^= 1 << bit;
                bad[number].head.at.0 ^= 1 << bit;
                assert_eq!(check(&bad, None), flaw(place, log[number].first, What::HeadForged));
                bad[number].head.at.0 ^= 1 << bit;
                bad[number].first ^= 1 << bit;
                assert_eq!(check(&bad, None).unwrap_err().batch, place);
                bad[number].first ^= 1 << bit;
            }
            assert_eq!(bad, log);
        }
    }

    #[test]
    fn every_dropped_swapped_or_doubled_batch_is_found() {
        let log = log();
        for number in 0..log.len() {
            let first = log[number].first;
            let mut dropped = log.clone();
            dropped.remove(number);
            if number + 1 < log.len() {
                assert_eq!(check(&dropped, None), flaw(number as u64, first, What::Gap));
                let mut swapped = log.clone();
                swapped.swap(number, number + 1);
                assert_eq!(check(&swapped, None), flaw(number as u64, first, What::Gap));
            } else {
                assert!(check(&dropped, None).is_ok(), "a tail is missed only by those who know of it");
                assert_eq!(check(&dropped, Some(&log[number].head)), flaw(number as u64, first, What::TailCut));
            }
            let mut doubled = log.clone();
            doubled.insert(number, log[number].clone());
            assert_eq!(check(&doubled, None), flaw(number as u64 + 1, log[number].head.size, What::Repeated));
        }
    }

    #[test]
    fn every_cut_inside_a_batch_is_found() {
        let log = log();
        for number in 0..log.len() {
            for len in 0..log[number].entries.len() {
                let mut cut = log.clone();
                cut[number].entries.truncate(len);
                let found = check(&cut, None).unwrap_err();
                assert_eq!(found.batch, number as u64);
                assert!(matches!(found.what, What::Empty | What::Undecodable | What::Cut), "{found}");
            }
        }
    }

    #[test]
    fn dropped_swapped_doubled_and_added_entries_are_found() {
        let log = log();
        let with = |entries: &[u8]| {
            let mut bad = log.clone();
            bad[2].entries = pack(&entries.iter().copied().map(sample).collect::<Vec<_>>());
            check(&bad, None)
        };
        assert!(with(&[3, 4, 5]).is_ok());
        assert_eq!(with(&[3, 4]), flaw(2, 5, What::Cut));
        assert_eq!(with(&[3, 5, 4]), flaw(2, 3, What::Altered));
        assert_eq!(with(&[3, 3, 4]), flaw(2, 3, What::Altered));
        assert_eq!(with(&[3, 4, 5, 6]), flaw(2, 6, What::Added));
    }

    #[test]
    fn another_log_with_good_heads_is_a_fork_to_those_who_know_the_first() {
        let known = log()[1].head.clone();
        let fork = Tip::default().extend(&[7, 8, 9, 10].map(sample), Timestamp(0), &mut |_| {});
        assert!(verify([fork.clone()], None, |_| true).is_ok());
        assert_eq!(verify([fork], Some(known), |_| true), flaw(0, 0, What::Forked));
    }

    #[test]
    fn a_log_goes_on_in_a_new_tree_only_where_the_old_one_was_closed() {
        let (mut tip, silent) = (Tip::default(), &mut |_: Node| {});
        let first = tip.extend(&[sample(1), sample(2)], Timestamp(0), silent);
        let closed = first.head.root;
        tip = tip.next(1971);
        let second = tip.extend(&[sample(3)], Timestamp(1), silent);
        let follow = |last: Option<&Hash>| {
            let mut verifier = Verifier::new(None);
            verifier.follow(&first, true)?;
            last.map_or(Ok(()), |last| verifier.cut(last))?;
            verifier.follow(&second, true)?;
            verifier.finish()
        };
        assert_eq!(follow(Some(&closed)).unwrap(), Verified { entries: 3, root: second.head.root });
        assert_eq!(follow(Some(&[7; 32])), flaw(1, 2, What::Closing));
        assert_eq!(follow(None), flaw(1, 2, What::Altered));
        let mut alone = Verifier::from(2, Some(second.head.clone()));
        alone.follow(&second, true).unwrap();
        assert!(alone.finish().is_ok());
    }

    #[test]
    fn an_empty_batch_is_refused() {
        let mut bad = log();
        let mut empty = bad[1].clone();
        (empty.first, empty.entries) = (empty.head.size, Vec::new());
        bad.insert(2, empty);
        assert_eq!(check(&bad, None), flaw(2, 3, What::Empty));
    }

    proptest! {
        #[test]
        fn packing_is_undone_by_unpacking(entries in proptest::collection::vec(any_entry(), 0..6)) {
            prop_assert_eq!(unpack(&pack(&entries)), Some(entries.clone()));
            let batch = Tip::default().extend(&entries, Timestamp(0), &mut |_| {});
            prop_assert_eq!(batch.entries, pack(&entries));
        }
    }
}
