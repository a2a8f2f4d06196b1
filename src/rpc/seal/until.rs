//! A reply that ends when its vault is sealed. INVARIANT: once the cut has come, no further byte of the reply is made, and whatever
//! made it is dropped, so that a stream nobody reads keeps no vault alive.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::Bytes;

use crate::rpc::listener::Stop;
use crate::rpc::status::sealed;

/// The reply, until the cut.
pub(super) fn cut(reply: Response<Body>, cut: Stop) -> Response<Body> {
    if reply.body().is_end_stream() {
        return reply;
    }
    reply.map(|body| Body::new(Until { body: Some(body), cut, waiting: None }))
}

struct Until {
    /// `None` once it was cut.
    body: Option<Body>,
    cut: Stop,
    /// Made when the reply first has to wait: those that never do pay nothing for it.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl HttpBody for Until {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if !this.cut.is_triggered() {
            if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
                return Poll::Ready(frame);
            }
            let cut = &this.cut;
            let waiting = this.waiting.get_or_insert_with(|| {
                let cut = cut.clone();
                Box::pin(async move { cut.wait().await })
            });
            if waiting.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        this.body = None;
        let mut trailers = HeaderMap::new();
        match sealed().add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(status) => Poll::Ready(Some(Err(status))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
