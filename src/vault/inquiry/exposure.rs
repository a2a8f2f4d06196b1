//! What one caller was shown, summed up. INVARIANT: a sum is over what left the vault: values that were granted or masked; what
//! was stored, refused or not there is no exposure. Nobody is known by name here: subjects come in by tag and go out by number.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::audit::entry::glance::Glance;
use crate::audit::entry::{SubjectTag, Verdict};
use crate::domain::field::FieldReason;
use crate::domain::id::SubjectId;
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::{Field, Outcome};
use crate::store::rows::FieldSet;
use crate::vault::Error;

/// What was shown of one subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown {
    /// How many requests showed something.
    pub times: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    pub granted: FieldSet,
    pub masked: FieldSet,
}

impl Shown {
    fn add(&mut self, other: &Shown) {
        self.times += other.times;
        (self.first, self.last) = (self.first.min(other.first), self.last.max(other.last));
        self.granted = FieldSet(self.granted.0 | other.granted.0);
        self.masked = FieldSet(self.masked.0 | other.masked.0);
    }
}

/// What became of one field in all the caller's requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldShown {
    pub field: Field,
    pub outcome: Outcome,
    pub times: u64,
    /// Distinct living subjects; 0 for what shows nothing.
    pub subjects: u64,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// Subject-days held at once: some 100 MB. What is more is recognised in between.
const TAGS: usize = 1 << 20;
/// Distinct subjects that one answer can speak of, some 80 bytes each.
const SUBJECTS: usize = 4 << 20;

#[derive(Default)]
pub(super) struct Exposure {
    by_tag: HashMap<SubjectTag, Shown>,
    days: BTreeSet<i64>,
    by_subject: BTreeMap<SubjectId, Shown>,
    by_field: BTreeMap<(Field, Outcome), FieldShown>,
    /// Requests that were answered, and those of them that showed a value.
    pub answered: u64,
    pub showed: u64,
    pub refused: u64,
    /// Subject-days of nobody who lives.
    pub gone: u64,
}

impl Exposure {
    /// Takes in one of the caller's entries.
    pub(super) fn hear(&mut self, glance: &Glance<'_>) {
        if let Verdict::Refused(_) = glance.verdict {
            self.refused += glance.times();
            return;
        }
        self.answered += glance.times();
        if !glance.is_a_reading() {
            return;
        }
        let at = glance.at;
        let (mut granted, mut masked) = (FieldSet::default(), FieldSet::default());
        for (field, outcome) in glance.outcomes() {
            if outcome == Outcome::Granted {
                granted = granted.with(field);
            } else if outcome == Outcome::Masked {
                masked = masked.with(field);
            }
            let blank = FieldShown { field, outcome, times: 0, subjects: 0, first: at, last: at };
            let sum = self.by_field.entry((field, outcome)).or_insert(blank);
            sum.times += glance.times();
            (sum.first, sum.last) = (sum.first.min(at), sum.last.max(at));
        }
        if (granted, masked) == Default::default() {
            return;
        }
        self.showed += glance.times();
        if let Some(tag) = glance.subject {
            let shown = Shown { times: glance.times(), first: at, last: at, granted, masked };
            self.by_tag.entry(tag).and_modify(|sum| sum.add(&shown)).or_insert(shown);
            // A request that was received before midnight may have found its subject after it.
            self.days.extend([at.utc_day(), at.utc_day() + 1]);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.by_tag.len() >= TAGS
    }

    /// Whether there is nobody left to recognise.
    pub(super) fn knows_all(&self) -> bool {
        self.by_tag.is_empty()
    }

    /// The days that tags may be of.
    pub(super) fn days(&self) -> Vec<i64> {
        self.days.iter().copied().collect()
    }

    /// A living subject's tag of one day.
    pub(super) fn recognise(&mut self, subject: SubjectId, tag: SubjectTag) -> Result<(), Error> {
        if let Some(shown) = self.by_tag.remove(&tag) {
            self.by_subject.entry(subject).and_modify(|sum| sum.add(&shown)).or_insert(shown);
            if self.by_subject.len() > SUBJECTS {
                return Err(Error::invalid("until", FieldReason::TooMany));
            }
        }
        Ok(())
    }

    /// All living subjects were asked: whose tag is left is gone.
    pub(super) fn give_up(&mut self) {
        self.gone += self.by_tag.len() as u64;
        self.by_tag.clear();
        self.days.clear();
    }

    /// What was shown, by living subject and by field.
    pub(super) fn sums(self) -> (BTreeMap<SubjectId, Shown>, Vec<FieldShown>) {
        let mut by_field = self.by_field;
        for shown in self.by_subject.values() {
            for (fields, outcome) in [(shown.granted, Outcome::Granted), (shown.masked, Outcome::Masked)] {
                for field in fields.iter() {
                    by_field.entry((field, outcome)).and_modify(|sum| sum.subjects += 1);
                }
            }
        }
        (self.by_subject, by_field.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::entry::{Action, Actor, Entry, RefusalCode, RequestId};
    use crate::domain::time::DAY;

    fn entry(at: i64, action: Action, tag: u8, outcomes: &[(Field, Outcome)]) -> Entry {
        Entry {
            at: Timestamp(at),
            request: RequestId([1; 16]),
            tenant: "kitchen".parse().unwrap(),
            actor: Actor::Vault,
            action,
            class: None,
            purpose: None,
            verdict: Verdict::Done,
            outcomes: outcomes.to_vec(),
            subject: Some(SubjectTag([tag; 16])),
            whom: None,
            count: None,
        }
    }

    fn heard(entries: &[Entry]) -> Exposure {
        let mut exposure = Exposure::default();
        entries.iter().for_each(|entry| exposure.hear(&Glance::of(&entry.to_bytes()).unwrap()));
        exposure
    }

    #[test]
    fn what_was_shown_is_summed_up_by_subject_over_its_tags_and_by_field() {
        use Outcome::{Denied, Granted, Masked};
        let (phone, email) = (Field::Phone, Field::Email);
        let mut exposure = heard(&[
            entry(5, Action::Detokenize, 1, &[(phone, Granted), (email, Denied)]),
            entry(3, Action::Detokenize, 1, &[(phone, Masked)]),
            entry(DAY, Action::GetDelivery, 2, &[(Field::Address, Granted)]),
            entry(7, Action::Detokenize, 3, &[(phone, Granted)]),
        ]);
        assert_eq!(exposure.days(), [0, 1, 2]);
        for tag in [1, 2, 9] {
            exposure.recognise(SubjectId(70), SubjectTag([tag; 16])).unwrap();
        }
        assert!(!exposure.knows_all());
        exposure.give_up();
        assert_eq!((exposure.answered, exposure.showed, exposure.refused, exposure.gone), (4, 4, 0, 1));
        let (subjects, fields) = exposure.sums();
        let all = FieldSet::default().with(phone).with(Field::Address);
        let masked = FieldSet::default().with(phone);
        let shown = Shown { times: 3, first: Timestamp(3), last: Timestamp(DAY), granted: all, masked };
        assert_eq!(subjects, BTreeMap::from([(SubjectId(70), shown)]));
        let sum = |field, outcome, times, subjects, first, last| FieldShown {
            field,
            outcome,
            times,
            subjects,
            first: Timestamp(first),
            last: Timestamp(last),
        };
        assert_eq!(
            fields,
            [
                sum(Field::Address, Granted, 1, 1, DAY, DAY),
                sum(phone, Granted, 2, 1, 5, 7),
                sum(phone, Masked, 1, 1, 3, 3),
                sum(email, Denied, 1, 0, 5, 5),
            ]
        );
    }

    #[test]
    fn storing_refusing_and_finding_nothing_are_no_exposure() {
        let stored = |action| entry(1, action, 1, &[(Field::Phone, Outcome::Granted)]);
        let refused = Entry { verdict: Verdict::Refused(RefusalCode::Forbidden), ..stored(Action::Detokenize) };
        let nothing =
            entry(1, Action::Detokenize, 1, &[(Field::Phone, Outcome::NotSet), (Field::Note, Outcome::Erased)]);
        let exposure = heard(&[stored(Action::Tokenize), stored(Action::Correct), refused, nothing]);
        assert!(exposure.knows_all());
        assert_eq!((exposure.answered, exposure.showed, exposure.refused), (3, 0, 1));
        let (subjects, fields) = exposure.sums();
        assert!(subjects.is_empty());
        assert!(fields.iter().all(|sum| sum.outcome != Outcome::Granted && sum.times == 1) && fields.len() == 2);
    }
}
