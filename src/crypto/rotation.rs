//! When epochs come and go, as a pure plan. INVARIANT: `plan` depends on nothing but what it is handed; it never destroys an
//! epoch before its time, nor one under which something is left, and never promotes one that was not prepared before.
//!
//! An epoch's life, and why W = period + rewrap_within + backups is the longest that a backup can be opened with the keys of
//! a later day:
//! ```text
//! prepared ──▶ active, for `period` ──▶ retiring: what is under it is rewrapped within `rewrap_within`
//!          ──▶ kept for `backups`, so that the backups of those days can be restored ──▶ destroyed
//! ```

use std::collections::BTreeMap;

use crate::crypto::keyring::{EpochFacts, Keyring};
use crate::domain::id::Epoch;
use crate::domain::time::{DAY, HOUR, Timestamp};

/// How long an epoch is what, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    pub period: i64,
    pub rewrap_within: i64,
    pub backups: i64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { period: 14 * DAY, rewrap_within: 2 * DAY, backups: 14 * DAY }
    }
}

/// Epochs that two people keep beyond their time, and until when.
pub type Postponed = BTreeMap<Epoch, Timestamp>;

/// How late a step may be before someone is told.
const LATE: i64 = HOUR;

/// What one epoch is, and when that ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// On its way to every copy of the keyring.
    Prepared,
    Active {
        until: Timestamp,
    },
    /// A later one is active.
    Retiring {
        rewrap_by: Timestamp,
        destroy_at: Timestamp,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Prepare,
    Promote,
    Rewrap(Epoch),
    Destroy(Epoch),
}

/// What somebody should hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// The active epoch should have been followed by now.
    RotationLate {
        epoch: Epoch,
        since: Timestamp,
    },
    RewrapLate {
        epoch: Epoch,
        since: Timestamp,
        rows: u64,
    },
    DestructionLate {
        epoch: Epoch,
        since: Timestamp,
        rows: u64,
    },
    /// Two people keep it longer than the schedule; so long, backups can be opened.
    Postponed {
        epoch: Epoch,
        until: Timestamp,
    },
}

/// How much lies under an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Left {
    /// What a rewrap moves.
    pub rows: u64,
    /// What only time takes away: idempotency keys, until their window is over.
    pub waiting: u64,
}

impl Left {
    pub fn all(self) -> u64 {
        self.rows + self.waiting
    }
}

impl Schedule {
    /// The longest that what was erased can be opened in a backup.
    pub fn horizon(&self) -> i64 {
        self.period.saturating_add(self.rewrap_within).saturating_add(self.backups)
    }

    /// What becomes of a retired epoch and when, by the schedule alone.
    pub fn destroy_at(&self, retired_at: Timestamp) -> Timestamp {
        retired_at.plus(self.rewrap_within).plus(self.backups)
    }

    /// Every epoch with its stage, newest first.
    pub fn stages(&self, keyring: &Keyring, postponed: &Postponed) -> Vec<(EpochFacts, Stage)> {
        let prepared = keyring.prepared().map(|epoch| (*epoch.facts(), Stage::Prepared));
        let mut retired_at: Option<Timestamp> = None;
        let epochs = keyring.epochs().map(|epoch| {
            let facts = *epoch.facts();
            let since = facts.active_since.unwrap_or(facts.created_at);
            let stage = match retired_at {
                None => Stage::Active { until: since.plus(self.period) },
                Some(at) => {
                    let planned = self.destroy_at(at);
                    let destroy_at = postponed.get(&facts.number).map_or(planned, |until| planned.max(*until));
                    Stage::Retiring { rewrap_by: at.plus(self.rewrap_within), destroy_at }
                }
            };
            retired_at = Some(since);
            (facts, stage)
        });
        prepared.into_iter().chain(epochs).collect()
    }
}

/// What is to be done by the mark, in this order. `left` tells what lies under an older epoch.
pub fn plan(
    mark: Timestamp,
    keyring: &Keyring,
    schedule: &Schedule,
    postponed: &Postponed,
    left: impl Fn(Epoch) -> Left,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let stages = schedule.stages(keyring, postponed);
    for (facts, stage) in &stages {
        match stage {
            Stage::Prepared => steps.push(Step::Promote),
            Stage::Active { until } if *until <= mark && keyring.prepared().is_none() => steps.push(Step::Prepare),
            Stage::Active { .. } => {}
            Stage::Retiring { destroy_at, .. } => match left(facts.number) {
                Left { rows: 1.., .. } => steps.push(Step::Rewrap(facts.number)),
                Left { waiting: 0, .. } if *destroy_at <= mark => steps.push(Step::Destroy(facts.number)),
                Left { .. } => {}
            },
        }
    }
    steps
}

/// What is overdue or out of the ordinary.
pub fn alarms(
    now: Timestamp,
    keyring: &Keyring,
    schedule: &Schedule,
    postponed: &Postponed,
    left: impl Fn(Epoch) -> Left,
) -> Vec<Alarm> {
    let is_late = |since: Timestamp| now.since(since) > LATE;
    let mut alarms = Vec::new();
    for (facts, stage) in schedule.stages(keyring, postponed) {
        let epoch = facts.number;
        match stage {
            Stage::Active { until } if is_late(until) => alarms.push(Alarm::RotationLate { epoch, since: until }),
            Stage::Prepared | Stage::Active { .. } => {}
            Stage::Retiring { rewrap_by, destroy_at } => {
                let left = left(epoch);
                if is_late(rewrap_by) && left.rows > 0 {
                    alarms.push(Alarm::RewrapLate { epoch, since: rewrap_by, rows: left.rows });
                }
                if is_late(destroy_at) {
                    alarms.push(Alarm::DestructionLate { epoch, since: destroy_at, rows: left.all() });
                } else if let Some(until) = postponed.get(&epoch) {
                    alarms.push(Alarm::Postponed { epoch, until: *until });
                }
            }
        }
    }
    alarms
}

impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RotationLate { epoch, since } => {
                write!(f, "the rotation of key epoch {epoch} is overdue since {since}")
            }
            Self::RewrapLate { epoch, since, rows } => {
                write!(f, "the rewrap of key epoch {epoch} is overdue since {since}: {rows} rows lie under it")
            }
            Self::DestructionLate { epoch, since, rows } => write!(
                f,
                "the destruction of key epoch {epoch} is overdue since {since} ({rows} rows lie under it): so long, what was \
                 erased can be opened in old backups"
            ),
            Self::Postponed { epoch, until } => write!(
                f,
                "key epoch {epoch} is kept until {until} by decision of two people: so long, what was erased can be opened in \
                 old backups"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;
    use crate::crypto::root::RootKey;

    const SCHEDULE: Schedule = Schedule { period: 14 * DAY, rewrap_within: 2 * DAY, backups: 14 * DAY };

    fn day(days: i64) -> Timestamp {
        Timestamp(days * DAY)
    }

    /// Epoch 1 of day 0, epoch 2 of day 14.
    fn two() -> Keyring {
        let entropy = SeededEntropy::new(1);
        let first = Keyring::create(&RootKey::generate(&entropy), day(0), &entropy);
        first.with_prepared(day(14), &entropy).promoted(day(14)).unwrap()
    }

    fn planned(at: Timestamp, keyring: &Keyring, left: Left) -> Vec<Step> {
        plan(at, keyring, &SCHEDULE, &Postponed::new(), |_| left)
    }

    const NOTHING: Left = Left { rows: 0, waiting: 0 };

    #[test]
    fn an_epoch_is_active_for_its_period_then_one_is_prepared_then_promoted() {
        let entropy = SeededEntropy::new(1);
        let first = Keyring::create(&RootKey::generate(&entropy), day(0), &entropy);
        assert_eq!(planned(day(14).plus(-1), &first, NOTHING), []);
        assert_eq!(planned(day(14), &first, NOTHING), [Step::Prepare]);
        let prepared = first.with_prepared(day(14), &entropy);
        assert_eq!(planned(day(14), &prepared, NOTHING), [Step::Promote]);
        assert_eq!(planned(day(14), &prepared.promoted(day(14)).unwrap(), NOTHING), []);
    }

    #[test]
    fn nothing_is_destroyed_before_its_time_nor_with_anything_left_under_it() {
        let keyring = two();
        let first = Epoch(1);
        assert_eq!(planned(day(14), &keyring, Left { rows: 1, waiting: 0 }), [Step::Rewrap(first)]);
        let last = day(14 + 2 + 14);
        assert_eq!(SCHEDULE.horizon(), last.since(day(0)));
        assert_eq!(planned(last.plus(-1), &keyring, NOTHING), [Step::Prepare]);
        assert_eq!(planned(last, &keyring, NOTHING), [Step::Prepare, Step::Destroy(first)]);
        assert_eq!(planned(last, &keyring, Left { rows: 0, waiting: 1 }), [Step::Prepare]);
        assert_eq!(planned(last, &keyring, Left { rows: 1, waiting: 0 }), [Step::Prepare, Step::Rewrap(first)]);
        let kept = |at: Timestamp, until| plan(at, &keyring, &SCHEDULE, &[(first, until)].into(), |_| NOTHING);
        assert_eq!(kept(last, last.plus(DAY)), [Step::Prepare]);
        assert_eq!(kept(last.plus(DAY), last.plus(DAY)), [Step::Prepare, Step::Destroy(first)]);
        assert_eq!(kept(day(16), day(15)), [], "a postponement never brings it forward");
    }

    #[test]
    fn what_is_late_is_told_with_its_epoch() {
        let keyring = two();
        let told = |at: Timestamp, rows| {
            let alarms = alarms(at, &keyring, &SCHEDULE, &Postponed::new(), |_| Left { rows, waiting: 0 });
            alarms.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(told(day(16), 5), "");
        assert!(told(day(16).plus(HOUR + 1), 5).contains("the rewrap of key epoch 1 is overdue since 1970-01-17"));
        assert_eq!(told(day(16).plus(HOUR + 1), 0), "");
        let late = told(day(31), 0);
        assert!(late.contains("rotation of key epoch 2") && late.contains("destruction of key epoch 1"), "{late}");
    }
}
