//! What one request did. INVARIANT: the story is the log's own, entry by entry; nothing is looked up beside it.

use super::reading::{Reading, corrupt};
use super::{Answer, Period};
use crate::audit::entry::{Action, Entry, RequestId};
use crate::vault::call::{Call, Draft};
use crate::vault::{Error, Vault};

pub struct Explain {
    pub request: RequestId,
}

impl Vault {
    /// Every entry under the request's number, in the log's order; none where there is no such request of the tenant's.
    pub async fn explain(&self, call: &Call, ask: &Explain) -> Result<Answer<Entry>, Error> {
        let (draft, request) = (Draft::of(call, Action::Explain, self.now()), ask.request);
        self.ask(&call.caller.tenant, draft, move |question| {
            let (mut reading, mut rows) = (Reading::new(question, Period::ALWAYS), Vec::new());
            while reading.turn()? {
                for glance in reading.entries() {
                    let glance = glance?;
                    if glance.request == request {
                        rows.push(glance.entry().ok_or_else(corrupt)?);
                    }
                }
                question.reply.full_parts(&mut rows)?;
            }
            question.reply.all(rows)
        })
        .await
    }
}
