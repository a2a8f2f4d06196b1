//! `StatisticsService`: parse, vault, reply.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::proto::{self, statistics_service_server::StatisticsService};
use super::status::status;
use super::wire::erasure as wire;
use crate::audit::entry::Action;

pub(super) struct Statistics {
    door: Arc<Door>,
}

impl Statistics {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
}

const PUBLISHED: Rpc = Rpc { path: "/strongroom.v1.StatisticsService/Published", action: Action::Published };

#[tonic::async_trait]
impl StatisticsService for Statistics {
    async fn published(
        &self,
        request: Request<proto::PublishedRequest>,
    ) -> Result<Response<proto::PublishedResponse>, Status> {
        let call = self.door.enter(&request, PUBLISHED).await?;
        let (from, until) = self.door.parsed(&call, PUBLISHED, wire::months(&request.into_inner())).await?;
        let months = self.door.vault.published(&call, from, until).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::PublishedResponse { months: months.into_iter().map(wire::month).collect() }))
    }
}
