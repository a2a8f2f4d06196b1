//! Internal numbers. INVARIANT: no number is handed out twice, across restarts too: a number is used only below a bound that a
//! commit has made durable. A restart skips what was left of a block.

use std::sync::atomic::{AtomicI64, Ordering};

use super::StoreError;

/// More numbers than are given out between a backup and the loss of what came after it.
pub(super) const LOST: i64 = 1 << 40;

/// Numbers reserved at a time: more than the calls that can be under way between two commits could take.
const BLOCK: i64 = 1 << 18;

#[derive(Debug)]
pub(super) struct Ids {
    next: AtomicI64,
    bound: AtomicI64,
}

impl Ids {
    /// Numbers from `bound` on, none of them usable until the first reservation is durable.
    pub(super) fn from(bound: i64) -> Self {
        Self { next: AtomicI64::new(bound), bound: AtomicI64::new(bound) }
    }

    pub(super) fn allocate(&self) -> Result<i64, StoreError> {
        // Acquire: whoever sees the bound sees that it is durable. Taken and given back, a number could go out twice.
        let bound = self.bound.load(Ordering::Acquire);
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| (next < bound).then_some(next + 1))
            .map_err(|_| StoreError::Refused("no ids are reserved".to_owned()))
    }

    /// The bound that the next commit should make durable, once half of the block is used.
    pub(super) fn wanted(&self) -> Option<i64> {
        let (bound, next) = (self.bound.load(Ordering::Relaxed), self.next.load(Ordering::Relaxed));
        (bound.saturating_sub(next) < BLOCK / 2).then(|| bound.max(next).saturating_add(BLOCK))
    }

    /// Goes on behind all numbers that a copy cannot know were given out; none is usable until the next reservation.
    pub(super) fn skip_lost(&self) {
        self.next.fetch_add(LOST, Ordering::Relaxed);
    }

    /// The bound is on disk.
    pub(super) fn reserved(&self, bound: i64) {
        self.bound.store(bound, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_handed_out_only_below_a_durable_bound() {
        let ids = Ids::from(5);
        assert!(ids.allocate().is_err());
        let bound = ids.wanted().unwrap();
        assert!(ids.allocate().is_err());
        ids.reserved(bound);
        assert_eq!((ids.allocate().unwrap(), ids.allocate().unwrap()), (5, 6));
        assert_eq!(ids.wanted(), None);
        ids.skip_lost();
        assert!(ids.allocate().is_err());
        ids.reserved(ids.wanted().unwrap());
        assert_eq!(ids.allocate().unwrap(), 7 + LOST);
    }
}
