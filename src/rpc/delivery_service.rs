//! `DeliveryService`: parse, vault, reply.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::proto::{self, delivery_service_server::DeliveryService};
use super::status::status;
use super::wire;
use crate::audit::entry::Action;

pub(super) struct Deliveries {
    door: Arc<Door>,
}

impl Deliveries {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
}

macro_rules! rpc {
    ($method:ident) => {
        Rpc { path: concat!("/strongroom.v1.DeliveryService/", stringify!($method)), action: Action::$method }
    };
}

#[tonic::async_trait]
impl DeliveryService for Deliveries {
    async fn get_delivery(
        &self,
        request: Request<proto::GetDeliveryRequest>,
    ) -> Result<Response<proto::GetDeliveryResponse>, Status> {
        let call = self.door.enter(&request, rpc!(GetDelivery)).await?;
        let vault = &self.door.vault;
        let serial = wire::serial(request.into_inner().serial, &call.caller.name, vault);
        let serial = self.door.parsed(&call, rpc!(GetDelivery), serial).await?;
        let done = vault.get_delivery(&call, &serial).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::delivery(&done).map_err(|error| status(&error))?))
    }

    async fn confirm_delivery(
        &self,
        request: Request<proto::ConfirmDeliveryRequest>,
    ) -> Result<Response<proto::ConfirmDeliveryResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ConfirmDelivery)).await?;
        let vault = &self.door.vault;
        let ask = wire::confirm_delivery(request.into_inner(), &call.caller.name, vault);
        let ask = self.door.parsed(&call, rpc!(ConfirmDelivery), ask).await?;
        vault.confirm_delivery(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::ConfirmDeliveryResponse {}))
    }
}
