//! The sweeper: destroys what is due, a few records at a time, by the mark. INVARIANT: a record, or a piece of one, is destroyed
//! only if its own facts, authenticated and recomputed, make it due by the mark; the `due` column only says where to look.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::call::Draft;
use super::destroy::{Cell, destroy, destroy_noted};
use super::loaded::{Found, Loaded};
use super::once::WINDOW;
use super::stage::Staged;
use super::{Error, Vault};
use crate::audit::entry::{Action, Entry, RefusalCode};
use crate::domain::id::RecordId;
use crate::domain::time::{MINUTE, Timestamp};
use crate::domain::vocabulary::EraseReason;
use crate::policy::retention;
use crate::store::ledger::{LedgerEvent, read_after};
use crate::store::rows::RecordRow;
use crate::store::{StoreError, Tx};

/// Records destroyed in one transaction: about a millisecond, so that reads hardly wait.
const CHUNK: usize = 20;
/// How often the mark is saved.
const SAVE: i64 = MINUTE;

/// What one step of the sweeper did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    pub destroyed: usize,
    /// Records that went on without a piece of theirs.
    pub staged: usize,
    /// There was a whole chunk of something, so there may be more.
    pub more: bool,
}

/// What the sweeper keeps between its steps; nothing that a restart could not find again.
#[derive(Default)]
pub(crate) struct Progress {
    /// Due records whose facts fail their authentication: left for a person, and out of the way.
    tampered: Mutex<BTreeSet<RecordId>>,
    saved: Mutex<Option<Timestamp>>,
}

/// What becomes of a record whose index has passed.
enum Verdict {
    /// Its index was out of date.
    Stays,
    /// A piece of it goes, and the rest stays.
    GoesOn(Box<Staged>),
    /// All of it goes; where it is counted.
    Over(Box<(Loaded, Option<Cell>)>),
}

/// A due record, where it is counted, and what the log will say.
type Doomed = (RecordRow, Option<Cell>, Entry);

impl Vault {
    /// One step: moves the mark, destroys one chunk of what is due by it, expires what has served its time.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let mark = self.inner.mark.tick(self.clock());
        self.save_mark(mark).await?;
        let known: BTreeSet<RecordId> = self.tampered();
        let ids = self.store().read(|view| view.records_due(mark, CHUNK + known.len()))?;
        let ids: Vec<_> = ids.into_iter().filter(|id| !known.contains(id)).take(CHUNK).collect();
        let whole_chunk = ids.len() == CHUNK;
        let (mut due, mut staged) = (Vec::new(), Vec::new());
        for id in ids {
            match self.judged(id, mark) {
                Ok(Verdict::Over(found)) => due.push(*found),
                Ok(Verdict::GoesOn(next)) => staged.push(*next),
                Ok(Verdict::Stays) => {}
                Err(Error::Tampered { table }) => self.set_aside(id, table).await?,
                Err(error) => return Err(error),
            }
        }
        let destroyed = self.destroy_all(due, mark).await?;
        metrics::counter!("strongroom_swept_total").increment(destroyed as u64);
        let staged = self.stage_all(staged, mark).await?;
        let expired_a_chunk = self.expire(mark).await?;
        // The writer has truncated its log with the commit; if a reader held it, it does so with the next one.
        // Without progress there is nothing to hurry for.
        Ok(Swept { destroyed, staged, more: whole_chunk && destroyed + staged > 0 || expired_a_chunk })
    }

    /// Due records that were altered outside the vault and so cannot be judged.
    pub(crate) fn tampered(&self) -> BTreeSet<RecordId> {
        self.inner.sweeper.tampered.lock().map(|set| set.clone()).unwrap_or_default()
    }

    /// Destroys again what the ledger says was destroyed and this store, an older copy, brought back.
    pub(crate) async fn replay_ledger(&self) -> Result<(), Error> {
        let applied = self.store().read(|view| view.meta_i64("ledger_applied"))?.unwrap_or(0);
        let applied = u64::try_from(applied).unwrap_or(0);
        let pending = read_after(&self.store().paths().ledger, &self.keyring(), applied)?;
        let Some((last, _)) = pending.last() else { return Ok(()) };
        let last = i64::try_from(*last).unwrap_or(i64::MAX);
        tracing::warn!(entries = pending.len(), "the erasure ledger is ahead of the database; applying it");
        let now = self.now();
        for (_, line) in &pending {
            // A superseded revision's line destroys nothing here: if the correction's commit was lost in a crash, the old
            // values are the only ones there are, and nobody was told otherwise.
            let LedgerEvent::Erased(reason) = line.event else { continue };
            let found = self.store().read(|view| match self.find(view, &line.record, now)? {
                Found::Live(loaded) => {
                    let counted = reason == EraseReason::Desensitized;
                    Ok(Some((counted.then(|| self.cell(view, &loaded, now)), loaded)))
                }
                Found::Erased(_) | Found::Unknown => Ok(None),
            })?;
            let Some((cell, loaded)) = found else { continue };
            let draft = Draft::by_vault(&loaded.row.tenant, self.new_request(), Action::ReplayLedger, now);
            let entry = draft.about(loaded.row.class, Some(loaded.tag)).done();
            let record = loaded.row;
            let write = move |tx: &mut Tx<'_>| {
                destroy_noted(tx, &record, reason, cell.as_ref(), now)?;
                tx.log(entry.clone());
                Ok(())
            };
            self.store().run("replay_ledger", write).await?;
        }
        self.store().run("ledger_applied", move |tx| tx.set_meta_i64("ledger_applied", last)).await?;
        self.truncate_log().await?;
        Ok(())
    }

    fn judged(&self, id: RecordId, mark: Timestamp) -> Result<Verdict, Error> {
        Ok(self.store().read(|view| {
            let Some(row) = view.record(id)? else { return Ok(Verdict::Stays) };
            let loaded = self.loaded(view, row, mark)?;
            if !loaded.is_due(mark) {
                let next = self.staged(view, &loaded, mark)?;
                return Ok(next.map_or(Verdict::Stays, |next| Verdict::GoesOn(Box::new(next))));
            }
            let action = self.policy_of(&loaded.row)?.class(loaded.row.class).map(|rule| rule.action());
            let cell = (action == Some(retention::Action::Desensitize)).then(|| self.cell(view, &loaded, mark));
            Ok(Verdict::Over(Box::new((loaded, cell))))
        })?)
    }

    async fn destroy_all(&self, due: Vec<(Loaded, Option<Cell>)>, mark: Timestamp) -> Result<usize, Error> {
        if due.is_empty() {
            return Ok(0);
        }
        let request = self.new_request();
        let rows: Vec<Doomed> = due
            .into_iter()
            .map(|(loaded, cell)| {
                let action = if cell.is_some() { Action::Desensitize } else { Action::Purge };
                let draft = Draft::by_vault(&loaded.row.tenant, request, action, mark);
                let entry = draft.about(loaded.row.class, Some(loaded.tag)).done();
                (loaded.row, cell, entry)
            })
            .collect();
        match self.destroy_together(rows.clone(), mark).await {
            Err(Error::Tampered { .. }) => {}
            answer => return answer,
        }
        // Something beside one of the records is spoiled (a key it was stored under, a counter): it holds no other back.
        let mut destroyed = 0;
        for row in rows {
            let id = row.0.id;
            match self.destroy_together(vec![row], mark).await {
                Ok(count) => destroyed += count,
                Err(Error::Tampered { table }) => self.set_aside(id, table).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(destroyed)
    }

    /// All of them or none.
    async fn destroy_together(&self, rows: Vec<Doomed>, mark: Timestamp) -> Result<usize, Error> {
        let write = move |tx: &mut Tx<'_>| {
            let mut destroyed = 0;
            for (record, cell, entry) in &rows {
                // Changed since it was judged: the next step judges it again.
                if tx.record_version(record.id)? != Some(record.version) {
                    continue;
                }
                let reason = if cell.is_some() { EraseReason::Desensitized } else { EraseReason::Purged };
                destroy(tx, record, reason, cell.as_ref(), mark)?;
                tx.log(entry.clone());
                destroyed += 1;
            }
            Ok(destroyed)
        };
        Ok(self.store().run("sweep", write).await?)
    }

    /// A due record that cannot be judged: logged once, warned of in the status, never destroyed on an attacker's word.
    async fn set_aside(&self, id: RecordId, table: &'static str) -> Result<(), Error> {
        tracing::error!(table, record = id.0, "a due record fails its authentication and is left as it is");
        if let Ok(mut set) = self.inner.sweeper.tampered.lock() {
            set.insert(id);
        }
        let Some(tenant) = self.inner.parts.policies.keys().next().cloned() else { return Ok(()) };
        let draft = Draft::by_vault(&tenant, self.new_request(), Action::Tamper, self.now());
        self.log_as("sweep", draft.refused(RefusalCode::Tampered)).await
    }

    async fn save_mark(&self, mark: Timestamp) -> Result<(), Error> {
        let Ok(saved) = self.inner.sweeper.saved.lock().map(|saved| *saved) else { return Ok(()) };
        if saved.is_some_and(|saved| mark.since(saved) < SAVE) {
            return Ok(());
        }
        match self.store().run("save_mark", self.inner.mark.saver()).await {
            // An older mark destroys later; what is due by this one must not wait for room to save it.
            Err(StoreError::DiskFull) => return Ok(()),
            saved => saved?,
        }
        if let Ok(mut saved) = self.inner.sweeper.saved.lock() {
            *saved = Some(mark);
        }
        Ok(())
    }

    /// Idempotency keys and tombstones past their time, a chunk of each; `true`: there may be more.
    async fn expire(&self, mark: Timestamp) -> Result<bool, Error> {
        let limit = CHUNK * 5;
        let write = move |tx: &mut Tx<'_>| {
            let keys = tx.expire_idempotency(mark.plus(-WINDOW), limit)?;
            let tombstones = tx.expire_tombstones(mark, limit)?;
            Ok(keys == limit || tombstones == limit)
        };
        Ok(self.store().run("expire", write).await?)
    }
}
