//! The part of the configuration that says how keys are kept. INVARIANT: as for all of it, what is out of bounds is refused with
//! its key; a schedule always leaves idempotency keys their window.

use std::path::{Path, PathBuf};

use jiff::{Span, SpanRelativeTo, Unit};
use serde::Deserialize;
use toml::Spanned;

use super::root::{RawRoot, root};
use super::{At, Reason};
use crate::crypto::keyring::places::Places;
use crate::crypto::rotation::Schedule;
use crate::domain::time::{DAY, HOUR};
use crate::vault::KeySettings;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKeys {
    period: Option<Spanned<String>>,
    rewrap_within: Option<Spanned<String>>,
    backups: Option<Spanned<String>>,
    rewrap_budget: Option<Spanned<i64>>,
    #[serde(default)]
    copies: Vec<PathBuf>,
}

/// How long idempotency keys are remembered: an epoch lives so long after it was replaced.
const WINDOW: i64 = 7 * DAY;

pub(super) fn keys(
    raw: &RawKeys,
    next_root: Option<Spanned<RawRoot>>,
    keyring: PathBuf,
    folder: &Path,
) -> Result<KeySettings, At> {
    let default = KeySettings::default();
    let period = length(&raw.period, "keys.period", default.schedule.period, HOUR)?;
    let rewrap_within = length(&raw.rewrap_within, "keys.rewrap_within", default.schedule.rewrap_within, HOUR)?;
    let backups = length(&raw.backups, "keys.backups", default.schedule.backups, HOUR)?;
    if rewrap_within + backups < WINDOW {
        let place = raw.backups.as_ref().or(raw.rewrap_within.as_ref()).map_or(0..0, Spanned::span);
        return Err((
            place,
            "keys.backups",
            Reason::TooShort("7 days, together with rewrap_within: idempotency keys live so long"),
        ));
    }
    let budget = match &raw.rewrap_budget {
        None => default.budget,
        Some(raw) => u32::try_from(*raw.get_ref()).ok().filter(|budget| (1..=10_000_000).contains(budget)).ok_or((
            raw.span(),
            "keys.rewrap_budget",
            Reason::OutOfRange("1 and 10000000 rows a second"),
        ))?,
    };
    let copies: Vec<PathBuf> = raw.copies.iter().map(|path| folder.join(path)).collect();
    let is_twice =
        |(at, copy): (usize, &PathBuf)| *copy == keyring || copies.iter().take(at).any(|other| other == copy);
    if copies.iter().enumerate().any(is_twice) {
        return Err((0..0, "keys.copies", Reason::Twice));
    }
    Ok(KeySettings {
        places: Places { file: Some(keyring), copies },
        schedule: Schedule { period, rewrap_within, backups },
        budget,
        next_root: next_root.map(|raw| root(raw, folder)).transpose()?,
    })
}

/// A length of time in microseconds; a day has 24 hours here.
fn length(raw: &Option<Spanned<String>>, key: &'static str, default: i64, least: i64) -> Result<i64, At> {
    let Some(raw) = raw else { return Ok(default) };
    let refused = |reason| (raw.span(), key, reason);
    let span: Span = raw.get_ref().parse().map_err(|_| refused(Reason::NotADuration))?;
    let micros = span.total((Unit::Microsecond, SpanRelativeTo::days_are_24_hours()));
    let micros = micros.map_err(|_| refused(Reason::NotADuration))?;
    let micros = Some(micros).filter(|micros| (least as f64..=366.0 * DAY as f64).contains(micros));
    micros.map(|micros| micros as i64).ok_or(refused(Reason::OutOfRange("an hour and 366 days")))
}
