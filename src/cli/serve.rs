//! `strongroom serve`: a vault behind its door, from a configuration file to a clean stop. INVARIANT: whatever is missing or
//! wrong ends the start with one line that names it; a server that runs holds the store alone, sweeps, and ends only after
//! the calls in flight have had their time.

mod keeper;

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::Failure;
use crate::config::Config;
use crate::crypto::root::same_device;
use crate::domain::time::{Clock, SystemClock};
use crate::rpc::listener::{Listener, Stop};
use crate::rpc::seal::Switch;
use crate::rpc::trust::Trust;
use crate::telemetry;
use crate::vault::{RootStatus, Vault};
use keeper::Keeper;

/// Serve the vault over mutual TLS until told to stop.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

const HELP: &str = "\
Prints `ready https://ADDRESS` once it serves, or `sealed https://ADDRESS` where it waits for the shares of its root key; logs go where [log] says (stderr without it).

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
  passphrase_file = \"/run/secrets/root\"    # or one of the sources below; a file on another device than
  allow_same_device = false                # the database, unless this is true

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
  kill -HUP $(pidof strongroom)            # after a certificate or a revocation list was renewed";

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

/// A server at work, sealed or open. Dropped without `stop`, it is told to end and not waited for.
pub struct Running {
    pub address: SocketAddr,
    trust: Arc<Trust>,
    switch: Switch,
    stop: Stop,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// Opens everything and serves; where the root is split, serves sealed until its shares have come. Retention goes by `clock`,
    /// which may be simulated; certificates always go by the machine's. To be called outside any runtime.
    pub fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        // The first phone number must not wait for the numbering plans.
        crate::domain::field::phone::warm();
        let trust = Trust::load(config.trust.clone()).map_err(|error| failed("cannot use the certificates", &error))?;
        let mut root = root_status(&config)?;
        if config.trust.anchors.is_empty() {
            root.warnings
                .push("no [[anchor]] is configured: every CA in tls.roots may speak for every tenant and role".into());
        }
        let listener = Listener::bind(&config.listener)
            .map_err(|error| failed(&format!("cannot listen on {}", config.listener.address), &error))?;
        let stop = Stop::new();
        let keeper = Keeper::start(config, root, clock, Arc::clone(&trust), stop.clone())?;
        let switch = keeper.switch();
        let mut running = Self { address: listener.local_addr(), trust, switch, stop, threads: Vec::new() };
        running.spawn(listener, keeper).map_err(|error| failed("cannot start a thread", &error))?;
        let sealed = running.vault().is_none();
        tracing::info!(address = %running.address, sealed, "serving");
        Ok(running)
    }

    /// The vault; `None` while it is sealed. Whoever keeps it keeps its keys in memory.
    pub fn vault(&self) -> Option<Vault> {
        self.switch.vault()
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

    fn spawn(&mut self, listener: Listener, keeper: Keeper) -> io::Result<()> {
        self.thread("keeper", move || keeper.keep())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
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
