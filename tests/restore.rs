//! A backup is made while everything goes on; restored, it has all that was acknowledged before it, and nothing of what had to go
//! since. What it must not have forgotten it knows again: events, ended grants, holds, leaving subjects, suspended callers.
//!
//! Planted: a restore that does not apply the ledger (`ledger-unapplied`) turns the first test red. Seen red by hand: a copy that
//! was not settled keeps its log beside it and fails the manifest's digest; with `Superseded` ignored, the corrected phone is back.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "restore/again.rs"]
mod again;
#[path = "restore/commands.rs"]
mod commands;
#[path = "common/people.rs"]
mod people;
#[cfg(feature = "planted")]
#[path = "common/planted.rs"]
mod planted;
#[path = "restore/refusals.rs"]
mod refusals;
#[expect(dead_code, reason = "every suite uses its part")]
#[path = "crash/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{House, order, text, wire_time};
use rusqlite::Connection;
use strongroom::audit::manifest::Manifest;
use strongroom::cli::restore::{Restored, restore};
use strongroom::config::Config;
use strongroom::crypto::entropy::OsEntropy;
use strongroom::crypto::keyring::{Keyring, peek};
use strongroom::domain::caller::Role;
use strongroom::domain::time::{Clock as _, DAY, HOUR};
use strongroom::rpc::proto::caller_service_client::CallerServiceClient;
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::{
    ApproveRequest, BackupRequest, BackupResponse, ConfirmDeliveryRequest, CorrectRequest, DetokenizeRequest,
    EraseReason, EraseRequest, EraseSubjectRequest, EventKind, Field, GetDeliveryRequest, HoldKind, LiftHoldRequest,
    Outcome, PlaceHoldRequest, Purpose, RevokeShipmentRequest, SuspendCallerRequest, lift_hold_response,
};
use strongroom::store::ledger::read_after;
use strongroom::vault::{Applied, database_of};

fn full() -> bool {
    std::env::var_os("STRONGROOM_FULL").is_some()
}

fn keyring(config: &Config) -> Keyring {
    let root = config.root.unlock(&peek(&config.keyring).unwrap().root).unwrap();
    Keyring::load(&config.keyring, &root).unwrap()
}

/// Asks for a backup over the wire; answers every message on the way and the manifest's path.
fn back_up(house: &House) -> (Vec<BackupResponse>, PathBuf) {
    let mut operations = house.operations();
    let told = house.run(async {
        let mut stream = operations.backup(BackupRequest {}).await.unwrap().into_inner();
        let mut told = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            told.push(message);
        }
        told
    });
    let manifest = PathBuf::from(&told.last().unwrap().manifest);
    assert!(manifest.exists(), "{told:?}");
    (told, manifest)
}

/// Stops the vault, puts its database away, and restores the backup in its place; answers the lost database too.
fn lose_and_restore(house: &mut House, manifest: &Path) -> (Restored, PathBuf) {
    house.stop();
    let lost = house.dir.path().join("lost.db");
    std::fs::rename(&house.config.store.database, &lost).unwrap();
    let done = restore(&house.config, keyring(&house.config), manifest, Arc::new(house.clock.clone())).unwrap();
    (done, lost)
}

fn outcomes(house: &House, token: &str, fields: &[Field]) -> Vec<Outcome> {
    let request = DetokenizeRequest {
        token: token.to_owned(),
        fields: fields.iter().map(|field| (*field).into()).collect(),
        purpose: Purpose::SelfService.into(),
    };
    let answer = house.run(house.tokens().detokenize(request)).unwrap().into_inner();
    answer.fields.iter().map(|field| field.outcome()).collect()
}

fn officer(house: &House) -> ErasureServiceClient<tonic::transport::Channel> {
    ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"))
}

fn hold(house: &House, token: &str, whole_subject: bool) -> String {
    let request = PlaceHoldRequest {
        idempotency_key: format!("hold-{whole_subject}-{}", &token[..14]),
        token: token.to_owned(),
        subject: String::new(),
        whole_subject,
        kind: HoldKind::Court.into(),
        case_reference: "12 O 345/26".to_owned(),
    };
    house.run(officer(house).place_hold(request)).unwrap().into_inner().hold_id
}

/// Asks for a hold to be lifted; the approval's number as long as it waits for one.
fn lift(house: &House, hold_id: &str) -> Option<String> {
    let request = LiftHoldRequest { hold_id: hold_id.to_owned() };
    match house.run(officer(house).lift_hold(request)).unwrap().into_inner().result.unwrap() {
        lift_hold_response::Result::Done(_) => None,
        lift_hold_response::Result::PendingApproval(pending) => Some(pending.approval_id),
    }
}

fn approve(house: &House, approval_id: String) {
    house.run(people::approvals(house, Role::KeyAdmin, "office").approve(ApproveRequest { approval_id })).unwrap();
}

/// All rows of a query, one text a row.
fn rows(database: &Path, text: &str) -> Vec<String> {
    let connection = Connection::open(database).unwrap();
    let mut statement = connection.prepare(text).unwrap();
    let all = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    all.map(Result::unwrap).collect()
}

/// What is compared between the database that was lost and the restored one: facts, and nothing that is made anew.
const FACTS: &[(&str, &str)] = &[
    ("event", "SELECT hex(digest) || ' ' || hex(facts) FROM record ORDER BY digest"),
    ("grant", "SELECT id || ' ' || coalesce(ended_at, 'open') FROM shipment_grant ORDER BY id"),
    (
        "hold",
        "SELECT id || ' ' || kind || ' ' || hex(reference) || ' ' || coalesce(lifted_at, '') FROM hold ORDER BY id",
    ),
    ("subject", "SELECT id || ' ' || coalesce(leaving_at, '') || ' ' || holds FROM subject ORDER BY id"),
    (
        "caller",
        "SELECT role || ' ' || name || ' ' || standing || ' ' || hex(suspended) FROM caller ORDER BY role, name",
    ),
    ("tombstone", "SELECT hex(digest) || ' ' || reason || ' ' || until FROM tombstone ORDER BY digest"),
];

#[test]
fn a_restored_backup_forgets_nothing_that_the_ledger_was_told() {
    let mut house = House::new();
    let tokens: Vec<String> = (0..14).map(|n| house.tokenize(order(n))).collect();
    let [
        erased,
        corrected,
        cleared,
        delivered,
        revoked,
        confirmed,
        held,
        lifted,
        leaving,
        open,
        swept,
        twice,
        same,
        left,
    ] = &tokens[..]
    else {
        unreachable!()
    };
    house.grant(delivered, "SW000000003", "swift");
    let of_revoked = house.grant(revoked, "SW000000004", "swift");
    house.grant(confirmed, "SW000000005", "swift");
    house.grant(left, "SW000000013", "swift");
    let to_be_lifted = hold(&house, lifted, false);
    house.event(swept, EventKind::Delivered, 0).unwrap();
    house.event(leaving, EventKind::RefundOpened, 0).unwrap();
    // Waits for a second person while the backup is made: it must not serve after a restore.
    let pending = lift(&house, &to_be_lifted).unwrap();
    house.clock.advance(HOUR);
    let (told, manifest) = back_up(&house);
    assert!(told.iter().all(|message| message.pages_copied <= message.pages), "{told:?}");

    // What happens after the backup, under two key epochs.
    let erase = |token: &str| {
        let reason = EraseReason::SubjectRequest.into();
        let idempotency_key = format!("erase-{}", &token[..14]);
        house.run(house.tokens().erase(EraseRequest { idempotency_key, token: token.to_owned(), reason })).unwrap();
    };
    let correct = |token: &str, if_revision: u32, phone: &str, clear: &[Field]| {
        let request = CorrectRequest {
            idempotency_key: format!("correct-{if_revision}-{}", &token[..14]),
            token: token.to_owned(),
            if_revision,
            fields: if phone.is_empty() { Vec::new() } else { vec![text(Field::Phone, phone)] },
            clear: clear.iter().map(|field| (*field).into()).collect(),
        };
        house.run(house.tokens().correct(request)).unwrap();
    };
    erase(erased);
    correct(corrected, 1, "+49 30 901821", &[]);
    correct(twice, 1, "+49 30 901822", &[]);
    house.event(delivered, EventKind::Delivered, 0).unwrap();
    let next = Arc::new(house.vault().store().keyring().with_new_epoch(house.clock.now(), &OsEntropy));
    next.save(&house.config.keyring, &OsEntropy).unwrap();
    house.run(house.vault().store().adopt(next, |_| Ok(()))).unwrap();
    correct(cleared, 1, "", &[Field::Email]);
    correct(twice, 2, "", &[Field::Email]);
    let revoke = RevokeShipmentRequest { idempotency_key: "revoke".to_owned(), grant_id: of_revoked };
    house.run(house.lifecycle().revoke_shipment(revoke)).unwrap();
    let confirm = ConfirmDeliveryRequest {
        idempotency_key: "confirm".to_owned(),
        serial: "SW000000005".to_owned(),
        delivered_at: Some(wire_time(house.clock.now())),
    };
    house.run(house.carrier("swift").confirm_delivery(confirm)).unwrap();
    let on_record = hold(&house, held, false);
    let on_subject = hold(&house, open, true);
    approve(&house, pending.clone());
    assert_eq!(lift(&house, &to_be_lifted), None);
    let request = EraseSubjectRequest {
        idempotency_key: "leave".to_owned(),
        token: leaving.clone(),
        subject: String::new(),
        reason: EraseReason::Cancellation.into(),
    };
    let mut office = officer(&house);
    house.run(async {
        let mut stream = office.erase_subject(request).await.unwrap().into_inner();
        while stream.message().await.unwrap().is_some() {}
    });
    house.event(open, EventKind::AfterSalesOpened, 0).unwrap();
    let mut callers = CallerServiceClient::new(house.channel(Role::KeyAdmin, "office"));
    let suspend =
        SuspendCallerRequest { role: Role::Carrier as i32, name: "northwind".to_owned(), ..Default::default() };
    house.run(callers.suspend_caller(suspend)).unwrap();
    let lost_token = house.tokenize(order(99));
    let lost_hold = hold(&house, &lost_token, false);
    house.event(&lost_token, EventKind::Placed, 0).unwrap();
    house.clock.advance(60 * DAY - HOUR);
    assert_eq!(house.sweep(), 1, "the one that was delivered before the backup");

    let (Restored { applied, manifest: told, .. }, lost) = lose_and_restore(&mut house, &manifest);
    println!("{applied:?}");
    let expected = Applied {
        lines: applied.lines,
        erased: 2,
        superseded: 4,
        values: 4,
        // Delivered, confirmed, the case that was opened.
        events: 3,
        grants_ended: 1,
        holds_placed: 2,
        holds_lifted: 1,
        leaving: 1,
        callers: 1,
        // The lost record's hold and event.
        beside: 2,
        approvals: 1,
    };
    assert_eq!(applied, expected);
    assert_eq!(applied.lines, 2 + 4 + 3 + 1 + 2 + 1 + 1 + 1 + 2);
    assert!(told.dead_after > told.made_at);
    assert_eq!(
        read_after(&house.config.store.ledger, &keyring(&house.config), told.ledger_line).unwrap().len() as u64,
        applied.lines
    );

    // Fact by fact as it was lost, but for what came after the backup.
    for (what, query) in FACTS {
        let mut before = rows(&lost, query);
        let after = rows(&house.config.store.database, query);
        let is_lost = |row: &String| !after.contains(row);
        let came_after: Vec<String> = before.iter().filter(|row| is_lost(row)).cloned().collect();
        let of_the_lost = match *what {
            "event" | "subject" | "hold" => 1,
            _ => 0,
        };
        assert_eq!(came_after.len(), of_the_lost, "{what}: {came_after:?}");
        before.retain(|row| !came_after.contains(row));
        assert_eq!(before, after, "{what}");
    }
    assert!(!rows(&house.config.store.database, "SELECT CAST(id AS TEXT) FROM hold").contains(&lost_hold));

    house.start();
    let all = [Field::Phone, Field::Email];
    for (token, expected) in [
        (erased, [Outcome::Erased, Outcome::Erased]),
        (swept, [Outcome::Erased, Outcome::Erased]),
        // The old phone must not come back, and the new one is lost.
        (corrected, [Outcome::NotSet, Outcome::Granted]),
        (cleared, [Outcome::Granted, Outcome::NotSet]),
        (twice, [Outcome::NotSet, Outcome::NotSet]),
        (same, [Outcome::Granted, Outcome::Granted]),
        (held, [Outcome::Granted, Outcome::Granted]),
        (left, [Outcome::Granted, Outcome::Granted]),
    ] {
        assert_eq!(outcomes(&house, token, &all), expected, "{token}");
    }
    assert!(
        house
            .run(house.tokens().detokenize(DetokenizeRequest {
                token: lost_token,
                fields: vec![Field::Phone.into()],
                purpose: Purpose::SelfService.into(),
            }))
            .is_err()
    );
    let mut swift = house.carrier("swift");
    let mut reads =
        |serial: &str| house.run(swift.get_delivery(GetDeliveryRequest { serial: serial.to_owned() })).is_ok();
    assert!(!reads("SW000000003") && !reads("SW000000004") && !reads("SW000000005"));
    let mut northwind = house.carrier("northwind");
    let refused =
        house.run(northwind.get_delivery(GetDeliveryRequest { serial: "SW000000013".to_owned() })).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    // Holds hold, though a second person once agreed to lift one: that word is used up or void, never both.
    for (token, hold_id) in [(held, &on_record), (open, &on_subject)] {
        let reason = EraseReason::SubjectRequest.into();
        let request = EraseRequest { idempotency_key: format!("try-{hold_id}"), token: token.clone(), reason };
        assert_eq!(people::reason(&house.run(house.tokens().erase(request)).unwrap_err()), "HELD");
    }
    assert_ne!(lift(&house, &on_record).unwrap(), pending);
    // The restored store goes on: what is corrected again is there again, and sweeps go by the facts.
    let request = CorrectRequest {
        idempotency_key: "again".to_owned(),
        token: corrected.clone(),
        if_revision: 2,
        fields: vec![text(Field::Phone, "+49 30 901821")],
        clear: Vec::new(),
    };
    house.run(house.tokens().correct(request)).unwrap();
    assert_eq!(outcomes(&house, corrected, &all), [Outcome::Granted, Outcome::Granted]);
    house.clock.advance(2 * HOUR);
    house.sweep();
    assert_eq!(outcomes(&house, delivered, &all), [Outcome::Erased, Outcome::Erased]);
    house.stop();
    // Told once: another start has nothing to apply.
    house.start();
    assert_eq!(outcomes(&house, erased, &all), [Outcome::Erased, Outcome::Erased]);
}

/// The lines of a commit that a crash lost are told to nobody, and so is what they were about.
#[test]
fn after_a_crash_only_the_erasures_of_the_lost_commit_are_applied() {
    let mut house = House::new();
    let (erased, corrected) = (house.tokenize(order(1)), house.tokenize(order(2)));
    house.stop();
    let before = house.dir.path().join("before.db");
    std::fs::copy(&house.config.store.database, &before).unwrap();
    let crashed_after = |act: &dyn Fn(&House), house: &mut House| {
        house.start();
        act(house);
        house.stop();
        std::fs::copy(&before, &house.config.store.database).unwrap();
        house.start();
    };
    let correct = |house: &House| {
        let request = CorrectRequest {
            idempotency_key: "correct".to_owned(),
            token: corrected.clone(),
            if_revision: 1,
            fields: vec![text(Field::Phone, "+49 30 901821")],
            clear: Vec::new(),
        };
        house.run(house.tokens().correct(request)).unwrap();
    };
    crashed_after(&correct, &mut house);
    assert_eq!(outcomes(&house, &corrected, &[Field::Phone]), [Outcome::Granted], "the old value is the only one");
    house.stop();
    std::fs::copy(&house.config.store.database, &before).unwrap();
    let erase = |house: &House| {
        let reason = EraseReason::SubjectRequest.into();
        let request = EraseRequest { idempotency_key: "erase".to_owned(), token: erased.clone(), reason };
        house.run(house.tokens().erase(request)).unwrap();
    };
    crashed_after(&erase, &mut house);
    assert_eq!(outcomes(&house, &erased, &[Field::Phone]), [Outcome::Erased]);
    house.stop();
    // Two commits behind, it is no crash: an older copy was put in place.
    std::fs::copy(&house.config.store.database, &before).unwrap();
    let twice = |house: &House| {
        correct(house);
        house.event(&corrected, EventKind::Placed, 0).unwrap();
    };
    crashed_after(&twice, &mut house);
    assert_eq!(outcomes(&house, &corrected, &[Field::Phone]), [Outcome::NotSet]);
}

#[test]
fn a_backup_under_load_has_all_that_was_acknowledged_before_it_and_restores_elsewhere() {
    let before = if full() { 20_000 } else { 1_500 };
    let mut house = House::new();
    let mut tokens = house.tokens();
    let early: Vec<String> =
        (0..before).map(|n| house.run(tokens.tokenize(order(n))).unwrap().into_inner().token).collect();
    drop(tokens);
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let erased: Vec<String> = early.iter().step_by(10).cloned().collect();
    // Eight clients store and erase for as long as the backup takes.
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (stop, written, erased) = (Arc::clone(&stop), Arc::clone(&written), erased.clone());
            let tokens = house.tokens();
            house.runtime.spawn(async move {
                let mut tokens = tokens;
                let mut mine = erased.into_iter().skip(client).step_by(8);
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    tokens.tokenize(order(1_000_000 * (client + 1) + n)).await.unwrap();
                    if let Some(token) = mine.next() {
                        let reason = EraseReason::SubjectRequest.into();
                        let request =
                            EraseRequest { idempotency_key: format!("erase-{}", &token[..14]), token, reason };
                        tokens.erase(request).await.unwrap();
                    }
                    written.fetch_add(1, Ordering::SeqCst);
                }
                mine.collect::<Vec<_>>()
            })
        })
        .collect();
    while written.load(Ordering::SeqCst) < 16 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let at_begin = written.load(Ordering::SeqCst);
    let (_, manifest) = back_up(&house);
    let meanwhile = written.load(Ordering::SeqCst) - at_begin;
    stop.store(true, Ordering::SeqCst);
    let kept: Vec<String> = clients.into_iter().flat_map(|client| house.run(client).unwrap()).collect();
    let pages = std::fs::metadata(database_of(&manifest)).unwrap().len() / 4096;
    println!("{meanwhile} customers stored while {pages} pages were copied");
    assert!(meanwhile > 0, "the backup held up everybody");
    house.stop();

    // Elsewhere: another folder, with copies of the backup, the keyring, its root and the newest ledger, and nothing else.
    let elsewhere = house.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let take = |from: &Path| {
        let to = elsewhere.join(from.file_name().unwrap());
        std::fs::copy(from, &to).unwrap();
        to
    };
    let (manifest, _) = (take(&manifest), take(&database_of(&manifest)));
    let mut config = house.config.clone();
    config.keyring = take(&house.config.keyring);
    config.keys.places.file = Some(config.keyring.clone());
    config.store.ledger = take(&house.config.store.ledger);
    config.store.database = elsewhere.join("strongroom.db");
    std::fs::remove_file(&house.config.store.database).unwrap();
    let done = restore(&config, keyring(&config), &manifest, Arc::new(house.clock.clone())).unwrap();
    println!("{:?}, {} entries, {} records", done.applied, done.entries, done.records);
    house.config = config;
    house.start();
    let mut outcomes_of: BTreeMap<Outcome, usize> = BTreeMap::new();
    let mut tokens = house.tokens();
    for token in &early {
        let request = DetokenizeRequest {
            token: token.clone(),
            fields: vec![Field::Phone.into()],
            purpose: Purpose::SelfService.into(),
        };
        let answer = house.run(tokens.detokenize(request)).unwrap().into_inner();
        let expected = if erased.contains(token) && !kept.contains(token) { Outcome::Erased } else { Outcome::Granted };
        assert_eq!(answer.fields[0].outcome(), expected, "{token}");
        *outcomes_of.entry(expected).or_default() += 1;
    }
    println!("{outcomes_of:?}");
    let text = std::fs::read_to_string(manifest).unwrap();
    Manifest::verify(&text, &keyring(&house.config).signer().public()).unwrap();
}

#[cfg(feature = "planted")]
#[test]
fn planted_restores_that_do_not_apply_the_ledger_are_noticed() {
    let (passed, printed) =
        planted::with_fault("ledger-unapplied", "a_restored_backup_forgets_nothing_that_the_ledger_was_told");
    assert!(!passed && printed.contains("erased: 0"), "{printed}");
}
