//! A data subject that leaves: account cancelled, erasure asked for. INVARIANT: from the asking on, a record of the subject's
//! is due unless something of it is open; what is open keeps it until that closes, never past its own retention, and a
//! minor's record is kept for nothing. Records that came after the asking are none of its business; which those are goes by their
//! numbers, which grow, and not by a clock, which may leap.

use crate::domain::id::{ErasureId, RecordId};
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::{EraseReason, EventKind};
use crate::policy::facts::Facts;
use crate::policy::retention::{Due, DueReason};

/// That a subject's erasure was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaving {
    /// By the mark: never later than it truly was, or a clock that was ahead would postpone what was asked for.
    pub at: Timestamp,
    pub reason: EraseReason,
    pub story: ErasureId,
    /// No record of later numbers was there.
    pub last: RecordId,
}

impl Leaving {
    /// Whether the record was there when it was asked for.
    pub fn concerns(self, record: RecordId) -> bool {
        record <= self.last
    }

    /// When a record that it concerns, with these facts, is due, which its policy makes due at `due`.
    pub fn due(self, facts: &Facts, due: Due) -> Due {
        let waits = self.reason != EraseReason::Minor && !due.waiting_for.is_empty();
        if waits || due.at <= self.at {
            return due;
        }
        let closed = [EventKind::AfterSalesClosed, EventKind::RefundSettled].map(|kind| facts.latest(kind));
        let closed = closed.into_iter().flatten().max().filter(|_| self.reason != EraseReason::Minor);
        let at = closed.map_or(self.at, |closed| closed.max(self.at));
        if due.at <= at { due } else { Due { at, by: DueReason::Asked(self.reason), waiting_for: Vec::new() } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::DAY;
    use crate::domain::vocabulary::Class;
    use crate::policy::facts::Event;
    use crate::policy::retention::Policy;

    const STORED: Timestamp = Timestamp(1_767_571_200_000_000);

    fn facts(events: &[(EventKind, i64)]) -> Facts {
        let mut facts = Facts::new(Class::Order, STORED);
        for (kind, day) in events {
            let at = STORED.plus(day * DAY);
            facts.record(Event { kind: *kind, ordinal: 0, occurred_at: at, recorded_at: at }).unwrap();
        }
        facts
    }

    /// The day of the due, and whether it is by the asking on day 10.
    fn due(reason: EraseReason, facts: &Facts) -> (i64, bool) {
        let leaving = Leaving { at: STORED.plus(10 * DAY), reason, story: ErasureId([1; 16]), last: RecordId(7) };
        let policy = Policy::parse(Policy::KITCHENWARE).unwrap();
        let due = leaving.due(facts, policy.due(facts).unwrap());
        (due.at.since(STORED) / DAY, due.by == DueReason::Asked(reason))
    }

    #[test]
    fn what_is_open_is_waited_for_but_not_by_a_minors_erasure() {
        use EventKind::{Delivered, RefundOpened, RefundSettled};
        for (events, cancelled, minor) in [
            (vec![], (10, true), (10, true)),
            (vec![(Delivered, 1)], (10, true), (10, true)),
            (vec![(Delivered, 1), (RefundOpened, 5)], (365, false), (10, true)),
            (vec![(Delivered, 1), (RefundOpened, 5), (RefundSettled, 7)], (10, true), (10, true)),
            (vec![(Delivered, 1), (RefundOpened, 5), (RefundSettled, 15)], (15, true), (10, true)),
            (vec![(Delivered, -55)], (5, false), (5, false)),
        ] {
            let facts = facts(&events);
            assert_eq!(due(EraseReason::Cancellation, &facts), cancelled, "{events:?}");
            assert_eq!(due(EraseReason::SubjectRequest, &facts), cancelled, "{events:?}");
            assert_eq!(due(EraseReason::Minor, &facts), minor, "{events:?}");
        }
    }

    #[test]
    fn a_record_that_came_later_is_none_of_its_business() {
        let (at, reason, story) = (STORED, EraseReason::Cancellation, ErasureId([1; 16]));
        let leaving = Leaving { at, reason, story, last: RecordId(7) };
        assert!(leaving.concerns(RecordId(6)) && leaving.concerns(RecordId(7)) && !leaving.concerns(RecordId(8)));
    }
}
