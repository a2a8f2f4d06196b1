//! One call: who asks, and the entry it leaves. INVARIANT: an entry is made of what the certificate and the store say, never
//! of what the client sent.

use crate::audit::entry::{Action, Actor, Entry, RefusalCode, RequestId, SubjectTag, Verdict, Whom};
use crate::domain::caller::Caller;
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::{Class, Field, Outcome, Purpose};

/// Who asks, and the number the request goes by in logs.
#[derive(Clone, Debug)]
pub struct Call {
    pub caller: Caller,
    pub request: RequestId,
}

/// An audit entry in the making.
#[derive(Clone)]
pub(crate) struct Draft {
    entry: Entry,
}

impl Draft {
    pub(crate) fn of(call: &Call, action: Action, at: Timestamp) -> Self {
        Self { entry: blank(call.request, call.caller.tenant.clone(), Actor::from(&call.caller), action, at) }
    }

    /// What the vault does by itself.
    pub(crate) fn by_vault(tenant: &TenantId, request: RequestId, action: Action, at: Timestamp) -> Self {
        Self { entry: blank(request, tenant.clone(), Actor::Vault, action, at) }
    }

    /// For callers whose requests the vault answers without looking at them.
    pub(crate) fn by(actor: Actor, tenant: &TenantId, request: RequestId, action: Action, at: Timestamp) -> Self {
        Self { entry: blank(request, tenant.clone(), actor, action, at) }
    }

    pub(crate) fn about(mut self, class: Class, subject: Option<SubjectTag>) -> Self {
        self.entry.class = Some(class);
        self.entry.subject = subject;
        self
    }

    pub(crate) fn of_subject(mut self, subject: SubjectTag) -> Self {
        self.entry.subject = Some(subject);
        self
    }

    pub(crate) fn purpose(mut self, purpose: Purpose) -> Self {
        self.entry.purpose = Some(purpose);
        self
    }

    pub(crate) fn outcomes(mut self, outcomes: Vec<(Field, Outcome)>) -> Self {
        self.entry.outcomes = outcomes;
        self
    }

    pub(crate) fn action(mut self, action: Action) -> Self {
        self.entry.action = action;
        self
    }

    pub(crate) fn whom(mut self, whom: Whom) -> Self {
        self.entry.whom = Some(whom);
        self
    }

    pub(crate) fn count(mut self, count: u32) -> Self {
        self.entry.count = Some(count);
        self
    }

    /// Tells it under another request's number: one story, one number.
    pub(crate) fn under(mut self, request: RequestId) -> Self {
        self.entry.request = request;
        self
    }

    /// Tells of a later moment of the same call.
    pub(crate) fn at(mut self, at: Timestamp) -> Self {
        self.entry.at = at;
        self
    }

    pub(crate) fn done(self) -> Entry {
        self.entry
    }

    pub(crate) fn refused(mut self, code: RefusalCode) -> Entry {
        self.entry.verdict = Verdict::Refused(code);
        self.entry
    }
}

fn blank(request: RequestId, tenant: TenantId, actor: Actor, action: Action, at: Timestamp) -> Entry {
    Entry {
        at,
        request,
        tenant,
        actor,
        action,
        class: None,
        purpose: None,
        verdict: Verdict::Done,
        outcomes: Vec::new(),
        subject: None,
        whom: None,
        count: None,
    }
}
