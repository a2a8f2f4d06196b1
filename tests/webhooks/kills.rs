//! The server is killed between an erasure's commit and its announcement, again and again, while the receiver fails as it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom::crypto::entropy::{Entropy, SeededEntropy, array};
use strongroom::domain::caller::Role;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{EraseReason, EraseRequest, TokenizeRequest};

use crate::common::order;
use crate::process::with_webhook;
use crate::receiver::{Answer, OK, Receiver};
use crate::{digest, full, seed, url, wait_for};

fn below(end: u64, dice: &dyn Entropy) -> u64 {
    u64::from_le_bytes(array(dice)) % end
}

/// Erasures acknowledged and never announced, and announcements of what was not asked to go.
fn after_kills(fault: Option<&str>, records: usize) -> (BTreeSet<String>, BTreeSet<String>) {
    let seed = seed();
    let (dice, moods) = (SeededEntropy::new(seed), SeededEntropy::new(seed ^ 1));
    let is_first = AtomicBool::new(true);
    let receiver = Receiver::new(move |_| match below(10, &moods) {
        // One message at least is refused, whatever the dice say.
        _ if is_first.swap(false, Ordering::SeqCst) => Answer::Status(500),
        0..3 => Answer::Status(500),
        3 => Answer::Close,
        4..7 => Answer::Slow(Duration::from_millis(below(150, &moods))),
        _ => OK,
    });
    let folder = with_webhook(&url(&receiver), "first_retry = \"10ms\"\n");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut tokens: BTreeMap<usize, String> = BTreeMap::new();
    let erased: Arc<Mutex<BTreeSet<usize>>> = Arc::default();
    let asked: Arc<Mutex<BTreeSet<usize>>> = Arc::default();
    // A few stay.
    let going = records - 5;
    let mut kills = 0;
    while erased.lock().unwrap().len() < going {
        let mut server = folder.serve(fault).unwrap_or_else(|output| panic!("no server: {output:?}"));
        let shop = runtime.block_on(folder.channel(&server.endpoint, Role::Shop, "backend"));
        let mut vault = TokenServiceClient::new(shop);
        if tokens.is_empty() {
            for n in 0..records {
                let request = TokenizeRequest { subject: "one".to_owned(), ..order(n) };
                tokens.insert(n, runtime.block_on(vault.tokenize(request)).unwrap().into_inner().token);
            }
        }
        let todo: Vec<(usize, String)> = {
            let erased = erased.lock().unwrap();
            tokens.iter().filter(|(n, _)| **n < going && !erased.contains(n)).map(|(n, t)| (*n, t.clone())).collect()
        };
        let (asked, erased) = (Arc::clone(&asked), Arc::clone(&erased));
        let client = runtime.spawn(async move {
            for (n, token) in todo {
                let request = EraseRequest {
                    idempotency_key: format!("e-{n}"),
                    token,
                    reason: EraseReason::SubjectRequest.into(),
                };
                asked.lock().unwrap().insert(n);
                if vault.erase(request).await.is_err() {
                    return;
                }
                erased.lock().unwrap().insert(n);
                tokio::time::sleep(Duration::from_millis(8)).await;
            }
        });
        std::thread::sleep(Duration::from_millis(below(220, &dice)));
        assert!(server.kill(), "the server had ended by itself");
        kills += 1;
        runtime.block_on(client).unwrap();
    }
    // At rest: what is still in the outbox is told.
    receiver.behave(|_| OK);
    let mut server = folder.serve(fault).unwrap_or_else(|output| panic!("no server: {output:?}"));
    wait_for("the outbox is empty", || crate::in_outbox(&folder.data().join("strongroom.db")) == 0);
    server.terminate();
    assert!(server.wait().success());
    let told = receiver.digests("record.erased");
    let digests = |which: &BTreeSet<usize>| which.iter().map(|n| digest(&tokens[n])).collect::<BTreeSet<_>>();
    let (erased, asked) = (digests(&erased.lock().unwrap()), digests(&asked.lock().unwrap()));
    let tries = receiver.heard().len();
    println!("{kills} kills, {} erasures, {tries} tries; {} told", erased.len(), told.len());
    (&erased - &told, &told - &asked)
}

#[test]
fn a_server_killed_at_any_instant_announces_every_erasure_and_nothing_else() {
    let records = if full() { 1_000 } else { 120 };
    assert_eq!(after_kills(None, records), (BTreeSet::new(), BTreeSet::new()));
}

#[cfg(feature = "planted")]
#[test]
fn planted_an_announcement_that_leaves_the_outbox_early_is_lost_and_noticed() {
    // A kill must come while a message is on its way, which is chance.
    let is_noticed = || !after_kills(Some("announcement-taken-early"), 60).0.is_empty();
    assert!((0..8).any(|_| is_noticed()));
}
