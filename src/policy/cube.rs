//! What statistics are published of a month: one fixed partition by class and country, small groups folded together.
//! INVARIANT: every figure that is published speaks of at least `K` subjects, the folded rest included; cells are disjoint
//! and no total is published, so no difference of figures speaks of fewer either.
//!
//! ```text
//! cells under K subjects → other
//! other not empty and under K subjects → the smallest cell that is left goes to it too, until it is not
//! still under K → nothing of the month is published
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::fault::{Fault, planted};
use crate::domain::vocabulary::Class;

/// The fewest subjects that a published figure may speak of.
pub const K: usize = 10;

/// One cell of the partition.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cell {
    pub class: Class,
    /// ISO 3166-1 alpha-2, or empty for records without an address.
    pub country: String,
}

/// A person among those of one month; tells nothing but whether it is the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Who(pub [u8; 16]);

/// An open month: how many records of whom were desensitized, by cell.
pub type Tallies = BTreeMap<Cell, BTreeMap<Who, u64>>;

/// A closed month: records desensitized, by cell, and of all other cells together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cube {
    pub cells: BTreeMap<Cell, u64>,
    /// 0: there is no other.
    pub other: u64,
}

impl Cube {
    pub fn of(tallies: &Tallies) -> Self {
        let least = if planted(Fault::SmallCells) { 1 } else { K };
        let (mut cells, small): (Vec<_>, Vec<_>) = tallies.iter().partition(|(_, who)| who.len() >= least);
        // The largest first, so that the smallest is the last.
        cells.sort_by_key(|(cell, who)| (std::cmp::Reverse(who.len()), *cell));
        let mut other: Vec<_> = small.into_iter().map(|(_, who)| who).collect();
        while !other.is_empty() && together(&other) < least {
            let Some((_, smallest)) = cells.pop() else { return Self::default() };
            other.push(smallest);
        }
        let records = |who: &BTreeMap<Who, u64>| who.values().sum::<u64>();
        Self {
            cells: cells.into_iter().map(|(cell, who)| (cell.clone(), records(who))).collect(),
            other: other.into_iter().map(records).sum(),
        }
    }

    /// The canonical form in which it is stored: `other`, then class ‖ length ‖ country ‖ count for each cell, big-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.other.to_be_bytes().to_vec();
        for (cell, count) in &self.cells {
            out.push(cell.class.code());
            out.push(u8::try_from(cell.country.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(cell.country.as_bytes());
            out.extend_from_slice(&count.to_be_bytes());
        }
        out
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (other, mut rest) = bytes.split_first_chunk()?;
        let mut cube = Self { other: u64::from_be_bytes(*other), ..Self::default() };
        while let Some((class, tail)) = rest.split_first() {
            let (length, tail) = tail.split_first()?;
            let (country, tail) = tail.split_at_checked(usize::from(*length))?;
            let (count, tail) = tail.split_first_chunk()?;
            let country = std::str::from_utf8(country).ok()?.to_owned();
            cube.cells.insert(Cell { class: Class::from_code(*class)?, country }, u64::from_be_bytes(*count));
            rest = tail;
        }
        (cube.to_bytes() == bytes).then_some(cube)
    }
}

/// How many different people.
fn together(groups: &[&BTreeMap<Who, u64>]) -> usize {
    groups.iter().flat_map(|group| group.keys()).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cell(country: &str) -> Cell {
        Cell { class: Class::Order, country: country.to_owned() }
    }

    fn people(range: std::ops::Range<u8>) -> BTreeMap<Who, u64> {
        range.map(|n| (Who([n; 16]), 1)).collect()
    }

    fn cube(groups: &[(&str, std::ops::Range<u8>)]) -> (Vec<(String, u64)>, u64) {
        let tallies = groups.iter().map(|(country, range)| (cell(country), people(range.clone()))).collect();
        let cube = Cube::of(&tallies);
        (cube.cells.into_iter().map(|(cell, count)| (cell.country, count)).collect(), cube.other)
    }

    fn named(cells: &[(&str, u64)], other: u64) -> (Vec<(String, u64)>, u64) {
        (cells.iter().map(|(country, count)| ((*country).to_owned(), *count)).collect(), other)
    }

    #[test]
    fn small_cells_fold_and_take_the_smallest_neighbour_along_when_they_are_few() {
        assert_eq!(cube(&[("DE", 0..10)]), named(&[("DE", 10)], 0));
        assert_eq!(cube(&[("DE", 0..9)]), named(&[], 0));
        assert_eq!(cube(&[("DE", 0..40), ("FR", 40..45), ("IT", 45..50)]), named(&[("DE", 40)], 10));
        assert_eq!(cube(&[("DE", 0..40), ("FR", 40..55), ("IT", 55..58)]), named(&[("DE", 40)], 18));
        assert_eq!(cube(&[("DE", 0..12), ("FR", 12..13)]), named(&[], 13));
        assert_eq!(cube(&[]), named(&[], 0));
    }

    #[test]
    fn one_person_in_many_small_cells_is_one_person() {
        let same: Vec<_> = ["AT", "BE", "CH", "CZ"].map(|country| (country, 0..5)).into();
        assert_eq!(cube(&same), named(&[], 0));
    }

    #[test]
    fn nine_people_with_many_records_are_nine() {
        let many = people(0..9).into_keys().map(|who| (who, 1_000)).collect();
        assert_eq!(Cube::of(&[(cell("DE"), many)].into()), Cube::default());
    }

    proptest! {
        #[test]
        fn no_figure_nor_any_sum_of_figures_speaks_of_fewer_than_k(
            sizes in prop::collection::vec((0..8u8, 0..30u8, 0..40u8), 0..8),
        ) {
            let mut tallies = Tallies::new();
            for (country, first, count) in sizes {
                let group = tallies.entry(cell(&format!("A{}", char::from(b'A' + country)))).or_default();
                group.extend((first..first.saturating_add(count)).map(|n| (Who([n; 16]), 1)));
            }
            let cube = Cube::of(&tallies);
            let published: Vec<_> = cube.cells.keys().filter_map(|cell| tallies.get(cell)).collect();
            prop_assert!(published.iter().all(|who| who.len() >= K));
            let folded: Vec<_> =
                tallies.iter().filter(|(cell, _)| !cube.cells.contains_key(cell)).map(|(_, who)| who).collect();
            prop_assert!(cube.other == 0 && published.is_empty() || together(&folded) >= K || together(&folded) == 0);
            let all: u64 = cube.cells.values().sum::<u64>() + cube.other;
            let records: u64 = tallies.values().flat_map(|who| who.values()).sum();
            prop_assert!(all == records || all == 0);
            prop_assert_eq!(Cube::from_bytes(&cube.to_bytes()), Some(cube));
        }
    }
}
