//! The mark: the instant that destruction goes by. INVARIANT: the mark never goes back, never runs ahead of the wall clock's
//! best reading, and advances no faster than the boot clock; so a wall clock set wrong destroys nothing early. What it
//! cannot know (the length of a reboot) it does not assume: destruction then runs late until an operator confirms the clock.

use std::sync::Mutex;

use crate::domain::time::{Clock, MINUTE, Timestamp};
use crate::store::{StoreError, Tx, View};

/// How far the mark may lag before someone is told.
const ALARM: i64 = 10 * MINUTE;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct State {
    mark: Timestamp,
    boot: i64,
    boot_id: u128,
}

/// The next mark. The boot clock may run slow against a wall clock that is being slewed, by 500 ppm at most (adjtimex(2)).
fn advanced(state: State, now: Timestamp, boot: i64, boot_id: u128) -> State {
    let elapsed = if boot_id == state.boot_id { boot.saturating_sub(state.boot).max(0) } else { 0 };
    let reach = state.mark.plus(elapsed.saturating_add(elapsed / 2_000));
    State { mark: now.min(reach).max(state.mark), boot, boot_id }
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
        Ok(Self { state: Mutex::new(state) })
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

    /// An operator vouches for the wall clock: the mark goes to it.
    pub(crate) fn confirm(&self, clock: &dyn Clock) -> Timestamp {
        let Ok(mut state) = self.state.lock() else { return Timestamp(i64::MIN) };
        let mark = clock.now().max(state.mark);
        *state = State { mark, boot: clock.boot(), boot_id: clock.boot_id() };
        mark
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
        let what = if lag > ALARM {
            "the wall clock is ahead of the time that is known to have passed; destruction waits"
        } else if lag < -ALARM {
            "the wall clock is behind the time that is known to have passed; reads refuse by the later one"
        } else {
            return None;
        };
        Some(format!("{what} ({} s). Check the clock, then: strongroom retention confirm-clock", lag / 1_000_000))
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
        assert_eq!(mark.confirm(&clock), clock.now());
        assert!(mark.warning(clock.now()).is_none());
    }

    #[test]
    fn a_leap_backward_never_takes_the_mark_back() {
        let clock = SimulatedClock::starting_at(START);
        let mark = marked(&clock);
        clock.leap(-30 * DAY);
        clock.advance(DAY);
        assert_eq!(mark.tick(&clock), START);
        assert!(mark.warning(clock.now()).is_some());
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
