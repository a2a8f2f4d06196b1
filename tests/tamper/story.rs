//! A small shop's story, told to a vault in this process: at its end the database holds every kind of row, most of them
//! several times. The same steps, asked again, are replays.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use strongroom::audit::entry::{Action, Entry, RefusalCode, RequestId};
use strongroom::crypto::entropy::{OsEntropy, SeededEntropy};
use strongroom::crypto::keyring::Keyring;
use strongroom::crypto::root::RootKey;
use strongroom::domain::caller::{Caller, CallerId, CallerKeys, CertificateHash, Role, SpkiHash};
use strongroom::domain::field::{
    Address, CaseReference, CustomerReference, Email, FieldValue, IdempotencyKey, Name, PaymentAccount, Phone,
    RawAddress, Serial,
};
use strongroom::domain::id::{ApprovalId, GrantId, Revision};
use strongroom::domain::time::{Clock, DAY, SimulatedClock, Timestamp};
use strongroom::domain::token::Token;
use strongroom::domain::vocabulary::{Class, EraseReason, EventKind, HoldKind};
use strongroom::policy::enrolment::{PINNED, Pins};
use strongroom::policy::retention::Policy;
use strongroom::store::{Store, StoreError, StorePaths, Tx};
use strongroom::vault::{
    Call, ConfirmDelivery, Correct, Erase, EraseSubject, Error, Gated, GrantShipment, KeySettings, LogKeeping, Named,
    OnTheMachine, Parts, PlaceHold, ReportEvent, ResumeCaller, RevokeShipment, RootStatus, SubjectNews, SuspendCaller,
    Tokenize, Vault, Which, Word, enrol_on_the_machine,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// 2025-12-28T00:00:00Z: what is desensitized in the story is so in February, and the story ends in March.
const START: Timestamp = Timestamp(1_766_880_000_000_000);

pub const SHOP: &str = "tenant/kitchenware/shop/backend";
pub const OTHER_SHOP: &str = "tenant/garden/shop/backend";
pub const SWIFT: &str = "tenant/kitchenware/carrier/swift";
pub const ADMIN: &str = "tenant/kitchenware/key-admin/office";
pub const OPERATOR: &str = "tenant/kitchenware/operator/oncall";
pub const OFFICER: &str = "tenant/kitchenware/privacy-officer/office";
pub const PARCELO: &str = "tenant/kitchenware/carrier/parcelo";

/// One thing that someone asks of the vault. Its `Debug` form is its idempotency key.
#[derive(Clone, Debug)]
pub enum Step {
    /// Record, customer, country.
    Order(&'static str, &'static str, &'static str),
    Account(&'static str, &'static str),
    /// The same shop system, another tenant.
    Elsewhere(&'static str, &'static str),
    /// Record, serial, read limit.
    Grant(&'static str, &'static str, u32),
    Revoke(&'static str),
    Confirm(&'static str),
    Read(&'static str),
    Event(&'static str, EventKind, u32),
    Correct(&'static str),
    Erase(&'static str, EraseReason),
    /// All of the record's subject.
    Leave(&'static str),
    /// Record, kind.
    Hold(&'static str, HoldKind),
    /// Days pass; what is due goes.
    Later(i64),
}

use Step::{Account, Confirm, Elsewhere, Erase as Forget, Event, Grant, Hold, Later, Leave, Order, Read, Revoke};

/// Two records or more of every kind. Serials that start with PA are parcelo's, all others swift's.
pub const STORY: &[Step] = &[
    Order("counted-1", "kim", "DE"),
    Order("counted-2", "lee", "FR"),
    Order("due-1", "mia", "DE"),
    Order("due-2", "noa", "FR"),
    Event("counted-1", EventKind::Delivered, 0),
    Event("counted-2", EventKind::Delivered, 0),
    Later(2),
    Event("due-1", EventKind::Delivered, 0),
    Event("due-2", EventKind::Delivered, 0),
    Later(59),
    Order("plain-1", "anna", "DE"),
    Order("plain-2", "anna", "FR"),
    Account("account", "anna"),
    Account("account-2", "carl"),
    Elsewhere("elsewhere-1", "anna"),
    Elsewhere("elsewhere-2", "bert"),
    Order("granted-1", "carl", "DE"),
    Order("granted-2", "dora", "FR"),
    Grant("granted-1", "SW-0001", 9),
    Grant("granted-1", "PA-0002", 9),
    Grant("granted-2", "SW-0003", 1),
    Read("SW-0001"),
    Read("SW-0003"),
    Order("told-1", "emil", "DE"),
    Order("told-2", "fred", "DE"),
    Event("told-1", EventKind::Dispatched, 0),
    Event("told-1", EventKind::Delivered, 0),
    Event("told-2", EventKind::Delivered, 0),
    Event("told-2", EventKind::RefundOpened, 0),
    Order("corrected-1", "gina", "DE"),
    Order("corrected-2", "hans", "DE"),
    Step::Correct("corrected-1"),
    Step::Correct("corrected-2"),
    Order("erased-1", "ida", "DE"),
    Order("erased-2", "jan", "DE"),
    Grant("erased-1", "SW-0004", 9),
    Forget("erased-1", EraseReason::SubjectRequest),
    Forget("erased-2", EraseReason::Minor),
    Order("ended-1", "olga", "DE"),
    Order("ended-2", "paul", "DE"),
    Grant("ended-1", "SW-0005", 9),
    Grant("ended-2", "PA-0006", 9),
    Confirm("SW-0005"),
    Revoke("PA-0006"),
    Order("held-1", "rosa", "DE"),
    Order("held-2", "sven", "DE"),
    Hold("held-1", HoldKind::Court),
    Hold("held-2", HoldKind::Dispute),
    // Something stays of each, as a refund is open.
    Order("leaving-1", "tom", "DE"),
    Order("leaving-2", "uwe", "DE"),
    Order("left-1", "tom", "DE"),
    Order("left-2", "uwe", "DE"),
    Event("leaving-1", EventKind::RefundOpened, 0),
    Event("leaving-2", EventKind::RefundOpened, 0),
    Leave("leaving-1"),
    Leave("leaving-2"),
];

/// A step that was done: when, and what it has led to.
pub struct Done {
    pub step: Step,
    pub at: Timestamp,
}

/// What the shop remembers.
#[derive(Default)]
pub struct Known {
    tokens: BTreeMap<&'static str, (&'static str, [u8; 20])>,
    grants: BTreeMap<&'static str, GrantId>,
}

impl Known {
    /// Every record with the shop that keeps it.
    pub fn records(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.tokens.iter().map(|(record, (shop, _))| (*record, *shop))
    }

    pub fn serials(&self) -> impl Iterator<Item = &'static str> {
        self.grants.keys().copied()
    }

    pub fn token(&self, record: &str) -> Token {
        Token::from_bytes(self.tokens[record].1)
    }
}

/// The whole story, at rest.
pub struct Story {
    folder: TempDir,
    pub keyring: Arc<Keyring>,
    pub known: Known,
    /// What waited for a second person: one request approved, one rejected, one open.
    pub approvals: Vec<ApprovalId>,
    pub done: Vec<Done>,
    pub end: Timestamp,
}

/// A copy of the story's files, to spoil.
pub struct Copy {
    _folder: TempDir,
    pub paths: StorePaths,
}

pub fn paths_in(folder: &Path) -> StorePaths {
    StorePaths { database: folder.join("vault.db"), ledger: folder.join("erasures.jsonl") }
}

/// In memory where there is such a file system: thousands of copies are made.
pub fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub fn new_keyring() -> Arc<Keyring> {
    Arc::new(Keyring::create(&RootKey::generate(&OsEntropy), START, &OsEntropy))
}

/// Grows the log until whole subtrees of it are stored, and signs two heads.
async fn signed(vault: &Vault) {
    vault.sign_now().await.unwrap();
    vault.refused(&call(SHOP, 0), Action::Status, RefusalCode::Limit).await.unwrap();
    let entries = vault.store().read(|view| view.leaves(0, 0..1)).unwrap();
    let one = Entry::from_bytes(&entries[0]).unwrap();
    let write = move |tx: &mut Tx<'_>| {
        (0..200).for_each(|_| tx.log(one.clone()));
        Ok(())
    };
    vault.store().run("grow", write).await.unwrap();
    vault.sign_now().await.unwrap();
}

impl Story {
    pub fn tell() -> Self {
        Self::tell_steps(STORY)
    }

    pub fn tell_steps(steps: &[Step]) -> Self {
        let folder = folder();
        let (keyring, clock) = (new_keyring(), SimulatedClock::starting_at(START));
        let mut story =
            Self { folder, keyring, known: Known::default(), approvals: Vec::new(), done: Vec::new(), end: START };
        let runtime = runtime();
        let vault = story.open(&runtime, &story.paths(), &clock).unwrap();
        let people = [ADMIN, OPERATOR, SWIFT, PARCELO].map(enrolled).into();
        enrol_on_the_machine(vault.store(), people, numbered(1), START).unwrap();
        runtime.block_on(async {
            story.approvals = approvals(&vault).await;
            for step in steps {
                story.go_on(&vault, &clock, step).await;
            }
            clock.advance(2 * DAY);
            vault.confirm_clock(&call("tenant/kitchenware/operator/oncall", 0), clock.now()).await.unwrap();
            signed(&vault).await;
        });
        drop(vault);
        story.end = clock.now();
        settle(&story.paths().database);
        story
    }

    async fn go_on(&mut self, vault: &Vault, clock: &SimulatedClock, step: &Step) {
        if let Later(days) = step {
            clock.advance(days * DAY);
            while vault.sweep().await.unwrap().more {}
            return;
        }
        let at = clock.now();
        let shop = shop_of(step);
        match self.ask(vault, step, at, 1).await.unwrap() {
            Answer::Token(token) => drop(self.known.tokens.insert(named(step), (shop, token))),
            Answer::Grant(grant) => {
                let Grant(_, serial, _) = step else { panic!("only a grant answers a grant") };
                self.known.grants.insert(serial, grant);
            }
            Answer::Text(_) => {}
        }
        self.done.push(Done { step: step.clone(), at });
    }

    pub fn paths(&self) -> StorePaths {
        paths_in(self.folder.path())
    }

    pub fn copy(&self) -> Copy {
        let folder = folder();
        let (from, to) = (self.paths(), paths_in(folder.path()));
        std::fs::copy(from.database, &to.database).unwrap();
        std::fs::copy(from.ledger, &to.ledger).unwrap();
        Copy { _folder: folder, paths: to }
    }

    pub fn store(&self, paths: &StorePaths) -> Result<Store, StoreError> {
        Store::open(paths, Arc::clone(&self.keyring), Arc::new(SimulatedClock::starting_at(self.end)))
    }

    /// Opens a vault on the files; the reason in words when it refuses.
    pub fn open(&self, runtime: &Runtime, paths: &StorePaths, clock: &SimulatedClock) -> Result<Vault, String> {
        let clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let store = Store::open(paths, Arc::clone(&self.keyring), Arc::clone(&clock)).map_err(|e| e.to_string())?;
        let policy = Policy::parse(Policy::KITCHENWARE).unwrap();
        let tenants = ["kitchenware", "garden"];
        let parts = Parts {
            store,
            policies: tenants.map(|tenant| (tenant.parse().unwrap(), policy.clone())).into(),
            serial_patterns: BTreeMap::new(),
            clock,
            entropy: Arc::new(SeededEntropy::new(7)),
            root: RootStatus::default(),
            limits: strongroom::policy::limits::Limits::default(),
            keys: KeySettings::default(),
            log: LogKeeping { name: "story".parse().unwrap(), keep_years: 3 },
            backups: None,
            webhooks: Vec::new(),
        };
        runtime.block_on(Vault::open(parts)).map_err(|error| error.to_string())
    }

    /// Opens a vault at the story's end.
    pub fn reopen(&self, runtime: &Runtime, paths: &StorePaths) -> Result<Vault, String> {
        self.open(runtime, paths, &SimulatedClock::starting_at(self.end))
    }

    /// Asks for a step that was (or would have been) taken at `at`; `request` is the number it goes by in the log.
    pub async fn ask(&self, vault: &Vault, step: &Step, at: Timestamp, request: u64) -> Result<Answer, Error> {
        let key = IdempotencyKey::parse("key", format!("{step:?}")).unwrap();
        let done = || Answer::Text("done".to_owned());
        match step {
            Order(_, customer, _) | Account(_, customer) | Elsewhere(_, customer) => {
                let (class, fields) = collected(step);
                let subject = CustomerReference::parse("subject", format!("{customer}@shop.example")).unwrap();
                let ask = Tokenize { key, subject, class, fields };
                let token = vault.tokenize(&call(shop_of(step), request), &ask).await?;
                Ok(Answer::Token(*token.as_bytes()))
            }
            Grant(record, serial, read_limit) => {
                let ask = GrantShipment {
                    key,
                    token: self.known.token(record),
                    serial: parse_serial(serial),
                    carrier: carrier_of(serial).rsplit('/').next().unwrap().parse().unwrap(),
                    not_before: at,
                    not_after: at.plus(30 * DAY),
                    read_limit: *read_limit,
                    parcel: 0,
                };
                Ok(Answer::Grant(vault.grant_shipment(&call(SHOP, request), &ask).await?))
            }
            Revoke(serial) => {
                let ask = RevokeShipment { key, grant: self.known.grants[serial] };
                vault.revoke_shipment(&call(SHOP, request), &ask).await.map(|()| done())
            }
            Confirm(serial) => {
                let ask = ConfirmDelivery { key, serial: parse_serial(serial), delivered_at: at };
                vault.confirm_delivery(&call(carrier_of(serial), request), &ask).await.map(|()| done())
            }
            Read(serial) => {
                let got = vault.get_delivery(&call(carrier_of(serial), request), &parse_serial(serial)).await?;
                let address = FieldValue::Address(got.address).to_bytes();
                let parts = [String::from_utf8_lossy(&address), String::from_utf8_lossy(got.serial.expose())];
                Ok(Answer::Text(parts.join(" ")))
            }
            Event(record, kind, ordinal) => {
                let ask = ReportEvent {
                    key,
                    token: self.known.token(record),
                    kind: *kind,
                    ordinal: *ordinal,
                    occurred_at: at,
                };
                let reported = vault.report_event(&call(SHOP, request), &ask).await?;
                Ok(Answer::Text(format!("due {} {}", reported.due, reported.due_by)))
            }
            Step::Correct(record) => {
                let ask = Correct {
                    key,
                    token: self.known.token(record),
                    if_revision: Revision(1),
                    fields: vec![FieldValue::Email(Email::parse("email", "new@example.org".to_owned()).unwrap())],
                    clear: Vec::new(),
                };
                let revision = vault.correct(&call(SHOP, request), &ask).await?;
                Ok(Answer::Text(format!("revision {revision}")))
            }
            Forget(record, reason) => {
                let ask = Erase { key, token: self.known.token(record), reason: *reason };
                vault.erase(&call(SHOP, request), &ask).await.map(|_| done())
            }
            Leave(record) => {
                let (which, reason) = (Which::SubjectOf(self.known.token(record)), EraseReason::Cancellation);
                let officer = call(OFFICER, request);
                let mut leaving = vault.erase_subject(&officer, &EraseSubject { key, which, reason }).await?;
                let (mut receipts, mut kept) = (0, 0);
                loop {
                    let news = vault.go_on(&officer, &mut leaving).await?;
                    if news.is_empty() {
                        return Ok(Answer::Text(format!("{receipts} receipts, {kept} kept")));
                    }
                    receipts += news.iter().filter(|one| matches!(one, SubjectNews::Receipt(_))).count();
                    kept += news.iter().filter(|one| matches!(one, SubjectNews::Kept(_))).count();
                }
            }
            Hold(record, kind) => {
                let case = CaseReference::parse("case", format!("{record}/26")).unwrap();
                let ask = PlaceHold { key, which: Which::Record(self.known.token(record)), kind: *kind, case };
                vault.place_hold(&call(OFFICER, request), &ask).await.map(|_| done())
            }
            Later(_) => Ok(done()),
        }
    }
}

/// Whom the machine enrols; each has a key of its own, which powerful roles pin.
fn enrolled(path: &'static str) -> OnTheMachine {
    let id: CallerId = path.parse().unwrap();
    let own = PINNED.contains(&id.role).then(|| key(path));
    OnTheMachine { issuer: SpkiHash([9; 32]), pins: Pins::new(id.role, own.into_iter().collect()).unwrap(), id }
}

fn key(path: &str) -> SpkiHash {
    SpkiHash([u8::try_from(path.len()).unwrap(); 32])
}

/// Two carriers suspended, and three requests to let them back in.
async fn approvals(vault: &Vault) -> Vec<ApprovalId> {
    let by = |path: &str, request| {
        let Call { caller, request } = call(path, request);
        Call { caller: caller.with_keys(CallerKeys { own: key(path), issuer: SpkiHash([9; 32]) }), request }
    };
    let mut waited = Vec::new();
    for (number, (name, word)) in
        [("swift", Some(Word::No)), ("swift", Some(Word::Yes)), ("parcelo", None)].into_iter().enumerate()
    {
        let caller = || Named { role: Role::Carrier, name: name.parse().unwrap() };
        let admin = by(ADMIN, 10 + u64::try_from(number).unwrap());
        vault.suspend_caller(&admin, &SuspendCaller { caller: caller(), certificate: None }).await.unwrap();
        let asked = vault.resume_caller(&admin, &ResumeCaller { caller: caller(), certificate: None }).await.unwrap();
        let Gated::Pending(pending) = asked else { panic!("one person was enough") };
        if let Some(word) = word {
            vault.decide(&by(OPERATOR, 20), pending.id, word).await.unwrap();
        }
        waited.push(pending.id);
    }
    waited
}

pub enum Answer {
    Token([u8; 20]),
    Grant(GrantId),
    Text(String),
}

/// Whoever has the path, in a request that goes by the number.
pub fn call(path: &str, request: u64) -> Call {
    let caller =
        Caller::from_uri(&format!("spiffe://shop.test/{path}"), "shop.test", CertificateHash([7; 32])).unwrap();
    Call { caller, request: numbered(request) }
}

pub fn numbered(request: u64) -> RequestId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&request.to_be_bytes());
    RequestId(id)
}

/// The record a step makes.
pub fn named(step: &Step) -> &'static str {
    match step {
        Order(record, ..) | Account(record, _) | Elsewhere(record, _) => record,
        _ => panic!("{step:?} makes no record"),
    }
}

fn shop_of(step: &Step) -> &'static str {
    if matches!(step, Elsewhere(..)) { OTHER_SHOP } else { SHOP }
}

pub fn carrier_of(serial: &str) -> &'static str {
    if serial.starts_with("PA") { PARCELO } else { SWIFT }
}

pub fn parse_serial(serial: &str) -> Serial {
    Serial::parse("serial", serial.to_owned(), None).unwrap()
}

/// The fields of a record, told apart from every other's.
fn collected(step: &Step) -> (Class, Vec<FieldValue>) {
    let name = |record: &str| Name::parse("name", format!("Wilhelmina {record}")).unwrap();
    let email = |record: &str| FieldValue::Email(Email::parse("email", format!("{record}@example.org")).unwrap());
    match step {
        Order(record, _, country) => {
            let address = RawAddress {
                lines: vec![format!("Kastanienallee, {record}")],
                locality: "Berlin".to_owned(),
                region: String::new(),
                postal_code: "10435".to_owned(),
                country: (*country).to_owned(),
            };
            let mut fields = vec![
                FieldValue::RecipientName(name(record)),
                FieldValue::Address(Address::parse("address", address).unwrap()),
            ];
            // Only some are whole: what holds for a field of one record holds for another's.
            if record.starts_with("plain") || record.starts_with("corrected") {
                let account = format!("pay-{record}");
                fields.push(FieldValue::Phone(Phone::parse("phone", "+49 30 901820".to_owned()).unwrap()));
                fields.push(email(record));
                fields.push(FieldValue::PaymentAccount(PaymentAccount::parse("account", account).unwrap()));
            }
            (Class::Order, fields)
        }
        Elsewhere(record, _) => (Class::Order, vec![FieldValue::RecipientName(name(record))]),
        Account(record, _) => (Class::Account, vec![FieldValue::AccountName(name(record)), email(record)]),
        _ => panic!("{step:?} collects nothing"),
    }
}

/// Brings all of the write-ahead log into the database, so that one file is a copy.
pub fn settle(database: &Path) {
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}
