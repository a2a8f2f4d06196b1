//! `CallerService`: parse, vault, reply.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::proto::{self, caller_service_server::CallerService, replace_pins_response, resume_caller_response};
use super::status::status;
use super::wire::callers as wire;
use crate::audit::entry::Action;
use crate::vault::{Enrolled, Gated};

pub(super) struct Callers {
    door: Arc<Door>,
}

impl Callers {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }

    fn shown(&self, caller: Enrolled) -> proto::Caller {
        wire::caller(caller, |until| self.door.days_left(until))
    }
}

macro_rules! rpc {
    ($method:ident) => {
        Rpc { path: concat!("/strongroom.v1.CallerService/", stringify!($method)), action: Action::$method }
    };
}

#[tonic::async_trait]
impl CallerService for Callers {
    async fn enrol_caller(
        &self,
        request: Request<proto::EnrolCallerRequest>,
    ) -> Result<Response<proto::EnrolCallerResponse>, Status> {
        let call = self.door.enter(&request, rpc!(EnrolCaller)).await?;
        let ask = self.door.parsed(&call, rpc!(EnrolCaller), wire::enrol_caller(&request.into_inner())).await?;
        let done = self.door.vault.enrol_caller(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::EnrolCallerResponse { caller: Some(self.shown(done)) }))
    }

    async fn suspend_caller(
        &self,
        request: Request<proto::SuspendCallerRequest>,
    ) -> Result<Response<proto::SuspendCallerResponse>, Status> {
        let call = self.door.enter(&request, rpc!(SuspendCaller)).await?;
        let ask = self.door.parsed(&call, rpc!(SuspendCaller), wire::suspend_caller(&request.into_inner())).await?;
        let done = self.door.vault.suspend_caller(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::SuspendCallerResponse { caller: Some(self.shown(done)) }))
    }

    async fn resume_caller(
        &self,
        request: Request<proto::ResumeCallerRequest>,
    ) -> Result<Response<proto::ResumeCallerResponse>, Status> {
        use resume_caller_response::Result::{Done, PendingApproval};
        let call = self.door.enter(&request, rpc!(ResumeCaller)).await?;
        let ask = self.door.parsed(&call, rpc!(ResumeCaller), wire::resume_caller(&request.into_inner())).await?;
        let result = match self.door.vault.resume_caller(&call, &ask).await.map_err(|error| status(&error))? {
            Gated::Done(caller) => Done(self.shown(caller)),
            Gated::Pending(pending) => PendingApproval(wire::pending(pending)),
        };
        Ok(Response::new(proto::ResumeCallerResponse { result: Some(result) }))
    }

    async fn replace_pins(
        &self,
        request: Request<proto::ReplacePinsRequest>,
    ) -> Result<Response<proto::ReplacePinsResponse>, Status> {
        use replace_pins_response::Result::{Done, PendingApproval};
        let call = self.door.enter(&request, rpc!(ReplacePins)).await?;
        let ask = self.door.parsed(&call, rpc!(ReplacePins), wire::replace_pins(&request.into_inner())).await?;
        let result = match self.door.vault.replace_pins(&call, &ask).await.map_err(|error| status(&error))? {
            Gated::Done(caller) => Done(self.shown(caller)),
            Gated::Pending(pending) => PendingApproval(wire::pending(pending)),
        };
        Ok(Response::new(proto::ReplacePinsResponse { result: Some(result) }))
    }

    async fn list_callers(
        &self,
        request: Request<proto::ListCallersRequest>,
    ) -> Result<Response<proto::ListCallersResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ListCallers)).await?;
        let done = self.door.vault.list_callers(&call).await.map_err(|error| status(&error))?;
        let callers = done.into_iter().map(|caller| self.shown(caller)).collect();
        Ok(Response::new(proto::ListCallersResponse { callers }))
    }
}
