//! Where the log stands: one tree a calendar year, entries counted through all of them. INVARIANT: a tip is all that going on
//! needs; a cut closes one tree for good and starts the next with no entry lost, repeated or counted twice.
//!
//! ```text
//! entries     0 ............ 4710 | 4711 ............. 9000 | 9001 ...
//! trees       2026, closed        | 2027, closed            | 2028: first = 9001, frontier of what came since
//! ```
//! An entry's number in the vault's whole log never changes; its number in its tree is that less the tree's `first`.

use super::entry::{Entry, put};
use super::tree::{Frontier, Node, leaf_hash};
use super::verify::{Batch, Head};
use crate::domain::time::Timestamp;

const FORMAT: u8 = 2;
/// A frontier alone: the one tree of a store from before logs were cut.
const UNCUT: u8 = 1;

/// The log's last tree.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tip {
    /// The calendar year (UTC) that the tree is named after; 0 before the first entry.
    pub year: i16,
    /// The number of its first entry in the whole log.
    pub first: u64,
    pub frontier: Frontier,
}

impl Tip {
    /// Entries in all trees.
    pub fn entries(&self) -> u64 {
        self.first + self.frontier.size()
    }

    /// Whether it is a tree from before trees had names.
    pub fn is_unnamed(&self) -> bool {
        self.year == 0 && self.entries() > 0
    }

    /// Grows the tree by `entries` and tells of it, and of every subtree completed, its `end` counted in the whole log; what
    /// vouches for the head is made over `head.to_bytes()`.
    pub fn extend(&mut self, entries: &[Entry], at: Timestamp, completed: &mut dyn FnMut(Node)) -> Batch {
        if self.entries() == 0 {
            self.year = year(at);
        }
        let (first, base) = (self.entries(), self.first);
        let mut packed = Vec::new();
        for entry in entries {
            let leaf = entry.to_bytes();
            let mut shifted = |node: Node| completed(Node { end: base + node.end, ..node });
            self.frontier.append_hash(leaf_hash(&leaf), &mut shifted);
            put(&mut packed, &leaf);
        }
        let head = Head { size: self.entries(), root: self.frontier.root(), at };
        Batch { first, entries: packed, head }
    }

    /// The tree after this one.
    pub fn next(&self, year: i16) -> Self {
        Self { year, first: self.entries(), frontier: Frontier::new() }
    }

    /// Format, year (i16), first (u64), frontier; integers big-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[FORMAT], &self.year.to_be_bytes()[..], &self.first.to_be_bytes(), &self.frontier.to_bytes()].concat()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&UNCUT, _) => Some(Self { frontier: Frontier::from_bytes(bytes)?, ..Self::default() }),
            (&FORMAT, rest) => {
                let (year, rest) = rest.split_first_chunk()?;
                let (first, rest) = rest.split_first_chunk()?;
                let frontier = Frontier::from_bytes(rest)?;
                Some(Self { year: i16::from_be_bytes(*year), first: u64::from_be_bytes(*first), frontier })
            }
            _ => None,
        }
    }
}

/// What a log needs done to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The year is over: close the tree, and begin that of this year.
    Cut { year: i16 },
    /// Every tree before this entry has served its time.
    Expire { kept_from: u64 },
}

/// What is to do by `now`: `closed` are the trees that are, in order, each with its end and when it was closed; what lies before
/// `kept_from` has expired already.
pub fn due(now: Timestamp, tip: &Tip, closed: &[(u64, Timestamp)], kept_from: u64, keep_years: i16) -> Vec<Step> {
    let is_over = tip.frontier.size() > 0 && year(now) > tip.year;
    let cut = is_over.then(|| Step::Cut { year: year(now) });
    let served = closed.iter().take_while(|(_, at)| years_later(*at, keep_years) <= now).last();
    let expire = served.filter(|(end, _)| *end > kept_from).map(|(end, _)| Step::Expire { kept_from: *end });
    cut.into_iter().chain(expire).collect()
}

/// The calendar year of an instant, UTC.
pub fn year(at: Timestamp) -> i16 {
    at.to_jiff().to_zoned(jiff::tz::TimeZone::UTC).year()
}

/// The same instant so many calendar years later.
pub fn years_later(at: Timestamp, years: i16) -> Timestamp {
    let zoned = at.to_jiff().to_zoned(jiff::tz::TimeZone::UTC);
    let later = zoned.checked_add(jiff::Span::new().years(years));
    later.map_or(Timestamp(i64::MAX), |later| Timestamp::from_jiff(later.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::sample;
    use super::*;

    #[test]
    fn a_tip_goes_on_from_its_bytes_and_a_cut_loses_no_entry() {
        let mut tip = Tip::default();
        let silent = &mut |_| {};
        let batch = tip.extend(&[sample(1), sample(2), sample(3)], Timestamp(0), silent);
        assert_eq!((tip.year, batch.first, batch.head.size), (1970, 0, 3));
        tip = Tip::from_bytes(&tip.next(1971).to_bytes()).unwrap();
        assert_eq!((tip.year, tip.first, tip.entries()), (1971, 3, 3));
        let batch = tip.extend(&[sample(4)], Timestamp(0), silent);
        assert_eq!((batch.first, batch.head.size), (3, 4));
        let mut alone = Frontier::new();
        alone.append(&sample(4).to_bytes());
        assert_eq!((batch.head.root, tip.year), (alone.root(), 1971));
    }

    #[test]
    fn completed_subtrees_are_counted_in_the_whole_log() {
        let mut tip = Tip { year: 2027, first: 10, frontier: Frontier::new() };
        let mut told = Vec::new();
        let entries: Vec<Entry> = (0..4).map(sample).collect();
        tip.extend(&entries, Timestamp(0), &mut |node| told.push((node.level, node.end)));
        assert_eq!(told, [(1, 12), (1, 14), (2, 14)]);
    }

    #[test]
    fn the_frontier_of_an_uncut_log_is_its_tip_and_other_bytes_are_none() {
        let mut frontier = Frontier::new();
        frontier.append(b"leaf");
        let tip = Tip::from_bytes(&frontier.to_bytes()).unwrap();
        assert!(tip.is_unnamed() && tip.frontier == frontier && tip.first == 0);
        for bad in [&[][..], &[3], &[2, 7], &tip.to_bytes()[..12]] {
            assert_eq!(Tip::from_bytes(bad), None);
        }
    }

    #[test]
    fn a_tree_is_cut_when_its_year_is_over_and_expires_so_many_years_after_it_was_closed() {
        let at = |text: &str| Timestamp::from_jiff(text.parse().unwrap());
        let mut tip = Tip { year: 2027, first: 5, frontier: Frontier::new() };
        let closed = [(3, at("2026-01-01T00:00:10Z")), (5, at("2027-01-01T00:00:05Z"))];
        let due = |tip: &Tip, now: &str, kept_from| due(at(now), tip, &closed, kept_from, 3);
        assert_eq!(due(&tip, "2028-01-01T00:00:00Z", 0), [], "an empty tree waits for its first entry");
        tip.frontier.append(b"entry");
        assert_eq!(due(&tip, "2027-12-31T23:59:59Z", 0), []);
        assert_eq!(due(&tip, "2028-01-01T00:00:00Z", 0), [Step::Cut { year: 2028 }]);
        assert_eq!(due(&tip, "2026-06-01T00:00:00Z", 0), [], "a clock behind cuts nothing");
        let (cut, expire) = (Step::Cut { year: 2029 }, |kept_from| Step::Expire { kept_from });
        assert_eq!(due(&tip, "2029-01-01T00:00:09Z", 0), std::slice::from_ref(&cut));
        assert_eq!(due(&tip, "2029-01-01T00:00:10Z", 0), [cut.clone(), expire(3)]);
        assert_eq!(due(&tip, "2029-01-01T00:00:10Z", 3), [cut]);
        assert_eq!(due(&tip, "2030-01-01T00:00:05Z", 3), [Step::Cut { year: 2030 }, expire(5)]);
    }

    #[test]
    fn years_are_the_calendars() {
        // 2027-12-31T23:59:59.999999Z, and the next instant.
        let last = Timestamp::from_jiff("2027-12-31T23:59:59.999999Z".parse().unwrap());
        assert_eq!((year(last), year(last.plus(1))), (2027, 2028));
        assert_eq!(year(years_later(last, 3)), 2030);
        let leap = Timestamp::from_jiff("2028-02-29T00:00:00Z".parse().unwrap());
        assert_eq!(years_later(leap, 1).to_string(), "2029-02-28T00:00:00Z");
    }
}
