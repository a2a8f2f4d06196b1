//! Every erasure has a receipt, whoever erases: signed, verified offline with the public key alone, and true in every line.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;

use std::path::Path;
use std::process::{Command, Output};

use common::{House, START, order};
use people::{log, reason};
use serde_json::Value;
use strongroom::audit::entry::Action;
use strongroom::audit::receipt::Receipt;
use strongroom::crypto::note::parse_key;
use strongroom::domain::caller::Role;
use strongroom::domain::id::Epoch;
use strongroom::domain::time::{Clock as _, DAY};
use strongroom::domain::token::Token;
use strongroom::domain::vocabulary::{Class, EraseReason};
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::{self, EraseRequest, EventKind, ReceiptOfRequest, ReceiptOfResponse};
use strongroom::store::ledger::read_after;
use tonic::{Code, Status};

fn receipt_of(house: &House, role: Role, name: &str, token: &str) -> Result<ReceiptOfResponse, Status> {
    let mut vault = ErasureServiceClient::new(house.channel(role, name));
    house.run(vault.receipt_of(ReceiptOfRequest { token: token.to_owned() })).map(tonic::Response::into_inner)
}

fn erase(house: &House, token: &str) -> proto::EraseResponse {
    let request = EraseRequest {
        idempotency_key: format!("erase-{}", &token[..12]),
        token: token.to_owned(),
        reason: proto::EraseReason::SubjectRequest.into(),
    };
    house.run(house.tokens().erase(request)).unwrap().into_inner()
}

/// Verifies a receipt and holds it against the log, the ledger and the database's keys before.
fn check(house: &House, signed: &str, key: &str, token: &str, keys: &[i64]) -> Receipt {
    let receipt = Receipt::verify(signed, &parse_key(key).unwrap()).unwrap();
    receipt.is_of(&Token::parse(token).unwrap()).unwrap();
    assert_eq!((receipt.tenant.as_str(), receipt.class), ("kitchenware", Class::Order));
    assert_eq!(receipt.in_backups_by, receipt.online_at.plus(30 * DAY));
    let told: Vec<_> = receipt.keys.iter().map(|(key, _)| key.0).collect();
    assert_eq!(told, keys);
    assert!(receipt.keys.iter().all(|(_, epoch)| *epoch == Epoch(1)));
    let entry = log(house)[usize::try_from(receipt.log_entry).unwrap()].clone();
    assert_eq!((entry.at, entry.class), (receipt.online_at, Some(Class::Order)));
    assert!([Action::Erase, Action::Desensitize].contains(&entry.action));
    let vault = house.vault();
    let store = vault.store();
    let lines = read_after(&store.paths().ledger, &store.keyring(), receipt.ledger_line - 1).unwrap();
    let told = (lines[0].number, lines[0].entry.record, lines[0].entry.at);
    assert_eq!(told, (receipt.ledger_line, receipt.record, receipt.online_at));
    receipt
}

/// Every key of the database, by its number.
fn keys(house: &House) -> Vec<i64> {
    let database = rusqlite::Connection::open(&house.config.store.database).unwrap();
    let mut statement = database.prepare("SELECT id FROM dek ORDER BY id").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn without(all: &[i64], left: &[i64]) -> Vec<i64> {
    all.iter().copied().filter(|key| !left.contains(key)).collect()
}

#[test]
fn an_erasures_receipt_verifies_and_is_true_in_every_line() {
    let house = House::new();
    let (token, other) = (house.tokenize(order(1)), house.tokenize(order(2)));
    house.grant(&token, "SW-000001", "swift");
    let before = keys(&house);
    let erased = erase(&house, &token);
    let gone = without(&before, &keys(&house));
    assert_eq!((before.len(), gone.len()), (5, 3), "of the record, of its grant, of its subject");
    let told = receipt_of(&house, Role::Shop, "backend", &token).unwrap();
    assert_eq!(told.receipt, erased.receipt, "the same however it is asked for");
    let mut found = check(&house, &told.receipt, &told.public_key, &token, &{
        let receipt = Receipt::verify(&told.receipt, &parse_key(&told.public_key).unwrap()).unwrap();
        receipt.keys.iter().map(|(key, _)| key.0).collect::<Vec<_>>()
    });
    found.keys.sort();
    assert_eq!(found.keys.iter().map(|(key, _)| key.0).collect::<Vec<_>>(), gone);
    assert_eq!((found.reason, found.online_at), (EraseReason::SubjectRequest, START));
    house.clock.advance(DAY);
    assert_eq!(receipt_of(&house, Role::PrivacyOfficer, "office", &token).unwrap().receipt, erased.receipt);
    let live = receipt_of(&house, Role::Shop, "backend", &other).unwrap_err();
    assert_eq!((live.code(), reason(&live).as_str()), (Code::FailedPrecondition, "NOT_ERASED"));
    let unknown = receipt_of(&house, Role::Shop, "backend", &Token::from_bytes([9; 20]).to_text()).unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "NOT_FOUND"));
}

#[test]
fn what_the_sweeper_destroys_has_its_receipt_too_each_in_its_own_place() {
    let mut house = House::new();
    let tokens: Vec<String> = (1..=30).map(|n| house.tokenize(order(n))).collect();
    for token in &tokens {
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    house.clock.advance(61 * DAY);
    assert_eq!(house.sweep(), 30);
    let mut places = Vec::new();
    for token in &tokens {
        let told = receipt_of(&house, Role::Shop, "backend", token).unwrap();
        let receipt = Receipt::verify(&told.receipt, &parse_key(&told.public_key).unwrap()).unwrap();
        let keys: Vec<_> = receipt.keys.iter().map(|(key, _)| key.0).collect();
        assert_eq!(keys.len(), 2);
        let receipt = check(&house, &told.receipt, &told.public_key, token, &keys);
        assert_eq!((receipt.reason, receipt.online_at), (EraseReason::Desensitized, house.clock.now()));
        places.push((receipt.log_entry, receipt.ledger_line));
    }
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 30);
    let before = receipt_of(&house, Role::Shop, "backend", &tokens[0]).unwrap();
    house.stop();
    house.start();
    assert_eq!(receipt_of(&house, Role::Shop, "backend", &tokens[0]).unwrap().receipt, before.receipt);
}

/// Runs the command without any connection: no server is named, and none runs.
fn offline(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strongroom")).args(arguments).current_dir(folder).env_clear().output().unwrap()
}

#[test]
fn the_command_verifies_offline_and_names_what_is_wrong() {
    let mut house = House::new();
    let token = house.tokenize(order(1));
    let erased = erase(&house, &token);
    house.stop();
    let folder = house.dir.path().to_path_buf();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let key = offline(&folder, &["receipt", "key", "--config", "data/config.toml"]);
    assert!(key.status.success(), "{key:?}");
    write("vault.key", &String::from_utf8(key.stdout).unwrap());
    // Nothing of the vault is left but the two files.
    std::fs::remove_dir_all(house.data()).unwrap();
    write("receipt.txt", &erased.receipt);
    write("token.txt", &token);
    write("other.txt", &Token::from_bytes([9; 20]).to_text());
    write("later.txt", &erased.receipt.replace("in-backups-by 2026-02", "in-backups-by 2036-02"));
    write("cut.txt", &erased.receipt[..200]);
    let stranger = strongroom::crypto::signer::Signer::generate(&strongroom::crypto::entropy::SeededEntropy::new(5));
    write("stranger.key", &strongroom::crypto::note::key_text(strongroom::crypto::note::NAME, &stranger.public()));
    let good =
        offline(&folder, &["receipt", "verify", "receipt.txt", "--key", "vault.key", "--token-file", "token.txt"]);
    assert!(good.status.success(), "{good:?}");
    let said: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!((said["good"].as_bool(), said["token_checked"].as_bool()), (Some(true), Some(true)));
    assert_eq!(said["online_at"], "2026-01-05T00:00:00Z");
    assert_eq!(said["in_backups_by"], "2026-02-04T00:00:00Z");
    for (arguments, code, words) in [
        (&["later.txt", "--key", "vault.key"][..], 6, "the signature does not fit the text"),
        (&["cut.txt", "--key", "vault.key"], 6, "this is no signed note"),
        (&["receipt.txt", "--key", "stranger.key"], 6, "no signature of this key"),
        (&["receipt.txt", "--key", "vault.key", "--token-file", "other.txt"], 6, "another record's"),
        (&["receipt.txt", "--key", "receipt.txt"], 2, "this is no public key"),
    ] {
        let output = offline(&folder, &[&["receipt", "verify"], arguments].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && said.contains(words), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty() && said.lines().count() == 1 && !said.contains("srt1"));
    }
}
