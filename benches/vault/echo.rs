//! The ceiling of a unary call: a tonic service with nothing behind it. INVARIANT: it runs behind the vault's own listener,
//! so that transport, TLS and runtimes are the same, and whatever the vault costs more is the vault's.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::load::Caller;

const PATH: &str = "/bench.Echo/Echo";
const ASKED: usize = 16;
const ANSWERED: usize = 250;

type Codec = ProstCodec<Vec<u8>, Vec<u8>>;

#[derive(Clone)]
pub struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async { Ok(tonic::server::Grpc::new(Codec::default()).unary(Reply, request).await) })
    }
}

struct Reply;

impl UnaryService<Vec<u8>> for Reply {
    type Response = Vec<u8>;
    type Future = Ready<Result<Response<Vec<u8>>, Status>>;

    fn call(&mut self, _: Request<Vec<u8>>) -> Self::Future {
        ready(Ok(Response::new(vec![7; ANSWERED])))
    }
}

pub struct Client(tonic::client::Grpc<Channel>);

impl Client {
    pub fn new(channel: Channel) -> Self {
        Self(tonic::client::Grpc::new(channel))
    }
}

impl Caller for Client {
    async fn call(&mut self) {
        self.0.ready().await.unwrap();
        let request = Request::new(vec![3; ASKED]);
        let reply: Response<Vec<u8>> =
            self.0.unary(request, PathAndQuery::from_static(PATH), Codec::default()).await.unwrap();
        assert_eq!(reply.into_inner().len(), ANSWERED);
    }
}
