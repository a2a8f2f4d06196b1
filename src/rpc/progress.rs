//! Tells a caller how something long goes on. INVARIANT: before every message the caller is still good; who hangs up stops nothing; a
//! stream ends with what is the last to be said, or with an error when who should say it is gone.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Status};

use super::door::Door;
use super::identity::Peer;
use super::status::{identity_refused, status};
use crate::store::StoreError;
use crate::vault::Error;

/// How often it is told, whether it has gone on or not: a caller that waits is told that all is well.
const TELL: Duration = Duration::from_millis(200);

pub(super) type Told<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// The stream that answers `request`.
pub(super) fn told<T, P, R>(
    door: &Arc<Door>,
    request: &Request<T>,
    progress: watch::Receiver<P>,
    is_last: fn(&P) -> bool,
    reply: fn(P) -> Result<R, Status>,
) -> Result<Told<R>, Status>
where
    P: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    let peer = request.extensions().get::<Arc<Peer>>().cloned().ok_or_else(identity_refused)?;
    let state = (Arc::clone(door), peer, progress, false);
    Ok(Box::pin(futures_util::stream::unfold(state, move |(door, peer, mut progress, is_over)| async move {
        if is_over {
            return None;
        }
        if let Err(refused) = door.still_good(&peer) {
            return Some((Err(refused), (door, peer, progress, true)));
        }
        // Asked first, or the last word of one that goes meanwhile could be missed.
        let is_gone = progress.has_changed().is_err();
        let now = progress.borrow_and_update().clone();
        let is_over = is_last(&now);
        if is_gone && !is_over {
            let gone = status(&Error::Unavailable(StoreError::Closed));
            return Some((Err(gone), (door, peer, progress, true)));
        }
        if !is_over {
            let _ = tokio::time::timeout(TELL, progress.wait_for(is_last)).await;
        }
        Some((reply(now), (door, peer, progress, is_over)))
    })))
}
