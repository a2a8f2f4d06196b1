//! Legal holds: placed by the privacy officer, lifted by two people. INVARIANT: from the commit that places a hold until that
//! which lifts it nothing it is on is destroyed; it changes nothing about who may read. What the case is called lies sealed
//! under the subject's key, and goes when the hold is lifted.

use zeroize::Zeroizing;

use super::approval::{Ask, Gate, Gated};
use super::call::{Call, Draft};
use super::destroy::count_holds;
use super::error::unopened;
use super::loaded::{Found, Held};
use super::once::Once;
use super::tokenize::about;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::crypto::envelope::{Dek, Sealed, open, seal};
use crate::crypto::slot::{Canonical, Part, SealSlot};
use crate::domain::field::{CaseReference, CustomerReference, IdempotencyKey};
use crate::domain::id::{HoldId, RecordId, Revision};
use crate::domain::time::{DAY, Timestamp};
use crate::domain::token::{Token, TokenDigest};
use crate::domain::vocabulary::HoldKind;
use crate::policy::approval::Verb;
use crate::store::ledger::{Learned, LedgerEntry, NOBODY};
use crate::store::rows::SubjectRow;
use crate::store::rows::erasure::HoldRow;
use crate::store::{StoreError, Tx, View};

/// How long a lifted hold is remembered, as an approval is.
pub(crate) const HISTORY: i64 = 90 * DAY;
/// Holds on one page of a listing.
pub const PAGE: usize = 256;

/// Whose records a request is about.
pub enum Which {
    Record(Token),
    /// Every record of the subject that this one belongs to.
    SubjectOf(Token),
    /// Every record of the subject that the shop calls so.
    Subject(CustomerReference),
}

pub struct PlaceHold {
    pub key: IdempotencyKey,
    pub which: Which,
    pub kind: HoldKind,
    pub case: CaseReference,
}

/// A hold as the privacy officer sees it.
pub struct HoldShown {
    pub row: HoldRow,
    /// Gone once the hold is lifted.
    pub case: Option<Zeroizing<String>>,
}

/// What a hold is placed on.
struct Target {
    subject: SubjectRow,
    /// The subject's, of the same snapshot: it may be gone in the next.
    key: Dek,
    record: Option<RecordId>,
    digest: TokenDigest,
    draft: Draft,
}

impl Vault {
    pub async fn place_hold(&self, call: &Call, ask: &PlaceHold) -> Result<HoldId, Error> {
        let draft = Draft::of(call, Action::PlaceHold, self.now());
        let answer = self.try_place(call, ask, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_place(&self, call: &Call, ask: &PlaceHold, draft: &Draft) -> Result<HoldId, Error> {
        let (scope, what) = match &ask.which {
            Which::Record(token) => (1, token.digest(&call.caller.tenant).0.to_vec()),
            Which::SubjectOf(token) => (2, token.digest(&call.caller.tenant).0.to_vec()),
            Which::Subject(reference) => (3, reference.expose().as_bytes().to_vec()),
        };
        let what = Zeroizing::new(what);
        let case = ask.case.expose().as_bytes();
        let once = self.once(call, "place_hold", &ask.key, &[&[scope, ask.kind.code()], &what, case]);
        for _ in 0..ATTEMPTS {
            if let Some(row) = self.done_before(&once, draft).await? {
                self.log(draft.clone().action(Action::Replay).done()).await?;
                return Ok(HoldId(i64::from_be_bytes(row.result.try_into().unwrap_or_default())));
            }
            let now = self.now();
            let target = match self.store().read(|view| self.target(view, call, ask, draft, now))? {
                Ok(target) => target,
                Err((code, told)) => return self.refuse(draft.clone(), code, told).await,
            };
            match self.write_hold(call, ask, &once, target, now).await {
                Err(Error::Unavailable(StoreError::Raced)) => {}
                answer => return answer,
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    fn target(
        &self,
        view: &View<'_>,
        call: &Call,
        ask: &PlaceHold,
        draft: &Draft,
        now: Timestamp,
    ) -> Result<Result<Target, (RefusalCode, Error)>, StoreError> {
        let tenant = &call.caller.tenant;
        let token = match &ask.which {
            Which::Record(token) | Which::SubjectOf(token) => token,
            Which::Subject(reference) => {
                let Some(subject) = self.subject_called(view, tenant, reference)? else {
                    return Ok(Err((RefusalCode::Unknown, Error::NotFound)));
                };
                let (digest, key) = (TokenDigest([0; 16]), self.subject_key(view, &subject)?);
                return Ok(Ok(Target { subject, key, record: None, digest, draft: draft.clone() }));
            }
        };
        let digest = token.digest(tenant);
        Ok(match self.find(view, &digest, now)? {
            Found::Unknown => Err((RefusalCode::Unknown, Error::NotFound)),
            Found::Erased(_) => Err((RefusalCode::Erased, Error::Erased)),
            Found::Live(loaded) => {
                let draft = about(draft, &loaded);
                let record = matches!(ask.which, Which::Record(_)).then_some(loaded.row.id);
                let key = self.subject_key(view, &loaded.subject)?;
                Ok(Target { subject: loaded.subject, key, record, digest, draft })
            }
        })
    }

    async fn write_hold(
        &self,
        call: &Call,
        ask: &PlaceHold,
        once: &Once,
        target: Target,
        now: Timestamp,
    ) -> Result<HoldId, Error> {
        let Target { subject, key, record, digest, draft } = target;
        let id = HoldId(self.store().allocate()?);
        let sealed = seal(&key, &case_slot(&subject, id), ask.case.expose().as_bytes(), self.entropy());
        let hold = HoldRow {
            id,
            tenant: subject.tenant.clone(),
            subject: subject.id,
            record,
            kind: ask.kind,
            reference: sealed.map_err(unopened("hold"))?.as_bytes().to_vec(),
            placed_by: call.caller.id(),
            placed_at: now,
            lifted_at: None,
        };
        // A whole subject's requests are filed under its number, which no record has.
        let filed = record.unwrap_or(RecordId(subject.id.0));
        let row = once.row(filed, digest, id.0.to_be_bytes().to_vec(), now)?;
        let entry = draft.done();
        let write = move |tx: &mut Tx<'_>| {
            tx.insert_idempotency(&row)?;
            // What it is placed on may have gone since; then this is another answer.
            if record.map_or(Ok(None), |record| tx.record_version(record))?.is_none() && record.is_some() {
                return Err(StoreError::Raced);
            }
            tx.insert_hold(&hold)?;
            count_holds(tx, hold.subject, 1)?;
            tx.note(LedgerEntry::learned(&hold.tenant, NOBODY, now, placed(&hold, record.map(|_| digest))));
            tx.log(entry.clone());
            Ok(())
        };
        self.store().run("place_hold", write).await?;
        Ok(id)
    }

    /// Lifts a hold; takes two people. What it kept back and is due goes with the sweeper's next step. A lifted one answers
    /// the same again.
    pub async fn lift_hold(&self, call: &Call, id: HoldId) -> Result<Gated<Timestamp>, Error> {
        let draft = Draft::of(call, Action::LiftHold, self.now());
        let answer = self.try_lift(call, id, &draft).await;
        if matches!(answer, Ok(Gated::Done(_))) {
            self.look_again();
        }
        self.watch(&draft, answer).await
    }

    async fn try_lift(&self, call: &Call, id: HoldId, draft: &Draft) -> Result<Gated<Timestamp>, Error> {
        let tenant = call.caller.tenant.clone();
        let found = self.store().read(|view| Ok(view.hold(id)?.filter(|hold| hold.tenant == tenant)))?;
        let Some(hold) = found else {
            return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await;
        };
        let on = if hold.record.is_some() { "one record" } else { "every record of one subject" };
        let about = format!("lift hold-{id}, a {} hold on {on}, placed by {}", hold.kind, hold.placed_by);
        let ask = Ask::new(self, call, Verb::LiftHold, about);
        let request = Canonical::new("strongroom/lift-hold").i64(id.0);
        let (now, draft) = (self.now(), draft.clone());
        let write = move |tx: &mut Tx<'_>| {
            let Some(hold) = tx.hold(id)? else {
                tx.log(draft.clone().refused(RefusalCode::Unknown));
                return Ok(Err(Error::NotFound));
            };
            if let Some(at) = hold.lifted_at {
                tx.log(draft.clone().action(Action::Replay).done());
                return Ok(Ok(Gated::Done(at)));
            }
            match ask.gate(tx, ask.digest(&request))? {
                Gate::Pending(pending) => Ok(Ok(Gated::Pending(pending))),
                Gate::Closed(error) => Ok(Err(error)),
                Gate::Agreed(agreed) => {
                    count_holds(tx, hold.subject, -1)?;
                    let lifted = Learned::HoldLifted { id: hold.id, lifted_at: now };
                    tx.note(LedgerEntry::learned(&hold.tenant, NOBODY, now, lifted));
                    tx.update_hold(&HoldRow { reference: Vec::new(), lifted_at: Some(now), ..hold })?;
                    tx.log(draft.clone().under(agreed.story()).done());
                    Ok(Ok(Gated::Done(now)))
                }
            }
        };
        self.store().run("lift_hold", write).await?
    }

    /// A page of the tenant's holds after that number, oldest first, those lifted of late among them.
    pub async fn list_holds(&self, call: &Call, after: HoldId) -> Result<Vec<HoldShown>, Error> {
        let draft = Draft::of(call, Action::ListHolds, self.now());
        let listed = self.store().read(|view| {
            let holds = view.holds(&call.caller.tenant, after, PAGE)?;
            holds.into_iter().map(|row| self.shown(view, row)).collect::<Result<Vec<_>, _>>()
        });
        let held = Held::new(self.watch(&draft, listed.map_err(Error::from)).await?);
        let entry = draft.done();
        let logged = self.log_read("list_holds", move |tx| {
            tx.log(entry.clone());
            Ok(true)
        });
        logged.await?.map(|receipt| held.release(&receipt)).ok_or(Error::Unavailable(StoreError::Raced))
    }

    fn shown(&self, view: &View<'_>, row: HoldRow) -> Result<HoldShown, StoreError> {
        if row.lifted_at.is_some() {
            return Ok(HoldShown { row, case: None });
        }
        let subject = view.subject(row.subject)?.ok_or(StoreError::Tampered { table: "hold" })?;
        let sealed = Sealed::from_bytes(row.reference.clone());
        let opened = open(&self.subject_key(view, &subject)?, &case_slot(&subject, row.id), &sealed);
        let opened = opened.map_err(unopened("hold"))?;
        let text = std::str::from_utf8(opened.expose()).map_err(|_| StoreError::Tampered { table: "hold" })?;
        Ok(HoldShown { row, case: Some(Zeroizing::new(text.to_owned())) })
    }
}

fn placed(hold: &HoldRow, record: Option<TokenDigest>) -> Learned {
    Learned::HoldPlaced {
        subject: hold.subject,
        record,
        id: hold.id,
        kind: hold.kind,
        reference: hold.reference.clone(),
        placed_by: hold.placed_by.clone(),
        placed_at: hold.placed_at,
    }
}

fn case_slot(subject: &SubjectRow, id: HoldId) -> SealSlot<'_> {
    let (tenant, part, dek) = (&subject.tenant, Part::Case(id), subject.dek);
    SealSlot { tenant, record: RecordId(0), part, revision: Revision(0), dek }
}
