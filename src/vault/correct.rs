//! Correcting a record: a new revision under a new key. INVARIANT: the old revision's key is destroyed in the same commit, the
//! ledger says so, and the write-ahead log is truncated before the answer: the old value is shredded, not overwritten.

use super::call::{Call, Draft};
use super::destroy::clear;
use super::error::unopened;
use super::loaded::{Found, Loaded, Why, as_it_left, part_code};
use super::stage::next_due;
use super::tokenize::about;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::crypto::envelope::seal;
use crate::crypto::slot::{Part, SealSlot};
use crate::domain::fault::{Fault, planted};
use crate::domain::field::{FieldReason, FieldValue, IdempotencyKey};
use crate::domain::id::{DekId, Revision};
use crate::domain::time::Timestamp;
use crate::domain::token::Token;
use crate::domain::vocabulary::{EraseReason, Field, Outcome};
use crate::policy::retention::Piece;
use crate::store::ledger::{LedgerEntry, LedgerEvent};
use crate::store::rows::{DekRow, FieldSet, IndexRow, RecordRow};
use crate::store::{StoreError, Tx, View};

pub struct Correct {
    pub key: IdempotencyKey,
    pub token: Token,
    /// The revision the caller last saw.
    pub if_revision: Revision,
    /// Fields to replace or add.
    pub fields: Vec<FieldValue>,
    /// Fields to drop.
    pub clear: Vec<Field>,
}

/// The next revision, ready to be written.
pub(crate) struct Prepared {
    pub(crate) record: RecordRow,
    /// What the old revision's key opened, and no key opens any more.
    gone: Gone,
    dek: DekRow,
    parts: Vec<(u8, Vec<u8>)>,
    dropped: Vec<Field>,
    index: Vec<IndexRow>,
}

/// Fields whose values are replaced or dropped, and pieces whose time is over.
struct Gone {
    replaced: Vec<Field>,
    over: Vec<Piece>,
}

/// What becomes of a record in its next revision.
pub(crate) struct Next<'a> {
    pub(crate) revision: Revision,
    /// What it holds then, but for what is over.
    pub(crate) fields: FieldSet,
    /// The values of some of them; the others stay as they are.
    pub(crate) given: &'a [FieldValue],
    pub(crate) over: Vec<Piece>,
}

impl Vault {
    pub async fn correct(&self, call: &Call, ask: &Correct) -> Result<Revision, Error> {
        let draft = Draft::of(call, Action::Correct, self.now());
        let answer = self.try_correct(call, ask, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_correct(&self, call: &Call, ask: &Correct, draft: &Draft) -> Result<Revision, Error> {
        let digest = ask.token.digest(&call.caller.tenant);
        let mut request = vec![digest.0.to_vec(), ask.if_revision.0.to_be_bytes().to_vec()];
        request.extend(ask.fields.iter().map(|value| [&[value.field().code()], value.to_bytes().as_slice()].concat()));
        request.extend(ask.clear.iter().map(|field| vec![0, field.code()]));
        let parts: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let once = self.once(call, "correct", &ask.key, &parts);
        for _ in 0..ATTEMPTS {
            let now = self.now();
            if let Some(row) = self.done_before(&once, draft).await? {
                self.truncate_log().await?;
                self.log(draft.clone().action(Action::Replay).done()).await?;
                return Ok(Revision(u32::from_be_bytes(row.result.try_into().unwrap_or_default())));
            }
            // One snapshot for the verdict and the next revision: what changes in between is a race, not an alarm.
            let found = self.store().read(|view| {
                let found = self.find(view, &digest, now)?;
                let next = match &found {
                    Found::Live(loaded) => Some(self.corrected(view, loaded, ask, now)),
                    Found::Erased(_) | Found::Unknown => None,
                };
                Ok((found, next))
            })?;
            let (loaded, prepared) = match found {
                (Found::Live(loaded), Some(next)) => (loaded, next),
                (Found::Erased(_), _) => return self.refuse(draft.clone(), RefusalCode::Erased, Error::Erased).await,
                _ => return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await,
            };
            let draft = about(draft, &loaded);
            let prepared = match prepared {
                Ok(prepared) => prepared,
                Err(Error::Expired) => return self.refuse(draft, RefusalCode::Expired, Error::Expired).await,
                Err(Error::RevisionConflict) => {
                    return self.refuse(draft, RefusalCode::Conflict, Error::RevisionConflict).await;
                }
                Err(Error::Held(kind)) => return self.refuse(draft, RefusalCode::Held, Error::Held(kind)).await,
                Err(error) => return Err(error),
            };
            let revision = prepared.record.revision;
            let row = once.row(loaded.row.id, digest, revision.0.to_be_bytes().to_vec(), now)?;
            let changed = ask.fields.iter().map(|value| (value.field(), Outcome::Granted));
            let dropped = ask.clear.iter().map(|field| (*field, Outcome::NotSet));
            let entry = draft.outcomes(changed.chain(dropped).collect()).done();
            let (old, leaving) = (loaded.row, loaded.subject.leaving);
            let write = move |tx: &mut Tx<'_>| {
                tx.insert_idempotency(&row)?;
                as_it_left(tx, old.subject, leaving)?;
                if clear(tx, &old, EraseReason::Controller)?.is_err() {
                    return Err(StoreError::Raced);
                }
                replace(tx, &old, &prepared, now)?;
                tx.log(entry.clone());
                Ok(())
            };
            match self.store().run("correct", write).await {
                Ok(()) => {
                    self.truncate_log().await?;
                    return Ok(revision);
                }
                Err(StoreError::Raced) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    /// The next revision, if there may be one.
    fn corrected(&self, view: &View<'_>, loaded: &Loaded, ask: &Correct, now: Timestamp) -> Result<Prepared, Error> {
        if loaded.is_due(now) {
            return Err(Error::Expired);
        }
        if loaded.row.revision != ask.if_revision {
            return Err(Error::RevisionConflict);
        }
        // What is corrected is shredded, which a hold forbids.
        if let Err(kind) = clear(view, &loaded.row, EraseReason::Controller)? {
            return Err(Error::Held(kind));
        }
        let (fields, over) = (self.fields_after(loaded, ask)?, loaded.ripe(self.inner.mark.tick(self.clock())));
        Ok(self.next_revision(
            view,
            loaded,
            Next { revision: loaded.row.revision.next(), fields, given: &ask.fields, over },
        )?)
    }

    /// The fields the next revision holds, if the class may hold each and something is left.
    fn fields_after(&self, loaded: &Loaded, ask: &Correct) -> Result<FieldSet, Error> {
        let policy = self.policy(&loaded.row.tenant, loaded.row.class)?;
        let (mut fields, mut named) = (loaded.row.fields, FieldSet::default());
        let changes = ask.fields.iter().map(|value| (value.field(), true));
        for (field, keep) in changes.chain(ask.clear.iter().map(|field| (*field, false))) {
            if !policy.class(loaded.row.class).is_some_and(|rule| rule.allows(field)) {
                return Err(Error::invalid(field.as_str(), FieldReason::NotCollected));
            }
            if keep && Piece::all().any(|piece| piece.field() == field && loaded.is_over(piece)) {
                return Err(Error::invalid(field.as_str(), FieldReason::RetentionOver));
            }
            if named.holds(field) {
                return Err(Error::invalid(field.as_str(), FieldReason::Repeated));
            }
            named = named.with(field);
            fields = if keep { fields.with(field) } else { fields.without(field) };
        }
        if named == FieldSet::default() {
            return Err(Error::invalid("fields", FieldReason::Missing));
        }
        if fields.is_empty() {
            return Err(Error::invalid("clear", FieldReason::Empty));
        }
        Ok(fields)
    }

    /// The record in its next revision, sealed anew under a key of its own.
    pub(crate) fn next_revision(
        &self,
        view: &View<'_>,
        loaded: &Loaded,
        next: Next<'_>,
    ) -> Result<Prepared, StoreError> {
        let old_key = loaded.key(view)?;
        let Next { revision, given, over, .. } = next;
        let over = if planted(Fault::StageKept) { Vec::new() } else { over };
        let fields = over.iter().fold(next.fields, |fields, piece| fields.without_piece(*piece));
        let record = RecordRow {
            revision,
            dek: DekId(self.store().allocate()?),
            fields,
            due: next_due(&loaded.due, &loaded.stages, fields),
            version: loaded.row.version + 1,
            ..loaded.row.clone()
        };
        let (dek, key) = self.fresh_key(view.keyring(), &record)?;
        let sealed = |part, bytes: &[u8]| {
            let (tenant, revision) = (&record.tenant, record.revision);
            let slot = SealSlot { tenant, record: record.id, part, revision, dek: record.dek };
            let sealed = seal(&key, &slot, bytes, self.entropy()).map_err(unopened("sealed"))?;
            Ok((part_code(part), sealed.as_bytes().to_vec()))
        };
        let mut index = Vec::new();
        let mut parts = vec![sealed(Part::Token, loaded.open_part(view, &old_key, Part::Token)?.expose())?];
        for field in fields.iter() {
            let kept;
            let value = match given.iter().find(|value| value.field() == field) {
                Some(value) => value,
                None => {
                    kept = match loaded.open_field(view, &old_key, field, &Why::Reseal)? {
                        Some(FieldValue::Address(address)) if over.contains(&Piece::AddressLines) => {
                            FieldValue::Address(address.without_lines())
                        }
                        Some(value) => value,
                        None => continue,
                    };
                    &kept
                }
            };
            parts.push(sealed(Part::Field(field), &value.to_bytes())?);
            index.extend(self.indexed(view.keyring(), &record, std::slice::from_ref(value))?);
        }
        let dropped: Vec<Field> = loaded.row.fields.iter().filter(|field| !fields.holds(*field)).collect();
        let replaced = given.iter().map(FieldValue::field).filter(|field| loaded.row.fields.holds(*field));
        let is_over = |field: &Field| over.contains(&Piece::Whole(*field));
        let replaced = replaced.chain(dropped.iter().copied().filter(|field| !is_over(field))).collect();
        Ok(Prepared { record, gone: Gone { replaced, over }, dek, parts, dropped, index })
    }
}

/// Puts the next revision in the place of the one it was made from, whose key is destroyed in the same commit.
pub(crate) fn replace(tx: &mut Tx<'_>, old: &RecordRow, next: &Prepared, now: Timestamp) -> Result<(), StoreError> {
    let Gone { replaced, over } = &next.gone;
    let event = LedgerEvent::Superseded { revision: old.revision, replaced: replaced.clone(), over: over.clone() };
    tx.note(LedgerEntry { at: now, tenant: old.tenant.clone(), record: old.digest, event });
    replace_noted(tx, old, next)
}

/// `replace` for what the ledger already tells of.
pub(crate) fn replace_noted(tx: &Tx<'_>, old: &RecordRow, next: &Prepared) -> Result<(), StoreError> {
    tx.update_record(&next.record)?;
    tx.delete_dek(old.dek)?;
    tx.insert_dek(&next.dek)?;
    for (part, bytes) in &next.parts {
        tx.put_sealed(old.id, *part, bytes)?;
    }
    for field in &next.dropped {
        tx.delete_sealed(old.id, part_code(Part::Field(*field)))?;
    }
    tx.delete_index_of(old.id)?;
    next.index.iter().try_for_each(|row| tx.insert_index(row))
}
