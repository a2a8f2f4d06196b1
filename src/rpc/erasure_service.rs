//! `ErasureService`: parse, vault, reply.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::identity::Peer;
use super::proto::{self, erasure_service_server::ErasureService};
use super::status::{identity_refused, status};
use super::wire::{self, erasure};
use crate::audit::entry::Action;

pub(super) struct Erasures {
    door: Arc<Door>,
}

impl Erasures {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
}

macro_rules! rpc {
    ($method:ident) => {
        Rpc { path: concat!("/strongroom.v1.ErasureService/", stringify!($method)), action: Action::$method }
    };
}

#[tonic::async_trait]
impl ErasureService for Erasures {
    type EraseSubjectStream = Pin<Box<dyn Stream<Item = Result<proto::EraseSubjectResponse, Status>> + Send>>;

    async fn erase_subject(
        &self,
        request: Request<proto::EraseSubjectRequest>,
    ) -> Result<Response<Self::EraseSubjectStream>, Status> {
        let call = self.door.enter(&request, rpc!(EraseSubject)).await?;
        let peer = request.extensions().get::<Arc<Peer>>().cloned().ok_or_else(identity_refused)?;
        let ask = self.door.parsed(&call, rpc!(EraseSubject), erasure::erase_subject(request.into_inner())).await?;
        let begun = self.door.vault.erase_subject(&call, &ask).await.map_err(|error| status(&error))?;
        let door = Arc::clone(&self.door);
        let steps = futures_util::stream::try_unfold(begun, move |mut under_way| {
            let (door, call, peer) = (Arc::clone(&door), call.clone(), Arc::clone(&peer));
            async move {
                door.still_good(&peer)?;
                let news = door.vault.go_on(&call, &mut under_way).await.map_err(|error| status(&error))?;
                let items = news.into_iter().map(|one| Ok(erasure::news(one)));
                Ok::<_, Status>((items.len() > 0).then(|| (futures_util::stream::iter(items), under_way)))
            }
        });
        Ok(Response::new(Box::pin(futures_util::TryStreamExt::try_flatten(steps))))
    }

    async fn receipt_of(
        &self,
        request: Request<proto::ReceiptOfRequest>,
    ) -> Result<Response<proto::ReceiptOfResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ReceiptOf)).await?;
        let token = wire::token("token", &request.into_inner().token);
        let token = self.door.parsed(&call, rpc!(ReceiptOf), token).await?;
        let receipt = self.door.vault.receipt_of(&call, &token).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::ReceiptOfResponse { receipt, public_key: self.door.vault.public_key() }))
    }

    async fn place_hold(
        &self,
        request: Request<proto::PlaceHoldRequest>,
    ) -> Result<Response<proto::PlaceHoldResponse>, Status> {
        let call = self.door.enter(&request, rpc!(PlaceHold)).await?;
        let ask = self.door.parsed(&call, rpc!(PlaceHold), erasure::place_hold(request.into_inner())).await?;
        let hold = self.door.vault.place_hold(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::PlaceHoldResponse { hold_id: erasure::hold_id(hold) }))
    }

    async fn lift_hold(
        &self,
        request: Request<proto::LiftHoldRequest>,
    ) -> Result<Response<proto::LiftHoldResponse>, Status> {
        let call = self.door.enter(&request, rpc!(LiftHold)).await?;
        let id = erasure::parse_hold_id("hold_id", &request.into_inner().hold_id);
        let id = self.door.parsed(&call, rpc!(LiftHold), id).await?;
        let lifted = self.door.vault.lift_hold(&call, id).await.map_err(|error| status(&error))?;
        Ok(Response::new(erasure::lifted(lifted)))
    }

    async fn list_holds(
        &self,
        request: Request<proto::ListHoldsRequest>,
    ) -> Result<Response<proto::ListHoldsResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ListHolds)).await?;
        let after = self.door.parsed(&call, rpc!(ListHolds), erasure::after(&request.into_inner().after)).await?;
        let holds = self.door.vault.list_holds(&call, after).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::ListHoldsResponse { holds: holds.into_iter().map(erasure::hold).collect() }))
    }
}
