//! The demonstration as a user runs it: every claim holds and nothing leaks into what it prints; with a fault planted, the claim
//! that the fault breaks does not hold, and the command says so.
//!
//! `STRONGROOM_ORDERS=orders.jsonl` runs it over that file instead of the bundled sample; `STRONGROOM_SEED` replays a story.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

use strongroom::cli::demo::scan::Scanner;

const SAMPLE: &str = include_str!("../src/cli/demo/sample.jsonl");

struct Run {
    output: Output,
    /// Without its line breaks.
    text: String,
    orders: String,
}

fn demo(fault: Option<&str>) -> Run {
    let temporary = tempfile::tempdir().unwrap();
    let seed = std::env::var("STRONGROOM_SEED").unwrap_or_else(|_| "7".to_owned());
    let file = std::env::var_os("STRONGROOM_ORDERS");
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.arg("demo").args(["--seed", &seed]).args(&file).env("TMPDIR", temporary.path());
    if let Some(fault) = fault {
        command.env("STRONGROOM_PLANTED_FAULT", fault);
    }
    let output = command.output().unwrap();
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "the demonstration left its folder behind");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    println!("seed {seed}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    let orders = file.map_or_else(|| SAMPLE.to_owned(), |file| std::fs::read_to_string(file).unwrap());
    Run { output, text, orders }
}

impl Run {
    fn says(&self, claim: &str) {
        assert!(self.text.contains(claim), "nowhere: {claim}");
    }

    /// The two figures of `<before>found X of Y`.
    fn found(&self, before: &str) -> (u64, u64) {
        let (_, rest) = self.text.split_once(&format!("{before}: found ")).unwrap();
        let mut figures = rest.split(' ').step_by(2).map(|figure| figure.replace(',', "").parse().unwrap());
        (figures.next().unwrap(), figures.next().unwrap())
    }
}

/// `5,000`.
fn grouped(number: usize) -> String {
    indicatif::HumanCount(number as u64).to_string()
}

fn texts(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => found.push(text.clone()),
        serde_json::Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        serde_json::Value::Object(pairs) => pairs.values().for_each(|item| texts(item, found)),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

#[test]
fn every_claim_of_the_demonstration_holds_and_it_prints_nobodys_data() {
    let run = demo(None);
    assert!(run.output.status.success());
    let orders: Vec<serde_json::Value> = run.orders.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let contacts = orders.iter().filter(|order| order.get("emergency_contact").is_some()).count();
    let (all, other) = (grouped(orders.len()), grouped(2 * orders.len()));
    for claim in [
        format!("✔ {all} of {all} orders went behind tokens"),
        format!("✔ {all} of {all} were read back the same"),
        format!("{} emergency contacts not sent", grouped(contacts)),
        format!("✔ {all} of {all} answers about their own parcels hold exactly two fields"),
        format!("✔ {other} of {other} answers about each other's parcels are NOT_FOUND"),
        "✔ carriers that saw anything else: 0".to_owned(),
        format!("✔ {all} of {all} orders were still readable at the last midnight before"),
        format!("✔ {all} of {all} orders were ERASED"),
        format!("✔ of the {all} records that were due, the thief opens 0"),
        "the thief opens 2, so the attack works".to_owned(),
        "✔ each figure is what the file and the stories say it must be".to_owned(),
        "✔ each speaks of 10 customers or more".to_owned(),
        "✔ the audit log verifies".to_owned(),
    ] {
        run.says(&claim);
    }
    assert!(!run.text.contains('✘'));
    let (found, looked_for) = run.found("customer references");
    assert!(found == 0 && looked_for > 100);
    let mut values = Vec::new();
    orders.iter().for_each(|order| texts(order, &mut values));
    let scanner = Scanner::new(values.iter().map(String::as_str)).unwrap();
    let hits = scanner.scan_bytes(&run.output.stdout);
    assert!(hits.is_empty() && scanner.scan_bytes(&run.output.stderr).is_empty(), "{hits:?}");
}

/// Turns red: the theft (a thief opens all) and the search for leaks (it finds every value that was stored).
#[cfg(feature = "planted")]
#[test]
fn planted_sealing_off_the_search_for_leaks_finds_every_value() {
    let run = demo(Some("sealing-off"));
    assert_eq!(run.output.status.code(), Some(1));
    let (found, looked_for) = run.found("customer references");
    assert_eq!(found, looked_for);
    assert_eq!(run.found("never collected").0, 0, "what was refused is in no file");
    assert!(String::from_utf8_lossy(&run.output.stderr).contains("did not hold"));
}

/// Turns red: the thief's search of the raw bytes.
#[cfg(feature = "planted")]
#[test]
fn planted_wal_kept_the_thief_finds_destroyed_keys_in_the_write_ahead_log() {
    let run = demo(Some("wal-kept"));
    assert_eq!(run.output.status.code(), Some(1));
    run.says("✘ NOT TRUE: keys of due records anywhere");
}

/// Stays green: a table of gate 1 that is too wide does not widen a reply that has no such field.
#[cfg(feature = "planted")]
#[test]
fn planted_role_too_many_the_carriers_still_see_two_fields() {
    let run = demo(Some("role-too-many"));
    assert!(run.output.status.success());
    run.says("✔ carriers that saw anything else: 0");
}
