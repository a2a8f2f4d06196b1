//! `AuditService`: parse, vault, reply.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::identity::Peer;
use super::proto::{self, audit_service_server::AuditService, export_response};
use super::status::{identity_refused, status};
use super::wire::{audit as wire, callers};
use crate::audit::entry::Action;
use crate::vault::{Exporting, Gated};

pub(super) struct Audit {
    door: Arc<Door>,
}

impl Audit {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
}

macro_rules! rpc {
    ($method:ident) => {
        Rpc { path: concat!("/strongroom.v1.AuditService/", stringify!($method)), action: Action::$method }
    };
}

/// What a stream of an export answers next.
enum Next {
    Header,
    Section(u64),
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn checkpoint(
        &self,
        request: Request<proto::CheckpointRequest>,
    ) -> Result<Response<proto::CheckpointResponse>, Status> {
        let call = self.door.enter(&request, rpc!(Checkpoint)).await?;
        let year = self.door.parsed(&call, rpc!(Checkpoint), wire::year(request.get_ref().year)).await?;
        let head = self.door.vault.checkpoint(&call, year).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::CheckpointResponse { note: head.note, verifier_key: head.verifier_key }))
    }

    async fn inclusion_proof(
        &self,
        request: Request<proto::InclusionProofRequest>,
    ) -> Result<Response<proto::InclusionProofResponse>, Status> {
        let call = self.door.enter(&request, rpc!(InclusionProof)).await?;
        let (year, entry) = (request.get_ref().year, request.get_ref().entry);
        let year = self.door.parsed(&call, rpc!(InclusionProof), wire::year(year)).await?;
        let proof = self.door.vault.inclusion_proof(&call, year, entry).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::inclusion(proof)))
    }

    async fn consistency_proof(
        &self,
        request: Request<proto::ConsistencyProofRequest>,
    ) -> Result<Response<proto::ConsistencyProofResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ConsistencyProof)).await?;
        let (year, from) = (request.get_ref().year, request.get_ref().from_size);
        let year = self.door.parsed(&call, rpc!(ConsistencyProof), wire::year(year)).await?;
        let proof = self.door.vault.consistency_proof(&call, year, from).await.map_err(|error| status(&error))?;
        let hashes = wire::hashes(proof.hashes);
        Ok(Response::new(proto::ConsistencyProofResponse { note: proof.head.note, hashes }))
    }

    type ExportStream = Pin<Box<dyn Stream<Item = Result<proto::ExportResponse, Status>> + Send>>;

    async fn export(&self, request: Request<proto::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        let call = self.door.enter(&request, rpc!(Export)).await?;
        let peer = request.extensions().get::<Arc<Peer>>().cloned().ok_or_else(identity_refused)?;
        let ask = self.door.parsed(&call, rpc!(Export), wire::export(request.get_ref())).await?;
        let export = match self.door.vault.export(&call, ask).await.map_err(|error| status(&error))? {
            Gated::Done(export) => export,
            Gated::Pending(pending) => {
                let pending = export_response::Result::PendingApproval(callers::pending(pending));
                let answer = Ok(proto::ExportResponse { result: Some(pending) });
                return Ok(Response::new(Box::pin(tokio_stream::once(answer))));
            }
        };
        let door = Arc::clone(&self.door);
        let parts = futures_util::stream::try_unfold(Next::Header, move |next| {
            let part = part(&door, &peer, &export, &next);
            async { part }
        });
        Ok(Response::new(Box::pin(parts)))
    }
}

/// One answer of the stream, and what comes after it. The stream ends when the caller is no longer good.
fn part(
    door: &Door,
    peer: &Peer,
    export: &Exporting,
    next: &Next,
) -> Result<Option<(proto::ExportResponse, Next)>, Status> {
    door.still_good(peer)?;
    let (lines, next) = match next {
        Next::Header => (export.header.clone(), export.from),
        Next::Section(first) => match door.vault.export_section(export, *first).map_err(|error| status(&error))? {
            Some(section) => section,
            None => return Ok(None),
        },
    };
    let result = Some(export_response::Result::Lines(lines));
    Ok(Some((proto::ExportResponse { result }, Next::Section(next))))
}
