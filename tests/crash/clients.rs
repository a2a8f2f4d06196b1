//! Many clients at once, each with one write in flight and its own books of what was acknowledged. The books live in the
//! test's process, where the server's death cannot reach them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use strongroom::crypto::entropy::{Entropy, SeededEntropy, array};
use strongroom::domain::caller::Role;
use strongroom::rpc::proto::lifecycle_service_client::LifecycleServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{BatchDetokenizeItem, BatchDetokenizeRequest, DescribeRequest, Purpose, RecordState};
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use crate::record::{FIELDS, Record, Seen, Write};
use crate::server::Folder;

/// Clients, each with one write in flight at any time.
const CLIENTS: usize = 144;
/// Connections that they share.
const CONNECTIONS: usize = 8;

/// How a finding begins that only a restarted server can have made.
pub const AFTER_A_KILL: &str = "after a kill";

/// What all clients tell the test.
#[derive(Default)]
pub struct Tally {
    pub in_flight: AtomicUsize,
    pub acknowledged: watch::Sender<usize>,
    /// Calls that got no answer.
    pub cut: AtomicUsize,
    /// Of those, corrections and erasures that had happened all the same.
    pub landed: AtomicUsize,
    records: AtomicUsize,
    /// Acknowledged, and not there.
    pub lost: Mutex<Vec<String>>,
    /// Neither there nor not there.
    pub half: Mutex<Vec<String>>,
    /// Answers that no client should get.
    pub odd: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Lines {
    shop: TokenServiceClient<Channel>,
    lifecycle: LifecycleServiceClient<Channel>,
}

struct Client {
    dice: SeededEntropy,
    records: Vec<Record>,
    tally: Arc<Tally>,
    signed_at: prost_types::Timestamp,
}

/// All clients, between two errands.
pub struct Clients {
    clients: Vec<Client>,
    pub tally: Arc<Tally>,
}

/// A whole number below `end`.
pub fn below(end: u64, dice: &dyn Entropy) -> u64 {
    u64::from_le_bytes(array(dice)) % end
}

impl Clients {
    pub fn new(seed: u64, signed_at: prost_types::Timestamp) -> Self {
        let tally = Arc::new(Tally::default());
        let client = |index: u64| Client {
            dice: SeededEntropy::new(seed.wrapping_add(index)),
            records: Vec::new(),
            tally: Arc::clone(&tally),
            signed_at,
        };
        Self { clients: (1..=CLIENTS as u64).map(client).collect(), tally }
    }

    /// Writes without a pause until the server is gone. `meanwhile` runs beside it and has to end the server.
    pub async fn load(&mut self, folder: &Folder, endpoint: &str, meanwhile: impl Future<Output = ()>) {
        let errands = self.send_out(folder, endpoint, |mut client, lines| async move {
            client.write_until_cut(lines).await;
            client
        });
        let errands = errands.await;
        meanwhile.await;
        self.gather(errands).await;
    }

    /// Reads back what was touched since the last look (or all there ever was), asks again what was cut off, reads that back.
    pub async fn check(&mut self, folder: &Folder, endpoint: &str, all: bool) {
        let mut officer = TokenServiceClient::new(folder.channel(endpoint, Role::PrivacyOfficer, "office").await);
        self.read_back(&mut officer, AFTER_A_KILL, |record| all || record.touched).await;
        let errands = self.send_out(folder, endpoint, move |mut client, mut lines| async move {
            client.ask_again(&mut lines).await;
            client.describe(&mut lines, all).await;
            client
        });
        let errands = errands.await;
        self.gather(errands).await;
        self.read_back(&mut officer, "asked again", |record| record.repeated).await;
        for record in self.clients.iter_mut().flat_map(|client| &mut client.records) {
            (record.touched, record.repeated) = (false, false);
        }
    }

    /// By the books: records that live, records that were erased.
    pub fn count(&self) -> (u64, u64) {
        let records = self.clients.iter().flat_map(|client| &client.records);
        records.fold((0, 0), |(live, erased), one| if one.erased { (live, erased + 1) } else { (live + 1, erased) })
    }

    async fn read_back(
        &mut self,
        officer: &mut TokenServiceClient<Channel>,
        when: &str,
        which: impl Fn(&Record) -> bool,
    ) {
        let records = self.clients.iter_mut().flat_map(|client| &mut client.records);
        let mut records: Vec<&mut Record> = records.filter(|one| one.token.is_some() && which(one)).collect();
        for page in records.chunks_mut(256) {
            let request = BatchDetokenizeRequest {
                tokens: page.iter().filter_map(|record| record.token.clone()).collect(),
                fields: FIELDS.into_iter().map(Into::into).collect(),
                purpose: Purpose::SubjectRequest.into(),
            };
            let items = officer.batch_detokenize(request).await.unwrap().into_inner().items;
            assert_eq!(items.len(), page.len());
            for (record, item) in page.iter_mut().zip(items) {
                self.tally.judge(when, record, item);
            }
        }
        for client in &mut self.clients {
            client.records.retain(|record| !record.lost);
        }
    }

    async fn send_out<F: Future<Output = Client> + Send + 'static>(
        &mut self,
        folder: &Folder,
        endpoint: &str,
        errand: impl Fn(Client, Lines) -> F,
    ) -> Vec<tokio::task::JoinHandle<Client>> {
        let mut lines = Vec::new();
        for _ in 0..CONNECTIONS {
            let shop = folder.channel(endpoint, Role::Shop, "backend").await;
            lines.push(Lines {
                lifecycle: LifecycleServiceClient::new(shop.clone()),
                shop: TokenServiceClient::new(shop),
            });
        }
        let clients = self.clients.drain(..).zip(lines.iter().cycle());
        clients.map(|(client, lines)| tokio::spawn(errand(client, lines.clone()))).collect()
    }

    async fn gather(&mut self, errands: Vec<tokio::task::JoinHandle<Client>>) {
        for errand in errands {
            self.clients.push(errand.await.unwrap());
        }
    }
}

impl Tally {
    fn judge(&self, when: &str, record: &mut Record, item: BatchDetokenizeItem) {
        let seen = record.seen(item);
        if record.landed(seen) {
            count(&self.landed);
        }
        if !record.allows(seen) {
            let list = if seen == Seen::Half { &self.half } else { &self.lost };
            list.lock().unwrap().push(format!("{when}: {record:?} was found {seen:?}"));
            record.lost = true;
        }
    }
}

impl Client {
    async fn write_until_cut(&mut self, mut lines: Lines) {
        loop {
            let (place, write) = self.next();
            let record = &mut self.records[place];
            (record.open, record.touched) = (Some(write), true);
            count(&self.tally.in_flight);
            let answer = self.send(&mut lines, place).await;
            self.tally.in_flight.fetch_sub(1, Ordering::SeqCst);
            match answer {
                Ok(()) => self.tally.acknowledged.send_modify(|number| *number += 1),
                Err(status) if is_answer(&status) => {
                    self.records[place].open = None;
                    self.odd(place, write, status.message());
                    self.records.retain(|record| record.token.is_some());
                }
                Err(_) => return count(&self.tally.cut),
            }
        }
    }

    /// Mostly something new; at times a change of what is there.
    fn next(&mut self) -> (usize, Write) {
        let write = match below(10, &self.dice) {
            0 => Write::Correct,
            1 => Write::Report,
            2 => Write::Erase,
            _ => Write::Tokenize,
        };
        let fit = |record: &Record| record.is_live() && (write != Write::Report || record.due.is_none());
        let fitting: Vec<usize> = (0..self.records.len()).filter(|place| fit(&self.records[*place])).collect();
        if write == Write::Tokenize || fitting.is_empty() {
            self.records.push(Record::new(self.tally.records.fetch_add(1, Ordering::SeqCst)));
            return (self.records.len() - 1, Write::Tokenize);
        }
        (fitting[below(fitting.len() as u64, &self.dice) as usize], write)
    }

    /// Sends the record's open write; what the answer acknowledges goes into the books.
    async fn send(&mut self, lines: &mut Lines, place: usize) -> Result<(), Status> {
        let record = &mut self.records[place];
        match record.open.unwrap() {
            Write::Tokenize => {
                record.token = Some(lines.shop.tokenize(record.tokenize()).await?.into_inner().token);
                record.revision = 1;
            }
            Write::Correct => record.revision = lines.shop.correct(record.correct()).await?.into_inner().revision,
            Write::Report => {
                let reported = lines.lifecycle.report_event(record.report(self.signed_at)).await?.into_inner();
                record.due = Some(reported.due.unwrap());
            }
            Write::Erase => {
                lines.shop.erase(record.erase()).await?;
                record.erased = true;
            }
        }
        record.open = None;
        Ok(())
    }

    /// Repeats what was cut off. What it leads to is read back, and counted at the end.
    async fn ask_again(&mut self, lines: &mut Lines) {
        for place in 0..self.records.len() {
            let Some(write) = self.records[place].open else { continue };
            let expected = match write {
                Write::Tokenize | Write::Correct => self.records[place].revision + 1,
                Write::Report | Write::Erase => self.records[place].revision,
            };
            match self.send(lines, place).await {
                Ok(()) if self.records[place].revision == expected => self.records[place].repeated = true,
                Ok(()) => self.odd(place, write, "another revision"),
                Err(status) => self.odd(place, write, status.message()),
            }
        }
    }

    /// An acknowledged event has moved the due that is told.
    async fn describe(&mut self, lines: &mut Lines, all: bool) {
        let told = |record: &&Record| record.due.is_some() && (all || record.touched);
        for record in self.records.iter().filter(told) {
            let request = DescribeRequest { token: record.token.clone().unwrap() };
            let found = lines.shop.describe(request).await.unwrap().into_inner();
            let right = match found.state() {
                RecordState::Live => !record.erased && found.due == record.due,
                RecordState::Erased => record.erased,
                RecordState::Expired | RecordState::Unspecified => false,
            };
            if !right {
                let text = format!("{record:?} is described {:?}, due {:?}", found.state(), found.due);
                self.tally.lost.lock().unwrap().push(text);
            }
        }
    }

    fn odd(&self, place: usize, write: Write, answer: &str) {
        let text = format!("{write:?} of {:?} was answered: {answer}", self.records[place]);
        self.tally.odd.lock().unwrap().push(text);
    }
}

fn count(number: &AtomicUsize) {
    number.fetch_add(1, Ordering::SeqCst);
}

/// The vault said so, and not the wire.
fn is_answer(status: &Status) -> bool {
    status.get_error_details().error_info().is_some()
}
