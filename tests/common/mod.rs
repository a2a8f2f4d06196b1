//! A whole vault in a temporary folder: real certificates, real TLS on a free port, the embedded store; only time is simulated.

#![allow(dead_code, reason = "every suite uses its part")]
#![expect(clippy::unwrap_used, reason = "a harness that cannot set up has failed its test")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use strongroom::cli::dev::{self, TENANT};
use strongroom::cli::serve::Running;
use strongroom::config::Config;
use strongroom::crypto::entropy::OsEntropy;
use strongroom::domain::caller::Role;
use strongroom::domain::time::{DAY, SimulatedClock, SystemClock, Timestamp};
use strongroom::policy::limits::Limits;
use strongroom::policy::retention::Policy;
use strongroom::rpc::client::{ClientFiles, connect};
use strongroom::rpc::proto::delivery_service_client::DeliveryServiceClient;
use strongroom::rpc::proto::field_value::Value;
use strongroom::rpc::proto::lifecycle_service_client::LifecycleServiceClient;
use strongroom::rpc::proto::operations_service_client::OperationsServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    self, Address, Class, Field, FieldValue, GrantShipmentRequest, ReportEventRequest, TokenizeRequest,
};
use strongroom::vault::Vault;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

/// 2026-01-05T00:00:00Z, where every simulated story begins.
pub const START: Timestamp = Timestamp(1_767_571_200_000_000);

pub struct House {
    pub dir: TempDir,
    pub config: Config,
    pub clock: SimulatedClock,
    pub runtime: Runtime,
    running: Option<Running>,
}

impl House {
    /// A new vault, serving.
    pub fn new() -> Self {
        Self::with(START, |_| ())
    }

    /// The same from another instant on, with a configuration of the test's making.
    pub fn with(at: Timestamp, configure: impl FnOnce(&mut Config)) -> Self {
        let mut house = Self::unstarted_at(at, configure);
        house.start();
        house
    }

    /// A new vault, serving under this retention policy.
    pub fn under(policy: Policy) -> Self {
        let mut house = Self::unstarted();
        house.config.policies.insert(house.tenant(), policy);
        house.start();
        house
    }

    /// A new vault that has never served.
    pub fn unstarted() -> Self {
        Self::unstarted_at(START, |_| ())
    }

    fn unstarted_at(at: Timestamp, configure: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = "127.0.0.1:0".parse().unwrap();
        let data = dir.path().join("data");
        let mut config = dev::prepare(&data, Some(free), &SystemClock::new(), &OsEntropy).unwrap();
        config.listener.workers = 2;
        // The tests do in a moment what callers do in a day, and wrong on purpose; those of the limits set their own.
        config.limits = Limits::out_of_reach();
        // The tests sweep when their story says so.
        config.sweep_interval = Duration::from_secs(3_600);
        configure(&mut config);
        let clock = SimulatedClock::starting_at(at);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { dir, config, clock, runtime, running: None }
    }

    pub fn start(&mut self) {
        let clock = Arc::new(self.clock.clone());
        self.running = Some(Running::start(self.config.clone(), clock).unwrap());
    }

    /// Stops in good order; the files stay.
    pub fn stop(&mut self) {
        self.running.take().unwrap().stop().unwrap();
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// The open vault. Not to be kept: whoever keeps it keeps its keys in memory.
    pub fn vault(&self) -> Vault {
        self.running().vault().unwrap()
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn files(&self, role: Role, name: &str) -> ClientFiles {
        let certs = self.data().join("certs");
        let stem = format!("{}-{name}", role.as_str());
        ClientFiles {
            certificate: certs.join(format!("{stem}.pem")),
            key: certs.join(format!("{stem}-key.pem")),
            roots: certs.join("ca.pem"),
        }
    }

    pub fn channel(&self, role: Role, name: &str) -> Channel {
        let endpoint = format!("https://{}", self.running().address);
        self.runtime.block_on(connect(&endpoint, &self.files(role, name))).unwrap()
    }

    pub fn tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.channel(Role::Shop, "backend"))
    }

    pub fn lifecycle(&self) -> LifecycleServiceClient<Channel> {
        LifecycleServiceClient::new(self.channel(Role::Shop, "backend"))
    }

    pub fn carrier(&self, name: &str) -> DeliveryServiceClient<Channel> {
        DeliveryServiceClient::new(self.channel(Role::Carrier, name))
    }

    pub fn operations(&self) -> OperationsServiceClient<Channel> {
        OperationsServiceClient::new(self.channel(Role::Operator, "oncall"))
    }

    /// Runs a future to its end.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Stores an order and answers its token.
    pub fn tokenize(&self, request: TokenizeRequest) -> String {
        let mut tokens = self.tokens();
        self.run(tokens.tokenize(request)).unwrap().into_inner().token
    }

    /// Grants one parcel of a record to a carrier for 30 days and 10 reads.
    pub fn grant(&self, token: &str, serial: &str, carrier: &str) -> String {
        let now = strongroom::domain::time::Clock::now(&self.clock);
        let request = GrantShipmentRequest {
            idempotency_key: format!("grant-{serial}-{carrier}"),
            token: token.to_owned(),
            serial: serial.to_owned(),
            carrier: carrier.to_owned(),
            not_before: Some(wire_time(now)),
            not_after: Some(wire_time(now.plus(30 * DAY))),
            read_limit: 10,
            parcel: 0,
        };
        let mut lifecycle = self.lifecycle();
        self.run(lifecycle.grant_shipment(request)).unwrap().into_inner().grant_id
    }

    /// Reports an event that happens now.
    pub fn event(&self, token: &str, kind: proto::EventKind, ordinal: u32) -> Result<(), tonic::Status> {
        let now = strongroom::domain::time::Clock::now(&self.clock);
        let request = ReportEventRequest {
            idempotency_key: format!("event-{kind:?}-{ordinal}-{}-{}", now.0, &token[..12]),
            token: token.to_owned(),
            kind: kind.into(),
            ordinal,
            occurred_at: Some(wire_time(now)),
        };
        let mut lifecycle = self.lifecycle();
        self.run(lifecycle.report_event(request)).map(drop)
    }

    /// Sweeps until nothing is left to destroy, and answers how many records went.
    pub fn sweep(&self) -> usize {
        let vault = self.vault();
        self.run(async {
            let mut destroyed = 0;
            loop {
                let swept = vault.sweep().await.unwrap();
                destroyed += swept.destroyed;
                if !swept.more {
                    return destroyed;
                }
            }
        })
    }

    pub fn tenant(&self) -> strongroom::domain::id::TenantId {
        TENANT.parse().unwrap()
    }
}

pub fn wire_time(at: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.0.rem_euclid(1_000_000) * 1_000).unwrap();
    prost_types::Timestamp { seconds: at.0.div_euclid(1_000_000), nanos }
}

pub fn text(field: Field, value: &str) -> FieldValue {
    FieldValue { field: field.into(), value: Some(Value::Text(value.to_owned())) }
}

pub fn address(lines: &[&str], locality: &str, postal_code: &str, country: &str) -> FieldValue {
    let address = Address {
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        locality: locality.to_owned(),
        region: String::new(),
        postal_code: postal_code.to_owned(),
        country: country.to_owned(),
    };
    FieldValue { field: Field::Address.into(), value: Some(Value::Address(address)) }
}

/// An order with every field the kitchenware policy lets an order hold; `n` tells it from others.
pub fn order(n: usize) -> TokenizeRequest {
    TokenizeRequest {
        idempotency_key: format!("order-{n}"),
        subject: format!("customer-{n}@shop.example"),
        class: Class::Order.into(),
        fields: vec![
            text(Field::RecipientName, &format!("Wilhelmina Ottokar {n}")),
            address(&[&format!("{n} Kastanienallee"), "Hinterhaus"], "Berlin", "10435", "DE"),
            text(Field::Phone, "+49 30 901820"),
            text(Field::Email, &format!("wilhelmina.{n}@example.org")),
            text(Field::PaymentAccount, &format!("pay-account-{n:06}")),
        ],
    }
}
