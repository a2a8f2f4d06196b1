//! How the vault is, for whoever is on call. INVARIANT: numbers, names of things and warnings; nothing about anyone.

use super::call::{Call, Draft};
use super::mark::NotConfirmed;
use super::{Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::crypto::locked::{self, Memory};
use crate::domain::id::{Epoch, Generation};
use crate::domain::time::{HOUR, Timestamp};
use crate::store::reserve::ReserveState;
use crate::store::rows::Counts;

/// Where the root key comes from, what confines the process that holds keys, and what is wrong with either.
#[derive(Clone, Debug, Default)]
pub struct RootStatus {
    pub source: String,
    pub warnings: Vec<String>,
    pub confinement: Confinement,
}

/// How the kernel confines this process; not at all, by default, in one that is more than a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Confinement {
    /// No core is written of it, and nobody of its user can attach a debugger.
    pub no_core: bool,
    /// The kernel's Landlock interface that restricts its files and ports; 0: nothing does.
    pub landlock_abi: u32,
    /// Only listed system calls are made.
    pub seccomp: bool,
}

#[derive(Clone, Debug)]
pub struct Status {
    pub now: Timestamp,
    pub started_at: Timestamp,
    pub counts: Counts,
    pub audit_entries: u64,
    pub audit_root: [u8; 32],
    pub ledger_entries: u64,
    pub active_epoch: Epoch,
    pub generation: Generation,
    pub root_source: String,
    pub key_memory: Memory,
    pub confinement: Confinement,
    pub mark: Timestamp,
    /// Destruction waits for a person.
    pub paused: bool,
    pub policy: Option<(String, [u8; 32])>,
    pub warnings: Vec<String>,
}

/// How late the sweeper may be before someone is told.
const LATE: i64 = HOUR;

impl Vault {
    pub async fn status(&self, call: &Call) -> Result<Status, Error> {
        // A store that takes no entries any more must still say why; there is nothing about anyone in it.
        if self.store().poisoned().is_none() {
            self.log_as("status", Draft::of(call, Action::Status, self.now()).done()).await?;
        }
        let now = self.now();
        let mark = self.inner.mark.at();
        let (mut counts, ledger, tip) = self.store().read(|view| {
            let ledger = view.meta_i64("ledger_applied")?.unwrap_or(0);
            Ok((view.counts(mark)?, ledger, view.audit_tip()?))
        })?;
        counts.oldest_due = self.oldest_waiting(mark)?;
        let mut warnings = self.inner.parts.root.warnings.clone();
        warnings.extend(self.inner.mark.warning(self.clock().now()));
        let tampered = self.tampered().len();
        if tampered > 0 {
            warnings
                .push(format!("{tampered} due records fail their authentication and cannot be judged; see the log"));
        }
        if let Ok(notices) = self.inner.notices.lock() {
            warnings.extend(notices.values().cloned());
        }
        if let Some(why) = self.store().poisoned() {
            warnings.push(format!("the store refuses until a restart: {why}"));
        }
        let paused = self.is_paused()?;
        if paused {
            warnings.push(super::pause::WARNING.to_owned());
        }
        if counts.oldest_due.is_some_and(|due| mark.since(due) > LATE) {
            warnings.push("the sweeper is more than an hour behind".to_owned());
        }
        if self.store().reserve() == ReserveState::Released {
            warnings.push(format!(
                "the disk is full: only what takes away is done, out of the reserve; it is over when {} bytes are free",
                self.store().reserve_bytes()
            ));
        }
        warnings.extend(self.lock_out_warnings(&call.caller.tenant));
        warnings.extend(self.key_warnings()?);
        let keyring = self.keyring();
        warnings.extend(self.held_back(&call.caller.tenant));
        let policy = self.inner.parts.policies.get(&call.caller.tenant);
        Ok(Status {
            now,
            started_at: self.inner.started_at,
            counts,
            audit_entries: tip.entries(),
            audit_root: tip.frontier.root(),
            ledger_entries: u64::try_from(ledger).unwrap_or(0),
            active_epoch: keyring.active().number(),
            generation: keyring.generation(),
            root_source: self.inner.parts.root.source.clone(),
            key_memory: locked::weakest(),
            confinement: self.inner.parts.root.confinement,
            mark,
            paused,
            policy: policy.map(|policy| (policy.id().to_owned(), policy.version().0)),
            warnings,
        })
    }

    /// An operator vouches for the wall clock, by another clock's `time`; destruction goes by it from now on.
    pub async fn confirm_clock(&self, call: &Call, time: Timestamp) -> Result<Timestamp, Error> {
        let draft = Draft::of(call, Action::ConfirmClock, self.now());
        if let Err(why) = self.inner.mark.may_confirm(self.clock(), time) {
            let told = match why {
                NotConfirmed::Astray => Error::ClockAstray,
                NotConfirmed::Behind => Error::ClockBehind,
            };
            self.log_as("confirm_clock", draft.refused(RefusalCode::ClockNotConfirmed)).await?;
            return Err(told);
        }
        self.log_as("confirm_clock", draft.done()).await?;
        let mark = self.inner.mark.confirm(self.clock(), time);
        self.store().run("confirm_clock", self.inner.mark.saver()).await?;
        Ok(mark)
    }
}
