//! Faults planted on purpose, to prove that the tests which must turn red do. INVARIANT: a build without the feature
//! `planted` has none, whatever its environment says.

/// What can be broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fault {
    /// Fields are stored as they came.
    SealingOff = 1,
    /// A write is acknowledged before it is durable.
    EarlyAcknowledgement = 2,
    /// SQLite runs with `synchronous=NORMAL`.
    SynchronousNormal = 3,
    /// Gate 1 lets one role see what it must not.
    RoleTooMany = 4,
    /// Mutable facts are read without checking their MAC.
    MacOff = 5,
    /// The write-ahead log is not truncated after an erasure.
    WalKept = 6,
    /// A share of the root key is taken without looking at its checksum and its digest.
    ShareUnchecked = 20,
}

#[cfg(not(feature = "planted"))]
pub const fn planted(_fault: Fault) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use with_the_feature::{plant, planted};

#[cfg(feature = "planted")]
mod with_the_feature {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Fault;

    /// The environment variable that plants a fault in a whole process, by the fault's name.
    const VARIABLE: &str = "STRONGROOM_PLANTED_FAULT";

    static PLANTED_HERE: AtomicU8 = AtomicU8::new(0);
    static PLANTED_OUTSIDE: OnceLock<Option<Fault>> = OnceLock::new();

    /// Plants `fault` in this process, in place of one planted before.
    pub fn plant(fault: Fault) {
        PLANTED_HERE.store(fault as u8, Ordering::SeqCst);
    }

    pub fn planted(fault: Fault) -> bool {
        let outside = PLANTED_OUTSIDE.get_or_init(|| std::env::var(VARIABLE).ok().and_then(|name| named(&name)));
        *outside == Some(fault) || PLANTED_HERE.load(Ordering::SeqCst) == fault as u8
    }

    fn named(name: &str) -> Option<Fault> {
        match name {
            "sealing-off" => Some(Fault::SealingOff),
            "early-acknowledgement" => Some(Fault::EarlyAcknowledgement),
            "synchronous-normal" => Some(Fault::SynchronousNormal),
            "role-too-many" => Some(Fault::RoleTooMany),
            "mac-off" => Some(Fault::MacOff),
            "wal-kept" => Some(Fault::WalKept),
            "share-unchecked" => Some(Fault::ShareUnchecked),
            _ => None,
        }
    }
}
