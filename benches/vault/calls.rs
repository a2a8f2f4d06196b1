//! The vault's callers: a shop with its orders, a carrier with its parcels. INVARIANT: every answer is checked, so that a
//! refusal is never measured as a fast call; no two orders share a customer, which is the dearer case.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use strongroom::domain::time::{Clock as _, DAY, SystemClock, Timestamp};
use strongroom::rpc::proto::delivery_service_client::DeliveryServiceClient;
use strongroom::rpc::proto::field_value::Value;
use strongroom::rpc::proto::lifecycle_service_client::LifecycleServiceClient;
use strongroom::rpc::proto::retention_service_client::RetentionServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::tokenize_stream_response::Result as ItemResult;
use strongroom::rpc::proto::{
    Address, Class, DetokenizeRequest, Field, FieldValue, GetDeliveryRequest, GrantShipmentRequest, Outcome, Purpose,
    RetentionOutlookRequest, TokenizeRequest, TokenizeStreamRequest,
};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::load::{CONNECTIONS, Caller, Dice, Load, STREAMS, Target, each_connection, paced, runtime, unary};
use crate::server::Child;

/// What a label needs.
const FIELDS: [Field; 3] = [Field::RecipientName, Field::Address, Field::Phone];
const CARRIER: &str = "swift";
const READS_A_GRANT: u32 = 1_000;

/// A shop whose orders a vault keeps.
pub struct Shop {
    shop: Target,
    carrier: Target,
    tokens: Arc<Vec<String>>,
    /// Every stream has its own, so that two reads of one grant never meet.
    serials: Vec<Vec<String>>,
    /// The number of the next order.
    next: Arc<AtomicUsize>,
    seed: u64,
}

impl Shop {
    /// Stores `records` orders and grants `grants` parcels to a carrier.
    pub fn open(vault: &Child, records: usize, grants: usize, seed: u64) -> Self {
        let (shop, carrier) = (vault.target("shop-backend"), vault.target(&format!("carrier-{CARRIER}")));
        let mut opened =
            Self { shop, carrier, tokens: Arc::default(), serials: Vec::new(), next: Arc::default(), seed };
        opened.tokens = Arc::new(opened.store(records));
        opened.serials = runtime().block_on(opened.grant(grants));
        opened
    }

    /// Stores so many more orders.
    pub fn store(&self, count: usize) -> Vec<String> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let orders = (first..first + count).map(|n| TokenizeStreamRequest { item: Some(order(n)) });
        runtime().block_on(async { stream(self.shop.connect().await, orders).await })
    }

    async fn grant(&self, count: usize) -> Vec<Vec<String>> {
        let client = LifecycleServiceClient::new(self.shop.connect().await);
        let (from, to) = (SystemClock::new().now(), SystemClock::new().now().plus(30 * DAY));
        let grants = (0..count).map(|n| {
            let request = GrantShipmentRequest {
                idempotency_key: format!("grant-{n}"),
                token: self.tokens.get(n % self.tokens.len()).unwrap().clone(),
                serial: serial(n),
                carrier: CARRIER.to_owned(),
                not_before: Some(wire_time(from)),
                not_after: Some(wire_time(to)),
                read_limit: READS_A_GRANT,
                parcel: 0,
            };
            let mut client = client.clone();
            async move { client.grant_shipment(request).await.unwrap() }
        });
        let granted = futures_util::StreamExt::buffer_unordered(tokio_stream::iter(grants), STREAMS);
        let granted = futures_util::StreamExt::count(granted).await;
        assert_eq!(granted, count);
        (0..STREAMS).map(|stream| (stream..count).step_by(STREAMS).map(serial).collect()).collect()
    }

    /// Stores so many more orders, and reads these from now on.
    pub fn keep(&mut self, count: usize) {
        self.tokens = Arc::new(self.store(count));
    }

    /// Asks how much goes within a day, every page of it, one after the other; counts what goes.
    pub fn outlook(&self) -> Load {
        runtime().block_on(async {
            let mut client = RetentionServiceClient::new(self.shop.connect().await);
            let mut load = Load::default();
            let (started, mut page_token) = (Instant::now(), Vec::new());
            loop {
                let request = RetentionOutlookRequest { days: 1, page_token };
                let page = client.retention_outlook(request).await.unwrap().into_inner();
                load.calls += page.groups.iter().map(|group| group.records).sum::<u64>();
                page_token = page.page_token;
                if page_token.is_empty() {
                    return Load { lasted: started.elapsed(), ..load };
                }
            }
        })
    }

    pub fn detokenize(&self, length: Duration) -> Load {
        self.detokenize_paced(length, Duration::ZERO)
    }

    pub fn detokenize_paced(&self, length: Duration, pause: Duration) -> Load {
        paced(&self.shop, length, pause, |channel, stream| Detokenizer {
            client: TokenServiceClient::new(channel),
            tokens: Arc::clone(&self.tokens),
            dice: Dice(self.seed << 8 | stream as u64),
        })
    }

    pub fn get_delivery(&self, length: Duration) -> Load {
        unary(&self.carrier, length, |channel, stream| Courier {
            client: DeliveryServiceClient::new(channel),
            serials: self.serials.get(stream).unwrap().clone(),
            dice: Dice(self.seed << 8 | stream as u64),
        })
    }

    pub fn tokenize(&self, length: Duration) -> Load {
        unary(&self.shop, length, |channel, _| Tokenizer {
            client: TokenServiceClient::new(channel),
            next: Arc::clone(&self.next),
        })
    }

    /// One stream a connection, as fast as it takes orders.
    pub fn tokenize_stream(&self, length: Duration) -> Load {
        each_connection(&self.shop, async |channel, _, start| {
            // The first item waits for the end of the handshake.
            let first = self.next.fetch_add(1, Ordering::Relaxed);
            stream(channel.clone(), std::iter::once(TokenizeStreamRequest { item: Some(order(first)) })).await;
            let started = start();
            let next = Arc::clone(&self.next);
            let orders = std::iter::repeat_with(move || next.fetch_add(1, Ordering::Relaxed))
                .take_while(move |_| started.elapsed() < length)
                .map(|n| TokenizeStreamRequest { item: Some(order(n)) });
            let stored = stream(channel, orders).await.len();
            Load { calls: stored as u64, lasted: started.elapsed(), latencies: Vec::new() }
        })
    }
}

/// Sends every order on one stream and answers their tokens, in order.
async fn stream(channel: Channel, orders: impl Iterator<Item = TokenizeStreamRequest> + Send + 'static) -> Vec<String> {
    let mut client = TokenServiceClient::new(channel);
    let mut results = client.tokenize_stream(tokio_stream::iter(orders)).await.unwrap().into_inner();
    let mut tokens = Vec::new();
    while let Some(item) = results.message().await.unwrap() {
        match item.result.unwrap() {
            ItemResult::Done(done) => tokens.push(done.token),
            ItemResult::Error(error) => panic!("an order was refused: {:?} {}", error.reason(), error.field),
        }
    }
    tokens
}

struct Detokenizer {
    client: TokenServiceClient<Channel>,
    tokens: Arc<Vec<String>>,
    dice: Dice,
}

impl Caller for Detokenizer {
    async fn call(&mut self) {
        let request = DetokenizeRequest {
            token: self.dice.pick(&self.tokens).clone(),
            fields: FIELDS.map(i32::from).to_vec(),
            purpose: Purpose::Fulfilment.into(),
        };
        let reply = self.client.detokenize(request).await.unwrap().into_inner();
        assert!(reply.fields.len() == FIELDS.len() && reply.fields.iter().all(|one| one.outcome() == Outcome::Granted));
    }
}

struct Courier {
    client: DeliveryServiceClient<Channel>,
    serials: Vec<String>,
    dice: Dice,
}

impl Caller for Courier {
    async fn call(&mut self) {
        let serial = self.dice.pick(&self.serials).clone();
        let reply = self.client.get_delivery(GetDeliveryRequest { serial }).await.unwrap().into_inner();
        assert!(reply.address.is_some());
    }
}

struct Tokenizer {
    client: TokenServiceClient<Channel>,
    next: Arc<AtomicUsize>,
}

impl Caller for Tokenizer {
    async fn call(&mut self) {
        let order = order(self.next.fetch_add(1, Ordering::Relaxed));
        assert!(!self.client.tokenize(order).await.unwrap().into_inner().token.is_empty());
    }
}

/// An order with every field that the kitchenware policy lets one hold.
fn order(n: usize) -> TokenizeRequest {
    let text = |field: Field, value: String| FieldValue { field: field.into(), value: Some(Value::Text(value)) };
    let address = Address {
        lines: vec![format!("{n} Kastanienallee"), "Hinterhaus, 3. Stock links".to_owned()],
        locality: "Berlin".to_owned(),
        region: String::new(),
        postal_code: "10435".to_owned(),
        country: "DE".to_owned(),
    };
    TokenizeRequest {
        idempotency_key: format!("order-{n}"),
        subject: format!("customer-{n}@shop.example"),
        class: Class::Order.into(),
        fields: vec![
            text(Field::RecipientName, format!("Wilhelmina Ottokar {n}")),
            FieldValue { field: Field::Address.into(), value: Some(Value::Address(address)) },
            text(Field::Phone, "+49 30 901820".to_owned()),
            text(Field::Email, format!("wilhelmina.{n}@example.org")),
            text(Field::PaymentAccount, format!("pay-account-{n:06}")),
        ],
    }
}

fn serial(n: usize) -> String {
    format!("SW{n:09}")
}

fn wire_time(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.0.div_euclid(1_000_000), nanos: 0 }
}

const _: () = assert!(STREAMS.is_multiple_of(CONNECTIONS));
