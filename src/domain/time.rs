//! Instants and the clock. INVARIANT: inside the vault an instant is i64 microseconds UTC, and the only readings of the
//! machine's clocks are in this file; everything else is handed its `now`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(pub i64);

pub const SECOND: i64 = 1_000_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

impl Timestamp {
    /// This instant moved by `micros`, saturating at the ends of time.
    pub fn plus(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to this instant (negative when `earlier` is later), saturating.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Days since 1970-01-01 in UTC.
    pub fn utc_day(self) -> i64 {
        self.0.div_euclid(DAY)
    }

    /// The instant as jiff's type; clamped to what a calendar can name.
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }

    pub fn from_jiff(at: jiff::Timestamp) -> Self {
        Self(at.as_microsecond())
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.to_jiff())
    }
}

/// Where `now` comes from: a wall clock that may leap, and a boot clock that may not.
pub trait Clock: Send + Sync {
    /// The wall clock's opinion of the time.
    fn now(&self) -> Timestamp;
    /// Microseconds since some fixed moment of this boot; grows while the machine sleeps, never leaps (CLOCK_BOOTTIME).
    fn boot(&self) -> i64;
    /// Which boot `boot` counts from; readings of different boots cannot be compared.
    fn boot_id(&self) -> u128;
}

/// The machine's own clocks.
pub struct SystemClock {
    boot_id: u128,
}

impl SystemClock {
    pub fn new() -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        Self { boot_id: u128::from_str_radix(&digits, 16).unwrap_or(0) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one reading of the wall clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn boot(&self) -> i64 {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        at.tv_sec.saturating_mul(SECOND).saturating_add(at.tv_nsec / 1_000)
    }

    fn boot_id(&self) -> u128 {
        self.boot_id
    }
}

/// A clock that moves only when told; shared by clone. For the demonstration and the tests.
#[derive(Clone)]
pub struct SimulatedClock {
    wall: Arc<AtomicI64>,
    boot: Arc<AtomicI64>,
    boots: Arc<AtomicI64>,
}

impl SimulatedClock {
    pub fn starting_at(at: Timestamp) -> Self {
        let (wall, boot, boots) = (AtomicI64::new(at.0), AtomicI64::new(0), AtomicI64::new(1));
        Self { wall: Arc::new(wall), boot: Arc::new(boot), boots: Arc::new(boots) }
    }

    /// Time passes: both clocks move forward together.
    pub fn advance(&self, micros: i64) {
        self.wall.fetch_add(micros, Ordering::SeqCst);
        self.boot.fetch_add(micros.max(0), Ordering::SeqCst);
    }

    /// The wall clock is set wrong: only it moves.
    pub fn leap(&self, micros: i64) {
        self.wall.fetch_add(micros, Ordering::SeqCst);
    }

    /// The machine is off for so long, and its boot clock begins anew.
    pub fn reboot(&self, off: i64) {
        self.wall.fetch_add(off, Ordering::SeqCst);
        self.boot.store(0, Ordering::SeqCst);
        self.boots.fetch_add(1, Ordering::SeqCst);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::SeqCst))
    }

    fn boot(&self) -> i64 {
        self.boot.load(Ordering::SeqCst)
    }

    fn boot_id(&self) -> u128 {
        u128::from(self.boots.load(Ordering::SeqCst).unsigned_abs())
    }
}
