//! Who may come in to which RPC. INVARIANT: the roles are the protocol's own annotations; an RPC that is not among them lets
//! nobody in.

use std::sync::Arc;

use tonic::{Request, Status};

use super::identity;
use super::proto::annotations::METHODS;
use super::status::{identity_refused, invalid_argument, malformed, role_not_allowed, status};
use super::trust::Trust;
use crate::audit::entry::{Action, RefusalCode};
use crate::domain::caller::Role;
use crate::domain::field::FieldError;
use crate::domain::time::Clock;
use crate::vault::{Call, Vault};

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
}

impl Door {
    pub fn new(vault: Vault, trust: Arc<Trust>, clock: Arc<dyn Clock>) -> Self {
        Self { vault, trust, clock }
    }

    /// Admits the caller for one call. A live connection whose certificate has expired or was revoked since is refused here.
    pub async fn enter<T>(&self, request: &Request<T>, rpc: Rpc) -> Result<Call, Status> {
        let caller = self.admit(request)?;
        let call = Call { caller, request: self.vault.new_request() };
        if !self.vault.serves(&call.caller.tenant) {
            tracing::info!(reason = "unknown_tenant", "a certificate speaks for a tenant that is not kept here");
            return Err(identity_refused());
        }
        if !may_call(call.caller.role, rpc.path) {
            self.refused(&call, rpc, RefusalCode::Forbidden).await?;
            return Err(role_not_allowed());
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
    pub async fn unreadable(&self, peer: &identity::Peer, path: &str) -> Status {
        let Ok(caller) = peer.admit(&self.trust, self.clock.now()) else { return identity_refused() };
        if !self.vault.serves(&caller.tenant) {
            return identity_refused();
        }
        let call = Call { caller: caller.clone(), request: self.vault.new_request() };
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

    /// Whether the caller of a long-lived stream is still good.
    pub fn admit<T>(&self, request: &Request<T>) -> Result<crate::domain::caller::Caller, Status> {
        identity::admit(request, &self.trust, self.clock.now()).map_err(|_| identity_refused())
    }

    /// The same for the messages of a stream, whose request is long gone.
    pub fn still_good(&self, peer: &identity::Peer) -> Result<(), Status> {
        peer.admit(&self.trust, self.clock.now()).map(drop).map_err(|_| identity_refused())
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
        _ => Action::Status,
    }
}

fn may_call(role: Role, path: &str) -> bool {
    let allowed = METHODS.iter().find(|(method, _)| *method == path).map_or(&[][..], |(_, roles)| *roles);
    allowed.contains(&(role as u8))
}
