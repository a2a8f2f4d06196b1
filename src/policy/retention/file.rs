//! Reads a policy file. INVARIANT: a file is taken whole or refused with the line at fault and a reason that the person who
//! wrote it understands; nothing unknown is skipped, and a figure that the shop must say is never made up.

use super::calendar::{Calendar, Length};
use super::{Action, ClassRule, Matter, Piece, Policy, Request, Rule, Term};
use crate::domain::id::PolicyVersion;
use crate::domain::vocabulary::{Class, EventKind, Field, Findable};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use toml::Spanned;

/// A shop's own figures, by their parameter's name.
pub type Parameters = BTreeMap<String, i64>;

/// Why a policy file is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct PolicyError {
    /// From 1.
    pub line: usize,
    pub reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No TOML, a key that no policy has, a key missing or given twice; in the parser's own words.
    #[error("{0}")]
    Shape(String),
    #[error("{found:?} is no {what}; there are: {known}")]
    Unknown { what: &'static str, found: String, known: String },
    #[error("{0:?} is no ISO-8601 duration, like P60D (days), P6M (months) or P3Y (years), nor so many working days")]
    NotADuration(String),
    #[error("{0:?} is not 1 to 1000 working days, like \"10 working days\"")]
    NotWorkingDays(String),
    #[error("a duration must be longer than nothing; only a deadline (at_latest) may be at once")]
    NotPositive,
    #[error("a duration of more than a century is no limit")]
    Endless,
    #[error("this class has no cap; each needs one, counted from storing, so that nothing is kept for ever")]
    NoCap,
    #[error("{0:?} is no time zone of the IANA database, like Europe/Berlin or UTC")]
    NoSuchZone(String),
    #[error("{0:?} is no date, like \"2026-10-01\"")]
    NotADate(String),
    #[error("{0:?} is given twice")]
    Twice(String),
    #[error("a policy's id is 1 to 63 characters of a-z, 0-9 and '-'")]
    BadId,
    #[error("this class does not hold {0}, so no stage of it can end")]
    NotHeld(Field),
    #[error("this ends nothing: it needs an event to start from, or a cap")]
    EndsNothing,
    #[error("after_closing counts from what wait_for waits for, and there is nothing")]
    ClosesNothing,
    #[error("a parameter's name is of a-z and '_'")]
    BadParameter,
    #[error("a parameter is a whole number from 1 to 1000, or \"required\" until the shop says it")]
    ParameterRange,
    #[error("{0} has no value, and there is none to fall back on: the shop must say it (parameters = {{ {0} = 5 }})")]
    ParameterMissing(String),
    #[error("no duration uses {{{0}}}")]
    ParameterUnused(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    id: Spanned<String>,
    zone: Spanned<String>,
    #[serde(default)]
    holidays: Vec<Spanned<String>>,
    #[serde(default)]
    parameters: BTreeMap<Spanned<String>, Spanned<toml::Value>>,
    #[serde(default)]
    release: RawRelease,
    class: BTreeMap<Spanned<String>, RawClass>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawRelease {
    #[serde(default)]
    carrier: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClass {
    fields: Vec<Spanned<String>>,
    #[serde(default)]
    findable: Vec<Spanned<String>>,
    action: Spanned<String>,
    #[serde(default)]
    after: RawTerms,
    #[serde(default)]
    wait_for: Vec<Spanned<String>>,
    after_closing: Option<Spanned<String>>,
    inactive_after: Option<Spanned<String>>,
    on_request: Option<RawRequest>,
    #[serde(default)]
    at_latest: RawTerms,
    cap: Option<Spanned<String>>,
    #[serde(default)]
    field: BTreeMap<Spanned<String>, RawStage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStage {
    #[serde(default)]
    after: RawTerms,
    #[serde(default)]
    wait_for: Vec<Spanned<String>>,
    after_closing: Option<Spanned<String>>,
    inactive_after: Option<Spanned<String>>,
    #[serde(default)]
    at_latest: RawTerms,
    cap: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequest {
    after: RawTerms,
    #[serde(default)]
    wait_for: Vec<Spanned<String>>,
}

/// Durations by the event that they run from.
type RawTerms = BTreeMap<Spanned<String>, Spanned<String>>;

/// A reason and the bytes of the file that it is about.
type At = (Range<usize>, Reason);

/// The file with the values of its parameters.
struct Source<'a> {
    text: &'a str,
    parameters: Parameters,
}

pub(super) fn parse(text: &str) -> Result<Policy, PolicyError> {
    policy(raw(text)?, text).map_err(|(span, reason)| PolicyError { line: line(text, span.start), reason })
}

/// The file with `given` written in place of what its parameters say.
pub(super) fn settle(text: &str, given: &Parameters) -> Result<String, PolicyError> {
    if given.is_empty() {
        return Ok(text.to_owned());
    }
    let mut places: Vec<(Range<usize>, i64)> = Vec::new();
    let raw = raw(text)?;
    for (name, value) in given {
        let Some((_, place)) = raw.parameters.iter().find(|(known, _)| known.get_ref() == name) else {
            let known = raw.parameters.keys().map(|known| known.get_ref().as_str()).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            return Err(PolicyError {
                line: 1,
                reason: Reason::Unknown { what: "parameter of this policy", found: name.clone(), known },
            });
        };
        places.push((place.span(), *value));
    }
    places.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    let mut settled = text.to_owned();
    for (place, value) in places {
        settled.replace_range(place, &value.to_string());
    }
    Ok(settled)
}

/// The comment above a line: what the file itself says of a rule. Lines of the same paragraph may lie between.
pub(super) fn comment_above(text: &str, line: usize) -> String {
    let above: Vec<&str> = text.lines().take(line.saturating_sub(1)).collect();
    let is_comment = |line: &&&str| line.starts_with('#');
    let paragraph = above.iter().rev().take_while(|line| !line.is_empty()).skip_while(|line| !line.starts_with('#'));
    let mut comment: Vec<&str> =
        paragraph.take_while(is_comment).map(|line| line.trim_start_matches('#').trim()).collect();
    comment.reverse();
    comment.join(" ")
}

fn raw(text: &str) -> Result<RawPolicy, PolicyError> {
    toml::from_str(text).map_err(|error| {
        let reason = Reason::Shape(error.message().to_owned());
        PolicyError { line: line(text, error.span().map_or(0, |span| span.start)), reason }
    })
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn policy(raw: RawPolicy, text: &str) -> Result<Policy, At> {
    let id = raw.id.get_ref();
    if !(1..=63).contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err((raw.id.span(), Reason::BadId));
    }
    let zone = TimeZone::get(raw.zone.get_ref())
        .map_err(|_| (raw.zone.span(), Reason::NoSuchZone(raw.zone.get_ref().clone())))?;
    let source = Source { text, parameters: parameters(&raw.parameters, text)? };
    let mut classes = BTreeMap::new();
    for (name, raw) in &raw.class {
        let class = word(name, "class", Class::ALL, Class::as_str)?;
        classes.insert(class, source.class(name.span(), raw)?);
    }
    Ok(Policy {
        id: id.clone(),
        version: PolicyVersion(Sha256::digest(text).into()),
        text: text.to_owned(),
        calendar: Calendar { zone, holidays: holidays(&raw.holidays)? },
        classes,
        carrier: words(&raw.release.carrier, "field that a carrier may have", &[Field::Phone], Field::as_str)?,
    })
}

fn holidays(raw: &[Spanned<String>]) -> Result<BTreeSet<Date>, At> {
    let mut days = BTreeSet::new();
    for raw in raw {
        let day = raw.get_ref().parse().map_err(|_| (raw.span(), Reason::NotADate(raw.get_ref().clone())))?;
        if !days.insert(day) {
            return Err((raw.span(), Reason::Twice(raw.get_ref().clone())));
        }
    }
    Ok(days)
}

fn parameters(raw: &BTreeMap<Spanned<String>, Spanned<toml::Value>>, text: &str) -> Result<Parameters, At> {
    let mut parameters = Parameters::new();
    for (name, value) in raw {
        let word = name.get_ref();
        if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            return Err((name.span(), Reason::BadParameter));
        }
        let number = match value.get_ref() {
            toml::Value::Integer(number) if (1..=1_000).contains(number) => *number,
            toml::Value::String(text) if text == "required" => {
                return Err((value.span(), Reason::ParameterMissing(word.clone())));
            }
            _ => return Err((value.span(), Reason::ParameterRange)),
        };
        if !text.contains(&format!("{{{word}}}")) {
            return Err((name.span(), Reason::ParameterUnused(word.clone())));
        }
        parameters.insert(word.clone(), number);
    }
    Ok(parameters)
}

impl Source<'_> {
    fn class(&self, place: Range<usize>, raw: &RawClass) -> Result<ClassRule, At> {
        let action = match raw.action.get_ref().as_str() {
            "purge" => Action::Purge,
            "desensitize" => Action::Desensitize,
            other => {
                let known = "purge, desensitize".to_owned();
                return Err((raw.action.span(), Reason::Unknown { what: "action", found: other.to_owned(), known }));
            }
        };
        let fields = words(&raw.fields, "field", Field::ALL, Field::as_str)?;
        let findable = words(&raw.findable, "findable value", Findable::ALL, Findable::as_str)?;
        let cap = raw.cap.as_ref().ok_or((place, Reason::NoCap))?;
        let whole = Rule {
            after: self.terms(&raw.after)?,
            wait_for: matters(&raw.wait_for)?,
            after_closing: self.after_closing(raw.after_closing.as_ref(), &raw.wait_for)?,
            inactive_after: raw.inactive_after.as_ref().map(|raw| self.term(raw)).transpose()?,
            on_request: raw.on_request.as_ref().map(|raw| self.request(raw)).transpose()?,
            at_latest: self.deadlines(&raw.at_latest)?,
            cap: Some(self.term(cap)?),
        };
        let pieces: Vec<Piece> = Piece::all().collect();
        let mut stages = BTreeMap::new();
        for (name, raw) in &raw.field {
            let piece = word(name, "field or part of one", &pieces, Piece::as_str)?;
            if !fields.contains(&piece.field()) {
                return Err((name.span(), Reason::NotHeld(piece.field())));
            }
            stages.insert(piece, self.stage(name.span(), raw)?);
        }
        Ok(ClassRule { fields, findable, action, whole, stages })
    }

    fn stage(&self, place: Range<usize>, raw: &RawStage) -> Result<Rule, At> {
        if raw.after.is_empty() && raw.at_latest.is_empty() && raw.inactive_after.is_none() && raw.cap.is_none() {
            return Err((place, Reason::EndsNothing));
        }
        Ok(Rule {
            after: self.terms(&raw.after)?,
            wait_for: matters(&raw.wait_for)?,
            after_closing: self.after_closing(raw.after_closing.as_ref(), &raw.wait_for)?,
            inactive_after: raw.inactive_after.as_ref().map(|raw| self.term(raw)).transpose()?,
            on_request: None,
            at_latest: self.deadlines(&raw.at_latest)?,
            cap: raw.cap.as_ref().map(|raw| self.term(raw)).transpose()?,
        })
    }

    fn request(&self, raw: &RawRequest) -> Result<Request, At> {
        Ok(Request { after: self.terms(&raw.after)?, wait_for: matters(&raw.wait_for)? })
    }

    fn after_closing(&self, raw: Option<&Spanned<String>>, wait_for: &[Spanned<String>]) -> Result<Option<Term>, At> {
        match raw {
            Some(raw) if wait_for.is_empty() => Err((raw.span(), Reason::ClosesNothing)),
            raw => raw.map(|raw| self.term(raw)).transpose(),
        }
    }

    fn terms(&self, raw: &RawTerms) -> Result<BTreeMap<EventKind, Term>, At> {
        self.by_event(raw, Self::term)
    }

    fn deadlines(&self, raw: &RawTerms) -> Result<BTreeMap<EventKind, Term>, At> {
        self.by_event(raw, Self::any_term)
    }

    fn by_event(
        &self,
        raw: &RawTerms,
        term: fn(&Self, &Spanned<String>) -> Result<Term, At>,
    ) -> Result<BTreeMap<EventKind, Term>, At> {
        let terms = raw
            .iter()
            .map(|(event, raw)| Ok((word(event, "event", EventKind::ALL, EventKind::as_str)?, term(self, raw)?)));
        terms.collect()
    }

    fn term(&self, raw: &Spanned<String>) -> Result<Term, At> {
        let term = self.any_term(raw)?;
        if term.length.is_nothing() { Err((raw.span(), Reason::NotPositive)) } else { Ok(term) }
    }

    /// A length of time, of nothing too, with the parameters' values in place of their names.
    fn any_term(&self, raw: &Spanned<String>) -> Result<Term, At> {
        let mut written = raw.get_ref().clone();
        for (name, value) in &self.parameters {
            written = written.replace(&format!("{{{name}}}"), &value.to_string());
        }
        let length = Length::parse(&written).map_err(|reason| (raw.span(), reason))?;
        Ok(Term { length, written, line: line(self.text, raw.span().start) })
    }
}

fn matters(raw: &[Spanned<String>]) -> Result<Vec<Matter>, At> {
    words(raw, "matter to wait for", &Matter::ALL, Matter::as_str)
}

/// The items of a list, each a word of the vocabulary, none twice.
fn words<T: Copy + PartialEq>(
    raw: &[Spanned<String>],
    what: &'static str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<Vec<T>, At> {
    let mut items = Vec::new();
    for raw in raw {
        let item = word(raw, what, all, name)?;
        if items.contains(&item) {
            return Err((raw.span(), Reason::Twice(raw.get_ref().clone())));
        }
        items.push(item);
    }
    Ok(items)
}

fn word<T: Copy>(raw: &Spanned<String>, what: &'static str, all: &[T], name: fn(T) -> &'static str) -> Result<T, At> {
    all.iter().copied().find(|item| name(*item) == raw.get_ref()).ok_or_else(|| {
        let known = all.iter().map(|item| name(*item)).collect::<Vec<_>>().join(", ");
        (raw.span(), Reason::Unknown { what, found: raw.get_ref().clone(), known })
    })
}

#[cfg(test)]
mod tests;
