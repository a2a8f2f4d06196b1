//! `DisclosureService`: parse, vault, reply.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::proto::{self, disclosure_service_server::DisclosureService};
use super::status::status;
use super::wire;
use crate::audit::entry::Action;

pub(super) struct Disclosures {
    door: Arc<Door>,
}

impl Disclosures {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
}

const DISCLOSE: Rpc = Rpc { path: "/strongroom.v1.DisclosureService/Disclose", action: Action::Disclose };

#[tonic::async_trait]
impl DisclosureService for Disclosures {
    async fn disclose(
        &self,
        request: Request<proto::DiscloseRequest>,
    ) -> Result<Response<proto::DiscloseResponse>, Status> {
        let call = self.door.enter(&request, DISCLOSE).await?;
        let ask = self.door.parsed(&call, DISCLOSE, wire::disclose(request.into_inner())).await?;
        let done = self.door.vault.disclose(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::disclosed(done)))
    }
}
