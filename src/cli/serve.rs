//! `strongroom serve`: a vault behind its door, from a configuration file to a clean stop. INVARIANT: whatever is missing or
//! wrong ends the start with one line that names it; a server that runs holds the store alone, sweeps, and ends only after
//! the calls in flight have had their time.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::Failure;
use crate::cli::keys;
use crate::config::Config;
use crate::crypto::entropy::OsEntropy;
use crate::crypto::root::same_device;
use crate::domain::time::{Clock, SystemClock};
use crate::rpc;
use crate::rpc::listener::{Listener, Stop};
use crate::rpc::trust::Trust;
use crate::store::Store;
use crate::telemetry;
use crate::vault::{Parts, RootStatus, Vault};

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
  SIGHUP            reads certificates and revocation lists again; a bad set is refused and the old one stays
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

  [root]
  passphrase_file = \"/run/secrets/root\"    # or key_file; on another device than the database,
  allow_same_device = false                # unless this is true

  [log]
  level = \"info\"                           # error, warn, info, debug, trace
  format = \"json\"                          # or text
  # file = \"strongroom.log\"

  [[tenant]]
  name = \"kitchenware\"
  policy = \"builtin:kitchenware\"           # or the path of a policy file

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
    prepare_process();
    let runtime = runtime().map_err(|error| failed("cannot start a runtime", &error))?;
    // Before the start, so that a signal during it is not lost.
    let signals = runtime.block_on(async { Signals::watch() });
    let signals = signals.map_err(|error| failed("cannot watch for signals", &error))?;
    let running = Running::start(config, Arc::new(SystemClock::new()))?;
    ready(&running).map_err(|error| failed("cannot print that the server is ready", &error))?;
    runtime.block_on(running.attend(signals));
    running.stop()
}

/// Files that SQLite makes are for our eyes alone; descriptors as many as the machine allows, as every caller takes one.
fn prepare_process() {
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    let allowed = getrlimit(Resource::Nofile).maximum;
    if setrlimit(Resource::Nofile, Rlimit { current: allowed, maximum: allowed }).is_err() {
        tracing::warn!("cannot raise the limit of open files; fewer callers can connect at once");
    }
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
    pub vault: Vault,
    trust: Arc<Trust>,
    stop: Stop,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// Opens everything and serves. Retention goes by `clock`, which may be simulated; certificates always go by the
    /// machine's. To be called outside any runtime.
    pub fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        // The first phone number must not wait for the numbering plans.
        crate::domain::field::phone::warm();
        let trust = Trust::load(config.trust.clone()).map_err(|error| failed("cannot use the certificates", &error))?;
        let mut root = root_status(&config)?;
        if config.trust.anchors.is_empty() {
            root.warnings
                .push("no [[anchor]] is configured: every CA in tls.roots may speak for every tenant and role".into());
        }
        let keyring = Arc::new(keys::unlock(&config.root, &config.keyring)?);
        let listener = Listener::bind(&config.listener)
            .map_err(|error| failed(&format!("cannot listen on {}", config.listener.address), &error))?;
        let store = Store::open(&config.store, keyring, Arc::clone(&clock))
            .map_err(|error| failed(&format!("cannot open the store {}", config.store.database.display()), &error))?;
        let parts = Parts {
            store,
            policies: config.policies,
            serial_patterns: config.serial_patterns,
            clock,
            entropy: Arc::new(OsEntropy),
            root,
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
        let mut running = Self { address: listener.local_addr(), vault, trust, stop: Stop::new(), threads: Vec::new() };
        let first =
            running.first_sweep(config.sweep_interval).map_err(|error| failed("cannot start a runtime", &error))?;
        running
            .spawn(listener, first, config.sweep_interval)
            .map_err(|error| failed("cannot start a thread", &error))?;
        tracing::info!(address = %running.address, "serving");
        Ok(running)
    }

    /// Reads certificates and revocation lists again; on any error the set in use stays.
    pub fn reload(&self) {
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

    fn spawn(&mut self, listener: Listener, first: Duration, sweep_interval: Duration) -> io::Result<()> {
        let (vault, stop) = (self.vault.clone(), self.stop.clone());
        self.thread("sweeper", move || sweep(&vault, first, sweep_interval, &stop))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let routes = rpc::services(self.vault.clone(), Arc::clone(&self.trust), Arc::clone(&clock));
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
    Ok(RootStatus { source: kind.to_owned(), warnings })
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
