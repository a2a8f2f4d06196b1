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

use super::{failed, runtime, told};
use crate::cli::Failure;
use crate::cli::keys;
use crate::config::Config;
use crate::crypto::entropy::OsEntropy;
use crate::crypto::keyring::{Keyring, peek};
use crate::crypto::root::shares::{Gathering, Share};
use crate::crypto::root::{RootHeader, RootSource};
use crate::domain::time::{Clock, SystemClock};
use crate::rpc::listener::Stop;
use crate::rpc::seal::{Cause, Command, Control, SealState, StillSealed, Switch, Unsealed};
use crate::rpc::trust::Trust;
use crate::store::Store;
use crate::vault::{Attempt, Parts, Pulse, RootStatus, Swept, Vault};

/// How long shares wait for the next one before they are forgotten.
const FORGETTING: Duration = Duration::from_secs(15 * 60);
/// How long a closed vault's last calls may keep it in memory.
const LETTING_GO: Duration = Duration::from_secs(10);

pub(super) struct Keeper {
    config: Config,
    root: RootStatus,
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
    sweeper: JoinHandle<io::Result<()>>,
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
        clock: Arc<dyn Clock>,
        trust: Arc<Trust>,
        stop: Stop,
    ) -> Result<Self, Failure> {
        let since = clock.now();
        let state = SealState { sealed: Some(Cause::Started), since, root_source: config.root.kind(), shares: None };
        let (control, commands) = Control::new(state);
        let tenants = config.policies.keys().cloned().collect();
        let switch = Switch::new(control.clone(), tenants, trust, Arc::new(SystemClock::new()));
        let mut keeper = Self { config, root, clock, switch, control, commands, stop, open: None, gathering: None };
        // Health knows every service from the start.
        let told = runtime().map(|runtime| runtime.block_on(keeper.switch.close()));
        told.map_err(|error| failed("cannot start a runtime", &error))?;
        if let RootSource::Shares(_) = keeper.config.root {
            keeper.gathering = Some(keeper.gather()?);
            keeper.tell_sealed(Cause::Started);
            tracing::warn!("sealed: the vault waits for the shares of its root key");
        } else {
            let keyring = keys::unlock(&keeper.config.root, &keeper.config.keyring)?;
            keeper.open(keyring, None)?;
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
        // Calls in flight may still end: the switch keeps the vault until the listener is done.
        self.open.take().map_or(Ok(()), |open| stop_sweeping(open.closing, open.sweeper))
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
        let keyring = match &mut self.gathering {
            Some(gathering) => {
                let progress = gathering.add(share.ok_or(StillSealed::NoShare)?).map_err(StillSealed::Share)?;
                tracing::info!(held = progress.held, threshold = progress.threshold, "a share of the root key is in");
                let complete = gathering.is_complete().then(|| combined(gathering, &self.config.keyring));
                self.tell_progress();
                match complete {
                    None => return Ok(Unsealed::NotYet),
                    Some(keyring) => keyring,
                }
            }
            None => keys::unlock(&self.config.root, &self.config.keyring),
        };
        let opened = keyring.and_then(|keyring| self.open(keyring, Some(attempt)));
        // Whatever came of them: kept no longer than needed.
        if opened.is_err() {
            self.start_gathering();
        }
        opened.map(|()| Unsealed::Open).map_err(|failure| still_sealed(&failure))
    }

    /// Opens store and vault and lets the switch serve it.
    fn open(&mut self, keyring: Keyring, attempt: Option<Attempt>) -> Result<(), Failure> {
        let config = &self.config;
        let store = Store::open(&config.store, Arc::new(keyring), Arc::clone(&self.clock))
            .map_err(|error| failed(&format!("cannot open the store {}", config.store.database.display()), &error))?;
        let parts = Parts {
            store,
            policies: config.policies.clone(),
            serial_patterns: config.serial_patterns.clone(),
            clock: Arc::clone(&self.clock),
            entropy: Arc::new(OsEntropy),
            root: self.root.clone(),
        };
        let vault = blocking(Vault::open(parts))?;
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
        let open = self.start_sweeping(&vault, first).map_err(|error| failed("cannot start a thread", &error))?;
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
        // First of all: no call may begin any more.
        runtime()?.block_on(self.switch.close());
        self.tell_sealed(Cause::Commanded);
        self.start_gathering();
        // Who asked holds the vault until it is answered.
        let _ = reply.send(());
        stop_sweeping(open.closing, open.sweeper)?;
        let mut waited = Duration::ZERO;
        while !open.pulse.is_gone() {
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

    /// A gathering for the set that the keyring names now; for a root that is not split, none.
    fn gather(&self) -> Result<Gathering, Failure> {
        let path = &self.config.keyring;
        if !path.exists() {
            return Err(keys::no_keyring(path));
        }
        let header =
            peek(path).map_err(|error| failed(&format!("cannot open the keyring {}", path.display()), &error))?;
        match header.root {
            RootHeader::Shares(set) => Ok(Gathering::new(set)),
            other => {
                let refused = self.config.root.unlock(&other).map(drop).map_err(|error| told(&error));
                let why = refused.err().unwrap_or_default();
                Err(Failure::local(format!("cannot use the root {}: {why}", self.config.root)))
            }
        }
    }

    fn start_gathering(&mut self) {
        self.gathering = None;
        if let RootSource::Shares(_) = self.config.root {
            match self.gather() {
                Ok(gathering) => self.gathering = Some(gathering),
                Err(failure) => tracing::error!(reason = %failure, "no share can be taken"),
            }
        }
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

    fn start_sweeping(&self, vault: &Vault, first: Duration) -> io::Result<Open> {
        let (closing, pulse) = (Stop::new(), vault.pulse());
        let ends_all = EndsAll { all: self.stop.clone(), unless: closing.clone() };
        let (vault, interval, closed) = (vault.clone(), self.config.sweep_interval, closing.clone());
        let sweeping = move || {
            let _ends_all = ends_all;
            sweep(vault, first, interval, &closed)
        };
        let sweeper = std::thread::Builder::new().name("sweeper".to_owned()).spawn(sweeping)?;
        Ok(Open { closing, sweeper, pulse })
    }
}

/// A sweeper that ends by itself ends the server.
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

fn stop_sweeping(closing: Stop, sweeper: JoinHandle<io::Result<()>>) -> io::Result<()> {
    closing.trigger();
    sweeper.join().unwrap_or_else(|_| Err(io::Error::other("the sweeper panicked")))
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

/// One step of the sweeper before anyone is served; answers when the next one is wanted.
fn first_sweep(vault: &Vault, interval: Duration) -> Result<Duration, Failure> {
    let runtime = runtime().map_err(|error| failed("cannot start a runtime", &error))?;
    let more = runtime.block_on(vault.sweep()).unwrap_or_else(|error| {
        tracing::error!(reason = told(&error), "the sweeper could not destroy what is due");
        Swept::default()
    });
    Ok(if more.more { Duration::ZERO } else { interval })
}

/// Destroys what is due, chunk by chunk, after `first` and at every interval. An error waits for the next interval: the store may
/// recover, and what is due stays unreadable meanwhile.
fn sweep(vault: Vault, first: Duration, interval: Duration, stop: &Stop) -> io::Result<()> {
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
