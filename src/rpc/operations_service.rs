//! `OperationsService`: vault, reply.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::identity::Peer;
use super::proto::{self, operations_service_server::OperationsService};
use super::status::{identity_refused, status};
use super::wire;
use crate::audit::entry::Action;
use crate::store::StoreError;
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

/// How often a backup's progress is told.
const TELL: Duration = Duration::from_millis(200);

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

    type BackupStream = Pin<Box<dyn Stream<Item = Result<proto::BackupResponse, Status>> + Send>>;

    async fn backup(&self, request: Request<proto::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let call = self.door.enter(&request, rpc!(Backup)).await?;
        let peer = request.extensions().get::<Arc<Peer>>().cloned().ok_or_else(identity_refused)?;
        let progress = self.door.vault.backup(&call).await.map_err(|error| status(&error))?;
        let state = (Arc::clone(&self.door), peer, progress, false);
        let told = futures_util::stream::unfold(state, |(door, peer, mut progress, over)| async move {
            if over {
                return None;
            }
            if let Err(refused) = door.still_good(&peer) {
                return Some((Err(refused), (door, peer, progress, true)));
            }
            // A thread that is gone tells nothing more; asked first, or its last word could be missed.
            let is_gone = progress.has_changed().is_err();
            let mut now = progress.borrow_and_update().clone();
            if is_gone && is_under_way(&now) {
                now = BackupProgress::Failed(StoreError::Closed);
            }
            let is_copying = is_under_way(&now);
            if is_copying {
                // Whether it has gone on or not: a caller that waits is told that all is well.
                let over = progress.wait_for(|now| !is_under_way(now));
                let _ = tokio::time::timeout(TELL, over).await;
            }
            Some((told(now), (door, peer, progress, !is_copying)))
        });
        Ok(Response::new(Box::pin(told)))
    }
}

fn is_under_way(progress: &BackupProgress) -> bool {
    matches!(progress, BackupProgress::Copying { .. })
}

fn told(progress: BackupProgress) -> Result<proto::BackupResponse, Status> {
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
