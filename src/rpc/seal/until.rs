//! A reply that ends when its vault is sealed. INVARIANT: once the cut has come, no further byte of the reply is made, and whatever
//! made it is dropped, so that a stream nobody reads keeps no vault alive: nobody polls such a stream, so a task of its own waits
//! for the cut beside it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::codegen::Bytes;

use crate::rpc::listener::Stop;
use crate::rpc::status::sealed;

/// The reply, until the cut; `streams`: it may be made for as long as somebody reads it.
pub(super) fn cut(reply: Response<Body>, cut: Stop, streams: bool) -> Response<Body> {
    if reply.body().is_end_stream() {
        return reply;
    }
    reply.map(|body| {
        let body = Arc::new(Mutex::new(Some(body)));
        let ends = streams.then(|| taken_at(&cut, &body));
        Body::new(Until { body, cut, _ends: ends, waiting: None, told: false })
    })
}

/// Takes the body away when the cut comes, unless the reply has ended by then.
fn taken_at(cut: &Stop, body: &Shared) -> oneshot::Sender<()> {
    let (ends, ended) = oneshot::channel();
    let (cut, body) = (cut.clone(), Arc::downgrade(body));
    tokio::spawn(async move {
        tokio::select! {
            () = cut.wait() => {
                if let Some(body) = body.upgrade() {
                    drop(body.lock().unwrap_or_else(PoisonError::into_inner).take());
                }
            }
            _ = ended => {}
        }
    });
    ends
}

/// `None` once it was cut.
type Shared = Arc<Mutex<Option<Body>>>;

struct Until {
    body: Shared,
    cut: Stop,
    /// Ends the task that waits for the cut.
    _ends: Option<oneshot::Sender<()>>,
    /// Made when the reply first has to wait: those that never do pay nothing for it.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// That it was cut.
    told: bool,
}

impl HttpBody for Until {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        if !this.cut.is_triggered() {
            {
                let mut body = this.body.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(body) = body.as_mut() else { return Poll::Ready(None) };
                if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
                    return Poll::Ready(frame);
                }
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
        if std::mem::replace(&mut this.told, true) {
            return Poll::Ready(None);
        }
        drop(this.body.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut trailers = HeaderMap::new();
        match sealed().add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(status) => Poll::Ready(Some(Err(status))),
        }
    }

    fn is_end_stream(&self) -> bool {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was cut has yet to say so.
        body.as_ref().map_or(self.told, HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
