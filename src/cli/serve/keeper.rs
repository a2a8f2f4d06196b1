//! The keeper opens the vault, sweeps it, and closes it again. INVARIANT: there is one vault at most, and only the keeper makes it;
//! once it is closed, every key of it is out of memory within `LETTING_GO`, or the process ends; shares are held here alone, no
//! longer than they wait for the next.
//!
//! ```text
//!            start, root not split ──────────────┐
//! Started ── Unseal × threshold ──────────────→ Open ── Seal ──→ Commanded ── Unseal … ──→ Open
//!            (wrong, mixed, repeated: refused)   └─ stop ──→ the calls in flight end, then the store is closed
//! ```

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::beside::{first_sweep, keep_keys, sweep};
use super::{announcer, failed, log_keeper, runtime, weaknesses, witness};
use crate::cli::Failure;
use crate::cli::keys;
use crate::config::{AuditConfig, Config};
use crate::crypto::entropy::OsEntropy;
use crate::crypto::keyring::{Keyring, peek};
use crate::crypto::root::shares::{Gathering, Share};
use crate::crypto::root::{RootHeader, RootSource};
use crate::domain::time::{Clock, SystemClock};
use crate::rpc;
use crate::rpc::listener::Stop;
use crate::rpc::seal::{Cause, Command, Control, SealState, StillSealed, Switch, Unsealed};
use crate::rpc::trust::Trust;
use crate::store::{Store, is_held};
use crate::telemetry;
use crate::vault::{Attempt, Confinement, Parts, Pulse, RootStatus, Vault};

/// How long shares wait for the next one before they are forgotten.
const FORGETTING: Duration = Duration::from_secs(15 * 60);
/// How long a closed vault's last calls may keep it in memory.
const LETTING_GO: Duration = Duration::from_secs(10);

pub(super) struct Keeper {
    config: Config,
    root: RootStatus,
    /// What was done to this process, if it is the server's own.
    confinement: Option<Confinement>,
    clock: Arc<dyn Clock>,
    switch: Switch,
    control: Control,
    commands: mpsc::Receiver<Command>,
    stop: Stop,
    open: Option<Open>,
    /// While the vault is sealed and its root is split.
    gathering: Option<Gathering>,
}

/// What goes with one opening of the vault.
struct Open {
    closing: Stop,
    /// What goes on beside the calls.
    beside: Vec<JoinHandle<io::Result<()>>>,
    pulse: Pulse,
}

enum Next {
    Stop,
    Forget,
    Asked(Command),
}

impl Keeper {
    /// Opens the vault, unless its root is split.
    pub fn start(
        config: Config,
        root: RootStatus,
        confinement: Option<Confinement>,
        clock: Arc<dyn Clock>,
        trust: Arc<Trust>,
        stop: Stop,
    ) -> Result<Self, Failure> {
        announcer::check(&config.webhooks)?;
        let since = clock.now();
        let state = SealState { sealed: Some(Cause::Started), since, root_source: config.root.kind(), shares: None };
        let (control, commands) = Control::new(state);
        let tenants = config.policies.keys().cloned().collect();
        let watch: rpc::Watch = Arc::new(|| telemetry::log_warning().into_iter().collect());
        let switch = Switch::new(control.clone(), tenants, trust, Arc::new(SystemClock::new()), watch);
        let (open, gathering) = (None, None);
        let mut keeper = Self { config, root, confinement, clock, switch, control, commands, stop, open, gathering };
        // Health knows every service from the start.
        let told = runtime().map(|runtime| runtime.block_on(keeper.switch.close()));
        told.map_err(|error| failed("cannot start a runtime", &error))?;
        keeper.gathering = keeper.gather()?;
        if keeper.gathering.is_some() {
            keeper.tell_sealed(Cause::Started);
            tracing::warn!("sealed: the vault waits for the shares of its root key");
        } else {
            let unlocked = keys::unlock_unattended(&keeper.config)?;
            keeper.open(unlocked, None)?;
        }
        Ok(keeper)
    }

    pub fn switch(&self) -> Switch {
        self.switch.clone()
    }

    /// Does as it is told until the server stops. To be called outside any runtime.
    pub fn keep(mut self) -> io::Result<()> {
        let runtime = runtime()?;
        loop {
            match runtime.block_on(self.next()) {
                Next::Stop => break,
                Next::Forget => {
                    tracing::warn!("the shares that were in are forgotten: the next one did not come");
                    self.start_gathering();
                }
                Next::Asked(Command::Unseal { share, attempt, reply }) => {
                    // Nobody hears it if who asked is gone; the state tells too.
                    let _ = reply.send(self.unseal(share, *attempt));
                }
                Next::Asked(Command::Seal { reply }) => self.seal(reply)?,
            }
        }
        if let Some(vault) = self.switch.vault() {
            vault.give_up_backups();
        }
        // Calls in flight may still end: the switch keeps the vault until the listener is done.
        self.open.take().map_or(Ok(()), |open| stop_beside(&open.closing, open.beside))
    }

    async fn next(&mut self) -> Next {
        let waits = self.gathering.as_ref().is_some_and(|gathering| gathering.progress().held > 0);
        tokio::select! {
            biased;
            () = self.stop.wait() => Next::Stop,
            command = self.commands.recv() => command.map_or(Next::Stop, Next::Asked),
            () = tokio::time::sleep(FORGETTING), if waits => Next::Forget,
        }
    }

    fn unseal(&mut self, share: Option<Share>, attempt: Attempt) -> Result<Unsealed, StillSealed> {
        if let Some(vault) = self.switch.vault() {
            let logged = blocking(vault.log_attempts(std::slice::from_ref(&attempt)));
            logged.map_err(|failure| still_sealed(&failure))?;
            return Ok(Unsealed::Open);
        }
        if self.gathering.is_none() {
            // What kept the keyring's header from being read may be over.
            self.gathering = self.gather().map_err(|failure| still_sealed(&failure))?;
        }
        let unlocked = match &mut self.gathering {
            Some(gathering) => {
                let progress = gathering.add(share.ok_or(StillSealed::NoShare)?).map_err(StillSealed::Share)?;
                tracing::info!(held = progress.held, threshold = progress.threshold, "a share of the root key is in");
                let complete = gathering.is_complete().then(|| combined(gathering, &self.config.keyring));
                self.tell_progress();
                match complete {
                    None => return Ok(Unsealed::NotYet),
                    Some(keyring) => keyring.map(|keyring| (keyring, self.is_under_next())),
                }
            }
            None => keys::unlock_unattended(&self.config),
        };
        let opened = unlocked.and_then(|unlocked| self.open(unlocked, Some(attempt)));
        // Whatever came of them: kept no longer than needed.
        if opened.is_err() {
            self.start_gathering();
        }
        opened.map(|()| Unsealed::Open).map_err(|failure| still_sealed(&failure))
    }

    /// Opens store and vault and lets the switch serve it; `true` beside the keyring: the next root opened it.
    fn open(&mut self, (keyring, under_next): (Keyring, bool), attempt: Option<Attempt>) -> Result<(), Failure> {
        let config = &self.config;
        keys::settle_copies(config, &keyring, &OsEntropy)?;
        let root = self.root_now(under_next);
        let clock = Arc::clone(&self.clock);
        let store = Store::open_reserving(&config.store, config.reserve, Arc::new(keyring), clock)
            .map_err(|error| failed(&format!("cannot open the store {}", config.store.database.display()), &error))?;
        if let Some(path) = &config.audit.witness_file {
            witness::check(path, &store)?;
        }
        let vault = blocking(Vault::open(parts(config, store, Arc::clone(&self.clock), root)))?;
        if !vault.has_callers() {
            tracing::warn!(
                "nobody is enrolled, so nobody comes in; `strongroom callers enrol --config FILE` enrols the first"
            );
        }
        let attempts: Vec<Attempt> = self.control.take_attempts().into_iter().chain(attempt).collect();
        if !attempts.is_empty()
            && let Err(failure) = blocking(vault.log_attempts(&attempts))
        {
            self.control.give_back(attempts);
            return Err(failure);
        }
        let first = first_sweep(&vault, config.sweep_interval)?;
        let open = self.start_beside(&vault, first).map_err(|error| failed("cannot start a thread", &error))?;
        self.open = Some(open);
        self.gathering = None;
        let since = self.clock.now();
        self.control.tell(SealState { sealed: None, since, shares: None, ..self.control.state() });
        let serving = runtime().map(|runtime| runtime.block_on(self.switch.open(vault, self.control.clone())));
        serving.map_err(|error| failed("cannot start a runtime", &error))?;
        tracing::info!("the vault is open");
        Ok(())
    }

    /// Closes the vault, answers, and sees that it is gone.
    fn seal(&mut self, reply: oneshot::Sender<()>) -> io::Result<()> {
        let Some(open) = self.open.take() else {
            let _ = reply.send(());
            return Ok(());
        };
        let vault = self.switch.vault();
        // First of all: no call may begin any more.
        runtime()?.block_on(self.switch.close());
        self.tell_sealed(Cause::Commanded);
        self.start_gathering();
        if let Some(vault) = &vault {
            vault.give_up_backups();
        }
        // Who asked holds the vault until it is answered.
        let _ = reply.send(());
        stop_beside(&open.closing, open.beside)?;
        if let Some(vault) = vault {
            last_words(&vault, &self.config.audit)?;
        }
        let mut waited = Duration::ZERO;
        while !open.pulse.is_gone() || is_held(&self.config.store) {
            const STEP: Duration = Duration::from_millis(5);
            if waited >= LETTING_GO {
                return Err(io::Error::other(
                    "something keeps the sealed vault's keys in memory: only an end clears it",
                ));
            }
            std::thread::sleep(STEP);
            waited += STEP;
        }
        tracing::warn!("sealed: every key is out of memory");
        Ok(())
    }

    /// A gathering for the set that the keyring names now; `None`: the root that it names is not split, or not ours to gather.
    fn gather(&self) -> Result<Option<Gathering>, Failure> {
        let path = &self.config.keyring;
        if !path.exists() {
            return Err(keys::no_keyring(path));
        }
        let header =
            peek(path).map_err(|error| failed(&format!("cannot open the keyring {}", path.display()), &error))?;
        let roots = [Some(&self.config.root), self.config.keys.next_root.as_ref()];
        let is_split = roots.into_iter().flatten().any(|root| matches!(root, RootSource::Shares(_)));
        Ok(match header.root {
            RootHeader::Shares(set) if is_split => Some(Gathering::new(set)),
            _ => None,
        })
    }

    fn is_under_next(&self) -> bool {
        !matches!(self.config.root, RootSource::Shares(_))
    }

    /// What the operator is told of the root and of the process, now that keys are in it.
    fn root_now(&self, under_next: bool) -> RootStatus {
        let mut root = self.root.clone();
        if under_next {
            root.warnings.push("the keyring is sealed under [next_root]: move it to [root]".into());
        }
        if let Some(confinement) = self.confinement {
            let weaknesses = weaknesses(&confinement, self.config.sandbox);
            weaknesses.iter().for_each(|weakness| tracing::warn!("{weakness}"));
            root.warnings.extend(weaknesses);
            root.confinement = confinement;
        }
        root
    }

    fn start_gathering(&mut self) {
        self.gathering = self.gather().unwrap_or_else(|failure| {
            tracing::error!(reason = %failure, "no share can be taken");
            None
        });
        self.tell_progress();
    }

    fn tell_sealed(&self, cause: Cause) {
        let state = self.control.state();
        self.control.tell(SealState { sealed: Some(cause), since: self.clock.now(), ..state });
        self.tell_progress();
    }

    fn tell_progress(&self) {
        let shares = self.gathering.as_ref().map(Gathering::progress);
        self.control.tell(SealState { shares, ..self.control.state() });
    }

    fn start_beside(&self, vault: &Vault, first: Duration) -> io::Result<Open> {
        let mut open = Open { closing: Stop::new(), beside: Vec::new(), pulse: vault.pulse() };
        let (interval, audit) = (self.config.sweep_interval, self.config.audit.clone());
        self.beside(&mut open, "sweeper", vault, move |vault, closed| sweep(vault, first, interval, closed))?;
        self.beside(&mut open, "key-keeper", vault, move |vault, closed| keep_keys(vault, interval, closed))?;
        self.beside(&mut open, "log-keeper", vault, move |vault, closed| log_keeper::keep(vault, &audit, closed))?;
        if !self.config.webhooks.is_empty() {
            let hooks = self.config.webhooks.clone();
            self.beside(&mut open, "announcer", vault, move |vault, closed| {
                announcer::announce(vault, &hooks, closed)
            })?;
        }
        Ok(open)
    }

    fn beside(
        &self,
        open: &mut Open,
        name: &str,
        vault: &Vault,
        work: impl FnOnce(&Vault, &Stop) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let ends_all = EndsAll { all: self.stop.clone(), unless: open.closing.clone() };
        let (vault, closed) = (vault.clone(), open.closing.clone());
        let work = move || {
            let _ends_all = ends_all;
            work(&vault, &closed)
        };
        open.beside.push(std::thread::Builder::new().name(name.to_owned()).spawn(work)?);
        Ok(())
    }
}

/// What a vault of this configuration is made of.
pub fn parts(config: &Config, store: Store, clock: Arc<dyn Clock>, root: RootStatus) -> Parts {
    Parts {
        store,
        policies: config.policies.clone(),
        serial_patterns: config.serial_patterns.clone(),
        clock,
        entropy: Arc::new(OsEntropy),
        root,
        limits: config.limits.clone(),
        keys: config.keys.clone(),
        log: config.audit.keeping.clone(),
        backups: config.backups.clone(),
        webhooks: config.webhooks.iter().map(|hook| hook.subscription.clone()).collect(),
    }
}

/// One of those beside that ends by itself ends the server.
struct EndsAll {
    all: Stop,
    unless: Stop,
}

impl Drop for EndsAll {
    fn drop(&mut self) {
        if !self.unless.is_triggered() {
            self.all.trigger();
        }
    }
}

fn stop_beside(closing: &Stop, beside: Vec<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    closing.trigger();
    let ended = beside
        .into_iter()
        .map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread beside the calls panicked"))));
    ended.fold(Ok(()), io::Result::and)
}

/// What is still to be logged and signed once no call comes any more.
pub(super) fn last_words(vault: &Vault, audit: &AuditConfig) -> io::Result<()> {
    if !matches!(runtime().map(|runtime| runtime.block_on(vault.tell_lock_outs())), Ok(Ok(()))) {
        tracing::warn!("refusals past a lock-out were counted and could not be logged");
    }
    log_keeper::last_head(vault, audit)
}

/// The keyring of a complete gathering.
fn combined(gathering: &Gathering, keyring: &Path) -> Result<Keyring, Failure> {
    let root = gathering.combine().map_err(|few| failed("cannot combine the shares", &few))?;
    let unusable = |error| failed(&format!("cannot open the keyring {}", keyring.display()), &error);
    Keyring::load(keyring, &root).map_err(unusable)
}

/// The operator is told in full, the caller only that it did not open.
fn still_sealed(failure: &Failure) -> StillSealed {
    tracing::error!(reason = %failure, "the vault does not open");
    StillSealed::CannotOpen
}

/// Runs a use case of the vault to its end.
fn blocking<T>(work: impl Future<Output = Result<T, crate::vault::Error>>) -> Result<T, Failure> {
    let done = runtime().map(|runtime| runtime.block_on(work));
    done.map_err(|error| failed("cannot start a runtime", &error))?
        .map_err(|error| failed("cannot take the store into service", &error))
}
