//! Reads a policy file. INVARIANT: a file is taken whole or refused with the line at fault and a reason that the person who
//! wrote it understands; nothing unknown is skipped.

use super::{Action, ClassRule, Matter, Policy};
use crate::domain::id::PolicyVersion;
use crate::domain::vocabulary::{Class, EventKind, Field, Findable};
use jiff::Span;
use jiff::civil::{Time, date};
use jiff::fmt::temporal::SpanParser;
use jiff::tz::TimeZone;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;

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
    #[error("{0:?} is no ISO-8601 duration, like P60D (days), P6M (months) or P3Y (years)")]
    NotADuration(String),
    #[error("a duration must be longer than nothing")]
    NotPositive,
    #[error("a duration of more than a century is no limit")]
    Endless,
    #[error("this class has no cap; each needs one, counted from storing, so that nothing is kept for ever")]
    NoCap,
    #[error("{0:?} is no time zone of the IANA database, like Europe/Berlin or UTC")]
    NoSuchZone(String),
    #[error("{0:?} is given twice")]
    Twice(String),
    #[error("a policy's id is 1 to 63 characters of a-z, 0-9 and '-'")]
    BadId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    id: Spanned<String>,
    zone: Spanned<String>,
    class: BTreeMap<Spanned<String>, RawClass>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClass {
    fields: Vec<Spanned<String>>,
    action: Spanned<String>,
    cap: Option<Spanned<String>>,
    #[serde(default)]
    after: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    wait_for: Vec<Spanned<String>>,
    inactive_after: Option<Spanned<String>>,
    #[serde(default)]
    findable: Vec<Spanned<String>>,
}

/// A reason and the bytes of the file that it is about.
type At = (Range<usize>, Reason);

pub(super) fn parse(text: &str) -> Result<Policy, PolicyError> {
    let raw: RawPolicy = toml::from_str(text).map_err(|error| {
        let reason = Reason::Shape(error.message().to_owned());
        PolicyError { line: line(text, error.span().map_or(0, |span| span.start)), reason }
    })?;
    policy(raw, text).map_err(|(span, reason)| PolicyError { line: line(text, span.start), reason })
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
    let mut classes = BTreeMap::new();
    for (name, raw) in &raw.class {
        let class = word(name, "class", Class::ALL, Class::as_str)?;
        classes.insert(class, rule(name.span(), raw)?);
    }
    let version = PolicyVersion(Sha256::digest(text).into());
    Ok(Policy { id: id.clone(), version, text: text.to_owned(), zone, classes })
}

fn rule(place: Range<usize>, raw: &RawClass) -> Result<ClassRule, At> {
    let action = match raw.action.get_ref().as_str() {
        "purge" => Action::Purge,
        "desensitize" => Action::Desensitize,
        other => {
            let known = "purge, desensitize".to_owned();
            return Err((raw.action.span(), Reason::Unknown { what: "action", found: other.to_owned(), known }));
        }
    };
    let findable = words(&raw.findable, "findable value", Findable::ALL, Findable::as_str)?;
    let cap = raw.cap.as_ref().ok_or((place, Reason::NoCap))?;
    let after = raw
        .after
        .iter()
        .map(|(event, duration)| Ok((word(event, "event", EventKind::ALL, EventKind::as_str)?, span(duration)?)));
    Ok(ClassRule {
        fields: words(&raw.fields, "field", Field::ALL, Field::as_str)?,
        action,
        after: after.collect::<Result<_, At>>()?,
        wait_for: words(&raw.wait_for, "matter to wait for", &Matter::ALL, Matter::as_str)?,
        inactive_after: raw.inactive_after.as_ref().map(span).transpose()?,
        findable,
        cap: span(cap)?,
    })
}

fn span(raw: &Spanned<String>) -> Result<Span, At> {
    let at = |reason| (raw.span(), reason);
    let span =
        SpanParser::new().parse_span(raw.get_ref()).map_err(|_| at(Reason::NotADuration(raw.get_ref().clone())))?;
    if !span.is_positive() {
        return Err(at(Reason::NotPositive));
    }
    let start = date(2000, 1, 1).to_datetime(Time::midnight());
    let century = date(2100, 1, 1).to_datetime(Time::midnight());
    match start.checked_add(span) {
        Ok(end) if end <= century => Ok(span),
        _ => Err(at(Reason::Endless)),
    }
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
mod tests {
    use super::*;

    const GOOD: &str = "\
id = 'shop'
zone = 'Europe/Berlin'

[class.order]
fields = ['address', 'phone']
action = 'purge'
wait_for = ['refund']
inactive_after = 'P2Y'
cap = 'P1Y'

[class.order.after]
delivered = 'P60D'
";

    #[test]
    fn a_good_file_is_read_and_named_by_its_digest() {
        let policy = Policy::parse(GOOD).unwrap();
        assert_eq!(policy.version().0, <[u8; 32]>::from(Sha256::digest(GOOD)));
        assert!(policy.class(Class::Order).is_some() && policy.class(Class::Case).is_none());
        assert_ne!(Policy::parse(&format!("{GOOD}\n")).unwrap().version(), policy.version());
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        for (from, to, line, reason) in [
            ("zone = ", "zone ", 2, ""),
            ("zone = 'Europe/Berlin'\n", "", 1, "missing field `zone`"),
            ("id = 'shop'", "id = 'Shop'", 1, "a policy's id is"),
            ("id = 'shop'", "id = ''", 1, "a policy's id is"),
            ("id = 'shop'", "id = 7", 1, "invalid type"),
            ("Europe/Berlin", "Europe/Atlantis", 2, "\"Europe/Atlantis\" is no time zone"),
            ("\n\n[class.order]", "\ncolour = 'red'\n[class.order]", 3, "unknown field `colour`"),
            ("class.order", "class.basket", 4, "\"basket\" is no class; there are: order, account, case"),
            ("'phone'", "'fax'", 5, "\"fax\" is no field; there are: account_name"),
            ("'phone'", "'address'", 5, "\"address\" is given twice"),
            ("fields = ['address', 'phone']\n", "", 4, "missing field `fields`"),
            ("action = 'purge'", "action = 'keep'", 6, "\"keep\" is no action; there are: purge, desensitize"),
            ("['refund']", "['weather']", 7, "\"weather\" is no matter to wait for; there are: after_sales, refund"),
            ("['refund']", "['refund', 'refund']", 7, "\"refund\" is given twice"),
            (
                "cap = 'P1Y'",
                "cap = 'P1Y'\nfindable = ['name']",
                10,
                "\"name\" is no findable value; there are: email, phone",
            ),
            ("P2Y", "two years", 8, "\"two years\" is no ISO-8601 duration"),
            ("P2Y", "2 years", 8, "\"2 years\" is no ISO-8601 duration"),
            ("cap = 'P1Y'\n", "", 4, "this class has no cap"),
            ("cap = 'P1Y'", "cap = 'P1Y'\ncap = 'P1Y'", 10, "duplicate key"),
            ("cap = 'P1Y'", "cap = 'P0D'", 9, "longer than nothing"),
            ("cap = 'P1Y'", "cap = '-P1Y'", 9, "longer than nothing"),
            ("cap = 'P1Y'", "cap = 'P101Y'", 9, "more than a century"),
            ("cap = 'P1Y'", "cap = 'P1Y'\ncap_ = 'P1Y'", 10, "unknown field `cap_`"),
            ("delivered", "devoured", 12, "\"devoured\" is no event; there are: placed"),
            ("'P60D'", "'P60D'\ndelivered = 'P9D'", 13, "duplicate key"),
            ("'P60D'", "60", 12, "invalid type"),
            ("'P60D'", "'P-60D'", 12, "\"P-60D\" is no ISO-8601 duration"),
        ] {
            let text = GOOD.replace(from, to);
            let error = Policy::parse(&text).unwrap_err();
            let shown = error.to_string();
            assert!(error.line == line && shown.contains(reason), "{from} -> {to}: {shown}");
        }
    }
}
