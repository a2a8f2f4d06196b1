//! `strongroom serve`: a vault behind its door, from a configuration file to a clean stop. INVARIANT: whatever is missing or
//! wrong ends the start with one line that names it; a server that runs holds the store alone, sweeps, and ends only after
//! the calls in flight have had their time.

mod announcer;
mod beside;
mod confine;
mod keeper;
mod log_keeper;
mod metrics;
mod syscalls;
mod witness;

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::process::{Resource, umask};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::Failure;
use crate::cli::process;
use crate::config::{AuditConfig, Config};
use crate::crypto::locked::{self, Memory};
use crate::crypto::root::same_device;
use crate::domain::time::{Clock, SystemClock};
use crate::rpc::listener::{Listener, ListenerConfig, Stop};
use crate::rpc::seal::Switch;
use crate::rpc::trust::Trust;
use crate::telemetry;
use crate::vault::{Confinement, RootStatus, Vault};
use keeper::Keeper;
pub(super) use keeper::parts;
use metrics::{Metrics, measure};

/// Serve the vault over mutual TLS until told to stop.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

const HELP: &str = "\
Prints `ready https://ADDRESS` once it serves, or `sealed https://ADDRESS` where it waits for the shares of its root key; logs
go where [log] says (stderr without it).

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
  backups = \"/backups\"                    # where `strongroom backup` copies the database to; must be there; left out: none
  reserve = \"64MiB\"                        # of disk, kept back so that erasing works when it is full; 0: none

  [root]
  passphrase_file = \"/run/secrets/root\"    # or one of the sources below; a file on another device than
  allow_same_device = false                # the database, unless this is true

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

  # [[webhook]]                            # who is told what becomes of a tenant's records: `strongroom webhooks --help`
  # name = \"shop\"
  # tenant = \"kitchenware\"
  # url = \"https://shop.example/strongroom\"        # https, or http on this machine; no redirect is followed
  # secret_file = \"/run/secrets/webhook\"           # from `strongroom webhooks secret`
  # events = [\"erased\", \"due_soon\"]
  # due_soon_days = 7                      # with due_soon: how long beforehand
  # dead_letters = \"dead-letters.jsonl\"  # what was not taken within give_up_after
  # ca = \"shop-ca.pem\"                   # default: the machine's CAs
  # first_retry = \"1s\"                   # doubles, up to an hour
  # give_up_after = \"72h\"

  [[carrier]]
  name = \"swift\"
  serial = '[A-Z]{2}[0-9]{9}'              # what this carrier's parcel numbers look like

  [[anchor]]                               # whom each CA of tls.roots may speak for; left out: all for everyone
  roots = \"certs/ca.pem\"
  tenants = [\"kitchenware\"]
  roles = [\"shop\", \"warehouse\", \"customer-service\", \"finance\", \"operator\", \"auditor\", \"key-admin\",
           \"privacy-officer\", \"carrier\"]

Where else the root key may come from (in [root], exactly one; secrets by path alone):
  key_file = \"/run/secrets/root.key\"       # 32 bytes or 64 hexadecimal digits, mode 0600
  credential = \"root\"                      # a systemd credential: LoadCredentialEncrypted=root
  transit = { address = \"https://bao.example:8200\", key = \"strongroom\", token_file = \"/run/secrets/bao\", ca = \"bao.pem\" }
                                           # OpenBao or Vault; also: mount (\"transit\"), namespace
  pkcs11 = { module = \"/usr/lib/softhsm/libsofthsm2.so\", token = \"vault\", key = \"root\", pin_file = \"/run/secrets/pin\" }
  aws_kms = { key_id = \"alias/strongroom\", region = \"eu-central-1\" }   # builds with `--features aws-kms`
  shares = { shares = 5, threshold = 3 }   # split among people: the server starts sealed, see `strongroom unseal --help`

Examples:
  strongroom keys init --config strongroom.toml
  strongroom callers enrol --help          # nobody comes in before being enrolled
  strongroom serve --config strongroom.toml
  systemctl kill -s HUP --kill-whom=main strongroom      # after a certificate or a revocation list was renewed";

pub fn run(args: Args) -> Result<(), Failure> {
    let config = load(&args.config)?;
    telemetry::init(&config.log).map_err(|error| failed("cannot start the log", &error))?;
    run_server(config, |running| {
        let how = if running.vault().is_some() { "ready" } else { "sealed" };
        writeln!(io::stdout(), "{how} https://{}", running.address)
    })
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
        (
            !asked,
            "not confined (process.sandbox = false, or a PKCS#11 module to load): the server may open any file and run \
             any program that its user may",
        ),
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
    trust: Arc<Trust>,
    switch: Switch,
    stop: Stop,
    threads: Vec<JoinHandle<io::Result<()>>>,
    audit: AuditConfig,
}

impl Running {
    /// Opens everything and serves in this process as it is; where the root is split, serves sealed until its shares have come.
    /// Retention goes by `clock`, which may be simulated; certificates always go by the machine's. To be called outside any
    /// runtime.
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
        let door = ListenerConfig { limits: config.limits.clone(), ..config.listener };
        let listener =
            Listener::bind(&door).map_err(|error| failed(&format!("cannot listen on {}", door.address), &error))?;
        let metrics = config.metrics.map(Metrics::bind).transpose()?;
        let (stop, audit) = (Stop::new(), config.audit.clone());
        let keeper = Keeper::start(config, root, confinement, clock, Arc::clone(&trust), stop.clone())?;
        let mut running = Self {
            address: listener.local_addr(),
            metrics: metrics.as_ref().map(|metrics| metrics.address),
            trust,
            switch: keeper.switch(),
            stop,
            threads: Vec::new(),
            audit,
        };
        running.spawn(listener, metrics, keeper).map_err(|error| failed("cannot start a thread", &error))?;
        let sealed = running.vault().is_none();
        tracing::info!(address = %running.address, sealed, "serving");
        if let Some(address) = running.metrics {
            tracing::info!(%address, "serving metrics");
        }
        Ok(running)
    }

    /// The vault; `None` while it is sealed. Whoever keeps it keeps its keys in memory.
    pub fn vault(&self) -> Option<Vault> {
        self.switch.vault()
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
        if let Some(vault) = self.switch.vault() {
            ended = ended.and(keeper::last_words(&vault, &self.audit));
        }
        tracing::info!("stopped");
        ended.map_err(|error| failed("the server ended badly", &error))
    }

    fn spawn(&mut self, listener: Listener, metrics: Option<Metrics>, keeper: Keeper) -> io::Result<()> {
        self.thread("keeper", move || keeper.keep())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        if let Some(Metrics { socket, handle, .. }) = metrics {
            let (switch, trust, clock, stop) =
                (self.switch.clone(), Arc::clone(&self.trust), Arc::clone(&clock), self.stop.clone());
            let measure = Arc::new(move || measure(switch.vault().as_ref(), &trust, clock.now()));
            self.thread("metrics", move || telemetry::metrics::serve(socket, handle, measure, &stop))?;
        }
        let (trust, switch, stop) = (Arc::clone(&self.trust), self.switch.clone(), self.stop.clone());
        self.thread("listener", move || listener.serve(trust, clock, switch, stop))
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

pub(super) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Refuses a root beside the database, unless that was allowed; then the operator's status says so.
fn root_status(config: &Config) -> Result<RootStatus, Failure> {
    let kind = config.root.kind();
    let path = config.root.path();
    let beside = path.as_deref().map_or(Ok(false), |path| {
        same_device(existing(&config.store.database), path).map_err(|error| {
            failed(&format!("cannot look at the {kind} {} and the database's folder", path.display()), &error)
        })
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
pub(super) fn told(error: &dyn Error) -> String {
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
