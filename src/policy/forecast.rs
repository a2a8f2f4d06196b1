//! How much the sweeper may destroy before someone looks. INVARIANT: within a day of the mark, timers destroy at most
//! `FACTOR` times what was forecast when the day began, and `SPARE` more; what came due unforeseen (a clock confirmed
//! wrongly, a flood of false events) stops there, unreadable and undestroyed, until a person has looked.
//!
//! The forecast of a day is what the index of dues says will come due within it, and what the day before had forecast and
//! not done, as far as it is still waiting: what is held back is none of it, or holds would make room for a flood. Nor is a backlog
//! that nobody forecast, or a flood would forecast itself.

use crate::domain::time::{DAY, Timestamp};

/// Destructions beyond the forecast that make nobody look: what a small shop's day may bring.
pub const SPARE: u64 = 100;
const FACTOR: u64 = 4;

/// One day of the sweeper's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    pub began: Timestamp,
    pub forecast: u64,
    pub destroyed: u64,
}

impl Window {
    /// A day that begins with all that is due already vouched for.
    pub fn vouched(mark: Timestamp, due_until_its_end: u64) -> Self {
        Self { began: mark, forecast: due_until_its_end, destroyed: 0 }
    }

    pub fn is_over(&self, mark: Timestamp) -> bool {
        mark >= self.end()
    }

    /// The next day, once this one is over; `coming` is what is due between the mark and a day later, `waiting` what is due and
    /// might go.
    #[must_use]
    pub fn next(self, mark: Timestamp, coming: u64, waiting: u64) -> Self {
        let undone = self.forecast.saturating_sub(self.destroyed).min(waiting);
        Self { began: mark, forecast: coming.saturating_add(undone), destroyed: 0 }
    }

    pub fn end(&self) -> Timestamp {
        self.began.plus(DAY)
    }

    /// How many more may go before someone must look.
    pub fn left(&self) -> u64 {
        self.forecast.saturating_mul(FACTOR).saturating_add(SPARE).saturating_sub(self.destroyed)
    }

    #[must_use]
    pub fn after(self, destroyed: u64) -> Self {
        Self { destroyed: self.destroyed.saturating_add(destroyed), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(12 * 3_600_000_000);

    #[test]
    fn what_was_forecast_goes_and_a_flood_does_not() {
        let day = Window::vouched(NOON, 50);
        assert_eq!((day.left(), day.after(50).left(), day.after(300).left()), (300, 250, 0));
        assert!(!day.is_over(NOON.plus(DAY - 1)) && day.is_over(NOON.plus(DAY)));
    }

    #[test]
    fn the_next_day_takes_over_what_was_forecast_and_not_done_and_nothing_else() {
        let day = Window::vouched(NOON, 50).after(20).next(NOON.plus(DAY), 7, 60);
        assert_eq!(day, Window { began: NOON.plus(DAY), forecast: 37, destroyed: 0 });
        let day = Window::vouched(NOON, 50).after(90).next(NOON.plus(30 * DAY), 7, 60);
        assert_eq!(day.forecast, 7);
        let held_back = Window::vouched(NOON, 50).after(20).next(NOON.plus(DAY), 7, 0);
        assert_eq!(held_back.forecast, 7);
    }
}
