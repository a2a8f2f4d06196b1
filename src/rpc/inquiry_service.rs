//! `InquiryService`: parse, vault, and an answer part by part.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::door::{Door, Rpc};
use super::identity::Peer;
use super::proto::{self, inquiry_service_server::InquiryService};
use super::status::{identity_refused, status};
use super::wire::inquiry as wire;
use crate::audit::entry::Action;
use crate::vault::{Answer, Part};

pub(super) struct Inquiries {
    door: Arc<Door>,
}

impl Inquiries {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }

    /// The answer as a stream; a caller that is no longer good gets no further part.
    fn stream<Q, T, W>(&self, request: &Request<Q>, answer: Answer<T>, wire: fn(Part<T>) -> W) -> Reply<W>
    where
        T: Send + 'static,
        W: 'static,
    {
        let peer = request.extensions().get::<Arc<Peer>>().cloned().ok_or_else(identity_refused)?;
        let door = Arc::clone(&self.door);
        let parts = ReceiverStream::new(answer).map(move |part| {
            door.still_good(&peer)?;
            part.map(wire).map_err(|error| status(&error))
        });
        Ok(Response::new(Box::pin(parts)))
    }
}

type Parts<W> = Pin<Box<dyn Stream<Item = Result<W, Status>> + Send>>;
type Reply<W> = Result<Response<Parts<W>>, Status>;

macro_rules! rpc {
    ($method:ident) => {
        Rpc { path: concat!("/strongroom.v1.InquiryService/", stringify!($method)), action: Action::$method }
    };
}

#[tonic::async_trait]
impl InquiryService for Inquiries {
    type WhoSawStream = Parts<proto::WhoSawResponse>;
    type SeenByStream = Parts<proto::SeenByResponse>;
    type RefusalsStream = Parts<proto::RefusalsResponse>;
    type UnusedGrantsStream = Parts<proto::UnusedGrantsResponse>;
    type ExplainStream = Parts<proto::ExplainResponse>;

    async fn who_saw(&self, request: Request<proto::WhoSawRequest>) -> Reply<proto::WhoSawResponse> {
        let call = self.door.enter(&request, rpc!(WhoSaw)).await?;
        let ask = wire::who_saw(request.get_ref(), self.door.vault.now());
        let ask = self.door.parsed(&call, rpc!(WhoSaw), ask).await?;
        let answer = self.door.vault.who_saw(&call, &ask).await.map_err(|error| status(&error))?;
        self.stream(&request, answer, wire::entries_seen)
    }

    async fn seen_by(&self, request: Request<proto::SeenByRequest>) -> Reply<proto::SeenByResponse> {
        let call = self.door.enter(&request, rpc!(SeenBy)).await?;
        let ask = wire::seen_by(request.get_ref(), self.door.vault.now());
        let ask = self.door.parsed(&call, rpc!(SeenBy), ask).await?;
        let answer = self.door.vault.seen_by(&call, &ask).await.map_err(|error| status(&error))?;
        self.stream(&request, answer, wire::subjects_seen)
    }

    async fn refusals(&self, request: Request<proto::RefusalsRequest>) -> Reply<proto::RefusalsResponse> {
        let call = self.door.enter(&request, rpc!(Refusals)).await?;
        let ask = wire::refusals(request.get_ref(), self.door.vault.now());
        let ask = self.door.parsed(&call, rpc!(Refusals), ask).await?;
        let answer = self.door.vault.refusals(&call, &ask).await.map_err(|error| status(&error))?;
        self.stream(&request, answer, wire::refusal_groups)
    }

    async fn unused_grants(&self, request: Request<proto::UnusedGrantsRequest>) -> Reply<proto::UnusedGrantsResponse> {
        let call = self.door.enter(&request, rpc!(UnusedGrants)).await?;
        let ask = wire::unused_grants(request.get_ref(), self.door.vault.now());
        let ask = self.door.parsed(&call, rpc!(UnusedGrants), ask).await?;
        let answer = self.door.vault.unused_grants(&call, &ask).await.map_err(|error| status(&error))?;
        self.stream(&request, answer, wire::grants_unused)
    }

    async fn explain(&self, request: Request<proto::ExplainRequest>) -> Reply<proto::ExplainResponse> {
        let call = self.door.enter(&request, rpc!(Explain)).await?;
        let ask = self.door.parsed(&call, rpc!(Explain), wire::explain(request.get_ref())).await?;
        let answer = self.door.vault.explain(&call, &ask).await.map_err(|error| status(&error))?;
        self.stream(&request, answer, wire::entries_explained)
    }
}
