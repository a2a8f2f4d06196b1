//! Erasing a subject: all of its records, and with the last one the subject itself. INVARIANT: from the commit that marks the
//! subject as leaving, every record of it that nothing keeps is unreadable, and goes whoever is killed meanwhile; what must
//! stay is told with its reason, and goes by itself when that reason does.
//!
//! How it goes:
//! ```text
//! begin    one commit: the subject is leaving (when, why, under which number), none of its records is seen yet, entry
//! chunk    up to 20 records: what is due by the leaving and not held → `destroy`, under the number; of what must stay the
//!          `due` column is set anew; the subject remembers how far this came. The caller's stream drives it, and
//!          whatever that leaves undone the sweeper does
//! list     receipts of all that went under the number; what is kept, and why
//! later    a case closes: the record's due has come, by the sweeper. A hold is lifted: the same
//! ```
//! The same request again goes on, and answers the same list; so does a new one for a record or subject that is leaving.

use zeroize::Zeroizing;

use super::call::{Call, Draft};
use super::destroy::{Told, clear, destroy, in_force};
use super::hold::Which;
use super::loaded::{Held, Loaded};
use super::once::Once;
use super::stage::next_due;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode, RequestId, SubjectTag};
use crate::crypto::mac::index_tag;
use crate::crypto::slot::Part;
use crate::domain::field::{CustomerReference, IdempotencyKey};
use crate::domain::id::{ErasureId, RecordId, SubjectId, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::token::{Token, TokenDigest};
use crate::domain::vocabulary::{Class, EraseReason, EventKind, HoldKind};
use crate::policy::hold::stands_against;
use crate::policy::leaving::Leaving;
use crate::policy::retention::DueReason;
use crate::store::ledger::{Learned, LedgerEntry, NOBODY};
use crate::store::rows::{IdempotencyRow, RecordRow, SubjectRow};
use crate::store::{StoreError, Tx, View};

/// Records looked at in one transaction, as the sweeper's.
const CHUNK: usize = 20;
/// Before every record, whatever number somebody may have written to one: it must be looked at to be told as altered.
pub(crate) const BEFORE_ALL: RecordId = RecordId(i64::MIN);
/// The blind index of the shop's reference of a customer.
pub(crate) const REFERENCE: &str = "customer-reference";

pub struct EraseSubject {
    pub key: IdempotencyKey,
    /// Never a single record.
    pub which: Which,
    /// The subject's asking, a cancellation, or a minor.
    pub reason: EraseReason,
}

/// An erasure under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubjectErasure {
    pub story: ErasureId,
    stage: Stage,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    Destroying(SubjectId),
    /// Receipts after that digest.
    Receipts(Option<SubjectId>, Option<TokenDigest>),
    /// What is kept, after that record.
    Keeping(SubjectId, RecordId),
    Over,
}

/// One piece of news of an erasure.
pub enum SubjectNews {
    /// So many records were destroyed just now.
    Progress(u64),
    /// The signed receipt of one record.
    Receipt(String),
    Kept(KeptRecord),
}

/// A record that must stay for now.
pub struct KeptRecord {
    /// `None`: the record was altered outside the vault, and is left to a person.
    pub token: Option<Token>,
    pub class: Class,
    pub why: Keeping,
    /// When it goes at the latest; a hold has no end of its own.
    pub until: Option<Timestamp>,
}

/// Why a record of a leaving subject stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keeping {
    Held(HoldKind),
    /// Something is open; it goes when these have come.
    Waiting(Vec<EventKind>),
    /// It fails its authentication.
    Tampered,
}

/// Who is to leave.
enum Leaver {
    /// With its tag of the day, of the same snapshot: in the next one it may be gone.
    There(Box<(SubjectRow, SubjectTag)>),
    /// The story by which it went, if it was ever there.
    Gone(Option<ErasureId>),
}

/// What to do with one record.
enum Judged {
    Goes(Box<Loaded>),
    Stays(Box<Loaded>),
    Altered,
}

impl Vault {
    /// Marks the subject as leaving; the caller then lets it go on until it is over.
    pub async fn erase_subject(&self, call: &Call, ask: &EraseSubject) -> Result<SubjectErasure, Error> {
        let draft = Draft::of(call, Action::EraseSubject, self.now());
        let answer = self.try_begin(call, ask, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_begin(&self, call: &Call, ask: &EraseSubject, draft: &Draft) -> Result<SubjectErasure, Error> {
        let tenant = &call.caller.tenant;
        let what = Zeroizing::new(match &ask.which {
            Which::Record(token) | Which::SubjectOf(token) => token.digest(tenant).0.to_vec(),
            Which::Subject(reference) => reference.expose().as_bytes().to_vec(),
        });
        let once = self.once(call, "erase_subject", &ask.key, &[&[ask.reason.code()], &what]);
        for _ in 0..ATTEMPTS {
            let now = self.now();
            let known = match self.store().read(|view| once.known(view))? {
                Ok(known) => known,
                Err(Error::KeyReused) => {
                    return self.refuse(draft.clone(), RefusalCode::Conflict, Error::KeyReused).await;
                }
                Err(error) => return Err(error),
            };
            if let Some(row) = known {
                let story = ErasureId(row.token.0);
                // The request is filed under the subject's number.
                let id = SubjectId(row.record.0);
                let goes_on = self.store().read(|view| view.subject(id))?;
                if goes_on.is_none() && self.store().read(|view| view.subject_has_records(id))? {
                    return Err(Error::Tampered { table: "subject" });
                }
                self.log(draft.clone().under(RequestId(story.0)).action(Action::Replay).done()).await?;
                return Ok(going(story, goes_on.map(|subject| subject.id)));
            }
            let (subject, tag) = match self.store().read(|view| self.leaver(view, tenant, &ask.which, now))? {
                Leaver::There(leaver) => *leaver,
                Leaver::Gone(Some(story)) => {
                    self.log(draft.clone().under(RequestId(story.0)).action(Action::Replay).done()).await?;
                    return Ok(going(story, None));
                }
                Leaver::Gone(None) => return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await,
            };
            let draft = draft.clone().of_subject(tag);
            match self.begin(call, ask, &once, subject, draft, now).await {
                Err(Error::Unavailable(StoreError::Raced)) => {}
                answer => return answer,
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    /// The subject that is meant.
    fn leaver(&self, view: &View<'_>, tenant: &TenantId, which: &Which, now: Timestamp) -> Result<Leaver, StoreError> {
        let there = |subject: SubjectRow| {
            let tag = self.tag_of(view, &subject, now)?;
            Ok::<_, StoreError>(Leaver::There(Box::new((subject, tag))))
        };
        let token = match which {
            Which::Subject(reference) => {
                let subject = self.subject_called(view, tenant, reference)?;
                return subject.map_or(Ok(Leaver::Gone(None)), there);
            }
            Which::Record(token) | Which::SubjectOf(token) => token,
        };
        let digest = token.digest(tenant);
        match view.record_by_digest(&digest)? {
            Some(record) => {
                let subject = view.subject(record.subject)?.ok_or(StoreError::Tampered { table: "subject" })?;
                there(subject)
            }
            None => Ok(Leaver::Gone(view.tombstone(&digest)?.and_then(|tombstone| tombstone.story))),
        }
    }

    /// The subject that the shop calls so.
    pub(crate) fn subject_called(
        &self,
        view: &View<'_>,
        tenant: &TenantId,
        reference: &CustomerReference,
    ) -> Result<Option<SubjectRow>, StoreError> {
        for epoch in view.keyring().epochs() {
            let tag = index_tag(epoch, tenant, REFERENCE, reference.expose().as_bytes());
            if let Some(row) = view.subject_by_tag(&tag)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    async fn begin(
        &self,
        call: &Call,
        ask: &EraseSubject,
        once: &Once,
        subject: SubjectRow,
        draft: Draft,
        now: Timestamp,
    ) -> Result<SubjectErasure, Error> {
        // One story for one subject, however often it is asked for; the weightiest reason stands.
        let before = subject.leaving;
        let story = before.map_or(ErasureId(call.request.0), |leaving| leaving.story);
        let was_a_minors = before.is_some_and(|leaving| leaving.reason == EraseReason::Minor);
        let reason = if was_a_minors { EraseReason::Minor } else { ask.reason };
        let last = RecordId(self.store().allocate()?);
        let leaving = Leaving { at: self.inner.mark.tick(self.clock()), reason, story, last };
        let row = SubjectRow { leaving: Some(leaving), unseen: Some(BEFORE_ALL), ..subject.clone() };
        let id = row.id;
        let key = once.row(RecordId(id.0), TokenDigest(story.0), Vec::new(), now)?;
        let entry = draft.under(RequestId(story.0)).done();
        let write = move |tx: &mut Tx<'_>| {
            tx.insert_idempotency(&key)?;
            if tx.subject(id)?.is_none_or(|now| now != subject) {
                return Err(StoreError::Raced);
            }
            tx.update_subject(&row)?;
            tx.note(LedgerEntry::learned(&row.tenant, NOBODY, now, Learned::Leaving(id, leaving)));
            tx.log(entry.clone());
            Ok(())
        };
        self.store().run("erase_subject", write).await?;
        Ok(going(story, Some(id)))
    }

    /// One step of an erasure: what came of it; nothing once it is over.
    pub async fn go_on(&self, call: &Call, erasure: &mut SubjectErasure) -> Result<Vec<SubjectNews>, Error> {
        let draft = Draft::of(call, Action::EraseSubject, self.now());
        let answer = self.try_go_on(erasure, &draft.clone().under(RequestId(erasure.story.0))).await;
        self.watch(&draft, answer).await
    }

    async fn try_go_on(&self, erasure: &mut SubjectErasure, draft: &Draft) -> Result<Vec<SubjectNews>, Error> {
        loop {
            let news = match erasure.stage.clone() {
                Stage::Destroying(subject) => match self.leave(subject).await? {
                    Some(destroyed) => vec![SubjectNews::Progress(destroyed)],
                    None => {
                        self.truncate_log().await?;
                        erasure.stage = Stage::Receipts(Some(subject), None);
                        Vec::new()
                    }
                },
                Stage::Receipts(subject, after) => self.receipts(erasure, subject, after)?,
                Stage::Keeping(subject, after) => self.kept(erasure, subject, after, draft).await?,
                Stage::Over => return Ok(Vec::new()),
            };
            if !news.is_empty() {
                return Ok(news);
            }
        }
    }

    /// Looks at the next chunk of a leaving subject's records: what can go goes. `None`: every one was looked at.
    pub(crate) async fn leave(&self, id: SubjectId) -> Result<Option<u64>, Error> {
        for _ in 0..ATTEMPTS {
            let now = self.now();
            let read = self.store().read(|view| {
                let Some(subject) = view.subject(id)? else { return Ok(None) };
                let (Some(leaving), Some(after)) = (subject.leaving, subject.unseen) else { return Ok(None) };
                let ids = view.record_ids_of(id, after.0, CHUNK)?;
                let judged: Result<Vec<_>, StoreError> =
                    ids.iter().map(|id| self.judge_leaving(view, *id, leaving, now)).collect();
                let unseen = ids.last().copied().filter(|_| ids.len() == CHUNK);
                Ok(Some((SubjectRow { unseen, ..subject.clone() }, subject, judged?)))
            })?;
            let Some((next, before, judged)) = read else { return Ok(None) };
            match self.leave_together(next, before, judged, now).await {
                Err(Error::Unavailable(StoreError::Raced)) => {}
                answer => return answer.map(Some),
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    fn judge_leaving(
        &self,
        view: &View<'_>,
        id: RecordId,
        leaving: Leaving,
        now: Timestamp,
    ) -> Result<Option<Judged>, StoreError> {
        let loaded = match view.record(id).and_then(|row| row.map(|row| self.loaded(view, row, now)).transpose()) {
            Ok(Some(loaded)) => Box::new(loaded),
            Ok(None) => return Ok(None),
            Err(StoreError::Tampered { table } | StoreError::Corrupt { table, .. }) => {
                tracing::error!(table, record = id.0, "a record of a leaving subject fails its authentication");
                return Ok(Some(Judged::Altered));
            }
            Err(error) => return Err(error),
        };
        // What was asked for goes by the clock; what else is over, as everywhere, by the mark.
        let is_asked_for = matches!(loaded.due.by, DueReason::Asked(_)) && loaded.is_due(now);
        let is_over = leaving.concerns(loaded.row.id) && (is_asked_for || loaded.is_due(self.inner.mark.at()));
        let goes = is_over && clear(view, &loaded.row, leaving.reason)?.is_ok();
        Ok(Some(if goes { Judged::Goes(loaded) } else { Judged::Stays(loaded) }))
    }

    async fn leave_together(
        &self,
        next: SubjectRow,
        before: SubjectRow,
        judged: Vec<Option<Judged>>,
        now: Timestamp,
    ) -> Result<u64, Error> {
        let Some(Leaving { reason, story, .. }) = next.leaving else { return Ok(0) };
        let draft = Draft::by_vault(&next.tenant, RequestId(story.0), Action::Erase, now);
        let (mut going, mut staying, mut altered) = (Vec::new(), Vec::new(), Vec::new());
        for judged in judged.into_iter().flatten() {
            match judged {
                Judged::Goes(loaded) => {
                    let entry = draft.clone().about(loaded.row.class, Some(loaded.tag)).done();
                    let (in_backups_by, hearers) = (self.in_backups_by(now), self.hearers(&loaded.row.tenant)?);
                    let told = Told { at: now, in_backups_by, entry, tally: None, story: Some(story), hearers };
                    going.push((loaded.row, told));
                }
                // The index must know when it goes by itself.
                Judged::Stays(loaded) => {
                    let due = next_due(&loaded.due, &loaded.stages, loaded.row.fields);
                    if due != loaded.row.due {
                        let version = loaded.row.version + 1;
                        staying.push(RecordRow { due, version, ..loaded.row });
                    }
                }
                Judged::Altered => {
                    altered.push(draft.clone().action(Action::Tamper).refused(RefusalCode::Tampered));
                }
            }
        }
        let destroyed = going.len() as u64;
        let write = move |tx: &mut Tx<'_>| {
            if tx.subject(next.id)?.is_none_or(|now| now != before) {
                return Err(StoreError::Raced);
            }
            for (record, told) in &going {
                if tx.record_version(record.id)? != Some(record.version) {
                    return Err(StoreError::Raced);
                }
                let Ok(cleared) = clear(tx, record, reason)? else { return Err(StoreError::Raced) };
                destroy(tx, cleared, told.clone())?;
            }
            staying.iter().try_for_each(|record| tx.update_record(record))?;
            altered.iter().for_each(|entry| tx.log(entry.clone()));
            // With its last record the subject is gone itself.
            let unseen = next.unseen;
            tx.subject(next.id)?.map_or(Ok(()), |now| tx.update_subject(&SubjectRow { unseen, ..now }))
        };
        self.store().run("leave", write).await?;
        Ok(destroyed)
    }

    /// A page of receipts, made of the tombstones.
    fn receipts(
        &self,
        erasure: &mut SubjectErasure,
        subject: Option<SubjectId>,
        after: Option<TokenDigest>,
    ) -> Result<Vec<SubjectNews>, Error> {
        let page = self.store().read(|view| view.tombstones_of(erasure.story, after, CHUNK))?;
        erasure.stage = match (page.last(), subject) {
            (Some(last), _) => Stage::Receipts(subject, Some(last.digest)),
            (None, Some(subject)) => Stage::Keeping(subject, BEFORE_ALL),
            (None, None) => Stage::Over,
        };
        Ok(page.iter().filter_map(|tombstone| self.signed(tombstone)).map(SubjectNews::Receipt).collect())
    }

    /// A page of what stays. Its tokens leave only logged.
    async fn kept(
        &self,
        erasure: &mut SubjectErasure,
        subject: SubjectId,
        after: RecordId,
        draft: &Draft,
    ) -> Result<Vec<SubjectNews>, Error> {
        let now = self.now();
        let (last, kept) = self.store().read(|view| {
            let leaving = view.subject(subject)?.and_then(|subject| subject.leaving);
            let ids = view.record_ids_of(subject, after.0, CHUNK)?;
            let mut kept = Vec::new();
            if let Some(leaving) = leaving {
                for id in &ids {
                    kept.extend(self.keeping(view, *id, leaving, now)?);
                }
            }
            Ok((ids.last().copied(), kept))
        })?;
        erasure.stage = last.map_or(Stage::Over, |last| Stage::Keeping(subject, last));
        if kept.is_empty() {
            return Ok(Vec::new());
        }
        let held = Held::new(kept);
        let entry = draft.clone().done();
        let logged = self.log_read("kept", move |tx| {
            tx.log(entry.clone());
            Ok(true)
        });
        let receipt = logged.await?.ok_or(Error::Unavailable(StoreError::Raced))?;
        Ok(held.release(&receipt).into_iter().map(SubjectNews::Kept).collect())
    }

    fn keeping(
        &self,
        view: &View<'_>,
        id: RecordId,
        leaving: Leaving,
        now: Timestamp,
    ) -> Result<Option<KeptRecord>, StoreError> {
        let Some(row) = view.record(id)? else { return Ok(None) };
        if !leaving.concerns(row.id) {
            return Ok(None);
        }
        let class = row.class;
        let opened = || {
            let loaded = self.loaded(view, row, now)?;
            let token = loaded.open_part(view, &loaded.key(view)?, Part::Token)?;
            let token = token.expose().try_into().map_err(|_| StoreError::Tampered { table: "sealed" })?;
            Ok((loaded, Token::from_bytes(token)))
        };
        let (loaded, token) = match opened() {
            Ok(opened) => opened,
            Err(StoreError::Tampered { .. } | StoreError::Corrupt { .. }) => {
                return Ok(Some(KeptRecord { token: None, class, why: Keeping::Tampered, until: None }));
            }
            Err(error) => return Err(error),
        };
        let holds = in_force(view, &loaded.row)?;
        let held = stands_against(leaving.reason, holds.iter().map(|hold| hold.kind));
        let (why, until) = match held {
            Some(kind) => (Keeping::Held(kind), None),
            None => (Keeping::Waiting(loaded.due.waiting_for), Some(loaded.due.at)),
        };
        Ok(Some(KeptRecord { token: Some(token), class, why, until }))
    }
}

fn going(story: ErasureId, subject: Option<SubjectId>) -> SubjectErasure {
    let stage = subject.map_or(Stage::Receipts(None, None), Stage::Destroying);
    SubjectErasure { story, stage }
}

/// What a key has led to, be it erased since: the story is what remains of it.
impl Once {
    fn known(&self, view: &View<'_>) -> Result<Result<Option<IdempotencyRow>, Error>, StoreError> {
        Ok(match self.before(view) {
            Err(Error::Erased) => self.blanked(view).map_err(Error::from),
            answer => answer,
        })
    }
}
