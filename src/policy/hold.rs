//! Legal holds: who may keep a record from being destroyed. INVARIANT: a hold stops destruction, whoever asks for it and
//! however long retention is over; it makes nothing readable but for a legal disclosure, and a minor's erasure waits for a court's
//! alone.

use crate::domain::fault::{Fault, planted};
use crate::domain::vocabulary::{EraseReason, HoldKind};

/// The hold that stands against destroying a record for `reason`, of all that are in force on it; the weightiest is named.
pub fn stands_against(reason: EraseReason, in_force: impl Iterator<Item = HoldKind>) -> Option<HoldKind> {
    if planted(Fault::HoldsOff) {
        return None;
    }
    in_force.filter(|kind| reason != EraseReason::Minor || *kind == HoldKind::Court).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hold_stops_every_destruction_but_a_minors_waits_for_a_court_alone() {
        for reason in EraseReason::ALL {
            assert_eq!(stands_against(*reason, [].into_iter()), None);
            for kind in HoldKind::ALL {
                let stops = *reason != EraseReason::Minor || *kind == HoldKind::Court;
                assert_eq!(stands_against(*reason, [*kind].into_iter()), stops.then_some(*kind), "{reason} {kind}");
            }
        }
        let both = [HoldKind::Dispute, HoldKind::Court];
        assert_eq!(stands_against(EraseReason::Purged, both.into_iter()), Some(HoldKind::Court));
        assert_eq!(stands_against(EraseReason::Minor, both.into_iter()), Some(HoldKind::Court));
    }
}
