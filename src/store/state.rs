//! The state: a digest over all rows of facts, kept up with every change and bound to the log. INVARIANT: what a commit leaves in
//! the facts' tables is what its sums say; so a row that was put back to an older version, deleted or brought back outside the
//! vault, authentic as it may be, makes a difference that `audit verify --state` finds.
//!
//! ```text
//! element(row) = HMAC(state key, table, place, what the row says)        128 bits; never the MAC or the epoch
//! plain  = Σ element(row)            placed = Σ place(row) × element(row)         per table, modulo 2^128
//! ```
//! Writing a row adds, replacing it subtracts the old one first. The sums lie in `meta`, masked, with the number of the log's
//! entries, and are written with every batch: sums from before the last batch do not fit the log. Where a single row of a table
//! is not what it should be, the two differences tell which: placed ÷ plain is its place.
//!
//! `dek` and `sealed` are left out: they open only in the place and revision that a row in here names. So are the blind
//! index tags, which a rotation makes anew from what the row says, and `meta`, whose numbers are checked at the start.

use sha2::{Digest, Sha256};

use super::StoreError;
use super::rows::erasure::{HoldRow, MonthRow, TallyRow};
use super::rows::retention::PolicyInForceRow;
use super::rows::{GrantRow, IdempotencyRow, RecordRow, Row, SubjectRow, TombstoneRow};
use crate::crypto::slot::Canonical;
use crate::crypto::state::StateKey;
use crate::policy::approval::Approval;
use crate::policy::enrolment::Enrolment;

/// The tables whose rows are in the state, in the order of their sums. New ones come at the end.
pub const TABLES: [&str; 11] = [
    RecordRow::TABLE,
    SubjectRow::TABLE,
    GrantRow::TABLE,
    IdempotencyRow::TABLE,
    TombstoneRow::TABLE,
    Enrolment::TABLE,
    Approval::TABLE,
    PolicyInForceRow::TABLE,
    HoldRow::TABLE,
    MonthRow::TABLE,
    TallyRow::TABLE,
];

/// One row that is in the state.
#[derive(Clone, Copy)]
pub(crate) enum Fact<'a> {
    Record(&'a RecordRow),
    Subject(&'a SubjectRow),
    Grant(&'a GrantRow),
    Idempotency(&'a IdempotencyRow),
    Tombstone(&'a TombstoneRow),
    Caller(&'a Enrolment),
    Approval(&'a Approval),
    PolicyInForce(&'a PolicyInForceRow),
    Hold(&'a HoldRow),
    Month(&'a MonthRow),
    Tally(&'a TallyRow),
}

impl Fact<'_> {
    fn number(&self) -> usize {
        match self {
            Fact::Record(_) => 0,
            Fact::Subject(_) => 1,
            Fact::Grant(_) => 2,
            Fact::Idempotency(_) => 3,
            Fact::Tombstone(_) => 4,
            Fact::Caller(_) => 5,
            Fact::Approval(_) => 6,
            Fact::PolicyInForce(_) => 7,
            Fact::Hold(_) => 8,
            Fact::Month(_) => 9,
            Fact::Tally(_) => 10,
        }
    }

    fn canonical(&self) -> Canonical {
        match self {
            Fact::Record(row) => row.canonical(),
            Fact::Subject(row) => row.lasting(),
            Fact::Grant(row) => row.lasting(),
            Fact::Idempotency(row) => row.canonical(),
            Fact::Tombstone(row) => row.canonical(),
            Fact::Caller(row) => row.canonical(),
            Fact::Approval(row) => row.canonical(),
            Fact::PolicyInForce(row) => row.canonical(),
            Fact::Hold(row) => row.canonical(),
            Fact::Month(row) => row.canonical(),
            Fact::Tally(row) => row.canonical(),
        }
    }

    /// The row's number, or 64 bits of the hash of its key.
    fn place(&self) -> u64 {
        match self {
            Fact::Record(row) => row.id.0.cast_unsigned(),
            Fact::Subject(row) => row.id.0.cast_unsigned(),
            Fact::Grant(row) => row.id.0.cast_unsigned(),
            Fact::Hold(row) => row.id.0.cast_unsigned(),
            _ => {
                let hash: [u8; 32] = Sha256::digest(self.key()).into();
                let [a, b, c, d, e, f, g, h, ..] = hash;
                u64::from_be_bytes([a, b, c, d, e, f, g, h])
            }
        }
    }

    /// What the row goes by among those who look after the database; nothing that leads to a person.
    fn key(&self) -> String {
        match self {
            Fact::Record(row) => row.id.to_string(),
            Fact::Subject(row) => row.id.to_string(),
            Fact::Grant(row) => row.id.to_string(),
            Fact::Idempotency(row) => hex::encode(row.digest),
            Fact::Tombstone(row) => hex::encode(row.digest.0),
            Fact::Caller(row) => row.id.to_string(),
            Fact::Approval(row) => format!("{} {}", row.tenant, row.id),
            Fact::PolicyInForce(row) => row.tenant.to_string(),
            Fact::Hold(row) => row.id.to_string(),
            Fact::Month(row) => format!("{} {}", row.tenant, row.month),
            Fact::Tally(TallyRow { tenant, month, cell, who, .. }) => {
                format!("{tenant} {month} {} {:?} {}", cell.class, cell.country, hex::encode(who.0))
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    plain: u128,
    placed: u128,
}

/// The sums of every table, or a change of them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally([Sum; TABLES.len()]);

impl Tally {
    pub(crate) fn gain(&mut self, key: &StateKey, fact: Fact<'_>) {
        let (element, place) = Self::element(key, fact);
        if let Some(sum) = self.0.get_mut(fact.number()) {
            sum.plain = sum.plain.wrapping_add(element);
            sum.placed = sum.placed.wrapping_add(element.wrapping_mul(place));
        }
    }

    pub(crate) fn lose(&mut self, key: &StateKey, fact: Fact<'_>) {
        let (element, place) = Self::element(key, fact);
        if let Some(sum) = self.0.get_mut(fact.number()) {
            sum.plain = sum.plain.wrapping_sub(element);
            sum.placed = sum.placed.wrapping_sub(element.wrapping_mul(place));
        }
    }

    fn element(key: &StateKey, fact: Fact<'_>) -> (u128, u128) {
        let place = fact.place();
        let table = TABLES.get(fact.number()).copied().unwrap_or_default();
        (key.element(table, place, fact.canonical().as_bytes()), u128::from(place))
    }

    pub(crate) fn add(&mut self, change: &Self) {
        for (sum, change) in self.0.iter_mut().zip(&change.0) {
            sum.plain = sum.plain.wrapping_add(change.plain);
            sum.placed = sum.placed.wrapping_add(change.placed);
        }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The tables in which `found` differs from these sums; where it is by one row, its place.
    fn differences(&self, found: &Self) -> Vec<(usize, Option<u64>)> {
        let tables = self.0.iter().zip(&found.0).enumerate();
        let differing = tables.filter(|(_, (ours, theirs))| ours != theirs);
        differing
            .map(|(table, (ours, theirs))| {
                let plain = ours.plain.wrapping_sub(theirs.plain);
                (table, quotient(ours.placed.wrapping_sub(theirs.placed), plain))
            })
            .collect()
    }
}

/// The one `place` below 2^64 with `placed` = `place` × `plain` modulo 2^128. A difference of several rows has none, but for one
/// chance in 2^64.
fn quotient(placed: u128, plain: u128) -> Option<u64> {
    let even = plain.trailing_zeros();
    if even > 64 || placed.trailing_zeros() < even {
        return None;
    }
    let odd = plain >> even;
    // Newton: an odd number is its own inverse modulo 8, and every step doubles the bits that are right.
    let mut inverse = odd;
    for _ in 0..6 {
        inverse = inverse.wrapping_mul(2_u128.wrapping_sub(odd.wrapping_mul(inverse)));
    }
    let place = (placed >> even).wrapping_mul(inverse) & (u128::MAX >> even);
    u64::try_from(place).ok()
}

/// The sums as they lie in the store.
#[derive(Clone, Copy, Default)]
pub(crate) struct State {
    /// Entries in the log when they were written.
    pub entries: u64,
    /// How often they were written: what masks them is new every time.
    pub number: u64,
    pub tally: Tally,
}

impl State {
    /// Entries, number (u64, big-endian), then for every table its two sums, masked.
    pub(crate) fn to_bytes(self, key: &StateKey) -> Vec<u8> {
        let sums = self.tally.0.iter().flat_map(|sum| [sum.plain, sum.placed]);
        let mut sums: Vec<[u8; 16]> = sums.map(u128::to_be_bytes).collect();
        key.mask(self.number, &mut sums);
        [&self.entries.to_be_bytes()[..], &self.number.to_be_bytes(), sums.as_flattened()].concat()
    }

    /// The state, and how many tables it tells of: a store of an earlier build has fewer.
    pub(crate) fn from_bytes(bytes: &[u8], key: &StateKey) -> Option<(Self, usize)> {
        let (entries, rest) = bytes.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (sums, []) = rest.as_chunks::<16>() else { return None };
        let (entries, number) = (u64::from_be_bytes(*entries), u64::from_be_bytes(*number));
        let mut sums = sums.to_vec();
        key.mask(number, &mut sums);
        let (pairs, []) = sums.as_chunks::<2>() else { return None };
        let mut tally = Tally::default();
        if pairs.len() > tally.0.len() {
            return None;
        }
        for (sum, [plain, placed]) in tally.0.iter_mut().zip(pairs) {
            *sum = Sum { plain: u128::from_be_bytes(*plain), placed: u128::from_be_bytes(*placed) };
        }
        Some((Self { entries, number, tally }, pairs.len()))
    }

    /// Takes over what `found` says of the tables from the `known`th on.
    pub(crate) fn adopt(&mut self, known: usize, found: &Tally) {
        for (sum, found) in self.tally.0.iter_mut().zip(&found.0).skip(known) {
            *sum = *found;
        }
    }
}

/// What is wrong with the rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateFlaw {
    #[error("{table} {row} is not what the vault left: it was put back, deleted or brought back")]
    Row { table: &'static str, row: String },
    #[error("several rows of {table} are not what the vault left")]
    Rows { table: &'static str },
    #[error("a row of {table} cannot be decoded")]
    Undecodable { table: &'static str },
    #[error("the state is from when the log had {state} entries, and it has {log}")]
    Older { state: u64, log: u64 },
    #[error("the store has lost its note of its state")]
    Lost,
}

/// Every row of the state's tables, one in memory at a time.
pub(crate) trait Facts {
    fn facts(&self, each: &mut dyn FnMut(Fact<'_>)) -> Result<(), StoreError>;
}

pub(crate) fn tally(facts: &(impl Facts + ?Sized), key: &StateKey) -> Result<Tally, StoreError> {
    let mut tally = Tally::default();
    facts.facts(&mut |fact| tally.gain(key, fact))?;
    Ok(tally)
}

/// Compares the rows with what the state says; `entries` is the log's length in the same snapshot.
pub(crate) fn compare(
    facts: &(impl Facts + ?Sized),
    state: Option<&State>,
    entries: u64,
    key: &StateKey,
) -> Result<Vec<StateFlaw>, StoreError> {
    let Some(state) = state else { return Ok(vec![StateFlaw::Lost]) };
    if state.entries != entries {
        return Ok(vec![StateFlaw::Older { state: state.entries, log: entries }]);
    }
    let found = match tally(facts, key) {
        Ok(found) => found,
        Err(StoreError::Corrupt { table, .. }) => return Ok(vec![StateFlaw::Undecodable { table }]),
        Err(error) => return Err(error),
    };
    let differences = state.tally.differences(&found);
    let mut keys = vec![None; TABLES.len()];
    if !differences.is_empty() {
        facts.facts(&mut |fact| {
            let (table, place) = (fact.number(), fact.place());
            if differences.contains(&(table, Some(place)))
                && let Some(key) = keys.get_mut(table)
            {
                *key = Some(fact.key());
            }
        })?;
    }
    let flaw = |(number, place): (usize, Option<u64>)| {
        let table = TABLES.get(number).copied().unwrap_or_default();
        let is_numbered = number <= 2 || table == HoldRow::TABLE;
        let gone = move |place: u64| if is_numbered { place.to_string() } else { "that is gone".to_owned() };
        match (place, keys.get(number).cloned().flatten()) {
            (None, _) => StateFlaw::Rows { table },
            (Some(_), Some(row)) => StateFlaw::Row { table, row },
            (Some(place), None) => StateFlaw::Row { table, row: gone(place) },
        }
    };
    Ok(differences.into_iter().map(flaw).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;
    use crate::crypto::signer::Signer;
    use crate::domain::id::TenantId;
    use crate::domain::time::Timestamp;
    use crate::domain::token::TokenDigest;
    use crate::domain::vocabulary::{Class, EraseReason};
    use crate::policy::cube::{Cell, Who};
    use proptest::prelude::*;

    struct Rows(Vec<(TallyRow, TombstoneRow)>);

    impl Facts for Rows {
        fn facts(&self, each: &mut dyn FnMut(Fact<'_>)) -> Result<(), StoreError> {
            for (tally, tombstone) in &self.0 {
                each(Fact::Tally(tally));
                each(Fact::Tombstone(tombstone));
            }
            Ok(())
        }
    }

    fn rows(count: u8) -> Rows {
        let tenant: TenantId = "kitchen".parse().unwrap();
        let row = |n: u8| {
            let cell = Cell { class: Class::Order, country: "DE".to_owned() };
            let tally = TallyRow { tenant: tenant.clone(), month: i64::from(n), cell, who: Who([n; 16]), count: 1 };
            let (reason, until) = (EraseReason::Minor, Timestamp(0));
            let digest = TokenDigest([n; 16]);
            let (class, erased, story) = (Class::Order, None, None);
            (tally, TombstoneRow { digest, tenant: tenant.clone(), class, reason, until, erased, story })
        };
        Rows((0..count).map(row).collect())
    }

    fn state_of(rows: &Rows, key: &StateKey) -> State {
        State { entries: 9, number: 4, tally: tally(rows, key).unwrap() }
    }

    #[test]
    fn a_single_row_that_differs_is_named_and_several_are_told_apart() {
        let signer = Signer::generate(&SeededEntropy::new(1));
        let key = signer.state();
        let whole = rows(5);
        let state = state_of(&whole, key);
        assert_eq!(compare(&whole, Some(&state), 9, key).unwrap(), []);
        let mut changed = rows(5);
        changed.0[3].0.count = 2;
        let table = "tally";
        let one = StateFlaw::Row { table, row: format!("kitchen 3 order \"DE\" {}", "03".repeat(16)) };
        assert_eq!(compare(&changed, Some(&state), 9, key).unwrap(), [one]);
        changed.0[1].0.count = 2;
        assert_eq!(compare(&changed, Some(&state), 9, key).unwrap(), [StateFlaw::Rows { table }]);
        let gone = |table| StateFlaw::Row { table, row: "that is gone".to_owned() };
        assert_eq!(compare(&rows(4), Some(&state), 9, key).unwrap(), [gone("tombstone"), gone("tally")]);
        assert_eq!(compare(&rows(6), Some(&state), 9, key).unwrap().len(), 2);
        assert_eq!(compare(&whole, Some(&state), 10, key).unwrap(), [StateFlaw::Older { state: 9, log: 10 }]);
        assert_eq!(compare(&whole, None, 9, key).unwrap(), [StateFlaw::Lost]);
    }

    #[test]
    fn sums_go_with_changes_and_come_back_from_their_masked_bytes() {
        let signer = Signer::generate(&SeededEntropy::new(1));
        let key = signer.state();
        let (before, after) = (rows(5), rows(4));
        let mut state = state_of(&before, key);
        let mut change = Tally::default();
        change.lose(key, Fact::Tally(&before.0[4].0));
        change.lose(key, Fact::Tombstone(&before.0[4].1));
        state.tally.add(&change);
        assert!(state.tally == tally(&after, key).unwrap() && !change.is_nothing());
        let (read, tables) = State::from_bytes(&state.to_bytes(key), key).unwrap();
        assert!(read.tally == state.tally && (read.entries, read.number, tables) == (9, 4, TABLES.len()));
        let bytes = state.to_bytes(key);
        for bad in [&bytes[..15], &bytes[..bytes.len() - 16], &[&bytes[..], &[0; 32]].concat()] {
            assert!(State::from_bytes(bad, key).is_none());
        }
        let (mut fewer, tables) = State::from_bytes(&bytes[..bytes.len() - 32 * (TABLES.len() - 4)], key).unwrap();
        fewer.adopt(tables, &tally(&after, key).unwrap());
        assert!(tables == 4 && fewer.tally == state.tally);
    }

    proptest! {
        #[test]
        fn a_place_is_the_quotient_of_the_differences(place: u64, plain: u128) {
            prop_assume!(plain.trailing_zeros() <= 64);
            prop_assert_eq!(quotient(plain.wrapping_mul(u128::from(place)), plain), Some(place));
        }
    }
}
