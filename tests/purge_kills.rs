//! Destruction, killed between every two of its steps: what was reported destroyed is never readable again, what is readable was
//! not reported, what is destroyed is in the webhooks' outbox once and nothing else is, and after a restart everything is finished
//! in seconds.
//!
//! A process of its own (this very test binary) destroys records by every road: asked for one by one, a whole subject, and by
//! the timer; it says what it was answered. It is killed at random instants, and, in builds that can be told to, ends itself at
//! every point between two steps: before, in and after the write of the ledger, amid the deletions, before and after the
//! commit, before and after the truncation of the write-ahead log. Then the vault is opened again, and everything is asked.
//!
//! `STRONGROOM_FULL=1` kills 1,000 times; `STRONGROOM_SEED=<printed seed>` repeats the random instants. An erasure that is
//! answered before its commit turns the test red: `planted_early_answers_are_noticed`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "tamper/story.rs"]
#[expect(dead_code, reason = "the story of the tamper suite has more than is needed here")]
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use story::{OFFICER, SHOP, call, paths_in};
use strongroom::crypto::entropy::{OsEntropy, SeededEntropy, array};
use strongroom::crypto::keyring::Keyring;
use strongroom::crypto::root::RootKey;
use strongroom::domain::field::{CustomerReference, FieldValue, IdempotencyKey, Name, Phone};
use strongroom::domain::time::{Clock, DAY, SimulatedClock, SystemClock, Timestamp};
use strongroom::domain::token::Token;
use strongroom::domain::vocabulary::{Class, EraseReason, EventKind, Field, Outcome, Purpose};
use strongroom::policy::limits::Limits;
use strongroom::policy::retention::Policy;
use strongroom::policy::webhook::Subscription;
use strongroom::store::Store;
use strongroom::vault::{
    Description, Detokenize, Erase, EraseSubject, Error, KeySettings, LogKeeping, Parts, ReportEvent, RootStatus,
    SubjectNews, Tokenize, Vault, Which,
};
use tempfile::TempDir;

const START: Timestamp = Timestamp(1_767_571_200_000_000);
/// When the child does its work: what was signed for at the start is due.
const NOW: Timestamp = Timestamp(START.0 + 61 * DAY);
/// Told to the child: where the vault is, and that it is the child.
const FOLDER: &str = "STRONGROOM_PURGE_FOLDER";
const FAULT: &str = "STRONGROOM_PLANTED_FAULT";

/// Records of each road.
const EACH: usize = 6;
/// The leaving subject's: more than one chunk.
const LEAVING: usize = 25;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Road {
    Asked,
    Leaving,
    Due,
    /// Destroyed by nobody.
    Kept,
}

/// A vault with records for every road, at rest.
struct Before {
    folder: TempDir,
    tokens: BTreeMap<Road, Vec<[u8; 20]>>,
}

fn keyring() -> Arc<Keyring> {
    // The same in parent and child: it is no secret here.
    let entropy = SeededEntropy::new(11);
    Arc::new(Keyring::create(&RootKey::generate(&entropy), START, &entropy))
}

fn open(folder: &Path, now: Timestamp) -> Vault {
    let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::starting_at(now));
    let store = Store::open(&paths_in(folder), keyring(), Arc::clone(&clock)).unwrap();
    let policy = Policy::parse(Policy::KITCHENWARE).unwrap();
    let (name, tenant) = ("shop".parse().unwrap(), "kitchenware".parse().unwrap());
    let hook = Subscription { name, tenant, erased: true, due_soon: None };
    let parts = Parts {
        store,
        policies: [("kitchenware".parse().unwrap(), policy)].into(),
        serial_patterns: BTreeMap::new(),
        clock,
        entropy: Arc::new(OsEntropy),
        root: RootStatus::default(),
        limits: Limits::default(),
        keys: KeySettings::default(),
        log: LogKeeping { name: "kills".parse().unwrap(), keep_years: 3 },
        backups: None,
        webhooks: vec![hook],
    };
    run(Vault::open(parts)).unwrap()
}

/// The machine's clock since it was started.
fn boot() -> Duration {
    Duration::from_micros(u64::try_from(SystemClock::new().boot()).unwrap())
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse("key", text.to_owned()).unwrap()
}

impl Before {
    fn new() -> Self {
        let folder = story::folder();
        let vault = open(folder.path(), START);
        let mut tokens: BTreeMap<Road, Vec<[u8; 20]>> = BTreeMap::new();
        let roads = [(Road::Asked, EACH), (Road::Leaving, LEAVING), (Road::Due, EACH), (Road::Kept, EACH)];
        run(async {
            for (road, count) in roads {
                for n in 0..count {
                    let subject = if road == Road::Leaving { "anna".to_owned() } else { format!("{road:?}-{n}") };
                    let ask = Tokenize {
                        key: key(&format!("{road:?}-{n}")),
                        subject: CustomerReference::parse("subject", subject).unwrap(),
                        class: Class::Order,
                        fields: vec![
                            FieldValue::RecipientName(Name::parse("name", "Wilhelmina Ottokar".to_owned()).unwrap()),
                            FieldValue::Phone(Phone::parse("phone", "+49 30 901820".to_owned()).unwrap()),
                        ],
                    };
                    let token = vault.tokenize(&call(SHOP, 1), &ask).await.unwrap();
                    if road == Road::Due {
                        let ask = ReportEvent {
                            key: key(&format!("signed-{n}")),
                            token: Token::from_bytes(*token.as_bytes()),
                            kind: EventKind::Delivered,
                            ordinal: 0,
                            occurred_at: START,
                        };
                        vault.report_event(&call(SHOP, 1), &ask).await.unwrap();
                    }
                    tokens.entry(road).or_default().push(*token.as_bytes());
                }
            }
            // The mark goes with the clock, as it would have on a machine that ran through.
        });
        drop(vault);
        let lines: String = tokens[&Road::Asked].iter().map(|token| format!("{}\n", hex::encode(token))).collect();
        std::fs::write(folder.path().join("asked"), lines).unwrap();
        Self { folder, tokens }
    }

    fn copy(&self) -> TempDir {
        let copy = story::folder();
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, copy.path().join(from.file_name().unwrap())).unwrap();
        }
        copy
    }
}

/// The child: destroys by every road, and says what it was answered, a line each, at once.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let say = |line: &str| {
        let mut out = std::io::stdout().lock();
        // Beside the harness's own lines, which do not start so.
        writeln!(out, "\nsaid {line}").unwrap();
        out.flush().unwrap();
    };
    let asked = std::fs::read_to_string(folder.join("asked")).unwrap();
    let vault = open(&folder, NOW);
    run(async {
        vault.confirm_clock(&call("tenant/kitchenware/operator/oncall", 1), NOW).await.unwrap();
        say("ready");
        for (n, line) in asked.lines().enumerate() {
            let token = Token::from_bytes(hex::decode(line).unwrap().try_into().unwrap());
            let ask = Erase { key: key(&format!("erase-{n}")), token, reason: EraseReason::SubjectRequest };
            vault.erase(&call(SHOP, 2), &ask).await.unwrap();
            say(&format!("asked {n}"));
            if n == 1 {
                let which = Which::Subject(CustomerReference::parse("subject", "anna".to_owned()).unwrap());
                let ask = EraseSubject { key: key("leave"), which, reason: EraseReason::Cancellation };
                let mut erasure = vault.erase_subject(&call(OFFICER, 3), &ask).await.unwrap();
                say("begun");
                loop {
                    let news = vault.go_on(&call(OFFICER, 3), &mut erasure).await.unwrap();
                    if news.is_empty() {
                        break;
                    }
                    for one in news {
                        if let SubjectNews::Receipt(receipt) = one {
                            say(&format!("left {}", receipt.lines().nth(1).unwrap().trim_start_matches("record ")));
                        }
                    }
                }
                say("over");
            }
            if n == 3 {
                while vault.sweep().await.unwrap().more {}
                say("swept");
            }
        }
    });
    say("done");
}

/// How the child is brought to its end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// At this instant after it was ready.
    Killed(Duration),
    /// By itself, at a planted point, when it passes there for that time.
    #[cfg_attr(not(feature = "planted"), expect(dead_code, reason = "only builds with planted faults have the points"))]
    At(&'static str, usize),
}

/// What the child said before it ended, and whether it had done all.
fn said(folder: &Path, end: End) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads", "1"]).env(FOLDER, folder).env_remove(FAULT);
    if let End::At(point, passing) = end {
        command.env(FAULT, point).env("STRONGROOM_PLANTED_PASSING", passing.to_string());
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    let mut killer = None;
    for line in lines.map_while(Result::ok) {
        let Some(line) = line.strip_prefix("said ") else { continue };
        said.push(line.to_owned());
        if let (End::Killed(after), "ready") = (end, line) {
            let pid = rustix::process::Pid::from_child(&child);
            let (over, is_over) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                // Its output ended, so that it has: nobody is left to kill.
                if is_over.recv_timeout(after) == Err(RecvTimeoutError::Timeout) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            });
            killer = Some((over, thread));
        }
    }
    if let Some((over, thread)) = killer {
        drop(over);
        thread.join().unwrap();
    }
    child.wait().unwrap();
    said
}

/// Whether a record can be read, or is reported destroyed; never both, never neither unless it is only due.
fn states(vault: &Vault, token: &[u8; 20]) -> (bool, bool) {
    let token = || Token::from_bytes(*token);
    let fields = vec![Field::RecipientName, Field::Phone];
    let ask = Detokenize { token: token(), fields, purpose: Purpose::Fulfilment };
    let read = run(vault.detokenize(&call(SHOP, 4), &ask)).unwrap();
    let readable = read.fields.iter().filter(|field| field.outcome == Outcome::Granted).count();
    assert!(readable == 0 || readable == 2, "half of it is readable");
    let erased = matches!(run(vault.describe(&call(SHOP, 5), &token())).unwrap(), Description::Erased(_));
    let receipt = run(vault.receipt_of(&call(SHOP, 6), &token()));
    assert_eq!(receipt.is_ok(), erased, "a receipt exists exactly when the erasure does");
    assert!(erased || matches!(receipt, Err(Error::NotErased)));
    let digest = token().digest(&"kitchenware".parse().unwrap());
    let outbox = vault.store().read(|view| view.announcements(&"shop".parse().unwrap(), 1_000)).unwrap();
    let announced = outbox.into_iter().filter(|(_, row)| row.as_ref().unwrap().said.record == digest).count();
    assert_eq!(announced, usize::from(erased), "it is announced exactly when it is erased");
    (readable == 2, erased)
}

/// Opens the vault again after the child's end, and holds what it answers against what the child said.
fn check(before: &Before, folder: &Path, said: &[String]) -> Result<Duration, String> {
    let restarted = boot();
    let vault = open(folder, NOW);
    // What was reported, before anything else has had a chance to finish it.
    let reported: BTreeSet<&str> = said.iter().map(String::as_str).collect();
    let digest = |token: &[u8; 20]| hex::encode(Token::from_bytes(*token).digest(&"kitchenware".parse().unwrap()).0);
    // A subject's leaving may be durable without an answer: of its records all are readable then, or none.
    let first = before.tokens[&Road::Leaving].first().unwrap();
    let leaves = reported.contains("begun") || !states(&vault, first).0;
    for (road, tokens) in &before.tokens {
        for (n, token) in tokens.iter().enumerate() {
            let (readable, erased) = states(&vault, token);
            let is_reported = match road {
                Road::Asked => reported.contains(format!("asked {n}").as_str()),
                Road::Leaving => reported.contains(format!("left {}", digest(token)).as_str()),
                Road::Due => reported.contains("swept"),
                Road::Kept => false,
            };
            if readable && erased {
                return Err(format!("{road:?} {n} is readable and destroyed"));
            }
            if is_reported && !erased {
                return Err(format!("{road:?} {n} was reported destroyed, and is not"));
            }
            let unreadable = match road {
                Road::Due => true,
                Road::Leaving => leaves,
                Road::Asked | Road::Kept => erased,
            };
            if readable == unreadable {
                return Err(format!("{road:?} {n}: readable {readable}, destroyed {erased}"));
            }
        }
    }
    // The vault finishes by itself what is its own; what a caller was not answered it asks again.
    run(async {
        vault.confirm_clock(&call("tenant/kitchenware/operator/oncall", 7), NOW).await.unwrap();
        while vault.sweep().await.unwrap().more {}
        for (n, token) in before.tokens[&Road::Asked].iter().enumerate() {
            let token = Token::from_bytes(*token);
            let ask = Erase { key: key(&format!("erase-{n}")), token, reason: EraseReason::SubjectRequest };
            vault.erase(&call(SHOP, 8), &ask).await.unwrap();
        }
        if !reported.contains("begun") {
            let which = Which::Subject(CustomerReference::parse("subject", "anna".to_owned()).unwrap());
            let ask = EraseSubject { key: key("leave"), which, reason: EraseReason::Cancellation };
            match vault.erase_subject(&call(OFFICER, 9), &ask).await {
                Ok(mut erasure) => while !vault.go_on(&call(OFFICER, 9), &mut erasure).await.unwrap().is_empty() {},
                Err(error) => panic!("{error}"),
            }
        }
    });
    let finished = boot() - restarted;
    for (road, tokens) in &before.tokens {
        for (n, token) in tokens.iter().enumerate() {
            let expected = if *road == Road::Kept { (true, false) } else { (false, true) };
            if states(&vault, token) != expected {
                return Err(format!("{road:?} {n} is not finished"));
            }
        }
    }
    drop(vault);
    // Of the destroyed nothing is left, in whatever file.
    let connection = rusqlite::Connection::open(paths_in(folder).database).unwrap();
    let rows = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let left =
        (rows("SELECT COUNT(*) FROM record"), rows("SELECT COUNT(*) FROM dek"), rows("SELECT COUNT(*) FROM subject"));
    let kept = i64::try_from(EACH).unwrap();
    if left == (kept, 2 * kept, kept) { Ok(finished) } else { Err(format!("left over: {left:?}")) }
}

/// So many kills; an end that the child came before is none.
fn trials(before: &Before, count: usize, mut ends: impl Iterator<Item = End>) -> Result<(), String> {
    let (mut kills, mut by_point, mut slowest, mut answers) = (0, BTreeMap::<String, usize>::new(), Duration::ZERO, 0);
    while kills < count
        && let Some(end) = ends.next()
    {
        let folder = before.copy();
        let said = said(folder.path(), end);
        if !said.iter().any(|line| line == "done") {
            kills += 1;
            let name = if let End::At(point, _) = end { point } else { "an instant" };
            *by_point.entry(name.to_owned()).or_default() += 1;
        }
        answers += said.len();
        let finished =
            check(before, folder.path(), &said).map_err(|what| format!("{end:?}: {what}; it said {said:?}"))?;
        slowest = slowest.max(finished);
    }
    println!(
        "{kills} kills {by_point:?}; {answers} lines said before; the slowest restart was finished after {slowest:?}"
    );
    assert_eq!(kills, count);
    if slowest > Duration::from_secs(10) { Err(format!("finished only after {slowest:?}")) } else { Ok(()) }
}

/// How many kills; a quarter of them at random instants where there are points.
fn kills() -> usize {
    if std::env::var_os("STRONGROOM_FULL").is_some() { 1_000 } else { 80 }
}

fn instants(before: &Before) -> impl Iterator<Item = End> + use<> {
    let seed = std::env::var("STRONGROOM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from_le_bytes(array(&OsEntropy)));
    println!("STRONGROOM_SEED={seed}");
    // As long as an unhurried run takes on this machine, so that instants fall all over it.
    let folder = before.copy();
    let started = boot();
    assert_eq!(said(folder.path(), End::Killed(Duration::from_secs(60))).last().map(String::as_str), Some("done"));
    let whole = u64::try_from((boot() - started).as_micros()).unwrap() * 2 / 3;
    let dice = SeededEntropy::new(seed);
    std::iter::repeat_with(move || End::Killed(Duration::from_micros(u64::from_le_bytes(array(&dice)) % whole)))
}

#[test]
fn a_kill_at_any_instant_leaves_nothing_both_readable_and_reported_destroyed() {
    let before = Before::new();
    // Builds with the points share the kills between this test and the next.
    let count = if cfg!(feature = "planted") { kills() / 4 } else { kills() };
    trials(&before, count, instants(&before)).unwrap();
}

/// Commits of the child's that destroy something: one for each that was asked for, two of the subject's, one sweep.
#[cfg(feature = "planted")]
const COMMITS: usize = EACH + 2 + 1;

/// The points between two steps of destruction.
#[cfg(feature = "planted")]
const POINTS: &[&str] = &[
    "abort-in-destroy",
    "abort-before-ledger",
    "abort-in-ledger",
    "abort-after-ledger",
    "abort-before-commit",
    "abort-after-commit",
    "abort-before-answer",
];

#[cfg(feature = "planted")]
#[test]
fn planted_ends_between_every_two_steps_leave_nothing_both_readable_and_reported_destroyed() {
    let before = Before::new();
    let count = kills() - kills() / 4;
    // Every point is passed with each commit of the child's, the one amid the deletions with each record.
    let passings = |point: &str| if point == "abort-in-destroy" { 2 + LEAVING + 2 * EACH - 2 } else { COMMITS };
    let ends = (0..).flat_map(|round| POINTS.iter().map(move |point| End::At(point, 1 + round % passings(point))));
    trials(&before, count, ends).unwrap();
}

#[cfg(feature = "planted")]
#[test]
fn planted_early_answers_are_noticed() {
    let before = Before::new();
    let wrong = trials(&before, 1, std::iter::once(End::At("early-erasure", 1))).unwrap_err();
    assert!(wrong.contains("was reported destroyed, and is not"), "{wrong}");
}
