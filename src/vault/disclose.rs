//! Legal disclosure: fields of a record for an authority, with its case reference, by two people. INVARIANT: no field is opened
//! before the second person has agreed to this record, these fields and this case; the approval is used up in the transaction
//! that logs the release, and what was opened leaves only after that, if the record was still what it was. What is over, in whole or
//! in part, is disclosed while a hold keeps it, and not for an instant longer.

use super::approval::{Ask, Gate, Gated, Pending};
use super::call::{Call, Draft};
use super::destroy::in_force;
use super::detokenize::{Detokenized, open, over};
use super::loaded::{Found, Held, Loaded, Why};
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::crypto::slot::Canonical;
use crate::domain::fault::{Fault, planted};
use crate::domain::field::CaseReference;
use crate::domain::id::{RecordId, Revision};
use crate::domain::time::Timestamp;
use crate::domain::token::Token;
use crate::domain::vocabulary::{Field, Outcome, Purpose};
use crate::policy::approval::{RequestDigest, Verb};
use crate::policy::release::disclosure;
use crate::store::rows::RecordRow;
use crate::store::{StoreError, Tx, View};

/// Which fields of one record, and in which case.
pub struct Disclose {
    pub token: Token,
    pub fields: Vec<Field>,
    pub case: CaseReference,
}

/// A verdict over the record, before it is logged.
enum Judged {
    Refused(Draft, RefusalCode),
    /// Nothing is left to disclose, which takes no second person to say. The record's version, if there is a record.
    Over(Draft, Held<Detokenized>, Option<(RecordId, u64)>),
    Asked(Box<Asked>),
}

/// What takes a second person.
struct Asked {
    draft: Draft,
    gate: Ask,
    digest: RequestDigest,
    record: RecordRow,
    /// A hold keeps it, and what is disclosed may be what nobody else reads any more.
    is_held: bool,
    /// `None`: nobody has agreed yet, and nothing was opened.
    opened: Option<(Held<Detokenized>, Outcomes)>,
}

type Outcomes = Vec<(Field, Outcome)>;

/// Why the transaction released nothing.
enum Kept {
    /// The record or the approval is another than was read: start over.
    Changed,
    Pending(Pending),
    Closed(Error),
}

impl Vault {
    /// Discloses once, for each time that a second person agrees.
    pub async fn disclose(&self, call: &Call, ask: &Disclose) -> Result<Gated<Detokenized>, Error> {
        for _ in 0..ATTEMPTS {
            let now = self.now();
            let blank = Draft::of(call, Action::Disclose, now).purpose(Purpose::LegalDisclosure);
            let judged = self.store().read(|view| self.judge_disclosure(view, call, ask, blank.clone(), now));
            let kept = match self.watch(&blank, judged.map_err(Error::from)).await? {
                Judged::Refused(draft, code) => return self.refuse(draft, code, Error::NotFound).await,
                Judged::Over(draft, held, rests_on) => {
                    let write = move |tx: &mut Tx<'_>| {
                        if let Some((record, version)) = rests_on
                            && tx.record_version(record)? != Some(version)
                        {
                            return Ok(false);
                        }
                        tx.log(draft.clone().done());
                        Ok(true)
                    };
                    match self.log_read("disclose", write).await? {
                        Some(receipt) => return Ok(Gated::Done(held.release(&receipt))),
                        None => continue,
                    }
                }
                Judged::Asked(asked) => {
                    let Asked { draft, gate, digest, record, is_held, opened } = *asked;
                    let (held, outcomes) = opened.unzip();
                    let write = move |tx: &mut Tx<'_>| {
                        let is_as_read = tx.record_version(record.id)? == Some(record.version)
                            && is_held != in_force(tx, &record)?.is_empty();
                        if planted(Fault::DisclosureUnwatched) {
                            tx.log(draft.clone().done());
                            return Ok(Ok(()));
                        }
                        if !is_as_read || gate.is_agreed(tx, digest)? != outcomes.is_some() {
                            return Ok(Err(Kept::Changed));
                        }
                        Ok(match gate.gate(tx, digest)? {
                            Gate::Closed(error) => Err(Kept::Closed(error)),
                            Gate::Pending(pending) => Err(Kept::Pending(pending)),
                            Gate::Agreed(agreed) => {
                                let log = draft.clone().outcomes(outcomes.clone().unwrap_or_default());
                                tx.log(log.under(agreed.story()).done());
                                Ok(())
                            }
                        })
                    };
                    match (self.log_read_unless("disclose", write).await?, held) {
                        (Ok(receipt), Some(held)) => return Ok(Gated::Done(held.release(&receipt))),
                        // The gate opens in the transaction for what was opened alone.
                        (Ok(_), None) => return Err(Error::Unavailable(StoreError::Raced)),
                        (Err(kept), _) => kept,
                    }
                }
            };
            match kept {
                Kept::Changed => {}
                Kept::Pending(pending) => return Ok(Gated::Pending(pending)),
                Kept::Closed(error) => return self.watch(&blank, Err(error)).await,
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    fn judge_disclosure(
        &self,
        view: &View<'_>,
        call: &Call,
        ask: &Disclose,
        draft: Draft,
        now: Timestamp,
    ) -> Result<Judged, StoreError> {
        let loaded = match self.find(view, &ask.token.digest(&call.caller.tenant), now)? {
            Found::Unknown => return Ok(Judged::Refused(draft, RefusalCode::Unknown)),
            Found::Erased(tombstone) => {
                let Some(permit) = disclosure(call.caller.role, tombstone.class) else {
                    return Ok(Judged::Refused(draft, RefusalCode::Erased));
                };
                let (draft, held) = over(draft, &ask.fields, &permit, Outcome::Erased);
                return Ok(Judged::Over(draft, held, None));
            }
            Found::Live(loaded) => loaded,
        };
        let draft = draft.about(loaded.row.class, Some(loaded.tag));
        let rests_on = (loaded.row.id, loaded.row.version);
        let Some(permit) = disclosure(call.caller.role, loaded.row.class) else {
            return Ok(Judged::Refused(draft, RefusalCode::Forbidden));
        };
        let is_held = !in_force(view, &loaded.row)?.is_empty();
        if loaded.is_due(now) && !is_held {
            let (draft, held) = over(draft, &ask.fields, &permit, Outcome::Expired);
            return Ok(Judged::Over(draft, held, Some(rests_on)));
        }
        let gate = Ask::new(self, call, Verb::Disclose, about(&loaded, ask));
        let digest = gate.digest(&canonical(loaded.row.id, ask));
        let opened = if gate.is_agreed(view, digest)? || planted(Fault::DisclosureUnwatched) {
            let why = if is_held { Why::Disclose(&permit) } else { Why::Release(&permit) };
            let fields = open(view, &loaded, &ask.fields, &why, &permit)?;
            let outcomes = fields.iter().map(|one| (one.field, one.outcome)).collect();
            let revision: Option<Revision> = Some(loaded.row.revision);
            Some((Held::new(Detokenized { fields, revision }), outcomes))
        } else {
            None
        };
        Ok(Judged::Asked(Box::new(Asked { draft, gate, digest, record: loaded.row, is_held, opened })))
    }
}

/// SECURITY: the digest is not keyed, so the record goes by its number and never by its token. The record's version is not
/// in there: what is disclosed is the record as it stands when it leaves.
fn canonical(record: RecordId, ask: &Disclose) -> Canonical {
    let mut fields: Vec<u8> = ask.fields.iter().map(|field| field.code()).collect();
    fields.sort_unstable();
    Canonical::new("disclose").i64(record.0).bytes(&fields).bytes(ask.case.expose().as_bytes())
}

/// "disclose the address and phone of record 17 (order) in the case 4 Js 123/26"
fn about(loaded: &Loaded, ask: &Disclose) -> String {
    let names: Vec<String> = ask.fields.iter().map(|field| field.as_str().replace('_', " ")).collect();
    let named = match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
        None => String::new(),
    };
    let (id, class) = (loaded.row.id, loaded.row.class);
    format!("disclose the {named} of record {id} ({class}) in the case {}", ask.case.expose())
}
