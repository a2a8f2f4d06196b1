//! The key of the store's state: what the digest over all rows of facts is made with (`store::state`). INVARIANT: without it no
//! row's element can be computed, and no element or sum of elements can be told from random bytes as it is stored, so that
//! nobody can look for another set of rows with the same sum.

use crate::crypto::key::{Key, debug_by_name};
use crate::domain::fault::{Fault, planted};

pub struct StateKey {
    element: Key,
    mask: Key,
}

debug_by_name!(StateKey);

impl StateKey {
    pub(super) fn of(seed: &Key) -> Self {
        Self { element: seed.derive("strongroom/state/element"), mask: seed.derive("strongroom/state/mask") }
    }

    /// What one row adds to the sums of its table.
    pub fn element(&self, table: &'static str, place: u64, canonical: &[u8]) -> u128 {
        let canonical = if planted(Fault::StateBlind) { &[] } else { canonical };
        u128::from_be_bytes(self.element.tag(&[table.as_bytes(), &place.to_be_bytes(), canonical]))
    }

    /// Hides sums, or shows them again. `number` is never used for two different states.
    pub fn mask(&self, number: u64, sums: &mut [[u8; 16]]) {
        for (at, sum) in (0_u64..).zip(sums) {
            let mask = self.mask.tag(&[&number.to_be_bytes(), &at.to_be_bytes()]);
            sum.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> StateKey {
        StateKey::of(&Key::filled(|bytes| *bytes = [byte; 32]))
    }

    #[test]
    fn an_element_holds_for_its_key_table_place_and_bytes_only() {
        let one = key(1).element("record", 7, b"row");
        assert_eq!(one, key(1).element("record", 7, b"row"));
        for other in [
            key(2).element("record", 7, b"row"),
            key(1).element("subject", 7, b"row"),
            key(1).element("record", 8, b"row"),
            key(1).element("record", 7, b"low"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn masked_sums_differ_by_number_and_place_and_come_back() {
        let (mut first, mut second) = ([[0; 16]; 2], [[0; 16]; 2]);
        key(1).mask(1, &mut first);
        key(1).mask(2, &mut second);
        assert!(first[0] != first[1] && first != second && first[0] != [0; 16]);
        key(1).mask(1, &mut first);
        assert_eq!(first, [[0; 16]; 2]);
    }
}
