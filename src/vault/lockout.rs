//! Lock-out: who was refused too often is refused without work for a while. INVARIANT: what counts is what the audit log says,
//! entry by entry, whichever use case wrote it; past the lock-out a certificate adds one entry a second at most, which says how
//! many refusals it stands for, and none of them is lost but by a crash.
//!
//! ```text
//! store: an entry is on disk ─▶ witness: a caller's refusal? ─▶ Conduct::offend ─▶ one too many: locked out
//! rpc::guard: locked out? ─▶ count it ─▶ the first of a second: an entry with the count, when that second is over
//! ```
//! It lives in memory: a restart forgives. It keys on the certificate, so that a renewed one starts clean and a stolen one does
//! not lock its owner's others out; suspending the caller is the answer to more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::call::Draft;
use super::{Error, Vault};
use crate::audit::entry::{Action, Actor, Entry, RefusalCode, Verdict};
use crate::domain::caller::{Caller, CallerId};
use crate::domain::fault::{Fault, planted};
use crate::domain::id::TenantId;
use crate::domain::time::{Clock, SECOND, Timestamp};
use crate::policy::limits::{Conduct, Limits, Offence};
use crate::store::Store;

/// Certificates whose conduct is remembered; past it the forgiven go first, then those that are not locked out.
const REMEMBERED: usize = 4_096;

/// The log's name of a certificate: the first bytes of its hash.
type Certificate = [u8; 8];

struct Offender {
    id: CallerId,
    conduct: Conduct,
    /// Refused since the last entry that told of it.
    counted: u32,
    /// Somebody is about to write that entry.
    telling: bool,
}

pub(crate) struct LockOuts {
    limits: Limits,
    offenders: Mutex<HashMap<Certificate, Offender>>,
    /// When the last lock-out of anyone ends, by the boot clock: spares everyone the look when nobody is.
    last_ends: AtomicI64,
}

/// What a refusal says of its caller. What is not its doing, or an honest race, says nothing; a code that is new counts until
/// someone decides otherwise.
///
/// SECURITY: all that is answered as if nobody had it counts as a miss, whatever the log calls it: the number of calls until the
/// lock-out must not tell them apart either.
fn offence(code: RefusalCode) -> Option<Offence> {
    match code {
        RefusalCode::Unknown
        | RefusalCode::Foreign
        | RefusalCode::NotGranted
        | RefusalCode::GrantEnded
        | RefusalCode::OutsideWindow
        | RefusalCode::ReadLimit
        | RefusalCode::Expired
        | RefusalCode::Erased
        | RefusalCode::Denied
        | RefusalCode::Forbidden => Some(Offence::Missed),
        RefusalCode::Tampered
        | RefusalCode::Unavailable
        | RefusalCode::Conflict
        | RefusalCode::TooLate
        | RefusalCode::EpochInUse
        | RefusalCode::KeyringNotSaved
        | RefusalCode::NoNextRoot
        | RefusalCode::NoBackupFolder
        | RefusalCode::ClockNotConfirmed
        | RefusalCode::CannotOpen
        | RefusalCode::LockedOut => None,
        _ => Some(Offence::Refused),
    }
}

fn short(caller: &Caller) -> Certificate {
    let [a, b, c, d, e, f, g, h, ..] = caller.certificate.0;
    [a, b, c, d, e, f, g, h]
}

impl LockOuts {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, offenders: Mutex::default(), last_ends: AtomicI64::new(i64::MIN) }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes note of an entry that was just committed.
    pub(crate) fn witness(&self, entry: &Entry, now: i64) {
        let Verdict::Refused(code) = entry.verdict else { return };
        let Actor::Caller { role, name, certificate } = &entry.actor else { return };
        metrics::counter!("strongroom_refusals_total", "role" => role.as_str(), "reason" => code.to_string())
            .increment(1);
        let Some(offence) = offence(code).filter(|_| !planted(Fault::LockOutOff)) else { return };
        let mut offenders = self.lock();
        if !offenders.contains_key(certificate) && !make_room(&mut offenders, now) {
            return;
        }
        let offender = offenders.entry(*certificate).or_insert_with(|| Offender {
            id: CallerId { tenant: entry.tenant.clone(), role: *role, name: name.clone() },
            conduct: Conduct::default(),
            counted: 0,
            telling: false,
        });
        if offender.conduct.offend(offence, &self.limits.of(*role), now) {
            let left = offender.conduct.locked_out(now).unwrap_or(0);
            self.last_ends.fetch_max(now.saturating_add(left), Ordering::Relaxed);
            metrics::counter!("strongroom_lock_outs_total", "role" => role.as_str()).increment(1);
            let (tenant, role, name) = (entry.tenant.as_str(), role.as_str(), name.as_str());
            let seconds = left / SECOND;
            tracing::warn!(tenant, role, name, seconds, "a caller was refused too often and is locked out for a while");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Certificate, Offender>> {
        self.offenders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one more may be remembered.
fn make_room(offenders: &mut HashMap<Certificate, Offender>, now: i64) -> bool {
    if offenders.len() >= REMEMBERED {
        offenders.retain(|_, one| one.counted > 0 || !one.conduct.is_forgiven(now));
    }
    if offenders.len() >= REMEMBERED {
        offenders.retain(|_, one| one.counted > 0 || one.conduct.locked_out(now).is_some());
    }
    offenders.len() < REMEMBERED
}

impl Vault {
    /// Counts a request of a caller that is locked out, and answers how long it stays so. To be called inside a runtime.
    pub fn locked_out(&self, caller: &Caller) -> Option<Duration> {
        let lock_outs = &self.inner.lock_outs;
        let now = self.clock().boot();
        if now >= lock_outs.last_ends.load(Ordering::Relaxed) {
            return None;
        }
        let certificate = short(caller);
        let (left, is_first) = {
            let mut offenders = lock_outs.lock();
            let offender = offenders.get_mut(&certificate)?;
            let left = offender.conduct.locked_out(now)?;
            offender.counted = offender.counted.saturating_add(1);
            (left, !std::mem::replace(&mut offender.telling, true))
        };
        metrics::counter!("strongroom_locked_out_total", "role" => caller.role.as_str()).increment(1);
        if is_first || planted(Fault::LockOutUncounted) {
            let vault = self.clone();
            tokio::spawn(async move {
                if !planted(Fault::LockOutUncounted) {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                vault.tell(certificate).await;
            });
        }
        Some(Duration::from_micros(left.unsigned_abs()))
    }

    /// Logs what was counted of one certificate; if it cannot be, it stays counted.
    async fn tell(&self, certificate: Certificate) {
        let taken = self.inner.lock_outs.lock().get_mut(&certificate).map(|offender| {
            offender.telling = false;
            (offender.id.clone(), std::mem::take(&mut offender.counted))
        });
        let Some((CallerId { tenant, role, name }, counted)) = taken.filter(|(_, counted)| *counted > 0) else {
            return;
        };
        let actor = Actor::Caller { role, name, certificate };
        let draft = Draft::by(actor, &tenant, self.new_request(), Action::LockOut, self.now());
        let entry = draft.count(counted).refused(RefusalCode::LockedOut);
        if let Err(error) = self.log_as("lock_out", entry).await {
            tracing::warn!(%error, "refusals past a lock-out are not logged yet");
            if let Some(offender) = self.inner.lock_outs.lock().get_mut(&certificate) {
                offender.counted = offender.counted.saturating_add(counted);
            }
        }
    }

    /// Logs what is counted and not told yet: before the vault stops.
    pub async fn tell_lock_outs(&self) -> Result<(), Error> {
        let counted: Vec<Certificate> = {
            let offenders = self.inner.lock_outs.lock();
            offenders.iter().filter(|(_, one)| one.counted > 0).map(|(certificate, _)| *certificate).collect()
        };
        for certificate in counted {
            self.tell(certificate).await;
        }
        Ok(())
    }

    /// Until when a caller is locked out, by whichever of its certificates is so the longest.
    pub(crate) fn locked_out_until(&self, id: &CallerId) -> Option<Timestamp> {
        let now = self.clock().boot();
        let offenders = self.inner.lock_outs.lock();
        let left = offenders.values().filter(|one| one.id == *id).filter_map(|one| one.conduct.locked_out(now)).max();
        left.map(|left| self.clock().now().plus(left))
    }

    /// What an operator of the tenant should know.
    pub(crate) fn lock_out_warnings(&self, tenant: &TenantId) -> Vec<String> {
        let now = self.clock().boot();
        let offenders = self.inner.lock_outs.lock();
        let locked = offenders.values().filter(|one| one.id.tenant == *tenant);
        let mut warnings: Vec<String> = locked
            .filter_map(|one| {
                let seconds = one.conduct.locked_out(now)? / SECOND;
                Some(format!("{} was refused too often and is locked out for {seconds} s more", one.id))
            })
            .collect();
        warnings.sort();
        warnings
    }

    /// How many certificates are locked out.
    pub(crate) fn locked_out_certificates(&self) -> usize {
        let now = self.clock().boot();
        self.inner.lock_outs.lock().values().filter(|one| one.conduct.locked_out(now).is_some()).count()
    }

    /// Forgets a caller's conduct: it is suspended, and let back in by two people it starts clean.
    pub(crate) fn end_lock_out(&self, id: &CallerId) {
        let mut offenders = self.inner.lock_outs.lock();
        offenders.values_mut().filter(|one| one.id == *id).for_each(|one| one.conduct = Conduct::default());
    }

    /// The limits that every caller lives under.
    pub fn limits(&self) -> &Limits {
        self.inner.lock_outs.limits()
    }
}

/// Lets the lock-outs see what the store commits.
pub(crate) fn watch(lock_outs: &Arc<LockOuts>, store: &Store, clock: &Arc<dyn Clock>) {
    let (lock_outs, clock) = (Arc::clone(lock_outs), Arc::clone(clock));
    store.witness(move |entry| lock_outs.witness(entry, clock.boot()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::entry::RequestId;
    use crate::domain::caller::Role;
    use crate::domain::time::HOUR;

    fn refusal(n: u32, code: RefusalCode) -> Entry {
        let [a, b, c, d] = n.to_be_bytes();
        let certificate = [a, b, c, d, 0, 0, 0, 0];
        let actor = Actor::Caller { role: Role::Carrier, name: "swift".parse().unwrap(), certificate };
        let tenant = "kitchen".parse().unwrap();
        Draft::by(actor, &tenant, RequestId([0; 16]), Action::GetDelivery, Timestamp(0)).refused(code)
    }

    #[test]
    fn memory_is_bounded_and_the_locked_out_are_remembered_first() {
        let lock_outs = LockOuts::new(Limits::default());
        for _ in 0..1_000 {
            lock_outs.witness(&refusal(7, RefusalCode::Unknown), HOUR);
        }
        for n in 0..3 * u32::try_from(REMEMBERED).unwrap() {
            lock_outs.witness(&refusal(n, RefusalCode::Unknown), HOUR);
            assert!(lock_outs.lock().len() <= REMEMBERED);
        }
        assert!(lock_outs.lock().get(&[0, 0, 0, 7, 0, 0, 0, 0]).unwrap().conduct.locked_out(HOUR).is_some());
    }

    #[test]
    fn an_honest_race_and_the_vaults_own_failure_are_nobodys_offence() {
        let lock_outs = LockOuts::new(Limits::default());
        for code in [RefusalCode::Conflict, RefusalCode::Unavailable, RefusalCode::Tampered] {
            for _ in 0..1_000 {
                lock_outs.witness(&refusal(1, code), HOUR);
            }
        }
        assert!(lock_outs.lock().is_empty());
    }
}
