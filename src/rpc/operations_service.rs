//! `OperationsService`: vault, reply.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::progress::{Told, told};
use super::proto::{self, operations_service_server::OperationsService};
use super::status::status;
use super::wire;
use crate::audit::entry::Action;
use crate::vault::{BackupProgress, Error};

pub(super) struct Operations {
    door: Arc<Door>,
}

impl Operations {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
}

macro_rules! rpc {
    ($method:ident) => {
        Rpc { path: concat!("/strongroom.v1.OperationsService/", stringify!($method)), action: Action::$method }
    };
}

#[tonic::async_trait]
impl OperationsService for Operations {
    async fn status(&self, request: Request<proto::StatusRequest>) -> Result<Response<proto::StatusResponse>, Status> {
        let call = self.door.enter(&request, rpc!(Status)).await?;
        let mut done = self.door.vault.status(&call).await.map_err(|error| status(&error))?;
        done.warnings.extend(self.door.warnings(&call.caller.tenant));
        Ok(Response::new(wire::status(done)))
    }

    async fn confirm_clock(
        &self,
        request: Request<proto::ConfirmClockRequest>,
    ) -> Result<Response<proto::ConfirmClockResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ConfirmClock)).await?;
        let time = self.door.parsed(&call, rpc!(ConfirmClock), wire::vouched(&request.into_inner())).await?;
        let mark = self.door.vault.confirm_clock(&call, time).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::ConfirmClockResponse { mark: Some(wire::wire_time(mark)) }))
    }

    async fn resume_sweep(
        &self,
        request: Request<proto::ResumeSweepRequest>,
    ) -> Result<Response<proto::ResumeSweepResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ResumeSweep)).await?;
        let records_due = self.door.vault.resume_sweep(&call).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::ResumeSweepResponse { records_due }))
    }

    type BackupStream = Told<proto::BackupResponse>;

    async fn backup(&self, request: Request<proto::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let call = self.door.enter(&request, rpc!(Backup)).await?;
        let progress = self.door.vault.backup(&call).await.map_err(|error| status(&error))?;
        let is_last = |progress: &BackupProgress| !matches!(progress, BackupProgress::Copying { .. });
        Ok(Response::new(told(&self.door, &request, progress, is_last, reply)?))
    }
}

fn reply(progress: BackupProgress) -> Result<proto::BackupResponse, Status> {
    match progress {
        BackupProgress::Copying { pages, of } => {
            Ok(proto::BackupResponse { pages_copied: pages, pages: of, ..proto::BackupResponse::default() })
        }
        BackupProgress::Done { manifest, dead_after } => Ok(proto::BackupResponse {
            manifest: manifest.display().to_string(),
            dead_after: Some(wire::wire_time(dead_after)),
            ..proto::BackupResponse::default()
        }),
        // The log says why.
        BackupProgress::Failed(error) => Err(status(&Error::Unavailable(error))),
    }
}
