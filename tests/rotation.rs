//! Keys rotate under load and nobody notices; what was erased opens in no backup after the horizon, whatever keys there are then;
//! a kill at any instant leaves what opens all, and the next start goes on.
//!
//! `STRONGROOM_FULL=1` rotates fifty times under load, kills more often and keeps more records; `STRONGROOM_SEED` repeats a run's
//! instants and its mix of calls. The planted faults show that the checks see what they are for: a new epoch promoted before
//! its copies, tags of the index that no rotation changes, a rewrap that writes erased keys back, an epoch whose key stays.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "rotation/backups.rs"]
mod backups;
mod common;
#[path = "rotation/decisions.rs"]
mod decisions;
#[path = "rotation/kills.rs"]
mod kills;
#[path = "rotation/load.rs"]
mod load;
#[path = "common/people.rs"]
mod people;
#[cfg(feature = "planted")]
#[path = "common/planted.rs"]
mod planted;
#[expect(dead_code, reason = "every suite uses its part")]
#[path = "crash/server.rs"]
mod server;

use std::path::PathBuf;

use common::{House, text};
use rusqlite::Connection;
use strongroom::config::Config;
use strongroom::crypto::entropy::{Entropy, OsEntropy, SeededEntropy, array};
use strongroom::crypto::keyring::{Keyring, peek};
use strongroom::crypto::rotation::Schedule;
use strongroom::domain::caller::Role;
use strongroom::domain::time::{Clock as _, DAY, MINUTE, SystemClock};
use strongroom::rpc::proto::key_service_client::KeyServiceClient;
use strongroom::rpc::proto::{
    Class, EpochState, Field, ListKeysRequest, ListKeysResponse, RotateKekRequest, RotateKekResponse, TokenizeRequest,
};
use tonic::transport::Channel;

/// W = 2 + 1 + 8 = 11 days.
const SCHEDULE: Schedule = Schedule { period: 2 * DAY, rewrap_within: DAY, backups: 8 * DAY };

fn full() -> bool {
    std::env::var_os("STRONGROOM_FULL").is_some()
}

fn seed() -> u64 {
    let seed = match std::env::var("STRONGROOM_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => u64::from_le_bytes(array(&OsEntropy)),
    };
    println!("STRONGROOM_SEED={seed}");
    seed
}

/// A whole number below `end`.
fn below(end: u64, dice: &dyn Entropy) -> u64 {
    u64::from_le_bytes(array(dice)) % end
}

/// Where the keyring's copies are registered.
fn copies(config: &Config) -> [PathBuf; 2] {
    let folder = config.keyring.parent().unwrap();
    [folder.join("copy-a"), folder.join("copy-b")]
}

/// A vault whose time begins a minute after its first epoch's, with two copies of its keyring.
fn house(budget: u32) -> House {
    house_of(budget, SCHEDULE)
}

fn house_of(budget: u32, schedule: Schedule) -> House {
    House::with(SystemClock::new().now().plus(MINUTE), |config| {
        config.keys.schedule = schedule;
        config.keys.budget = budget;
        config.keys.places.copies = copies(config).into();
    })
}

fn keys(house: &House) -> KeyServiceClient<Channel> {
    KeyServiceClient::new(house.channel(Role::KeyAdmin, "office"))
}

fn list(house: &House) -> ListKeysResponse {
    let mut keys = keys(house);
    house.run(keys.list_keys(ListKeysRequest {})).unwrap().into_inner()
}

fn active(listed: &ListKeysResponse) -> u32 {
    listed.epochs.iter().find(|epoch| epoch.state() == EpochState::Active).unwrap().epoch
}

/// Replaces the active epoch and waits until nothing is left to be rewrapped; answers all that was told on the way.
async fn rotate(keys: &mut KeyServiceClient<Channel>) -> Result<Vec<RotateKekResponse>, tonic::Status> {
    let listed = keys.list_keys(ListKeysRequest {}).await?.into_inner();
    let mut told = keys.rotate_kek(RotateKekRequest { active_epoch: active(&listed) }).await?.into_inner();
    let mut all = Vec::new();
    while let Some(progress) = told.message().await? {
        all.push(progress);
    }
    Ok(all)
}

/// Does all that the schedule asks for now.
fn keep(house: &House) {
    let vault = &house.vault();
    house.run(async { while vault.keep_keys().await.unwrap().more {} });
}

/// Days pass; every day the sweeper and the keeper do their work.
fn live(house: &House, days: i64) {
    for _ in 0..days {
        house.clock.advance(DAY);
        house.sweep();
        keep(house);
    }
}

fn email(n: usize) -> String {
    format!("wilhelmina.{n}@example.org")
}

fn phone(n: usize) -> String {
    format!("+4930{:08}", 10_000_000 + n)
}

/// An account that is findable by email, phone and reference.
fn account(n: usize) -> TokenizeRequest {
    TokenizeRequest {
        idempotency_key: format!("account-{n}"),
        subject: format!("customer-{n}"),
        class: Class::Account.into(),
        fields: vec![
            text(Field::AccountName, &format!("Wilhelmina Ottokar {n}")),
            text(Field::Email, &email(n)),
            text(Field::Phone, &phone(n)),
        ],
    }
}

/// The keyring as its file has it.
fn keyring(config: &Config) -> Keyring {
    let root = config.root.unlock(&peek(&config.keyring).unwrap().root).unwrap();
    Keyring::load(&config.keyring, &root).unwrap()
}

/// Rows under each epoch, in every table that has one; from the file itself.
fn epochs_in(database: &std::path::Path) -> Vec<(String, u32, u64)> {
    let connection = Connection::open(database).unwrap();
    let tables = "SELECT name FROM sqlite_schema AS s WHERE type = 'table' AND EXISTS \
                  (SELECT 1 FROM pragma_table_xinfo(s.name) WHERE name = 'epoch')";
    let tables: Vec<String> =
        connection.prepare(tables).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(tables.len() >= 11, "{tables:?}");
    let mut found = Vec::new();
    for table in tables {
        let text = format!("SELECT epoch, COUNT(*) FROM {table} GROUP BY epoch");
        let mut statement = connection.prepare(&text).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        found.extend(rows.map(|row| row.map(|(epoch, rows)| (table.clone(), epoch, rows)).unwrap()));
    }
    found
}

fn dice() -> SeededEntropy {
    SeededEntropy::new(seed())
}
