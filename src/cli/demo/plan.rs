//! What becomes of every order, dealt from one seed, and when each must be gone. INVARIANT: the same seed and number of orders
//! tell the same stories; `due` is worked out here from the published policy's words, apart from the vault's own code.

use std::collections::BTreeSet;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

use crate::domain::time::{DAY, HOUR, Timestamp};
use crate::domain::vocabulary::EventKind;

/// Midnight before the first day: 2026-01-05, UTC. Neither this year nor the next has a 29th of February.
pub const START: Timestamp = Timestamp(1_767_571_200_000_000);
/// Orders are placed on the days 1 to this.
pub const SELLING_DAYS: i64 = 90;
pub const CARRIERS: [&str; 3] = ["swift", "parcelo", "northwind"];

/// "60-day after-sales return and refund service cycle".
const SERVICE_CYCLE: i64 = 60 * DAY;
/// The cap that nothing outlives.
const CAP: i64 = 365 * DAY;

/// How an order goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    Plain,
    Cancelled,
    /// Comes back with a case that is settled.
    Case,
    Refund,
    /// A case that nobody ever closes.
    CaseLeftOpen,
    /// A parcel that never arrives.
    Lost,
}

pub struct Story {
    pub fate: Fate,
    /// Its place in `CARRIERS`.
    pub carrier: usize,
    pub serial: String,
    /// The day it is placed, from 1.
    pub placed: i64,
    /// By time.
    pub steps: Vec<Step>,
}

/// Something that happens to an order.
#[derive(Clone, Copy)]
pub struct Step {
    /// The day it happens; the vault hears of it that midnight.
    pub day: i64,
    pub at: Timestamp,
    pub kind: EventKind,
}

/// The midnight that ends a day.
pub fn midnight(day: i64) -> Timestamp {
    START.plus(day * DAY)
}

/// A story for each of `count` orders.
pub fn stories(seed: u64, count: usize) -> Vec<Story> {
    let mut dice = Dice(ChaCha20Rng::seed_from_u64(seed));
    let mut taken = BTreeSet::new();
    dealt_fates(count, &mut dice).into_iter().map(|fate| story(fate, &mut dice, &mut taken)).collect()
}

impl Story {
    pub fn at(&self, kind: EventKind) -> Option<Timestamp> {
        self.steps.iter().filter(|step| step.kind == kind).map(|step| step.at).max()
    }

    /// From when on nothing of the order may be readable.
    pub fn due(&self) -> Timestamp {
        let cap = midnight(self.placed).plus(CAP);
        let started = self.at(EventKind::Delivered).or(self.at(EventKind::Cancelled));
        let matters = [
            (EventKind::AfterSalesOpened, EventKind::AfterSalesClosed),
            (EventKind::RefundOpened, EventKind::RefundSettled),
        ];
        let is_open = matters.iter().any(|(opened, closed)| self.at(*opened).is_some() && self.at(*closed).is_none());
        let closed = matters.iter().filter_map(|(_, closed)| self.at(*closed)).max();
        match started {
            Some(started) if !is_open => started.plus(SERVICE_CYCLE).max(closed.unwrap_or(started)).min(cap),
            _ => cap,
        }
    }

    /// Whether the 60 days are over and something is still open.
    pub fn is_waiting(&self, now: Timestamp) -> bool {
        let started = self.at(EventKind::Delivered).or(self.at(EventKind::Cancelled));
        started.is_some_and(|started| started.plus(SERVICE_CYCLE) <= now) && now < self.due()
    }
}

/// Of every fate its share, of the rare ones at least one, in any order.
fn dealt_fates(count: usize, dice: &mut Dice) -> Vec<Fate> {
    let share = |per_mille: usize| (count * per_mille).div_ceil(1_000);
    let rare = [
        (Fate::Cancelled, share(20)),
        (Fate::Case, share(60)),
        (Fate::Refund, share(40)),
        (Fate::CaseLeftOpen, share(5)),
        (Fate::Lost, share(5)),
    ];
    let mut fates: Vec<Fate> = rare.into_iter().flat_map(|(fate, times)| std::iter::repeat_n(fate, times)).collect();
    fates.resize(count, Fate::Plain);
    for last in (1..fates.len()).rev() {
        fates.swap(last, dice.up_to(last as u64) as usize);
    }
    fates
}

fn story(fate: Fate, dice: &mut Dice, taken: &mut BTreeSet<String>) -> Story {
    let placed = dice.within(1, SELLING_DAYS);
    let carrier = dice.within(0, 2) as usize;
    let serial = loop {
        let serial = serial(carrier, dice);
        if taken.insert(serial.clone()) {
            break serial;
        }
    };
    let mut steps = Vec::new();
    let mut happen = |day: i64, kind: EventKind, dice: &mut Dice| {
        steps.push(Step { day, at: midnight(day - 1).plus(dice.within(HOUR, 23 * HOUR)), kind });
    };
    happen(placed, EventKind::Placed, dice);
    let dispatched = placed + dice.within(1, 3);
    let delivered = dispatched + dice.within(6, 12);
    if fate == Fate::Cancelled {
        happen(placed + 1, EventKind::Cancelled, dice);
        happen(placed + 1, EventKind::RefundOpened, dice);
        happen(placed + 1 + dice.within(5, 10), EventKind::RefundSettled, dice);
    } else {
        happen(dispatched, EventKind::Dispatched, dice);
    }
    if !matches!(fate, Fate::Cancelled | Fate::Lost) {
        happen(delivered, EventKind::Delivered, dice);
    }
    // Early enough to be heard of before the 60 days are over, late enough for some to end after them.
    let opened = delivered + dice.within(5, 54);
    match fate {
        Fate::Case | Fate::CaseLeftOpen => happen(opened, EventKind::AfterSalesOpened, dice),
        Fate::Refund => happen(opened, EventKind::RefundOpened, dice),
        Fate::Plain | Fate::Cancelled | Fate::Lost => {}
    }
    match fate {
        Fate::Case => happen(opened + dice.within(3, 30), EventKind::AfterSalesClosed, dice),
        Fate::Refund => happen(opened + dice.within(5, 10), EventKind::RefundSettled, dice),
        Fate::Plain | Fate::Cancelled | Fate::CaseLeftOpen | Fate::Lost => {}
    }
    steps.sort_by_key(|step| step.at);
    Story { fate, carrier, serial, placed, steps }
}

/// A number of the carrier's form. None of them starts like a payment card's, so that also the other carriers' questions are
/// answered by what the vault knows and not by what the number looks like.
fn serial(carrier: usize, dice: &mut Dice) -> String {
    match carrier {
        0 => {
            let letters: String = (0..2).map(|_| char::from(b'A' + dice.up_to(25) as u8)).collect();
            format!("{letters}{:09}", dice.up_to(999_999_999))
        }
        1 => format!("PC-00{:014}", dice.up_to(99_999_999_999_999)),
        _ => format!("00{:018}", dice.up_to(999_999_999_999_999_999)),
    }
}

struct Dice(ChaCha20Rng);

impl Dice {
    fn up_to(&mut self, most: u64) -> u64 {
        self.0.next_u64() % (most + 1)
    }

    fn within(&mut self, least: i64, most: i64) -> i64 {
        least + self.up_to((most - least).cast_unsigned()).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_tells_one_set_of_stories_with_every_fate_among_them() {
        let told =
            |seed| -> Vec<_> { stories(seed, 300).into_iter().map(|story| (story.serial, story.placed)).collect() };
        assert_eq!(told(1), told(1));
        assert_ne!(told(1), told(2));
        let fates: BTreeSet<Fate> = stories(1, 60).iter().map(|story| story.fate).collect();
        assert_eq!(fates.len(), 6);
        assert_eq!(stories(1, 2).len(), 2);
    }

    #[test]
    fn what_opens_is_heard_of_before_the_sixty_days_are_over() {
        for story in stories(3, 2_000) {
            let Some(delivered) = story.at(EventKind::Delivered) else { continue };
            let opened = story.at(EventKind::AfterSalesOpened).max(story.at(EventKind::RefundOpened));
            assert!(opened.is_none_or(|opened| opened.plus(DAY) < delivered.plus(SERVICE_CYCLE)));
            assert!(story.due() >= delivered.plus(SERVICE_CYCLE));
        }
    }

    #[test]
    fn some_wait_for_what_is_open_and_what_never_closes_ends_at_the_cap() {
        let stories = stories(4, 2_000);
        let late = |story: &&Story| story.due() > story.at(EventKind::Delivered).unwrap_or(START).plus(SERVICE_CYCLE);
        let waited =
            stories.iter().filter(|story| matches!(story.fate, Fate::Case | Fate::Refund)).filter(late).count();
        assert!(waited > 10);
        for story in stories.iter().filter(|story| matches!(story.fate, Fate::CaseLeftOpen | Fate::Lost)) {
            assert_eq!(story.due(), midnight(story.placed + 365));
        }
    }
}
