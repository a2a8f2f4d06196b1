//! What runs out, and when somebody is told. INVARIANT: whatever shuts everyone out when it runs out is warned of before that.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::{Trust, timestamp};
use crate::domain::time::{DAY, Timestamp};

/// When something came into force and when it runs out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// The last days in which a warning is given; of what lives for less than three times as long, its last third.
const CERTIFICATE: i64 = 14 * DAY;
const LIST: i64 = 7 * DAY;

impl Validity {
    fn runs_out_soon(self, days: i64, now: Timestamp) -> bool {
        self.until.since(now) < days.min(self.until.since(self.from) / 3)
    }

    /// A list without a next update has been refused before.
    pub(super) fn of_list(list: &CertificateRevocationList<'_>) -> Option<Self> {
        Some(Self { from: timestamp(list.last_update()), until: timestamp(list.next_update()?) })
    }

    /// Of the certificate in a chain that runs out first.
    pub(super) fn of_chain(chain: &[CertificateDer<'static>]) -> Option<Self> {
        let validities = chain.iter().filter_map(|certificate| {
            let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
            let validity = parsed.validity();
            Some(Self { from: timestamp(validity.not_before), until: timestamp(validity.not_after) })
        });
        validities.min_by_key(|validity| validity.until)
    }
}

impl Trust {
    /// Of the server's own certificate, and of the revocation list that goes stale first.
    pub fn validities(&self) -> (Option<Validity>, Option<Validity>) {
        let set = self.set();
        (set.own, set.lists.iter().map(|list| list.validity).min_by_key(|validity| validity.until))
    }

    /// What an operator should renew.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let (own, list) = self.validities();
        let told = |validity: Option<Validity>, days, what: &str, then: &str| {
            let soon = validity.filter(|validity| validity.runs_out_soon(days, now))?;
            Some(format!("{what} runs out at {}; {then}", soon.until))
        };
        let own = told(own, CERTIFICATE, "the server's certificate", "from then on no client connects: renew it");
        let list = told(list, LIST, "a revocation list", "from then on all callers of its CA are refused: renew it");
        own.into_iter().chain(list).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::HOUR;

    #[test]
    fn the_warning_comes_in_the_last_days_or_in_the_last_third_of_a_short_life() {
        let start = Timestamp(1_000 * DAY);
        let living = |life: i64| Validity { from: start, until: start.plus(life) };
        for (life, warned_at) in [(365 * DAY, 358 * DAY), (30 * DAY, 23 * DAY), (9 * DAY, 6 * DAY), (DAY, 16 * HOUR)] {
            assert!(!living(life).runs_out_soon(LIST, start.plus(warned_at)), "{life}");
            assert!(living(life).runs_out_soon(LIST, start.plus(warned_at + 1)), "{life}");
            assert!(living(life).runs_out_soon(LIST, start.plus(life + DAY)), "{life}");
        }
    }
}
