//! What retention knows about one record. INVARIANT: facts are a join: the same events in any order, any number of times,
//! leave the same facts and the same bytes.

use crate::domain::time::Timestamp;
use crate::domain::vocabulary::{Class, EventKind};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Distinct (kind, ordinal) pairs one record may gather.
pub const MAX_EVENTS: usize = 64;

const FORMAT: u8 = 1;
/// kind u8 ‖ ordinal u32 ‖ occurred i64 ‖ recorded i64, big-endian.
const EVENT_LEN: usize = 21;

/// Something that happened in the shop's business.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    pub kind: EventKind,
    /// Which parcel, case or refund of the record, from 0.
    pub ordinal: u32,
    pub occurred_at: Timestamp,
    pub recorded_at: Timestamp,
}

/// The record has as many events as one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record may gather at most {MAX_EVENTS} events")]
pub struct TooManyEvents;

/// A record's class, the moment it was stored, and the latest event of every kind and ordinal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    class: Class,
    stored_at: Timestamp,
    events: BTreeMap<(EventKind, u32), Moment>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Moment {
    occurred_at: Timestamp,
    recorded_at: Timestamp,
}

impl Moment {
    /// Later occurrences win; of equal ones, the one we heard of first.
    fn beats(self, other: Self) -> bool {
        (self.occurred_at, Reverse(self.recorded_at)) > (other.occurred_at, Reverse(other.recorded_at))
    }
}

impl Facts {
    pub fn new(class: Class, stored_at: Timestamp) -> Self {
        Self { class, stored_at, events: BTreeMap::new() }
    }

    pub fn class(&self) -> Class {
        self.class
    }

    pub fn stored_at(&self) -> Timestamp {
        self.stored_at
    }

    /// Takes the event in; says whether that changed anything.
    pub fn record(&mut self, event: Event) -> Result<bool, TooManyEvents> {
        let key = (event.kind, event.ordinal);
        let moment = Moment { occurred_at: event.occurred_at, recorded_at: event.recorded_at };
        match self.events.get(&key) {
            Some(known) if !moment.beats(*known) => return Ok(false),
            None if self.events.len() >= MAX_EVENTS => return Err(TooManyEvents),
            Some(_) | None => {}
        }
        self.events.insert(key, moment);
        Ok(true)
    }

    /// The events, by kind and ordinal.
    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        self.events.iter().map(|(&(kind, ordinal), moment)| Event {
            kind,
            ordinal,
            occurred_at: moment.occurred_at,
            recorded_at: moment.recorded_at,
        })
    }

    /// When this parcel, case or refund met this event.
    pub fn when(&self, kind: EventKind, ordinal: u32) -> Option<Timestamp> {
        self.events.get(&(kind, ordinal)).map(|moment| moment.occurred_at)
    }

    /// When the last event of the kind happened, whichever its ordinal.
    pub fn latest(&self, kind: EventKind) -> Option<Timestamp> {
        self.events.range((kind, 0)..=(kind, u32::MAX)).map(|(_, moment)| moment.occurred_at).max()
    }

    /// When the first event of the kind happened, of those with different ordinals.
    pub fn earliest(&self, kind: EventKind) -> Option<Timestamp> {
        self.events.range((kind, 0)..=(kind, u32::MAX)).map(|(_, moment)| moment.occurred_at).min()
    }

    /// The events in their one canonical form. Class and time of storing live in their own columns.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + self.events.len() * EVENT_LEN);
        out.push(FORMAT);
        for event in self.events() {
            out.push(event.kind.code());
            out.extend_from_slice(&event.ordinal.to_be_bytes());
            out.extend_from_slice(&event.occurred_at.0.to_be_bytes());
            out.extend_from_slice(&event.recorded_at.0.to_be_bytes());
        }
        out
    }

    /// Reads what `to_bytes` wrote; `None` for anything else, another order of the same events included.
    pub fn from_bytes(class: Class, stored_at: Timestamp, bytes: &[u8]) -> Option<Self> {
        let (&FORMAT, rest) = bytes.split_first()? else { return None };
        let (chunks, []) = rest.as_chunks::<EVENT_LEN>() else { return None };
        let mut facts = Self::new(class, stored_at);
        for chunk in chunks {
            let event = event(chunk)?;
            let last = facts.events.last_key_value().map(|(key, _)| *key);
            if last >= Some((event.kind, event.ordinal)) {
                return None;
            }
            facts.record(event).ok()?;
        }
        Some(facts)
    }
}

fn event(bytes: &[u8; EVENT_LEN]) -> Option<Event> {
    let (&kind, rest) = bytes.split_first()?;
    let (ordinal, rest) = rest.split_first_chunk()?;
    let (occurred_at, rest) = rest.split_first_chunk()?;
    Some(Event {
        kind: EventKind::from_code(kind)?,
        ordinal: u32::from_be_bytes(*ordinal),
        occurred_at: Timestamp(i64::from_be_bytes(*occurred_at)),
        recorded_at: Timestamp(i64::from_be_bytes(rest.try_into().ok()?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STORED: Timestamp = Timestamp(0);

    fn at(kind: EventKind, ordinal: u32, occurred: i64, recorded: i64) -> Event {
        Event { kind, ordinal, occurred_at: Timestamp(occurred), recorded_at: Timestamp(recorded) }
    }

    fn gathered(events: &[Event]) -> Facts {
        let mut facts = Facts::new(Class::Order, STORED);
        for event in events {
            facts.record(*event).unwrap();
        }
        facts
    }

    /// Few values, so that keys and times collide.
    fn any_event() -> impl Strategy<Value = Event> {
        (proptest::sample::select(EventKind::ALL), 0..3u32, 0..3i64, 0..3i64).prop_map(|(k, o, t, r)| at(k, o, t, r))
    }

    proptest! {
        #[test]
        fn order_and_repetition_of_arrival_leave_the_same_bytes(
            (events, shuffled) in proptest::collection::vec(any_event(), 0..40)
                .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
        ) {
            let facts = gathered(&events);
            prop_assert_eq!(facts.to_bytes(), gathered(&shuffled).to_bytes());
            prop_assert_eq!(facts.to_bytes(), gathered(&[events, shuffled].concat()).to_bytes());
        }

        #[test]
        fn bytes_lead_back_to_the_facts(events in proptest::collection::vec(any_event(), 0..40)) {
            let facts = gathered(&events);
            prop_assert_eq!(Facts::from_bytes(Class::Order, STORED, &facts.to_bytes()), Some(facts));
        }

        #[test]
        fn bytes_that_are_read_are_canonical(bytes in proptest::collection::vec(0..3u8, 0..64)) {
            if let Some(facts) = Facts::from_bytes(Class::Order, STORED, &bytes) {
                prop_assert_eq!(facts.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn the_latest_occurrence_wins_and_of_equal_ones_the_first_recorded() {
        let mut facts = gathered(&[at(EventKind::Delivered, 0, 5, 9)]);
        assert_eq!(facts.record(at(EventKind::Delivered, 0, 4, 1)), Ok(false));
        assert_eq!(facts.record(at(EventKind::Delivered, 0, 5, 9)), Ok(false));
        assert_eq!(facts.record(at(EventKind::Delivered, 0, 5, 8)), Ok(true));
        assert_eq!(facts.record(at(EventKind::Delivered, 1, 7, 8)), Ok(true));
        assert_eq!(facts.when(EventKind::Delivered, 0), Some(Timestamp(5)));
        assert_eq!(facts.latest(EventKind::Delivered), Some(Timestamp(7)));
        assert_eq!(facts.latest(EventKind::Completed), None);
    }

    #[test]
    fn a_full_record_takes_news_of_what_it_knows_and_nothing_more() {
        let full: Vec<Event> = (0..64).map(|ordinal| at(EventKind::Dispatched, ordinal, 1, 1)).collect();
        let mut facts = gathered(&full);
        assert_eq!(facts.record(at(EventKind::Dispatched, 64, 1, 1)), Err(TooManyEvents));
        assert_eq!(facts.record(at(EventKind::Dispatched, 63, 2, 2)), Ok(true));
        assert_eq!(facts.events().count(), MAX_EVENTS);
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let good = gathered(&[at(EventKind::Placed, 0, 1, 1), at(EventKind::Delivered, 0, 2, 2)]).to_bytes();
        let swapped = [&good[..1], &good[22..], &good[1..22]].concat();
        let repeated = [&good[..22], &good[1..22]].concat();
        for bad in [&[][..], &[2], &good[..good.len() - 1], &[&good[..], &[0]].concat(), &swapped, &repeated] {
            assert_eq!(Facts::from_bytes(Class::Order, STORED, bad), None);
        }
    }
}
