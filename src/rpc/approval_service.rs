//! `ApprovalService`: parse, vault, reply.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::proto::{self, approval_service_server::ApprovalService};
use super::status::status;
use super::wire::callers as wire;
use crate::audit::entry::Action;
use crate::vault::{Call, Word};

pub(super) struct Approvals {
    door: Arc<Door>,
}

impl Approvals {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }

    async fn decide(&self, call: &Call, rpc: Rpc, id: &str, word: Word) -> Result<proto::Approval, Status> {
        let id = self.door.parsed(call, rpc, wire::approval_id(id)).await?;
        let decided = self.door.vault.decide(call, id, word).await.map_err(|error| status(&error))?;
        Ok(wire::approval(decided, self.door.vault.now()))
    }
}

macro_rules! rpc {
    ($method:ident) => {
        Rpc { path: concat!("/strongroom.v1.ApprovalService/", stringify!($method)), action: Action::$method }
    };
}

#[tonic::async_trait]
impl ApprovalService for Approvals {
    async fn list_approvals(
        &self,
        request: Request<proto::ListApprovalsRequest>,
    ) -> Result<Response<proto::ListApprovalsResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ListApprovals)).await?;
        let (vault, now) = (&self.door.vault, self.door.vault.now());
        let listed = vault.list_approvals(&call).await.map_err(|error| status(&error))?;
        let approvals = listed.into_iter().map(|approval| wire::approval(approval, now)).collect();
        Ok(Response::new(proto::ListApprovalsResponse { approvals }))
    }

    async fn show_approval(
        &self,
        request: Request<proto::ShowApprovalRequest>,
    ) -> Result<Response<proto::ShowApprovalResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ShowApproval)).await?;
        let id = wire::approval_id(&request.into_inner().approval_id);
        let id = self.door.parsed(&call, rpc!(ShowApproval), id).await?;
        let shown = self.door.vault.show_approval(&call, id).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::ShowApprovalResponse { approval: Some(wire::approval(shown, self.door.vault.now())) }))
    }

    async fn approve(
        &self,
        request: Request<proto::ApproveRequest>,
    ) -> Result<Response<proto::ApproveResponse>, Status> {
        let call = self.door.enter(&request, rpc!(Approve)).await?;
        let approval = self.decide(&call, rpc!(Approve), &request.into_inner().approval_id, Word::Yes).await?;
        Ok(Response::new(proto::ApproveResponse { approval: Some(approval) }))
    }

    async fn reject(&self, request: Request<proto::RejectRequest>) -> Result<Response<proto::RejectResponse>, Status> {
        let call = self.door.enter(&request, rpc!(Reject)).await?;
        let approval = self.decide(&call, rpc!(Reject), &request.into_inner().approval_id, Word::No).await?;
        Ok(Response::new(proto::RejectResponse { approval: Some(approval) }))
    }
}
