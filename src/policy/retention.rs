//! When a record is due, in whole or field by field, and what then becomes of it. INVARIANT: `due` is a pure function of a
//! policy and a record's facts: never before the policy's text allows, never after the class's cap, and blind to the order in
//! which events arrived.
//!
//! How a rule ends what it speaks of, whichever comes first:
//! ```text
//! after           the last of these events that has happened, and its time; but not while something of `wait_for` is open,
//!                 and not before `after_closing` since the last closing
//! inactive_after  no sign of life for so long; it waits likewise
//! on_request      once the customer has asked: the same with its own `after` and `wait_for`
//! at_latest       so long after the event, whatever is open
//! cap             so long after storing, whatever happens
//! ```

mod calendar;
mod diff;
mod file;

use crate::domain::fault::{Fault, planted};
use crate::domain::id::PolicyVersion;
use crate::domain::time::{DAY, Timestamp};
use crate::domain::vocabulary::{Class, EraseReason, EventKind, Field, Findable};
use crate::policy::facts::Facts;
use calendar::{Calendar, Length};
use std::collections::BTreeMap;

pub use diff::{Change, Effect, diff};
pub use file::{Parameters, PolicyError, Reason};

/// One shop's retention rules.
#[derive(Clone, Debug)]
pub struct Policy {
    id: String,
    version: PolicyVersion,
    text: String,
    calendar: Calendar,
    classes: BTreeMap<Class, ClassRule>,
    carrier: Vec<Field>,
}

/// What one class may hold, and how long.
#[derive(Clone, Debug)]
pub struct ClassRule {
    fields: Vec<Field>,
    findable: Vec<Findable>,
    action: Action,
    whole: Rule,
    stages: BTreeMap<Piece, Rule>,
}

/// What ends a record, or a piece of it.
#[derive(Clone, Debug, Default)]
struct Rule {
    after: BTreeMap<EventKind, Term>,
    wait_for: Vec<Matter>,
    after_closing: Option<Term>,
    inactive_after: Option<Term>,
    on_request: Option<Request>,
    at_latest: BTreeMap<EventKind, Term>,
    cap: Option<Term>,
}

/// What a customer's wish for clearing still waits for.
#[derive(Clone, Debug, Default)]
struct Request {
    after: BTreeMap<EventKind, Term>,
    wait_for: Vec<Matter>,
}

/// A length of time, and where the policy's text says so.
#[derive(Clone, Debug)]
struct Term {
    length: Length,
    written: String,
    /// From 1.
    line: usize,
}

/// What may go earlier than its record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Piece {
    Whole(Field),
    /// The street lines of an address; locality, region, postal code and country stay.
    AddressLines,
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

/// When something is due, why then, and what it waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// From this instant on nothing is readable; the cap makes sure that there is one.
    pub at: Timestamp,
    pub by: DueReason,
    /// The closing events still missing; while there are any, only a deadline, a customer's wish or the cap decides `at`.
    pub waiting_for: Vec<EventKind>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DueReason {
    /// The time after this event is over.
    Event(EventKind),
    /// What was waited for closed after all else was over, and its own time is over too.
    ClosedLast(EventKind),
    /// The customer asked, and nothing stands against it any more.
    Request,
    /// However things stand, this long after this event.
    Deadline(EventKind),
    /// Nothing lives longer than its class's cap.
    Cap,
    /// No sign of life for too long.
    Inactive,
    /// The subject's erasure was asked for, and nothing of this record is open.
    Asked(EraseReason),
}

/// A rule in the words of the policy's own file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cited {
    /// `order.after.delivered = "P60D"`.
    pub rule: String,
    /// From 1.
    pub line: usize,
    /// The comment above it: which section of the published policy it implements.
    pub source: String,
}

impl Policy {
    /// The kitchenware shop's policy.
    pub const KITCHENWARE: &str = include_str!("../../policies/kitchenware.toml");
    /// The general shop's: it lacks its number of years, which each shop must say.
    pub const GENERAL: &str = include_str!("../../policies/general.toml");
    /// The cross-border shop's.
    pub const CROSS_BORDER: &str = include_str!("../../policies/cross-border.toml");

    /// The policies that come with the build, by name.
    pub const BUILTIN: &[(&str, &str)] =
        &[("kitchenware", Self::KITCHENWARE), ("general", Self::GENERAL), ("cross-border", Self::CROSS_BORDER)];

    /// Reads a policy file. Whatever it says that is not understood, to the word, refuses the whole file.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        file::parse(text)
    }

    /// Reads a policy file with a shop's own figures put in place of its parameters. What is kept, and hashed, is the file with
    /// the figures in it.
    pub fn parse_with(text: &str, given: &Parameters) -> Result<Self, PolicyError> {
        file::parse(&file::settle(text, given)?)
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

    /// `None`: this shop keeps no such records.
    pub fn class(&self, class: Class) -> Option<&ClassRule> {
        self.classes.get(&class)
    }

    /// What a carrier may have beside the address and the serial of its own parcels; nothing unless the file says so.
    pub fn carrier_also(&self) -> &[Field] {
        &self.carrier
    }

    /// The day that an instant falls on in the shop's zone.
    pub fn day(&self, at: Timestamp) -> jiff::civil::Date {
        at.to_jiff().to_zoned(self.calendar.zone.clone()).date()
    }

    /// The shop's zone, by its name in the IANA database.
    pub fn zone(&self) -> &str {
        self.calendar.name()
    }

    /// When a record with these facts is due; `None` when the policy has no such class.
    pub fn due(&self, facts: &Facts) -> Option<Due> {
        self.due_by(&self.class(facts.class())?.whole, facts)
    }

    /// The pieces that go earlier than a record with these facts, as things stand, each with its own due.
    pub fn stages(&self, facts: &Facts) -> Vec<(Piece, Due)> {
        let Some(class) = self.class(facts.class()).filter(|class| !class.stages.is_empty()) else { return Vec::new() };
        let Some(record) = self.due_by(&class.whole, facts) else { return Vec::new() };
        let stages = class.stages.iter().filter_map(|(piece, rule)| Some((*piece, self.due_by(rule, facts)?)));
        stages.filter(|(_, due)| due.at < record.at).collect()
    }

    /// The rule behind a due of the record (`piece`: of a piece of it), as the policy's file has it.
    pub fn cited(&self, class: Class, piece: Option<Piece>, by: DueReason) -> Option<Cited> {
        let class_rule = self.class(class)?;
        let (rule, place) = match piece {
            None => (&class_rule.whole, class.as_str().to_owned()),
            Some(piece) => (class_rule.stages.get(&piece)?, format!("{class}.field.{piece}")),
        };
        let (key, term) = rule.term(by)?;
        let source = file::comment_above(&self.text, term.line);
        Some(Cited { rule: format!("{place}.{key} = \"{}\"", term.written), line: term.line, source })
    }

    fn due_by(&self, rule: &Rule, facts: &Facts) -> Option<Due> {
        let waiting_for = open_of(&rule.wait_for, facts);
        let ends = [
            self.capped(rule, facts),
            if waiting_for.is_empty() { self.ended(rule, facts) } else { None },
            rule.on_request.as_ref().and_then(|request| self.requested(request, facts)),
            self.at_latest(rule, facts),
        ];
        let (at, by) = ends.into_iter().flatten().min_by_key(|(at, _)| *at)?;
        Some(Due { at, by, waiting_for })
    }

    fn capped(&self, rule: &Rule, facts: &Facts) -> Option<End> {
        Some((self.later(facts.stored_at(), rule.cap.as_ref()?), DueReason::Cap))
    }

    /// When the last of what it was kept for is over, with nothing open; `None` while nothing has started.
    fn ended(&self, rule: &Rule, facts: &Facts) -> Option<End> {
        let by_event = self.last_after(&rule.after, facts);
        // It lives until it is ended by an event or by silence, whichever comes first.
        let by_silence = rule.inactive_after.as_ref().map(|term| {
            let active = facts.latest(EventKind::AccountActive).unwrap_or(facts.stored_at());
            (self.later(active.max(facts.stored_at()), term), DueReason::Inactive)
        });
        let started = by_event.into_iter().chain(by_silence).min_by_key(|(at, _)| *at)?;
        let closed = last_closing(&rule.wait_for, facts).map(|(at, kind)| {
            let at = rule.after_closing.as_ref().map_or(at, |term| self.later(at, term));
            (at, DueReason::ClosedLast(kind))
        });
        Some(closed.filter(|(at, _)| *at > started.0).unwrap_or(started))
    }

    /// When nothing stands against the customer's wish any more; `None` while there is none, or something does.
    fn requested(&self, request: &Request, facts: &Facts) -> Option<End> {
        let asked = facts.latest(EventKind::ClearingRequested)?;
        if !open_of(&request.wait_for, facts).is_empty() {
            return None;
        }
        let (over, _) = self.last_after(&request.after, facts)?;
        let closed = last_closing(&request.wait_for, facts).map_or(over, |(at, _)| at);
        Some((asked.max(over).max(closed), DueReason::Request))
    }

    fn at_latest(&self, rule: &Rule, facts: &Facts) -> Option<End> {
        let ends = rule.at_latest.iter().filter_map(|(kind, term)| {
            // The first of several is what a deadline runs from.
            Some((self.later(facts.earliest(*kind)?, term), DueReason::Deadline(*kind)))
        });
        ends.min_by_key(|(at, _)| *at)
    }

    fn last_after(&self, after: &BTreeMap<EventKind, Term>, facts: &Facts) -> Option<End> {
        let ends = after
            .iter()
            .filter_map(|(kind, term)| Some((self.later(facts.latest(*kind)?, term), DueReason::Event(*kind))));
        ends.max_by_key(|(at, _)| *at)
    }

    fn later(&self, start: Timestamp, term: &Term) -> Timestamp {
        let start = if planted(Fault::DueEarly) { start.plus(-DAY) } else { start };
        self.calendar.later(start, term.length)
    }
}

type End = (Timestamp, DueReason);

impl ClassRule {
    pub fn allows(&self, field: Field) -> bool {
        self.fields.contains(&field)
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// What records of the class may be found by; nothing unless the policy says so.
    pub fn findable(&self) -> &[Findable] {
        &self.findable
    }

    pub fn action(&self) -> Action {
        self.action
    }
}

impl Rule {
    /// The key and the term that a reason speaks of.
    fn term(&self, by: DueReason) -> Option<(String, &Term)> {
        let named = |table: &str, kind: EventKind| format!("{table}.{kind}");
        match by {
            DueReason::Event(kind) => Some((named("after", kind), self.after.get(&kind)?)),
            DueReason::Deadline(kind) => Some((named("at_latest", kind), self.at_latest.get(&kind)?)),
            DueReason::Inactive => Some(("inactive_after".to_owned(), self.inactive_after.as_ref()?)),
            DueReason::Cap => Some(("cap".to_owned(), self.cap.as_ref()?)),
            // No rule of the policy's: the subject leaves.
            DueReason::Asked(_) => None,
            // Closed last: the closing's own time if it has one, else the rule that it held up.
            DueReason::ClosedLast(_) => {
                let own = self.after_closing.as_ref().map(|term| ("after_closing".to_owned(), term));
                own.or_else(|| self.after.iter().next().map(|(kind, term)| (named("after", *kind), term)))
            }
            DueReason::Request => {
                let (kind, term) = self.on_request.as_ref()?.after.iter().next()?;
                Some((named("on_request.after", *kind), term))
            }
        }
    }
}

/// The closing events of all that is open.
fn open_of(wait_for: &[Matter], facts: &Facts) -> Vec<EventKind> {
    wait_for.iter().filter(|matter| matter.is_open(facts)).map(|matter| matter.closed()).collect()
}

fn last_closing(wait_for: &[Matter], facts: &Facts) -> Option<(Timestamp, EventKind)> {
    let closed = wait_for.iter().filter_map(|matter| Some((facts.latest(matter.closed())?, matter.closed())));
    closed.max_by_key(|(at, _)| *at)
}

impl Piece {
    /// All there are.
    pub fn all() -> impl Iterator<Item = Self> {
        Field::ALL.iter().map(|field| Self::Whole(*field)).chain([Self::AddressLines])
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole(field) => field.as_str(),
            Self::AddressLines => "address_lines",
        }
    }

    pub fn parse(raw: &str) -> Option<Self> {
        Self::all().find(|piece| piece.as_str() == raw)
    }

    /// The field that it is, or is a part of.
    pub fn field(self) -> Field {
        match self {
            Self::Whole(field) => field,
            Self::AddressLines => Field::Address,
        }
    }
}

impl std::fmt::Display for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
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

#[cfg(test)]
mod tests;
