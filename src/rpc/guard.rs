//! What stands around every service, before a byte of a request's body is read and after its reply is made.
//!
//! INVARIANT: no service, health included, sees a request whose certificate is no longer good or whose caller is not enrolled; a
//! body that does not arrive in time or is none of our messages is refused like any other bad request: logged, and with a
//! reason of the protocol's.
//!
//! ```text
//! request → over its caller's rate? RATE_LIMITED, counted → locked out? LOCKED_OUT, counted → certificate good, enrolled?
//!         → body, handler → counted by RPC, role and code, with its time
//! ```

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Body as _;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::door::{Door, known};
use super::identity::Peer;
use super::status::{identity_refused, not_ready};

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// The longest a request may take to arrive and be answered; a stream, to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is taken of a refused request's body before the answer: bytes, and how long.
const SHORT: usize = 64 * 1024;
const QUICK: Duration = Duration::from_millis(100);

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
            let started = Instant::now();
            let reply = match answer(&mut service, &door, &peer, &path, request).await {
                Ok(reply) => reply?,
                Err(refused) => refused.into_http(),
            };
            measure(&path, &peer, &reply, started);
            Ok(reply)
        })
    }
}

/// The service's answer, or why it was not asked, or what is said in its stead.
async fn answer<S>(
    service: &mut S,
    door: &Door,
    peer: &Peer,
    path: &str,
    request: Request,
) -> Result<Result<Response, Infallible>, Status>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let heard = door.heed(peer);
    let welcome = if heard.is_ok() { door.welcome(peer, path).await.map(drop) } else { heard };
    if let Err(refused) = welcome {
        discard(request.into_body()).await;
        return Err(refused);
    }
    if path.starts_with("/grpc.health.") && door.vault.store().poisoned().is_some() {
        return Err(not_ready());
    }
    match tokio::time::timeout(PATIENCE, service.call(request)).await {
        Ok(Ok(reply)) if !is_foreign(&reply) => Ok(Ok(reply)),
        Ok(Err(impossible)) => Ok(Err(impossible)),
        Ok(Ok(_)) | Err(_) => Err(door.unreadable(peer, path).await),
    }
}

/// Lets a refused request's body arrive, unread, if it is short and quick: bytes for a stream that was closed before they came are
/// an error of the connection, and enough of those would end it for the caller's other calls too.
async fn discard(body: Body) {
    let mut body = pin!(body);
    let mut left = SHORT;
    let arrives = poll_fn(|context| {
        loop {
            match body.as_mut().poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    left = left.saturating_sub(frame.data_ref().map_or(1, prost::bytes::Buf::remaining));
                    if left == 0 {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    // Whatever came of it: the answer is the same.
    let _ = tokio::time::timeout(QUICK, arrives).await;
}

/// Counts the call. A stream counts when it begins, with the code it began with.
fn measure(path: &str, peer: &Peer, reply: &Response, started: Instant) {
    let (rpc, role) = (known(path), peer.caller().role.as_str());
    let code = Status::from_header_map(reply.headers()).map_or(tonic::Code::Ok, |status| status.code());
    metrics::counter!("strongroom_calls_total", "rpc" => rpc, "role" => role, "code" => name(code)).increment(1);
    metrics::histogram!("strongroom_call_seconds", "rpc" => rpc).record(started.elapsed().as_secs_f64());
}

/// The code as the gRPC specification writes it.
fn name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether the reply is an error of the gRPC library's own making: every one of ours carries details. That a method does not
/// exist may be said in the library's words.
pub(super) fn is_foreign(reply: &Response) -> bool {
    Status::from_header_map(reply.headers()).is_some_and(|status| {
        !matches!(status.code(), tonic::Code::Ok | tonic::Code::Unimplemented) && status.details().is_empty()
    })
}
