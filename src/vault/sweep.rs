//! The sweeper: destroys what is due, a few records at a time, by the mark. INVARIANT: a record, or a piece of one, is destroyed
//! only if its own facts, authenticated and recomputed, make it due by the mark, and no hold stands against it; the `due` column
//! only says where to look. Far more than was forecast is not destroyed before a person has looked (`vault::pause`), and nothing
//! while the wall clock says that it is earlier than the mark (`vault::mark`).

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::announce::Hearers;
use super::call::Draft;
use super::destroy::{Told, clear, destroy};
use super::hold::HISTORY;
use super::loaded::Loaded;
use super::once::WINDOW;
use super::pause::save_window;
use super::stage::{STAGED, Staged};
use super::{Error, Vault};
use crate::audit::entry::{Action, RefusalCode, RequestId};
use crate::domain::id::{RecordId, SubjectId};
use crate::domain::time::{MINUTE, SECOND, Timestamp};
use crate::domain::vocabulary::EraseReason;
use crate::policy::forecast::Window;
use crate::policy::retention::{self, DueReason};
use crate::store::rows::RecordRow;
use crate::store::rows::erasure::TallyRow;
use crate::store::{StoreError, Tx, View};

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
    /// Due records that a hold keeps: out of the way until one is lifted.
    held: Mutex<BTreeSet<RecordId>>,
    /// Leaving subjects that fail their authentication.
    stuck: Mutex<BTreeSet<SubjectId>>,
    /// Tables of whose tampering the log has been told already.
    told: Mutex<BTreeSet<&'static str>>,
    saved: Mutex<Option<Timestamp>>,
}

/// What becomes of a record whose index has passed.
enum Verdict {
    /// Its index was out of date.
    Stays,
    /// A piece of it goes, and the rest stays.
    GoesOn(Box<Staged>),
    /// A hold stands against what would go, and nobody reads that meanwhile.
    Held,
    /// All of it goes.
    Over(Box<Due>),
}

/// A record that is due, why it is destroyed, and where it is counted.
struct Due {
    loaded: Loaded,
    reason: EraseReason,
    tally: Option<TallyRow>,
}

/// The same, ready to go.
#[derive(Clone)]
struct Doomed {
    record: RecordRow,
    reason: EraseReason,
    told: Told,
}

/// It goes now, whichever time its due was judged by: a receipt must not say that it went earlier.
fn doomed(due: Due, request: RequestId, now: Timestamp, in_backups_by: Timestamp, hearers: Hearers) -> Doomed {
    let Due { loaded, reason, tally } = due;
    let leaving = loaded.subject.leaving.filter(|leaving| leaving.concerns(loaded.row.id));
    let (action, request) = match reason {
        EraseReason::Desensitized => (Action::Desensitize, request),
        EraseReason::Purged => (Action::Purge, request),
        // What was asked for is told under the asking's number.
        _ => (Action::Erase, leaving.map_or(request, |leaving| RequestId(leaving.story.0))),
    };
    let draft = Draft::by_vault(&loaded.row.tenant, request, action, now);
    let entry = draft.about(loaded.row.class, Some(loaded.tag)).done();
    let story = leaving.map(|leaving| leaving.story);
    let told = Told { at: now, in_backups_by, entry, tally, story, hearers };
    Doomed { record: loaded.row, reason, told }
}

impl Vault {
    /// One step: moves the mark, destroys one chunk of what is due by it and of subjects that leave, expires what has served
    /// its time, closes months that are over.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let mark = self.inner.mark.tick(self.clock());
        self.save_mark(mark).await?;
        let left = self.sweep_leaving().await?;
        let (mut due, mut expired_a_chunk) = (Swept::default(), false);
        // Which of the two is wrong, a person must say; what was asked for does not wait for it.
        if !self.inner.mark.is_contradicted(self.clock().now()) {
            due = self.sweep_due(mark).await?;
            // What is due goes first; what has served its time waits for that.
            expired_a_chunk = !due.more && self.expire(mark).await?;
            self.sweep_months(mark).await?;
        }
        self.measure_sweep(mark)?;
        metrics::counter!("strongroom_swept_total").increment(due.destroyed as u64);
        // The writer has truncated its log with the commit; if a reader held it, it does so with the next one.
        let (destroyed, more) = (due.destroyed + left.destroyed, due.more || left.more || expired_a_chunk);
        Ok(Swept { destroyed, staged: due.staged, more })
    }

    /// What is due by the mark, as much of it as may go before someone must look.
    async fn sweep_due(&self, mark: Timestamp) -> Result<Swept, Error> {
        let Some(window) = self.window(mark).await? else { return Ok(Swept::default()) };
        let left = usize::try_from(window.left()).unwrap_or(usize::MAX);
        let known = self.aside();
        let ids = self.store().read(|view| view.records_due(mark, CHUNK + known.len()))?;
        let ids: Vec<_> = ids.into_iter().filter(|id| !known.contains(id)).take(CHUNK).collect();
        let whole_chunk = ids.len() == CHUNK;
        let tenants: Vec<_> = self.inner.parts.policies.keys().cloned().collect();
        for tenant in tenants.iter().filter(|_| !ids.is_empty()) {
            match self.begin_month(tenant, mark).await {
                // Whoever closes the month tells of it; what is due goes uncounted meanwhile.
                Ok(()) | Err(Error::Tampered { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let (mut due, mut staged, mut put_aside) = (Vec::new(), Vec::new(), false);
        let judged = |view: &View<'_>| Ok(ids.iter().map(|id| (*id, self.judged(view, *id, mark))).collect::<Vec<_>>());
        for (id, verdict) in self.store().read(judged)? {
            match verdict.map_err(Error::from) {
                Ok(Verdict::Over(found)) => due.push(*found),
                Ok(Verdict::GoesOn(next)) => staged.push(*next),
                Ok(Verdict::Held) => put_aside |= self.inner.sweeper.held.lock().is_ok_and(|mut set| set.insert(id)),
                Ok(Verdict::Stays) => {}
                Err(Error::Tampered { table }) => self.set_aside(id, table).await?,
                Err(error) => return Err(error),
            }
        }
        if due.len() + staged.len() > left {
            self.pause(window, mark).await?;
            due.truncate(left);
            staged.truncate(left - due.len());
        }
        let destroyed = self.destroy_all(due, window).await?;
        let staged = self.stage_all(staged, window.after(destroyed as u64), mark).await?;
        // Without progress there is nothing to hurry for.
        Ok(Swept { destroyed, staged, more: whole_chunk && (destroyed + staged > 0 || put_aside) })
    }

    /// What a caller's erasure of a subject left undone, because the caller or the vault went away.
    async fn sweep_leaving(&self) -> Result<Swept, Error> {
        let ids = self.store().read(|view| view.subjects_unseen(CHUNK))?;
        let Some(id) = ids.into_iter().find(|id| !self.is_aside(*id)) else { return Ok(Swept::default()) };
        match self.leave(id).await {
            Ok(destroyed) => Ok(Swept {
                destroyed: usize::try_from(destroyed.unwrap_or(0)).unwrap_or(0),
                more: true,
                ..Swept::default()
            }),
            Err(Error::Tampered { table }) => {
                tracing::error!(table, subject = id.0, "a leaving subject fails its authentication and stays as it is");
                if let Ok(mut set) = self.inner.sweeper.stuck.lock() {
                    set.insert(id);
                }
                self.tell_of_tampering().await?;
                Ok(Swept::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Months that are over are closed; one that was altered is told of once, and left.
    async fn sweep_months(&self, mark: Timestamp) -> Result<(), Error> {
        let tenants: Vec<_> = self.inner.parts.policies.keys().cloned().collect();
        for tenant in tenants {
            match self.tend_months(&tenant, mark).await {
                Err(Error::Tampered { table }) => {
                    tracing::error!(table, "a month of statistics fails its authentication");
                    self.tell_once(table).await?;
                }
                answer => answer?,
            }
        }
        Ok(())
    }

    /// When the oldest due record that the sweeper has still to destroy came due.
    pub(crate) fn oldest_waiting(&self, mark: Timestamp) -> Result<Option<Timestamp>, Error> {
        let known = self.aside();
        Ok(self.store().read(|view| {
            let ids = view.records_due(mark, known.len() + 1)?;
            let oldest = ids.into_iter().find(|id| !known.contains(id));
            // One that cannot be read is told of when the sweeper comes to it.
            Ok(oldest.and_then(|id| view.record(id).ok().flatten()).map(|row| row.due))
        })?)
    }

    /// How long what is due has waited, and whether it waits for a person.
    pub(crate) fn measure_sweep(&self, mark: Timestamp) -> Result<(), Error> {
        let lag = self.oldest_waiting(mark)?.map_or(0, |due| mark.since(due).max(0)) / SECOND;
        metrics::gauge!("strongroom_sweep_lag_seconds").set(f64::from(i32::try_from(lag).unwrap_or(i32::MAX)));
        metrics::gauge!("strongroom_sweep_paused").set(f64::from(u8::from(self.is_paused()?)));
        Ok(())
    }

    fn is_aside(&self, id: SubjectId) -> bool {
        self.inner.sweeper.stuck.lock().is_ok_and(|set| set.contains(&id))
    }

    /// Due records that are not destroyed now: altered, or held.
    pub(crate) fn aside(&self) -> BTreeSet<RecordId> {
        let held = self.inner.sweeper.held.lock().map(|set| set.clone()).unwrap_or_default();
        self.tampered().into_iter().chain(held).collect()
    }

    /// A hold was lifted: what was held may go.
    pub(crate) fn look_again(&self) {
        if let Ok(mut held) = self.inner.sweeper.held.lock() {
            held.clear();
        }
    }

    /// Due records that were altered outside the vault and so cannot be judged.
    pub(crate) fn tampered(&self) -> BTreeSet<RecordId> {
        self.inner.sweeper.tampered.lock().map(|set| set.clone()).unwrap_or_default()
    }

    /// What a record is destroyed as once it is due.
    pub(crate) fn reason_for(&self, loaded: &Loaded) -> Result<EraseReason, StoreError> {
        Ok(match (loaded.due.by, self.policy_of(&loaded.row)?.class(loaded.row.class)) {
            (DueReason::Asked(reason), _) => reason,
            (_, Some(rule)) if rule.action() == retention::Action::Desensitize => EraseReason::Desensitized,
            _ => EraseReason::Purged,
        })
    }

    fn judged(&self, view: &View<'_>, id: RecordId, mark: Timestamp) -> Result<Verdict, StoreError> {
        let Some(row) = view.record(id)? else { return Ok(Verdict::Stays) };
        let loaded = self.loaded(view, row, mark)?;
        if !loaded.is_due(mark) {
            let Some(next) = self.staged(view, &loaded, mark)? else { return Ok(Verdict::Stays) };
            let is_clear = clear(view, &loaded.row, STAGED)?.is_ok();
            return Ok(if is_clear { Verdict::GoesOn(Box::new(next)) } else { Verdict::Held });
        }
        let reason = self.reason_for(&loaded)?;
        if clear(view, &loaded.row, reason)?.is_err() {
            return Ok(Verdict::Held);
        }
        let counted = (reason == EraseReason::Desensitized).then(|| self.one_more(view, &loaded, mark)).flatten();
        Ok(Verdict::Over(Box::new(Due { loaded, reason, tally: counted })))
    }

    async fn destroy_all(&self, due: Vec<Due>, window: Window) -> Result<usize, Error> {
        if due.is_empty() {
            return Ok(0);
        }
        let (request, now) = (self.new_request(), self.now());
        let in_backups_by = self.in_backups_by(now);
        let hearers = |due: &Due| self.hearers(&due.loaded.row.tenant);
        let rows =
            due.into_iter().map(|due| hearers(&due).map(|hears| doomed(due, request, now, in_backups_by, hears)));
        let rows: Vec<Doomed> = rows.collect::<Result<_, StoreError>>()?;
        match self.destroy_together(rows.clone(), window).await {
            Err(Error::Tampered { .. }) => {}
            answer => return answer,
        }
        // Something beside one of the records is spoiled (a key it was stored under, a counter): it holds no other back.
        let mut destroyed = 0;
        for row in rows {
            let id = row.record.id;
            match self.destroy_together(vec![row], window.after(destroyed as u64)).await {
                Ok(count) => destroyed += count,
                Err(Error::Tampered { table }) => self.set_aside(id, table).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(destroyed)
    }

    /// All of them or none, and how many more may go.
    async fn destroy_together(&self, rows: Vec<Doomed>, window: Window) -> Result<usize, Error> {
        let write = move |tx: &mut Tx<'_>| {
            let mut destroyed = 0;
            for Doomed { record, reason, told } in &rows {
                // Changed since it was judged, or held: the next step judges it again.
                if tx.record_version(record.id)? != Some(record.version) {
                    continue;
                }
                let Ok(cleared) = clear(tx, record, *reason)? else { continue };
                destroy(tx, cleared, told.clone())?;
                destroyed += 1;
            }
            save_window(tx, window.after(destroyed as u64))?;
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
        self.tell_of_tampering().await
    }

    /// What is met at every step is told of once.
    pub(crate) async fn tell_once(&self, table: &'static str) -> Result<(), Error> {
        let is_new = self.inner.sweeper.told.lock().is_ok_and(|mut told| told.insert(table));
        if is_new { self.tell_of_tampering().await } else { Ok(()) }
    }

    async fn tell_of_tampering(&self) -> Result<(), Error> {
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

    /// Idempotency keys, tombstones and lifted holds past their time, a chunk of each; `true`: there may be more.
    async fn expire(&self, mark: Timestamp) -> Result<bool, Error> {
        let limit = CHUNK * 5;
        let write = move |tx: &mut Tx<'_>| {
            let keys = tx.expire_idempotency(mark.plus(-WINDOW), limit)?;
            let tombstones = tx.expire_tombstones(mark, limit)?;
            Ok(keys == limit || tombstones == limit)
        };
        let more = self.store().run("expire", write).await?;
        // A hold is deleted by its own word that it was lifted, not by a column's.
        let lifted = match self.store().read(|view| view.holds_lifted(mark.plus(-HISTORY), CHUNK)) {
            Err(StoreError::Tampered { table } | StoreError::Corrupt { table, .. }) => {
                tracing::error!(table, "a hold that is marked as lifted fails its authentication, and stays");
                self.tell_once(table).await?;
                return Ok(more);
            }
            lifted => lifted?,
        };
        if lifted.is_empty() {
            return Ok(more);
        }
        let is_whole_chunk = lifted.len() == CHUNK;
        let delete = move |tx: &mut Tx<'_>| lifted.iter().try_for_each(|hold| tx.delete_hold(hold.id));
        self.store().run("expire_holds", delete).await?;
        Ok(more || is_whole_chunk)
    }
}
