//! Rotations under load: eight clients on standing connections, none of which tries anything twice.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use strongroom::crypto::entropy::SeededEntropy;
use strongroom::domain::time::{Clock, SimulatedClock};
use strongroom::rpc::proto::delivery_service_client::DeliveryServiceClient;
use strongroom::rpc::proto::find_request::By;
use strongroom::rpc::proto::lifecycle_service_client::LifecycleServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    CorrectRequest, DetokenizeRequest, EraseReason, EraseRequest, EventKind, FindRequest, GetDeliveryRequest,
    GrantShipmentRequest, Outcome, Purpose, ReportEventRequest,
};
use strongroom::store::forensic::{Haul, Loot, attack};

use super::common::{order, wire_time};
use super::*;

const CLIENTS: usize = 8;

/// What all clients tell the test.
#[derive(Default)]
struct Tally {
    over: AtomicBool,
    rotating: AtomicBool,
    /// How often the clock was moved on: what is older than two moves is left alone.
    moves: AtomicUsize,
    calls: AtomicUsize,
    /// Begun while a rotation was under way.
    calls_during: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

struct Client {
    number: usize,
    dice: SeededEntropy,
    clock: SimulatedClock,
    tally: Arc<Tally>,
    shop: TokenServiceClient<Channel>,
    lifecycle: LifecycleServiceClient<Channel>,
    carrier: DeliveryServiceClient<Channel>,
    next: usize,
    mine: VecDeque<Mine>,
}

/// A record of a client's own.
struct Mine {
    n: usize,
    token: String,
    revision: u32,
    born: usize,
    is_account: bool,
    serial: Option<String>,
    /// The last request that stored or changed it, which answers the same when sent again.
    email: String,
}

impl Client {
    async fn work(mut self) {
        while !self.tally.over.load(Ordering::SeqCst) {
            let during = self.tally.rotating.load(Ordering::SeqCst);
            let what = below(10, &self.dice);
            if let Err(why) = self.call(what).await {
                self.tally.failed.lock().unwrap().push(format!("client {}, call {what}: {why}", self.number));
            }
            self.tally.calls.fetch_add(1, Ordering::SeqCst);
            if during {
                self.tally.calls_during.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    async fn call(&mut self, what: u64) -> Result<(), String> {
        let moves = self.tally.moves.load(Ordering::SeqCst);
        self.mine.retain(|one| one.born + 2 > moves);
        if self.mine.len() < 4 || what < 2 && self.mine.len() < 30 {
            return self.store(moves).await;
        }
        let at = below(self.mine.len() as u64, &self.dice) as usize;
        match what {
            2 => self.correct(at).await,
            3 => self.find(at).await,
            4 => self.grant(at).await,
            5 => self.deliver(at).await,
            6 => self.event(at).await,
            7 => self.again(at).await,
            8 if self.mine.len() > 10 => self.erase(at).await,
            _ => self.read(at).await,
        }
    }

    fn key(&self) -> String {
        hex::encode(array::<12>(&self.dice))
    }

    async fn store(&mut self, born: usize) -> Result<(), String> {
        let n = self.next;
        self.next += CLIENTS;
        let is_account = below(2, &self.dice) == 0;
        let request = if is_account { account(n) } else { order(n) };
        let token =
            self.shop.tokenize(request).await.map_err(|status| format!("tokenize: {status}"))?.into_inner().token;
        self.mine.push_back(Mine { n, token, revision: 1, born, is_account, serial: None, email: email(n) });
        Ok(())
    }

    /// The same request under the same key: the same token, as long as keys are remembered.
    async fn again(&mut self, at: usize) -> Result<(), String> {
        let Mine { n, token, is_account, born, .. } = &self.mine[at];
        if self.tally.moves.load(Ordering::SeqCst) > *born {
            return self.read(at).await;
        }
        let request = if *is_account { account(*n) } else { order(*n) };
        let again = self.shop.tokenize(request).await.map_err(|status| format!("again: {status}"))?.into_inner().token;
        let forgotten = self.tally.moves.load(Ordering::SeqCst) > *born;
        if again == *token || forgotten { Ok(()) } else { Err("a repeated request was carried out twice".to_owned()) }
    }

    async fn read(&mut self, at: usize) -> Result<(), String> {
        let one = &self.mine[at];
        let request = DetokenizeRequest {
            token: one.token.clone(),
            fields: vec![Field::Email.into()],
            purpose: Purpose::SelfService.into(),
        };
        let reply = self.shop.detokenize(request).await.map_err(|status| format!("read: {status}"))?.into_inner();
        let field = &reply.fields[0];
        let value = match &field.value {
            Some(strongroom::rpc::proto::field_result::Value::Text(text)) => text.clone(),
            _ => String::new(),
        };
        if field.outcome() == Outcome::Granted && value == one.email && reply.revision == one.revision {
            Ok(())
        } else {
            Err(format!("read: {:?}, revision {}", field.outcome(), reply.revision))
        }
    }

    async fn correct(&mut self, at: usize) -> Result<(), String> {
        let idempotency_key = self.key();
        let one = &mut self.mine[at];
        // Letters alone: digits at random are a payment card's number now and then, and refused.
        let letters: String = idempotency_key.bytes().map(|byte| char::from(b'a' + byte % 16)).collect();
        let changed = format!("changed.{letters}@example.org");
        let request = CorrectRequest {
            idempotency_key,
            token: one.token.clone(),
            if_revision: one.revision,
            fields: vec![text(Field::Email, &changed)],
            clear: Vec::new(),
        };
        one.revision =
            self.shop.correct(request).await.map_err(|status| format!("correct: {status}"))?.into_inner().revision;
        one.email = changed;
        Ok(())
    }

    async fn find(&mut self, at: usize) -> Result<(), String> {
        let one = &self.mine[at];
        let by = if one.is_account {
            By::Email(one.email.clone())
        } else {
            By::CustomerReference(format!("customer-{}@shop.example", one.n))
        };
        let class = if one.is_account { Class::Account } else { Class::Order };
        let (purpose, class) = (Purpose::SelfService.into(), class.into());
        let request = FindRequest { purpose, class, by: Some(by), page_size: 0, page_token: Vec::new() };
        let found = self.shop.find(request).await.map_err(|status| format!("find: {status}"))?.into_inner().tokens;
        if found == [one.token.clone()] { Ok(()) } else { Err(format!("find: {} tokens", found.len())) }
    }

    async fn grant(&mut self, at: usize) -> Result<(), String> {
        let (now, idempotency_key) = (self.clock.now(), self.key());
        let one = &mut self.mine[at];
        if one.is_account || one.serial.is_some() {
            return Ok(());
        }
        let serial = format!("SW{:09}", one.n);
        let request = GrantShipmentRequest {
            idempotency_key,
            token: one.token.clone(),
            serial: serial.clone(),
            carrier: "swift".to_owned(),
            not_before: Some(wire_time(now)),
            not_after: Some(wire_time(now.plus(60 * DAY))),
            read_limit: 1_000,
            parcel: 0,
        };
        self.lifecycle.grant_shipment(request).await.map_err(|status| format!("grant: {status}"))?;
        one.serial = Some(serial);
        Ok(())
    }

    async fn deliver(&mut self, at: usize) -> Result<(), String> {
        let Some(serial) = self.mine[at].serial.clone() else { return Ok(()) };
        let request = GetDeliveryRequest { serial: serial.clone() };
        let reply =
            self.carrier.get_delivery(request).await.map_err(|status| format!("deliver: {status}"))?.into_inner();
        if reply.serial == serial { Ok(()) } else { Err("deliver: another serial".to_owned()) }
    }

    async fn event(&mut self, at: usize) -> Result<(), String> {
        let (now, idempotency_key) = (self.clock.now(), self.key());
        let one = &self.mine[at];
        let kind = if one.is_account { EventKind::AccountActive } else { EventKind::Dispatched };
        let request = ReportEventRequest {
            idempotency_key,
            token: one.token.clone(),
            kind: kind.into(),
            ordinal: 0,
            occurred_at: Some(wire_time(now)),
        };
        self.lifecycle.report_event(request).await.map(drop).map_err(|status| format!("event: {status}"))
    }

    async fn erase(&mut self, at: usize) -> Result<(), String> {
        let idempotency_key = self.key();
        let one = self.mine.remove(at).unwrap();
        let request = EraseRequest { idempotency_key, token: one.token, reason: EraseReason::SubjectRequest.into() };
        self.shop.erase(request).await.map(drop).map_err(|status| format!("erase: {status}"))
    }
}

/// Every standing record opens, and is found by each of its values.
fn all_readable(house: &House, tokens: &[String]) {
    let mut shop = house.tokens();
    for (n, token) in tokens.iter().enumerate() {
        let fields = vec![Field::AccountName.into(), Field::Email.into(), Field::Phone.into()];
        let request = DetokenizeRequest { token: token.clone(), fields, purpose: Purpose::SelfService.into() };
        let reply = house.run(shop.detokenize(request)).unwrap().into_inner();
        assert!(reply.fields.iter().all(|field| field.outcome() == Outcome::Granted), "record {n}");
        for by in [By::Email(email(n)), By::Phone(phone(n)), By::CustomerReference(format!("customer-{n}"))] {
            let (purpose, class) = (Purpose::SelfService.into(), Class::Account.into());
            let request = FindRequest { purpose, class, by: Some(by), page_size: 0, page_token: Vec::new() };
            assert_eq!(
                house.run(shop.find(request)).unwrap().into_inner().tokens,
                std::slice::from_ref(token),
                "record {n}"
            );
        }
    }
}

#[test]
fn rotations_under_load_fail_no_call_and_leave_nothing_under_an_old_epoch() {
    let (rotations, standing) = if full() { (50, 400) } else { (6, 100) };
    let seed = seed();
    // Epochs are replaced by order alone, and destroyed by the schedule.
    let budget = if full() { 10_000 } else { 1_500 };
    let house = house_of(budget, Schedule { period: 360 * DAY, ..SCHEDULE });
    let tokens: Vec<String> = (0..standing).map(|n| house.tokenize(account(n))).collect();
    let tally = Arc::new(Tally::default());
    let client = |number: usize| Client {
        number,
        dice: SeededEntropy::new(seed.wrapping_add(number as u64)),
        clock: house.clock.clone(),
        tally: Arc::clone(&tally),
        shop: house.tokens(),
        lifecycle: house.lifecycle(),
        carrier: house.carrier("swift"),
        next: standing + number,
        mine: VecDeque::new(),
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).map(|client| house.runtime.spawn(client.work())).collect();
    let mut keys = keys(&house);
    let (mut old, mut traces) = (Vec::new(), Vec::new());
    for _ in 0..rotations {
        // What a thief has of this day: the keyring, and where its wrapped keys begin in the files.
        old.push(keyring(&house.config));
        let mut loot = Loot::default();
        loot.gather(&house.config.store.database).unwrap();
        let wrapped = loot.traces().into_iter().filter(|trace| trace.is_key).take(400);
        traces.extend(wrapped.map(|trace| trace.bytes.to_vec()));
        tally.rotating.store(true, Ordering::SeqCst);
        let started = SystemClock::new().boot();
        let told = house.run(rotate(&mut keys)).unwrap();
        let seconds = (SystemClock::new().boot() - started) as f64 / 1e6;
        assert!(seconds * f64::from(budget) > 0.5 * told[0].rows_left as f64, "the rewrap kept to its budget");
        tally.rotating.store(false, Ordering::SeqCst);
        assert_eq!(told.last().unwrap().rows_left, 0);
        assert!(told.len() > 1 && told[0].rows_left > 0, "there was something to rewrap");
        // Idempotency keys of the old epoch run out, and the schedule destroys it.
        tally.moves.fetch_add(1, Ordering::SeqCst);
        house.clock.advance(10 * DAY);
        while house
            .running()
            .vault()
            .unwrap()
            .store()
            .read(|view| view.rows_under(None))
            .unwrap()
            .iter()
            .any(|under| under.table == "idempotency" && under.epoch.0 < told[0].active_epoch)
        {
            house.sweep();
        }
        keep(&house);
        let destroyed = keyring(&house.config);
        assert_eq!(destroyed.epochs().last().unwrap().number(), destroyed.active().number(), "one epoch is left");
    }
    tally.over.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| house.run(client).unwrap());
    let count = |number: &AtomicUsize| number.load(Ordering::SeqCst);
    let failed = tally.failed.lock().unwrap();
    println!(
        "{rotations} rotations under {CLIENTS} clients: {} calls, {} of them while keys were rewrapped; {} failed",
        count(&tally.calls),
        count(&tally.calls_during),
        failed.len()
    );
    assert!(failed.is_empty(), "{} calls failed, the first: {}", failed.len(), failed[0]);
    assert!(count(&tally.calls_during) > if full() { 10_000 } else { 300 });
    all_readable(&house, &tokens);

    let mut house = house;
    house.stop();
    let (database, now) = (house.config.store.database.clone(), keyring(&house.config));
    let active = now.active().number().0;
    let under: Vec<_> = epochs_in(&database).into_iter().filter(|(_, epoch, _)| *epoch != active).collect();
    // What was written between the last promotion and now lies under the active epoch, and nothing anywhere else.
    assert_eq!(under, []);
    let mut loot = Loot::default();
    loot.gather(&database).unwrap();
    for old in &old {
        let Haul { keys, opened, .. } = attack(&loot, &Loot::default(), old);
        assert_eq!((keys, opened.len()), (0, 0), "an old keyring opens nothing of today");
    }
    let haul = attack(&loot, &Loot::default(), &now);
    assert!(haul.keys > standing && haul.opened.len() >= standing, "the control: today's keyring opens all");
    // The bytes themselves: where a key was wrapped under an old epoch, it no longer stands.
    let file = std::fs::read(&database).unwrap();
    let found = aho_corasick::AhoCorasick::new(&traces).unwrap().find_iter(&file).count();
    println!("{} wrapped keys of old epochs looked for in {} bytes: {found} found", traces.len(), file.len());
    assert_eq!(found, 0);
    let orphans = "SELECT COUNT(*) FROM dek WHERE record <> 0 AND record NOT IN (SELECT id FROM record)";
    let orphans: i64 = Connection::open(&database).unwrap().query_row(orphans, [], |row| row.get(0)).unwrap();
    assert_eq!(orphans, 0, "an erased record's key came back");
    let verdict = strongroom::store::verify_log(&database, Some(&now), None).unwrap();
    assert!(matches!(verdict, strongroom::store::LogVerdict::Sound(_)), "{verdict:?}");
    // And it all starts again under the last keyring.
    house.start();
    all_readable(&house, &tokens[..10]);
}
