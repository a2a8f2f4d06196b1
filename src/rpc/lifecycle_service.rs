//! `LifecycleService`: parse, vault, reply.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::proto::{self, lifecycle_service_server::LifecycleService};
use super::status::status;
use super::wire;
use crate::audit::entry::Action;

pub(super) struct Lifecycle {
    door: Arc<Door>,
}

impl Lifecycle {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
}

macro_rules! rpc {
    ($method:ident) => {
        Rpc { path: concat!("/strongroom.v1.LifecycleService/", stringify!($method)), action: Action::$method }
    };
}

#[tonic::async_trait]
impl LifecycleService for Lifecycle {
    async fn report_event(
        &self,
        request: Request<proto::ReportEventRequest>,
    ) -> Result<Response<proto::ReportEventResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ReportEvent)).await?;
        let ask = self.door.parsed(&call, rpc!(ReportEvent), wire::report_event(request.into_inner())).await?;
        let done = self.door.vault.report_event(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::reported(done)))
    }

    async fn grant_shipment(
        &self,
        request: Request<proto::GrantShipmentRequest>,
    ) -> Result<Response<proto::GrantShipmentResponse>, Status> {
        let call = self.door.enter(&request, rpc!(GrantShipment)).await?;
        let ask = wire::grant_shipment(request.into_inner(), &self.door.vault);
        let ask = self.door.parsed(&call, rpc!(GrantShipment), ask).await?;
        let grant = self.door.vault.grant_shipment(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::GrantShipmentResponse { grant_id: wire::grant_id(grant) }))
    }

    async fn revoke_shipment(
        &self,
        request: Request<proto::RevokeShipmentRequest>,
    ) -> Result<Response<proto::RevokeShipmentResponse>, Status> {
        let call = self.door.enter(&request, rpc!(RevokeShipment)).await?;
        let ask = self.door.parsed(&call, rpc!(RevokeShipment), wire::revoke_shipment(request.into_inner())).await?;
        self.door.vault.revoke_shipment(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::RevokeShipmentResponse {}))
    }
}
