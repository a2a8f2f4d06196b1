//! Who may come in to which RPC. INVARIANT: the roles are the protocol's own annotations; an RPC that is not among them lets
//! nobody in.

use std::sync::Arc;

use tonic::{Request, Status};

use super::Watch;
use super::identity::Peer;
use super::limits::{Meters, may_tell};
use super::proto::annotations::METHODS;
use super::status::{
    identity_refused, invalid_argument, locked_out, malformed, rate_limited, role_not_allowed, status,
};
use super::trust::Trust;
use crate::audit::entry::{Action, RefusalCode};
use crate::domain::caller::{Caller, Role};
use crate::domain::field::FieldError;
use crate::domain::id::TenantId;
use crate::domain::time::{Clock, Timestamp};
use crate::vault::{Call, Vault, days_between};

/// One RPC: its path, and the name its calls go by in the audit log.
#[derive(Clone, Copy)]
pub(super) struct Rpc {
    pub path: &'static str,
    pub action: Action,
}

pub(super) struct Door {
    pub vault: Vault,
    trust: Arc<Trust>,
    clock: Arc<dyn Clock>,
    watch: Watch,
    meters: Meters,
}

impl Door {
    pub fn new(vault: Vault, trust: Arc<Trust>, clock: Arc<dyn Clock>, watch: Watch) -> Self {
        let meters = Meters::new(vault.limits());
        Self { vault, trust, clock, watch, meters }
    }

    /// Whether a request is looked at at all: its caller is neither too fast nor locked out. Nothing is logged of it.
    pub fn heed(&self, peer: &Peer) -> Result<(), Status> {
        let caller = peer.caller();
        if let Err(again) = self.meters.admit(caller) {
            metrics::counter!("strongroom_rate_limited_total", "role" => caller.role.as_str()).increment(1);
            if may_tell() {
                let (tenant, role, name) = (caller.tenant.as_str(), caller.role.as_str(), caller.name.as_str());
                tracing::info!(tenant, role, name, "a caller makes more calls than it may");
            }
            return Err(rate_limited(again));
        }
        self.vault.locked_out(caller).map_or(Ok(()), |left| Err(locked_out(left)))
    }

    /// Waits until a stream's next message may be taken.
    pub async fn pace(&self, peer: &Peer) {
        self.meters.pace(peer.caller()).await;
    }

    /// Admits the caller for one call of this RPC.
    pub async fn enter<T>(&self, request: &Request<T>, rpc: Rpc) -> Result<Call, Status> {
        let peer = request.extensions().get::<Arc<Peer>>().ok_or_else(identity_refused)?;
        let call = self.welcome(peer, rpc.path).await?;
        if !may_call(call.caller.role, rpc.path) {
            self.refused(&call, rpc, RefusalCode::Forbidden).await?;
            return Err(role_not_allowed());
        }
        Ok(call)
    }

    /// Lets the caller in, whatever it may do here. A live connection whose certificate has expired or was revoked since, or
    /// whose caller was suspended since, is refused here, and the log tells why.
    pub async fn welcome(&self, peer: &Peer, path: &str) -> Result<Call, Status> {
        let call = Call { caller: self.admit(peer)?.clone(), request: self.vault.new_request() };
        if !self.vault.serves(&call.caller.tenant) {
            tracing::info!(reason = "unknown_tenant", "a certificate speaks for a tenant that is not kept here");
            return Err(identity_refused());
        }
        if let Err(why) = self.vault.welcome(&call.caller) {
            self.vault.turned_away(&call, action(path), why).await.map_err(|error| status(&error))?;
            return Err(identity_refused());
        }
        if peer.comes_in_first() {
            self.vault.saw(&call.caller, peer.good_until(), self.clock.now());
        }
        Ok(call)
    }

    /// What a request parsed to; one that does not is refused by its field's name, and the refusal logged like any other.
    pub async fn parsed<T>(&self, call: &Call, rpc: Rpc, parsed: Result<T, FieldError>) -> Result<T, Status> {
        match parsed {
            Ok(value) => Ok(value),
            Err(error) => {
                self.refused(call, rpc, RefusalCode::Invalid).await?;
                Err(invalid_argument(&error))
            }
        }
    }

    pub async fn refused(&self, call: &Call, rpc: Rpc, code: RefusalCode) -> Result<(), Status> {
        self.vault.refused(call, rpc.action, code).await.map_err(|error| status(&error))
    }

    /// The answer to a request that is none of our messages, too large, or did not arrive; logged like any other refusal.
    pub async fn unreadable(&self, peer: &Peer, path: &str) -> Status {
        let call = match self.welcome(peer, path).await {
            Ok(call) => call,
            Err(refused) => return refused,
        };
        let (code, told) = if may_call(call.caller.role, path) {
            (RefusalCode::Invalid, malformed())
        } else {
            (RefusalCode::Forbidden, role_not_allowed())
        };
        match self.vault.refused(&call, action(path), code).await {
            Ok(()) => told,
            Err(error) => status(&error),
        }
    }

    /// Whether the caller of a stream may go on: asked for every message, as its request is long gone.
    pub fn still_good(&self, peer: &Peer) -> Result<(), Status> {
        let caller = self.admit(peer)?;
        if let Some(left) = self.vault.locked_out(caller) {
            return Err(locked_out(left));
        }
        self.vault.welcome(caller).map_err(|why| {
            self.vault.turned_away_midway(caller, why);
            identity_refused()
        })
    }

    /// What the tenant's operator should know of what lives by the real clock: its callers' certificates, the server's own, the
    /// revocation lists; and of what is above this layer.
    pub fn warnings(&self, tenant: &TenantId) -> Vec<String> {
        let now = self.clock.now();
        let mut warnings = self.vault.caller_warnings(tenant, now);
        warnings.extend(self.trust.warnings(now));
        warnings.extend((self.watch)());
        warnings
    }

    /// How many whole days are left until then.
    pub fn days_left(&self, until: Timestamp) -> i64 {
        days_between(self.clock.now(), until)
    }

    fn admit<'a>(&self, peer: &'a Peer) -> Result<&'a Caller, Status> {
        peer.admit(&self.trust, self.clock.now()).map_err(|_| identity_refused())
    }
}

/// What the audit log calls the RPC of a path whose handler was not reached.
fn action(path: &str) -> Action {
    match path.rsplit('/').next().unwrap_or_default() {
        "Tokenize" | "TokenizeStream" => Action::Tokenize,
        "Detokenize" | "BatchDetokenize" => Action::Detokenize,
        "Correct" => Action::Correct,
        "Erase" => Action::Erase,
        "Describe" => Action::Describe,
        "ReportEvent" => Action::ReportEvent,
        "GrantShipment" => Action::GrantShipment,
        "RevokeShipment" => Action::RevokeShipment,
        "GetDelivery" => Action::GetDelivery,
        "ConfirmDelivery" => Action::ConfirmDelivery,
        "ConfirmClock" => Action::ConfirmClock,
        "EnrolCaller" => Action::EnrolCaller,
        "SuspendCaller" => Action::SuspendCaller,
        "ResumeCaller" => Action::ResumeCaller,
        "ReplacePins" => Action::ReplacePins,
        "ListCallers" => Action::ListCallers,
        "ListApprovals" => Action::ListApprovals,
        "ShowApproval" => Action::ShowApproval,
        "Approve" => Action::Approve,
        "Reject" => Action::Reject,
        "EraseSubject" => Action::EraseSubject,
        "ReceiptOf" => Action::ReceiptOf,
        "PlaceHold" => Action::PlaceHold,
        "LiftHold" => Action::LiftHold,
        "ListHolds" => Action::ListHolds,
        "Published" => Action::Published,
        "ResumeSweep" => Action::ResumeSweep,
        "WhoSaw" => Action::WhoSaw,
        "SeenBy" => Action::SeenBy,
        "Refusals" => Action::Refusals,
        "UnusedGrants" => Action::UnusedGrants,
        "Explain" => Action::Explain,
        "Disclose" => Action::Disclose,
        "Find" => Action::Find,
        "ListKeys" => Action::ListKeys,
        "RotateKek" => Action::RotateKek,
        "DestroyEpoch" => Action::DestroyEpoch,
        "PostponeEpoch" => Action::PostponeEpoch,
        "RotateRoot" => Action::RotateRoot,
        "Checkpoint" => Action::Checkpoint,
        "InclusionProof" => Action::InclusionProof,
        "ConsistencyProof" => Action::ConsistencyProof,
        "Export" => Action::Export,
        "ExplainRetention" => Action::ExplainRetention,
        "ProposePolicy" => Action::ProposePolicy,
        "RetentionForecast" => Action::RetentionForecast,
        "RetentionOutlook" => Action::RetentionOutlook,
        "Seal" => Action::Seal,
        "Unseal" => Action::Unseal,
        "SealStatus" => Action::SealStatus,
        _ => Action::Status,
    }
}

/// The name of an RPC in metrics: never what a client made up.
pub(super) fn known(path: &str) -> &'static str {
    let ours = METHODS.iter().find(|(method, _)| *method == path).map(|(method, _)| *method);
    let health = if path.starts_with("/grpc.health.") { "Health" } else { "unknown" };
    ours.and_then(|method| method.strip_prefix("/strongroom.v1.")).unwrap_or(health)
}

pub(super) fn may_call(role: Role, path: &str) -> bool {
    let allowed = METHODS.iter().find(|(method, _)| *method == path).map_or(&[][..], |(_, roles)| *roles);
    allowed.contains(&(role as u8))
}
