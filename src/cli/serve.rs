//! `strongroom serve`: a vault behind its door, from a configuration file to a clean stop. INVARIANT: whatever is missing or
//! wrong ends the start with one line that names it; a server that runs holds the store alone, sweeps, and ends only after
//! the calls in flight have had their time.

mod confine;
mod syscalls;
mod keeper;
mod witness;

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use rustix::process::{Resource, umask};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::Failure;
use crate::cli::keys;
use crate::cli::process;
use crate::config::{AuditConfig, Config};
use crate::crypto::entropy::OsEntropy;
use crate::crypto::locked::{self, Memory};
use crate::crypto::root::{RootSource, same_device};
use crate::domain::time::{Clock, SystemClock, Timestamp};
use crate::rpc;
use crate::rpc::listener::{Listener, ListenerConfig, Stop};
use crate::rpc::trust::Trust;
use crate::store::Store;
use crate::telemetry;
use crate::vault::{Confinement, Parts, RootStatus, Vault, days};

/// Serve the vault over mutual TLS until told to stop.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

const HELP: &str = "\
Prints `ready https://ADDRESS` once it serves; logs go where [log] says (stderr without it).

Signals:
  SIGHUP            opens the log file anew (after a rotation), and reads certificates and revocation lists again; a bad
                    set is refused and the old one stays
  SIGTERM, SIGINT   takes no new calls, lets those in flight end (10 s at most), and ends

A whole configuration (relative paths start at the file's folder):
  trust_domain = \"shop.example\"            # the host part of every caller's SPIFFE ID
  sweep_interval = \"5s\"                    # how often the sweeper looks for what is due

  [listen]
  address = \"0.0.0.0:7443\"                 # port 0 takes a free one
  workers = 2                              # default: one a core

  [tls]
  certificate = \"certs/server.pem\"
  key = \"certs/server-key.pem\"
  roots = \"certs/ca.pem\"
  crls = [\"certs/crl.pem\"]

  [data]
  database = \"data/strongroom.db\"
  ledger = \"/other-disk/erasure.ledger\"    # better on another device than the database
  keyring = \"/other-disk/keyring\"          # keep copies: all lost = all data lost
  reserve = \"64MiB\"                        # of disk, kept back so that erasing works when it is full; 0: none

  [root]
  passphrase_file = \"/run/secrets/root\"    # or key_file; on another device than the database,
  allow_same_device = false                # unless this is true

  # [next_root]                            # what `strongroom keys rotate-root` seals the keyring under; after that, move it
  # key_file = \"/run/secrets/next-root\"   # to [root]. A start tries both

  [keys]                                   # W = period + rewrap_within + backups: no backup older than that can be
  period = \"P14D\"                         # opened with the keys of the day; an epoch wraps what is new for so long,
  rewrap_within = \"P2D\"                   # what lies under it is moved to the next one within this,
  backups = \"P14D\"                        # and it is kept for so long, for the backups of those days; then destroyed
  rewrap_budget = 5000                     # rows a second
  copies = [\"/third-disk/keyring\"]        # where the keyring is copied before a new epoch wraps anything

  [log]
  level = \"info\"                           # error, warn, info, debug, trace
  format = \"json\"                          # or text
  # file = \"strongroom.log\"

  [process]
  sandbox = true                           # only the files, ports and system calls that serving takes

  [metrics]                                # left out: none
  address = \"127.0.0.1:9464\"             # Prometheus text at /metrics; other than loopback needs allow_remote = true

  [limits.carrier]                         # of one caller of this role; each may be left out. The usual ones:
  calls_per_second = 500                   #   50000 shop, 1000 warehouse, 500 carrier, 50 people; messages of streams count
  burst = 2000                             #   100000, 4000, 2000, 500
  connections = 64                         #   256, 64, 64, 16
  refusals_per_minute = 300                #   12000, 600, 300, 120 of one certificate; past it, it is locked out:
  misses_per_minute = 120                  #   1200, 120, 120, 60 tokens or serials that nobody has; 10 s, doubling

  [audit]
  name = \"shop.example\"                   # the log's name in its signed heads; default: trust_domain
  checkpoint_interval = \"1m\"              # how often its head is signed
  keep_years = 3                           # a year's entries go so many years after it was closed
  # witness_file = \"/other-machine/heads\"   # every signed head is appended; a log behind it is not served
  # witness_url = \"https://witness.example/heads\"    # and posted

  [[tenant]]
  name = \"kitchenware\"
  policy = \"builtin:kitchenware\"           # or builtin:general, builtin:cross-border, or a policy file's path
  # parameters = { working_days = 5 }      # the shop's own figures; builtin:general needs years

  [[carrier]]
  name = \"swift\"
  serial = '[A-Z]{2}[0-9]{9}'              # what this carrier's parcel numbers look like

  [[anchor]]                               # whom each CA of tls.roots may speak for; left out: all for everyone
  roots = \"certs/ca.pem\"
  tenants = [\"kitchenware\"]
  roles = [\"shop\", \"warehouse\", \"customer-service\", \"finance\", \"operator\", \"auditor\", \"key-admin\",
           \"privacy-officer\", \"carrier\"]

Examples:
  strongroom keys init --config strongroom.toml
  strongroom callers enrol --help          # nobody comes in before being enrolled
  strongroom serve --config strongroom.toml
  kill -HUP $(pidof strongroom)            # after a certificate or a revocation list was renewed";

pub fn run(args: Args) -> Result<(), Failure> {
    let config = load(&args.config)?;
    telemetry::init(&config.log).map_err(|error| failed("cannot start the log", &error))?;
    run_server(config, |running| writeln!(io::stdout(), "ready https://{}", running.address))
}

/// Serves by the machine's clock until SIGTERM or SIGINT; `ready` is called once callers can connect.
pub fn run_server(config: Config, ready: impl FnOnce(&Running) -> io::Result<()>) -> Result<(), Failure> {
    let confinement = prepare_process(&config)?;
    let runtime = runtime().map_err(|error| failed("cannot start a runtime", &error))?;
    // Before the start, so that a signal during it is not lost.
    let signals = runtime.block_on(async { Signals::watch() });
    let signals = signals.map_err(|error| failed("cannot watch for signals", &error))?;
    let running = Running::start_with(config, Arc::new(SystemClock::new()), Some(confinement))?;
    ready(&running).map_err(|error| failed("cannot print that the server is ready", &error))?;
    runtime.block_on(running.attend(signals));
    running.stop()
}

/// Files that SQLite makes are for our eyes alone; descriptors as many as the machine allows, as every caller takes one. Then
/// the sandbox: before the first key is here, and before the first thread, which would stay outside.
fn prepare_process(config: &Config) -> Result<Confinement, Failure> {
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    if !process::raise(Resource::Nofile) {
        tracing::warn!("cannot raise the limit of open files; fewer callers can connect at once");
    }
    if config.sandbox {
        confine::confine(&confine::needs(config))
    } else {
        Ok(Confinement { no_core: process::leaves_no_core(), ..Confinement::default() })
    }
}

/// What protects keys less than it should in a process that serves.
fn weaknesses(confinement: &Confinement, asked: bool) -> Vec<String> {
    let memory = match locked::weakest() {
        Memory::Secret => None,
        Memory::Locked => {
            Some("keys lie in locked memory, which root's debugger reads: this kernel gives no memfd_secret")
        }
        Memory::Ordinary => Some("keys lie in ordinary memory: raise the limit of locked memory (LimitMEMLOCK)"),
    };
    let weak = [
        (!confinement.no_core, "a crash may write a core: the process could not be made undumpable"),
        (!asked, "process.sandbox = false: the server may open any file and run any program that its user may"),
        (
            asked && confinement.landlock_abi == 0,
            "this kernel has no Landlock: the server may open any file of its user",
        ),
        (asked && !confinement.seccomp, "this kernel has no seccomp filters: the server may make any system call"),
    ];
    let weak = weak.into_iter().filter_map(|(is_so, words)| is_so.then_some(words));
    memory.into_iter().chain(weak).map(str::to_owned).collect()
}

struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// To be called inside a runtime.
    fn watch() -> io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// A server at work. Dropped without `stop`, it is told to end and not waited for.
pub struct Running {
    pub address: SocketAddr,
    /// Where metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
    pub vault: Vault,
    trust: Arc<Trust>,
    stop: Stop,
    threads: Vec<JoinHandle<io::Result<()>>>,
    audit: AuditConfig,
}

impl Running {
    /// Opens everything and serves in this process as it is. Retention goes by `clock`, which may be simulated; certificates
    /// always go by the machine's. To be called outside any runtime.
    pub fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        Self::start_with(config, clock, None)
    }

    /// `confinement`: what was done to this process, if it is the server's own.
    fn start_with(config: Config, clock: Arc<dyn Clock>, confinement: Option<Confinement>) -> Result<Self, Failure> {
        // The first phone number must not wait for the numbering plans.
        crate::domain::field::phone::warm();
        let trust = Trust::load(config.trust.clone()).map_err(|error| failed("cannot use the certificates", &error))?;
        let mut root = root_status(&config)?;
        if config.trust.anchors.is_empty() {
            root.warnings
                .push("no [[anchor]] is configured: every CA in tls.roots may speak for every tenant and role".into());
        }
        let (keyring, under_next) = keys::unlock_either(&config)?;
        if under_next {
            root.warnings.push("the keyring is sealed under [next_root]: move it to [root]".into());
        }
        keys::settle_copies(&config, &keyring, &OsEntropy)?;
        if let Some(confinement) = confinement {
            let weaknesses = weaknesses(&confinement, config.sandbox);
            weaknesses.iter().for_each(|weakness| tracing::warn!("{weakness}"));
            root.warnings.extend(weaknesses);
            root.confinement = confinement;
        }
        let door = ListenerConfig { limits: config.limits.clone(), ..config.listener };
        let listener =
            Listener::bind(&door).map_err(|error| failed(&format!("cannot listen on {}", door.address), &error))?;
        let metrics = config.metrics.map(Metrics::bind).transpose()?;
        let store = Store::open_reserving(&config.store, config.reserve, Arc::new(keyring), Arc::clone(&clock))
            .map_err(|error| failed(&format!("cannot open the store {}", config.store.database.display()), &error))?;
        if let Some(path) = &config.audit.witness_file {
            witness::check(path, &store)?;
        }
        let parts = Parts {
            store,
            policies: config.policies,
            serial_patterns: config.serial_patterns,
            clock,
            entropy: Arc::new(OsEntropy),
            root,
            limits: config.limits,
            keys: config.keys,
            log: config.audit.keeping.clone(),
        };
        let opened = runtime().map(|runtime| runtime.block_on(Vault::open(parts)));
        let vault = opened
            .map_err(|error| failed("cannot start a runtime", &error))?
            .map_err(|error| failed("cannot take the store into service", &error))?;
        if !vault.has_callers() {
            tracing::warn!(
                "nobody is enrolled, so nobody comes in; `strongroom callers enrol --config FILE` enrols the first"
            );
        }
        let (address, audit) = (listener.local_addr(), config.audit);
        let mut running = Self {
            address,
            metrics: metrics.as_ref().map(|metrics| metrics.address),
            vault,
            trust,
            stop: Stop::new(),
            threads: Vec::new(),
            audit,
        };
        let first =
            running.first_sweep(config.sweep_interval).map_err(|error| failed("cannot start a runtime", &error))?;
        running
            .spawn(listener, metrics, first, config.sweep_interval)
            .map_err(|error| failed("cannot start a thread", &error))?;
        tracing::info!(address = %running.address, "serving");
        if let Some(address) = running.metrics {
            tracing::info!(%address, "serving metrics");
        }
        Ok(running)
    }

    /// Opens the log file anew, then reads certificates and revocation lists again; on any error what is in use stays.
    pub fn reload(&self) {
        if let Err(error) = telemetry::reopen_log() {
            tracing::error!(reason = told(&error), "the log goes on where it was");
        }
        match self.trust.reload(SystemClock::new().now()) {
            Ok(generation) => tracing::info!(generation, "certificates and revocation lists were read again"),
            Err(error) => {
                let reason = told(&error);
                tracing::error!(reason, "certificates and revocation lists stay as they were: the new ones are bad");
            }
        }
    }

    /// Lets calls in flight end, closes the store, and tells what went wrong on the way.
    pub fn stop(mut self) -> Result<(), Failure> {
        self.stop.trigger();
        let mut ended = Ok(());
        for thread in self.threads.drain(..) {
            let result = thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the server panicked")));
            ended = ended.and(result);
        }
        let told = runtime().map(|runtime| runtime.block_on(self.vault.tell_lock_outs()));
        if !matches!(told, Ok(Ok(()))) {
            tracing::warn!("refusals past a lock-out were counted and could not be logged");
        }
        ended = ended.and(keeper::last_head(&self.vault, &self.audit));
        tracing::info!("stopped");
        ended.map_err(|error| failed("the server ended badly", &error))
    }

    /// One step of the sweeper before anyone is served; answers when the next one is wanted.
    fn first_sweep(&self, interval: Duration) -> io::Result<Duration> {
        let swept = runtime()?.block_on(self.vault.sweep());
        let more = swept.unwrap_or_else(|error| {
            tracing::error!(reason = told(&error), "the sweeper could not destroy what is due");
            crate::vault::Swept::default()
        });
        Ok(if more.more { Duration::ZERO } else { interval })
    }

    fn spawn(
        &mut self,
        listener: Listener,
        metrics: Option<Metrics>,
        first: Duration,
        sweep_interval: Duration,
    ) -> io::Result<()> {
        let (vault, stop) = (self.vault.clone(), self.stop.clone());
        self.thread("sweeper", move || sweep(&vault, first, sweep_interval, &stop))?;
        let (vault, stop) = (self.vault.clone(), self.stop.clone());
        self.thread("keeper", move || keep(&vault, sweep_interval, &stop))?;
        let (vault, audit, stop) = (self.vault.clone(), self.audit.clone(), self.stop.clone());
        self.thread("log-keeper", move || keeper::keep(&vault, &audit, &stop))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        if let Some(Metrics { socket, handle, .. }) = metrics {
            let (vault, trust, clock, stop) =
                (self.vault.clone(), Arc::clone(&self.trust), Arc::clone(&clock), self.stop.clone());
            let measure = Arc::new(move || measure(&vault, &trust, clock.now()));
            self.thread("metrics", move || telemetry::metrics::serve(socket, handle, measure, &stop))?;
        }
        let watch: rpc::Watch = Arc::new(|| telemetry::log_warning().into_iter().collect());
        let routes = rpc::services(self.vault.clone(), Arc::clone(&self.trust), Arc::clone(&clock), watch);
        let (trust, stop) = (Arc::clone(&self.trust), self.stop.clone());
        self.thread("listener", move || listener.serve(trust, clock, routes, stop))
    }

    /// Runs `work` beside the others; when one ends, for whatever reason, all are told to.
    fn thread(&mut self, name: &str, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        struct EndsAll(Stop);
        impl Drop for EndsAll {
            fn drop(&mut self) {
                self.0.trigger();
            }
        }
        let ends_all = EndsAll(self.stop.clone());
        let work = move || {
            let _ends_all = ends_all;
            work()
        };
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(work)?);
        Ok(())
    }

    /// Does what signals ask for, until one asks to end or a thread of the server has ended by itself.
    async fn attend(&self, mut signals: Signals) {
        loop {
            tokio::select! {
                _ = signals.reload.recv() => self.reload(),
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                () = self.stop.wait() => break,
            }
        }
        tracing::info!("stopping: calls in flight may end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.trigger();
    }
}

/// Metrics that nobody is served yet.
struct Metrics {
    socket: std::net::TcpListener,
    address: SocketAddr,
    handle: PrometheusHandle,
}

impl Metrics {
    fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let bound = || {
            let socket = std::net::TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok((socket.local_addr()?, socket))
        };
        let what = || format!("cannot serve metrics on {address}");
        let (address, socket) = bound().map_err(|error: io::Error| failed(&what(), &error))?;
        let handle = telemetry::metrics::install().map_err(|error| failed(&what(), &error))?;
        Ok(Self { socket, address, handle })
    }
}

/// Sets all gauges, before somebody looks.
fn measure(vault: &Vault, trust: &Trust, now: Timestamp) {
    if let Err(error) = vault.measure(now) {
        tracing::warn!(reason = told(&error), "the store cannot be measured");
    }
    let (own, list) = trust.validities();
    for (name, validity) in [("strongroom_server_certificate_days_left", own), ("strongroom_crl_days_left", list)] {
        if let Some(validity) = validity {
            days(name, None, validity.until, now);
        }
    }
    let warnings =
        trust.warnings(now).len() + vault.certificate_warnings(now) + usize::from(telemetry::log_warning().is_some());
    metrics::gauge!("strongroom_warnings").set(u32::try_from(warnings).unwrap_or(u32::MAX));
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Destroys what is due, chunk by chunk, after `first` and at every interval. An error waits for the next interval: the store may
/// recover, and what is due stays unreadable meanwhile.
fn sweep(vault: &Vault, first: Duration, interval: Duration, stop: &Stop) -> io::Result<()> {
    runtime()?.block_on(async {
        let stopped = stop.wait();
        tokio::pin!(stopped);
        let mut pause = first;
        loop {
            // Between two steps, never within one.
            tokio::select! {
                biased;
                () = &mut stopped => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = interval;
            match vault.sweep().await {
                Ok(swept) => {
                    if swept.destroyed > 0 {
                        tracing::info!(destroyed = swept.destroyed, "records were destroyed: their retention was over");
                    }
                    if swept.staged > 0 {
                        tracing::info!(staged = swept.staged, "records go on without what was over of them");
                    }
                    if swept.more {
                        pause = Duration::ZERO;
                    }
                }
                Err(error) => tracing::error!(reason = told(&error), "the sweeper could not destroy what is due"),
            }
            if let Some(why) = vault.store().poisoned() {
                // Whoever supervises us starts us again, and the start recovers.
                return Err(io::Error::other(format!("the store refuses until a restart: {why}")));
            }
        }
    })
}

/// Keeps the keys: at the start, at every interval, and when somebody orders it. A stop may come within a step: whatever is begun
/// is found and finished by the next start.
fn keep(vault: &Vault, interval: Duration, stop: &Stop) -> io::Result<()> {
    runtime()?.block_on(async {
        let stopped = stop.wait();
        tokio::pin!(stopped);
        let mut pause = Duration::ZERO;
        loop {
            let step = async {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = vault.keys_wanted() => {}
                }
                vault.keep_keys().await
            };
            let kept = tokio::select! {
                biased;
                () = &mut stopped => return Ok(()),
                kept = step => kept,
            };
            pause = match kept {
                Ok(kept) if kept.more => Duration::ZERO,
                Ok(_) => interval,
                Err(error) => {
                    tracing::error!(reason = told(&error), "the keys could not be kept as planned");
                    interval
                }
            };
        }
    })
}

/// Refuses a root beside the database, unless that was allowed; then the operator's status says so.
fn root_status(config: &Config) -> Result<RootStatus, Failure> {
    let (kind, path) = match &config.root {
        RootSource::PassphraseFile { path } => ("passphrase file", path),
        RootSource::KeyFile { path } => ("key file", path),
    };
    let beside = same_device(existing(&config.store.database), path).map_err(|error| {
        failed(&format!("cannot look at the {kind} {} and the database's folder", path.display()), &error)
    })?;
    let mut warnings = Vec::new();
    if beside {
        let what = format!("the {kind} lies on the database's device: whoever takes that disk can open all data");
        if !config.allow_same_device {
            let advice = "put it elsewhere, or set root.allow_same_device = true";
            return Err(Failure::local(format!("{what}; {advice}")));
        }
        warnings.push(what);
    }
    if cfg!(feature = "planted") {
        warnings.push("this build can be told to break its promises (feature `planted`): use it for tests only".into());
    }
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(RootStatus { source: kind.to_owned(), warnings, ..RootStatus::default() })
}

/// The path, or the folder that it will be made in.
fn existing(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.exists() { path } else { folder }
}

pub(super) fn load(config: &Path) -> Result<Config, Failure> {
    Config::load(config).map_err(|error| Failure::usage(error.to_string()))
}

/// What failed on this machine, with all its causes in one line.
pub(super) fn failed(what: &str, error: &dyn Error) -> Failure {
    Failure::local(format!("{what}: {}", told(error)))
}

/// An error and its sources, each said once.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
