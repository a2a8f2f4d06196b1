//! `TokenService`: parse, vault, reply.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::door::{Door, Rpc};
use super::identity::Peer;
use super::proto::token_service_server::TokenService;
use super::proto::{self, batch_detokenize_item, tokenize_stream_response};
use super::status::{item_error, status};
use super::wire;
use crate::audit::entry::{Action, RefusalCode};
use crate::vault::{Call, Error};

pub(super) struct Tokens {
    door: Arc<Door>,
}

impl Tokens {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
}

macro_rules! rpc {
    ($method:literal, $action:ident) => {
        Rpc { path: concat!("/strongroom.v1.TokenService/", $method), action: Action::$action }
    };
}

/// How many items of a stream are worked on at once: enough to fill a group commit.
const IN_FLIGHT: usize = 256;

#[tonic::async_trait]
impl TokenService for Tokens {
    async fn tokenize(
        &self,
        request: Request<proto::TokenizeRequest>,
    ) -> Result<Response<proto::TokenizeResponse>, Status> {
        let call = self.door.enter(&request, rpc!("Tokenize", Tokenize)).await?;
        let ask = self.door.parsed(&call, rpc!("Tokenize", Tokenize), wire::tokenize(request.into_inner())).await?;
        let token = self.door.vault.tokenize(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::TokenizeResponse { token: token.to_text() }))
    }

    type TokenizeStreamStream = Pin<Box<dyn Stream<Item = Result<proto::TokenizeStreamResponse, Status>> + Send>>;

    async fn tokenize_stream(
        &self,
        request: Request<Streaming<proto::TokenizeStreamRequest>>,
    ) -> Result<Response<Self::TokenizeStreamStream>, Status> {
        let call = self.door.enter(&request, rpc!("TokenizeStream", Tokenize)).await?;
        let peer = request.extensions().get::<Arc<Peer>>().cloned();
        let peer = peer.ok_or_else(super::status::identity_refused)?;
        let (door, items) = (Arc::clone(&self.door), request.into_inner());
        let results = futures_util::StreamExt::buffered(
            futures_util::StreamExt::map(items, move |item| {
                one(Arc::clone(&door), call.clone(), Arc::clone(&peer), item)
            }),
            IN_FLIGHT,
        );
        let mut index = 0;
        let numbered = results.map(move |result| {
            let numbered = result.map(|result| proto::TokenizeStreamResponse { index, result: Some(result) });
            index += 1;
            numbered
        });
        Ok(Response::new(Box::pin(numbered)))
    }

    async fn detokenize(
        &self,
        request: Request<proto::DetokenizeRequest>,
    ) -> Result<Response<proto::DetokenizeResponse>, Status> {
        let call = self.door.enter(&request, rpc!("Detokenize", Detokenize)).await?;
        let ask =
            self.door.parsed(&call, rpc!("Detokenize", Detokenize), wire::detokenize(request.into_inner())).await?;
        let done = self.door.vault.detokenize(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::detokenized(done)))
    }

    async fn batch_detokenize(
        &self,
        request: Request<proto::BatchDetokenizeRequest>,
    ) -> Result<Response<proto::BatchDetokenizeResponse>, Status> {
        let call = self.door.enter(&request, rpc!("BatchDetokenize", Detokenize)).await?;
        let asks = self
            .door
            .parsed(&call, rpc!("BatchDetokenize", Detokenize), wire::batch_detokenize(request.into_inner()))
            .await?;
        let (mut good, mut places) = (Vec::new(), Vec::new());
        for ask in asks {
            if ask.is_err() {
                self.door.refused(&call, rpc!("BatchDetokenize", Detokenize), RefusalCode::Invalid).await?;
            }
            places.push(ask.map(|ask| good.push(ask)));
        }
        let done = self.door.vault.batch_detokenize(&call, &good).await.map_err(|error| status(&error))?;
        let mut done = done.into_iter();
        let items = places.into_iter().map(|place| {
            let result = place.map_err(Error::from).and_then(|()| done.next().unwrap_or(Err(Error::NotFound)));
            proto::BatchDetokenizeItem {
                result: Some(match result {
                    Ok(done) => batch_detokenize_item::Result::Done(wire::detokenized(done)),
                    Err(error) => batch_detokenize_item::Result::Error(item_error(&error)),
                }),
            }
        });
        Ok(Response::new(proto::BatchDetokenizeResponse { items: items.collect() }))
    }

    async fn correct(
        &self,
        request: Request<proto::CorrectRequest>,
    ) -> Result<Response<proto::CorrectResponse>, Status> {
        let call = self.door.enter(&request, rpc!("Correct", Correct)).await?;
        let ask = self.door.parsed(&call, rpc!("Correct", Correct), wire::correct(request.into_inner())).await?;
        let revision = self.door.vault.correct(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::CorrectResponse { revision: revision.0 }))
    }

    async fn erase(&self, request: Request<proto::EraseRequest>) -> Result<Response<proto::EraseResponse>, Status> {
        let call = self.door.enter(&request, rpc!("Erase", Erase)).await?;
        let ask = self.door.parsed(&call, rpc!("Erase", Erase), wire::erase(request.into_inner())).await?;
        let gone = self.door.vault.erase(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::erasure::gone(gone)))
    }

    async fn find(&self, request: Request<proto::FindRequest>) -> Result<Response<proto::FindResponse>, Status> {
        let call = self.door.enter(&request, rpc!("Find", Find)).await?;
        let ask = self.door.parsed(&call, rpc!("Find", Find), wire::keys::find(request.into_inner())).await?;
        let found = self.door.vault.find_tokens(&call, &ask).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::keys::found(found)))
    }

    async fn describe(
        &self,
        request: Request<proto::DescribeRequest>,
    ) -> Result<Response<proto::DescribeResponse>, Status> {
        let call = self.door.enter(&request, rpc!("Describe", Describe)).await?;
        let token =
            self.door.parsed(&call, rpc!("Describe", Describe), wire::token("token", &request.get_ref().token)).await?;
        let done = self.door.vault.describe(&call, &token).await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::description(done)))
    }
}

/// One item of a stream. Its refusal is its result; only a caller that is no longer good ends the stream.
async fn one(
    door: Arc<Door>,
    mut call: Call,
    peer: Arc<Peer>,
    item: Result<proto::TokenizeStreamRequest, Status>,
) -> Result<tokenize_stream_response::Result, Status> {
    door.pace(&peer).await;
    door.still_good(&peer)?;
    call.request = door.vault.new_request();
    let ask = wire::tokenize(item?.item.unwrap_or_default());
    let result = match ask {
        Ok(ask) => door.vault.tokenize(&call, &ask).await,
        Err(error) => {
            door.refused(&call, rpc!("TokenizeStream", Tokenize), RefusalCode::Invalid).await?;
            Err(error.into())
        }
    };
    Ok(match result {
        Ok(token) => tokenize_stream_response::Result::Done(proto::TokenizeResponse { token: token.to_text() }),
        Err(error) => tokenize_stream_response::Result::Error(item_error(&error)),
    })
}
