//! What becomes of records is told to webhooks: by every road, signed, at least once, of nothing that did not happen, without any
//! value, token or reference; whatever receivers do, nothing else waits for them; what they never take ends in a file, and comes
//! back from it.
//!
//! `STRONGROOM_FULL=1` kills more often and tells a million; `STRONGROOM_SEED` repeats a run's instants and answers. The planted
//! faults: an erasure's commit that leaves nothing to announce, an announcement that leaves the outbox before it was taken, a due
//! that is forgotten once it was told, rows whose MAC nobody checks.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "what is waited for is a thread or a process, which no simulated clock moves"
)]

mod common;
#[path = "webhooks/kills.rs"]
mod kills;
#[path = "common/people.rs"]
mod people;
#[cfg(feature = "planted")]
#[path = "common/planted.rs"]
mod planted;
#[path = "webhooks/process.rs"]
mod process;
#[path = "webhooks/receiver.rs"]
mod receiver;
#[path = "webhooks/restored.rs"]
mod restored;
#[expect(dead_code, reason = "every suite uses its part")]
#[path = "crash/server.rs"]
mod server;
#[path = "webhooks/soon.rs"]
mod soon;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{House, START, order};
use people::log;
use receiver::{Answer, OK, Receiver, is_called};
use rusqlite::Connection;
use strongroom::audit::entry::{Action, Verdict};
use strongroom::cli::demo::scan::Scanner;
use strongroom::cli::dev::TRUST_DOMAIN;
use strongroom::config::{Config, WebhookConfig};
use strongroom::crypto::entropy::{OsEntropy, SeededEntropy, array};
use strongroom::crypto::root::write_secret;
use strongroom::crypto::webhook::Secrets;
use strongroom::domain::caller::Role;
use strongroom::domain::time::DAY;
use strongroom::domain::token::Token;
use strongroom::policy::webhook::Subscription;
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::key_service_client::KeyServiceClient;
use strongroom::rpc::proto::seal_service_client::SealServiceClient;
use strongroom::rpc::proto::{
    EraseReason, EraseRequest, EraseSubjectRequest, EventKind, ListKeysRequest, RotateKekRequest, SealRequest,
    StatusRequest, TokenizeRequest, UnsealRequest,
};

fn full() -> bool {
    std::env::var_os("STRONGROOM_FULL").is_some()
}

fn seed() -> u64 {
    let seed = match std::env::var("STRONGROOM_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => u64::from_le_bytes(array(&OsEntropy)),
    };
    println!("STRONGROOM_SEED={seed}");
    seed
}

/// A webhook of the house's tenant that hears of all, quickly tried again; its secret lies beside the configuration.
fn hook(config: &Config, name: &str, url: &str, days: Option<i64>) -> WebhookConfig {
    let folder = config.store.database.parent().unwrap();
    let secret_file = folder.join(format!("{name}.secret"));
    write_secret(&secret_file, &Secrets::mint(&SeededEntropy::new(9))).unwrap();
    let subscription = Subscription {
        name: name.parse().unwrap(),
        tenant: "kitchenware".parse().unwrap(),
        erased: true,
        due_soon: days.map(|days| days * DAY),
    };
    WebhookConfig {
        subscription,
        url: url.parse().unwrap(),
        secret_file,
        ca: None,
        dead_letters: folder.join("dead.jsonl"),
        first_retry: Duration::from_millis(20),
        give_up_after: Duration::from_secs(72 * 3_600),
    }
}

fn secret(hook: &WebhookConfig) -> String {
    std::fs::read_to_string(&hook.secret_file).unwrap().trim().to_owned()
}

fn url(receiver: &Receiver) -> String {
    format!("http://{}/strongroom?key=of-the-shop", receiver.address)
}

/// A house with one webhook.
fn house(receiver: &Receiver, days: Option<i64>) -> House {
    House::with(START, |config| config.webhooks = vec![hook(config, "shop", &url(receiver), days)])
}

/// What the shop computes of its tokens.
fn digest(token: &str) -> String {
    hex::encode(Token::parse(token).unwrap().digest(&"kitchenware".parse().unwrap()).0)
}

fn erase(house: &House, token: &str, why: EraseReason) {
    let idempotency_key = format!("erase-{}", &token[..14]);
    let request = EraseRequest { idempotency_key, token: token.to_owned(), reason: why.into() };
    house.run(house.tokens().erase(request)).unwrap();
}

fn erase_subject(house: &House, token: &str) {
    let mut office = ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    let request = EraseSubjectRequest {
        idempotency_key: "leave".to_owned(),
        token: token.to_owned(),
        subject: String::new(),
        reason: EraseReason::SubjectRequest.into(),
    };
    house.run(async {
        let mut news = office.erase_subject(request).await.unwrap().into_inner();
        while news.message().await.unwrap().is_some() {}
    });
}

fn warnings(house: &House) -> String {
    let mut operations = house.operations();
    house.run(operations.status(StatusRequest {})).unwrap().into_inner().warnings.join("\n")
}

fn in_outbox(database: &Path) -> i64 {
    let connection = Connection::open(database).unwrap();
    connection.query_row("SELECT COUNT(*) FROM announcement", [], |row| row.get(0)).unwrap()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A receiver that first fails in every way it can.
#[test]
fn what_goes_is_announced_by_every_road_signed_and_with_nothing_of_anyone_in_it() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let away = format!("http://{}/stolen", elsewhere.local_addr().unwrap());
    let asked = AtomicUsize::new(0);
    let receiver = Receiver::new(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Status(500),
        1 => Answer::Close,
        2 => Answer::Redirect(away.clone()),
        3 => Answer::Status(404),
        4 => Answer::Flood,
        5 => Answer::Stall,
        _ => OK,
    });
    let mut house = house(&receiver, None);
    let secret = secret(&house.config.webhooks[0]);
    let mut expected = BTreeMap::new();

    let asked = house.tokenize(order(1));
    erase(&house, &asked, EraseReason::Controller);
    expected.insert(digest(&asked), "controller");
    let leaving = house.tokenize(order(2));
    let minor = house.tokenize(order(3));
    let (signed, capped) = (house.tokenize(order(4)), house.tokenize(order(5)));
    erase_subject(&house, &leaving);
    expected.insert(digest(&leaving), "subject_request");
    erase(&house, &minor, EraseReason::Minor);
    expected.insert(digest(&minor), "minor");
    house.event(&signed, EventKind::Delivered, 0).unwrap();
    house.clock.advance(61 * DAY);
    assert_eq!(house.sweep(), 1);
    expected.insert(digest(&signed), "desensitized");
    house.clock.advance(310 * DAY);
    assert_eq!(house.sweep(), 1);
    expected.insert(digest(&capped), "desensitized");

    receiver.until("all is told", |receiver| receiver.digests("record.erased").len() == expected.len());
    wait_for("the outbox is empty", || in_outbox(&house.config.store.database) == 0);
    let told = receiver.told("record.erased");
    let by_digest = told.iter().map(|told| {
        assert_eq!(told["class"], "order");
        (told["record"].as_str().unwrap().to_owned(), told["reason"].as_str().unwrap())
    });
    assert_eq!(by_digest.collect::<BTreeMap<_, _>>(), expected);

    // Each try was signed, said the same under the same number, and nobody went where a redirect pointed.
    let heard = receiver.heard();
    assert!(heard.iter().all(|heard| heard.is_signed(&secret)));
    let mut altered = heard[0].clone();
    altered.body = altered.body.replace("controller", "purged");
    assert!(!altered.is_signed(&secret));
    let of_first: Vec<_> =
        heard.iter().filter(|other| other.headers["webhook-id"] == heard[0].headers["webhook-id"]).collect();
    assert!(of_first.len() >= 5 && of_first.iter().all(|other| other.body == heard[0].body));
    assert!(!is_called(&elsewhere, Duration::from_millis(1)));

    // Nothing of anyone, and no token, in anything that left or lies around.
    let tokens = [&asked, &leaving, &minor, &signed, &capped].map(String::as_str);
    let values =
        ["Wilhelmina Ottokar", "Kastanienallee", "Hinterhaus", "10435", "901820", "wilhelmina.", "pay-account-"];
    let references: Vec<String> = (1..=5).map(|n| format!("customer-{n}@shop.example")).collect();
    let sought = tokens.into_iter().chain(values).chain(references.iter().map(String::as_str));
    let scanner = Scanner::new(sought).unwrap();
    for heard in &heard {
        let all = format!("{:?}{}", heard.headers, heard.body);
        assert!(scanner.scan_bytes(all.as_bytes()).is_empty(), "{all}");
    }
    let count = |action| {
        let entries = log(&house).into_iter().filter(|entry| entry.action == action && entry.verdict == Verdict::Done);
        entries.map(|entry| entry.count.unwrap()).sum::<u32>()
    };
    assert!(count(Action::Announce) as usize >= expected.len(), "the log tells of what was taken");
    assert!(warnings(&house).lines().all(|warning| !warning.contains("webhook")), "{}", warnings(&house));
    house.stop();
}

#[cfg(feature = "planted")]
#[test]
fn planted_an_erasure_that_leaves_nothing_to_announce_is_noticed() {
    let test = "what_goes_is_announced_by_every_road_signed_and_with_nothing_of_anyone_in_it";
    let (passed, printed) = planted::with_fault("announcement-forgotten", test);
    assert!(!passed && printed.contains("all is told"), "{printed}");
}

#[test]
fn over_tls_the_receiver_must_be_vouched_for_by_the_ca_that_is_named() {
    let house = House::unstarted();
    let certs = people::certs(&house);
    let receiver = Receiver::over_tls(&certs.join("server.pem"), &certs.join("server-key.pem"));
    let address = format!("https://localhost:{}/", receiver.address.port());
    let mut house = house;
    let mut trusting = hook(&house.config, "trusting", &address, None);
    trusting.ca = Some(certs.join("ca.pem"));
    let mut deceived = hook(&house.config, "deceived", &address, None);
    let other = tempfile::tempdir().unwrap();
    let foreign = House::unstarted();
    std::fs::copy(people::certs(&foreign).join("ca.pem"), other.path().join("ca.pem")).unwrap();
    deceived.ca = Some(other.path().join("ca.pem"));
    house.config.webhooks = vec![trusting, deceived];
    house.start();
    let token = house.tokenize(order(1));
    erase(&house, &token, EraseReason::Controller);
    receiver.until("it is told", |receiver| receiver.digests("record.erased").contains(&digest(&token)));
    wait_for("the other is warned of", || warnings(&house).contains("webhook deceived takes no messages"));
    assert!(!warnings(&house).contains("trusting") && !warnings(&house).contains("localhost"), "{}", warnings(&house));
    assert_eq!((receiver.heard().len(), in_outbox(&house.config.store.database)), (1, 1));
}

/// The house's calls and the other webhook go on as if there were no other.
#[test]
fn a_receiver_that_hangs_holds_up_neither_calls_nor_other_webhooks_nor_the_stop() {
    let (deaf, well) = (Receiver::new(|_| Answer::Hang), Receiver::new(|_| OK));
    let mut house = House::with(START, |config| {
        config.webhooks = vec![hook(config, "deaf", &url(&deaf), None), hook(config, "well", &url(&well), None)];
    });
    let first = house.tokenize(order(0));
    erase(&house, &first, EraseReason::Controller);
    deaf.until("it hangs", |deaf| !deaf.heard().is_empty());
    // Who waited for it would wait for the ten seconds that it is given.
    let (start, patience, mut slowest) = (Instant::now(), Duration::from_secs(10), Duration::ZERO);
    let mut timed = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        slowest = slowest.max(start.elapsed());
    };
    for n in 1..=20 {
        let mut token = String::new();
        timed(&mut || token = house.tokenize(order(n)));
        timed(&mut || erase(&house, &token, EraseReason::Controller));
    }
    well.until("the other is told", |well| well.digests("record.erased").len() == 21);
    wait_for("the outbox has the deaf one's alone", || in_outbox(&house.config.store.database) == 21);
    let tries = 1 + start.elapsed().as_secs() / patience.as_secs() + 1;
    assert!(deaf.heard().len() as u64 <= tries, "one message on its way at a time");
    timed(&mut || house.stop());
    assert!(slowest < patience - Duration::from_secs(2), "{slowest:?}");
    assert_eq!(in_outbox(&house.config.store.database), 21, "what the deaf one was not told of is kept");
}

/// One row of the outbox for every column that can be altered, and an honest one.
#[test]
fn an_announcement_that_was_forged_altered_or_moved_is_not_made_and_is_told_of() {
    let receiver = Receiver::new(|_| Answer::Status(503));
    let mut house = house(&receiver, Some(7));
    let living = house.tokenize(order(0));
    // A row that was altered is told of, unless it is no configured webhook's any more.
    let changes = [
        ("id", "id = 1000000007".to_owned(), true),
        ("hook", "hook = 'nobody'".to_owned(), false),
        ("tenant", "tenant = 'garden'".to_owned(), false),
        ("topic", "topic = 2, due = 1798675200000000".to_owned(), true),
        ("digest", format!("digest = X'{}'", digest(&living)), true),
        ("class", "class = 2".to_owned(), true),
        ("class", "class = 77".to_owned(), true),
        ("reason", "reason = 3".to_owned(), true),
        ("at", "at = at + 1".to_owned(), true),
        ("at", "at = 'yesterday'".to_owned(), true),
        ("due", "due = 1".to_owned(), true),
        ("rule", "rule = 'x'".to_owned(), true),
        ("since", "since = since + 1".to_owned(), true),
        ("epoch", "epoch = 7".to_owned(), true),
        ("mac", "mac = X'000102030405060708090a0b0c0d0e0f'".to_owned(), true),
    ];
    let gone: Vec<String> = (1..=changes.len() + 1).map(|n| house.tokenize(order(n))).collect();
    gone.iter().for_each(|token| erase(&house, token, EraseReason::Controller));
    house.stop();
    let connection = Connection::open(&house.config.store.database).unwrap();
    let all = |text: &str| -> Vec<String> {
        let mut statement = connection.prepare(text).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let columns: BTreeSet<String> = all("SELECT name FROM pragma_table_info('announcement')").into_iter().collect();
    assert_eq!(columns, changes.iter().map(|(column, ..)| (*column).to_owned()).collect(), "every column is altered");
    let ids = all("SELECT CAST(id AS TEXT) FROM announcement ORDER BY id");
    assert_eq!(ids.len(), gone.len());
    for (id, (_, change, _)) in ids.iter().zip(&changes) {
        let text = format!("UPDATE announcement SET {change} WHERE id = {id}");
        assert_eq!(connection.execute(&text, []).unwrap(), 1, "{change}");
    }
    // A row of the attacker's own making, and one for a webhook that nobody knows.
    let honest = ids.last().unwrap();
    for hook in ["shop", "nobody"] {
        let copy = format!(
            "INSERT INTO announcement SELECT (SELECT MAX(id) + 1 FROM announcement), '{hook}', tenant, topic, X'{}', \
             class, reason, at, due, rule, since, epoch, mac FROM announcement WHERE id = {honest}",
            digest(&living)
        );
        assert_eq!(connection.execute(&copy, []).unwrap(), 1);
    }
    drop(connection);
    receiver.behave(|_| OK);
    house.start();
    let honest = digest(gone.last().unwrap());
    receiver.until("the honest one is told", |receiver| receiver.digests("record.erased").contains(&honest));
    wait_for("the outbox is empty", || in_outbox(&house.config.store.database) == 0);
    assert_eq!(receiver.digests("record.erased"), BTreeSet::from([honest]));
    assert!(receiver.told("record.due_soon").is_empty());
    let told = log(&house).into_iter().filter(|entry| entry.action == Action::Tamper);
    let told: u32 = told.map(|entry| entry.count.unwrap_or(1)).sum();
    assert_eq!(told as usize, changes.iter().filter(|(.., told)| *told).count() + 1);
    house.stop();
}

#[cfg(feature = "planted")]
#[test]
fn planted_unchecked_macs_let_forged_announcements_be_made() {
    let test = "an_announcement_that_was_forged_altered_or_moved_is_not_made_and_is_told_of";
    let (passed, printed) = planted::with_fault("mac-off", test);
    assert!(!passed, "{printed}");
}

/// While it is sealed nobody can tell which rows are authentic, so nothing is told; what waited is told when it is open again.
#[test]
fn a_sealed_vault_tells_nothing_and_goes_on_once_it_is_open() {
    let receiver = Receiver::new(|_| Answer::Hang);
    let house = house(&receiver, None);
    let token = house.tokenize(order(1));
    erase(&house, &token, EraseReason::Controller);
    receiver.until("a message is on its way", |receiver| !receiver.heard().is_empty());
    let mut admin = SealServiceClient::new(house.channel(Role::KeyAdmin, "office"));
    house.run(admin.seal(SealRequest { trust_domain: TRUST_DOMAIN.to_owned() })).unwrap();
    wait_for("it is sealed", || house.running().vault().is_none());
    receiver.behave(|_| OK);
    std::thread::sleep(Duration::from_secs(2));
    assert!(receiver.told("record.erased").is_empty());
    // Until every key is out of memory, the one that hung included.
    wait_for("it opens", || house.run(admin.unseal(UnsealRequest { share: String::new() })).is_ok());
    receiver.until("it is told", |receiver| receiver.digests("record.erased").contains(&digest(&token)));
}

/// What waits while keys rotate lies under the new epoch, and is authentic.
#[test]
fn what_waits_goes_with_a_rotation_of_the_keys() {
    let receiver = Receiver::new(|_| Answer::Status(503));
    let house = house(&receiver, None);
    let tokens: Vec<String> =
        (0..300).map(|n| house.tokenize(TokenizeRequest { subject: "one".into(), ..order(n) })).collect();
    tokens.iter().for_each(|token| erase(&house, token, EraseReason::Controller));
    let mut keys = KeyServiceClient::new(house.channel(Role::KeyAdmin, "office"));
    house.run(async {
        let listed = keys.list_keys(ListKeysRequest {}).await.unwrap().into_inner();
        let active_epoch = listed.epochs.iter().map(|epoch| epoch.epoch).max().unwrap();
        let mut told = keys.rotate_kek(RotateKekRequest { active_epoch }).await.unwrap().into_inner();
        while told.message().await.unwrap().is_some() {}
    });
    let connection = Connection::open(&house.config.store.database).unwrap();
    let epochs: Vec<(i64, i64)> = connection
        .prepare("SELECT epoch, COUNT(*) FROM announcement GROUP BY epoch")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(epochs, [(2, 300)]);
    receiver.behave(|_| OK);
    receiver.until("all is told", |receiver| receiver.digests("record.erased").len() == 300);
    let most = receiver.heard().iter().map(|heard| heard.records().len()).max();
    assert_eq!(most, Some(100), "a message tells of so many at most");
}

/// A restored database hears of its erasures again from the ledger, and says so again, under the same numbers.
#[test]
fn a_restored_store_announces_again_what_it_erases_again_under_the_same_number() {
    let receiver = Receiver::new(|_| OK);
    let mut house = house(&receiver, None);
    let token = house.tokenize(order(1));
    house.stop();
    let (database, copy) = (house.config.store.database.clone(), house.dir.path().join("copy.db"));
    std::fs::copy(&database, &copy).unwrap();
    house.start();
    erase(&house, &token, EraseReason::Controller);
    receiver.until("it is told", |receiver| receiver.told("record.erased").len() == 1);
    wait_for("the outbox is empty", || in_outbox(&database) == 0);
    house.stop();
    std::fs::copy(&copy, &database).unwrap();
    house.start();
    receiver.until("it is told again", |receiver| receiver.told("record.erased").len() == 2);
    let told = receiver.told("record.erased");
    assert_eq!(told[0]["id"], told[1]["id"]);
    assert_eq!((&told[0]["record"], &told[0]["erased_at"]), (&told[1]["record"], &told[1]["erased_at"]));
}

#[test]
fn a_webhook_that_is_configured_no_more_is_told_nothing_more_and_another_tenants_hears_nothing() {
    let receiver = Receiver::new(|_| Answer::Status(503));
    let other = Receiver::new(|_| OK);
    let mut house = House::with(START, |config| {
        config.policies.insert("garden".parse().unwrap(), config.policies.values().next().unwrap().clone());
        let mut foreign = hook(config, "foreign", &url(&other), Some(365));
        foreign.subscription.tenant = "garden".parse().unwrap();
        config.webhooks = vec![hook(config, "shop", &url(&receiver), Some(365)), foreign];
    });
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    house.clock.advance(120 * 1_000_000);
    receiver.until("it is told beforehand", |receiver| !receiver.heard().is_empty());
    erase(&house, &token, EraseReason::Controller);
    assert!(in_outbox(&house.config.store.database) >= 2);
    house.stop();
    house.config.webhooks.remove(0);
    receiver.behave(|_| OK);
    house.start();
    assert_eq!(in_outbox(&house.config.store.database), 0);
    let dropped: Vec<_> = log(&house).into_iter().filter(|entry| entry.action == Action::DropAnnouncements).collect();
    assert_eq!(dropped.iter().map(|entry| entry.count).collect::<Vec<_>>(), [Some(2)]);
    assert!(receiver.told("record.erased").is_empty() && other.heard().is_empty());
}

/// A backlog goes out in messages of a hundred while the vault works on.
#[test]
fn a_long_backlog_is_told_to_its_end() {
    use strongroom::domain::announcement::{Announcement, News};
    use strongroom::domain::id::AnnouncementId;
    use strongroom::domain::token::TokenDigest;
    use strongroom::domain::vocabulary::{Class, EraseReason};
    use strongroom::store::rows::webhook::AnnouncementRow;
    let records: i64 = if full() { 1_000_000 } else { 3_000 };
    let receiver = Receiver::new(|_| Answer::Status(503));
    let house = house(&receiver, None);
    let vault = house.vault();
    let start = Instant::now();
    for first in (0..records).step_by(1_000) {
        let ids: Vec<AnnouncementId> = (0..1_000).map(|_| AnnouncementId(vault.store().allocate().unwrap())).collect();
        let fill = move |tx: &mut strongroom::store::Tx<'_>| {
            ids.iter().zip(first..).try_for_each(|(id, n)| {
                let said = Announcement {
                    tenant: "kitchenware".parse().unwrap(),
                    record: TokenDigest(i128::from(n).to_be_bytes()),
                    class: Some(Class::Order),
                    reason: EraseReason::Purged,
                    at: START,
                    news: News::Erased,
                };
                tx.insert_announcement(&AnnouncementRow { id: *id, hook: "shop".parse().unwrap(), said, since: START })
            })
        };
        vault.store().run_blocking("fill", fill).unwrap();
    }
    drop(vault);
    println!("{records} rows in {:?}", start.elapsed());
    let start = Instant::now();
    let told = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&told);
    receiver.behave(move |heard| {
        count.fetch_add(heard.records().len(), Ordering::SeqCst);
        OK
    });
    let mut slowest = Duration::ZERO;
    let mut n = 0;
    while told.load(Ordering::SeqCst) < usize::try_from(records).unwrap() {
        let call = Instant::now();
        house.tokenize(order(n));
        slowest = slowest.max(call.elapsed());
        n += 1;
        assert!(start.elapsed() < Duration::from_secs(900), "{} told", told.load(Ordering::SeqCst));
    }
    println!("told in {:?}; {n} calls meanwhile, the slowest in {slowest:?}", start.elapsed());
    wait_for("the outbox is empty", || in_outbox(&house.config.store.database) == 0);
    assert_eq!(told.load(Ordering::SeqCst), usize::try_from(records).unwrap());
}
