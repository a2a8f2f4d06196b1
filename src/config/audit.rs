//! The table `[audit]`: how the log goes by, how often it is signed, how long it is kept, and who else sees its heads.
//! INVARIANT: as for all of the configuration, what is left out has a default and what is wrong is named.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;
use toml::Spanned;

use super::{At, Reason};
use crate::vault::LogKeeping;

/// What a server does about its log.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    pub keeping: LogKeeping,
    /// How often the head is signed, if anything was added.
    pub checkpoint_interval: Duration,
    /// Every signed head is appended here, better on another machine's disk.
    pub witness_file: Option<PathBuf>,
    /// Every signed head is posted here.
    pub witness_url: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAudit {
    name: Option<Spanned<String>>,
    checkpoint_interval: Option<Spanned<String>>,
    keep_years: Option<Spanned<i64>>,
    witness_file: Option<PathBuf>,
    witness_url: Option<Spanned<String>>,
}

const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_YEARS: i16 = 3;

/// The log goes by the trust domain's name where it has none of its own.
pub(super) fn audit(raw: &RawAudit, trust_domain: &str, folder: &Path) -> Result<AuditConfig, At> {
    let name = match &raw.name {
        Some(name) => name.get_ref().parse().map_err(|bad| (name.span(), "audit.name", Reason::LogName(bad)))?,
        None => trust_domain.parse().map_err(|bad| (0..0, "audit.name", Reason::LogName(bad)))?,
    };
    let keep_years = raw.keep_years.as_ref().map_or(Ok(DEFAULT_YEARS), keep_years)?;
    Ok(AuditConfig {
        keeping: LogKeeping { name, keep_years },
        checkpoint_interval: raw.checkpoint_interval.as_ref().map_or(Ok(DEFAULT_INTERVAL), interval)?,
        witness_file: raw.witness_file.as_ref().map(|path| folder.join(path)),
        witness_url: raw.witness_url.as_ref().map(url).transpose()?,
    })
}

fn keep_years(raw: &Spanned<i64>) -> Result<i16, At> {
    let years = i16::try_from(*raw.get_ref()).ok().filter(|years| (1..=100).contains(years));
    years.ok_or((raw.span(), "audit.keep_years", Reason::OutOfRange("1 and 100")))
}

fn interval(raw: &Spanned<String>) -> Result<Duration, At> {
    let refused = |reason| (raw.span(), "audit.checkpoint_interval", reason);
    let parsed: SignedDuration = raw.get_ref().parse().map_err(|_| refused(Reason::NotADuration))?;
    let bounds = SignedDuration::from_secs(1)..=SignedDuration::from_hours(24);
    let within = Some(parsed).filter(|parsed| bounds.contains(parsed)).map(|parsed| parsed.unsigned_abs());
    within.ok_or(refused(Reason::OutOfRange("1s and 24h")))
}

fn url(raw: &Spanned<String>) -> Result<String, At> {
    let uri: Option<http::Uri> = raw.get_ref().parse().ok();
    let is_one = uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if is_one { Ok(raw.get_ref().clone()) } else { Err((raw.span(), "audit.witness_url", Reason::NotAUrl)) }
}
