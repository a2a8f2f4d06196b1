//! `RetentionService`: parse, vault, reply.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::proto::{self, retention_service_server::RetentionService};
use super::status::status;
use super::wire;
use crate::audit::entry::Action;

pub(super) struct Retention {
    door: Arc<Door>,
}

impl Retention {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
}

macro_rules! rpc {
    ($method:ident) => {
        Rpc { path: concat!("/strongroom.v1.RetentionService/", stringify!($method)), action: Action::$method }
    };
}

#[tonic::async_trait]
impl RetentionService for Retention {
    async fn explain_retention(
        &self,
        request: Request<proto::ExplainRetentionRequest>,
    ) -> Result<Response<proto::ExplainRetentionResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ExplainRetention)).await?;
        let token =
            self.door.parsed(&call, rpc!(ExplainRetention), wire::token("token", &request.get_ref().token)).await?;
        let done = self.door.vault.explain_retention(&call, &token).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::retention::explanation(done)))
    }

    async fn retention_forecast(
        &self,
        request: Request<proto::RetentionForecastRequest>,
    ) -> Result<Response<proto::RetentionForecastResponse>, Status> {
        let call = self.door.enter(&request, rpc!(RetentionForecast)).await?;
        let ask = wire::retention::forecast(request.into_inner());
        let ask = self.door.parsed(&call, rpc!(RetentionForecast), ask).await?;
        let page = self.door.vault.forecast(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::retention::forecast_page(page)))
    }

    async fn retention_outlook(
        &self,
        request: Request<proto::RetentionOutlookRequest>,
    ) -> Result<Response<proto::RetentionOutlookResponse>, Status> {
        let call = self.door.enter(&request, rpc!(RetentionOutlook)).await?;
        let ask = wire::retention::outlook(request.into_inner());
        let ask = self.door.parsed(&call, rpc!(RetentionOutlook), ask).await?;
        let page = self.door.vault.outlook(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::retention::outlook_page(page)))
    }

    async fn propose_policy(
        &self,
        request: Request<proto::ProposePolicyRequest>,
    ) -> Result<Response<proto::ProposePolicyResponse>, Status> {
        let call = self.door.enter(&request, rpc!(ProposePolicy)).await?;
        let policy = wire::retention::policy(&request.get_ref().policy);
        let policy = self.door.parsed(&call, rpc!(ProposePolicy), policy).await?;
        let done = self.door.vault.propose_policy(&call, &policy).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::retention::proposed(done)))
    }
}
