//! Every client command with canaries; and every argument that a command takes.

use std::collections::BTreeSet;
use std::process::Command;

use regex::Regex;
use serde_json::{Value, json};
use strongroom::domain::token::Token;

use crate::canaries::Canaries;
use crate::served::Served;

/// What may stand on a command line, where every user of a machine can read it, besides the names of files and folders.
pub const ALLOWED: &[&str] = &[
    "--at TIME",
    "--time TIME",
    "--began-before TIME",
    // What kind of value; the value comes by standard input.
    "--by KIND",
    "--carrier NAME",
    // A backup's manifest.
    "--from MANIFEST",
    // A certificate's or a key's hash says nothing of a person.
    "--certificate-hash HEX",
    // An authority's reference, which names nobody.
    "--case REF",
    "--class CLASS",
    "--day DATE",
    "--days DAYS",
    "--epoch NUMBER",
    // An entry's number in the log.
    "--entry NUMBER",
    "--field FIELD",
    "--fields FIELDS",
    // A month.
    "--from MONTH",
    "--idempotency-key KEY",
    "--if-revision NUMBER",
    "--kind KIND",
    "--from-entry NUMBER",
    "--from-size NUMBER",
    "--idempotency-key KEY",
    "--if-revision NUMBER",
    // The log's public key.
    "--key KEY",
    "--known ENTRIES:ROOT",
    "--listen ADDRESS:PORT",
    "--name NAME",
    "--not-after TIME",
    "--not-before TIME",
    "--ordinal NUMBER",
    "--parcel NUMBER",
    "--pin HEX",
    "--purpose PURPOSE",
    "--reads NUMBER",
    "--reason REASON",
    "--role ROLE",
    "--seed N",
    "--server URL",
    "--since TIME",
    // A policy's parameter and its figure.
    "--set NAME=NUMBER",
    "--shares COUNT",
    "--skip-field FIELD",
    "--tenant TENANT",
    "--threshold COUNT",
    "--trust-domain TRUST_DOMAIN",
    "--until MONTH",
    "--until TIME",
    "--year YEAR",
    // The path of a certificate.
    "CERTIFICATE",
    "EVENT",
    // A grant's number says nothing of a person.
    "GRANT",
    // Neither does a hold's.
    "HOLD",
    "HOSTS",
    // An approval's or a request's.
    "NUMBER",
    // A path.
    "ORDERS.jsonl",
    // The name of a policy of the build.
    "POLICY",
    // The operator's name for a webhook.
    "WEBHOOK",
];

/// A customer as JSON, and the texts that are stored of it.
fn customer(canaries: &mut Canaries) -> (Value, Vec<String>) {
    let (subject, name, email, account) =
        (canaries.email(), canaries.word("name"), canaries.email(), canaries.word("pay"));
    let (written, phone) = canaries.phone();
    let (contact, (contact_written, contact_phone)) = (canaries.word("contact"), canaries.phone());
    let address = canaries.address();
    let json = json!({
        "order": "SO-1", "customer": subject, "name": name, "email": email, "phone": written, "payment_account": account,
        "address": { "lines": address.lines, "locality": address.locality, "region": address.region,
                     "postal_code": address.postal_code, "country": address.country },
        "emergency_contact": { "name": contact, "phone": contact_written },
    });
    let mut stored = vec![subject, name, email, account, phone, contact, contact_phone];
    stored.extend(address.lines.iter().cloned());
    stored.extend([&address.locality, &address.region, &address.postal_code].into_iter().cloned());
    (json, stored)
}

fn with(mut json: Value, key: &str, value: Value) -> String {
    json[key] = value;
    json.to_string()
}

pub fn all(served: &mut Served, canaries: &mut Canaries) {
    let shop = "shop-backend";
    let token = tokenized(served, canaries);
    refused_customers(served, canaries);

    let token_file = served.input("token.json", &token);
    let officer = "privacy-officer-office";
    let fields = "recipient_name,address,phone,email,emergency_contact,payment_account";
    let read = ["detokenize", "--fields", fields, "--purpose", "subject_request"];
    assert!(served.done_command(officer, &read, &token).contains("canary-7f3a"));
    let table = [read.as_slice(), &["--table"]].concat();
    assert!(served.done_command(officer, &table, &token).contains("canary-7f3a"));
    let strange = Token::from_bytes([9; 20]).to_text();
    canaries.tokens.push(strange.clone());
    served.refused_command(officer, &read, &strange);
    served.refused_command(officer, &read, &format!("{strange}\n{}\n", canaries.word("token")));
    served.refused_command("warehouse-packing", &read, &token);
    served.silent_command(shop, &["describe", "--token-file", &token_file], "");
    served.refused_command(shop, &["describe"], &strange);
    assert!(served.silent_command(shop, &["policy", "explain", "--token-file", &token_file], "").contains("order.cap"));
    served.refused_command(shop, &["policy", "explain"], &strange);
    served.refused_command("warehouse-packing", &["policy", "explain", "--token-file", &token_file], "");
    forecasts(served, &token_file);

    let correct = ["correct", "--token-file", &token_file, "--if-revision", "1"];
    let (name, (written, _)) = (canaries.word("name"), canaries.phone());
    served.silent_command(shop, &correct, &json!({ "name": name, "phone": written, "email": null }).to_string());
    served.refused_command(shop, &correct, &json!({ "name": canaries.word("name") }).to_string());
    served.refused_command(shop, &correct, &json!({ "name": canaries.word("name") + "\u{7}" }).to_string());
    served.refused_command(shop, &correct, &json!({ "customer": canaries.word("customer") }).to_string());
    served.silent_command(shop, &["event", "placed", "--token-file", &token_file], "");
    served.refused_command(shop, &["event", "placed"], &strange);

    let serial = canaries.word("serial");
    let serial_file = served.input("serial.txt", &serial);
    let grant = ["grant", "--carrier", "swift", "--token-file", &token_file];
    let granted = served.silent_command(shop, &[grant.as_slice(), &["--serial-file", &serial_file]].concat(), "");
    served.refused_command(shop, &grant, &serial);
    served.refused_command(shop, &grant, &format!("{} no serial", canaries.word("serial")));
    assert!(served.done_command("carrier-swift", &["deliver"], &serial).contains(&serial));
    served.refused_command("carrier-parcelo", &["deliver"], &serial);
    served.refused_command("carrier-swift", &["deliver"], &canaries.word("serial"));
    let granted: Value = serde_json::from_str(&granted).unwrap();
    let id =
        granted.as_object().unwrap().values().find_map(|value| value.as_str().filter(|id| id.starts_with("grant-")));
    served.silent_command(shop, &["revoke", id.unwrap()], "");
    served.refused_command("carrier-swift", &["deliver", "--confirm"], &serial);

    import(served, canaries);
    served.silent_command("operator-oncall", &["status"], "");
    served.silent_command("operator-oncall", &["retention", "confirm-clock"], "");
    served.silent_command("operator-oncall", &["backup"], "");
    served.refused_command("privacy-officer-office", &["backup"], "");
    let wrong = ["retention", "confirm-clock", "--time", "2036-11-25T19:30:00Z"];
    served.refused_command("operator-oncall", &wrong, "");
    callers(served);
    inquiries(served, &token_file, &strange);
    disclosed(served, &token_file, &strange, &canaries.word("token"));
    found(served, canaries);
    keys(served);
    policies(served);
    // An open vault takes no share, and a command for another one seals nothing.
    served.silent_command("key-admin-office", &["unseal"], &canaries.word("share"));
    served.refused_command("key-admin-office", &["seal", "--trust-domain", "elsewhere.example"], "");
    served.refused_command("operator-oncall", &["seal", "--trust-domain", "strongroom.dev"], "");
    let config = served.data().join("config.toml");
    erasures(served, canaries, &token_file);
    served.silent_command(shop, &["audit", "verify", "--state", "--config", config.to_str().unwrap()], "");
    log(served);
    served.silent_command(shop, &["erase", "--reason", "subject_request"], &token);
    served.silent_command(shop, &["receipt", "get", "--token-file", &token_file], "");
    served.refused_command(shop, &["receipt", "get"], &strange);
    served.refused_command(shop, &["erase", "--reason", "subject_request"], &strange);
}

/// A hold is placed and lifted by two people; a customer goes, and the receipts are checked.
fn erasures(served: &mut Served, canaries: &mut Canaries, token_file: &str) {
    let (officer, second) = ("privacy-officer-office", "key-admin-office");
    let place = ["hold", "place", "--kind", "court", "--token-file", token_file];
    let case = canaries.word("case");
    let hold: Value = serde_json::from_str(&served.silent_command(officer, &place, &case)).unwrap();
    let hold = hold["hold"].as_str().unwrap();
    served.refused_command(officer, &place, &(canaries.word("case") + " @"));
    served.refused_command("shop-backend", &place, &canaries.word("case"));
    assert!(served.done_command(officer, &["hold", "list"], "").contains(&case));
    assert!(served.done_command(officer, &["hold", "list", "--json"], "").contains(&case));
    served.refused_command("shop-backend", &["erase", "--reason", "controller", "--token-file", token_file], "");
    let pending: Value = serde_json::from_str(&served.silent_command(officer, &["hold", "lift", hold], "")).unwrap();
    let number = pending["pending_approval"].as_str().unwrap();
    served.silent_command(second, &["approve", "show", number], "");
    served.silent_command(second, &["approve", "yes", number], "");
    served.silent_command(officer, &["hold", "lift", hold], "");
    served.silent_command(officer, &["hold", "list", "--all"], "");

    let (leaving, _) = customer(canaries);
    let printed = served.done_command("shop-backend", &["tokenize"], &leaving.to_string());
    let printed: Value = serde_json::from_str(&printed).unwrap();
    canaries.tokens.push(printed["token"].as_str().unwrap().to_owned());
    let subject = served.input("subject.txt", leaving["customer"].as_str().unwrap());
    let receipts = served.path("receipts");
    let leave = ["erase", "--subject-file", &subject, "--reason", "minor", "--receipts", &receipts];
    assert!(served.silent_command(officer, &leave, "").contains("\"erased\": 1"));
    served.refused_command(officer, &["erase", "--subject-file", &subject, "--reason", "minor"], "");
    let receipt = std::fs::read_dir(&receipts).unwrap().next().unwrap().unwrap().path();
    served.heard.push(("a receipt".to_owned(), std::fs::read(&receipt).unwrap()));
    let config = served.data().join("config.toml");
    let key = served.silent_command(officer, &["receipt", "key", "--config", config.to_str().unwrap()], "");
    let key = served.input("vault.key", &key);
    let verify = ["receipt", "verify", receipt.to_str().unwrap(), "--key", &key];
    served.silent_command(officer, &verify, "");
    served.refused_command(officer, &[&verify[..], &["--token-file", token_file]].concat(), "");
    served.silent_command("operator-oncall", &["statistics"], "");
    served.silent_command("operator-oncall", &["statistics", "--json"], "");
    served.refused_command("operator-oncall", &["statistics", "--from", "never"], "");
    served.silent_command("operator-oncall", &["retention", "resume"], "");
}

/// What goes within the year, as each role is told it; an officer's and a shop's own tokens are in it, and in no calendar.
fn forecasts(served: &mut Served, token_file: &str) {
    let (officer, shop, operator) = ("privacy-officer-office", "shop-backend", "operator-oncall");
    let svg = served.path("calendar.svg");
    let year = ["retention", "forecast", "--days", "400", "--svg", &svg];
    for (caller, shape) in [(officer, &["--json"][..]), (officer, &[]), (shop, &["--tokens", token_file])] {
        let told = served.done_command(caller, &[&year[..], shape].concat(), "");
        assert!(told.contains("srt1"), "{told}");
        served.told_tokens.push(("standard output of retention forecast".to_owned(), told.into_bytes()));
        served.heard.push(("a calendar".to_owned(), std::fs::read(&svg).unwrap()));
    }
    for (caller, shape) in [(shop, &[][..]), (operator, &["--by", "day"]), (operator, &["--by", "day", "--json"])] {
        let told = served.silent_command(caller, &[&year[..], shape].concat(), "");
        assert!(told.contains("order"), "{told}");
    }
    served.refused_command("warehouse-packing", &year, "");
    served.refused_command(operator, &year, "");
    served.refused_command(shop, &["retention", "forecast", "--tokens", &served.path("none.jsonl")], "");
}

/// The officer's questions; `seen-by` is the one that tells tokens.
fn inquiries(served: &mut Served, token_file: &str, strange: &str) {
    let (officer, auditor) = ("privacy-officer-office", "auditor-office");
    let saw = served.silent_command(officer, &["inquire", "who-saw", "--token-file", token_file, "--json"], "");
    assert!(saw.contains("privacy-officer/office"), "{saw}");
    served.silent_command(
        officer,
        &["inquire", "who-saw", "--everything"],
        &std::fs::read_to_string(token_file).unwrap(),
    );
    served.refused_command(officer, &["inquire", "who-saw"], strange);
    served.refused_command(auditor, &["inquire", "who-saw", "--token-file", token_file], "");
    let since = ["--since", "2026-01-01T00:00:00Z"];
    let by = ["inquire", "seen-by", "--role", "privacy-officer", "--name", "office"];
    for shape in [&[][..], &["--json"]] {
        let told = served.done_command(officer, &[&by, since.as_slice(), shape].concat(), "");
        assert!(told.contains("srt1"), "{told}");
        served.told_tokens.push(("standard output of inquire seen-by".to_owned(), told.into_bytes()));
    }
    served.refused_command(auditor, &[by.as_slice(), &since].concat(), "");
    let refused =
        served.silent_command(auditor, &[&["inquire", "refusals"], since.as_slice(), &["--json"]].concat(), "");
    let refused: Value = serde_json::from_str(refused.lines().next().unwrap()).unwrap();
    served.silent_command(auditor, &["inquire", "explain", refused["last_request"].as_str().unwrap()], "");
    served.refused_command(auditor, &["inquire", "explain", "none"], "");
    served.silent_command(auditor, &["inquire", "unused-grants"], "");
    served.refused_command("operator-oncall", &["inquire", "unused-grants"], "");
}

/// A disclosure that takes a second person; its values are what the last command prints, and not searched.
fn disclosed(served: &mut Served, token_file: &str, strange: &str, no_token: &str) {
    let (officer, admin) = ("privacy-officer-office", "key-admin-office");
    let fields = ["disclose", "--case", "4 Js 123/26", "--field", "recipient_name"];
    let disclose = [fields.as_slice(), &["--token-file", token_file]].concat();
    let pending: Value = serde_json::from_str(&served.silent_command(officer, &disclose, "")).unwrap();
    let number = pending["pending_approval"].as_str().unwrap();
    served.silent_command(admin, &["approve", "show", number], "");
    served.silent_command(admin, &["approve", "yes", number], "");
    assert!(served.done_command(officer, &disclose, "").contains("granted"));
    served.refused_command(officer, &fields, strange);
    served.refused_command(officer, &fields, no_token);
    served.refused_command(admin, &disclose, "");
}

/// A value that nobody has, looked for by each kind; and one that does not parse.
fn found(served: &mut Served, canaries: &mut Canaries) {
    let (email, (phone, _), reference) = (canaries.email(), canaries.phone(), canaries.word("reference"));
    let find = |by| ["find", "--by", by, "--class", "account", "--purpose", "self_service"];
    for (by, value) in [("email", &email), ("phone", &phone), ("customer_reference", &reference)] {
        served.refused_command("shop-backend", &find(by), value);
    }
    served.refused_command("shop-backend", &find("email"), &canaries.word("no-address"));
    served.refused_command("warehouse-packing", &find("email"), &email);
}

/// The epochs listed, rotated, and what is refused.
fn keys(served: &mut Served) {
    let admin = "key-admin-office";
    served.silent_command("operator-oncall", &["keys", "list"], "");
    let rotated: Value = serde_json::from_str(&served.silent_command(admin, &["keys", "rotate"], "")).unwrap();
    assert_eq!((rotated["active_epoch"].as_u64(), rotated["rows_left"].as_u64()), (Some(2), Some(0)));
    assert!(served.silent_command(admin, &["keys", "list", "--json"], "").contains("\"retiring\""));
    served.refused_command("operator-oncall", &["keys", "rotate"], "");
    served.refused_command(admin, &["keys", "destroy", "--epoch", "1"], "");
    served.refused_command(admin, &["keys", "rotate-root"], "");
    let postpone = ["keys", "postpone", "--epoch", "1", "--until", "2020-01-01T00:00:00Z"];
    served.refused_command(admin, &postpone, "");
}

/// The log is signed, proved, and taken out by two people; the file verifies with the key alone.
fn log(served: &mut Served) {
    let (auditor, second) = ("auditor-office", "operator-oncall");
    let key = served.silent_command(auditor, &["audit", "key"], "");
    let heads = served.silent_command(auditor, &["audit", "checkpoint"], "");
    let (key, heads) = (served.input("log.key", &key), served.input("heads", &heads));
    served.silent_command(auditor, &["audit", "prove", "--entry", "3"], "");
    served.silent_command(auditor, &["audit", "prove", "--from-size", "3"], "");
    served.refused_command(auditor, &["audit", "prove", "--entry", "123456789"], "");
    served.refused_command(second, &["audit", "checkpoint"], "");
    let out = served.path("log.jsonl");
    let export = ["audit", "export", &out];
    let pending: Value = serde_json::from_str(&served.silent_command(auditor, &export, "")).unwrap();
    served.silent_command(second, &["approve", "yes", pending["pending_approval"].as_str().unwrap()], "");
    served.silent_command(auditor, &export, "");
    let verify = ["audit", "verify", "--export", &out, "--key", &key, "--known-file", &heads];
    assert!(served.silent_command(auditor, &verify, "").contains("1 heads met"));
    // Cut off in its last line, it goes on; spoiled, it is named.
    let whole = std::fs::read(&out).unwrap();
    std::fs::write(&out, &whole[..whole.len() - 70]).unwrap();
    served.refused_command(auditor, &verify, "");
    served.silent_command(auditor, &export, "");
    assert!(std::fs::read(&out).unwrap() == whole, "an export that goes on is the export");
    served.heard.push(("an export".to_owned(), whole));
    let other = served.input("no-export", "something else");
    served.refused_command(auditor, &["audit", "export", &other], "");
    served.refused_command(auditor, &["audit", "verify", "--export", &other, "--key", &key], "");
}

/// A policy that shortens something is put forward and let in by two people.
fn policies(served: &mut Served) {
    let (admin, officer) = ("key-admin-office", "privacy-officer-office");
    let shown = served.silent_command(admin, &["policy", "show", "kitchenware"], "");
    let shorter = served.input("shorter.toml", &shown.replace("\"P60D\"", "\"P59D\""));
    served.silent_command(admin, &["policy", "check", &shorter], "");
    let diff = ["policy", "diff", "builtin:kitchenware", &shorter];
    served.refused_command(admin, &diff, "");
    served.silent_command(admin, &["policy", "diff", &shorter, "builtin:kitchenware"], "");
    let propose = ["policy", "propose", &shorter];
    served.refused_command("shop-backend", &propose, "");
    let pending: Value = serde_json::from_str(&served.silent_command(officer, &propose, "")).unwrap();
    let number = pending["pending_approval"].as_str().unwrap();
    served.silent_command(admin, &["approve", "yes", number], "");
    let done: Value = serde_json::from_str(&served.silent_command(officer, &propose, "")).unwrap();
    assert!(done["allowed"].as_str().is_some(), "{done}");
}

/// A carrier is suspended and let back in by two people.
fn callers(served: &mut Served) {
    let (admin, second) = ("key-admin-office", "operator-oncall");
    let one = ["--role", "carrier", "--name", "parcelo"];
    let command = |verb: &'static str| [&["callers", verb], one.as_slice()].concat();
    served.silent_command(admin, &command("enrol"), "");
    served.silent_command(admin, &command("suspend"), "");
    served.refused_command(admin, &command("enrol"), "");
    served.refused_command(second, &command("resume"), "");
    let pending: Value = serde_json::from_str(&served.silent_command(admin, &command("resume"), "")).unwrap();
    let number = pending["pending_approval"].as_str().unwrap();
    served.refused_command(admin, &["approve", "yes", number], "");
    assert!(served.silent_command(second, &["approve", "list"], "").contains(number));
    served.silent_command(second, &["approve", "show", number], "");
    served.silent_command(second, &["approve", "yes", number], "");
    let back: Value = serde_json::from_str(&served.silent_command(admin, &command("resume"), "")).unwrap();
    assert_eq!((back["name"].as_str(), back["suspended"].as_bool()), (Some("parcelo"), Some(false)));
    served.refused_command(second, &["approve", "no", number], "");
    assert!(served.silent_command(admin, &["callers", "list"], "").contains("in force"));
}

/// Stores two customers; the second stays.
fn tokenized(served: &mut Served, canaries: &mut Canaries) -> String {
    let mut last = String::new();
    for stays in [true, false] {
        let (customer, stored) = customer(canaries);
        let printed = served.done_command("shop-backend", &["tokenize"], &customer.to_string());
        served.told_tokens.push(("standard output of tokenize".to_owned(), printed.clone().into_bytes()));
        let printed: Value = serde_json::from_str(&printed).unwrap();
        last = printed["token"].as_str().unwrap().to_owned();
        canaries.tokens.push(last.clone());
        if stays {
            canaries.kept.extend(stored);
        }
    }
    last
}

/// Customers with something wrong, each in its own way.
fn refused(canaries: &mut Canaries) -> Vec<String> {
    let mut whole = || customer(canaries).0;
    let mut texts = vec![
        whole().to_string().replacen('}', "", 1),
        with(whole(), "country", Value::Null).replacen("\"country\"", "\"country\":1,\"country\"", 1),
    ];
    let customer = whole();
    let repeated = customer.to_string().replacen('{', &format!("{{\"name\":{},", customer["name"]), 1);
    texts.push(repeated);
    for (key, value) in [
        ("nickname", json!(canaries.word("unknown"))),
        ("phone", json!(canaries.word("phone"))),
        ("email", json!(canaries.word("email"))),
        ("name", json!(canaries.word("name") + " 4111 1111 1111 1111")),
        ("name", json!(canaries.word("name") + &"x".repeat(300))),
        ("name", json!([canaries.word("name")])),
        ("address", json!(canaries.word("address"))),
        ("address", json!({ "lines": [canaries.word("line")], "planet": canaries.word("planet") })),
        ("note", json!(canaries.word("note"))),
        ("customer", Value::Null),
    ] {
        let (customer, _) = self::customer(canaries);
        texts.push(with(customer, key, value));
    }
    texts
}

fn refused_customers(served: &mut Served, canaries: &mut Canaries) {
    for text in refused(canaries) {
        served.refused_command("shop-backend", &["tokenize"], &text);
    }
    let (customer, _) = customer(canaries);
    served.refused_command("shop-backend", &["tokenize", "--class", "case"], &customer.to_string());
    served.refused_command("carrier-swift", &["tokenize"], &customer.to_string());
    served.refused_command("shop-backend", &["tokenize", "--server", "https://127.0.0.1:1"], &customer.to_string());
}

fn import(served: &mut Served, canaries: &mut Canaries) {
    let mut lines = refused(canaries);
    let bad = lines.len();
    for _ in 0..3 {
        let (customer, stored) = customer(canaries);
        canaries.kept.extend(stored);
        lines.push(customer.to_string());
    }
    let file = served.input("customers.jsonl", &lines.join("\n"));
    let tokens = served.path("tokens.jsonl");
    let import = ["import", &file, "--tokens", &tokens];
    served.silent_command("shop-backend", &import, "");
    served.refused_command("shop-backend", &[import.as_slice(), &["--strict"]].concat(), "");
    let rejects = std::fs::read(format!("{tokens}.rejects")).unwrap();
    assert_eq!(rejects.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"line\"")).count(), bad);
    served.heard.push(("the rejects of an import".to_owned(), rejects));
    let filed = std::fs::read_to_string(&tokens).unwrap();
    let filed_tokens: Vec<_> = filed
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["token"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(filed_tokens.len(), 3);
    canaries.tokens.extend(filed_tokens);
    served.told_tokens.push(("the tokens of an import".to_owned(), filed.into_bytes()));
}

/// Every argument with a value of a command and its subcommands, as their help has it; paths aside.
pub fn arguments(command: &[String], taken: &mut BTreeSet<String>) {
    let output = Command::new(env!("CARGO_BIN_EXE_strongroom")).args(command).arg("--help").output().unwrap();
    assert!(output.status.success(), "{command:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    let option = Regex::new(r"^ +(?:-\w, )?(--[a-z-]+)(?:[ =]\[?<([^>]+)>)?").unwrap();
    let positional = Regex::new(r"^ +[<\[]([^>\]]+)[>\]]").unwrap();
    let subcommand = Regex::new(r"^  ([a-z][a-z-]*)(?:  |$)").unwrap();
    let mut section = "";
    for line in help.lines() {
        if !line.starts_with(' ') {
            section = line.trim_end_matches(':');
        }
        let is_path = |value: &str| ["FILE", "FOLDER", "OUT"].contains(&value);
        if let Some(found) = subcommand.captures(line).filter(|_| section == "Commands" && &line[2..6] != "help") {
            arguments(&[command, &[found[1].to_owned()]].concat(), taken);
        } else if let Some(found) =
            positional.captures(line).filter(|found| section == "Arguments" && !is_path(&found[1]))
        {
            taken.insert(found[1].to_owned());
        } else if let Some(found) = option.captures(line)
            && let Some(value) = found.get(2).filter(|value| !is_path(value.as_str()))
        {
            taken.insert(format!("{} {}", &found[1], value.as_str()));
        }
    }
}
