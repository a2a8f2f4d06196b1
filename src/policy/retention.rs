//! When a record is due, and what then becomes of it. INVARIANT: `due` is a pure function of a policy and a record's facts:
//! never before the policy's text allows, never after the class's cap, and blind to the order in which events arrived.

mod file;

use crate::domain::id::PolicyVersion;
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::{Class, EraseReason, EventKind, Field};
use crate::policy::facts::Facts;
use jiff::Span;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

pub use file::{PolicyError, Reason};

/// One shop's retention rules.
#[derive(Clone, Debug)]
pub struct Policy {
    id: String,
    version: PolicyVersion,
    text: String,
    zone: TimeZone,
    classes: BTreeMap<Class, ClassRule>,
}

/// What one class may hold, and how long.
#[derive(Clone, Debug)]
pub struct ClassRule {
    fields: Vec<Field>,
    action: Action,
    after: Vec<(EventKind, Span)>,
    wait_for: Vec<Matter>,
    inactive_after: Option<Span>,
    cap: Span,
}

/// What is done to a record that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Purge,
    /// Destroyed, and counted without identity.
    Desensitize,
}

/// What may be open, and is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Matter {
    AfterSales,
    Refund,
}

/// When a record is due, why then, and what it waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// From this instant on nothing is readable; the cap makes sure that there is one.
    pub at: Timestamp,
    pub by: DueReason,
    /// The closing events still missing; while there are any, `at` is the cap.
    pub waiting_for: Vec<EventKind>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DueReason {
    /// The time after this event is over.
    Event(EventKind),
    /// What was waited for closed after all else was over.
    ClosedLast(EventKind),
    /// Nothing lives longer than its class's cap.
    Cap,
    /// No sign of life for too long.
    Inactive,
    /// The subject's erasure was asked for, and nothing of this record is open.
    Asked(EraseReason),
}

impl Policy {
    /// The kitchenware shop's policy.
    pub const KITCHENWARE: &str = include_str!("../../policies/kitchenware.toml");

    /// Reads a policy file. Whatever it says that is not understood, to the word, refuses the whole file.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        file::parse(text)
    }

    /// The policy's name for itself; its contents' name is `version`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// SHA-256 of the file.
    pub fn version(&self) -> PolicyVersion {
        self.version
    }

    /// The file as it was read; kept with the records that live by it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where the shop's calendar hangs.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// `None`: this shop keeps no such records.
    pub fn class(&self, class: Class) -> Option<&ClassRule> {
        self.classes.get(&class)
    }

    /// When a record with these facts is due; `None` when the policy has no such class.
    pub fn due(&self, facts: &Facts) -> Option<Due> {
        let rule = self.class(facts.class())?;
        let cap = self.later(facts.stored_at(), rule.cap);
        let waiting_for = rule.waiting_for(facts);
        let ended = if waiting_for.is_empty() { self.ended(rule, facts) } else { None };
        let (at, by) = ended.filter(|(at, _)| *at < cap).unwrap_or((cap, DueReason::Cap));
        Some(Due { at, by, waiting_for })
    }

    /// When the last of what the record was kept for is over, with nothing open; `None` while nothing has started.
    fn ended(&self, rule: &ClassRule, facts: &Facts) -> Option<(Timestamp, DueReason)> {
        let starts = rule
            .after
            .iter()
            .filter_map(|(kind, span)| Some((self.later(facts.latest(*kind)?, *span), DueReason::Event(*kind))));
        let by_event = latest(starts);
        // A record lives until it is ended by an event or by silence, whichever comes first.
        let by_silence = rule.inactive_after.map(|span| {
            let active = facts.latest(EventKind::AccountActive).unwrap_or(facts.stored_at());
            (self.later(active.max(facts.stored_at()), span), DueReason::Inactive)
        });
        let started = by_event.into_iter().chain(by_silence).min_by_key(|(at, _)| *at)?;
        let closed = latest(
            rule.wait_for
                .iter()
                .filter_map(|matter| Some((facts.latest(matter.closed())?, DueReason::ClosedLast(matter.closed())))),
        );
        Some(closed.filter(|(at, _)| *at > started.0).unwrap_or(started))
    }

    /// `start` moved on the shop's calendar: a day keeps its hour across a change of clocks, and a month that lacks the day
    /// ends on its last one. Past the end of the calendar: its end.
    fn later(&self, start: Timestamp, span: Span) -> Timestamp {
        let moved = start.to_jiff().to_zoned(self.zone.clone()).checked_add(span);
        Timestamp::from_jiff(moved.map_or(jiff::Timestamp::MAX, |zoned| zoned.timestamp()))
    }
}

impl ClassRule {
    pub fn allows(&self, field: Field) -> bool {
        self.fields.contains(&field)
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub fn action(&self) -> Action {
        self.action
    }

    /// The closing events of all that is open.
    fn waiting_for(&self, facts: &Facts) -> Vec<EventKind> {
        self.wait_for.iter().filter(|matter| matter.is_open(facts)).map(|matter| matter.closed()).collect()
    }
}

impl Matter {
    const ALL: [Matter; 2] = [Matter::AfterSales, Matter::Refund];

    fn as_str(self) -> &'static str {
        match self {
            Matter::AfterSales => "after_sales",
            Matter::Refund => "refund",
        }
    }

    fn opened(self) -> EventKind {
        match self {
            Matter::AfterSales => EventKind::AfterSalesOpened,
            Matter::Refund => EventKind::RefundOpened,
        }
    }

    fn closed(self) -> EventKind {
        match self {
            Matter::AfterSales => EventKind::AfterSalesClosed,
            Matter::Refund => EventKind::RefundSettled,
        }
    }

    /// Some case or refund has no closing at or after its (last) opening.
    fn is_open(self, facts: &Facts) -> bool {
        facts
            .events()
            .filter(|event| event.kind == self.opened())
            .any(|opened| facts.when(self.closed(), opened.ordinal).is_none_or(|closed| closed < opened.occurred_at))
    }
}

fn latest(ends: impl Iterator<Item = (Timestamp, DueReason)>) -> Option<(Timestamp, DueReason)> {
    ends.max_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests;
