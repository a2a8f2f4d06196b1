//! The server's configuration: `RawConfig` is what the file says, `Config` what it means. INVARIANT: a `Config` is whole and
//! free of contradictions, or the file is refused with line, key and reason; secrets are named by path, never written inline.

mod keys;
mod audit;
mod root;
mod webhook;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;
use toml::Spanned;

use crate::audit::checkpoint::BadLogName;
use crate::crypto::root::{BadAddress, BadCredentialName, BadSplit, RootSource};
use crate::domain::caller::Role;
use crate::domain::field::{BadPattern, SerialPattern};
use crate::domain::id::{BadName, CallerName, TenantId};
use crate::policy::limits::Limits;
use crate::policy::retention::{Parameters, Policy, PolicyError};
use crate::rpc::listener::ListenerConfig;
use crate::rpc::trust::{AnchorFile, TrustFiles};
use crate::store::StorePaths;
use crate::telemetry::{Format, Level, LogConfig};
use crate::vault::KeySettings;

pub use audit::AuditConfig;
use root::{RawRoot, root};
pub use webhook::{BadWebhookUrl, WebhookConfig, WebhookUrl};

/// All that a server needs to start.
#[derive(Clone, Debug)]
pub struct Config {
    pub listener: ListenerConfig,
    pub trust: TrustFiles,
    pub store: StorePaths,
    pub keyring: PathBuf,
    pub root: RootSource,
    /// Whether the root may lie on the database's device, where one theft takes both.
    pub allow_same_device: bool,
    pub policies: BTreeMap<TenantId, Policy>,
    pub serial_patterns: BTreeMap<CallerName, SerialPattern>,
    pub log: LogConfig,
    /// Where backups are made, if anywhere.
    pub backups: Option<PathBuf>,
    /// Bytes kept back on each of the store's disks, so that a full one can still erase.
    pub reserve: u64,
    pub limits: Limits,
    /// Where metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
    /// How often the sweeper looks for records that are due.
    pub sweep_interval: Duration,
    /// Whether a server of this configuration is confined to the files, ports and system calls that it needs.
    pub sandbox: bool,
    /// How the keyring and its epochs are kept.
    pub keys: KeySettings,
    pub audit: AuditConfig,
    pub webhooks: Vec<WebhookConfig>,
}

/// Why a configuration is refused, and where.
#[derive(Debug)]
pub struct ConfigError {
    pub file: PathBuf,
    /// From 1; absent when the file could not be read at all.
    pub line: Option<usize>,
    /// The key in dotted form; empty when the parser's words name it.
    pub key: &'static str,
    pub reason: Reason,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ", {}", self.key)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ConfigError {}

#[derive(Debug, thiserror::Error)]
pub enum Reason {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// No TOML, a key that no configuration has, a key missing or given twice; in the parser's own words.
    #[error("{0}")]
    Shape(String),
    #[error("is no IP address with a port, like 127.0.0.1:7443 or [::]:7443")]
    NotAnAddress,
    #[error("is no trust domain: 1 to 255 characters of a-z, 0-9, '.', '-' and '_'")]
    NotATrustDomain,
    #[error("is not between {0}")]
    OutOfRange(&'static str),
    #[error("is less than {0}")]
    TooShort(&'static str),
    #[error("is no duration, like 5s, 1m or PT5S")]
    NotADuration,
    #[error("name exactly one of passphrase_file, key_file, credential, transit, pkcs11, aws_kms and shares")]
    OneRoot,
    #[error("holds the keyring, a copy of it or the root, which must never lie where backups do")]
    KeysAmongBackups,
    #[error("is no size, like 64MiB or 1GiB, or 0 for none")]
    NotASize,
    #[error(
        "is reachable from other machines, without a password and in the clear; set allow_remote = true if that is meant"
    )]
    RemoteMetrics,
    #[error(transparent)]
    Credential(#[from] BadCredentialName),
    #[error(transparent)]
    Address(#[from] BadAddress),
    #[error(transparent)]
    Split(#[from] BadSplit),
    #[error(
        "is no plain name: 1 to {0} printable characters, and for a path's part only A-Z, a-z, 0-9, '.', '-' and '_'"
    )]
    NotPlain(usize),
    #[error("this build cannot ask AWS KMS: build it with `--features aws-kms`")]
    NoKms,
    #[error(transparent)]
    Name(#[from] BadName),
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    #[error("is given twice")]
    Twice,
    #[error(
        "is no role; the roles are shop, carrier, warehouse, customer-service, finance, privacy-officer, operator, \
             auditor, key-admin"
    )]
    NotARole,
    #[error(transparent)]
    LogName(#[from] BadLogName),
    #[error("is no http:// or https:// address")]
    NotAUrl,
    #[error(transparent)]
    WebhookUrl(#[from] BadWebhookUrl),
    #[error("is no tenant of this configuration")]
    NoSuchTenant,
    #[error("is nothing that a webhook hears of; there are: erased and due_soon")]
    NotATopic,
    #[error("goes with the event due_soon, and that with it")]
    DueSoonDays,
    #[error("no tenant is given: nobody could be served")]
    NoTenant,
    #[error("is no policy of this build; there are: builtin:kitchenware, builtin:general, builtin:cross-border")]
    NotBuiltin,
    #[error("{}: {source}", path.display())]
    Policy { path: PathBuf, source: Box<PolicyError> },
    #[error("{}: cannot be read: {source}", path.display())]
    PolicyUnreadable { path: PathBuf, source: io::Error },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    trust_domain: Spanned<String>,
    sweep_interval: Option<Spanned<String>>,
    #[serde(default)]
    listen: RawListen,
    tls: RawTls,
    data: RawData,
    root: Spanned<RawRoot>,
    next_root: Option<Spanned<RawRoot>>,
    #[serde(default)]
    keys: keys::RawKeys,
    #[serde(default)]
    log: RawLog,
    #[serde(default)]
    process: RawProcess,
    #[serde(default)]
    limits: BTreeMap<Spanned<String>, RawLimit>,
    metrics: Option<RawMetrics>,
    #[serde(default)]
    audit: audit::RawAudit,
    tenant: Vec<RawTenant>,
    #[serde(default)]
    carrier: Vec<RawCarrier>,
    #[serde(default)]
    anchor: Vec<RawAnchor>,
    #[serde(default)]
    webhook: Vec<webhook::RawWebhook>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawListen {
    address: Option<Spanned<String>>,
    workers: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    certificate: PathBuf,
    key: PathBuf,
    roots: PathBuf,
    crls: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawData {
    database: PathBuf,
    ledger: PathBuf,
    keyring: PathBuf,
    backups: Option<Spanned<PathBuf>>,
    reserve: Option<Spanned<String>>,
}

/// Of one role; what is left out is as usual.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawLimit {
    calls_per_second: Option<Spanned<i64>>,
    burst: Option<Spanned<i64>>,
    connections: Option<Spanned<i64>>,
    refusals_per_minute: Option<Spanned<i64>>,
    misses_per_minute: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMetrics {
    address: Spanned<String>,
    #[serde(default)]
    allow_remote: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawLog {
    #[serde(default)]
    level: Level,
    #[serde(default)]
    format: Format,
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawProcess {
    sandbox: bool,
}

impl Default for RawProcess {
    fn default() -> Self {
        Self { sandbox: true }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTenant {
    name: Spanned<String>,
    policy: Spanned<String>,
    /// The shop's own figures for the policy's parameters.
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCarrier {
    name: Spanned<String>,
    serial: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAnchor {
    roots: PathBuf,
    tenants: Vec<Spanned<String>>,
    roles: Vec<Spanned<String>>,
}

/// The bytes of the file that a reason is about, and the key they belong to.
type At = (Range<usize>, &'static str, Reason);

const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7443);
const DEFAULT_SWEEP: Duration = Duration::from_secs(5);
const MIB: u64 = 1 << 20;
const DEFAULT_RESERVE: u64 = 64 * MIB;

impl Config {
    /// Reads a configuration file and the policies it names. Relative paths start at the file's folder.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let error = |line, key, reason| ConfigError { file: file.to_owned(), line, key, reason };
        let text = std::fs::read_to_string(file).map_err(|source| error(None, "", Reason::Unreadable(source)))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        parse(&text, folder).map_err(|(span, key, reason)| error(Some(line(&text, span.start)), key, reason))
    }
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn parse(text: &str, folder: &Path) -> Result<Config, At> {
    let raw: RawConfig = toml::from_str(text)
        .map_err(|error| (error.span().unwrap_or(0..0), "", Reason::Shape(error.message().to_owned())))?;
    let path = |path: PathBuf| folder.join(path);
    let allow_same_device = raw.root.get_ref().allow_same_device;
    let keyring = path(raw.data.keyring);
    let trust_domain = trust_domain(raw.trust_domain)?;
    let audit = audit::audit(&raw.audit, &trust_domain, folder)?;
    let root = root(raw.root, folder)?;
    let keys = keys::keys(&raw.keys, raw.next_root, keyring.clone(), folder)?;
    let backups = raw.data.backups.map(|raw| backups(&raw, folder, &keys, &root)).transpose()?;
    // A PKCS#11 module is foreign code: it loads libraries and opens files and devices of its own choosing.
    let is_foreign = |root: &RootSource| matches!(root, RootSource::Pkcs11(_));
    let sandbox = raw.process.sandbox && !is_foreign(&root) && !keys.next_root.as_ref().is_some_and(is_foreign);
    let policies = policies(&raw.tenant, folder)?;
    let webhooks = webhook::webhooks(raw.webhook, folder, |tenant| policies.contains_key(tenant))?;
    Ok(Config {
        keys,
        listener: listener(&raw.listen)?,
        trust: TrustFiles {
            certificate: path(raw.tls.certificate),
            key: path(raw.tls.key),
            roots: path(raw.tls.roots),
            crls: raw.tls.crls.into_iter().map(path).collect(),
            trust_domain,
            anchors: anchors(&raw.anchor, folder)?,
        },
        backups,
        reserve: raw.data.reserve.as_ref().map_or(Ok(DEFAULT_RESERVE), reserve)?,
        limits: limits(&raw.limits)?,
        metrics: raw.metrics.as_ref().map(metrics).transpose()?,
        store: StorePaths { database: path(raw.data.database), ledger: path(raw.data.ledger) },
        keyring,
        root,
        allow_same_device,
        policies,
        serial_patterns: serial_patterns(&raw.carrier)?,
        log: LogConfig { level: raw.log.level, format: raw.log.format, file: raw.log.file.map(path) },
        sweep_interval: raw.sweep_interval.map_or(Ok(DEFAULT_SWEEP), |raw| sweep_interval(&raw))?,
        sandbox,
        audit,
        webhooks,
    })
}

/// SECURITY: whoever takes the backups away takes the whole folder, and what opens them must not lie in it.
fn backups(raw: &Spanned<PathBuf>, folder: &Path, keys: &KeySettings, root: &RootSource) -> Result<PathBuf, At> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let backups = folder.join(raw.get_ref());
    let roots = [Some(root), keys.next_root.as_ref()].into_iter().flatten().filter_map(RootSource::path);
    let mut keys = keys.places.file.iter().chain(&keys.places.copies).cloned().chain(roots);
    match keys.any(|key| key.starts_with(&backups) || real(&key).starts_with(real(&backups))) {
        true => Err((raw.span(), "data.backups", Reason::KeysAmongBackups)),
        false => Ok(backups),
    }
}

fn listener(raw: &RawListen) -> Result<ListenerConfig, At> {
    let mut listener = ListenerConfig { address: DEFAULT_ADDRESS, ..ListenerConfig::default() };
    if let Some(raw) = &raw.address {
        let refused = |_| (raw.span(), "listen.address", Reason::NotAnAddress);
        listener.address = raw.get_ref().parse().map_err(refused)?;
    }
    if let Some(raw) = &raw.workers {
        let workers = usize::try_from(*raw.get_ref()).ok().filter(|workers| (1..=1024).contains(workers));
        listener.workers = workers.ok_or((raw.span(), "listen.workers", Reason::OutOfRange("1 and 1024")))?;
    }
    Ok(listener)
}

/// The SPIFFE-ID standard's grammar, §2.1.
fn trust_domain(raw: Spanned<String>) -> Result<String, At> {
    let is_of_the_grammar = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let domain = raw.get_ref();
    if !(1..=255).contains(&domain.len()) || !domain.bytes().all(is_of_the_grammar) {
        return Err((raw.span(), "trust_domain", Reason::NotATrustDomain));
    }
    Ok(raw.into_inner())
}

fn policies(raw: &[RawTenant], folder: &Path) -> Result<BTreeMap<TenantId, Policy>, At> {
    let mut policies = BTreeMap::new();
    for tenant in raw {
        let name = name::<TenantId>(&tenant.name, "tenant.name")?;
        let policy = policy(tenant.policy.get_ref(), folder, &tenant.parameters)
            .map_err(|reason| (tenant.policy.span(), "tenant.policy", reason))?;
        if policies.insert(name, policy).is_some() {
            return Err((tenant.name.span(), "tenant.name", Reason::Twice));
        }
    }
    if policies.is_empty() { Err((0..0, "tenant", Reason::NoTenant)) } else { Ok(policies) }
}

/// A policy by its file, or one of the build's own by name, with the shop's own figures in it.
pub fn policy(named: &str, folder: &Path, parameters: &Parameters) -> Result<Policy, Reason> {
    let (path, text) = policy_text(named, folder)?;
    Policy::parse_with(&text, parameters).map_err(|source| Reason::Policy { path, source: Box::new(source) })
}

/// A policy's text as it stands, and where it is from.
pub fn policy_text(named: &str, folder: &Path) -> Result<(PathBuf, String), Reason> {
    if let Some(name) = named.strip_prefix("builtin:") {
        let builtin = Policy::BUILTIN.iter().find(|(known, _)| *known == name);
        return builtin.map(|(_, text)| (named.into(), (*text).to_owned())).ok_or(Reason::NotBuiltin);
    }
    let path = folder.join(named);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(source) => Err(Reason::PolicyUnreadable { path, source }),
    }
}

fn serial_patterns(raw: &[RawCarrier]) -> Result<BTreeMap<CallerName, SerialPattern>, At> {
    let mut patterns = BTreeMap::new();
    for carrier in raw {
        let name = name::<CallerName>(&carrier.name, "carrier.name")?;
        let refused = |bad: BadPattern| (carrier.serial.span(), "carrier.serial", Reason::from(bad));
        if patterns.insert(name, carrier.serial.get_ref().parse().map_err(refused)?).is_some() {
            return Err((carrier.name.span(), "carrier.name", Reason::Twice));
        }
    }
    Ok(patterns)
}

fn anchors(raw: &[RawAnchor], folder: &Path) -> Result<Vec<AnchorFile>, At> {
    let anchor = |raw: &RawAnchor| {
        let tenants = raw.tenants.iter().map(|tenant| name(tenant, "anchor.tenants")).collect::<Result<_, At>>()?;
        let role =
            |raw: &Spanned<String>| Role::parse(raw.get_ref()).ok_or((raw.span(), "anchor.roles", Reason::NotARole));
        let roles = raw.roles.iter().map(role).collect::<Result<_, At>>()?;
        Ok(AnchorFile { roots: folder.join(&raw.roots), tenants, roles })
    };
    raw.iter().map(anchor).collect()
}

fn name<T: std::str::FromStr<Err = BadName>>(raw: &Spanned<String>, key: &'static str) -> Result<T, At> {
    raw.get_ref().parse().map_err(|bad: BadName| (raw.span(), key, bad.into()))
}

fn reserve(raw: &Spanned<String>) -> Result<u64, At> {
    let refused = |reason| (raw.span(), "data.reserve", reason);
    let text = raw.get_ref().trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..) {
        Some("MiB") => MIB,
        Some("GiB") => 1024 * MIB,
        // Nothing is nothing in any unit.
        Some("") if digits == "0" => 1,
        _ => return Err(refused(Reason::NotASize)),
    };
    let number: u64 = digits.trim_end().parse().map_err(|_| refused(Reason::NotASize))?;
    let bytes = number.checked_mul(unit).filter(|bytes| *bytes <= 1024 * 1024 * MIB);
    bytes.ok_or(refused(Reason::OutOfRange("0 and 1024GiB")))
}

fn limits(raw: &BTreeMap<Spanned<String>, RawLimit>) -> Result<Limits, At> {
    raw.iter().try_fold(Limits::default(), |limits, (name, raw)| {
        let role = Role::parse(name.get_ref()).ok_or((name.span(), "limits", Reason::NotARole))?;
        let mut limit = limits.of(role);
        let parts = [
            (&raw.calls_per_second, &mut limit.calls_per_second, "limits.calls_per_second"),
            (&raw.burst, &mut limit.burst, "limits.burst"),
            (&raw.connections, &mut limit.connections, "limits.connections"),
            (&raw.refusals_per_minute, &mut limit.refusals_per_minute, "limits.refusals_per_minute"),
            (&raw.misses_per_minute, &mut limit.misses_per_minute, "limits.misses_per_minute"),
        ];
        for (raw, part, key) in parts {
            let Some(raw) = raw else { continue };
            let number = u32::try_from(*raw.get_ref()).ok().filter(|number| (1..=1_000_000).contains(number));
            *part = number.ok_or((raw.span(), key, Reason::OutOfRange("1 and 1000000")))?;
        }
        Ok(limits.with(role, limit))
    })
}

fn metrics(raw: &RawMetrics) -> Result<SocketAddr, At> {
    let refused = |reason| (raw.address.span(), "metrics.address", reason);
    let address: SocketAddr = raw.address.get_ref().parse().map_err(|_| refused(Reason::NotAnAddress))?;
    if address.ip().is_loopback() || raw.allow_remote { Ok(address) } else { Err(refused(Reason::RemoteMetrics)) }
}

fn sweep_interval(raw: &Spanned<String>) -> Result<Duration, At> {
    let refused = |reason| (raw.span(), "sweep_interval", reason);
    let parsed: SignedDuration = raw.get_ref().parse().map_err(|_| refused(Reason::NotADuration))?;
    let bounds = SignedDuration::from_millis(100)..=SignedDuration::from_mins(1);
    let within = Some(parsed).filter(|parsed| bounds.contains(parsed)).map(|parsed| parsed.unsigned_abs());
    within.ok_or(refused(Reason::OutOfRange("100ms and 1m: what is due must go at once")))
}

#[cfg(test)]
mod tests;
