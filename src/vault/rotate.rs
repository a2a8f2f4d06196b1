//! Key epochs: made, promoted, rewrapped, destroyed, by the schedule or by order. INVARIANT: a new epoch wraps nothing before every
//! registered copy of the keyring holds it and was read back; an epoch is destroyed only when nothing is left under it, by the
//! schedule or by two people, and the log says so before and after; at every instant the files open all that is stored.
//!
//! ```text
//! prepare   keyring with the next epoch, not active → file, copies, read back (canary) → adopted
//! promote   the same with it active                 → file, copies, read back          → adopted: from here on it wraps
//! rewrap    every row under an older epoch, in order, within a budget (`vault::rewrap`)
//! destroy   nothing left? receipt in the log, line in the ledger, "doomed" in the store, in one commit
//!           → keyring without it → file, copies, read back → adopted, with the log's "it is destroyed"
//! ```
//! A kill between two steps leaves either what was, or a next step that the start finds by itself: a prepared epoch is promoted,
//! what is not rewrapped is counted from the rows, a doomed epoch is destroyed. One step at a time: whoever changes the keyring
//! holds the turn.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::call::Draft;
use super::keys::read_postponed;
use super::{Error, Vault};
use crate::audit::entry::{Action, Entry, Whom};
use crate::crypto::keyring::Keyring;
use crate::crypto::keyring::places::Places;
use crate::crypto::root::RootSource;
use crate::crypto::rotation::{Left, Postponed, Schedule, Step, plan};
use crate::domain::fault::{Fault, planted};
use crate::domain::id::Epoch;
use crate::domain::time::Timestamp;
use crate::store::ledger::{LedgerEntry, LedgerEvent, NOBODY};
use crate::store::rows::{IdempotencyRow, Row as _};
use crate::store::{StoreError, Tx, View};

/// How keys are kept.
#[derive(Clone, Debug)]
pub struct KeySettings {
    pub places: Places,
    pub schedule: Schedule,
    /// Rows rewrapped a second, at most.
    pub budget: u32,
    /// What the keyring is to be sealed under, when someone orders it.
    pub next_root: Option<RootSource>,
}

impl Default for KeySettings {
    fn default() -> Self {
        Self { places: Places::default(), schedule: Schedule::default(), budget: 5_000, next_root: None }
    }
}

/// Seconds of rewrapping, at the budget's pace, after which all is counted and planned anew.
const STINT: u64 = 5;

/// What keeps the keys; nothing that a restart could not find again.
pub(crate) struct Keeper {
    turn: tokio::sync::Mutex<()>,
    /// How many wait for the turn; a rewrap makes way for them.
    waiting: AtomicUsize,
    wanted: Notify,
    progress: watch::Sender<Progress>,
    /// What lay under the older epochs when it was last counted.
    left: Mutex<BTreeMap<Epoch, Left>>,
    troubles: Mutex<Troubles>,
}

/// What went wrong and was not made good yet.
#[derive(Default)]
pub(super) struct Troubles {
    pub(super) not_saved: Option<String>,
    /// Rows that a whole pass could not move.
    pub(super) stuck: BTreeMap<Epoch, u64>,
}

impl Default for Keeper {
    fn default() -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            progress: watch::Sender::new(Progress::default()),
            left: Mutex::default(),
            troubles: Mutex::default(),
        }
    }
}

impl Keeper {
    /// For whoever changes the keyring.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let turn = self.turn.lock().await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        turn
    }

    /// Has the keeper do its next step at once.
    pub(super) fn wake(&self) {
        self.wanted.notify_one();
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(super) fn left(&self) -> MutexGuard<'_, BTreeMap<Epoch, Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far the rewrap is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    pub active: Epoch,
    /// Since the start of the process.
    pub rows_moved: u64,
    /// Under older epochs.
    pub rows_left: u64,
}

impl Default for Progress {
    fn default() -> Self {
        Self { active: Epoch(0), rows_moved: 0, rows_left: 0 }
    }
}

/// What one step of the keeper has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    pub steps: usize,
    /// Something was done, so there may be more to do at once.
    pub more: bool,
}

/// The keyring, what lies under its older epochs, and which of them are kept beyond their time.
pub(super) struct Sight {
    pub(super) keyring: Arc<Keyring>,
    pub(super) left: BTreeMap<Epoch, Left>,
    postponed: Postponed,
}

impl Vault {
    /// One step: does what the schedule asks for now, and goes on with what was begun.
    pub async fn keep_keys(&self) -> Result<Kept, Error> {
        let _turn = self.inner.keeper.turn.lock().await;
        self.finish_destruction().await?;
        let mark = self.inner.mark.tick(self.clock());
        let Sight { keyring, left, postponed } = self.look()?;
        self.tell_progress(&keyring, &left);
        let left_under = |epoch| left.get(&epoch).copied().unwrap_or_default();
        let steps = plan(mark, &keyring, &self.settings().schedule, &postponed, left_under);
        let (mut kept, mut failed) = (Kept { steps: steps.len(), more: false }, None);
        for step in steps {
            // One step that fails (a copy that cannot be written) must not keep the others waiting.
            match self.take(step, mark).await {
                Ok(done) => kept.more |= done,
                Err(error) => failed = Some(error),
            }
        }
        let Sight { keyring, left, .. } = self.look()?;
        self.tell_progress(&keyring, &left);
        failed.map_or(Ok(kept), Err)
    }

    /// Answers when somebody has ordered what the keeper should do at once.
    pub async fn keys_wanted(&self) {
        self.inner.keeper.wanted.notified().await;
    }

    pub(super) fn settings(&self) -> &KeySettings {
        &self.inner.parts.keys
    }

    /// The keyring, and what lies under its older epochs.
    pub(super) fn look(&self) -> Result<Sight, Error> {
        let keyring = self.keyring();
        let (left, postponed) = self.store().read(|view| {
            let older = keyring.epochs().skip(1).map(|epoch| epoch.number());
            let left = older.map(|epoch| Ok((epoch, left_under(view, epoch)?))).collect::<Result<_, StoreError>>()?;
            Ok((left, read_postponed(view)?))
        })?;
        Ok(Sight { keyring, left, postponed })
    }

    pub(super) fn tell_progress(&self, keyring: &Keyring, left: &BTreeMap<Epoch, Left>) {
        let rows_left = left.values().map(|left| left.rows).sum();
        let active = keyring.active().number();
        self.inner.keeper.progress.send_modify(|progress| *progress = Progress { active, rows_left, ..*progress });
        self.inner.keeper.left().clone_from(left);
        for (epoch, left) in left {
            metrics::gauge!("strongroom_records_under_epoch", "epoch" => epoch.to_string()).set(left.all() as f64);
        }
    }

    /// `true`: something was done.
    async fn take(&self, step: Step, mark: Timestamp) -> Result<bool, Error> {
        match step {
            Step::Prepare => self.prepare_epoch(mark).await.map(|()| true),
            Step::Promote => {
                let epoch = Epoch(self.keyring().active().number().0.saturating_add(1));
                self.promote(mark, self.entries(Action::RotateKek, epoch, 0)).await.map(|()| true)
            }
            Step::Rewrap(epoch) => self.rewrap_a_stint(epoch).await,
            Step::Destroy(epoch) => {
                let (entries, now) = (self.entries(Action::DestroyEpoch, epoch, 0), self.now());
                let write = move |tx: &mut Tx<'_>| {
                    let is_free = left_under(tx, epoch)?.all() == 0;
                    if is_free { doom(tx, epoch, entries.clone(), now).map(|()| true) } else { Ok(false) }
                };
                let doomed = self.store().run("destroy_epoch", write).await?;
                self.finish_destruction().await?;
                // With the fault, there is the same to do for ever.
                Ok(doomed && !planted(Fault::EpochKept))
            }
        }
    }

    pub(super) async fn prepare_epoch(&self, mark: Timestamp) -> Result<(), Error> {
        let next = self.keyring().with_prepared(mark, self.entropy());
        self.install(next, Vec::new(), |_| Ok(())).await
    }

    pub(super) async fn promote(&self, mark: Timestamp, entries: Vec<Entry>) -> Result<(), Error> {
        let Some(next) = self.keyring().promoted(mark) else { return Ok(()) };
        let epoch = next.active().number();
        self.install(next, entries, |_| Ok(())).await?;
        tracing::info!(%epoch, "another key epoch is active");
        Ok(())
    }

    /// Rewraps within the budget, until all is moved, the time is up or somebody waits.
    async fn rewrap_a_stint(&self, from: Epoch) -> Result<bool, Error> {
        let (keeper, budget) = (&self.inner.keeper, u64::from(self.settings().budget.max(1)));
        let (mut seen, mut is_whole) = (0_u64, true);
        let pace = async |rows: usize| {
            seen += rows as u64;
            keeper.progress.send_modify(|progress| {
                progress.rows_moved += rows as u64;
                progress.rows_left = progress.rows_left.saturating_sub(rows as u64);
            });
            tokio::time::sleep(std::time::Duration::from_micros(rows as u64 * 1_000_000 / budget)).await;
            if seen >= budget.saturating_mul(STINT) || keeper.waiting.load(Ordering::SeqCst) > 0 {
                is_whole = false;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        let (tried, moved) = self.rewrap(from, pace).await?;
        let left = self.store().read(|view| left_under(view, from))?.rows;
        if is_whole && left > 0 && (tried, moved) == (0, 0) {
            tracing::error!(epoch = %from, rows = left, "rows cannot be moved to the active key epoch: they were altered");
            keeper.troubles().stuck.insert(from, left);
            return Ok(false);
        }
        if left == 0 {
            keeper.troubles().stuck.remove(&from);
            tracing::info!(epoch = %from, "nothing is left under a key epoch");
            for entry in self.entries(Action::Rewrap, from, 0) {
                self.log(entry).await?;
            }
        }
        Ok(true)
    }

    /// Carries out what was decided: the doomed epoch's key goes from memory, file and copies. To be called with the turn.
    pub(super) async fn finish_destruction(&self) -> Result<(), Error> {
        let doomed = self.store().read(|view| view.meta_i64(DOOMED))?.and_then(|number| u32::try_from(number).ok());
        let Some(epoch) = doomed.filter(|number| *number > 0).map(Epoch) else { return Ok(()) };
        let entries = self.entries(Action::EpochDestroyed, epoch, 0);
        let settle = |tx: &mut Tx<'_>| tx.set_meta_i64(DOOMED, 0);
        let next = self.keyring().without(epoch).filter(|_| !planted(Fault::EpochKept));
        match next {
            Some(next) => self.install(next, entries, settle).await?,
            // The files were written before a kill; only the log does not know yet.
            None => {
                let write = move |tx: &mut Tx<'_>| {
                    entries.iter().for_each(|entry| tx.log(entry.clone()));
                    settle(tx)
                };
                self.store().run("epoch_destroyed", write).await?;
            }
        }
        tracing::info!(%epoch, "a key epoch is destroyed");
        Ok(())
    }

    /// Saves another generation in all its places, and goes on under it. To be called with the turn.
    pub(super) async fn install<F>(&self, next: Keyring, entries: Vec<Entry>, work: F) -> Result<(), Error>
    where
        F: Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static,
    {
        let next = Arc::new(next);
        let (vault, saved) = (self.clone(), Arc::clone(&next));
        let saved = tokio::task::spawn_blocking(move || vault.settings().places.install(&saved, vault.entropy()));
        if let Err(not) = saved.await.map_err(|_| StoreError::Closed)? {
            tracing::error!(reason = %not, "the keyring cannot be saved everywhere, so its keys stay as they are");
            self.inner.keeper.troubles().not_saved = Some(not.to_string());
            return Err(Error::KeyringNotSaved);
        }
        self.inner.keeper.troubles().not_saved = None;
        let adopt = move |tx: &mut Tx<'_>| {
            entries.iter().for_each(|entry| tx.log(entry.clone()));
            work(tx)
        };
        Ok(self.store().adopt(next, adopt).await?)
    }

    /// What the vault tells every tenant of an epoch.
    pub(super) fn entries(&self, action: Action, epoch: Epoch, rows: u64) -> Vec<Entry> {
        let (now, tenants) = (self.now(), self.inner.parts.policies.keys());
        // Each under a number of its own: a shared one would tell one tenant of another.
        let draft =
            |tenant| Draft::by_vault(tenant, self.new_request(), action, now).whom(Whom::Epoch { epoch, rows }).done();
        tenants.map(draft).collect()
    }
}

/// The epoch that is decided to go, and whose key may still be there; 0 for none.
const DOOMED: &str = "epoch_doomed";

/// The receipt, the ledger's line under a living epoch, and the decision, in one commit.
pub(super) fn doom(tx: &mut Tx<'_>, epoch: Epoch, receipts: Vec<Entry>, now: Timestamp) -> Result<(), StoreError> {
    tx.set_meta_i64(DOOMED, epoch.0.into())?;
    if let Some(receipt) = receipts.first() {
        tx.note(LedgerEntry {
            at: now,
            tenant: receipt.tenant.clone(),
            record: NOBODY,
            event: LedgerEvent::EpochEnded(epoch),
        });
    }
    receipts.into_iter().for_each(|receipt| tx.log(receipt));
    Ok(())
}

pub(super) fn left_under(view: &View<'_>, epoch: Epoch) -> Result<Left, StoreError> {
    let mut left = Left::default();
    for under in view.rows_under(Some(epoch))? {
        let is_waiting = under.table == IdempotencyRow::TABLE;
        *(if is_waiting { &mut left.waiting } else { &mut left.rows }) += under.rows;
    }
    Ok(left)
}
