//! Which retention policy a tenant's new records live by. INVARIANT: a policy under which anything may go earlier takes force only
//! after two people have let it, for that tenant, against the very policy that was in force; until then new records live by the
//! old one, and the operator is warned. Records that are there live by the policy they were collected under, whatever comes.

use std::collections::BTreeMap;

use super::approval::{Ask, Gate, Gated};
use super::call::{Call, Draft};
use super::{Error, Parts, Vault};
use crate::audit::entry::{Action, RequestId};
use crate::crypto::slot::Canonical;
use crate::domain::fault::{Fault, planted};
use crate::domain::id::{PolicyVersion, TenantId};
use crate::domain::time::Timestamp;
use crate::policy::approval::Verb;
use crate::policy::retention::{Change, Policy, diff};
use crate::store::rows::retention::PolicyInForceRow;
use crate::store::{StoreError, Tx};

/// The most changes that a request for a second person's word lists.
const TOLD: usize = 12;

/// What came of putting a policy forward.
pub struct Proposed {
    pub version: PolicyVersion,
    /// Against the policy in force.
    pub changes: Vec<Change>,
    pub result: Gated<()>,
}

/// The policies that may not take the place of those in force, by tenant.
pub(crate) type HeldBack = BTreeMap<TenantId, String>;

/// Settles which policy each tenant's new records live by: the configured one, or the one before where that takes two people
/// and they have not spoken.
pub(crate) async fn take_force(
    parts: &mut Parts,
    kept: &BTreeMap<[u8; 32], Policy>,
    request: RequestId,
    now: Timestamp,
) -> Result<HeldBack, Error> {
    let mut held_back = HeldBack::new();
    for (tenant, configured) in &mut parts.policies {
        let row = parts.store.read(|view| view.policy_in_force(tenant))?;
        let version = configured.version();
        if let Some(row) = &row {
            if row.version == version {
                continue;
            }
            let before = kept.get(&row.version.0).ok_or(Error::Tampered { table: "policy" })?;
            let shortens = diff(before, configured).iter().any(|change| change.effect.shortens());
            if shortens && row.allowed != Some(version) && !planted(Fault::ShorteningUnwatched) {
                let why = held_back_because(before, configured);
                tracing::warn!("{why}");
                held_back.insert(tenant.clone(), why);
                *configured = before.clone();
                continue;
            }
        }
        let row = PolicyInForceRow { tenant: tenant.clone(), version, since: now, allowed: None };
        let entry = Draft::by_vault(tenant, request, Action::AdoptPolicy, now).done();
        let write = move |tx: &mut Tx<'_>| {
            tx.put_policy_in_force(&row)?;
            tx.log(entry.clone());
            Ok(())
        };
        parts.store.run("take_force", write).await?;
    }
    Ok(held_back)
}

fn held_back_because(before: &Policy, configured: &Policy) -> String {
    format!(
        "the configured retention policy {} shortens something against {}, which stays in force for new records: it takes two \
         people (strongroom policy propose), and then a restart",
        named(configured),
        named(before)
    )
}

/// A policy's own name and the beginning of its hash.
fn named(policy: &Policy) -> String {
    let hash = hex::encode(policy.version().0);
    format!("{} {}", policy.id(), hash.get(..12).unwrap_or_default())
}

impl Vault {
    /// Lets `policy` take the place of the one in force, at the next start that is configured so. If it shortens something, once
    /// a second person has agreed.
    pub async fn propose_policy(&self, call: &Call, policy: &Policy) -> Result<Proposed, Error> {
        let tenant = call.caller.tenant.clone();
        let draft = Draft::of(call, Action::ProposePolicy, self.now());
        let in_force = self.inner.parts.policies.get(&tenant).ok_or(Error::NotFound)?;
        let changes = diff(in_force, policy);
        let ask = Ask::new(self, call, Verb::ShortenRetention, about(in_force, policy, &changes));
        let shortens = changes.iter().any(|change| change.effect.shortens());
        let (before, version, text) = (in_force.version(), policy.version(), policy.text().to_owned());
        let log = draft.clone();
        let write = move |tx: &mut Tx<'_>| {
            let Some(row) = tx.policy_in_force(&tenant)?.filter(|row| row.version == before) else {
                return Err(StoreError::Tampered { table: "policy_in_force" });
            };
            if version == before || row.allowed == Some(version) || !shortens {
                tx.log(log.clone().done());
                return Ok(Ok(Gated::Done(())));
            }
            let request = Canonical::new("propose_policy").bytes(&before.0).bytes(&version.0);
            match ask.gate(tx, ask.digest(&request))? {
                Gate::Closed(error) => Ok(Err(error)),
                Gate::Pending(pending) => Ok(Ok(Gated::Pending(pending))),
                Gate::Agreed(agreed) => {
                    tx.put_policy(&version, &text)?;
                    tx.put_policy_in_force(&PolicyInForceRow { allowed: Some(version), ..row })?;
                    tx.log(log.clone().under(agreed.story()).done());
                    Ok(Ok(Gated::Done(())))
                }
            }
        };
        let answer = self.store().run("propose_policy", write).await.map_err(Error::from).and_then(|answer| answer);
        let result = self.watch(&draft, answer).await?;
        Ok(Proposed { version, changes, result })
    }

    /// Why the tenant's configured policy is not in force, if it is not.
    pub(crate) fn held_back(&self, tenant: &TenantId) -> Option<String> {
        self.inner.held_back.get(tenant).cloned()
    }
}

/// What a second person is asked: which policy for which, and all that it hastens.
fn about(before: &Policy, policy: &Policy, changes: &[Change]) -> String {
    let hastened: Vec<String> = changes
        .iter()
        .filter(|change| change.effect.shortens())
        .map(|change| {
            let shown = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".to_owned());
            format!("{}: {} -> {} ({})", change.rule, shown(&change.old), shown(&change.new), change.effect.as_str())
        })
        .collect();
    let more = hastened.len().saturating_sub(TOLD);
    let listed = hastened.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("let the retention policy {} take the place of {}: {listed}{rest}", named(policy), named(before))
}
