//! What was refused, and why. INVARIANT: the reason is the log's own code, which is finer than what the caller was told.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::reading::{Reading, corrupt};
use super::{Answer, Period};
use crate::audit::entry::{Action, Actor, RefusalCode, RequestId, Verdict};
use crate::domain::caller::Role;
use crate::domain::field::FieldReason;
use crate::domain::id::CallerName;
use crate::domain::time::Timestamp;
use crate::vault::call::{Call, Draft};
use crate::vault::{Error, Vault};

pub struct Refusals {
    pub period: Period,
}

/// All refusals of one kind to one caller.
pub struct Refused {
    pub code: RefusalCode,
    pub action: Action,
    /// `None`: the vault itself came upon it.
    pub by: Option<(Role, CallerName)>,
    pub times: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    /// The last one's number, to have it explained.
    pub request: RequestId,
}

/// Kinds of refusals that one answer tells apart. Callers are certified, so there are not many.
const KINDS: usize = 10_000;

impl Vault {
    /// The refusals of a period by code, action and caller, the most frequent first.
    pub async fn refusals(&self, call: &Call, ask: &Refusals) -> Result<Answer<Refused>, Error> {
        let (draft, period) = (Draft::of(call, Action::Refusals, self.now()), ask.period);
        self.ask(&call.caller.tenant, draft, move |question| {
            let (mut reading, mut kinds) = (Reading::new(question, period), BTreeMap::new());
            while reading.turn()? {
                for glance in reading.entries() {
                    let glance = glance?;
                    let Verdict::Refused(code) = glance.verdict else { continue };
                    let by = match glance.entry().ok_or_else(corrupt)?.actor {
                        Actor::Vault => None,
                        Actor::Caller { role, name, .. } => Some((role, name)),
                    };
                    let (at, action, request) = (glance.at, glance.action, glance.request);
                    let kind = kinds.entry((code, action, by.clone()));
                    let kind = kind.or_insert(Refused { code, action, by, times: 0, first: at, last: at, request });
                    kind.times += glance.times();
                    kind.first = kind.first.min(at);
                    if at >= kind.last {
                        (kind.last, kind.request) = (at, request);
                    }
                }
                if kinds.len() > KINDS {
                    return Err(Error::invalid("until", FieldReason::TooMany));
                }
            }
            let mut kinds: Vec<Refused> = kinds.into_values().collect();
            // Stable: kinds of equal number stay in the order of their codes.
            kinds.sort_by_key(|kind| Reverse(kind.times));
            question.reply.all(kinds)
        })
        .await
    }
}
