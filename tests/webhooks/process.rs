//! A server in a process and sandbox of its own: what it may open and connect to, where dead letters go, the commands, the log.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Output, Stdio};

use strongroom::cli::demo::scan::Scanner;
use strongroom::crypto::entropy::SeededEntropy;
use strongroom::crypto::webhook::Secrets;
use strongroom::domain::caller::Role;
use strongroom::rpc::proto::operations_service_client::OperationsServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{EraseReason, EraseRequest, StatusRequest};

use crate::common::order;
use crate::receiver::{Answer, OK, Receiver, free_port};
use crate::server::Folder;
use crate::{digest, wait_for};

/// A vault's folder with one webhook named `shop`; its secret and dead letters lie in folders of their own.
pub fn with_webhook(url: &str, more: &str) -> Folder {
    let folder = Folder::new();
    let data = folder.data();
    for name in ["secrets", "dead"] {
        std::fs::create_dir(data.parent().unwrap().join(name)).unwrap();
    }
    let secret = data.parent().unwrap().join("secrets/webhook");
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(secret).unwrap();
    writeln!(file, "{}", *Secrets::mint(&SeededEntropy::new(9))).unwrap();
    let config = data.join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace("[log]", "[log]\nlevel = \"trace\"");
    let hook = format!(
        "\n[[webhook]]\nname = \"shop\"\ntenant = \"kitchenware\"\nurl = \"{url}\"\nsecret_file = \"../secrets/webhook\"\n\
         events = [\"erased\"]\ndead_letters = \"../dead/letters.jsonl\"\n{more}"
    );
    std::fs::write(&config, text + &hook).unwrap();
    folder
}

/// What whoever scrapes the metrics gets.
fn metrics(folder: &Folder) -> String {
    let log = std::fs::read_to_string(folder.data().join("strongroom.log")).unwrap();
    let line = log.lines().find(|line| line.contains("serving metrics")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let mut stream = std::net::TcpStream::connect(line["address"].as_str().unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn what_is_never_taken_ends_in_the_dead_letter_file_and_redelivery_brings_it_back() {
    let address = free_port();
    let folder = with_webhook(
        &format!("http://{address}/?key=canary-7f3a"),
        "first_retry = \"10ms\"\ngive_up_after = \"1s\"\n\n[metrics]\naddress = \"127.0.0.1:0\"\n",
    );
    let dead = folder.data().parent().unwrap().join("dead/letters.jsonl");
    let mut server = folder.serve(None).unwrap_or_else(|output| panic!("no server: {output:?}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let tokens: Vec<String> = runtime.block_on(async {
        let mut vault = TokenServiceClient::new(folder.channel(&server.endpoint, Role::Shop, "backend").await);
        let mut tokens = Vec::new();
        for n in 0..3 {
            let token = vault.tokenize(order(n)).await.unwrap().into_inner().token;
            let request = EraseRequest {
                idempotency_key: format!("e-{n}"),
                token: token.clone(),
                reason: EraseReason::SubjectRequest.into(),
            };
            vault.erase(request).await.unwrap();
            tokens.push(token);
        }
        tokens
    });
    wait_for("all is given up", || crate::in_outbox(&folder.data().join("strongroom.db")) == 0);
    let lines = std::fs::read_to_string(&dead).unwrap();
    assert!(tokens.iter().all(|token| lines.contains(&digest(token))), "{lines}");
    let warned = || {
        let status = runtime.block_on(async {
            let channel = folder.channel(&server.endpoint, Role::Operator, "oncall").await;
            OperationsServiceClient::new(channel).status(StatusRequest {}).await.unwrap().into_inner()
        });
        assert!(status.protection.unwrap().seccomp, "the server is confined");
        status.warnings.iter().any(|warning| warning.contains("never taken lie in"))
    };
    wait_for("the operator is told", &warned);

    let metrics = metrics(&folder);
    for line in
        ["strongroom_dead_letters_total 3", "strongroom_announcements_waiting 0", "strongroom_webhook_failures_total "]
    {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }

    // Nobody is there; then somebody who takes the first message alone; then one who takes all.
    let redeliver = || folder.command(&["webhooks", "redeliver", dead.to_str().unwrap()]).output().unwrap();
    let ping = |name: &str| folder.command(&["webhooks", "ping", name]).output().unwrap();
    let refused = redeliver();
    assert_eq!(
        (refused.status.code(), said(&refused).contains("0 messages were taken")),
        (Some(4), true),
        "{refused:?}"
    );
    assert_eq!((ping("shop").status.code(), ping("nobody").status.code()), (Some(4), Some(2)));
    let mut first = true;
    let receiver =
        Receiver::at(address, None, move |_| if std::mem::take(&mut first) { OK } else { Answer::Status(500) });
    assert_eq!(redeliver().status.code(), Some(if lines.lines().count() == 1 { 0 } else { 4 }));
    receiver.behave(|_| OK);
    let done = redeliver();
    assert!(done.status.success(), "{done:?}");
    let all = tokens.iter().map(|token| digest(token)).collect();
    assert_eq!(receiver.digests("record.erased"), all);
    assert!(std::fs::read(&dead).unwrap().is_empty());
    assert!(ping("shop").status.success());
    let secret = Secrets::mint(&SeededEntropy::new(9));
    assert!(receiver.heard().iter().all(|heard| heard.is_signed(&secret)));
    assert_eq!(receiver.heard().last().unwrap().json()["type"], "ping");
    wait_for("the warning goes", || !warned());

    // Nothing of anyone anywhere.
    server.terminate();
    assert!(server.wait().success());
    let values = [
        "Wilhelmina Ottokar",
        "Kastanienallee",
        "901820",
        "wilhelmina.",
        "pay-account-",
        "customer-0@shop",
        "canary-7f3a",
        secret.as_str(),
    ];
    let scanner = Scanner::new(tokens.iter().map(String::as_str).chain(values)).unwrap();
    let log = std::fs::read(folder.data().join("strongroom.log")).unwrap();
    assert!(String::from_utf8_lossy(&log).contains("a webhook has not taken a message"));
    for (place, bytes) in
        [("log", log), ("dead letters", lines.into_bytes()), ("redelivery", said(&refused).into_bytes())]
    {
        let hits = scanner.scan_bytes(&bytes);
        assert!(hits.is_empty(), "{place}: {hits:?}");
    }
}

/// A name may have become another tenant's since, and a file may be shared.
#[test]
fn a_dead_letter_goes_to_its_own_tenants_webhook_or_stays() {
    let receiver = Receiver::new(|_| OK);
    let folder = with_webhook(&crate::url(&receiver), "");
    let dead = folder.data().parent().unwrap().join("dead/letters.jsonl");
    let letter = |tenant: &str| {
        let body = format!("{{\"type\":\"record.erased\",\"data\":{{\"tenant\":\"{tenant}\",\"records\":[]}}}}");
        format!("{{\"webhook\":\"shop\",\"given_up_at\":\"\",\"id\":\"msg_{tenant}\",\"body\":{body}}}\n")
    };
    std::fs::write(&dead, letter("garden") + &letter("kitchenware")).unwrap();
    let redelivered = folder.command(&["webhooks", "redeliver", dead.to_str().unwrap()]).output().unwrap();
    assert_eq!(redelivered.status.code(), Some(4), "{redelivered:?}");
    assert!(said(&redelivered).contains("1 messages were taken, 1 stay") && said(&redelivered).contains("tenant"));
    let heard: Vec<_> = receiver.heard().iter().map(|heard| heard.headers["webhook-id"].clone()).collect();
    assert_eq!(heard, ["msg_kitchenware"]);
    assert_eq!(std::fs::read_to_string(&dead).unwrap(), letter("garden"));
}

#[test]
fn a_webhook_that_could_not_be_told_anything_ends_the_start_by_name() {
    let folder = with_webhook("http://127.0.0.1:9/", "");
    let secret = folder.data().parent().unwrap().join("secrets/webhook");
    let refusal = || folder.serve(None).err().map(|output| said(&output)).unwrap();
    std::fs::write(&secret, "whsec_canary7f3a\n").unwrap();
    let told = refusal();
    assert!(told.contains("webhook shop") && told.contains("holds no secrets") && !told.contains("canary"), "{told}");
    std::fs::write(&secret, format!("{}\n", *Secrets::mint(&SeededEntropy::new(9)))).unwrap();
    std::fs::remove_dir(folder.data().parent().unwrap().join("dead")).unwrap();
    let told = refusal();
    assert!(told.contains("webhook shop") && told.contains("dead-letter file"), "{told}");
}

/// The old secret and the new one sign side by side, from the next message on.
#[test]
fn a_secret_is_replaced_while_the_server_runs() {
    let receiver = Receiver::new(|_| OK);
    let folder = with_webhook(&crate::url(&receiver), "");
    let secret = folder.data().parent().unwrap().join("secrets/webhook");
    let server = folder.serve(None).unwrap_or_else(|output| panic!("no server: {output:?}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let erase = |n: usize| {
        runtime.block_on(async {
            let mut vault = TokenServiceClient::new(folder.channel(&server.endpoint, Role::Shop, "backend").await);
            let token = vault.tokenize(order(n)).await.unwrap().into_inner().token;
            let (idempotency_key, reason) = (format!("e-{n}"), EraseReason::SubjectRequest.into());
            vault.erase(EraseRequest { idempotency_key, token, reason }).await.unwrap();
        });
        receiver.until("it is told", |receiver| receiver.told("record.erased").len() == n);
        receiver.heard().pop().unwrap()
    };
    let [old, new] = [9, 10].map(|seed| Secrets::mint(&SeededEntropy::new(seed)));
    let heard = erase(1);
    assert!(heard.is_signed(&old) && !heard.is_signed(&new));
    std::fs::write(&secret, format!("{}\n{}\n", *old, *new)).unwrap();
    let heard = erase(2);
    assert!(heard.is_signed(&old) && heard.is_signed(&new));
    std::fs::write(&secret, format!("{}\n", *new)).unwrap();
    let heard = erase(3);
    assert!(!heard.is_signed(&old) && heard.is_signed(&new));
}

/// The example that users copy: what belongs to a record that is gone is deleted, and nothing else, on the vault's word alone.
#[test]
fn the_python_receiver_verifies_and_deletes_by_digest() {
    let address = free_port();
    let folder = with_webhook(&format!("http://{address}/"), "first_retry = \"50ms\"\n");
    let own = folder.data().parent().unwrap().join("shop");
    std::fs::create_dir(&own).unwrap();
    let path = |name: &str| own.join(name).to_str().unwrap().to_owned();
    let server = folder.serve(None).unwrap_or_else(|output| panic!("no server: {output:?}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let channel = runtime.block_on(folder.channel(&server.endpoint, Role::Shop, "backend"));
    let mut vault = TokenServiceClient::new(channel);
    let tokens = [0, 1].map(|n| runtime.block_on(vault.tokenize(order(n))).unwrap().into_inner().token);
    let pictures = ["gone.jpg", "stays.jpg"].map(path);
    pictures.iter().for_each(|picture| std::fs::write(picture, "a picture").unwrap());
    let kept: serde_json::Map<String, serde_json::Value> =
        tokens.iter().cloned().zip(pictures.iter().map(|picture| picture.as_str().into())).collect();
    std::fs::write(path("tokens.json"), serde_json::Value::Object(kept).to_string()).unwrap();
    let secret = folder.data().parent().unwrap().join("secrets/webhook");
    let arguments =
        ["examples/receiver.py", secret.to_str().unwrap(), &path("tokens.json"), &address.port().to_string()];
    let shop = Command::new("python3").args(arguments).stderr(Stdio::null()).spawn();
    let mut shop = match shop {
        Ok(shop) => shop,
        Err(_) if std::env::var_os("STRONGROOM_ORACLE").is_none() => return println!("skipped: no python3 here"),
        Err(error) => panic!("no python3: {error}"),
    };
    let (idempotency_key, reason) = ("e".to_owned(), EraseReason::SubjectRequest.into());
    runtime.block_on(vault.erase(EraseRequest { idempotency_key, token: tokens[0].clone(), reason })).unwrap();
    wait_for("the picture is gone", || !std::path::Path::new(&pictures[0]).exists());
    assert!(std::path::Path::new(&pictures[1]).exists());
    wait_for("it was taken", || crate::in_outbox(&folder.data().join("strongroom.db")) == 0);

    // Somebody else's word is not taken.
    let body = format!(
        "{{\"type\":\"record.erased\",\"data\":{{\"tenant\":\"kitchenware\",\"records\":[{{\"record\":\"{}\"}}]}}}}",
        digest(&tokens[1])
    );
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let signature = Secrets::parse(&Secrets::mint(&SeededEntropy::new(10))).unwrap().sign("m", now as i64, &body);
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = format!(
        "POST / HTTP/1.0\r\ncontent-length: {}\r\nwebhook-id: m\r\nwebhook-timestamp: {now}\r\n\
         webhook-signature: {signature}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    shop.kill().unwrap();
    shop.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.0 400") && std::path::Path::new(&pictures[1]).exists(), "{answer}");
}
