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

use super::approval::{Ask, Gate, Gated};
use super::call::{Call, Draft};
use super::{Error, Vault};
use crate::audit::entry::{Action, Entry, RefusalCode, Whom};
use crate::crypto::keyring::places::{CopyState, Places};
use crate::crypto::keyring::{EpochFacts, Keyring};
use crate::crypto::root::{Argon2Cost, RootSource};
use crate::crypto::rotation::{Left, Postponed, Schedule, Stage, Step, alarms, plan};
use crate::crypto::slot::Canonical;
use crate::domain::fault::{Fault, planted};
use crate::domain::field::FieldReason;
use crate::domain::id::{Epoch, Generation};
use crate::domain::time::{DAY, Timestamp};
use crate::domain::token::TokenDigest;
use crate::policy::approval::Verb;
use crate::store::ledger::{LedgerEntry, LedgerEvent};
use crate::store::rows::{IdempotencyRow, Row as _};
use crate::store::{RowsUnder, StoreError, Tx, View};

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

/// The longest that two people may keep an epoch beyond its time.
const LONGEST_POSTPONEMENT: i64 = 366 * DAY;

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
struct Troubles {
    not_saved: Option<String>,
    /// Rows that a whole pass could not move.
    stuck: BTreeMap<Epoch, u64>,
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
    async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let turn = self.turn.lock().await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        turn
    }

    fn troubles(&self) -> MutexGuard<'_, Troubles> {
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

/// The keyring and all its epochs, for who looks after them.
pub struct ListedKeys {
    pub generation: Generation,
    /// Newest first.
    pub epochs: Vec<ListedEpoch>,
    pub copies: Vec<CopyState>,
    pub schedule: Schedule,
    pub warnings: Vec<String>,
}

pub struct ListedEpoch {
    pub facts: EpochFacts,
    pub stage: Stage,
    pub postponed_until: Option<Timestamp>,
    /// By table.
    pub rows: Vec<RowsUnder>,
}

/// How two people decide about an epoch.
pub struct PostponeEpoch {
    pub epoch: Epoch,
    pub until: Timestamp,
}

impl Vault {
    /// One step: does what the schedule asks for now, and goes on with what was begun.
    pub async fn keep_keys(&self) -> Result<Kept, Error> {
        let _turn = self.inner.keeper.turn.lock().await;
        self.finish_destruction().await?;
        let mark = self.inner.mark.tick(self.clock());
        let (keyring, left, postponed) = self.look()?;
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
        let (keyring, left, _) = self.look()?;
        self.tell_progress(&keyring, &left);
        failed.map_or(Ok(kept), Err)
    }

    /// Answers when somebody has ordered what the keeper should do at once.
    pub async fn keys_wanted(&self) {
        self.inner.keeper.wanted.notified().await;
    }

    /// Makes another epoch active in place of `replaced`, and tells how the rewrap goes on. When another is active already,
    /// that has been done, and the same is told.
    pub async fn rotate_kek(&self, call: &Call, replaced: Epoch) -> Result<watch::Receiver<Progress>, Error> {
        let draft = Draft::of(call, Action::RotateKek, self.now());
        let (vault, log) = (self.clone(), draft.clone());
        let rotated = self.undisturbed(async move {
            let _turn = vault.inner.keeper.turn().await;
            let active = vault.keyring().active().number();
            if replaced == Epoch(0) || replaced > active {
                return Err(Error::invalid("active_epoch", FieldReason::Unknown));
            }
            if replaced < active {
                let entry = log.whom(Whom::Epoch { epoch: active, rows: 0 }).done();
                vault.log(entry).await?;
            } else {
                let mark = vault.inner.mark.tick(vault.clock());
                if vault.keyring().prepared().is_none() {
                    vault.prepare_epoch(mark).await?;
                }
                let epoch = Epoch(active.0.saturating_add(1));
                vault.promote(mark, vec![log.whom(Whom::Epoch { epoch, rows: 0 }).done()]).await?;
            }
            let (keyring, left, _) = vault.look()?;
            vault.tell_progress(&keyring, &left);
            Ok(vault.inner.keeper.progress.subscribe())
        });
        let answer = rotated.await;
        self.inner.keeper.wanted.notify_one();
        self.watch_keys(&draft, answer).await
    }

    /// Destroys an epoch ahead of the schedule, once a second person has agreed. Nothing may be left under it. Again answers the
    /// same.
    pub async fn destroy_epoch(&self, call: &Call, epoch: Epoch) -> Result<Gated<()>, Error> {
        let about = format!("destroy key epoch {epoch} now: no backup that needs it can be opened after that");
        let ask = Ask::new(self, call, Verb::DestroyEpoch, about);
        let draft = Draft::of(call, Action::DestroyEpoch, self.now()).whom(Whom::Epoch { epoch, rows: 0 });
        let (vault, log, now) = (self.clone(), draft.clone(), self.now());
        let destroyed = self.undisturbed(async move {
            let _turn = vault.inner.keeper.turn().await;
            let write = move |tx: &mut Tx<'_>| {
                if tx.keyring().has_destroyed(epoch) {
                    tx.log(log.clone().done());
                    return Ok(Ok(Gated::Done(())));
                }
                if let Err(error) = older(tx, epoch) {
                    return Ok(Err(error));
                }
                if left_under(tx, epoch)?.all() > 0 {
                    return Ok(Err(Error::EpochInUse));
                }
                let digest = ask.digest(&Canonical::new("destroy_epoch").u64(epoch.0.into()));
                Ok(match ask.gate(tx, digest)? {
                    Gate::Closed(error) => Err(error),
                    Gate::Pending(pending) => Ok(Gated::Pending(pending)),
                    Gate::Agreed(agreed) => {
                        let entry = log.clone().under(agreed.story()).done();
                        doom(tx, epoch, vec![entry], now)?;
                        Ok(Gated::Done(()))
                    }
                })
            };
            let answer = vault.store().run("destroy_epoch", write).await??;
            vault.finish_destruction().await?;
            Ok(answer)
        });
        let answer = destroyed.await;
        self.watch_keys(&draft, answer).await
    }

    /// Keeps an epoch beyond its time, once a second person has agreed.
    pub async fn postpone_epoch(&self, call: &Call, wanted: &PostponeEpoch) -> Result<Gated<Timestamp>, Error> {
        let PostponeEpoch { epoch, until } = *wanted;
        let about =
            format!("keep key epoch {epoch} until {until}: so long, what was erased can be opened in old backups");
        let ask = Ask::new(self, call, Verb::PostponeEpoch, about);
        let draft = Draft::of(call, Action::PostponeEpoch, self.now()).whom(Whom::Epoch { epoch, rows: 0 });
        let (log, schedule) = (draft.clone(), self.settings().schedule);
        let write = move |tx: &mut Tx<'_>| {
            if let Err(error) = older(tx, epoch) {
                return Ok(Err(error));
            }
            let planned =
                schedule.stages(tx.keyring(), &Postponed::new()).into_iter().find_map(|(facts, stage)| match stage {
                    Stage::Retiring { destroy_at, .. } if facts.number == epoch => Some(destroy_at),
                    _ => None,
                });
            let in_bounds =
                planned.is_some_and(|planned| planned < until && until <= planned.plus(LONGEST_POSTPONEMENT));
            if !in_bounds {
                return Ok(Err(Error::invalid("until", FieldReason::NotATime)));
            }
            let mut postponed = read_postponed(tx)?;
            if postponed.get(&epoch) == Some(&until) {
                tx.log(log.clone().done());
                return Ok(Ok(Gated::Done(until)));
            }
            let digest = ask.digest(&Canonical::new("postpone_epoch").u64(epoch.0.into()).i64(until.0));
            Ok(match ask.gate(tx, digest)? {
                Gate::Closed(error) => Err(error),
                Gate::Pending(pending) => Ok(Gated::Pending(pending)),
                Gate::Agreed(agreed) => {
                    postponed.insert(epoch, until);
                    postponed.retain(|epoch, _| !tx.keyring().has_destroyed(*epoch));
                    write_postponed(tx, &postponed)?;
                    tx.log(log.clone().under(agreed.story()).done());
                    Ok(Gated::Done(until))
                }
            })
        };
        let answer = self.store().run("postpone_epoch", write).await.map_err(Error::from).and_then(|answer| answer);
        self.watch_keys(&draft, answer).await
    }

    /// Seals the keyring and its copies under the next root, which the configuration names. Again answers the same.
    pub async fn rotate_root(&self, call: &Call) -> Result<Generation, Error> {
        let draft = Draft::of(call, Action::RotateRoot, self.now());
        let (vault, log) = (self.clone(), draft.clone());
        let rotated = self.undisturbed(async move {
            let _turn = vault.inner.keeper.turn().await;
            let source = vault.settings().next_root.clone().ok_or(Error::NoNextRoot)?;
            let keyring = vault.keyring();
            let entropy = vault.clone();
            let unlocked = tokio::task::spawn_blocking(move || {
                if let Ok(root) = source.unlock(keyring.root_header())
                    && keyring.is_sealed_under(&root)
                {
                    return Ok(None);
                }
                let root = source.unlock(&source.fresh_header(Argon2Cost::STANDARD, entropy.entropy()))?;
                Ok::<_, crate::crypto::root::RootError>(Some(keyring.with_root(&root)))
            });
            match unlocked.await.map_err(|_| StoreError::Closed)? {
                Ok(None) => vault.log(log.done()).await?,
                Ok(Some(next)) => vault.install(next, vec![log.done()], |_| Ok(())).await?,
                Err(error) => {
                    tracing::error!(%error, "the next root key cannot be used");
                    return Err(Error::NoNextRoot);
                }
            }
            Ok(vault.keyring().generation())
        });
        let answer = rotated.await;
        self.watch_keys(&draft, answer).await
    }

    pub async fn list_keys(&self, call: &Call) -> Result<ListedKeys, Error> {
        self.log(Draft::of(call, Action::ListKeys, self.now()).done()).await?;
        let vault = self.clone();
        // Counting all rows takes its time.
        let listed = tokio::task::spawn_blocking(move || {
            let schedule = vault.settings().schedule;
            let (generation, epochs) = vault.store().read(|view| {
                let (rows, postponed) = (view.rows_under(None)?, read_postponed(view)?);
                let listed =
                    schedule.stages(view.keyring(), &postponed).into_iter().map(|(facts, stage)| ListedEpoch {
                        facts,
                        stage,
                        postponed_until: postponed.get(&facts.number).copied(),
                        rows: rows.iter().filter(|rows| rows.epoch == facts.number).cloned().collect(),
                    });
                Ok((view.keyring().generation(), listed.collect()))
            })?;
            let (copies, warnings) = (vault.settings().places.copy_states(), vault.key_warnings()?);
            Ok(ListedKeys { generation, epochs, copies, schedule, warnings })
        });
        listed.await.unwrap_or(Err(Error::Unavailable(StoreError::Closed)))
    }

    /// What an operator should know of the keys.
    pub(crate) fn key_warnings(&self) -> Result<Vec<String>, Error> {
        let (keyring, postponed) = self.store().read(|view| Ok((self.keyring(), read_postponed(view)?)))?;
        // Counting anew takes its time; the keeper does it at every interval.
        let left = self.inner.keeper.left.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let left_under = |epoch| left.get(&epoch).copied().unwrap_or_default();
        let alarms = alarms(self.now(), &keyring, &self.settings().schedule, &postponed, left_under);
        let mut warnings: Vec<String> = alarms.iter().map(ToString::to_string).collect();
        let troubles = self.inner.keeper.troubles();
        warnings.extend(
            troubles.not_saved.iter().map(|why| format!("the keyring cannot be saved, so no key is rotated: {why}")),
        );
        warnings.extend(troubles.stuck.iter().map(|(epoch, rows)| {
            format!("{rows} rows under key epoch {epoch} fail their authentication and keep it alive; see the log")
        }));
        let places = &self.settings().places;
        if places.file.is_some() && places.copies.is_empty() {
            warnings.push(
                "no copy of the keyring is registered ([keys] copies): if its file is lost, all data is lost"
                    .to_owned(),
            );
        }
        for CopyState { path, generation } in places.copy_states() {
            if generation != Some(keyring.generation()) {
                warnings.push(format!("the keyring's copy at {} is missing or behind", path.display()));
            }
        }
        Ok(warnings)
    }

    fn settings(&self) -> &KeySettings {
        &self.inner.parts.keys
    }

    /// The keyring, and what lies under its older epochs.
    fn look(&self) -> Result<(Arc<Keyring>, BTreeMap<Epoch, Left>, Postponed), Error> {
        let keyring = self.keyring();
        let (left, postponed) = self.store().read(|view| {
            let older = keyring.epochs().skip(1).map(|epoch| epoch.number());
            let left = older.map(|epoch| Ok((epoch, left_under(view, epoch)?))).collect::<Result<_, StoreError>>()?;
            Ok((left, read_postponed(view)?))
        })?;
        Ok((keyring, left, postponed))
    }

    fn tell_progress(&self, keyring: &Keyring, left: &BTreeMap<Epoch, Left>) {
        let rows_left = left.values().map(|left| left.rows).sum();
        let active = keyring.active().number();
        self.inner.keeper.progress.send_modify(|progress| *progress = Progress { active, rows_left, ..*progress });
        self.inner.keeper.left.lock().unwrap_or_else(PoisonError::into_inner).clone_from(left);
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
                Ok(doomed)
            }
        }
    }

    async fn prepare_epoch(&self, mark: Timestamp) -> Result<(), Error> {
        let next = self.keyring().with_prepared(mark, self.entropy());
        self.install(next, Vec::new(), |_| Ok(())).await
    }

    async fn promote(&self, mark: Timestamp, entries: Vec<Entry>) -> Result<(), Error> {
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
        let moved = self.rewrap(from, pace).await?;
        let left = self.store().read(|view| left_under(view, from))?.rows;
        if is_whole && left > 0 && moved == 0 {
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
    async fn finish_destruction(&self) -> Result<(), Error> {
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
    async fn install<F>(&self, next: Keyring, entries: Vec<Entry>, work: F) -> Result<(), Error>
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
    fn entries(&self, action: Action, epoch: Epoch, rows: u64) -> Vec<Entry> {
        let (request, now) = (self.new_request(), self.now());
        let tenants = self.inner.parts.policies.keys();
        let draft = |tenant| Draft::by_vault(tenant, request, action, now).whom(Whom::Epoch { epoch, rows }).done();
        tenants.map(draft).collect()
    }

    /// Runs to its end even when who asked is gone by then.
    async fn undisturbed<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        tokio::spawn(work).await.unwrap_or(Err(Error::Unavailable(StoreError::Closed)))
    }

    /// `watch`, for the refusals that only keys have.
    async fn watch_keys<T>(&self, draft: &Draft, answer: Result<T, Error>) -> Result<T, Error> {
        let code = match &answer {
            Err(Error::EpochInUse) => RefusalCode::EpochInUse,
            Err(Error::KeyringNotSaved) => RefusalCode::KeyringNotSaved,
            Err(Error::NoNextRoot) => RefusalCode::NoNextRoot,
            _ => return self.watch(draft, answer).await,
        };
        self.log(draft.clone().refused(code)).await?;
        answer
    }
}

/// The epoch that is decided to go, and whose key may still be there; 0 for none.
const DOOMED: &str = "epoch_doomed";
/// Epochs kept beyond their time: number (4) and instant (8), one after the other.
const POSTPONED: &str = "epochs_postponed";

/// The receipt, the ledger's line under a living epoch, and the decision, in one commit.
fn doom(tx: &mut Tx<'_>, epoch: Epoch, receipts: Vec<Entry>, now: Timestamp) -> Result<(), StoreError> {
    tx.set_meta_i64(DOOMED, epoch.0.into())?;
    if let Some(receipt) = receipts.first() {
        tx.note_erasure(LedgerEntry {
            at: now,
            tenant: receipt.tenant.clone(),
            record: TokenDigest([0; 16]),
            event: LedgerEvent::EpochEnded(epoch),
        });
    }
    receipts.into_iter().for_each(|receipt| tx.log(receipt));
    Ok(())
}

/// An error unless the epoch is one that a later one has replaced.
fn older(view: &View<'_>, epoch: Epoch) -> Result<(), Error> {
    let active = view.keyring().active().number();
    match view.keyring().epoch(epoch) {
        Some(_) if epoch == active => Err(Error::EpochInUse),
        Some(_) => Ok(()),
        None => Err(Error::invalid("epoch", FieldReason::Unknown)),
    }
}

fn left_under(view: &View<'_>, epoch: Epoch) -> Result<Left, StoreError> {
    let mut left = Left::default();
    for under in view.rows_under(Some(epoch))? {
        let is_waiting = under.table == IdempotencyRow::TABLE;
        *(if is_waiting { &mut left.waiting } else { &mut left.rows }) += under.rows;
    }
    Ok(left)
}

fn read_postponed(view: &View<'_>) -> Result<Postponed, StoreError> {
    let bytes = view.meta_bytes(POSTPONED)?.unwrap_or_default();
    let (epochs, rest) = bytes.as_chunks::<12>();
    if !rest.is_empty() {
        return Err(StoreError::Corrupt { table: "meta", column: "value" });
    }
    let decode = |[a, b, c, d, until @ ..]: &[u8; 12]| {
        (Epoch(u32::from_be_bytes([*a, *b, *c, *d])), Timestamp(i64::from_be_bytes(*until)))
    };
    Ok(epochs.iter().map(decode).collect())
}

fn write_postponed(tx: &Tx<'_>, postponed: &Postponed) -> Result<(), StoreError> {
    let encode = |(epoch, until): (&Epoch, &Timestamp)| [&epoch.0.to_be_bytes()[..], &until.0.to_be_bytes()].concat();
    tx.set_meta_bytes(POSTPONED, postponed.iter().flat_map(encode).collect())
}
