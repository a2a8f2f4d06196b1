//! The use cases, one a file. INVARIANT: no personal data leaves a use case without a `Receipt`, which exists only for an audit
//! entry that is on disk; every refusal is logged the same way; and what a use case decides from facts, it commits only if
//! those facts are still what they were (the commit is the linearization point).

mod announce;
mod approval;
mod backup;
mod call;
mod correct;
mod deliver;
mod describe;
mod destroy;
mod detokenize;
mod disclose;
mod due_soon;
mod enrol;
mod erase;
mod erase_subject;
mod error;
mod hold;
mod explain;
mod inquiry;
mod find;
mod forecast;
mod keys;
mod in_force;
mod loaded;
mod lockout;
mod log;
mod mark;
mod measure;
mod once;
mod pause;
mod receipt;
mod replay;
mod report_event;
mod rewrap;
mod roster;
mod rotate;
mod seal;
mod shipment;
mod statistics;
mod stage;
mod status;
mod sweep;
mod tokenize;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::audit::entry::{Action, Entry, RefusalCode, RequestId};
use crate::crypto::entropy::{Entropy, array};
use crate::crypto::keyring::Keyring;
use crate::domain::field::{FieldReason, SerialPattern};
use crate::domain::id::{CallerName, TenantId};
use crate::domain::time::{Clock, Timestamp};
use crate::domain::vocabulary::Class;
use crate::policy::limits::Limits;
use crate::policy::retention::Policy;
use crate::policy::webhook::Subscription;
use crate::store::rows::RecordRow;
use crate::store::{Store, StoreError, Tx};

pub use announce::Outgoing;
pub use approval::{Gated, Pending, Word};
pub use backup::{BackupProgress, database_of};
pub use call::Call;
pub use correct::Correct;
pub use deliver::{ConfirmDelivery, Delivery};
pub use describe::{Description, RecordState};
pub use detokenize::{Detokenize, Detokenized, FieldOutcome, Released};
pub use disclose::Disclose;
pub use enrol::{
    EnrolCaller, Enrolled, Named, OnTheMachine, ReplacePins, ResumeCaller, SuspendCaller, enrol_on_the_machine,
};
pub use erase::Erase;
pub use erase_subject::{EraseSubject, Keeping, KeptRecord, SubjectErasure, SubjectNews};
pub use error::Error;
pub use explain::{Explained, Explanation, PieceDue, WhyDue};
pub use find::{Find, FoundTokens, Sought};
pub use forecast::{Ending, Forecast, ForecastPage, Goes, Group, RecordGoes};
pub use hold::{HoldShown, PlaceHold, Which};
pub use in_force::Proposed;
pub use inquiry::{
    Answer, Explain, FieldShown, Part, Period, Refusals, Refused, Seen, SeenBy, Shown, SubjectSeen, Summary,
    UnusedGrant, UnusedGrants, WhoSaw, WhyUnused,
};
pub use keys::{ListedEpoch, ListedKeys, PostponeEpoch, reseal_on_the_machine};
pub use log::{Exporting, HeadOf, InclusionProof, KeptYears, LogKeeping, ProofOf, TakeOut, contradiction};
pub use measure::days;
pub use receipt::Gone;
pub use replay::Applied;
pub use report_event::{ReportEvent, Reported};
pub use roster::{Welcomes, days_between};
pub use rotate::{Kept, KeySettings, Progress};
pub use seal::{Attempt, Pulse};
pub use shipment::{GrantShipment, RevokeShipment};
pub use statistics::PublishedMonth;
pub use status::{Confinement, RootStatus, Status};
pub use sweep::Swept;
pub use tokenize::Tokenize;

use call::Draft;
use in_force::{HeldBack, take_force};
use lockout::LockOuts;
use mark::Mark;
use replay::Origin;
use roster::Roster;

/// How often a use case starts over when others keep changing what it read.
const ATTEMPTS: usize = 16;

/// All that a vault is made of.
pub struct Parts {
    pub store: Store,
    pub policies: BTreeMap<TenantId, Policy>,
    /// A carrier's serials look like this; exempts them from the card-number refusal.
    pub serial_patterns: BTreeMap<CallerName, SerialPattern>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub root: RootStatus,
    /// What every caller may ask, and how often it may be wrong.
    pub limits: Limits,
    pub keys: KeySettings,
    pub log: LogKeeping,
    /// Where backups are made, if anywhere.
    pub backups: Option<PathBuf>,
    /// Who is told of what over the web.
    pub webhooks: Vec<Subscription>,
}

/// The vault; cheap to clone.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    /// Every policy that a record was collected under, by version.
    kept_policies: BTreeMap<[u8; 32], Policy>,
    mark: Mark,
    started_at: Timestamp,
    sweeper: sweep::Progress,
    roster: Arc<Roster>,
    desk: inquiry::Desk,
    lock_outs: Arc<LockOuts>,
    measured: measure::Measured,
    keeper: rotate::Keeper,
    /// What those who work beside the vault want the operator to know, by who says it.
    notices: Mutex<BTreeMap<&'static str, String>>,
    held_back: HeldBack,
    backing_up: backup::BackingUp,
    due_soon: due_soon::Passes,
}

impl Vault {
    /// Takes the store into service: applies what the erasure ledger holds beyond it, then logs the start.
    pub async fn open(parts: Parts) -> Result<Self, Error> {
        Ok(Self::into_service(parts, Origin::Start, &mut |_, _| {}).await?.0)
    }

    /// The same for a store that came out of a backup; `told` hears how many of how many lines of the ledger are applied.
    pub async fn restore(parts: Parts, told: &mut dyn FnMut(u64, u64)) -> Result<(Self, Applied), Error> {
        Self::into_service(parts, Origin::Backup, told).await
    }

    async fn into_service(
        mut parts: Parts,
        origin: Origin,
        told: &mut dyn FnMut(u64, u64),
    ) -> Result<(Self, Applied), Error> {
        let mark = parts.store.read(|view| Mark::load(view, parts.clock.as_ref()))?;
        let started_at = parts.clock.now();
        let kept_policies = keep_policies(&parts).await?;
        let (roster, forged) = Roster::load(&parts.store)?;
        // Before the first entry: from then on the store must remember them.
        parts.store.run("first_marks", mark.saver()).await?;
        let held_back = take_force(&mut parts, &kept_policies, started_at).await?;
        let lock_outs = Arc::new(LockOuts::new(parts.limits.clone()));
        lockout::watch(&lock_outs, &parts.store, &parts.clock);
        let inner = Inner {
            parts,
            kept_policies,
            mark,
            started_at,
            sweeper: sweep::Progress::default(),
            roster: Arc::new(roster),
            desk: inquiry::Desk::default(),
            lock_outs,
            measured: measure::Measured::default(),
            keeper: rotate::Keeper::default(),
            notices: Mutex::default(),
            held_back,
            backing_up: backup::BackingUp::default(),
            due_soon: due_soon::Passes::default(),
        };
        let vault = Self { inner: Arc::new(inner) };
        vault.drop_unheard().await?;
        let applied = vault.replay_ledger(origin, told).await?;
        let tenants: Vec<TenantId> = vault.inner.parts.policies.keys().cloned().collect();
        for tenant in tenants {
            let request = vault.new_request();
            vault.log_as("start", Draft::by_vault(&tenant, request, Action::Start, vault.now()).done()).await?;
            if forged > 0 {
                tracing::error!(forged, "enrolments fail their authentication and let nobody in: they were altered");
                let entry = Draft::by_vault(&tenant, request, Action::Tamper, vault.now());
                vault.log_as("start", entry.refused(RefusalCode::Tampered)).await?;
            }
        }
        Ok((vault, applied))
    }

    pub fn store(&self) -> &Store {
        &self.inner.parts.store
    }

    /// Whether this vault keeps records for the tenant at all.
    pub fn serves(&self, tenant: &TenantId) -> bool {
        self.inner.parts.policies.contains_key(tenant)
    }

    /// Tells the operator something, until it is told otherwise: nothing (`None`) for all is well.
    pub fn notice(&self, from: &'static str, what: Option<String>) {
        if let Ok(mut notices) = self.inner.notices.lock() {
            notices.remove(from);
            notices.extend(what.map(|what| (from, what)));
        }
    }

    /// A fresh number for a request.
    pub fn new_request(&self) -> RequestId {
        RequestId(array(self.entropy()))
    }

    /// Logs a refusal that happened before any use case: a role that may not call the RPC, a request that does not parse.
    pub async fn refused(&self, call: &Call, action: Action, code: RefusalCode) -> Result<(), Error> {
        self.log(Draft::of(call, action, self.now()).refused(code)).await
    }

    /// The time that reads go by: never earlier than what is known to have passed.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock().now().max(self.inner.mark.at())
    }

    fn clock(&self) -> &dyn Clock {
        self.inner.parts.clock.as_ref()
    }

    fn entropy(&self) -> &dyn Entropy {
        self.inner.parts.entropy.as_ref()
    }

    /// The keyring as it stands; within a snapshot or a transaction, theirs is the one to go by.
    fn keyring(&self) -> Arc<Keyring> {
        self.store().keyring()
    }

    /// The policy a record was collected under: later files speak of later records.
    fn policy_of(&self, record: &RecordRow) -> Result<&Policy, StoreError> {
        let missing = StoreError::Corrupt { table: "policy", column: "version" };
        self.inner.kept_policies.get(&record.policy_version.0).ok_or(missing)
    }

    /// The tenant's rules for a class; a class the tenant does not keep is named.
    fn policy(&self, tenant: &TenantId, class: Class) -> Result<&Policy, Error> {
        let policy = self.inner.parts.policies.get(tenant).ok_or(Error::NotFound)?;
        policy.class(class).map(|_| policy).ok_or_else(|| Error::invalid("class", FieldReason::NotCollected))
    }

    /// Appends one entry; answers once it is on disk.
    async fn log(&self, entry: Entry) -> Result<(), Error> {
        self.log_as("log", entry).await
    }

    /// `log` in a transaction of this name: some may write though the disk is full.
    async fn log_as(&self, name: &'static str, entry: Entry) -> Result<(), Error> {
        let write = move |tx: &mut Tx<'_>| {
            tx.log(entry.clone());
            Ok(())
        };
        Ok(self.store().run(name, write).await?)
    }

    /// Logs a refusal and answers what the caller is told.
    async fn refuse<T>(&self, draft: Draft, code: RefusalCode, told: Error) -> Result<T, Error> {
        self.log(draft.refused(code)).await?;
        Err(told)
    }

    /// Logs what a use case refused on its way: a request that is not valid, and data that fails its authentication, which
    /// the operator hears of too.
    async fn watch<T>(&self, draft: &Draft, answer: Result<T, Error>) -> Result<T, Error> {
        match &answer {
            Err(Error::Tampered { table }) => {
                tracing::error!(table, "stored data fails its authentication: it was altered outside the vault");
                self.log(draft.clone().action(Action::Tamper).refused(RefusalCode::Tampered)).await?;
            }
            Err(Error::Invalid(_)) => self.log(draft.clone().refused(RefusalCode::Invalid)).await?,
            _ => {}
        }
        answer
    }
}

/// Keeps the configured policies beside the records, and reads back all that were ever kept.
async fn keep_policies(parts: &Parts) -> Result<BTreeMap<[u8; 32], Policy>, Error> {
    let configured: Vec<_> =
        parts.policies.values().map(|policy| (policy.version(), policy.text().to_owned())).collect();
    let keep = move |tx: &mut Tx<'_>| configured.iter().try_for_each(|(version, text)| tx.put_policy(version, text));
    parts.store.run("keep_policies", keep).await?;
    let mut kept = BTreeMap::new();
    for (version, text) in parts.store.read(|view| view.policies())? {
        // The hash says that it is the text that was kept; if this build cannot read it, it must not judge by another.
        let policy = Policy::parse(&text).ok().filter(|policy| policy.version() == version);
        kept.insert(version.0, policy.ok_or(Error::Tampered { table: "policy" })?);
    }
    Ok(kept)
}
