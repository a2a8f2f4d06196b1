//! Shipment grants that were never read. INVARIANT: a grant is told by its number and its terms; its serial and its record stay
//! closed.

use super::Answer;
use super::reading::REST;
use crate::audit::entry::Action;
use crate::domain::id::GrantId;
use crate::domain::time::Timestamp;
use crate::store::rows::GrantRow;
use crate::vault::call::{Call, Draft};
use crate::vault::{Error, Vault};

pub struct UnusedGrants {
    /// Those whose window began before this.
    pub began_before: Timestamp,
}

pub struct UnusedGrant {
    pub grant: GrantRow,
    pub why: Why,
}

/// How an unread grant stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It can still be read.
    Open,
    /// Its window is over.
    Over,
    /// Delivered, returned, cancelled or revoked without having been read.
    Ended,
}

/// Grants looked at in one snapshot.
const PAGE: usize = 1_000;

impl Vault {
    /// The tenant's grants that nobody has ever read, oldest first. Those whose record is destroyed are gone with it.
    pub async fn unused_grants(&self, call: &Call, ask: &UnusedGrants) -> Result<Answer<UnusedGrant>, Error> {
        let now = self.now();
        let (draft, began_before) = (Draft::of(call, Action::UnusedGrants, now), ask.began_before.min(now));
        self.ask(&call.caller.tenant, draft, move |question| {
            let (mut rows, mut after) = (Vec::new(), Some(GrantId(i64::MIN)));
            while let Some(from) = after {
                let page = question.vault.store().read(|view| view.grants_after(&question.tenant, from, PAGE))?;
                let unread = page.0.into_iter().filter(|grant| grant.reads == 0 && grant.not_before < began_before);
                rows.extend(unread.map(|grant| UnusedGrant { why: why(&grant, now), grant }));
                question.reply.is_at_work()?;
                question.reply.full_parts(&mut rows)?;
                after = page.1;
                std::thread::sleep(REST);
            }
            question.reply.all(rows)
        })
        .await
    }
}

fn why(grant: &GrantRow, now: Timestamp) -> Why {
    match grant.ended_at {
        Some(_) => Why::Ended,
        None if grant.not_after <= now => Why::Over,
        None => Why::Open,
    }
}
