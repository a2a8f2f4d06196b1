//! What people order and see of the key epochs. INVARIANT: what makes an epoch go before its time, or stay beyond it, takes two
//! people; every order may be given again and answers the same; who orders and hangs up stops nothing.

use tokio::sync::watch;

use super::approval::{Ask, Gate, Gated};
use super::call::{Call, Draft};
use super::rotate::{Progress, Sight, doom, left_under};
use super::{Error, Vault};
use crate::audit::entry::{Action, RefusalCode, Whom};
use crate::crypto::keyring::EpochFacts;
use crate::crypto::keyring::places::CopyState;
use crate::crypto::root::{Argon2Cost, RootError};
use crate::crypto::rotation::{Postponed, Schedule, Stage, alarms};
use crate::crypto::slot::Canonical;
use crate::domain::field::FieldReason;
use crate::domain::id::{Epoch, Generation};
use crate::domain::time::{DAY, Timestamp};
use crate::policy::approval::Verb;
use crate::store::{RowsUnder, StoreError, Tx, View};

/// The longest that two people may keep an epoch beyond its time.
const LONGEST_POSTPONEMENT: i64 = 366 * DAY;

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
            let counting = vault.clone();
            // Counting all rows takes its time.
            let sight = tokio::task::spawn_blocking(move || counting.look()).await;
            let Sight { keyring, left, .. } = sight.map_err(|_| StoreError::Closed)??;
            vault.tell_progress(&keyring, &left);
            Ok(vault.inner.keeper.subscribe())
        });
        let answer = rotated.await;
        self.inner.keeper.wake();
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
                let fresh = source.fresh(Argon2Cost::STANDARD, entropy.entropy())?;
                // A server has nobody to hand shares to.
                let is_whole = fresh.shares.is_empty();
                let next = is_whole.then(|| keyring.with_root(&fresh.root));
                next.map(Some).ok_or(RootError::SharesNotHeldBack)
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
        // As above.
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
        let left = self.inner.keeper.left().clone();
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

/// Epochs kept beyond their time: number (4) and instant (8), one after the other.
const POSTPONED: &str = "epochs_postponed";

/// An error unless the epoch is one that a later one has replaced.
fn older(view: &View<'_>, epoch: Epoch) -> Result<(), Error> {
    let active = view.keyring().active().number();
    match view.keyring().epoch(epoch) {
        Some(_) if epoch == active => Err(Error::EpochInUse),
        Some(_) => Ok(()),
        None => Err(Error::invalid("epoch", FieldReason::Unknown)),
    }
}

pub(super) fn read_postponed(view: &View<'_>) -> Result<Postponed, StoreError> {
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
