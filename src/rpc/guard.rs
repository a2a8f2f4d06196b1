//! What stands around every service, before a byte of a request's body is read and after its reply is made.
//!
//! INVARIANT: no service, health included, sees a request whose certificate is no longer good or whose caller is not enrolled; a
//! body that does not arrive in time or is none of our messages is refused like any other bad request: logged, and with a
//! reason of the protocol's.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::door::Door;
use super::identity::Peer;
use super::status::{identity_refused, not_ready};

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// The longest a request may take to arrive and be answered; a stream, to begin.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Guarded<S> {
    service: S,
    door: Arc<Door>,
}

impl<S> Guarded<S> {
    pub fn new(service: S, door: &Arc<Door>) -> Self {
        Self { service, door: Arc::clone(door) }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request> for Guarded<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The service that was polled ready is the one to call; a clone takes its place.
        let ready = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, ready);
        let door = Arc::clone(&self.door);
        Box::pin(async move {
            let Some(peer) = request.extensions().get::<Arc<Peer>>().cloned() else {
                return Ok(identity_refused().into_http());
            };
            let path = request.uri().path().to_owned();
            if let Err(refused) = door.welcome(&peer, &path).await {
                return Ok(refused.into_http());
            }
            if path.starts_with("/grpc.health.") && door.vault.store().poisoned().is_some() {
                return Ok(not_ready().into_http());
            }
            let Ok(reply) = tokio::time::timeout(PATIENCE, service.call(request)).await else {
                return Ok(door.unreadable(&peer, &path).await.into_http());
            };
            let reply = reply?;
            if is_foreign(&reply) { Ok(door.unreadable(&peer, &path).await.into_http()) } else { Ok(reply) }
        })
    }
}

/// Whether the reply is an error of the gRPC library's own making: every one of ours carries details. That a method does not
/// exist may be said in the library's words.
pub(super) fn is_foreign(reply: &Response) -> bool {
    Status::from_header_map(reply.headers()).is_some_and(|status| {
        !matches!(status.code(), tonic::Code::Ok | tonic::Code::Unimplemented) && status.details().is_empty()
    })
}
