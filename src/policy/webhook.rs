//! Who is told of what, how soon something is due, and when a message is tried again. INVARIANT: pure: a decision depends on its
//! arguments alone, and a pause is never longer than `LONGEST`.

use std::time::Duration;

use crate::domain::id::{HookName, TenantId};
use crate::domain::time::Timestamp;

/// One webhook, as far as the vault knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscription {
    pub name: HookName,
    pub tenant: TenantId,
    /// Whether it hears of erasures.
    pub erased: bool,
    /// How many µs ahead it hears of what is due; `None`: not at all.
    pub due_soon: Option<i64>,
}

impl Subscription {
    /// Whether a record that is due then is to be told of now: not yet over by the clock, and near by the mark.
    pub fn is_soon(&self, due: Timestamp, now: Timestamp, mark: Timestamp) -> bool {
        now < due && self.due_soon.is_some_and(|ahead| due <= mark.plus(ahead))
    }
}

/// The longest that a message waits for its next try.
pub const LONGEST: Duration = Duration::from_secs(3_600);
/// A message is given up after so many tries at least, however old it is: it may have waited for the vault itself.
pub const LEAST_TRIES: u32 = 5;

/// How long to wait after so many tries in vain: twice as long each time from `first` on, and of that between half and all, by
/// `roll`, so that many that fell silent together do not come back together.
pub fn pause(tries: u32, first: Duration, roll: u16) -> Duration {
    let doublings = tries.saturating_sub(1).min(20);
    let whole = first.saturating_mul(1 << doublings).min(LONGEST);
    whole / 2 + (whole / 2).mul_f64(f64::from(roll) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_over_and_what_is_far_is_not_due_soon() {
        let name = "shop".parse().unwrap();
        let hook = Subscription { name, tenant: "k".parse().unwrap(), erased: false, due_soon: Some(7) };
        let soon = |now, mark| -> Vec<i64> {
            (0..20).filter(|due| hook.is_soon(Timestamp(*due), Timestamp(now), Timestamp(mark))).collect()
        };
        assert_eq!(soon(5, 5), (6..=12).collect::<Vec<_>>());
        assert_eq!(soon(9, 5), (10..=12).collect::<Vec<_>>(), "the clock is ahead of the mark");
        assert!(soon(15, 5).is_empty());
        let deaf = Subscription { due_soon: None, ..hook.clone() };
        assert!(!deaf.is_soon(Timestamp(6), Timestamp(5), Timestamp(5)));
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_three_days_are_some_eighty_tries() {
        let second = Duration::from_secs(1);
        let longest: Vec<u64> = (1..=14).map(|tries| pause(tries, second, u16::MAX).as_secs()).collect();
        assert_eq!(longest[..5], [1, 2, 4, 8, 16]);
        assert_eq!(longest[11..], [2048, 3600, 3600]);
        let mut all = (1..).map(|tries| pause(tries, second, u16::MAX).as_secs());
        let mut sum = 0;
        let tries = all.by_ref().take_while(|pause| {
            sum += pause;
            sum < 3 * 86_400
        });
        assert_eq!(tries.count(), 82);
    }

    proptest! {
        #[test]
        fn a_pause_is_within_half_and_all_of_its_step(tries: u32, roll: u16, first in 1..60_000_u64) {
            let first = Duration::from_millis(first);
            let (least, most) = (pause(tries, first, 0), pause(tries, first, u16::MAX));
            let pause = pause(tries, first, roll);
            prop_assert!(least <= pause && pause <= most && most <= LONGEST && least >= first / 2);
        }
    }
}
