//! Witnesses: a file that a log must not be behind, and an address that heads are posted to.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use strongroom::cli::serve::Running;

use super::{append, head};
use crate::common::House;

#[test]
fn a_log_that_is_behind_or_other_than_its_witness_file_is_not_served() {
    let mut house = House::new();
    house.stop();
    let heads = house.dir.path().join("heads");
    house.config.audit.witness_file = Some(heads.clone());
    let database = house.config.store.database.clone();
    let kept = std::fs::read(&database).unwrap();
    house.start();
    append(&house, 0..400);
    house.stop();
    let seen = std::fs::read_to_string(&heads).unwrap();
    assert!(seen.matches("strongroom/log/strongroom.dev/2026\n").count() >= 2, "{seen}");
    house.start();
    append(&house, 400..500);
    house.stop();
    assert!(std::fs::read_to_string(&heads).unwrap().starts_with(&seen), "the file is only appended to");

    let refused = |house: &House| {
        let clock = std::sync::Arc::new(house.clock.clone());
        Running::start(house.config.clone(), clock).map(drop).unwrap_err().message
    };
    // An old copy of the database, as it was …
    std::fs::write(&database, &kept).unwrap();
    let message = refused(&house);
    assert!(message.contains("the log is behind it") && message.contains("heads"), "{message}");
    // … and gone on with elsewhere until it is longer than what was seen.
    house.config.audit.witness_file = None;
    house.start();
    append(&house, 1_000..1_700);
    house.stop();
    house.config.audit.witness_file = Some(heads.clone());
    let message = refused(&house);
    assert!(message.contains("the log is another than the one it saw"), "{message}");
    // A torn last head is none; one that somebody else signed is refused.
    std::fs::write(&heads, format!("{}\nstrongroom/log/", std::fs::read_to_string(&heads).unwrap())).unwrap();
    assert!(refused(&house).contains("another than the one it saw"));
    std::fs::write(&heads, seen.replace("time 2026", "time 2027")).unwrap();
    assert!(refused(&house).contains("is not this vault's"), "{}", refused(&house));
    std::fs::remove_file(&heads).unwrap();
    house.start();
}

/// A tiny HTTP server that answers its first requests with errors.
fn witness(failures: usize) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/heads", listener.local_addr().unwrap());
    let (taken, received) = mpsc::channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut request = Vec::new();
            let mut some = [0; 4096];
            let body = loop {
                let read = stream.read(&mut some).unwrap_or(0);
                request.extend_from_slice(&some[..read]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length =
                    head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if read == 0 || body.len() >= length.unwrap_or(0) {
                    break body.to_owned();
                }
            };
            let answer = if number < failures { "503 Service Unavailable" } else { "200 OK" };
            let _ = stream
                .write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes());
            if number >= failures && taken.send(body).is_err() {
                return;
            }
        }
    });
    (url, received)
}

#[test]
fn heads_are_posted_again_until_they_are_taken_and_nobody_waits_for_that() {
    let mut house = House::new();
    house.stop();
    let (url, received) = witness(1);
    house.config.audit.witness_url = Some(url);
    house.config.audit.checkpoint_interval = Duration::from_secs(3600);
    house.start();
    // While the witness refuses, calls are served, and the operator is told.
    let mut operations = house.operations();
    let mut warned = false;
    for _ in 0..50 {
        let status = house.run(operations.status(strongroom::rpc::proto::StatusRequest {})).unwrap().into_inner();
        warned |= status.warnings.iter().any(|warning| warning.contains("the witness does not take the log's heads"));
        if warned {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(warned);
    let note = received.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(note.starts_with("strongroom/log/strongroom.dev/2026\n"), "{note}");
    std::thread::sleep(Duration::from_millis(200));
    let status = house.run(operations.status(strongroom::rpc::proto::StatusRequest {})).unwrap().into_inner();
    assert!(!status.warnings.iter().any(|warning| warning.contains("witness")), "{:?}", status.warnings);
    let (_, key) = head(&house);
    assert!(key.starts_with("strongroom/log/strongroom.dev+"));
    // At the stop, the last head is shown too; a witness that is gone holds nothing up.
    house.stop();
    assert!(received.recv_timeout(Duration::from_secs(10)).is_ok());
    drop(received);
    house.config.audit.witness_url = Some("http://127.0.0.1:1/heads".to_owned());
    house.start();
    append(&house, 0..3);
    house.stop();
}
