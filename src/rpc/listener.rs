//! The one door for data: TLS 1.3 with a client certificate, dealt to one single-threaded runtime a core. INVARIANT: a stream
//! reaches gRPC only with its `Peer`, and nothing a stranger does (silence, floods, rubbish) ends the loop or takes a place
//! from an authenticated caller.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::transport::server::{Connected, Server};
use tower::Service;

use crate::domain::caller::{Caller, CallerId};
use crate::domain::time::Clock;
use crate::policy::limits::Limits;
use crate::rpc::identity::{Peer, PeerRefusal};
use crate::rpc::limits::may_tell;
use crate::rpc::trust::{ALPN, Trust};

#[derive(Clone, Debug)]
pub struct ListenerConfig {
    pub address: SocketAddr,
    /// Single-threaded runtimes; one a core gives half the CPU per call of a shared one.
    pub workers: usize,
    /// From the accepted socket to the end of the HTTP/2 preface.
    pub handshake_timeout: Duration,
    /// Handshakes in progress; past it the oldest gives way, which is the one most likely stalled.
    pub max_handshakes: usize,
    /// Authenticated connections.
    pub max_connections: usize,
    /// Of these, how many one caller may have.
    pub limits: Limits,
    /// A connection whose peer answers no ping for this long after `ping_interval` is closed.
    pub ping_timeout: Duration,
    pub ping_interval: Duration,
    /// How long calls in flight may take to end once the listener is told to stop.
    pub drain: Duration,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            handshake_timeout: Duration::from_secs(5),
            max_handshakes: 256,
            max_connections: 4096,
            limits: Limits::default(),
            ping_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// Tells any number of waiters to stop, once and for good.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<bool>);

impl Stop {
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    pub fn is_triggered(&self) -> bool {
        *self.0.borrow()
    }

    pub async fn wait(&self) {
        // The sender is `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|stop| *stop).await;
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

/// What stands behind the listener: gRPC's services, or the switch in front of them.
pub trait Served:
    Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Served for S where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// A bound socket that serves nobody yet.
pub struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
    config: ListenerConfig,
}

impl Listener {
    pub fn bind(config: &ListenerConfig) -> io::Result<Self> {
        let socket = std::net::TcpListener::bind(config.address)?;
        socket.set_nonblocking(true)?;
        Ok(Self { address: socket.local_addr()?, socket, config: config.clone() })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then lets calls in flight end within the drain time. Blocks; to be called outside any runtime.
    /// `clock` must be the real one: certificates live by it.
    pub fn serve(self, trust: Arc<Trust>, clock: Arc<dyn Clock>, service: impl Served, stop: Stop) -> io::Result<()> {
        let workers = self.config.workers.max(1);
        let connections = Arc::new(Semaphore::new(self.config.max_connections));
        let door = Arc::new(Door { trust, clock, connections, callers: Arc::default(), config: self.config });
        let (mut queues, mut threads) = (Vec::new(), Vec::new());
        for number in 0..workers {
            let (queue, dealt) = mpsc::channel(DEALT_AHEAD);
            let (runtime, door, service, stop) = (runtime()?, door.clone(), service.clone(), stop.clone());
            let worker = move || serve_dealt(runtime, door, dealt, service, stop);
            threads.push(std::thread::Builder::new().name(format!("rpc-{number}")).spawn(worker)?);
            queues.push(queue);
        }
        runtime()?.block_on(async { accept(TcpListener::from_std(self.socket)?, &queues, &stop).await })?;
        drop(queues);
        for thread in threads {
            thread.join().map_err(|_| io::Error::other("a worker of the listener panicked"))??;
        }
        Ok(())
    }
}

/// Sockets that wait for one worker; past it the next worker is tried.
const DEALT_AHEAD: usize = 64;

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Deals accepted sockets round-robin. Ends by `stop` alone: out of descriptors it waits and tries again.
async fn accept(socket: TcpListener, queues: &[mpsc::Sender<std::net::TcpStream>], stop: &Stop) -> io::Result<()> {
    const FIRST_PAUSE: Duration = Duration::from_millis(10);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);
    let mut stopped = pin!(stop.wait());
    let mut turns = queues.iter().cycle();
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => return Ok(()),
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                pause = FIRST_PAUSE;
                // Refused options mean that the peer is already gone.
                if stream.set_nodelay(true).is_err() {
                    continue;
                }
                let Ok(stream) = stream.into_std() else { continue };
                deal(stream, turns.by_ref().take(queues.len()));
            }
            Err(error) if ended_by_the_peer(&error) => {}
            Err(error) => {
                metrics::counter!("strongroom_accept_errors_total").increment(1);
                tracing::warn!(%error, ?pause, "cannot accept connections; waiting");
                tokio::select! {
                    biased;
                    () = &mut stopped => return Ok(()),
                    () = sleep(pause) => pause = pause.saturating_mul(2).min(LONGEST_PAUSE),
                }
            }
        }
    }
}

fn ended_by_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn deal<'a>(mut stream: std::net::TcpStream, queues: impl Iterator<Item = &'a mpsc::Sender<std::net::TcpStream>>) {
    for queue in queues {
        match queue.try_send(stream) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => stream = back,
        }
    }
    refuse(Refusal::Overloaded);
}

/// One worker: handshakes, then gRPC, until `stop` and at most the drain time longer.
fn serve_dealt(
    runtime: Runtime,
    door: Arc<Door>,
    dealt: mpsc::Receiver<std::net::TcpStream>,
    service: impl Served,
    stop: Stop,
) -> io::Result<()> {
    let config = door.config.clone();
    let _all_or_none = StopOnExit(stop.clone());
    let served = runtime.block_on(async {
        let (ready, wires) = mpsc::channel(DEALT_AHEAD);
        tokio::spawn(shake_hands(door, dealt, ready));
        let incoming = ReceiverStream::new(wires).map(Ok::<Wire, io::Error>);
        let serving = server(&config).serve_with_incoming_shutdown(service, incoming, stop.wait());
        let too_long = async {
            stop.wait().await;
            sleep(config.drain).await;
        };
        tokio::select! {
            served = serving => served.map_err(io::Error::other),
            () = too_long => {
                tracing::warn!("calls were still in flight when the drain time was over; cutting them");
                Ok(())
            }
        }
    });
    runtime.shutdown_background();
    served
}

/// A worker that ends, even by a panic, ends the listener: a vault that serves every second caller is worse than a restart.
struct StopOnExit(Stop);

impl Drop for StopOnExit {
    fn drop(&mut self) {
        self.0.trigger();
    }
}

/// HTTP/2 limits. There is no time limit on calls: streams may live long, and each use case bounds its own work.
fn server(config: &ListenerConfig) -> Server {
    Server::builder()
        // Pings find dead peers, whose connections would otherwise keep their places.
        .http2_keepalive_interval(Some(config.ping_interval))
        .http2_keepalive_timeout(Some(config.ping_timeout))
        .max_concurrent_streams(256)
        // Our metadata is small; this also bounds what CONTINUATION frames may pile up.
        .http2_max_header_list_size(16 * 1024)
        // Rapid reset (CVE-2023-44487): streams reset before they were served, and streams reset by us for their errors.
        .http2_max_pending_accept_reset_streams(Some(16))
        .http2_max_local_error_reset_streams(Some(64))
        // What one peer may make us buffer: a stream's window, and all of its streams together.
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
}

/// Runs this worker's share of handshakes at once; the oldest gives way to a newcomer, so that silent sockets cannot keep
/// anyone out: an honest handshake is over long before 256 newer ones have come.
async fn shake_hands(door: Arc<Door>, mut dealt: mpsc::Receiver<std::net::TcpStream>, ready: mpsc::Sender<Wire>) {
    let share = door.config.max_handshakes.div_ceil(door.config.workers.max(1)).max(1);
    let mut pending: VecDeque<AbortHandle> = VecDeque::with_capacity(share);
    while let Some(socket) = dealt.recv().await {
        if pending.len() >= share {
            pending.retain(|handshake| !handshake.is_finished());
        }
        if pending.len() >= share
            && let Some(oldest) = pending.pop_front()
        {
            oldest.abort();
            refuse(Refusal::GaveWay);
        }
        let (door, ready) = (door.clone(), ready.clone());
        let handshake = tokio::spawn(async move {
            match door.open(socket).await {
                // Nobody receives any more once the server drains.
                Ok(wire) => drop(ready.send(wire).await),
                Err(refusal) => refuse(refusal),
            }
        });
        pending.push_back(handshake.abort_handle());
    }
}

/// Why a connection was refused before any request.
enum Refusal {
    Peer(PeerRefusal),
    TlsVersion,
    NotTls,
    /// No common cipher suite, group or signature scheme.
    Incompatible,
    /// Does not speak HTTP/2 by ALPN.
    Alpn,
    /// The client closed or sent an alert: perhaps it does not trust us.
    ByClient,
    Misbehaved,
    Timeout,
    /// Pushed out by newer handshakes.
    GaveWay,
    TooManyConnections,
    /// Of this one caller.
    TooManyOfCaller,
    Overloaded,
}

impl Refusal {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Peer(refusal) => refusal.as_str(),
            Self::TlsVersion => "tls_version",
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible_tls",
            Self::Alpn => "alpn",
            Self::ByClient => "closed_by_client",
            Self::Misbehaved => "misbehaved",
            Self::Timeout => "timeout",
            Self::GaveWay => "gave_way",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyOfCaller => "too_many_of_caller",
            Self::Overloaded => "overloaded",
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        use rustls::{Error, PeerIncompatible};
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return Self::ByClient;
        };
        match error {
            Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::ServerDoesNotSupportTls12Or13,
            ) => Self::TlsVersion,
            Error::PeerIncompatible(_) => Self::Incompatible,
            Error::InvalidMessage(_) => Self::NotTls,
            Error::NoApplicationProtocol => Self::Alpn,
            Error::AlertReceived(_) => Self::ByClient,
            error => PeerRefusal::from_tls(error).map_or(Self::Misbehaved, Self::Peer),
        }
    }
}

/// SECURITY: the reason and nothing else; names in a refused certificate are the stranger's choice.
fn refuse(refusal: Refusal) {
    metrics::counter!("strongroom_connections_refused_total", "reason" => refusal.as_str()).increment(1);
    if may_tell() {
        tracing::info!(reason = refusal.as_str(), "connection refused");
    }
}

/// What a handshake needs.
struct Door {
    trust: Arc<Trust>,
    clock: Arc<dyn Clock>,
    connections: Arc<Semaphore>,
    callers: Arc<Mutex<HashMap<CallerId, u32>>>,
    config: ListenerConfig,
}

/// One of the connections that its caller may have; given back when dropped.
struct Place {
    callers: Arc<Mutex<HashMap<CallerId, u32>>>,
    id: CallerId,
    _one_of_all: OwnedSemaphorePermit,
}

impl Place {
    fn take(door: &Door, caller: &Caller) -> Result<Self, Refusal> {
        let limit = door.config.limits.of(caller.role).connections;
        let id = caller.id();
        let mut callers = door.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.get(&id).is_some_and(|taken| *taken >= limit) {
            return Err(Refusal::TooManyOfCaller);
        }
        let one_of_all = door.connections.clone().try_acquire_owned().map_err(|_| Refusal::TooManyConnections)?;
        *callers.entry(id.clone()).or_default() += 1;
        metrics::gauge!("strongroom_connections").increment(1);
        Ok(Self { callers: Arc::clone(&door.callers), id, _one_of_all: one_of_all })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("strongroom_connections").decrement(1);
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = callers.get_mut(&self.id) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                callers.remove(&self.id);
            }
        }
    }
}

impl Door {
    async fn open(&self, socket: std::net::TcpStream) -> Result<Wire, Refusal> {
        let due = Instant::now() + self.config.handshake_timeout;
        let set = arc_swap::Guard::into_inner(self.trust.set());
        let shaking = TlsAcceptor::from(set.server.clone()).accept(TcpStream::from_std(socket)?);
        let tls = timeout_at(due, shaking).await.map_err(|_| Refusal::Timeout)??;
        let (_, session) = tls.get_ref();
        // The TLS library lets a client pass that offers no protocol at all.
        if session.alpn_protocol() != Some(ALPN) {
            return Err(Refusal::Alpn);
        }
        let chain = session.peer_certificates().unwrap_or_default();
        let peer =
            Peer::of_handshake(chain, self.trust.trust_domain(), &set, self.clock.now()).map_err(Refusal::Peer)?;
        let place = Place::take(self, peer.caller())?;
        let preface = Preface { due: Box::pin(sleep_until(due)), missing: PREFACE_LEN };
        Ok(Wire { tls, peer: Arc::new(peer), preface: Some(preface), _place: place })
    }
}

/// An authenticated connection. gRPC handlers find its `Arc<Peer>` among the request's extensions.
struct Wire {
    tls: TlsStream<TcpStream>,
    peer: Arc<Peer>,
    preface: Option<Preface>,
    _place: Place,
}

/// Pings start only after the HTTP/2 preface (RFC 9113 §3.4), so its arrival has its own time limit.
struct Preface {
    due: Pin<Box<Sleep>>,
    missing: usize,
}

const PREFACE_LEN: usize = 24;

impl Connected for Wire {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        self.peer.clone()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.tls).poll_read(cx, buf);
        if let Some(preface) = &mut self.preface {
            preface.missing = preface.missing.saturating_sub(buf.filled().len().saturating_sub(before));
            if preface.missing == 0 {
                self.preface = None;
            } else if preface.due.as_mut().poll(cx).is_ready() {
                refuse(Refusal::Timeout);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
