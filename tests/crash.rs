//! The real binary is killed at random instants with many writes in flight, and loses nothing it has acknowledged; told to
//! stop, it lets calls in flight end; and a folder has one server at a time.
//!
//! A kill takes the process and leaves the kernel's page cache: that a power cut loses nothing either is another matter.
//!
//! `STRONGROOM_FULL=1` kills a hundred times; `STRONGROOM_SEED=<printed seed>` repeats a run's instants and its mix of calls.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

#[path = "crash/clients.rs"]
mod clients;
#[path = "crash/record.rs"]
mod record;
#[allow(dead_code, reason = "every suite uses its part")]
#[path = "crash/server.rs"]
mod server;

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[cfg(feature = "planted")]
use clients::AFTER_A_KILL;
use clients::{Clients, below};
use common::wire_time;
use record::{FIELDS, Record, Seen, released};
use server::{Folder, Server};
use strongroom::crypto::entropy::{OsEntropy, SeededEntropy, array};
use strongroom::domain::caller::Role;
use strongroom::domain::time::{Clock, HOUR, SystemClock};
use strongroom::rpc::proto::batch_detokenize_item::Result as ItemResult;
use strongroom::rpc::proto::operations_service_client::OperationsServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::tokenize_stream_response::Result as StreamResult;
use strongroom::rpc::proto::{
    BatchDetokenizeItem, BatchDetokenizeRequest, DetokenizeResponse, FieldResult, Outcome, Purpose, StatusRequest,
    StatusResponse, TokenizeStreamRequest, TokenizeStreamResponse,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// Writes that must be in flight when the server is killed.
const IN_FLIGHT: usize = 100;

/// A server that acknowledges nothing for so long, with every client waiting, will never.
const STUCK: Duration = Duration::from_secs(60);

fn seed() -> u64 {
    let seed = match std::env::var("STRONGROOM_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => u64::from_le_bytes(array(&OsEntropy)),
    };
    println!("STRONGROOM_SEED={seed}");
    seed
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn serve(folder: &Folder, fault: Option<&str>) -> Server {
    folder.serve(fault).unwrap_or_else(|output| panic!("no server: {output:?}"))
}

/// A vault that is killed again and again, with clients who keep their own books.
struct Trial {
    folder: Folder,
    clients: Clients,
    dice: SeededEntropy,
    fault: Option<&'static str>,
    kills: usize,
    fewest_in_flight: usize,
    /// A head of the audit log, `ENTRIES:ROOT`, that all later logs must lead to.
    head: Option<String>,
}

impl Trial {
    fn new(fault: Option<&'static str>) -> Self {
        let seed = seed();
        let signed_at = wire_time(SystemClock::new().now().plus(-HOUR));
        Self {
            folder: Folder::new(),
            clients: Clients::new(seed, signed_at),
            dice: SeededEntropy::new(seed),
            fault,
            kills: 0,
            fewest_in_flight: usize::MAX,
            head: None,
        }
    }

    /// Starts the server, checks what the last kill left, loads it, kills it.
    async fn round(&mut self) {
        let mut server = serve(&self.folder, self.fault);
        let endpoint = server.endpoint.clone();
        self.clients.check(&self.folder, &endpoint, false).await;
        let tally = Arc::clone(&self.clients.tally);
        let before = *tally.acknowledged.borrow();
        // An instant on machines of any speed: at times with the first acknowledgement, which is when one given too early
        // would show; else so many later, and a moment.
        let (more, moment) = match below(3, &self.dice) {
            0 => (1, 0),
            _ => (below(400, &self.dice) as usize, below(40_000, &self.dice)),
        };
        let mut in_flight = 0;
        let kill = async {
            let mut acknowledged = tally.acknowledged.subscribe();
            let enough = acknowledged.wait_for(|number| *number >= before + more);
            if timeout(STUCK, enough).await.is_err() {
                let last = tally.odd.lock().unwrap().last().cloned();
                panic!("nothing is acknowledged any more: {last:?}");
            }
            sleep(Duration::from_micros(moment)).await;
            while tally.in_flight.load(Ordering::SeqCst) < IN_FLIGHT {
                sleep(Duration::from_millis(1)).await;
            }
            assert!(server.kill(), "the server had ended by itself");
            in_flight = tally.in_flight.load(Ordering::SeqCst);
        };
        self.clients.load(&self.folder, &endpoint, kill).await;
        self.kills += 1;
        self.fewest_in_flight = self.fewest_in_flight.min(in_flight);
    }

    /// Reads back all there ever was, and holds the vault's own figures and its log against the books.
    async fn reckon(&mut self) {
        let mut server = serve(&self.folder, self.fault);
        self.clients.check(&self.folder, &server.endpoint, true).await;
        println!("{}", self.summary());
        let tally = &self.clients.tally;
        for (what, list) in [("lost", &tally.lost), ("half", &tally.half), ("odd", &tally.odd)] {
            let list = list.lock().unwrap();
            assert!(list.is_empty(), "{what}: {}, the first: {}", list.len(), list[0]);
        }
        let status = self.status(&server).await;
        assert_eq!((status.records_live, status.tombstones), self.clients.count(), "records that nobody was told of");
        server.terminate();
        assert!(server.wait().success());
        let entries = self.verify_log();
        assert!(entries >= *self.clients.tally.acknowledged.borrow(), "acknowledged, and not in the log");
    }

    async fn status(&self, server: &Server) -> StatusResponse {
        let operator = self.folder.channel(&server.endpoint, Role::Operator, "oncall").await;
        OperationsServiceClient::new(operator).status(StatusRequest {}).await.unwrap().into_inner()
    }

    /// Checks the whole log, and every row against it, with nobody serving; answers how many entries it has.
    fn verify_log(&mut self) -> usize {
        let mut command = self.folder.command(&["audit", "verify", "--state"]);
        command.args(self.head.iter().flat_map(|head| ["--known", head]));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        assert_eq!(line("heads"), "authentic");
        self.head = Some(line("known"));
        line("entries").parse().unwrap()
    }

    fn summary(&self) -> String {
        let tally = &self.clients.tally;
        let count = |number: &AtomicUsize| number.load(Ordering::SeqCst);
        format!(
            "{} kills, at least {} writes in flight at each; {} acknowledged, {} cut off (of them {} corrections and \
             erasures found done); lost {}, half {}",
            self.kills,
            self.fewest_in_flight,
            *tally.acknowledged.borrow(),
            count(&tally.cut),
            count(&tally.landed),
            tally.lost.lock().unwrap().len(),
            tally.half.lock().unwrap().len(),
        )
    }
}

#[test]
fn a_server_killed_at_any_instant_has_lost_nothing_acknowledged_and_done_nothing_by_half() {
    let kills = if std::env::var_os("STRONGROOM_FULL").is_some() { 100 } else { 30 };
    let mut trial = Trial::new(None);
    runtime().block_on(async {
        for round in 0..kills {
            trial.round().await;
            if round % 10 == 0 {
                trial.verify_log();
            }
        }
        trial.reckon().await;
    });
    assert!(trial.fewest_in_flight >= IN_FLIGHT);
}

#[cfg(feature = "planted")]
#[test]
fn planted_early_acknowledgements_are_noticed() {
    let mut trial = Trial::new(Some("early-acknowledgement"));
    let tally = Arc::clone(&trial.clients.tally);
    // Not what merely cannot be read yet, but what is gone with the process.
    let noticed = || tally.lost.lock().unwrap().iter().any(|text| text.starts_with(AFTER_A_KILL));
    runtime().block_on(async {
        let warnings = trial.status(&serve(&trial.folder, None)).await.warnings;
        assert!(warnings.iter().any(|text| text.contains("planted")), "the binary was built without the faults");
        // The books are held against the vault at the start of the round after the kill.
        while trial.kills < 60 && !noticed() {
            trial.round().await;
        }
    });
    println!("planted: {}", trial.summary());
    assert!(noticed());
}

#[test]
fn what_is_there_in_part_is_told_from_what_is_whole() {
    let record = Record::new(7);
    let item = |fields, revision| BatchDetokenizeItem {
        result: Some(ItemResult::Done(DetokenizeResponse { fields, revision })),
    };
    let (first, second) = (released(7, 1), released(7, 2));
    assert_eq!(record.seen(item(first.clone(), 1)), Seen::Whole(1));
    assert_eq!(record.seen(item(second.clone(), 2)), Seen::Whole(2));
    assert_eq!(record.seen(item(first.clone(), 2)), Seen::Half);
    assert_eq!(record.seen(item(released(8, 1), 1)), Seen::Half);
    assert_eq!(record.seen(item(first[1..].to_vec(), 1)), Seen::Half);
    let gone = |field: &FieldResult| FieldResult { outcome: Outcome::Erased.into(), value: None, ..field.clone() };
    assert_eq!(record.seen(item(first.iter().map(gone).collect(), 0)), Seen::Erased);
    for place in 0..first.len() {
        let mut mixed = first.clone();
        mixed[place] = gone(&first[place]);
        assert_eq!(record.seen(item(mixed.clone(), 1)), Seen::Half);
        assert_eq!(record.seen(item(mixed, 0)), Seen::Half);
        let mut mixed = first.clone();
        mixed[place] = second[place].clone();
        let same = first[place] == second[place];
        assert_eq!(record.seen(item(mixed, 1)), if same { Seen::Whole(1) } else { Seen::Half });
    }
}

/// A call that is in flight for as long as the test wants.
struct Stream {
    items: mpsc::Sender<TokenizeStreamRequest>,
    results: Streaming<TokenizeStreamResponse>,
}

impl Stream {
    async fn open(channel: &Channel) -> Self {
        let (items, outgoing) = mpsc::channel(1);
        let results = TokenServiceClient::new(channel.clone()).tokenize_stream(ReceiverStream::new(outgoing)).await;
        Self { items, results: results.unwrap().into_inner() }
    }

    async fn tokenize(&mut self, number: usize) -> String {
        let item = TokenizeStreamRequest { item: Some(Record::new(number).tokenize()) };
        self.items.send(item).await.unwrap();
        match self.results.message().await.unwrap().unwrap().result {
            Some(StreamResult::Done(done)) => done.token,
            _ => panic!("item {number} was refused"),
        }
    }

    /// Sends no more; `true` when the call then ends well, with nothing left to say.
    async fn ends_well(mut self) -> bool {
        drop(self.items);
        matches!(self.results.message().await, Ok(None))
    }
}

#[test]
fn told_to_stop_the_server_answers_the_calls_in_flight_and_ends_well() {
    let folder = Folder::new();
    let mut server = serve(&folder, None);
    runtime().block_on(async {
        let (mut streams, mut tokens) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            let channel = folder.channel(&server.endpoint, Role::Shop, "backend").await;
            for _ in 0..16 {
                let mut stream = Stream::open(&channel).await;
                // Its first item is answered: the call is in flight, and not still on its way.
                tokens.push(stream.tokenize(tokens.len()).await);
                streams.push(stream);
            }
        }
        server.terminate();
        while TcpStream::connect(server.address()).is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
        for mut stream in streams {
            tokens.push(stream.tokenize(tokens.len()).await);
            assert!(stream.ends_well().await);
        }
        assert_eq!(server.wait().code(), Some(0));

        server = serve(&folder, None);
        let officer = folder.channel(&server.endpoint, Role::PrivacyOfficer, "office").await;
        let request = BatchDetokenizeRequest {
            tokens,
            fields: FIELDS.into_iter().map(Into::into).collect(),
            purpose: Purpose::SubjectRequest.into(),
        };
        let items = TokenServiceClient::new(officer).batch_detokenize(request).await.unwrap().into_inner().items;
        assert_eq!(items.len(), 256);
        for (number, item) in items.into_iter().enumerate() {
            assert_eq!(Record::new(number).seen(item), Seen::Whole(1));
        }
    });
}

#[test]
fn a_folder_has_one_server_at_a_time_and_the_second_is_told_why_not() {
    let folder = Folder::new();
    let first = serve(&folder, None);
    let Err(refused) = folder.serve(None) else { panic!("a second server serves") };
    assert_eq!(refused.status.code(), Some(5));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("strongroom.db: another process holds this store"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    runtime().block_on(async {
        let shop = folder.channel(&first.endpoint, Role::Shop, "backend").await;
        TokenServiceClient::new(shop).tokenize(Record::new(1).tokenize()).await.unwrap();
    });
}
