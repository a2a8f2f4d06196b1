//! Storing one record behind a token. INVARIANT: a token is answered only when its record is on disk, and the same
//! idempotency key never stores a second one; every value is sealed before it reaches the store.

use super::call::{Call, Draft};
use super::erase_subject::REFERENCE;
use super::error::unopened;
use super::loaded::{Found, Held, Loaded, as_it_left, part_code};
use super::stage::next_due;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode, SubjectTag};
use crate::crypto::entropy::array;
use crate::crypto::envelope::{Dek, seal, wrap};
use crate::crypto::keyring::Keyring;
use crate::crypto::mac::index_tag;
use crate::crypto::slot::{DekUse, Part, SealSlot, WrapSlot};
use crate::domain::field::{CustomerReference, FieldReason, FieldValue, IdempotencyKey};
use crate::domain::id::{DekId, RecordId, Revision, SubjectId};
use crate::domain::time::Timestamp;
use crate::domain::token::Token;
use crate::domain::vocabulary::{Class, Outcome};
use crate::policy::facts::Facts;
use crate::policy::leaving::Leaving;
use crate::store::rows::{DekRow, FieldSet, IdempotencyRow, IndexRow, NewIdempotency, RecordRow, SubjectRow};
use crate::store::{StoreError, Tx, View};

pub struct Tokenize {
    pub key: IdempotencyKey,
    pub subject: CustomerReference,
    pub class: Class,
    /// One or more.
    pub fields: Vec<FieldValue>,
}

/// A record with its keys and sealed parts, ready to be written.
struct Prepared {
    token: Token,
    record: RecordRow,
    dek: DekRow,
    parts: Vec<(u8, Vec<u8>)>,
    /// A data subject seen for the first time.
    subject: Option<(SubjectRow, DekRow)>,
    /// How the subject that was there leaves, if it does.
    leaving: Option<Leaving>,
    tag: SubjectTag,
    index: Vec<IndexRow>,
}

impl Vault {
    pub async fn tokenize(&self, call: &Call, ask: &Tokenize) -> Result<Token, Error> {
        let draft = Draft::of(call, Action::Tokenize, self.now());
        let answer = self.try_tokenize(call, ask, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_tokenize(&self, call: &Call, ask: &Tokenize, draft: &Draft) -> Result<Token, Error> {
        let fields = self.collected(call, ask)?;
        let values: Vec<_> = ask.fields.iter().map(|value| (value.field(), value.to_bytes())).collect();
        let mut request: Vec<&[u8]> = vec![ask.subject.expose().as_bytes()];
        let codes: Vec<[u8; 2]> = values.iter().map(|(field, _)| [ask.class.code(), field.code()]).collect();
        for (code, (_, bytes)) in codes.iter().zip(&values) {
            request.extend([code.as_slice(), bytes.as_slice()]);
        }
        let once = self.once(call, "tokenize", &ask.key, &request);
        for _ in 0..ATTEMPTS {
            if let Some(row) = self.done_before(&once, draft).await? {
                return self.replay(draft, &row).await;
            }
            let now = self.now();
            let prepared = self.store().read(|view| self.prepare(view, call, ask, fields, now))?;
            let row = once.row(prepared.record.id, prepared.record.digest, Vec::new(), now)?;
            let stored = ask.fields.iter().map(|value| (value.field(), Outcome::Granted)).collect();
            let entry = draft.clone().about(ask.class, Some(prepared.tag)).outcomes(stored).done();
            let token = Token::from_bytes(*prepared.token.as_bytes());
            let write = move |tx: &mut Tx<'_>| {
                insert(tx, &prepared, &row)?;
                tx.log(entry.clone());
                Ok(())
            };
            match self.store().run("tokenize", write).await {
                Ok(()) => return Ok(token),
                Err(StoreError::Raced) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    /// Minimum collection: the set of fields asked to be stored, if the class may hold each.
    fn collected(&self, call: &Call, ask: &Tokenize) -> Result<FieldSet, Error> {
        let policy = self.policy(&call.caller.tenant, ask.class)?;
        let mut fields = FieldSet::default();
        for value in &ask.fields {
            let field = value.field();
            if !policy.class(ask.class).is_some_and(|rule| rule.allows(field)) {
                return Err(Error::invalid(field.as_str(), FieldReason::NotCollected));
            }
            if fields.holds(field) {
                return Err(Error::invalid(field.as_str(), FieldReason::Repeated));
            }
            fields = fields.with(field);
        }
        if fields == FieldSet::default() { Err(Error::invalid("fields", FieldReason::Missing)) } else { Ok(fields) }
    }

    fn prepare(
        &self,
        view: &View<'_>,
        call: &Call,
        ask: &Tokenize,
        fields: FieldSet,
        now: Timestamp,
    ) -> Result<Prepared, StoreError> {
        let tenant = &call.caller.tenant;
        let (subject, fresh, leaving, tag) = self.subject(view, call, &ask.subject, now)?;
        let policy = self.inner.parts.policies.get(tenant).ok_or(StoreError::Closed)?;
        let facts = Facts::new(ask.class, now);
        let due = policy.due(&facts).ok_or(StoreError::Corrupt { table: "record", column: "class" })?;
        let due = next_due(&due, &policy.stages(&facts), fields);
        let token = Token::from_bytes(array(self.entropy()));
        let record = RecordRow {
            id: RecordId(self.store().allocate()?),
            tenant: tenant.clone(),
            digest: token.digest(tenant),
            subject,
            class: ask.class,
            policy_version: policy.version(),
            stored_at: now,
            revision: Revision(1),
            dek: DekId(self.store().allocate()?),
            fields,
            facts: facts.to_bytes(),
            due,
            version: 1,
        };
        let (dek, key) = self.fresh_key(view.keyring(), &record)?;
        let index = self.indexed(view.keyring(), &record, &ask.fields)?;
        let slot = |part| SealSlot { tenant, record: record.id, part, revision: record.revision, dek: record.dek };
        let sealed = |part, bytes: &[u8]| {
            let sealed = seal(&key, &slot(part), bytes, self.entropy()).map_err(unopened("sealed"))?;
            Ok((part_code(part), sealed.as_bytes().to_vec()))
        };
        let mut parts = vec![sealed(Part::Token, token.as_bytes())?];
        for value in &ask.fields {
            parts.push(sealed(Part::Field(value.field()), &value.to_bytes())?);
        }
        Ok(Prepared { token, record, dek, parts, subject: fresh, leaving, tag, index })
    }

    /// A new key for the record's revision as the row says, wrapped under the active epoch.
    pub(crate) fn fresh_key(&self, keyring: &Keyring, record: &RecordRow) -> Result<(DekRow, Dek), StoreError> {
        let epoch = keyring.active();
        let key = Dek::generate(self.entropy());
        let slot = record.wrap_slot(epoch.number(), record.dek, DekUse::Revision(record.revision));
        Ok((self.wrapped(record.dek, record.id, &slot, &key)?, key))
    }

    pub(crate) fn wrapped(
        &self,
        id: DekId,
        record: RecordId,
        slot: &WrapSlot<'_>,
        key: &Dek,
    ) -> Result<DekRow, StoreError> {
        // Gone meanwhile: then the transaction would not take it either.
        let keyring = self.keyring();
        let epoch = keyring.epoch(slot.epoch).ok_or(StoreError::Raced)?;
        let wrapped = wrap(epoch, slot, key, self.entropy()).map_err(unopened("dek"))?;
        Ok(DekRow { id, record, epoch: slot.epoch, wrapped: wrapped.as_bytes().to_vec() })
    }

    /// The data subject behind the shop's reference; a new one comes with the rows that make it.
    #[expect(clippy::type_complexity, reason = "one caller; a name for it would only be longer")]
    fn subject(
        &self,
        view: &View<'_>,
        call: &Call,
        reference: &CustomerReference,
        now: Timestamp,
    ) -> Result<(SubjectId, Option<(SubjectRow, DekRow)>, Option<Leaving>, SubjectTag), StoreError> {
        let tenant = &call.caller.tenant;
        let bytes = reference.expose().as_bytes();
        if let Some(row) = self.subject_called(view, tenant, reference)? {
            let tag = self.tag_of(view, &row, now)?;
            return Ok((row.id, None, row.leaving, tag));
        }
        let epoch = view.keyring().active();
        let key = Dek::generate(self.entropy());
        let mut row = SubjectRow {
            id: SubjectId(self.store().allocate()?),
            tenant: tenant.clone(),
            tag: index_tag(epoch, tenant, REFERENCE, bytes),
            dek: DekId(self.store().allocate()?),
            reference: Vec::new(),
            since: now,
            leaving: None,
            unseen: None,
            holds: 0,
        };
        let slot = SealSlot {
            tenant,
            record: RecordId(0),
            part: Part::CustomerReference,
            revision: Revision(0),
            dek: row.dek,
        };
        let sealed = seal(&key, &slot, bytes, self.entropy()).map_err(unopened("subject"))?;
        row.reference = sealed.as_bytes().to_vec();
        let dek = self.wrapped(row.dek, RecordId(0), &row.wrap_slot(epoch.number()), &key)?;
        Ok((row.id, Some((row, dek)), None, SubjectTag(key.audit_tag(now.utc_day()))))
    }

    /// Answers a repeated request with the token of the first, which lies sealed beside the record's fields.
    async fn replay(&self, draft: &Draft, row: &IdempotencyRow) -> Result<Token, Error> {
        let now = self.now();
        let found = self.store().read(|view| {
            let loaded = match self.find(view, &row.token, now)? {
                Found::Live(loaded) => loaded,
                Found::Erased(_) => return Ok(None),
                // A tombstone outlives the key by far.
                Found::Unknown => return Err(StoreError::Tampered { table: "record" }),
            };
            let key = loaded.key(view)?;
            let bytes = loaded.open_part(view, &key, Part::Token)?;
            let bytes = bytes.expose().try_into().map_err(|_| StoreError::Tampered { table: "sealed" })?;
            Ok(Some((loaded, Held::new(Token::from_bytes(bytes)))))
        })?;
        let draft = draft.clone().action(Action::Replay);
        let Some((loaded, held)) = found else {
            return self.refuse(draft, RefusalCode::Erased, Error::Erased).await;
        };
        let entry = about(&draft, &loaded).done();
        let logged = self.log_read("replay", move |tx| {
            tx.log(entry.clone());
            Ok(true)
        });
        logged.await?.map(|receipt| held.release(&receipt)).ok_or(Error::Unavailable(StoreError::Raced))
    }
}

pub(crate) fn about(draft: &Draft, loaded: &Loaded) -> Draft {
    draft.clone().about(loaded.row.class, Some(loaded.tag))
}

fn insert(tx: &Tx<'_>, prepared: &Prepared, once: &NewIdempotency) -> Result<(), StoreError> {
    // First what may already be there, so that a race is noticed before anything else is written.
    tx.insert_idempotency(once)?;
    match &prepared.subject {
        Some((row, dek)) => {
            tx.insert_subject(row)?;
            tx.insert_dek(dek)?;
        }
        // The subject that was found may have gone with its last record since; or it began to leave, and this record, which
        // came after the asking, has a number from before it.
        None => as_it_left(tx, prepared.record.subject, prepared.leaving)?,
    }
    tx.insert_record(&prepared.record)?;
    tx.insert_dek(&prepared.dek)?;
    for (part, bytes) in &prepared.parts {
        tx.put_sealed(prepared.record.id, *part, bytes)?;
    }
    prepared.index.iter().try_for_each(|row| tx.insert_index(row))
}
