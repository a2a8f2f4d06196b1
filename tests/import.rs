//! Promise: an import that is killed and run again gives every line exactly one token, and the vault one record for it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use strongroom::crypto::entropy::{self, Entropy, OsEntropy, SeededEntropy};
use strongroom::domain::caller::Role;
use strongroom::rpc::proto::field_result::Value as Read;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{BatchDetokenizeRequest, Field, Purpose, StatusRequest, batch_detokenize_item};

use common::House;

struct Import {
    house: House,
    file: PathBuf,
    tokens: PathBuf,
    rejects: PathBuf,
}

impl Import {
    fn of(rows: &str) -> Self {
        let house = House::new();
        let at = |name: &str| house.dir.path().join(name);
        let (file, tokens, rejects) = (at("orders.jsonl"), at("tokens.jsonl"), at("rejects.jsonl"));
        std::fs::write(&file, rows).unwrap();
        Self { house, file, tokens, rejects }
    }

    fn command(&self, more: &[&str]) -> Command {
        let files = self.house.files(Role::Shop, "backend");
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.arg("import").arg(&self.file).arg("--tokens").arg(&self.tokens).arg("--rejects").arg(&self.rejects);
        command.args(more).arg("--server").arg(format!("https://{}", self.house.running().address));
        command.arg("--ca").arg(files.roots).arg("--cert").arg(files.certificate).arg("--key").arg(files.key);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, more: &[&str]) -> Output {
        self.command(more).output().unwrap()
    }

    /// Starts the import and kills it after `delay`; whether it was killed before its end.
    fn killed_after(&self, delay: Duration) -> bool {
        let mut child = self.command(&[]).spawn().unwrap();
        sleep(delay);
        child.kill().unwrap();
        !child.wait().unwrap().success()
    }

    fn lines(&self, path: &PathBuf) -> Vec<Value> {
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn lines_so_far(&self) -> usize {
        std::fs::read(&self.tokens).map_or(0, |tokens| tokens.iter().filter(|byte| **byte == b'\n').count())
    }

    fn bytes(&self) -> (Vec<u8>, Vec<u8>) {
        (std::fs::read(&self.tokens).unwrap(), std::fs::read(&self.rejects).unwrap())
    }

    fn records(&self) -> u64 {
        let mut operations = self.house.operations();
        self.house.run(operations.status(StatusRequest {})).unwrap().into_inner().records_live
    }

    /// The recipients' names behind the tokens, in order.
    fn names(&self, tokens: &[String]) -> Vec<String> {
        let mut vault = TokenServiceClient::new(self.house.channel(Role::Warehouse, "packing"));
        let mut names = Vec::new();
        for page in tokens.chunks(256) {
            let fields = vec![Field::RecipientName.into()];
            let request = BatchDetokenizeRequest { tokens: page.to_vec(), fields, purpose: Purpose::Fulfilment.into() };
            for item in self.house.run(vault.batch_detokenize(request)).unwrap().into_inner().items {
                let Some(batch_detokenize_item::Result::Done(done)) = item.result else {
                    panic!("a token was refused")
                };
                let Some(Read::Text(name)) = &done.fields[0].value else { panic!("a name is missing") };
                names.push(name.clone());
            }
        }
        names
    }
}

const ROWS: u64 = 3_000;

/// Bad for the vault, bad for the client, good.
fn row(line: u64) -> String {
    let phone = if line.is_multiple_of(97) { "12" } else { "+49 30 901820" };
    let (order, customer, name) = (format!("SO-{line}"), format!("c{line}"), format!("Name {line}"));
    let customer = json!({ "order": order, "customer": customer, "name": name, "phone": phone });
    if line.is_multiple_of(101) { format!("canary-7f3a {line}") } else { customer.to_string() }
}

fn is_good(line: u64) -> bool {
    !line.is_multiple_of(97) && !line.is_multiple_of(101)
}

fn rows() -> String {
    (1..=ROWS).fold(String::new(), |mut rows, line| {
        let _ = writeln!(rows, "{}", row(line));
        rows
    })
}

/// Turned red once by giving every line a random idempotency key: the vault then held more records than there were tokens.
#[test]
fn killed_again_and_again_every_line_gets_one_token_and_one_record() {
    let seed = u64::from_be_bytes(entropy::array(&OsEntropy));
    println!("seed {seed}");
    let delays = SeededEntropy::new(seed);
    let import = Import::of(&rows());
    let mut kills = 0;
    for _ in 0..30 {
        let mut delay = [0; 2];
        delays.fill(&mut delay);
        let delay = Duration::from_millis(30 + u64::from(u16::from_be_bytes(delay)) % 220);
        if !import.killed_after(delay) {
            break;
        }
        kills += 1;
    }
    let last = import.run(&[]);
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));
    assert!(kills >= 3, "only {kills} kills came in time");

    let good: Vec<u64> = (1..=ROWS).filter(|line| is_good(*line)).collect();
    let tokens = import.lines(&import.tokens);
    let filed: Vec<u64> = tokens.iter().skip(1).map(|entry| entry["line"].as_u64().unwrap()).collect();
    assert!(filed == good, "the tokens file has other lines than the good ones in order");
    let tokens: Vec<String> = tokens.iter().skip(1).map(|entry| entry["token"].as_str().unwrap().to_owned()).collect();
    assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), good.len());
    assert_eq!(import.records(), good.len() as u64, "after {kills} kills");
    let names: Vec<String> = good.iter().map(|line| format!("Name {line}")).collect();
    assert!(import.names(&tokens) == names, "a token stands for another line's customer");

    let rejects = import.lines(&import.rejects);
    let filed: Vec<u64> = rejects.iter().map(|entry| entry["line"].as_u64().unwrap()).collect();
    assert_eq!(filed, (1..=ROWS).filter(|line| !is_good(*line)).collect::<Vec<_>>());

    let before = import.bytes();
    assert!(import.run(&[]).status.success());
    assert!(import.bytes() == before, "running a complete import again changed its files");
    assert_eq!(import.records(), good.len() as u64);
}

#[test]
fn rejects_name_line_field_and_reason_and_never_the_row() {
    let bad = [
        "canary-7f3a",
        r#"{"customer": "canary-7f3a", "phone": "canary-7f3a"}"#,
        r#"{"customer": "canary-7f3a", "nickname": "canary-7f3a"}"#,
        r#"{"name": "canary-7f3a"}"#,
        r#"{"customer": "canary-7f3a", "note": "canary-7f3a"}"#,
        r#"{"customer": "canary-7f3a", "name": "canary-7f3a"}"#,
    ];
    let import = Import::of(&bad.join("\n"));
    let output = import.run(&["--strict"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("6 lines: 1 tokenized, 5 rejected"));
    let expected = [
        ("", "NOT_JSON"),
        ("phone", "NOT_A_PHONE"),
        ("nickname", "UNKNOWN"),
        ("customer", "MISSING"),
        ("note", "NOT_COLLECTED"),
    ];
    let expected =
        (1..).zip(expected).map(|(line, (field, reason))| json!({ "line": line, "field": field, "reason": reason }));
    assert_eq!(import.lines(&import.rejects), expected.collect::<Vec<_>>());
    let (tokens, rejects) = import.bytes();
    for bytes in [tokens, rejects, output.stdout, output.stderr] {
        assert!(!String::from_utf8_lossy(&bytes).contains("7f3a"));
    }
}

#[test]
fn a_vault_that_stops_loses_no_line() {
    let mut import = Import::of(&rows());
    let child = import.command(&[]).spawn().unwrap();
    while import.lines_so_far() < 50 {
        sleep(Duration::from_millis(5));
    }
    import.house.stop();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains("run the same command again"));
    }
    import.house.start();
    assert!(import.run(&[]).status.success());
    let good = (1..=ROWS).filter(|line| is_good(*line)).count();
    assert_eq!(import.lines(&import.tokens).len(), good + 1);
    assert_eq!(import.records(), good as u64);
}
