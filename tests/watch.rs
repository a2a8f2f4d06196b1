//! What whoever is on call can see: metrics, warnings before something runs out, a log that follows its rotation; and a server that
//! is out of descriptors, which waits and goes on.
//!
//! Faults planted once by hand, each of which turned these tests red: an accept error that ends the loop, and one that is tried again
//! without a pause; SIGHUP that leaves the log file; revocation lists and the server's certificate not looked at.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;
#[allow(dead_code, reason = "every suite uses its part")]
#[path = "crash/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use common::{House, order};
use people::{mint_by, reason};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use server::Folder;
use strongroom::cli::mint::{Authority, CertFolder};
use strongroom::domain::caller::Role;
use strongroom::domain::time::{Clock as _, DAY, SystemClock};
use strongroom::policy::limits::Limits;
use strongroom::rpc::proto::operations_service_client::OperationsServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{DescribeRequest, EraseReason, EraseRequest, StatusRequest};

fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

/// Every series with its value.
fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let page = http(address, "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("text/plain; version=0.0.4"), "{page}");
    let (_, body) = page.split_once("\r\n\r\n").unwrap();
    let series = body.lines().filter_map(|line| line.rsplit_once(' '));
    series.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

fn watched() -> House {
    let mut house = House::new();
    house.stop();
    house.config.metrics = Some("127.0.0.1:0".parse().unwrap());
    house.start();
    house
}

/// One test for all metrics: the counters are the process's.
#[test]
fn metrics_tell_of_calls_refusals_limits_commits_records_and_certificates() {
    let mut house = watched();
    let at = house.running().metrics.unwrap();
    let value = |name: &str| scrape(at).get(name).copied().unwrap_or(0.0);

    let (token, going) = (house.tokenize(order(1)), house.tokenize(order(2)));
    let mut tokens = house.tokens();
    let erase = EraseRequest { idempotency_key: "e".into(), token: going, reason: EraseReason::SubjectRequest.into() };
    house.run(tokens.erase(erase)).unwrap();
    let unknown = strongroom::domain::token::Token::from_bytes([9; 20]).to_text();
    house.run(tokens.describe(DescribeRequest { token: unknown })).unwrap_err();
    for (name, least) in [
        ("strongroom_calls_total{rpc=\"TokenService/Tokenize\",role=\"shop\",code=\"OK\"}", 2.0),
        ("strongroom_calls_total{rpc=\"TokenService/Describe\",role=\"shop\",code=\"NOT_FOUND\"}", 1.0),
        ("strongroom_call_seconds_count{rpc=\"TokenService/Tokenize\"}", 2.0),
        ("strongroom_refusals_total{role=\"shop\",reason=\"unknown\"}", 1.0),
        ("strongroom_audit_entries_total", 4.0),
        ("strongroom_audit_entries", 5.0),
        ("strongroom_commit_seconds_count", 4.0),
        ("strongroom_commit_transactions_count", 4.0),
        ("strongroom_connections", 1.0),
        ("strongroom_records_live", 1.0),
        ("strongroom_tombstones", 1.0),
        ("strongroom_ledger_entries", 1.0),
        ("strongroom_active_epoch", 1.0),
        ("strongroom_database_bytes", 4096.0),
        ("strongroom_certificate_days_left{role=\"shop\"}", 364.0),
        ("strongroom_server_certificate_days_left", 364.0),
        ("strongroom_crl_days_left", 29.0),
    ] {
        assert!(value(name) >= least, "{name} is {}", value(name));
    }
    assert_eq!(value("strongroom_store_poisoned") + value("strongroom_disk_full") + value("strongroom_warnings"), 0.0);

    // A path that a client makes up is no label.
    let made_up = house.channel(Role::Shop, "backend");
    let answer = house.run(async {
        let mut client = tonic::client::Grpc::new(made_up);
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let path = "/strongroom.v1.TokenService/canary7f3a".parse().unwrap();
        let answer: Result<tonic::Response<()>, _> = client.unary(tonic::Request::new(()), path, codec).await;
        answer
    });
    assert!(answer.is_err());
    assert!(scrape(at).keys().all(|name| !name.contains("canary7f3a")));
    assert!(value("strongroom_calls_total{rpc=\"unknown\",role=\"shop\",code=\"UNIMPLEMENTED\"}") >= 1.0);

    // Limits, a stranger, a certificate that runs out; the sweeper's lag.
    house.stop();
    let mut limit = Limits::out_of_reach().of(Role::Shop);
    (limit.calls_per_second, limit.burst) = (1, 5);
    house.config.limits = Limits::out_of_reach().with(Role::Shop, limit);
    mint_by(&house, &Authority::load(&people::certs(&house)).unwrap(), Role::Shop, "backend", 3);
    house.start();
    let at = house.running().metrics.unwrap();
    let value = |name: &str| scrape(at).get(name).copied().unwrap_or(0.0);
    let mut tokens = house.tokens();
    let limited = (0..20).filter(|_| {
        let request = DescribeRequest { token: token.clone() };
        house.run(tokens.describe(request)).is_err_and(|status| reason(&status) == "RATE_LIMITED")
    });
    assert!(limited.count() > 10);
    assert!(value("strongroom_rate_limited_total{role=\"shop\"}") > 10.0);
    let left = value("strongroom_certificate_days_left{role=\"shop\"}");
    assert!(left > 2.0 && left < 3.1, "{left}");
    assert!(value("strongroom_warnings") >= 1.0, "a certificate that has three days left is warned of");
    let mut stranger = TcpStream::connect(house.running().address).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = stranger.read(&mut [0; 64]);
    let refused = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        value("strongroom_connections_refused_total{reason=\"not_tls\"}") >= 1.0
    });
    assert!(refused);

    // Nothing else is served there.
    assert!(http(at, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(http(at, "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").starts_with("HTTP/1.1 405"));
}

fn warnings(house: &House) -> Vec<String> {
    let mut operations = house.operations();
    house.run(operations.status(StatusRequest {})).unwrap().into_inner().warnings
}

/// A new certificate for the server, as if issued so many days from now.
fn renew_server(folder: &CertFolder, house: &House, days: i64) {
    for file in ["server.pem", "server-key.pem"] {
        fs::remove_file(people::certs(house).join(file)).unwrap();
    }
    folder.server("server", &["localhost", "127.0.0.1"], SystemClock::new().now().plus(days * DAY)).unwrap();
}

#[test]
fn the_status_warns_before_a_revocation_list_or_the_servers_certificate_runs_out() {
    let house = House::new();
    let warns = |of: &str| warnings(&house).iter().any(|warning| warning.starts_with(of));
    assert!(!warns("a revocation list") && !warns("the server's certificate"));
    let folder = CertFolder::open(&people::certs(&house)).unwrap();
    let now = SystemClock::new().now();
    // Lists live for 30 days, servers' certificates for 365.
    folder.refresh_crl(now.plus(-24 * DAY)).unwrap();
    house.running().reload();
    assert!(warns("a revocation list") && !warns("the server's certificate"));
    renew_server(&folder, &house, -352);
    house.running().reload();
    assert!(warns("the server's certificate"));
    folder.refresh_crl(now).unwrap();
    renew_server(&folder, &house, 0);
    house.running().reload();
    assert!(!warns("a revocation list") && !warns("the server's certificate"));
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..200 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(is_so(), "{what}");
}

fn says(path: &Path, words: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains(words))
}

#[test]
fn after_a_rotation_sighup_moves_the_log_to_its_new_file_and_a_deleted_one_is_warned_of() {
    let folder = Folder::new();
    let server = folder.serve(None).unwrap();
    let log = folder.data().join("strongroom.log");
    let aside = folder.data().join("strongroom.log.1");
    fs::rename(&log, &aside).unwrap();
    kill_process(server.pid(), Signal::HUP).unwrap();
    eventually("the new file has lines", || says(&log, "were read again"));
    assert!(!says(&aside, "were read again") && says(&aside, "serving"));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let warnings = || {
        runtime.block_on(async {
            let channel = folder.channel(&server.endpoint, Role::Operator, "oncall").await;
            OperationsServiceClient::new(channel).status(StatusRequest {}).await.unwrap().into_inner().warnings
        })
    };
    let warns = || warnings().iter().any(|warning| warning.contains("was deleted"));
    assert!(!warns());
    fs::remove_file(&log).unwrap();
    assert!(warns());
    kill_process(server.pid(), Signal::HUP).unwrap();
    eventually("the warning is gone", || !warns());
}

/// Sockets that say nothing take every descriptor; the server says so, pauses between its tries, and serves again when they go.
#[test]
fn a_server_out_of_descriptors_waits_says_so_and_serves_again() {
    let folder = Folder::new();
    let mut server = folder.serve(None).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let describe = || {
        runtime.block_on(async {
            let channel = folder.channel(&server.endpoint, Role::Shop, "backend").await;
            let mut tokens = TokenServiceClient::new(channel);
            let token = strongroom::domain::token::Token::from_bytes([9; 20]).to_text();
            reason(&tokens.describe(DescribeRequest { token }).await.unwrap_err())
        })
    };
    // Once before, so that what serving opens is open.
    assert_eq!(describe(), "NOT_FOUND");
    let log = folder.data().join("strongroom.log");
    let taken = fs::read_dir(format!("/proc/{}/fd", server.pid().as_raw_pid())).unwrap().count() as u64;
    let all = Some(taken + 8);
    let pid: Pid = server.pid();
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: all, maximum: all }).unwrap();

    let silent: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    eventually("it says so", || says(&log, "cannot accept connections"));
    std::thread::sleep(Duration::from_secs(2));
    let tries = fs::read_to_string(&log).unwrap().matches("cannot accept connections").count();
    assert!(tries < 100, "{tries} tries: it pauses between them");
    drop(silent);
    // The silent ones are given up, at the latest when their time for the handshake is over.
    eventually("it serves again", || says(&log, "cannot accept connections") && describe() == "NOT_FOUND");
    assert!(server.kill(), "it was alive all the while");
}
