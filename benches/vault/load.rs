//! Callers that never rest unless they are told to: 64 streams over 2 connections, each sending its next call when the last one is answered.
//! INVARIANT: every cell is loaded in this one way, and connecting is over before the clock starts.

use std::sync::Barrier;
use std::time::Duration;

use strongroom::rpc::client::{ClientFiles, connect};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tonic::transport::Channel;

pub const CONNECTIONS: usize = 2;
pub const STREAMS: usize = 64;

/// A server, and who calls it.
#[derive(Clone)]
pub struct Target {
    pub endpoint: String,
    pub files: ClientFiles,
}

impl Target {
    pub async fn connect(&self) -> Channel {
        connect(&self.endpoint, &self.files).await.unwrap()
    }
}

/// One stream's calls.
pub trait Caller: Send + 'static {
    fn call(&mut self) -> impl Future<Output = ()> + Send;
}

/// What callers saw.
#[derive(Default)]
pub struct Load {
    pub calls: u64,
    pub lasted: Duration,
    /// In microseconds, in no order; none where calls are not answered one by one.
    pub latencies: Vec<u32>,
}

impl Load {
    fn beside(mut self, other: Self) -> Self {
        self.calls += other.calls;
        self.lasted = self.lasted.max(other.lasted);
        self.latencies.extend(other.latencies);
        self
    }

    pub fn of_latencies(latencies: Vec<u32>, lasted: Duration) -> Self {
        Self { calls: latencies.len() as u64, lasted, latencies }
    }
}

/// A runtime of its own for the calling thread, as a client of the vault would have one a core.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Unary calls on every stream for `length`; `caller` makes the caller of a stream by its number.
pub fn unary<C: Caller>(target: &Target, length: Duration, caller: impl Fn(Channel, usize) -> C + Sync) -> Load {
    paced(target, length, Duration::ZERO, caller)
}

/// The same with callers that rest so long between two calls.
pub fn paced<C: Caller>(
    target: &Target,
    length: Duration,
    pause: Duration,
    caller: impl Fn(Channel, usize) -> C + Sync,
) -> Load {
    each_connection(target, async |channel, connection, start| {
        let streams = connection * STREAMS / CONNECTIONS..(connection + 1) * STREAMS / CONNECTIONS;
        let mut callers: Vec<C> = streams.map(|stream| caller(channel.clone(), stream)).collect();
        // The server judges our certificate after our side of the handshake has ended: one call waits for that.
        if let Some(first) = callers.first_mut() {
            first.call().await;
        }
        let started = start();
        let loops: Vec<_> =
            callers.into_iter().map(|caller| tokio::spawn(until(started + length, pause, caller))).collect();
        let mut latencies = Vec::new();
        for one in loops {
            latencies.extend(one.await.unwrap());
        }
        Load::of_latencies(latencies, started.elapsed())
    })
}

/// Runs `work` on every connection at once, each with a runtime of its own. `work` calls its last argument once it is ready,
/// and is let go when all are.
pub fn each_connection(
    target: &Target,
    work: impl AsyncFn(Channel, usize, &dyn Fn() -> Instant) -> Load + Sync,
) -> Load {
    let all_ready = Barrier::new(CONNECTIONS);
    let (work, all_ready) = (&work, &all_ready);
    let one = move |connection| {
        let start = || {
            all_ready.wait();
            Instant::now()
        };
        runtime().block_on(async { work(target.connect().await, connection, &start).await })
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|connection| scope.spawn(move || one(connection))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(Load::default(), Load::beside)
    })
}

async fn until(end: Instant, pause: Duration, mut caller: impl Caller) -> Vec<u32> {
    let mut latencies = Vec::with_capacity(1 << 14);
    let mut now = Instant::now();
    while now < end {
        caller.call().await;
        let done = Instant::now();
        latencies.push(micros(done - now));
        now = done;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
            now = Instant::now();
        }
    }
    latencies
}

pub fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// SplitMix64 (Steele, Lea, Flood 2014): cheap, and the same for the same seed.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.roll().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = usize::try_from(self.roll()).unwrap_or(0) % from.len();
        from.get(at).unwrap()
    }
}
