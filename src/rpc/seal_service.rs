//! `SealService`, on an open vault and on a sealed one. INVARIANT: on an open vault it goes through the door and the log like every
//! other service; on a sealed one the role of an admitted certificate decides, and what was tried is remembered for the log.

use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tonic::{Request, Response, Status};

use super::door::{Door, Rpc, may_call};
use super::proto::{self, seal_service_server::SealService};
use super::seal::{Admitted, Cause, Control, SealState, StillSealed, Unsealed};
use super::status::{cannot_open, identity_refused, invalid_argument, role_not_allowed, too_many_attempts};
use super::trust::Trust;
use super::wire::wire_time;
use crate::audit::entry::{Action, RefusalCode, RequestId};
use crate::crypto::entropy::{OsEntropy, array};
use crate::crypto::root::shares::{BadShare, Share};
use crate::domain::field::{FieldError, FieldReason};
use crate::domain::time::Clock;
use crate::vault::{Attempt, Call};

macro_rules! rpc {
    ($method:ident) => {
        Rpc { path: concat!("/strongroom.v1.SealService/", stringify!($method)), action: Action::$method }
    };
}

/// On an open vault.
pub(super) struct OpenSeals {
    door: Arc<Door>,
    control: Control,
    trust: Arc<Trust>,
    clock: Arc<dyn Clock>,
}

impl OpenSeals {
    pub fn new(door: Arc<Door>, control: Control, trust: Arc<Trust>, clock: Arc<dyn Clock>) -> Self {
        Self { door, control, trust, clock }
    }

    async fn logged(&self, call: &Call, rpc: Rpc) -> Result<(), Status> {
        self.door.vault.done(call, rpc.action).await.map_err(|error| super::status::status(&error))
    }
}

#[tonic::async_trait]
impl SealService for OpenSeals {
    async fn seal_status(
        &self,
        request: Request<proto::SealStatusRequest>,
    ) -> Result<Response<proto::SealStatusResponse>, Status> {
        let call = self.door.enter(&request, rpc!(SealStatus)).await?;
        self.logged(&call, rpc!(SealStatus)).await?;
        Ok(Response::new(proto::SealStatusResponse { state: Some(wire_state(self.control.state())) }))
    }

    /// It is open: there is nothing to do, and somebody else's share did it.
    async fn unseal(&self, request: Request<proto::UnsealRequest>) -> Result<Response<proto::UnsealResponse>, Status> {
        let call = self.door.enter(&request, rpc!(Unseal)).await?;
        self.logged(&call, rpc!(Unseal)).await?;
        Ok(Response::new(proto::UnsealResponse { state: Some(wire_state(self.control.state())) }))
    }

    async fn seal(&self, request: Request<proto::SealRequest>) -> Result<Response<proto::SealResponse>, Status> {
        let call = self.door.enter(&request, rpc!(Seal)).await?;
        let meant = meant(&request.get_ref().trust_domain, self.trust.trust_domain());
        self.door.parsed(&call, rpc!(Seal), meant).await?;
        if let Err(error) = self.door.vault.done(&call, Action::Seal).await {
            // A log that cannot be written must not keep anyone from sealing; it is told of it when it can.
            tracing::error!(%error, "the audit log cannot take the seal: sealing all the same");
            self.control.note(Attempt {
                call: call.clone(),
                at: self.clock.now(),
                action: Action::Seal,
                refused: None,
            });
        }
        let (role, name) = (call.caller.role.as_str(), call.caller.name.as_str());
        tracing::warn!(tenant = call.caller.tenant.as_str(), role, name, "sealing by command");
        self.control.seal().await;
        Ok(Response::new(proto::SealResponse { state: Some(wire_state(self.control.state())) }))
    }
}

/// On a sealed vault.
pub(super) struct SealedSeals {
    control: Control,
    trust: Arc<Trust>,
    clock: Arc<dyn Clock>,
    /// By the caller's path, so that nobody can use up another's.
    attempts: DefaultKeyedRateLimiter<String>,
}

/// Attempts of one caller: these at once, then three a second.
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
const A_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);

impl SealedSeals {
    pub fn new(control: Control, trust: Arc<Trust>, clock: Arc<dyn Clock>) -> Self {
        let attempts = RateLimiter::keyed(Quota::per_second(A_SECOND).allow_burst(BURST));
        Self { control, trust, clock, attempts }
    }

    fn enter<T>(&self, request: &Request<T>, rpc: Rpc) -> Result<Call, Status> {
        let Admitted(caller) = request.extensions().get().ok_or_else(identity_refused)?;
        let call = Call { caller: caller.clone(), request: RequestId(array(&OsEntropy)) };
        if self.attempts.check_key(&call.caller.path()).is_err() {
            return Err(too_many_attempts());
        }
        if !may_call(call.caller.role, rpc.path) {
            self.note(self.attempt(&call, rpc), Some(RefusalCode::Forbidden));
            return Err(role_not_allowed());
        }
        Ok(call)
    }

    fn attempt(&self, call: &Call, rpc: Rpc) -> Attempt {
        Attempt { call: call.clone(), at: self.clock.now(), action: rpc.action, refused: None }
    }

    /// Tells the operator's log now, and the audit log once there is one.
    fn note(&self, attempt: Attempt, refused: Option<RefusalCode>) {
        tell(&attempt, refused);
        self.control.note(Attempt { refused, ..attempt });
    }

    async fn try_share(&self, text: &str, attempt: Attempt) -> Result<Unsealed, StillSealed> {
        let split = self.control.state().shares.is_some();
        let share = match (split, text.is_empty()) {
            (true, true) => return Err(StillSealed::NoShare),
            (false, false) => return Err(StillSealed::NotSplit),
            (true, false) => Some(Share::parse(text).map_err(StillSealed::Share)?),
            (false, true) => None,
        };
        self.control.unseal(share, attempt).await
    }
}

fn tell(attempt: &Attempt, refused: Option<RefusalCode>) {
    let (caller, action) = (&attempt.call.caller, attempt.action);
    let (tenant, role, name) = (caller.tenant.as_str(), caller.role.as_str(), caller.name.as_str());
    match refused {
        None => tracing::info!(%action, tenant, role, name, "done on a sealed vault"),
        Some(why) => tracing::warn!(%action, reason = %why, tenant, role, name, "refused on a sealed vault"),
    }
}

#[tonic::async_trait]
impl SealService for SealedSeals {
    async fn seal_status(
        &self,
        request: Request<proto::SealStatusRequest>,
    ) -> Result<Response<proto::SealStatusResponse>, Status> {
        self.enter(&request, rpc!(SealStatus))?;
        Ok(Response::new(proto::SealStatusResponse { state: Some(wire_state(self.control.state())) }))
    }

    async fn unseal(&self, request: Request<proto::UnsealRequest>) -> Result<Response<proto::UnsealResponse>, Status> {
        let call = self.enter(&request, rpc!(Unseal))?;
        let share = zeroize::Zeroizing::new(request.into_inner().share);
        let attempt = self.attempt(&call, rpc!(Unseal));
        match self.try_share(&share, attempt.clone()).await {
            Ok(Unsealed::Open) => tell(&attempt, None),
            Ok(Unsealed::NotYet) => self.note(attempt, None),
            Err(why) => {
                self.note(attempt, Some(code(why)));
                return Err(told(why));
            }
        }
        Ok(Response::new(proto::UnsealResponse { state: Some(wire_state(self.control.state())) }))
    }

    /// Sealed is sealed.
    async fn seal(&self, request: Request<proto::SealRequest>) -> Result<Response<proto::SealResponse>, Status> {
        let call = self.enter(&request, rpc!(Seal))?;
        let meant = meant(&request.get_ref().trust_domain, self.trust.trust_domain());
        self.note(self.attempt(&call, rpc!(Seal)), meant.as_ref().err().map(|_| RefusalCode::Invalid));
        meant.map_err(|invalid| invalid_argument(&invalid))?;
        Ok(Response::new(proto::SealResponse { state: Some(wire_state(self.control.state())) }))
    }
}

/// Whether the command is for this vault.
fn meant(asked: &str, ours: &str) -> Result<(), FieldError> {
    match asked {
        "" => Err(FieldError::new("trust_domain", FieldReason::Missing)),
        asked if asked == ours => Ok(()),
        _ => Err(FieldError::new("trust_domain", FieldReason::Unknown)),
    }
}

/// What the log is told.
fn code(why: StillSealed) -> RefusalCode {
    match why {
        StillSealed::Share(BadShare::NotAShare) => RefusalCode::NotAShare,
        StillSealed::Share(BadShare::OtherSet) => RefusalCode::OtherShares,
        StillSealed::Share(BadShare::Repeated) => RefusalCode::RepeatedShare,
        StillSealed::Share(BadShare::Forged) => RefusalCode::WrongShare,
        StillSealed::NoShare | StillSealed::NotSplit => RefusalCode::Invalid,
        StillSealed::CannotOpen => RefusalCode::CannotOpen,
    }
}

/// What the caller is told.
fn told(why: StillSealed) -> Status {
    let reason = match why {
        StillSealed::Share(BadShare::NotAShare) => FieldReason::NotAShare,
        StillSealed::Share(BadShare::OtherSet) => FieldReason::OtherShares,
        StillSealed::Share(BadShare::Repeated) => FieldReason::Repeated,
        StillSealed::Share(BadShare::Forged) => FieldReason::WrongShare,
        StillSealed::NoShare => FieldReason::Missing,
        StillSealed::NotSplit => FieldReason::WrongKind,
        StillSealed::CannotOpen => return cannot_open(),
    };
    invalid_argument(&FieldError::new("share", reason))
}

fn wire_state(state: SealState) -> proto::SealState {
    let cause = match state.sealed {
        None => proto::SealCause::Unspecified,
        Some(Cause::Started) => proto::SealCause::Started,
        Some(Cause::Commanded) => proto::SealCause::Commanded,
    };
    proto::SealState {
        sealed: state.sealed.is_some(),
        cause: cause.into(),
        since: Some(wire_time(state.since)),
        root_source: state.root_source.to_owned(),
        shares_held: state.shares.map_or(0, |shares| shares.held.into()),
        threshold: state.shares.map_or(0, |shares| shares.threshold.into()),
    }
}
