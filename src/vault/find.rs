//! Finding tokens by a value: an email address, a phone number, the shop's reference. INVARIANT: a value is found by only where the
//! class opts in and gate 1 shows the caller that field, masked at least; what an index row leads to is believed only once the
//! record's own field holds the value; every hit is in the log, and so is every miss.
//!
//! The index holds a tag a value, of the epoch it was written under (`index_tag`; for the reference, the subject's own tag), so
//! a search asks under every living epoch, and an old backup's tags die with theirs.

use super::call::{Call, Draft};
use super::erase_subject::REFERENCE;
use super::loaded::{Held, Loaded, Why};
use super::tokenize::about;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::crypto::keyring::{EpochKeys, Keyring};
use crate::crypto::mac::{IndexTag, index_tag};
use crate::crypto::page::{open_page, seal_page};
use crate::crypto::slot::{Canonical, Part};
use crate::domain::field::{CustomerReference, Email, FieldReason, FieldValue, Phone};
use crate::domain::id::{RecordId, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::token::Token;
use crate::domain::vocabulary::{Class, Field, Findable, Outcome, Purpose};
use crate::policy::release::{Access, Permit, decide};
use crate::store::rows::{IndexRow, RecordRow};
use crate::store::{StoreError, View};

/// What records are looked for by.
pub enum Sought {
    Email(Email),
    Phone(Phone),
    CustomerReference(CustomerReference),
}

pub struct Find {
    pub purpose: Purpose,
    pub class: Class,
    pub by: Sought,
    /// 1 or more.
    pub page_size: usize,
    /// Where the last page ended, as it said; empty for the first.
    pub page_token: Vec<u8>,
}

/// A page, oldest record first.
pub struct FoundTokens {
    pub tokens: Vec<Token>,
    /// Empty: there are no more.
    pub page_token: Vec<u8>,
}

/// A page before it is logged.
struct Judged {
    hits: Vec<(Loaded, Token)>,
    next: Option<i64>,
}

impl Sought {
    fn findable(&self) -> Findable {
        match self {
            Self::Email(_) => Findable::Email,
            Self::Phone(_) => Findable::Phone,
            Self::CustomerReference(_) => Findable::CustomerReference,
        }
    }

    fn to_value(&self) -> Vec<u8> {
        match self {
            Self::Email(email) => email.normalized().as_bytes().to_vec(),
            Self::Phone(phone) => phone.expose().as_bytes().to_vec(),
            Self::CustomerReference(reference) => reference.expose().as_bytes().to_vec(),
        }
    }

    fn is_held_by(&self, value: &FieldValue) -> bool {
        indexable(value).is_some_and(|value| value == self.to_value())
    }
}

/// What a value is found by; `None`: this field is never findable.
pub(crate) fn indexable(value: &FieldValue) -> Option<Vec<u8>> {
    match value {
        FieldValue::Email(email) => Some(email.normalized().as_bytes().to_vec()),
        FieldValue::Phone(phone) => Some(phone.expose().as_bytes().to_vec()),
        _ => None,
    }
}

pub(crate) fn find_tag(epoch: &EpochKeys, tenant: &TenantId, class: Class, field: Field, value: &[u8]) -> IndexTag {
    index_tag(epoch, tenant, "find", &[&[class.code(), field.code()], value].concat())
}

impl Vault {
    /// The index rows of a record's findable fields, under the active epoch.
    pub(crate) fn indexed(
        &self,
        keyring: &Keyring,
        record: &RecordRow,
        values: &[FieldValue],
    ) -> Result<Vec<IndexRow>, StoreError> {
        let rule = self.policy_of(record)?.class(record.class);
        let is_findable = |field| rule.is_some_and(|rule| rule.findable().iter().any(|one| one.field() == Some(field)));
        let epoch = keyring.active();
        let mut rows = Vec::new();
        for value in values.iter().filter(|value| is_findable(value.field())) {
            let (field, Some(bytes)) = (value.field(), indexable(value)) else { continue };
            let tag = find_tag(epoch, &record.tenant, record.class, field, &bytes);
            rows.push(IndexRow { id: self.store().allocate()?, record: record.id, field, tag, epoch: epoch.number() });
        }
        Ok(rows)
    }

    /// The tokens of the live records of a class that hold the value.
    pub async fn find_tokens(&self, call: &Call, ask: &Find) -> Result<FoundTokens, Error> {
        let draft = Draft::of(call, Action::Find, self.now()).purpose(ask.purpose);
        let answer = self.try_find(call, ask, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_find(&self, call: &Call, ask: &Find, draft: &Draft) -> Result<FoundTokens, Error> {
        let Some(permit) = decide(call.caller.role, ask.purpose, ask.class).filter(|permit| shows(permit, &ask.by))
        else {
            return self.refuse(draft.clone(), RefusalCode::Forbidden, Error::NotFound).await;
        };
        let rule = self.policy(&call.caller.tenant, ask.class)?.class(ask.class);
        if !rule.is_some_and(|rule| rule.findable().contains(&ask.by.findable())) {
            return Err(Error::invalid(ask.by.findable().as_str(), FieldReason::NotFindable));
        }
        let context = context(call, ask);
        for _ in 0..ATTEMPTS {
            let now = self.now();
            let judged = self.store().read(|view| {
                let after = match ask.page_token.as_slice() {
                    [] => i64::MIN,
                    token => match open_page(view.keyring(), &context, token) {
                        Ok(after) => after,
                        Err(_) => return Ok(None),
                    },
                };
                let judged = self.page(view, call, ask, &permit, after, now)?;
                let next = judged.next.map(|next| seal_page(view.keyring(), &context, next, self.entropy()));
                let next = next.transpose().map_err(|_| StoreError::Closed)?;
                Ok(Some((judged, next.unwrap_or_default())))
            })?;
            let Some((judged, page_token)) = judged else {
                return Err(Error::invalid("page_token", FieldReason::Unknown));
            };
            if judged.hits.is_empty() && ask.page_token.is_empty() && page_token.is_empty() {
                metrics::counter!("strongroom_find_misses_total", "role" => call.caller.role.as_str()).increment(1);
                return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await;
            }
            let mut entries: Vec<_> = judged
                .hits
                .iter()
                .map(|(loaded, _)| about(draft, loaded).outcomes(confirmed(&permit, &ask.by)).done())
                .collect();
            if entries.is_empty() {
                entries.push(draft.clone().done());
            }
            let rests_on: Vec<_> = judged.hits.iter().map(|(loaded, _)| (loaded.row.id, loaded.row.version)).collect();
            let held = Held::new(judged.hits.into_iter().map(|(_, token)| token).collect());
            let receipt = self.log_read("find", move |tx| {
                for (record, version) in &rests_on {
                    if tx.record_version(*record)? != Some(*version) {
                        return Ok(false);
                    }
                }
                entries.iter().for_each(|entry| tx.log(entry.clone()));
                Ok(true)
            });
            if let Some(receipt) = receipt.await? {
                return Ok(FoundTokens { tokens: held.release(&receipt), page_token });
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    fn page(
        &self,
        view: &View<'_>,
        call: &Call,
        ask: &Find,
        permit: &Permit,
        after: i64,
        now: Timestamp,
    ) -> Result<Judged, StoreError> {
        let mut candidates = candidates(view, call, ask, after)?;
        let more = candidates.len() > ask.page_size;
        candidates.truncate(ask.page_size);
        let next = candidates.last().filter(|_| more).map(|(at, _)| *at);
        let mut hits = Vec::new();
        for (_, record) in candidates {
            let Some(row) = view.record(record)? else { continue };
            if row.tenant != call.caller.tenant || row.class != ask.class {
                continue;
            }
            let loaded = self.loaded(view, row, now)?;
            if loaded.is_due(now) {
                continue;
            }
            let key = loaded.key(view)?;
            if let Some(field) = ask.by.findable().field() {
                let holds = loaded.row.fields.holds(field);
                let value = if holds { loaded.open_field(view, &key, field, &Why::Release(permit))? } else { None };
                if !value.is_some_and(|value| ask.by.is_held_by(&value)) {
                    continue;
                }
            }
            let bytes = loaded.open_part(view, &key, Part::Token)?;
            let bytes = bytes.expose().try_into().map_err(|_| StoreError::Tampered { table: "sealed" })?;
            hits.push((loaded, Token::from_bytes(bytes)));
        }
        Ok(Judged { hits, next })
    }
}

/// Records that may hold the value, each with its place in the order of the listing: one more than a page, if there are.
fn candidates(view: &View<'_>, call: &Call, ask: &Find, after: i64) -> Result<Vec<(i64, RecordId)>, StoreError> {
    let (tenant, value, limit) = (&call.caller.tenant, ask.by.to_value(), ask.page_size + 1);
    let mut found = Vec::new();
    for epoch in view.keyring().epochs() {
        match ask.by.findable().field() {
            Some(field) => {
                let rows = view.index_rows(&find_tag(epoch, tenant, ask.class, field, &value), after, limit)?;
                found.extend(rows.into_iter().map(|row| (row.id, row.record)));
            }
            None => {
                let Some(subject) = view.subject_by_tag(&index_tag(epoch, tenant, REFERENCE, &value))? else {
                    continue;
                };
                for record in view.record_ids_of(subject.id, after, limit)? {
                    let row = view.record(record)?.filter(|row| row.subject == subject.id);
                    // Not dropped from the page: its place in the order is where the next one goes on.
                    found.extend(row.map(|row| (row.id.0, row.id)));
                }
            }
        }
    }
    found.sort_unstable();
    found.truncate(limit);
    Ok(found)
}

/// The shop's reference shows in no reply; who may see anything of such records may look for it.
fn shows(permit: &Permit, by: &Sought) -> bool {
    by.findable().field().is_none_or(|field| permit.access(field) != Access::Deny)
}

/// What a hit tells of the value looked for: that it is this subject's.
fn confirmed(permit: &Permit, by: &Sought) -> Vec<(Field, Outcome)> {
    let outcome = |field| if permit.access(field) == Access::Grant { Outcome::Granted } else { Outcome::Masked };
    by.findable().field().map(|field| (field, outcome(field))).into_iter().collect()
}

fn context(call: &Call, ask: &Find) -> Canonical {
    Canonical::new("find")
        .bytes(call.caller.path().as_bytes())
        .u8(ask.purpose.code())
        .u8(ask.class.code())
        .u8(ask.by.findable().code())
        .bytes(&ask.by.to_value())
}
