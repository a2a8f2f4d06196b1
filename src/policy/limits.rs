//! How much one caller may ask, and how often it may be wrong. INVARIANT: every role has a limit of every kind; a decision is a
//! pure function of what was counted and `now`.

use std::collections::BTreeMap;

use crate::domain::caller::Role;
use crate::domain::time::{HOUR, MINUTE, SECOND};

/// The limits of one caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Calls, and messages of streams, in the long run.
    pub calls_per_second: u32,
    /// Calls at once after a quiet time.
    pub burst: u32,
    pub connections: u32,
    /// Refusals of one certificate, of any kind, before it is locked out.
    pub refusals_per_minute: u32,
    /// Of these, tokens and serials that nobody has: the mark of guessing.
    pub misses_per_minute: u32,
}

/// A shop's backend speaks for all of its customers, and what they mistype is refused in its name; a partner's system fetches
/// parcels in batches; people click.
const fn usual(role: Role) -> Limit {
    let [calls_per_second, burst, connections, refusals_per_minute, misses_per_minute] = match role {
        Role::Shop => [50_000, 100_000, 256, 12_000, 1_200],
        Role::Warehouse => [1_000, 4_000, 64, 600, 120],
        Role::Carrier => [500, 2_000, 64, 300, 120],
        Role::CustomerService
        | Role::Finance
        | Role::PrivacyOfficer
        | Role::Operator
        | Role::Auditor
        | Role::KeyAdmin => [50, 500, 16, 120, 60],
    };
    Limit { calls_per_second, burst, connections, refusals_per_minute, misses_per_minute }
}

/// The limits of every role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits(BTreeMap<Role, Limit>);

impl Default for Limits {
    fn default() -> Self {
        Self(Role::ALL.into_iter().map(|role| (role, usual(role))).collect())
    }
}

impl Limits {
    pub fn of(&self, role: Role) -> Limit {
        self.0.get(&role).copied().unwrap_or(usual(role))
    }

    #[must_use]
    pub fn with(mut self, role: Role, limit: Limit) -> Self {
        self.0.insert(role, limit);
        self
    }

    /// Limits that nobody reaches.
    pub fn out_of_reach() -> Self {
        const FAR: u32 = 1_000_000_000;
        let far = Limit {
            calls_per_second: FAR,
            burst: FAR,
            connections: FAR,
            refusals_per_minute: FAR,
            misses_per_minute: FAR,
        };
        Role::ALL.into_iter().fold(Self::default(), |limits, role| limits.with(role, far))
    }
}

/// What a refusal says of who was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offence {
    Refused,
    /// Asked for what nobody has.
    Missed,
}

/// The first lock-out's length; each one after it that comes within `FORGIVEN` of the last is twice as long.
const FIRST: i64 = 10 * SECOND;
const DOUBLINGS: u32 = 6;
const FORGIVEN: i64 = HOUR;

/// What one certificate did wrong of late. Times are of the boot clock, in µs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conduct {
    minute_began: i64,
    refusals: u32,
    misses: u32,
    lock_outs: u32,
    locked_until: Option<i64>,
}

impl Conduct {
    /// Counts one more; `true` when it was one too many, and the certificate is locked out from now on.
    pub fn offend(&mut self, offence: Offence, limit: &Limit, now: i64) -> bool {
        if self.locked_out(now).is_some() {
            return false;
        }
        if now.saturating_sub(self.minute_began) >= MINUTE {
            (self.minute_began, self.refusals, self.misses) = (now, 0, 0);
        }
        self.refusals = self.refusals.saturating_add(1);
        if offence == Offence::Missed {
            self.misses = self.misses.saturating_add(1);
        }
        if self.refusals <= limit.refusals_per_minute && self.misses <= limit.misses_per_minute {
            return false;
        }
        if self.locked_until.is_none_or(|until| now.saturating_sub(until) >= FORGIVEN) {
            self.lock_outs = 0;
        }
        self.locked_until = Some(now.saturating_add(FIRST << self.lock_outs.min(DOUBLINGS)));
        self.lock_outs = self.lock_outs.saturating_add(1);
        (self.refusals, self.misses) = (0, 0);
        true
    }

    /// How long it stays locked out, in µs.
    pub fn locked_out(&self, now: i64) -> Option<i64> {
        self.locked_until.map(|until| until.saturating_sub(now)).filter(|left| *left > 0)
    }

    /// Whether there is nothing to remember any more.
    pub fn is_forgiven(&self, now: i64) -> bool {
        let quiet = now.saturating_sub(self.minute_began) >= MINUTE;
        quiet && self.locked_until.is_none_or(|until| now.saturating_sub(until) >= FORGIVEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit =
        Limit { calls_per_second: 1, burst: 1, connections: 1, refusals_per_minute: 10, misses_per_minute: 3 };

    /// Offends until locked out, and answers after how many.
    fn offences(conduct: &mut Conduct, offence: Offence, now: i64) -> u32 {
        (1..100).find(|_| conduct.offend(offence, &LIMIT, now)).unwrap()
    }

    #[test]
    fn one_refusal_too_many_locks_out_and_misses_lock_out_sooner() {
        assert_eq!(offences(&mut Conduct::default(), Offence::Refused, HOUR), 11);
        assert_eq!(offences(&mut Conduct::default(), Offence::Missed, HOUR), 4);
    }

    #[test]
    fn who_is_wrong_now_and_then_is_never_locked_out() {
        let mut conduct = Conduct::default();
        for n in 0..1_000 {
            assert!(!conduct.offend(Offence::Missed, &LIMIT, HOUR + n * MINUTE / 3), "{n}");
        }
    }

    #[test]
    fn a_lock_out_ends_by_itself_doubles_when_repeated_and_is_forgiven_in_time() {
        let mut conduct = Conduct::default();
        let mut now = HOUR;
        for expected in [10, 20, 40, 80, 160, 320, 640, 640] {
            offences(&mut conduct, Offence::Missed, now);
            assert_eq!(conduct.locked_out(now), Some(expected * SECOND));
            assert!(!conduct.offend(Offence::Missed, &LIMIT, now), "what comes meanwhile counts for nothing");
            now += expected * SECOND;
            assert_eq!((conduct.locked_out(now - 1), conduct.locked_out(now)), (Some(1), None));
            assert!(!conduct.is_forgiven(now));
        }
        now += FORGIVEN;
        assert!(conduct.is_forgiven(now));
        offences(&mut conduct, Offence::Missed, now);
        assert_eq!(conduct.locked_out(now), Some(10 * SECOND));
    }

    #[test]
    fn every_role_has_limits_of_its_own_making_or_the_usual_ones() {
        let limits = Limits::default().with(Role::Carrier, LIMIT);
        assert_eq!(limits.of(Role::Carrier), LIMIT);
        assert!(limits.of(Role::Shop).calls_per_second > 100 * limits.of(Role::Operator).calls_per_second);
    }
}
