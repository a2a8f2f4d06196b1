//! Business events: what starts and holds retention. INVARIANT: until a record is due, its facts are the same whatever order
//! its events arrive in; from then on every event answers `TooLate`, so a due never reverts.

use super::call::{Call, Draft};
use super::describe::due_by;
use super::loaded::{Found, Loaded, as_it_left};
use super::once::Once;
use super::shipment::end_grants;
use super::stage::next_due;
use super::tokenize::about;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, Entry, RefusalCode};
use crate::domain::field::{FieldReason, IdempotencyKey};
use crate::domain::time::{DAY, MINUTE, Timestamp};
use crate::domain::token::Token;
use crate::domain::vocabulary::EventKind;
use crate::policy::facts::Event;
use crate::policy::leaving::Leaving;
use crate::store::ledger::{Learned, LedgerEntry};
use crate::store::rows::RecordRow;
use crate::store::{StoreError, Tx};

/// How far ahead of the vault's clock a caller's may be.
const AHEAD: i64 = 5 * MINUTE;
/// How long before its record an event may have happened.
const BEFORE: i64 = 366 * DAY;

pub struct ReportEvent {
    pub key: IdempotencyKey,
    pub token: Token,
    pub kind: EventKind,
    /// Which parcel, case or refund of the record.
    pub ordinal: u32,
    pub occurred_at: Timestamp,
}

/// When the record is due, as things stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reported {
    pub due: Timestamp,
    pub due_by: String,
}

impl Vault {
    pub async fn report_event(&self, call: &Call, ask: &ReportEvent) -> Result<Reported, Error> {
        let draft = Draft::of(call, Action::ReportEvent, self.now());
        let answer = self.try_report(call, ask, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_report(&self, call: &Call, ask: &ReportEvent, draft: &Draft) -> Result<Reported, Error> {
        let digest = ask.token.digest(&call.caller.tenant);
        let (at, ordinal) = (ask.occurred_at.0.to_be_bytes(), ask.ordinal.to_be_bytes());
        let once = self.once(call, "report_event", &ask.key, &[&digest.0, &[ask.kind.code()], &ordinal, &at]);
        for _ in 0..ATTEMPTS {
            let now = self.now();
            let replayed = self.done_before(&once, draft).await?.is_some();
            let loaded = match self.store().read(|view| self.find(view, &digest, now))? {
                Found::Unknown => return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await,
                Found::Erased(_) => return self.refuse(draft.clone(), RefusalCode::Erased, Error::Erased).await,
                Found::Live(loaded) => loaded,
            };
            let draft = about(draft, &loaded);
            if replayed {
                self.log(draft.action(Action::Replay).done()).await?;
                return Ok(reported(&loaded));
            }
            if loaded.is_due(now) {
                return self.refuse(draft, RefusalCode::TooLate, Error::TooLate).await;
            }
            let event = Event {
                kind: ask.kind,
                ordinal: ask.ordinal,
                occurred_at: plausible(ask.occurred_at, now, &loaded)?,
                recorded_at: now,
            };
            let (record, after) = self.with_event(&loaded, event, self.inner.mark.tick(self.clock()))?;
            let entry = draft.done();
            if self.write_event(&once, record, loaded.subject.leaving, event, entry).await? {
                return Ok(after);
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    /// The record's row with one more event among its facts, and when it is due then; what was over by `mark` stays over.
    pub(crate) fn with_event(
        &self,
        loaded: &Loaded,
        event: Event,
        mark: Timestamp,
    ) -> Result<(RecordRow, Reported), Error> {
        let mut facts = loaded.facts.clone();
        facts.record(event).map_err(|_| Error::invalid("kind", FieldReason::TooMany))?;
        let policy = self.policy_of(&loaded.row)?;
        let due = self.due_of(&loaded.row, &loaded.subject, &facts)?.ok_or(Error::Tampered { table: "record" })?;
        // Even if the event would have held it up: it came too late for that.
        let ripe = loaded.ripe(mark);
        let fields = ripe.iter().fold(loaded.row.fields, |fields, piece| fields.with_over(*piece));
        let next = next_due(&due, &policy.stages(&facts), fields);
        let next = if ripe.is_empty() { next } else { next.min(loaded.row.due) };
        let (facts, version) = (facts.to_bytes(), loaded.row.version + 1);
        let row = RecordRow { facts, fields, due: next, version, ..loaded.row.clone() };
        Ok((row, Reported { due: due.at, due_by: due_by(&due) }))
    }

    /// `false`: someone else changed the record first.
    async fn write_event(
        &self,
        once: &Once,
        record: RecordRow,
        leaving: Option<Leaving>,
        event: Event,
        entry: Entry,
    ) -> Result<bool, Error> {
        let now = event.recorded_at;
        let row = once.row(record.id, record.digest, vec![1], now)?;
        let write = move |tx: &mut Tx<'_>| {
            tx.insert_idempotency(&row)?;
            as_it_left(tx, record.subject, leaving)?;
            tx.update_record(&record)?;
            end_grants(tx, record.id, event.kind, event.ordinal, now)?;
            tx.note(LedgerEntry::learned(&record.tenant, record.digest, now, Learned::Happened(event)));
            tx.log(entry.clone());
            Ok(())
        };
        match self.store().run("report_event", write).await {
            Ok(()) => Ok(true),
            Err(StoreError::Raced) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn reported(loaded: &Loaded) -> Reported {
    Reported { due: loaded.due.at, due_by: due_by(&loaded.due) }
}

fn plausible(at: Timestamp, now: Timestamp, loaded: &Loaded) -> Result<Timestamp, Error> {
    // What was stored while the clock was ahead still has its events.
    if at > now.plus(AHEAD) || at < loaded.row.stored_at.min(now).plus(-BEFORE) {
        return Err(Error::invalid("occurred_at", FieldReason::NotATime));
    }
    Ok(at)
}
