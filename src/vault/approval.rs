//! The gate before what is dangerous: asking for a second person's word, giving it, refusing it. INVARIANT: a gate opens inside
//! the transaction that carries the request out, for the very request that was approved, once, and only while the rules for
//! two people still hold; every step is in the log under the approval's number.
//!
//! How a use case passes it:
//! ```text
//! Ask::new(vault, call, verb, "what is asked, in our words")     outside the transaction: time and number
//! ask.gate(tx, ask.digest(canonical bytes of the request))       inside, before any effect
//!     Agreed(agreed)   carry it out, log it under `agreed.story()`
//!     Pending(pending) commit, and tell the caller the number; the same request again finds it
//!     Closed(error)    commit, and tell the caller; the refusal is logged here, or by `watch` as every invalid request
//! ```

use sha2::{Digest, Sha256};

use super::call::{Call, Draft};
use super::{Error, Vault};
use crate::audit::entry::{Action, RefusalCode, RequestId};
use crate::crypto::slot::Canonical;
use crate::domain::caller::{Caller, CallerId};
use crate::domain::field::FieldReason;
use crate::domain::id::ApprovalId;
use crate::domain::time::{DAY, Timestamp};
use crate::policy::approval::{
    Approval, LIFETIME, NoSecondPerson, Person, RequestDigest, Spoken, State, Verb, second_person,
};
use crate::store::{StoreError, Tx, View};

/// How long a decided or expired request can still be listed.
const HISTORY: i64 = 90 * DAY;
/// How many requests of a tenant may be open at once.
const MAX_OPEN: usize = 64;
/// How many old requests go when a new one comes.
const EXPIRE: usize = 20;

/// What came of a request that takes two people.
#[derive(Debug)]
pub enum Gated<T> {
    Done(T),
    Pending(Pending),
}

/// A request that waits for a second person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pending {
    pub id: ApprovalId,
    pub expires_at: Timestamp,
}

/// A request at the gate.
#[derive(Clone)]
pub(crate) struct Ask {
    call: Call,
    verb: Verb,
    about: String,
    now: Timestamp,
}

/// What the gate answers.
#[must_use]
pub(crate) enum Gate {
    Agreed(Agreed),
    Pending(Pending),
    Closed(Error),
}

/// Proof that a second person has agreed to this request; it is used up in this very transaction.
#[must_use]
pub(crate) struct Agreed {
    id: ApprovalId,
}

impl Agreed {
    /// The number under which the log tells all of it.
    pub(crate) fn story(&self) -> RequestId {
        RequestId(self.id.0)
    }
}

impl Ask {
    pub(crate) fn new(vault: &Vault, call: &Call, verb: Verb, about: String) -> Self {
        Self { call: call.clone(), verb, about, now: vault.now() }
    }

    /// Tells this request from every other of whoever asks. `request` must hold no personal data: the digest is not keyed.
    pub(crate) fn digest(&self, request: &Canonical) -> RequestDigest {
        let whole = Canonical::new("strongroom/approval").u8(self.verb as u8).bytes(request.as_bytes());
        RequestDigest(Sha256::digest(whole.as_bytes()).into())
    }

    pub(crate) fn gate(&self, tx: &mut Tx<'_>, digest: RequestDigest) -> Result<Gate, StoreError> {
        let Some(key) = self.call.caller.keys.map(|keys| keys.own) else {
            tx.log(Draft::of(&self.call, Action::RequestApproval, self.now).refused(RefusalCode::NotEnrolled));
            return Ok(Gate::Closed(Error::NotTwoPeople));
        };
        let by = self.call.caller.id();
        let recent = tx.approvals(&by.tenant, self.now.plus(-LIFETIME))?;
        for known in recent.iter().filter(|known| known.digest == digest && known.asked.by == by) {
            if known.is_open(self.now) {
                return Ok(Gate::Pending(Pending { id: known.id, expires_at: known.expires_at }));
            }
            if still_agreed(tx, known)?
                && let Ok(used) = known.clone().use_up(self.now)
            {
                tx.update_approval(&used)?;
                return Ok(Gate::Agreed(Agreed { id: used.id }));
            }
        }
        if recent.iter().filter(|known| known.is_open(self.now)).count() >= MAX_OPEN {
            return Ok(Gate::Closed(Error::invalid("approval", FieldReason::TooMany)));
        }
        tx.expire_approvals(&by.tenant, self.now.plus(-HISTORY), EXPIRE)?;
        let approval = Approval {
            id: ApprovalId(self.call.request.0),
            tenant: by.tenant.clone(),
            verb: self.verb,
            digest,
            about: self.about.clone(),
            asked: Spoken { by, key, at: self.now },
            expires_at: self.now.plus(LIFETIME),
            state: State::Open,
        };
        tx.insert_approval(&approval)?;
        tx.log(Draft::of(&self.call, Action::RequestApproval, self.now).done());
        Ok(Gate::Pending(Pending { id: approval.id, expires_at: approval.expires_at }))
    }
}

impl Ask {
    /// Whether the gate would open; uses nothing up.
    pub(crate) fn is_agreed(&self, view: &View<'_>, digest: RequestDigest) -> Result<bool, StoreError> {
        let by = self.call.caller.id();
        for known in view.approvals(&by.tenant, self.now.plus(-LIFETIME))? {
            let is_ours = known.digest == digest && known.asked.by == by && !known.has_expired(self.now);
            if is_ours && still_agreed(view, &known)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// For what may be cut off on its way: what this caller was allowed to do, and has begun, it may go on with until the
    /// approval's time is over and as long as both of the two are in force. Answers when it was begun, too.
    pub(crate) fn goes_on(
        &self,
        view: &View<'_>,
        digest: RequestDigest,
    ) -> Result<Option<(Agreed, Timestamp)>, StoreError> {
        let by = self.call.caller.id();
        for known in view.approvals(&by.tenant, self.now.plus(-LIFETIME))? {
            let is_ours = known.digest == digest && known.asked.by == by && !known.has_expired(self.now);
            if let (true, State::Used(said, begun)) = (is_ours, &known.state)
                && judge(view, &known, said)?.is_ok()
            {
                return Ok(Some((Agreed { id: known.id }, *begun)));
            }
        }
        Ok(None)
    }
}

/// Whether an approval that was given would still be given: neither of the two was suspended or changed since.
fn still_agreed(view: &View<'_>, approval: &Approval) -> Result<bool, StoreError> {
    let State::Approved(said) = &approval.state else { return Ok(false) };
    Ok(judge(view, approval, said)?.is_ok())
}

fn judge(view: &View<'_>, approval: &Approval, said: &Spoken) -> Result<Result<(), NoSecondPerson>, StoreError> {
    let (Some(asked), Some(decides)) = (view.enrolment(&approval.asked.by)?, view.enrolment(&said.by)?) else {
        return Ok(Err(NoSecondPerson::NotInForce));
    };
    let asked = Person { enrolment: &asked, key: approval.asked.key };
    Ok(second_person(approval.verb, asked, Person { enrolment: &decides, key: said.key }))
}

/// What a second person says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    Yes,
    No,
}

impl Vault {
    /// Gives or refuses a second person's word. Who asked may withdraw by a no. The same word again answers the same.
    pub async fn decide(&self, call: &Call, id: ApprovalId, word: Word) -> Result<Approval, Error> {
        let action = match word {
            Word::Yes => Action::Approve,
            Word::No => Action::Reject,
        };
        let now = self.now();
        let draft = Draft::of(call, action, now);
        let caller = call.caller.clone();
        let (log, tenant) = (draft.clone(), caller.tenant.clone());
        let write = move |tx: &mut Tx<'_>| {
            let Some(approval) = tx.approval(&tenant, id)? else {
                tx.log(log.clone().refused(RefusalCode::Unknown));
                return Ok(Err(Error::NotFound));
            };
            let log = log.clone().under(RequestId(id.0));
            match decided(tx, approval, &caller, word, now)? {
                Ok(approval) => {
                    tx.log(log.done());
                    Ok(Ok(approval))
                }
                Err((code, told)) => {
                    tx.log(log.refused(code));
                    Ok(Err(told))
                }
            }
        };
        let answer = self.store().run("decide", write).await.map_err(Error::from).and_then(|answer| answer);
        self.watch(&draft, answer).await
    }

    /// The tenant's requests, newest first.
    pub async fn list_approvals(&self, call: &Call) -> Result<Vec<Approval>, Error> {
        let draft = Draft::of(call, Action::ListApprovals, self.now());
        let since = self.now().plus(-HISTORY);
        let listed = self.store().read(|view| view.approvals(&call.caller.tenant, since)).map_err(Error::from);
        let listed = self.watch(&draft, listed).await?;
        self.log(draft.done()).await?;
        Ok(listed)
    }

    pub async fn show_approval(&self, call: &Call, id: ApprovalId) -> Result<Approval, Error> {
        let draft = Draft::of(call, Action::ShowApproval, self.now());
        let found = self.store().read(|view| view.approval(&call.caller.tenant, id)).map_err(Error::from);
        match self.watch(&draft, found).await? {
            Some(approval) => {
                self.log(draft.under(RequestId(id.0)).done()).await?;
                Ok(approval)
            }
            None => self.refuse(draft, RefusalCode::Unknown, Error::NotFound).await,
        }
    }
}

/// The approval after the word, stored; or why it does not count, for the log and for the caller.
fn decided(
    tx: &mut Tx<'_>,
    approval: Approval,
    caller: &Caller,
    word: Word,
    now: Timestamp,
) -> Result<Result<Approval, (RefusalCode, Error)>, StoreError> {
    let Some(key) = caller.keys.map(|keys| keys.own) else {
        return Ok(Err((RefusalCode::NotEnrolled, Error::NotTwoPeople)));
    };
    let said = Spoken { by: caller.id(), key, at: now };
    if has_said(&approval, &said.by, word) {
        return Ok(Ok(approval));
    }
    let may = match word {
        Word::Yes => judge(tx, &approval, &said)?,
        Word::No if said.by == approval.asked.by || approval.verb.may_be_decided_by(said.by.role) => Ok(()),
        Word::No => Err(NoSecondPerson::Role),
    };
    if let Err(why) = may {
        return Ok(Err((code(why), told(why))));
    }
    let decided = match word {
        Word::Yes => approval.approve(said),
        Word::No => approval.reject(said),
    };
    let Ok(decided) = decided else { return Ok(Err((RefusalCode::ApprovalOver, Error::ApprovalOver))) };
    tx.update_approval(&decided)?;
    Ok(Ok(decided))
}

/// Whether this person's same word stands already.
fn has_said(approval: &Approval, by: &CallerId, word: Word) -> bool {
    match (&approval.state, word) {
        (State::Approved(said), Word::Yes) | (State::Rejected(said), Word::No) => said.by == *by,
        _ => false,
    }
}

fn code(why: NoSecondPerson) -> RefusalCode {
    match why {
        NoSecondPerson::Role => RefusalCode::Forbidden,
        NoSecondPerson::NotInForce => RefusalCode::Suspended,
        NoSecondPerson::SamePerson => RefusalCode::SamePerson,
        NoSecondPerson::SameKey => RefusalCode::SameKey,
        NoSecondPerson::SameLine => RefusalCode::SameLine,
    }
}

fn told(why: NoSecondPerson) -> Error {
    match why {
        NoSecondPerson::Role => Error::RoleNotAllowed,
        NoSecondPerson::NotInForce
        | NoSecondPerson::SamePerson
        | NoSecondPerson::SameKey
        | NoSecondPerson::SameLine => Error::NotTwoPeople,
    }
}
