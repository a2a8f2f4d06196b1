//! An officer's questions beside a bare scan of the same rows. INVARIANT: every entry of the log was written by the vault's own
//! writer, and every subject's tag made by the vault: whom a caller saw is read for real, once a subject and day; the rest of the
//! log repeats those entries. A ratio is of neighbours of one round.
//!
//! `cargo bench --bench inquiry` prints markdown; `-- 1` makes commits of one entry instead of 32. With `STRONGROOM_FULL=1` the log
//! has ten million entries.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench that cannot go on has nothing to print")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use strongroom::audit::entry::{Action, Entry, RequestId};
use strongroom::audit::verify::{Batch, unpack};
use strongroom::cli::dev::{self, TENANT, TRUST_DOMAIN};
use strongroom::cli::serve::Running;
use strongroom::crypto::entropy::OsEntropy;
use strongroom::domain::caller::{Caller, CertificateHash, Role};
use strongroom::domain::field::{CustomerReference, FieldValue, IdempotencyKey, Phone};
use strongroom::domain::time::{Clock, DAY, SimulatedClock, SystemClock, Timestamp};
use strongroom::domain::token::Token;
use strongroom::domain::vocabulary::{Class, Field, Purpose};
use strongroom::vault::{Answer, Call, Detokenize, Named, Part, Period, Refusals, Seen, SeenBy, Tokenize, Vault};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const START: Timestamp = Timestamp(1_767_571_200_000_000);
const ROUNDS: usize = 3;
const PAGE: usize = 256;

struct Size {
    subjects: usize,
    days: usize,
    entries: usize,
    a_commit: usize,
}

impl Size {
    fn chosen() -> Self {
        let a_commit = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(32);
        if std::env::var_os("STRONGROOM_FULL").is_some_and(|full| full == "1") {
            Self { subjects: 50_000, days: 20, entries: 10_000_000, a_commit }
        } else {
            Self { subjects: 1_000, days: 10, entries: 200_000, a_commit }
        }
    }
}

fn main() {
    let size = Size::chosen();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let free = Some("127.0.0.1:0".parse().unwrap());
    let mut config = dev::prepare(&folder.path().join("data"), free, &SystemClock::new(), &OsEntropy).unwrap();
    config.sweep_interval = Duration::from_secs(86_400);
    let (database, clock) = (config.store.database.clone(), SimulatedClock::starting_at(START));
    let running = Running::start(config, Arc::new(clock.clone())).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bench = Bench { vault: running.vault().unwrap(), runtime, clock };
    let started = Instant::now();
    bench.fill(&size);
    tell(&format!("the log took {:.0} s to write", started.elapsed().as_secs_f64()));
    println!("{}", bench.measured(&size, &database));
    drop(bench);
    running.stop().unwrap();
}

struct Bench {
    vault: Vault,
    runtime: Runtime,
    clock: SimulatedClock,
}

/// What one question took.
struct Took {
    seconds: f64,
    /// What it found, to see that it was at work.
    found: u64,
}

impl Bench {
    /// Subjects, and days on which each of them is seen once and then seen again as entries go.
    fn fill(&self, size: &Size) {
        tell(&format!("storing {} subjects", size.subjects));
        let tokens = self.runtime.block_on(self.store(size.subjects));
        let reader = call(Role::Warehouse, "packing");
        let mut last = 0;
        for day in 1..=size.days {
            for page in tokens.chunks(PAGE) {
                let ask = |token: &Token| Detokenize {
                    token: Token::from_bytes(*token.as_bytes()),
                    fields: vec![Field::Phone, Field::Email],
                    purpose: Purpose::Fulfilment,
                };
                let asks: Vec<_> = page.iter().map(ask).collect();
                self.runtime.block_on(self.vault.batch_detokenize(&reader, &asks)).unwrap();
            }
            let (seen, end) = self.since(last);
            let wanted = size.entries * day / size.days;
            tell(&format!("day {day}: {} subjects seen, the log grows to {wanted} entries", seen.len()));
            let mut repeated = seen.iter().cycle();
            let mut length = end;
            while length < wanted {
                let some: Vec<Entry> = repeated.by_ref().take(size.a_commit.min(wanted - length)).cloned().collect();
                length += some.len();
                let log = move |tx: &mut strongroom::store::Tx<'_>| {
                    some.iter().for_each(|entry| tx.log(entry.clone()));
                    Ok(())
                };
                self.vault.store().run_blocking("bench", log).unwrap();
            }
            last = length;
            self.clock.advance(DAY);
        }
    }

    async fn store(&self, subjects: usize) -> Vec<Token> {
        let shop = call(Role::Shop, "backend");
        let mut tokens = Vec::with_capacity(subjects);
        let numbers: Vec<usize> = (0..subjects).collect();
        for some in numbers.chunks(PAGE) {
            let stored = some.iter().map(|number| {
                let shop = shop.clone();
                async move { self.vault.tokenize(&shop, &customer(*number)).await.unwrap() }
            });
            tokens.extend(futures_util::future::join_all(stored).await);
        }
        tokens
    }

    /// The readings of the log from this entry on, and where it ends.
    fn since(&self, entry: usize) -> (Vec<Entry>, usize) {
        let (mut seen, mut end) = (Vec::new(), entry);
        let mut each = |batch: Batch, _| {
            seen.extend(unpack(&batch.entries).unwrap().into_iter().filter(|one| one.action == Action::Detokenize));
            end = usize::try_from(batch.head.size).unwrap();
            true
        };
        self.vault.store().read(|view| view.audit_batches(entry as u64, usize::MAX >> 1, &mut each)).unwrap();
        (seen, end)
    }

    fn measured(&self, size: &Size, database: &std::path::Path) -> String {
        let raw = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut text = String::new();
        for round in 0..=ROUNDS {
            let rows = scanned(&raw);
            let seen = self.seen_by();
            assert_eq!(seen.found, size.subjects as u64, "every subject is found");
            let whole = self.refusals(START, self.clock.now());
            let day = self.refusals(START.plus(DAY), START.plus(2 * DAY));
            tell(&format!(
                "round {round}: {:.2} {:.2} {:.2} {:.3} s",
                rows.seconds, seen.seconds, whole.seconds, day.seconds
            ));
            // Round 0 fills caches, and learns what times the log's pages speak of.
            if round > 0 {
                for (what, took) in [(RAW, &rows), (SEEN_BY, &seen), (REFUSALS, &whole), (DAYS, &day)] {
                    all.entry(what).or_default().push(took.seconds);
                }
            }
        }
        text += &format!(
            "{} entries, {} a commit, {} living subjects seen on {} days each ({} subject-days); median of {ROUNDS} rounds; {}.\n\n\
             | question | seconds | entries a second | of the bare scan |\n| --- | --- | --- | --- |\n",
            size.entries,
            size.a_commit,
            size.subjects,
            size.days,
            size.subjects * size.days,
            if cfg!(debug_assertions) { "a debug build, which says nothing" } else { "release build" },
        );
        for what in [RAW, SEEN_BY, REFUSALS, DAYS] {
            let (took, bare) = (median(&all[what]), &all[RAW]);
            let ratios: Vec<f64> = bare.iter().zip(&all[what]).map(|(bare, took)| bare / took).collect();
            text += &format!("| {what} | {took:.2} | {:.0} | {:.2}× |\n", size.entries as f64 / took, median(&ratios));
        }
        text
    }

    /// Whom the reader of all saw, ever: the dearest question.
    fn seen_by(&self) -> Took {
        let caller = Named { role: Role::Warehouse, name: "packing".parse().unwrap() };
        let ask = SeenBy { caller, certificate: None, period: Period { since: START, until: self.clock.now() } };
        let officer = call(Role::PrivacyOfficer, "office");
        self.timed(async {
            let mut found = 0;
            let answer = self.vault.seen_by(&officer, &ask).await.unwrap();
            read(answer, |row| found += u64::from(matches!(row, Seen::Subject(_)))).await;
            found
        })
    }

    fn refusals(&self, since: Timestamp, until: Timestamp) -> Took {
        let officer = call(Role::PrivacyOfficer, "office");
        self.timed(async {
            let mut found = 0;
            let ask = Refusals { period: Period { since, until } };
            read(self.vault.refusals(&officer, &ask).await.unwrap(), |_| found += 1).await;
            found
        })
    }

    fn timed(&self, question: impl Future<Output = u64>) -> Took {
        let started = Instant::now();
        let found = self.runtime.block_on(question);
        Took { seconds: started.elapsed().as_secs_f64(), found }
    }
}

const RAW: &str = "the bare rows, every byte of their entries";
const SEEN_BY: &str = "seen-by, of the caller who saw all";
const REFUSALS: &str = "refusals of all days";
const DAYS: &str = "refusals of one day, asked again";

async fn read<T>(mut answer: Answer<T>, mut each: impl FnMut(T)) {
    while let Some(part) = answer.recv().await {
        match part.unwrap() {
            Part::Read(_) => {}
            Part::Rows(rows) => rows.into_iter().for_each(&mut each),
        }
    }
}

fn scanned(connection: &Connection) -> Took {
    let started = Instant::now();
    let mut statement = connection.prepare("SELECT first, entries FROM audit_batch ORDER BY first").unwrap();
    let mut rows = statement.query([]).unwrap();
    let (mut sum, mut found) = (0_u64, 0);
    while let Some(row) = rows.next().unwrap() {
        let bytes = row.get_ref(1).unwrap().as_blob().unwrap();
        sum = bytes.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
        found += 1;
    }
    assert!(sum > 0);
    Took { seconds: started.elapsed().as_secs_f64(), found }
}

fn call(role: Role, name: &str) -> Call {
    let uri = format!("spiffe://{TRUST_DOMAIN}/tenant/{TENANT}/{}/{name}", role.as_str());
    let caller = Caller::from_uri(&uri, TRUST_DOMAIN, CertificateHash([7; 32])).unwrap();
    Call { caller, request: RequestId([1; 16]) }
}

fn customer(number: usize) -> Tokenize {
    let subject = format!("customer-{number}");
    Tokenize {
        key: IdempotencyKey::parse("idempotency_key", subject.clone()).unwrap(),
        subject: CustomerReference::parse("subject", subject).unwrap(),
        class: Class::Order,
        fields: vec![FieldValue::Phone(Phone::parse("phone", "+49 30 23125042".to_owned()).unwrap())],
    }
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Progress, beside the report.
fn tell(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}
