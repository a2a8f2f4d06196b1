//! What a restored vault must not do again, and what keeps a restore from being whole. Each was seen red once: approvals and numbers
//! that only a longer ledger made new, callers' changes told apart by their number, a place that nobody held, a log left behind.

use std::fs;
use std::sync::atomic::AtomicI64;

use strongroom::audit::entry::Action;
use strongroom::domain::time::{SimulatedClock, Timestamp};
use strongroom::rpc::proto::disclosure_service_client::DisclosureServiceClient;
use strongroom::rpc::proto::{DiscloseRequest, disclose_response};
use strongroom::store::{StorePaths, is_held};

use super::*;

/// Whether it was disclosed; else the approval that is waited for.
fn disclose(house: &House, token: &str) -> Option<String> {
    let request =
        DiscloseRequest { token: token.to_owned(), fields: vec![Field::Phone.into()], case: "4 Js 123/26".to_owned() };
    let mut office = DisclosureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    match house.run(office.disclose(request)).unwrap().into_inner().result.unwrap() {
        disclose_response::Result::Done(_) => None,
        disclose_response::Result::PendingApproval(pending) => Some(pending.approval_id),
    }
}

#[test]
fn an_approval_that_served_since_the_backup_serves_no_second_time_though_the_ledger_says_nothing_of_it() {
    let mut house = House::new();
    let token = house.tokenize(order(1));
    let pending = disclose(&house, &token).unwrap();
    approve(&house, pending.clone());
    let (_, manifest) = back_up(&house);
    assert_eq!(disclose(&house, &token), None);
    let grant = house.grant(&token, "SW000000001", "swift");
    let (Restored { applied, .. }, _) = lose_and_restore(&mut house, &manifest);
    assert_eq!((applied.lines, applied.approvals), (0, 1));
    house.start();
    assert_ne!(disclose(&house, &token).unwrap(), pending);
    assert!(people::log(&house).iter().any(|entry| entry.action == Action::Restore), "the log tells of the restore");
    // Somebody still holds the lost grant's number: it must never be another's.
    let revoke = RevokeShipmentRequest { idempotency_key: "lost".to_owned(), grant_id: grant.clone() };
    for n in 2..5 {
        let parcel = house.tokenize(order(n));
        assert_ne!(house.grant(&parcel, &format!("SW00000000{n}"), "swift"), grant);
    }
    assert!(house.run(house.lifecycle().revoke_shipment(revoke)).is_err());
}

/// A crash between ledger and database loses a change, and the next one has its number.
#[test]
fn of_two_changes_of_a_caller_with_one_number_the_later_one_counts() {
    let mut house = House::new();
    let token = house.tokenize(order(1));
    house.grant(&token, "SW000000001", "northwind");
    let (_, manifest) = back_up(&house);
    house.stop();
    let before = house.dir.path().join("before.db");
    fs::copy(&house.config.store.database, &before).unwrap();
    let suspend = |house: &House, certificate: &str| {
        let mut callers = CallerServiceClient::new(house.channel(Role::KeyAdmin, "office"));
        let request = SuspendCallerRequest {
            role: Role::Carrier as i32,
            name: "northwind".to_owned(),
            certificate: certificate.to_owned(),
        };
        house.run(callers.suspend_caller(request)).unwrap();
    };
    house.start();
    suspend(&house, &"ab".repeat(32));
    house.stop();
    fs::copy(&before, &house.config.store.database).unwrap();
    house.start();
    suspend(&house, "");
    let (Restored { applied, .. }, _) = lose_and_restore(&mut house, &manifest);
    assert_eq!((applied.lines, applied.callers), (2, 2));
    house.start();
    let request = GetDeliveryRequest { serial: "SW000000001".to_owned() };
    let refused = house.run(house.carrier("northwind").get_delivery(request)).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
}

/// A clock that looks around whenever it is asked, which a restore does all the time.
struct Watch<F> {
    clock: SimulatedClock,
    look: F,
}

impl<F: Fn() + Send + Sync> strongroom::domain::time::Clock for Watch<F> {
    fn now(&self) -> Timestamp {
        (self.look)();
        self.clock.now()
    }

    fn boot(&self) -> i64 {
        self.clock.boot()
    }

    fn boot_id(&self) -> u128 {
        self.clock.boot_id()
    }
}

/// A vault with a backup and an erasure since, stopped, whose database is gone.
fn lost() -> (House, PathBuf) {
    let mut house = House::new();
    let token = house.tokenize(order(1));
    let (_, manifest) = back_up(&house);
    let reason = EraseReason::SubjectRequest.into();
    house.run(house.tokens().erase(EraseRequest { idempotency_key: "erase".to_owned(), token, reason })).unwrap();
    house.stop();
    fs::remove_file(&house.config.store.database).unwrap();
    (house, manifest)
}

#[test]
fn nobody_takes_the_databases_place_while_it_is_restored() {
    let (house, manifest) = lost();
    let (paths, looks): (StorePaths, _) = (house.config.store.clone(), Arc::new(AtomicI64::new(0)));
    let (counted, clock) = (Arc::clone(&looks), house.clock.clone());
    let look = move || {
        assert!(is_held(&paths), "a server that starts now makes a new database");
        counted.fetch_add(1, Ordering::SeqCst);
    };
    restore(&house.config, keyring(&house.config), &manifest, Arc::new(Watch { clock, look })).unwrap();
    assert!(looks.load(Ordering::SeqCst) > 0);
    assert!(!is_held(&house.config.store));
}

/// What the database's log still holds is not in the file that is put in place: the erasures among it.
#[test]
fn a_restored_database_whose_log_cannot_be_emptied_is_not_put_in_place() {
    let (house, manifest) = lost();
    let restoring = house.config.store.database.with_extension("restoring.db");
    let reader = Arc::new(std::sync::Mutex::new(None));
    let lines = read_after(&house.config.store.ledger, &keyring(&house.config), 0).unwrap();
    let last = hex::encode_upper(lines.last().unwrap().number.to_le_bytes());
    let (reads, path, clock) = (Arc::clone(&reader), restoring.clone(), house.clock.clone());
    let look = move || {
        // Once the ledger is applied and the log was emptied of that, and before the last entries.
        let mut reads = reads.lock().unwrap();
        let log = path.with_file_name("strongroom.restoring.db-wal");
        if reads.is_some() || !fs::metadata(log).is_ok_and(|log| log.len() == 0) {
            return;
        }
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("BEGIN; SELECT count(*) FROM record").unwrap();
        let applied = "SELECT hex(value) FROM meta WHERE key = 'ledger_applied'";
        let applied: String = connection.query_row(applied, [], |row| row.get(0)).unwrap();
        *reads = (applied == last).then_some(connection);
    };
    let again = || keyring(&house.config);
    let why = restore(&house.config, again(), &manifest, Arc::new(Watch { clock, look })).map(drop);
    assert!(reader.lock().unwrap().take().is_some());
    let why = why.unwrap_err();
    assert!(why.to_string().contains("could not be emptied"), "{why}");
    assert!(!house.config.store.database.exists() && !restoring.exists());
    let clock = Arc::new(house.clock.clone());
    assert_eq!(restore(&house.config, again(), &manifest, clock).unwrap().records, 0);
}

#[test]
fn a_backup_that_fails_leaves_nothing_and_touches_nobody_elses_files() {
    let house = House::new();
    let folder = house.dir.path().join("elsewhere");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("film.partial"), "another's").unwrap();
    fs::write(folder.join("2026-01-01T000000.000000Z.partial"), "a killed one's").unwrap();
    let left = || {
        let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    assert!(house.vault().back_up(&folder, |_, _| false).is_err());
    assert_eq!(left(), ["film.partial"]);
    house.vault().back_up(&folder, |_, _| true).unwrap();
    assert_eq!(left().len(), 3);
}
