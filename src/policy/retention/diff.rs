//! What a new policy changes for the records collected under it. INVARIANT: a change that could make anything go earlier is
//! never called harmless: where it depends on the day or on what else happens, both is said.

use super::calendar::Calendar;
use super::{ClassRule, Matter, Policy, Rule, Term};
use crate::domain::vocabulary::{Class, EventKind};
use std::collections::{BTreeMap, BTreeSet};

/// One rule that is not as it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// `order.after.delivered`.
    pub rule: String,
    /// `None`: it was not there.
    pub old: Option<String>,
    /// `None`: it is there no more.
    pub new: Option<String>,
    pub effect: Effect,
}

/// What a change does to when something goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    Hastened,
    Delayed,
    /// Earlier or later, depending on the day or on what else happens.
    Either,
    /// Not a matter of time.
    Otherwise,
}

impl Effect {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hastened => "hastened",
            Self::Delayed => "delayed",
            Self::Either => "hastened or delayed",
            Self::Otherwise => "changed",
        }
    }

    /// Whether anything may go earlier than before.
    pub fn shortens(self) -> bool {
        matches!(self, Self::Hastened | Self::Either)
    }

    fn of(earlier: bool, later: bool) -> Option<Self> {
        match (earlier, later) {
            (true, true) => Some(Self::Either),
            (true, false) => Some(Self::Hastened),
            (false, true) => Some(Self::Delayed),
            (false, false) => None,
        }
    }
}

/// Everything in which `new` is not `old`, by class, piece and rule.
pub fn diff(old: &Policy, new: &Policy) -> Vec<Change> {
    let mut found = Differences { old: &old.calendar, new: &new.calendar, changes: Vec::new() };
    found.list("zone", old.calendar.name(), new.calendar.name());
    found.list("holidays", &old.calendar.days(), &new.calendar.days());
    found.list("release.carrier", &names(&old.carrier), &names(&new.carrier));
    for class in Class::ALL {
        match (old.class(*class), new.class(*class)) {
            (None, None) => {}
            (Some(old), Some(new)) => found.class(*class, old, new),
            (old, new) => {
                let held = |rule: Option<&ClassRule>| rule.map(|_| "kept".to_owned());
                found.note(class.as_str().to_owned(), held(old), held(new), Effect::Otherwise);
            }
        }
    }
    found.changes
}

struct Differences<'a> {
    old: &'a Calendar,
    new: &'a Calendar,
    changes: Vec<Change>,
}

impl Differences<'_> {
    fn note(&mut self, rule: String, old: Option<String>, new: Option<String>, effect: Effect) {
        self.changes.push(Change { rule, old, new, effect });
    }

    fn class(&mut self, class: Class, old: &ClassRule, new: &ClassRule) {
        self.list(&format!("{class}.fields"), &names(&old.fields), &names(&new.fields));
        if old.action != new.action {
            let shown = |rule: &ClassRule| Some(format!("{:?}", rule.action).to_lowercase());
            self.note(format!("{class}.action"), shown(old), shown(new), Effect::Otherwise);
        }
        self.rule(class.as_str(), &old.whole, &new.whole);
        let pieces: BTreeSet<_> = old.stages.keys().chain(new.stages.keys()).copied().collect();
        for piece in pieces {
            let place = format!("{class}.field.{piece}");
            match (old.stages.get(&piece), new.stages.get(&piece)) {
                (Some(old), Some(new)) => self.rule(&place, old, new),
                (Some(_), None) => self.note(place, Some("goes earlier".to_owned()), None, Effect::Delayed),
                (None, _) => self.note(place, None, Some("goes earlier".to_owned()), Effect::Hastened),
            }
        }
    }

    fn rule(&mut self, place: &str, old: &Rule, new: &Rule) {
        self.starts(&format!("{place}.after"), &old.after, &new.after);
        self.waits(&format!("{place}.wait_for"), &old.wait_for, &new.wait_for);
        // Time after the closing holds up; to lose it hastens.
        self.term(
            format!("{place}.after_closing"),
            old.after_closing.as_ref(),
            new.after_closing.as_ref(),
            [Effect::Delayed, Effect::Hastened],
        );
        let ends = [Effect::Hastened, Effect::Delayed];
        self.term(format!("{place}.inactive_after"), old.inactive_after.as_ref(), new.inactive_after.as_ref(), ends);
        let place_of_request = format!("{place}.on_request");
        match (&old.on_request, &new.on_request) {
            (Some(old), Some(new)) => {
                self.starts(&format!("{place_of_request}.after"), &old.after, &new.after);
                self.waits(&format!("{place_of_request}.wait_for"), &old.wait_for, &new.wait_for);
            }
            (Some(_), None) => self.note(place_of_request, Some("granted".to_owned()), None, Effect::Delayed),
            (None, Some(_)) => self.note(place_of_request, None, Some("granted".to_owned()), Effect::Hastened),
            (None, None) => {}
        }
        for kind in kinds(&old.at_latest, &new.at_latest) {
            self.term(format!("{place}.at_latest.{kind}"), old.at_latest.get(&kind), new.at_latest.get(&kind), ends);
        }
        self.term(format!("{place}.cap"), old.cap.as_ref(), new.cap.as_ref(), ends);
    }

    /// Of these the last one counts: one more may start what nothing started before, or hold up what another has started.
    fn starts(&mut self, place: &str, old: &BTreeMap<EventKind, Term>, new: &BTreeMap<EventKind, Term>) {
        for kind in kinds(old, new) {
            let either = [Effect::Either, Effect::Either];
            self.term(format!("{place}.{kind}"), old.get(&kind), new.get(&kind), either);
        }
    }

    fn waits(&mut self, place: &str, old: &[Matter], new: &[Matter]) {
        let earlier = old.iter().any(|matter| !new.contains(matter));
        let later = new.iter().any(|matter| !old.contains(matter));
        if let Some(effect) = Effect::of(earlier, later) {
            let shown = |matters: &[Matter]| {
                Some(matters.iter().map(|matter| matter.as_str()).collect::<Vec<_>>().join(", "))
                    .filter(|shown| !shown.is_empty())
            };
            self.note(place.to_owned(), shown(old), shown(new), effect);
        }
    }

    /// `[gained, lost]`: what it does to have the term at all.
    fn term(&mut self, rule: String, old: Option<&Term>, new: Option<&Term>, [gained, lost]: [Effect; 2]) {
        let effect = match (old, new) {
            (None, None) => None,
            (None, Some(_)) => Some(gained),
            (Some(_), None) => Some(lost),
            (Some(old), Some(new)) => self.compared(old, new),
        };
        if let Some(effect) = effect {
            self.note(rule, old.map(|term| term.written.clone()), new.map(|term| term.written.clone()), effect);
        }
    }

    fn compared(&self, old: &Term, new: &Term) -> Option<Effect> {
        let same_calendar = self.old.zone == self.new.zone && self.old.holidays == self.new.holidays;
        if same_calendar && old.written == new.written {
            return None;
        }
        let (mut earlier, mut later) = (false, false);
        // Listed holidays may lie outside the sampled years; the days around them are samples too.
        let around = self.old.around_holidays().chain(self.new.around_holidays());
        for start in Calendar::samples().chain(around) {
            let (before, after) = (self.old.later(start, old.length), self.new.later(start, new.length));
            earlier |= after < before;
            later |= after > before;
            if earlier && later {
                break;
            }
        }
        Effect::of(earlier, later)
    }

    fn list(&mut self, rule: &str, old: &str, new: &str) {
        if old != new {
            let shown = |list: &str| Some(list.to_owned()).filter(|list| !list.is_empty());
            self.note(rule.to_owned(), shown(old), shown(new), Effect::Otherwise);
        }
    }
}

fn kinds(old: &BTreeMap<EventKind, Term>, new: &BTreeMap<EventKind, Term>) -> BTreeSet<EventKind> {
    old.keys().chain(new.keys()).copied().collect()
}

/// A list whose order means nothing, in one order.
fn names(fields: &[crate::domain::vocabulary::Field]) -> String {
    let mut names: Vec<_> = fields.iter().map(|field| field.as_str()).collect();
    names.sort_unstable();
    names.join(", ")
}
