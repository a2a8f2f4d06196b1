//! How fast one certificate may ask. INVARIANT: a call over the limit is answered before its body is read and before anything
//! is logged about it; one caller's haste takes nothing from another.
//!
//! Keyed by the certificate, so that a second connection is no second allowance, and a stolen certificate, revoked, takes
//! nothing from the next one of the same owner. Certificates are granted by people, so their number is theirs to choose. What is
//! refused here is counted in the metrics and, sparingly, told to the server's log; the audit log does not hear of it, or any
//! client could fill the disk.

use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::domain::caller::{Caller, CertificateHash, Role};
use crate::policy::limits::Limits;

/// How many calls there are between two looks for callers that have long been quiet, and need no memory.
const FORGET_AFTER: u32 = 1 << 16;

pub(super) struct Meters {
    roles: Vec<(Role, DefaultKeyedRateLimiter<CertificateHash>)>,
    clock: DefaultClock,
    calls: AtomicU32,
}

impl Meters {
    pub fn new(limits: &Limits) -> Self {
        let meter = |role| {
            let limit = limits.of(role);
            let positive = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
            let quota = Quota::per_second(positive(limit.calls_per_second)).allow_burst(positive(limit.burst));
            (role, RateLimiter::keyed(quota))
        };
        let roles = Role::ALL.into_iter().map(meter).collect();
        Self { roles, clock: DefaultClock::default(), calls: AtomicU32::new(0) }
    }

    /// Counts one call; past the limit, answers when to come again.
    pub fn admit(&self, caller: &Caller) -> Result<(), Duration> {
        if self.calls.fetch_add(1, Ordering::Relaxed) % FORGET_AFTER == FORGET_AFTER - 1 {
            self.roles.iter().for_each(|(_, meter)| {
                meter.retain_recent();
                meter.shrink_to_fit();
            });
        }
        let Some((_, meter)) = self.roles.iter().find(|(role, _)| *role == caller.role) else { return Ok(()) };
        meter.check_key(&caller.certificate).map_err(|over| over.wait_time_from(self.clock.now()))
    }

    /// Lets a stream's next message through when its turn has come: a stream is slowed down, not refused.
    pub async fn pace(&self, caller: &Caller) {
        while let Err(again) = self.admit(caller) {
            tokio::time::sleep(again).await;
        }
    }
}

/// Whether one more line may be written of what strangers and floods can cause at will.
pub(super) fn may_tell() -> bool {
    static TOLD: LazyLock<DefaultDirectRateLimiter> = LazyLock::new(|| {
        let a_second = NonZeroU32::MIN.saturating_add(19);
        RateLimiter::direct(Quota::per_second(a_second).allow_burst(NonZeroU32::MIN.saturating_add(199)))
    });
    TOLD.check().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::caller::CertificateHash;
    use crate::policy::limits::Limit;

    fn caller(name: &str, certificate: u8) -> Caller {
        let uri = format!("spiffe://shop.test/tenant/k/carrier/{name}");
        Caller::from_uri(&uri, "shop.test", CertificateHash([certificate; 32])).unwrap()
    }

    #[test]
    fn one_certificate_has_one_allowance_and_takes_nothing_from_its_owners_next_one_or_another_caller() {
        let limit = Limit { calls_per_second: 1, burst: 5, ..Limits::default().of(Role::Carrier) };
        let meters = Meters::new(&Limits::default().with(Role::Carrier, limit));
        let admitted = (0..10).filter(|_| meters.admit(&caller("swift", 1)).is_ok()).count();
        assert_eq!(admitted, 5);
        let again = meters.admit(&caller("swift", 1)).unwrap_err();
        assert!(again > Duration::ZERO && again <= Duration::from_secs(1), "{again:?}");
        assert!(meters.admit(&caller("swift", 2)).is_ok());
        assert!(meters.admit(&caller("parcelo", 3)).is_ok());
    }
}
