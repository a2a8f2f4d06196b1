//! `KeyService`: parse, vault, reply.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::progress::{Told, told};
use super::proto::{self, key_service_server::KeyService};
use super::status::status;
use super::wire::keys as wire;
use crate::audit::entry::Action;
use crate::vault::Progress;

pub(super) struct Keys {
    door: Arc<Door>,
}

impl Keys {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
}

macro_rules! rpc {
    ($method:ident) => {
        Rpc { path: concat!("/strongroom.v1.KeyService/", stringify!($method)), action: Action::$method }
    };
}

#[tonic::async_trait]
impl KeyService for Keys {
    async fn list_keys(
        &self,
        request: Request<proto::ListKeysRequest>,
    ) -> Result<Response<proto::ListKeysResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ListKeys)).await?;
        let listed = self.door.vault.list_keys(&call).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::listed(listed)))
    }

    type RotateKekStream = Told<proto::RotateKekResponse>;

    async fn rotate_kek(
        &self,
        request: Request<proto::RotateKekRequest>,
    ) -> Result<Response<Self::RotateKekStream>, Status> {
        let call = self.door.enter(&request, rpc!(RotateKek)).await?;
        let replaced = wire::epoch("active_epoch", request.get_ref().active_epoch);
        let replaced = self.door.parsed(&call, rpc!(RotateKek), replaced).await?;
        let progress = self.door.vault.rotate_kek(&call, replaced).await.map_err(|error| status(&error))?;
        let is_last = |progress: &Progress| progress.rows_left == 0;
        let reply = |progress| Ok(wire::progress(progress));
        Ok(Response::new(told(&self.door, &request, progress, is_last, reply)?))
    }

    async fn destroy_epoch(
        &self,
        request: Request<proto::DestroyEpochRequest>,
    ) -> Result<Response<proto::DestroyEpochResponse>, Status> {
        let call = self.door.enter(&request, rpc!(DestroyEpoch)).await?;
        let epoch = wire::epoch("epoch", request.get_ref().epoch);
        let epoch = self.door.parsed(&call, rpc!(DestroyEpoch), epoch).await?;
        let done = self.door.vault.destroy_epoch(&call, epoch).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::destroyed(epoch, done)))
    }

    async fn postpone_epoch(
        &self,
        request: Request<proto::PostponeEpochRequest>,
    ) -> Result<Response<proto::PostponeEpochResponse>, Status> {
        let call = self.door.enter(&request, rpc!(PostponeEpoch)).await?;
        let ask = self.door.parsed(&call, rpc!(PostponeEpoch), wire::postpone_epoch(request.get_ref())).await?;
        let done = self.door.vault.postpone_epoch(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::postponed(ask.epoch, done)))
    }

    async fn rotate_root(
        &self,
        request: Request<proto::RotateRootRequest>,
    ) -> Result<Response<proto::RotateRootResponse>, Status> {
        let call = self.door.enter(&request, rpc!(RotateRoot)).await?;
        let generation = self.door.vault.rotate_root(&call).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::RotateRootResponse { generation: generation.0 }))
    }
}
