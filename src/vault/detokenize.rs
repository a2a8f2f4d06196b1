//! Reading fields of records for a stated purpose. INVARIANT: a field that is denied is never opened; what is opened leaves
//! only after its entry is on disk, and only if the record was still what it was when it was read.

use super::call::{Call, Draft};
use super::loaded::{Found, Held, Loaded, Masked, Why};
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::domain::field::FieldValue;
use crate::domain::id::{RecordId, Revision};
use crate::domain::time::Timestamp;
use crate::domain::token::Token;
use crate::domain::vocabulary::{Field, Outcome, Purpose};
use crate::policy::release::{Access, Permit, decide};
use crate::policy::retention::Piece;
use crate::store::{StoreError, View};

/// Which fields of one record, and why.
pub struct Detokenize {
    pub token: Token,
    pub fields: Vec<Field>,
    pub purpose: Purpose,
}

pub struct Detokenized {
    /// One for each field asked for, in that order.
    pub fields: Vec<FieldOutcome>,
    /// `None` when the record is expired or erased.
    pub revision: Option<Revision>,
}

pub struct FieldOutcome {
    pub field: Field,
    pub outcome: Outcome,
    pub value: Option<Released>,
}

/// Plaintext on its way out.
pub enum Released {
    Whole(FieldValue),
    Masked(Masked),
}

/// A verdict over one record, before it is logged.
struct Judged {
    draft: Draft,
    verdict: Result<Held<Detokenized>, (RefusalCode, Error)>,
    /// The record and version that the verdict rests on.
    rests_on: Option<(RecordId, u64)>,
}

impl Vault {
    pub async fn detokenize(&self, call: &Call, ask: &Detokenize) -> Result<Detokenized, Error> {
        let mut answers = self.batch_detokenize(call, std::slice::from_ref(ask)).await?;
        answers.pop().unwrap_or(Err(Error::NotFound))
    }

    /// A page of records: a result for each, one durable write for all.
    pub async fn batch_detokenize(
        &self,
        call: &Call,
        asks: &[Detokenize],
    ) -> Result<Vec<Result<Detokenized, Error>>, Error> {
        for _ in 0..ATTEMPTS {
            let now = self.now();
            let judged = self
                .store()
                .read(|view| Ok(asks.iter().map(|ask| self.judge(view, call, ask, now)).collect::<Vec<Judged>>()))?;
            let entries: Vec<_> = judged
                .iter()
                .map(|one| match &one.verdict {
                    Ok(_) => one.draft.clone().done(),
                    Err((RefusalCode::Tampered, _)) => {
                        one.draft.clone().action(Action::Tamper).refused(RefusalCode::Tampered)
                    }
                    Err((code, _)) => one.draft.clone().refused(*code),
                })
                .collect();
            let rests_on: Vec<_> = judged.iter().filter_map(|one| one.rests_on).collect();
            let receipt = self.log_read("detokenize", move |tx| {
                for (record, version) in &rests_on {
                    if tx.record_version(*record)? != Some(*version) {
                        return Ok(false);
                    }
                }
                entries.iter().for_each(|entry| tx.log(entry.clone()));
                Ok(true)
            });
            if let Some(receipt) = receipt.await? {
                let released = |one: Judged| match one.verdict {
                    Ok(held) => Ok(held.release(&receipt)),
                    Err((_, told)) => Err(told),
                };
                return Ok(judged.into_iter().map(released).collect());
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    /// Both gates, and the opening of what passes them.
    fn judge(&self, view: &View<'_>, call: &Call, ask: &Detokenize, now: Timestamp) -> Judged {
        let draft = Draft::of(call, Action::Detokenize, now).purpose(ask.purpose);
        let refused = |draft, code, told| Judged { draft, verdict: Err((code, told)), rests_on: None };
        let found = match self.find(view, &ask.token.digest(&call.caller.tenant), now) {
            Ok(found) => found,
            Err(error) => {
                let error = Error::from(error);
                if let Error::Tampered { table } = error {
                    tracing::error!(table, "stored data fails its authentication: it was altered outside the vault");
                    return refused(draft, RefusalCode::Tampered, error);
                }
                return refused(draft, RefusalCode::Unavailable, error);
            }
        };
        let loaded = match found {
            Found::Unknown => return refused(draft, RefusalCode::Unknown, Error::NotFound),
            Found::Erased(tombstone) => {
                // SECURITY: who could not have read it is not told that it was there.
                let Some(permit) = decide(call.caller.role, ask.purpose, tombstone.class) else {
                    return refused(draft, RefusalCode::Erased, Error::NotFound);
                };
                let (draft, held) = over(draft, &ask.fields, &permit, Outcome::Erased);
                return Judged { draft, verdict: Ok(held), rests_on: None };
            }
            Found::Live(loaded) => loaded,
        };
        let draft = draft.about(loaded.row.class, Some(loaded.tag));
        let rests_on = Some((loaded.row.id, loaded.row.version));
        let Some(permit) = decide(call.caller.role, ask.purpose, loaded.row.class) else {
            return Judged { draft, verdict: Err((RefusalCode::Forbidden, Error::NotFound)), rests_on };
        };
        if loaded.is_due(now) {
            let (draft, held) = over(draft, &ask.fields, &permit, Outcome::Expired);
            return Judged { draft, verdict: Ok(held), rests_on };
        }
        match open(view, &loaded, &ask.fields, &Why::Release(&permit), &permit) {
            Ok(fields) => {
                let draft = draft.outcomes(fields.iter().map(|one| (one.field, one.outcome)).collect());
                let held = Held::new(Detokenized { fields, revision: Some(loaded.row.revision) });
                Judged { draft, verdict: Ok(held), rests_on }
            }
            Err(error) => {
                tracing::error!(%error, "stored data cannot be opened: it was altered outside the vault");
                Judged { draft, verdict: Err((RefusalCode::Tampered, Error::from(error))), rests_on }
            }
        }
    }
}

/// The answer for a record of which nothing is left to read; a field that was never the caller's stays denied.
pub(super) fn over(draft: Draft, fields: &[Field], permit: &Permit, outcome: Outcome) -> (Draft, Held<Detokenized>) {
    let outcome = |field| match permit.access(field) {
        Access::Deny => Outcome::Denied,
        Access::Mask | Access::Grant => outcome,
    };
    let outcomes: Vec<_> = fields.iter().map(|field| (*field, outcome(*field))).collect();
    let told = outcomes.iter().map(|(field, outcome)| FieldOutcome { field: *field, outcome: *outcome, value: None });
    let held = Held::new(Detokenized { fields: told.collect(), revision: None });
    (draft.outcomes(outcomes), held)
}

/// Opens what the permit grants, as far as it is still to be had for that reason.
pub(super) fn open(
    view: &View<'_>,
    loaded: &Loaded,
    fields: &[Field],
    why: &Why<'_>,
    permit: &Permit,
) -> Result<Vec<FieldOutcome>, StoreError> {
    let key = loaded.key(view)?;
    fields
        .iter()
        .map(|&field| {
            let plain = |outcome| FieldOutcome { field, outcome, value: None };
            let access = permit.access(field);
            if access == Access::Deny {
                return Ok(plain(Outcome::Denied));
            }
            let is_past = match why {
                Why::Disclose(_) => loaded.is_gone(Piece::Whole(field)),
                _ => loaded.is_over(Piece::Whole(field)),
            };
            if is_past {
                return Ok(plain(Outcome::Expired));
            }
            if !loaded.row.fields.holds(field) {
                return Ok(plain(Outcome::NotSet));
            }
            let Some(value) = loaded.open_field(view, &key, field, why)? else {
                return Ok(plain(Outcome::Denied));
            };
            Ok(match access {
                Access::Grant => FieldOutcome { field, outcome: Outcome::Granted, value: Some(Released::Whole(value)) },
                Access::Mask | Access::Deny => FieldOutcome {
                    field,
                    outcome: if value.masked().is_some() { Outcome::Masked } else { Outcome::Denied },
                    value: value.masked().map(Released::Masked),
                },
            })
        })
        .collect()
}
