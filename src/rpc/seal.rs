//! Sealed or serving: the switch in front of every service. INVARIANT: while the vault is sealed nothing of it is in memory, and
//! nothing but SealService and health answers; the moment it is sealed, calls in flight end and streams are cut.
//!
//! ```text
//! request → Switch ┬ Serving → the services of one opened vault; cut when it is sealed
//!                  └ Sealed  → certificate admitted (chain, revocation, anchors, tenant) → SealService, health; else SEALED
//! SealService → Control → the keeper (whoever opens and closes the vault) → Switch::open, Switch::close
//! ```
//! SECURITY: while the vault is sealed since its start, enrolments cannot be checked, since their rows are authenticated by the
//! keyring. A certificate of the role key-admin that our CAs vouch for may then give shares. That is safe: the shares are the
//! authority, a bad one costs nothing but itself, attempts are few a second, and all of them are in the log once it opens. After
//! `Seal` the roster of that moment decides, so that a suspended administrator cannot undo the seal of a vault whose root is not
//! split.

mod until;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service;

use super::Watch;
use super::guard::is_foreign;
use super::identity::Peer;
use super::listener::Stop;
use super::proto::annotations::METHODS;
use super::status::{identity_refused, malformed, sealed};
use super::trust::Trust;
use crate::crypto::root::shares::{BadShare, Progress, Share};
use crate::domain::caller::Caller;
use crate::domain::id::TenantId;
use crate::domain::time::{Clock, Timestamp};
use crate::vault::{Attempt, Vault, Welcomes};

/// What SealService tells of the vault.
#[derive(Clone, Copy, Debug)]
pub struct SealState {
    /// `None`: it is open.
    pub sealed: Option<Cause>,
    pub since: Timestamp,
    pub root_source: &'static str,
    /// Where the root is split.
    pub shares: Option<Progress>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    Started,
    Commanded,
}

/// Why the vault is still sealed after an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StillSealed {
    Share(BadShare),
    /// A share is needed, and none was given.
    NoShare,
    /// A share was given, and the root is not split.
    NotSplit,
    CannotOpen,
}

/// What a good attempt has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsealed {
    /// More shares are needed.
    NotYet,
    /// The vault is open, and the attempt in its log.
    Open,
}

/// What SealService asks of the keeper.
pub enum Command {
    /// The attempt is for the log of the vault that it opens.
    Unseal {
        share: Option<Share>,
        attempt: Box<Attempt>,
        reply: oneshot::Sender<Result<Unsealed, StillSealed>>,
    },
    Seal {
        reply: oneshot::Sender<()>,
    },
}

/// The line from SealService to the keeper, and what was tried on it while nothing could be logged.
#[derive(Clone)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    state: Arc<ArcSwap<SealState>>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
}

/// Attempts that are remembered; with a few a second for each certificate, hours of them.
const MOST_ATTEMPTS: usize = 10_000;

impl Control {
    pub fn new(state: SealState) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(16);
        let state = Arc::new(ArcSwap::from_pointee(state));
        (Self { commands, state, attempts: Arc::default() }, receiver)
    }

    pub fn state(&self) -> SealState {
        **self.state.load()
    }

    /// For the keeper alone.
    pub fn tell(&self, state: SealState) {
        self.state.store(Arc::new(state));
    }

    pub async fn unseal(&self, share: Option<Share>, attempt: Attempt) -> Result<Unsealed, StillSealed> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Unseal { share, attempt: Box::new(attempt), reply }).await;
        sent.map_err(|_| StillSealed::CannotOpen)?;
        answer.await.unwrap_or(Err(StillSealed::CannotOpen))
    }

    pub async fn seal(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Seal { reply }).await.is_ok() {
            // No answer: the keeper is ending, and the vault with it.
            let _ = answer.await;
        }
    }

    /// Remembers what cannot be logged now.
    pub(super) fn note(&self, attempt: Attempt) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.len() < MOST_ATTEMPTS {
            attempts.push(attempt);
        } else {
            tracing::warn!("attempts to unseal are too many to be remembered for the audit log");
        }
    }

    /// All that was remembered. What cannot be logged is to be given back.
    pub fn take_attempts(&self) -> Vec<Attempt> {
        std::mem::take(&mut *self.attempts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn give_back(&self, attempts: Vec<Attempt>) {
        let mut held = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let since = std::mem::replace(&mut *held, attempts);
        held.extend(since);
    }
}

/// Every service's door; cheap to clone.
#[derive(Clone)]
pub struct Switch {
    inner: Arc<Inner>,
}

struct Inner {
    phase: ArcSwap<Phase>,
    trust: Arc<Trust>,
    clock: Arc<dyn Clock>,
    tenants: BTreeSet<TenantId>,
    health: HealthReporter,
    /// What answers while the vault is sealed.
    sealed: Routes,
    watch: Watch,
}

enum Phase {
    /// With those who were in force when it was sealed, if it was ever open.
    Sealed(Option<Welcomes>),
    Serving {
        vault: Vault,
        routes: Routes,
        cut: Stop,
    },
}

/// Who asks a sealed vault; stands among the request's extensions.
#[derive(Clone)]
pub(super) struct Admitted(pub Caller);

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// How long SealService may take on a sealed vault: its store may have to recover first.
const PATIENCE: Duration = Duration::from_secs(60);

impl Switch {
    /// A sealed vault's. `clock` must be the real one: certificates live by it.
    pub fn new(
        control: Control,
        tenants: BTreeSet<TenantId>,
        trust: Arc<Trust>,
        clock: Arc<dyn Clock>,
        watch: Watch,
    ) -> Self {
        let health = HealthReporter::new();
        let sealed = super::sealed_services(control, Arc::clone(&trust), Arc::clone(&clock), &health);
        let phase = ArcSwap::from_pointee(Phase::Sealed(None));
        Self { inner: Arc::new(Inner { phase, trust, clock, tenants, health, sealed, watch }) }
    }

    /// Serves this vault from the next request on.
    pub async fn open(&self, vault: Vault, control: Control) {
        let Inner { trust, clock, health, watch, .. } = &*self.inner;
        let (trust, clock, watch) = (Arc::clone(trust), Arc::clone(clock), Arc::clone(watch));
        let routes = super::services(vault.clone(), trust, clock, watch, control, health);
        self.inner.phase.store(Arc::new(Phase::Serving { vault, routes, cut: Stop::new() }));
        self.tell(ServingStatus::Serving).await;
    }

    /// Serves it no more: later calls are refused at once, calls in flight end, streams are cut.
    pub async fn close(&self) {
        if let Some(vault) = self.vault() {
            let closed = self.inner.phase.swap(Arc::new(Phase::Sealed(Some(vault.welcomes()))));
            if let Phase::Serving { cut, .. } = &*closed {
                cut.trigger();
            }
        }
        self.tell(ServingStatus::NotServing).await;
    }

    /// The vault that is served, if one is. Whoever keeps it keeps its keys in memory.
    pub fn vault(&self) -> Option<Vault> {
        match &**self.inner.phase.load() {
            Phase::Serving { vault, .. } => Some(vault.clone()),
            Phase::Sealed(_) => None,
        }
    }

    /// Alive is told by the service without a name; this is about ready.
    async fn tell(&self, status: ServingStatus) {
        let services = METHODS.iter().filter_map(|(path, _)| path.trim_start_matches('/').split('/').next());
        let services: BTreeSet<&str> = services.filter(|service| !SEAL_SERVICE.contains(service)).collect();
        for service in services.into_iter().chain(["strongroom"]) {
            self.inner.health.set_service_status(service, status).await;
        }
    }
}

const SEAL_SERVICE: &str = "/strongroom.v1.SealService/";
const HEALTH: &str = "/grpc.health.v1.Health/";

/// What goes on through sealing and unsealing.
fn is_of_the_switch(path: &str) -> bool {
    path.starts_with(SEAL_SERVICE) || path.starts_with(HEALTH)
}

impl Service<Request> for Switch {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let stays = is_of_the_switch(request.uri().path());
        // Nothing of the phase but a clone of its routes may live as long as the call: it would keep the vault alive.
        let (mut routes, cut) = match &**self.inner.phase.load() {
            Phase::Serving { routes, cut, .. } => (routes.clone(), cut.clone()),
            Phase::Sealed(_) => {
                let inner = Arc::clone(&self.inner);
                return Box::pin(async move { Ok(inner.while_sealed(request).await) });
            }
        };
        Box::pin(async move {
            if stays {
                return routes.call(request).await;
            }
            tokio::select! {
                biased;
                reply = routes.call(request) => Ok(until::cut(reply?, cut)),
                () = cut.wait() => Ok(sealed().into_http()),
            }
        })
    }
}

impl Inner {
    async fn while_sealed(&self, mut request: Request) -> Response {
        let Some(caller) = self.admit(&request) else { return identity_refused().into_http() };
        if !is_of_the_switch(request.uri().path()) {
            return sealed().into_http();
        }
        request.extensions_mut().insert(Admitted(caller));
        match tokio::time::timeout(PATIENCE, self.sealed.clone().call(request)).await {
            Ok(Ok(reply)) if !is_foreign(&reply) => reply,
            _ => malformed().into_http(),
        }
    }

    fn admit(&self, request: &Request) -> Option<Caller> {
        let peer = request.extensions().get::<Arc<Peer>>()?;
        let caller = peer.admit(&self.trust, self.clock.now()).ok()?;
        let welcome = match &**self.phase.load() {
            Phase::Sealed(Some(welcomes)) => welcomes.welcome(caller).is_ok(),
            _ => true,
        };
        (welcome && self.tenants.contains(&caller.tenant)).then(|| caller.clone())
    }
}
