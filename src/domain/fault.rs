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
    /// The process ends before an erasure is written to the ledger.
    AbortBeforeLedger = 50,
    /// The process ends with a ledger line half written.
    AbortInLedger = 51,
    /// The process ends between the ledger's flush and the database's commit.
    AbortAfterLedger = 52,
    /// The process ends with everything written and nothing committed.
    AbortBeforeCommit = 53,
    /// The process ends between an erasure's commit and the truncation of the write-ahead log.
    AbortAfterCommit = 54,
    /// The process ends between that truncation and the answer.
    AbortBeforeAnswer = 55,
    /// The process ends between the destruction of a record's keys and that of its row.
    AbortInDestroy = 56,
    /// An erasure is answered and not carried out.
    EarlyErasure = 57,
    /// A hold stops nothing.
    HoldsOff = 58,
    /// Small cells of the statistics are published as they are.
    SmallCells = 59,
    /// A restored backup serves without the erasure ledger.
    LedgerUnapplied = 60,
    /// The digest of the store's state does not look at what the rows say.
    StateBlind = 10,
    /// A new epoch is promoted before the copies of the keyring hold it.
    CopiesSkipped = 15,
    /// Blind indexes are made under a key that no rotation changes.
    IndexEternal = 16,
    /// A rewrap writes keys back that were erased meanwhile.
    RewrapUpserts = 17,
    /// A destroyed epoch's key stays in the keyring.
    EpochKept = 18,
    /// A share of the root key is taken without looking at its checksum and its digest.
    ShareUnchecked = 20,
    /// Long-lived keys lie on the ordinary heap.
    KeysUnlocked = 25,
    /// The kernel is taken to have no memfd_secret.
    NoSecretMemory = 26,
    /// Long-lived keys lie on the ordinary heap, and the root is not wiped.
    RootKept = 27,
    /// No room is kept back on the disk.
    NoReserve = 30,
    /// Refusals past the lock-out are logged one by one.
    LockOutUncounted = 31,
    /// Nobody is ever locked out.
    LockOutOff = 32,
    /// A field whose own retention is over is released all the same.
    StageReadable = 40,
    /// A record goes on with what is over of it.
    StageKept = 41,
    /// Everything is due a day early.
    DueEarly = 42,
    /// A policy that shortens something takes force by one person's word.
    ShorteningUnwatched = 43,
    /// The mark goes wherever the wall clock does.
    MarkByWallClock = 70,
    /// A disclosure takes one person's word.
    DisclosureUnwatched = 71,
    /// An erasure's commit leaves nothing to announce.
    AnnouncementForgotten = 65,
    /// An announcement leaves the outbox before anybody has taken it.
    AnnouncementTakenEarly = 66,
    /// What was announced as due soon is not remembered.
    DueSoonForgotten = 67,
    /// The forecast knows nothing of what goes before its record.
    ForecastBlind = 68,
    /// The forecast tells of every tenant's records.
    ForecastForeign = 69,
}

#[cfg(not(feature = "planted"))]
pub const fn planted(_fault: Fault) -> bool {
    false
}

#[cfg(not(feature = "planted"))]
pub const fn abort_at(_fault: Fault) {}

#[cfg(feature = "planted")]
pub use with_the_feature::{abort_at, plant, planted};

#[cfg(feature = "planted")]
mod with_the_feature {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

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

    /// Which passing of an abort point ends the process, from 1; the first where it is not set.
    const PASSING: &str = "STRONGROOM_PLANTED_PASSING";

    static PASSED: AtomicU64 = AtomicU64::new(0);

    /// Ends the process here, as a kill would, if that is planted and the passing has come.
    pub fn abort_at(fault: Fault) {
        if planted(fault) {
            let passing = std::env::var(PASSING).ok().and_then(|text| text.parse().ok()).unwrap_or(1);
            if PASSED.fetch_add(1, Ordering::SeqCst) + 1 == passing {
                std::process::abort();
            }
        }
    }

    fn named(name: &str) -> Option<Fault> {
        match name {
            "sealing-off" => Some(Fault::SealingOff),
            "early-acknowledgement" => Some(Fault::EarlyAcknowledgement),
            "synchronous-normal" => Some(Fault::SynchronousNormal),
            "role-too-many" => Some(Fault::RoleTooMany),
            "mac-off" => Some(Fault::MacOff),
            "wal-kept" => Some(Fault::WalKept),
            "abort-before-ledger" => Some(Fault::AbortBeforeLedger),
            "abort-in-ledger" => Some(Fault::AbortInLedger),
            "abort-after-ledger" => Some(Fault::AbortAfterLedger),
            "abort-before-commit" => Some(Fault::AbortBeforeCommit),
            "abort-after-commit" => Some(Fault::AbortAfterCommit),
            "abort-before-answer" => Some(Fault::AbortBeforeAnswer),
            "abort-in-destroy" => Some(Fault::AbortInDestroy),
            "early-erasure" => Some(Fault::EarlyErasure),
            "holds-off" => Some(Fault::HoldsOff),
            "ledger-unapplied" => Some(Fault::LedgerUnapplied),
            "small-cells" => Some(Fault::SmallCells),
            "keys-unlocked" => Some(Fault::KeysUnlocked),
            "no-secret-memory" => Some(Fault::NoSecretMemory),
            "root-kept" => Some(Fault::RootKept),
            "no-reserve" => Some(Fault::NoReserve),
            "lock-out-uncounted" => Some(Fault::LockOutUncounted),
            "lock-out-off" => Some(Fault::LockOutOff),
            "copies-skipped" => Some(Fault::CopiesSkipped),
            "index-eternal" => Some(Fault::IndexEternal),
            "rewrap-upserts" => Some(Fault::RewrapUpserts),
            "epoch-kept" => Some(Fault::EpochKept),
            "state-blind" => Some(Fault::StateBlind),
            "stage-readable" => Some(Fault::StageReadable),
            "stage-kept" => Some(Fault::StageKept),
            "due-early" => Some(Fault::DueEarly),
            "mark-by-wall-clock" => Some(Fault::MarkByWallClock),
            "disclosure-unwatched" => Some(Fault::DisclosureUnwatched),
            "shortening-unwatched" => Some(Fault::ShorteningUnwatched),
            "announcement-forgotten" => Some(Fault::AnnouncementForgotten),
            "announcement-taken-early" => Some(Fault::AnnouncementTakenEarly),
            "due-soon-forgotten" => Some(Fault::DueSoonForgotten),
            "forecast-blind" => Some(Fault::ForecastBlind),
            "forecast-foreign" => Some(Fault::ForecastForeign),
            "share-unchecked" => Some(Fault::ShareUnchecked),
            _ => None,
        }
    }
}
