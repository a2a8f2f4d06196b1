//! The mark: the time that is known to have passed, and the instant that destruction goes by. INVARIANT: the mark never goes back
//! and advances no faster than the boot clock; so a wall clock set wrong destroys nothing early. What it cannot know (the length
//! of a reboot) it does not assume: destruction then runs late until an operator confirms the clock.
//!
//! ```text
//! the wall clock leaps ahead      the mark goes on with the boot clock; reads refuse by the wall clock, what is stored is stamped
//!                                 by it: both late for destruction, never early
//! it falls behind the mark        the mark goes on with the boot clock, so that nothing is stamped earlier than it was; which of
//!                                 the two is wrong nobody knows, so destruction waits
//! a reboot, a long downtime       counts for nothing until somebody confirms the clock
//! ```

use std::sync::Mutex;

use crate::domain::fault::{Fault, planted};
use crate::domain::time::{Clock, MINUTE, Timestamp};
use crate::store::{StoreError, Tx, View};

/// How far clock and mark may be apart before someone is told.
const ALARM: i64 = 10 * MINUTE;
/// How far the clock may be from the time that an operator vouches for.
const ASTRAY: i64 = 5 * MINUTE;
/// The share of the time that a wall clock may gain on the boot clock, if it is near: 500 ppm, as clocks are slewed (adjtimex(2)).
const SLEW: i64 = 2_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct State {
    mark: Timestamp,
    boot: i64,
    boot_id: u128,
}

/// The next mark.
fn advanced(state: State, now: Timestamp, boot: i64, boot_id: u128) -> State {
    let elapsed = if boot_id == state.boot_id { boot.saturating_sub(state.boot).max(0) } else { 0 };
    let passed = state.mark.plus(elapsed);
    let mark = if planted(Fault::MarkByWallClock) {
        now
    } else if (-ALARM..=ALARM).contains(&now.since(passed)) {
        // Near enough to be a clock that is steered, or was put right: the mark waits for it, or catches up with it slowly.
        now.min(passed.plus(elapsed / SLEW))
    } else {
        passed
    };
    State { mark: mark.max(state.mark), boot, boot_id }
}

/// Why an operator's word for the clock does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotConfirmed {
    /// The vault's clock is not at the time that was vouched for.
    Astray,
    /// The clock is behind what is known to have passed.
    Behind,
}

pub(crate) struct Mark {
    state: Mutex<State>,
}

/// The mark of a store that was written to and never served.
const NEVER: i64 = i64::MIN + 1;

impl Mark {
    /// The mark as last saved; a store that never had one starts at the wall clock.
    pub(crate) fn load(view: &View<'_>, clock: &dyn Clock) -> Result<Self, StoreError> {
        let now = clock.now();
        let fresh = State { mark: now, boot: clock.boot(), boot_id: clock.boot_id() };
        let state = match view.meta_i64("mark")? {
            None if view.audit_tip()?.entries() == 0 => fresh,
            // Saved before the log's first entry: if it is gone, someone deleted it.
            None => return Err(StoreError::Tampered { table: "meta" }),
            Some(NEVER) => fresh,
            Some(mark) => State {
                mark: Timestamp(mark),
                boot: view.meta_i64("mark_boot")?.unwrap_or(fresh.boot),
                boot_id: join(view.meta_i64("mark_boot_high")?, view.meta_i64("mark_boot_low")?),
            },
        };
        let mark = Self { state: Mutex::new(state) };
        mark.tick(clock);
        Ok(mark)
    }

    /// Notes, before what will be the log's first entry, that no vault has served this store yet.
    pub(crate) fn not_yet(tx: &Tx<'_>) -> Result<(), StoreError> {
        let is_new = tx.meta_i64("mark")?.is_none() && tx.audit_tip()?.entries() == 0;
        if is_new { tx.set_meta_i64("mark", NEVER) } else { Ok(()) }
    }

    /// Moves the mark as far as it may go now, and answers it.
    pub(crate) fn tick(&self, clock: &dyn Clock) -> Timestamp {
        let Ok(mut state) = self.state.lock() else { return Timestamp(i64::MIN) };
        *state = advanced(*state, clock.now(), clock.boot(), clock.boot_id());
        state.mark
    }

    pub(crate) fn at(&self) -> Timestamp {
        self.state.lock().map_or(Timestamp(i64::MIN), |state| state.mark)
    }

    /// Whether the word of an operator who says that it is `vouched` now counts.
    pub(crate) fn may_confirm(&self, clock: &dyn Clock, vouched: Timestamp) -> Result<(), NotConfirmed> {
        let now = clock.now();
        if !(-ASTRAY..=ASTRAY).contains(&now.since(vouched)) {
            Err(NotConfirmed::Astray)
        } else if self.is_contradicted(now) {
            Err(NotConfirmed::Behind)
        } else {
            Ok(())
        }
    }

    /// The mark goes to the wall clock, but never past what an operator vouched for: the clock may have leapt since.
    pub(crate) fn confirm(&self, clock: &dyn Clock, vouched: Timestamp) -> Timestamp {
        let Ok(mut state) = self.state.lock() else { return Timestamp(i64::MIN) };
        let mark = clock.now().min(vouched.plus(ASTRAY)).max(state.mark);
        *state = State { mark, boot: clock.boot(), boot_id: clock.boot_id() };
        mark
    }

    /// Whether the wall clock says that it is earlier than what is known to have passed. Then either is wrong, and nothing
    /// is destroyed by the mark before the clock is right.
    pub(crate) fn is_contradicted(&self, now: Timestamp) -> bool {
        now.since(self.at()) < -ALARM && !planted(Fault::MarkByWallClock)
    }

    /// Saves the mark with the boot reading it belongs to.
    pub(crate) fn saver(&self) -> impl Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static {
        let state = self.state.lock().map(|state| *state);
        let state = state.unwrap_or(State { mark: Timestamp(i64::MIN), boot: 0, boot_id: 0 });
        move |tx| {
            tx.set_meta_i64("mark", state.mark.0)?;
            tx.set_meta_i64("mark_boot", state.boot)?;
            let (high, low) = split(state.boot_id);
            tx.set_meta_i64("mark_boot_high", high)?;
            tx.set_meta_i64("mark_boot_low", low)
        }
    }

    /// What an operator should know of the clocks.
    pub(crate) fn warning(&self, now: Timestamp) -> Option<String> {
        let lag = now.since(self.at());
        let seconds = lag.unsigned_abs() / 1_000_000;
        if lag > ALARM {
            Some(format!(
                "the wall clock is {seconds} s ahead of the time that is known to have passed; destruction waits. Check the \
                 clock, then: strongroom retention confirm-clock"
            ))
        } else if lag < -ALARM {
            Some(format!(
                "the wall clock is {seconds} s behind the time that is known to have passed; reads refuse by the later one, \
                 destruction waits. Set the clock right"
            ))
        } else {
            None
        }
    }
}

fn split(id: u128) -> (i64, i64) {
    let [a, b, c, d, e, f, g, h, rest @ ..] = id.to_be_bytes();
    (i64::from_be_bytes([a, b, c, d, e, f, g, h]), i64::from_be_bytes(rest))
}

fn join(high: Option<i64>, low: Option<i64>) -> u128 {
    let part = |half: Option<i64>| u128::from(half.unwrap_or(0).cast_unsigned());
    part(high) << 64 | part(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::{DAY, SECOND, SimulatedClock};

    const START: Timestamp = Timestamp(1_000 * DAY);

    fn marked(clock: &SimulatedClock) -> Mark {
        Mark { state: Mutex::new(State { mark: START, boot: clock.boot(), boot_id: clock.boot_id() }) }
    }

    #[test]
    fn a_leap_forward_moves_the_mark_no_further_than_the_boot_clock() {
        let clock = SimulatedClock::starting_at(START);
        let mark = marked(&clock);
        clock.leap(365 * DAY);
        clock.advance(10 * SECOND);
        assert!(mark.tick(&clock).since(START) <= 11 * SECOND);
        assert!(mark.warning(clock.now()).is_some());
        assert_eq!(mark.confirm(&clock, clock.now()), clock.now());
        assert!(mark.warning(clock.now()).is_none());
    }

    #[test]
    fn a_leap_backward_leaves_the_mark_to_the_boot_clock_and_cannot_be_confirmed() {
        let clock = SimulatedClock::starting_at(START);
        let mark = marked(&clock);
        clock.leap(-30 * DAY);
        clock.advance(DAY);
        assert_eq!(mark.tick(&clock).since(START), DAY);
        assert!(mark.warning(clock.now()).is_some() && mark.is_contradicted(clock.now()));
        assert_eq!(mark.may_confirm(&clock, clock.now()), Err(NotConfirmed::Behind));
        clock.leap(30 * DAY);
        assert_eq!(mark.tick(&clock).since(START), DAY);
        clock.advance(DAY);
        assert_eq!(mark.tick(&clock).since(START), 2 * DAY);
        assert!(!mark.is_contradicted(clock.now()));
    }

    #[test]
    fn a_second_that_comes_twice_or_is_smeared_moves_nothing_ahead_of_the_clock() {
        let clock = SimulatedClock::starting_at(START);
        let mark = marked(&clock);
        clock.leap(-SECOND);
        for _ in 0..3 {
            clock.advance(SECOND / 2);
            assert_eq!(mark.tick(&clock), clock.now().max(START));
        }
        assert!(mark.warning(clock.now()).is_none());
    }

    #[test]
    fn who_vouches_for_another_time_than_the_clocks_confirms_nothing() {
        let clock = SimulatedClock::starting_at(START);
        let mark = marked(&clock);
        clock.leap(DAY);
        for (off, answer) in [(-ASTRAY - 1, false), (-ASTRAY, true), (ASTRAY, true), (ASTRAY + 1, false)] {
            assert_eq!(mark.may_confirm(&clock, clock.now().plus(off)).is_ok(), answer);
        }
        let vouched = clock.now();
        clock.leap(365 * DAY);
        assert_eq!(mark.confirm(&clock, vouched), vouched.plus(ASTRAY), "a leap in between is not vouched for");
    }

    #[test]
    fn a_reboot_counts_for_no_time_at_all() {
        let before = State { mark: START, boot: 5 * DAY, boot_id: 1 };
        let after = advanced(before, START.plus(DAY), 60 * SECOND, 2);
        assert_eq!(after, State { mark: START, boot: 60 * SECOND, boot_id: 2 });
        assert_eq!(advanced(after, START.plus(DAY), 61 * SECOND, 2).mark.since(START) / SECOND, 1);
    }

    #[test]
    fn a_boot_id_survives_its_two_halves() {
        let id = 0xfedc_ba98_7654_3210_0123_4567_89ab_cdef_u128;
        let (high, low) = split(id);
        assert_eq!(join(Some(high), Some(low)), id);
    }
}
