//! Gauges for whoever watches. INVARIANT: numbers of the whole vault, labelled by role at most; nothing about anyone, and no
//! tenant's name.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::{Error, Vault};
use crate::domain::caller::Role;
use crate::domain::time::{DAY, MINUTE, SECOND, Timestamp};
use crate::store::reserve::ReserveState;
use crate::store::rows::Counts;

/// Counting all records reads an index from end to end: at most so often, in µs.
const COUNT_AGAIN: i64 = MINUTE / 2;

/// When the records were last counted, by the boot clock, and what was found.
#[derive(Default)]
pub(crate) struct Measured(Mutex<Option<(i64, Counts)>>);

impl Vault {
    /// Sets the gauges. `now` is the clock that certificates go by.
    pub fn measure(&self, now: Timestamp) -> Result<(), Error> {
        let mark = self.inner.mark.at();
        let counts = self.counts(mark)?;
        let (ledger, entries) = self
            .store()
            .read(|view| Ok((view.meta_i64("ledger_applied")?.unwrap_or(0), view.audit_frontier()?.size())))?;
        gauge("strongroom_records_live", counts.records);
        gauge("strongroom_records_due", counts.due);
        gauge("strongroom_tombstones", counts.tombstones);
        self.measure_sweep(mark)?;
        // Whichever is ahead: destruction waits.
        gauge("strongroom_mark_lag_seconds", self.clock().now().since(mark).unsigned_abs() / SECOND.unsigned_abs());
        gauge("strongroom_ledger_entries", ledger.unsigned_abs());
        gauge("strongroom_audit_entries", entries);
        gauge("strongroom_active_epoch", u64::from(self.keyring().active().number().0));
        gauge("strongroom_epochs", self.keyring().epochs().count() as u64);
        let waiting = self.waiting()?;
        let lag = waiting.since.map_or(0, |since| self.now().since(since).max(0) / SECOND);
        gauge("strongroom_announcements_waiting", waiting.announcements);
        gauge("strongroom_announcements_lag_seconds", lag.unsigned_abs());
        gauge("strongroom_locked_out", self.locked_out_certificates() as u64);
        gauge("strongroom_tampered_records", self.tampered().len() as u64);
        gauge("strongroom_store_poisoned", u64::from(self.store().poisoned().is_some()));
        gauge("strongroom_disk_full", u64::from(self.store().reserve() == ReserveState::Released));
        let database = &self.store().paths().database;
        let size = |suffix: &str| {
            let mut name = database.as_os_str().to_owned();
            name.push(suffix);
            std::fs::metadata(name).map_or(0, |metadata| metadata.len())
        };
        gauge("strongroom_database_bytes", size(""));
        gauge("strongroom_wal_bytes", size("-wal"));
        for (role, until) in self.first_to_run_out() {
            days("strongroom_certificate_days_left", Some(role), until, now);
        }
        Ok(())
    }

    fn counts(&self, mark: Timestamp) -> Result<Counts, Error> {
        let now = self.clock().boot();
        let mut measured = self.inner.measured.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((at, counts)) = *measured
            && now.saturating_sub(at) < COUNT_AGAIN
        {
            return Ok(counts);
        }
        let counts = self.store().read(|view| view.counts(mark))?;
        *measured = Some((now, counts));
        Ok(counts)
    }

    /// For every role, until when the certificate is good that runs out first, of those seen since the start.
    fn first_to_run_out(&self) -> BTreeMap<Role, Timestamp> {
        let mut first = BTreeMap::new();
        for (id, until) in self.certificates_seen() {
            let earliest = first.entry(id.role).or_insert(until);
            *earliest = until.min(*earliest);
        }
        first
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn gauge(name: &'static str, value: u64) {
    metrics::gauge!(name).set(value as f64);
}

/// Sets a gauge to the days from `now` to `until`, with their fraction; negative when it is past.
#[expect(clippy::cast_precision_loss, reason = "a metric")]
pub fn days(name: &'static str, role: Option<Role>, until: Timestamp, now: Timestamp) {
    let days = until.since(now) as f64 / DAY as f64;
    match role {
        None => metrics::gauge!(name).set(days),
        Some(role) => metrics::gauge!(name, "role" => role.as_str()).set(days),
    }
}
