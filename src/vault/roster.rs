//! Who may come in, in memory. INVARIANT: the roster holds every authentic enrolment as last committed: a change is in it before
//! its use case answers, whatever becomes of who asked, and a row that is not authentic lets nobody in.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::call::Call;
use super::{Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::domain::caller::{Caller, CallerId, CertificateHash};
use crate::domain::id::TenantId;
use crate::domain::time::{DAY, SECOND, Timestamp};
use crate::policy::enrolment::{Enrolment, Unwelcome};
use crate::store::ledger::{Learned, LedgerEntry, NOBODY};
use crate::store::{Store, StoreError, Tx};

/// How long before a certificate runs out somebody is told.
const SOON: i64 = 14 * DAY;

/// Certificates whose last refusal is remembered; past it the memory starts anew.
const REFUSED: usize = 1_024;

pub(crate) struct Roster {
    callers: ArcSwap<HashMap<String, Enrolment>>,
    changing: Mutex<()>,
    /// Until when the certificate that a caller was last seen with is good. For people: nothing decides by it.
    seen: Mutex<BTreeMap<CallerId, Timestamp>>,
    /// When a certificate's refusal was last logged.
    refused: Mutex<HashMap<CertificateHash, Timestamp>>,
}

impl Roster {
    /// The roster, and how many rows are not authentic.
    pub(crate) fn load(store: &Store) -> Result<(Self, usize), StoreError> {
        let rows = store.read(|view| view.enrolments())?;
        let all = rows.len();
        let callers: HashMap<_, _> = rows.into_iter().flatten().map(|row| (row.id.to_string(), row)).collect();
        let forged = all - callers.len();
        let roster = Self {
            callers: ArcSwap::from_pointee(callers),
            changing: Mutex::default(),
            seen: Mutex::default(),
            refused: Mutex::default(),
        };
        Ok((roster, forged))
    }

    fn welcome(&self, caller: &Caller) -> Result<(), Unwelcome> {
        let callers = self.callers.load();
        if let Some(enrolment) = callers.get(&caller.path()) {
            return enrolment.admit(caller);
        }
        let named = |one: &Enrolment| one.id.tenant == caller.tenant && one.id.name == caller.name;
        Err(if callers.values().any(named) { Unwelcome::RoleMismatch } else { Unwelcome::NotEnrolled })
    }

    /// Takes a committed change in; of two, the later stays, whichever comes first.
    pub(crate) fn apply(&self, enrolment: Enrolment) {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut callers = HashMap::clone(&self.callers.load());
        let path = enrolment.id.to_string();
        if callers.get(&path).is_none_or(|known| known.version < enrolment.version) {
            callers.insert(path, enrolment);
            self.callers.store(Arc::new(callers));
        }
    }

    /// Whether this refusal is to be logged: one a certificate and second, or a client could fill the disk.
    fn is_news(&self, certificate: CertificateHash, now: Timestamp) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.get(&certificate).is_some_and(|last| now.since(*last).abs() < SECOND) {
            return false;
        }
        if refused.len() >= REFUSED {
            refused.clear();
        }
        refused.insert(certificate, now);
        true
    }
}

/// The roster of a vault that is closed: it holds no key and changes no more.
pub struct Welcomes(Arc<Roster>);

impl Welcomes {
    pub fn welcome(&self, caller: &Caller) -> Result<(), Unwelcome> {
        self.0.welcome(caller)
    }
}

impl Vault {
    /// Whether the caller's enrolment lets it in, as things stand now. Asked on every request and every message of a stream.
    pub fn welcome(&self, caller: &Caller) -> Result<(), Unwelcome> {
        self.inner.roster.welcome(caller)
    }

    /// Who is in force now, to be asked when the vault is closed.
    pub fn welcomes(&self) -> Welcomes {
        Welcomes(Arc::clone(&self.inner.roster))
    }

    /// Logs that an authentic certificate was refused.
    pub async fn turned_away(&self, call: &Call, action: Action, why: Unwelcome) -> Result<(), Error> {
        if !self.turned_away_midway(&call.caller, why) {
            return Ok(());
        }
        let code = match why {
            Unwelcome::NotEnrolled => RefusalCode::NotEnrolled,
            Unwelcome::RoleMismatch => RefusalCode::RoleMismatch,
            Unwelcome::Suspended | Unwelcome::CertificateSuspended => RefusalCode::Suspended,
            Unwelcome::IssuerMismatch => RefusalCode::IssuerMismatch,
            Unwelcome::SpkiMismatch => RefusalCode::SpkiMismatch,
        };
        self.refused(call, action, code).await
    }

    /// Tells the operator's log that a caller was refused, within a stream too; `false` when it was told just before.
    pub fn turned_away_midway(&self, caller: &Caller, why: Unwelcome) -> bool {
        let is_news = self.inner.roster.is_news(caller.certificate, self.now());
        if is_news {
            let (tenant, role, name) = (caller.tenant.as_str(), caller.role.as_str(), caller.name.as_str());
            tracing::info!(reason = %why, tenant, role, name, "a caller was refused");
        }
        is_news
    }

    /// A caller came in with a certificate that is good until then.
    pub fn saw(&self, caller: &Caller, good_until: Timestamp, now: Timestamp) {
        if good_until.since(now) < SOON {
            let (role, name, days) = (caller.role.as_str(), caller.name.as_str(), days_between(now, good_until));
            tracing::warn!(tenant = caller.tenant.as_str(), role, name, days, "a caller's certificate runs out soon");
        }
        let mut seen = self.inner.roster.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(caller.id(), good_until);
    }

    /// Until when the certificate is good that this caller was last seen with since the start.
    pub fn certificate_of(&self, id: &CallerId) -> Option<Timestamp> {
        self.inner.roster.seen.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    /// Whoever was seen since the start, and until when its certificate is good.
    pub(crate) fn certificates_seen(&self) -> Vec<(CallerId, Timestamp)> {
        let seen = self.inner.roster.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(|(id, until)| (id.clone(), *until)).collect()
    }

    /// What an operator of the tenant should know of its callers. `now` is the clock that certificates go by.
    pub fn caller_warnings(&self, tenant: &TenantId, now: Timestamp) -> Vec<String> {
        let seen = self.inner.roster.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = seen.iter().filter(|(id, until)| id.tenant == *tenant && until.since(now) < SOON);
        soon.map(|(id, until)| {
            let days = days_between(now, *until);
            format!("the certificate of {id} has {days} days left")
        })
        .collect()
    }

    /// How many callers, of all tenants, have a certificate that runs out soon.
    pub fn certificate_warnings(&self, now: Timestamp) -> usize {
        self.certificates_seen().iter().filter(|(_, until)| until.since(now) < SOON).count()
    }

    /// Whether anybody at all may come in.
    pub fn has_callers(&self) -> bool {
        !self.inner.roster.callers.load().is_empty()
    }

    /// Commits what `write` makes of an enrolment and takes it into the roster, even when who asked is gone by then.
    pub(crate) async fn change_caller<T, F>(&self, name: &'static str, write: F) -> Result<T, Error>
    where
        F: Fn(&mut Tx<'_>) -> Result<(T, Option<Enrolment>), StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let vault = self.clone();
        // SECURITY: a task of its own, since a caller that hangs up would otherwise keep a suspension out of memory.
        let change = tokio::spawn(async move {
            let now = vault.now();
            let noted = move |tx: &mut Tx<'_>| {
                let (answer, changed) = write(tx)?;
                if let Some(enrolment) = &changed {
                    tx.note(LedgerEntry::learned(
                        &enrolment.id.tenant,
                        NOBODY,
                        now,
                        Learned::Caller(Box::new(enrolment.clone())),
                    ));
                }
                Ok((answer, changed))
            };
            let (answer, changed) = vault.store().run(name, noted).await?;
            if let Some(enrolment) = changed {
                vault.inner.roster.apply(enrolment);
            }
            Ok(answer)
        });
        change.await.unwrap_or(Err(Error::Unavailable(StoreError::Closed)))
    }
}

/// Whole days, rounded down.
pub fn days_between(now: Timestamp, later: Timestamp) -> i64 {
    later.since(now).div_euclid(DAY)
}
