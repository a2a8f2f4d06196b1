//! What people decide about keys, and what is refused: copies, old keyrings, two people, another root.

use strongroom::audit::entry::{Action, RefusalCode, Whom};
use strongroom::cli::serve::Running;
use strongroom::crypto::root::{RootSource, mint_key_file};
use strongroom::domain::id::Epoch;
use strongroom::domain::time::Timestamp;
use strongroom::rpc::proto::approval_service_client::ApprovalServiceClient;
use strongroom::rpc::proto::operations_service_client::OperationsServiceClient;
use strongroom::rpc::proto::{
    ApproveRequest, DestroyEpochRequest, PostponeEpochRequest, RotateRootRequest, StatusRequest,
    destroy_epoch_response, postpone_epoch_response,
};

use super::common::wire_time;
use super::people::{log, reason, refusals};
use super::*;

fn status_warnings(house: &House) -> String {
    let mut operations = OperationsServiceClient::new(house.channel(Role::Operator, "oncall"));
    house.run(operations.status(StatusRequest {})).unwrap().into_inner().warnings.join("\n")
}

fn refused_start(house: &House) -> String {
    let started = Running::start(house.config.clone(), std::sync::Arc::new(house.clock.clone()));
    started.err().unwrap().to_string()
}

/// An operator agrees.
fn approve(house: &House, approval_id: String) {
    let mut approvals = ApprovalServiceClient::new(house.channel(Role::Operator, "oncall"));
    house.run(approvals.approve(ApproveRequest { approval_id })).unwrap();
}

fn told(house: &House, action: Action) -> Vec<Option<Whom>> {
    log(house).into_iter().filter(|entry| entry.action == action).map(|entry| entry.whom).collect()
}

#[test]
fn a_copy_that_cannot_be_written_keeps_the_old_epoch_in_use_and_somebody_is_told() {
    let house = house(1_000_000);
    house.tokenize(account(1));
    let [a, b] = copies(&house.config);
    assert!(a.exists() && b.exists(), "the start has written the copies");
    // The place of the second copy is gone, and something else stands in its way.
    std::fs::remove_file(&b).unwrap();
    std::fs::create_dir(&b).unwrap();
    let mut keys = keys(&house);
    let refused = house.run(rotate(&mut keys)).unwrap_err();
    assert_eq!(reason(&refused), "KEYRING_NOT_SAVED");
    assert_eq!(refusals(&house).last().unwrap(), &(Action::RotateKek, RefusalCode::KeyringNotSaved));
    let warnings = status_warnings(&house);
    assert!(warnings.contains("copy-b") && warnings.contains("cannot be saved"), "{warnings}");
    house.tokenize(account(2));
    let listed = list(&house);
    assert_eq!((active(&listed), listed.copies.iter().filter(|copy| copy.generation == 0).count()), (1, 1));
    assert!(
        epochs_in(&house.config.store.database).iter().all(|(_, epoch, _)| *epoch == 1),
        "nothing lies under a new one"
    );
    // As soon as it can be written again, all goes on.
    std::fs::remove_dir(&b).unwrap();
    house.run(rotate(&mut keys)).unwrap();
    assert_eq!(active(&list(&house)), 2);
    let now = keyring(&house.config);
    assert!(now.read_back(&a).unwrap().is_the_same_as(&now) && now.read_back(&b).unwrap().is_the_same_as(&now));
    assert!(!status_warnings(&house).contains("copy"));
}

#[cfg(feature = "planted")]
#[test]
fn planted_skipped_copies_are_noticed() {
    let test = "decisions::a_copy_that_cannot_be_written_keeps_the_old_epoch_in_use_and_somebody_is_told";
    let (passed, printed) = planted::with_fault("copies-skipped", test);
    assert!(!passed && printed.contains("unwrap_err"), "{printed}");
}

#[test]
fn an_old_keyring_is_refused_and_the_newest_copy_brought_back_is_taken() {
    let mut house = house(1_000_000);
    let token = house.tokenize(account(1));
    let old = std::fs::read(&house.config.keyring).unwrap();
    let mut channel = keys(&house);
    house.run(rotate(&mut channel)).unwrap();
    house.stop();
    let [a, b] = copies(&house.config);
    std::fs::write(&house.config.keyring, &old).unwrap();
    let why = refused_start(&house);
    assert!(why.contains("copy-a") && why.contains("newer than the keyring"), "{why}");
    // Without its copies too: the database remembers what it has seen.
    let newest = std::fs::read(&a).unwrap();
    std::fs::write(&a, &old).unwrap();
    std::fs::write(&b, &old).unwrap();
    let why = refused_start(&house);
    assert!(why.contains("an old copy"), "{why}");
    std::fs::write(&house.config.keyring, &newest).unwrap();
    house.start();
    assert_eq!(house.tokenize(account(1)), token);
    let now = keyring(&house.config);
    assert!(now.read_back(&a).unwrap().is_the_same_as(&now), "the start has brought the copies up");
}

#[test]
fn the_schedule_rotates_destroys_and_tells_by_itself_and_what_is_late_is_warned_of() {
    let mut house = house(1_000_000);
    let token = house.tokenize(account(1));
    assert!(!status_warnings(&house).contains("overdue"));
    house.clock.advance(2 * DAY + 2 * 3_600_000_000);
    assert!(status_warnings(&house).contains("the rotation of key epoch 1 is overdue since"));
    keep(&house);
    assert!(!status_warnings(&house).contains("overdue"));
    let listed = list(&house);
    assert_eq!((active(&listed), listed.epochs.len(), listed.backup_horizon_days), (2, 2, 11));
    let old = &listed.epochs[1];
    assert_eq!(old.state(), EpochState::Retiring);
    let tables: Vec<&str> = old.rows.iter().map(|rows| rows.table.as_str()).collect();
    assert_eq!(tables, ["idempotency"], "only what time takes away is left");
    let retired = listed.epochs[0].active_since.unwrap();
    assert_eq!(old.destroy_at.unwrap().seconds - retired.seconds, 9 * 86_400);
    live(&house, 8);
    assert!(keyring(&house.config).epoch(Epoch(1)).is_some(), "kept for the backups");
    live(&house, 1);
    assert!(keyring(&house.config).epoch(Epoch(1)).is_none());
    for action in [Action::DestroyEpoch, Action::EpochDestroyed] {
        assert_eq!(told(&house, action), [Some(Whom::Epoch { epoch: Epoch(1), rows: 0 })]);
    }
    assert!(told(&house, Action::RotateKek).len() >= 4, "every two days");
    let ledger = std::fs::read_to_string(&house.config.store.ledger).unwrap();
    assert!(ledger.contains("\"epoch_ended\":1"));
    // The log and the ledger of the destroyed epoch still verify, and the vault starts on them.
    house.stop();
    let now = keyring(&house.config);
    let verdict = strongroom::store::verify_log(&house.config.store.database, Some(&now), None).unwrap();
    assert!(matches!(verdict, strongroom::store::LogVerdict::Sound(_)), "{verdict:?}");
    house.start();
    assert_eq!(
        house
            .run(house.tokens().describe(strongroom::rpc::proto::DescribeRequest { token }))
            .unwrap()
            .into_inner()
            .revision,
        1
    );
}

#[test]
fn a_row_that_was_altered_keeps_its_epoch_alive_holds_up_no_other_and_is_told_of() {
    let mut house = house(1_000_000);
    let tokens = [1, 2, 3].map(|n| house.tokenize(account(n)));
    house.stop();
    let connection = Connection::open(&house.config.store.database).unwrap();
    let bend = "UPDATE record SET mac = zeroblob(16) WHERE id = (SELECT MIN(id) FROM record)";
    assert_eq!(connection.execute(bend, []).unwrap(), 1);
    drop(connection);
    house.start();
    live(&house, 12);
    let epoch = keyring(&house.config).epoch(Epoch(1)).map(|epoch| epoch.number());
    assert_eq!(epoch, Some(Epoch(1)), "not destroyed with anything under it");
    let old = list(&house).epochs.pop().unwrap();
    let left: Vec<_> = old.rows.iter().map(|rows| (rows.table.as_str(), rows.rows)).collect();
    // Its keys and tags cannot be moved either, as nobody can say what they belong to.
    assert_eq!(left, [("dek", 1), ("index_tag", 2), ("record", 1)]);
    let warnings = status_warnings(&house);
    assert!(warnings.contains("4 rows under key epoch 1 fail their authentication"), "{warnings}");
    assert!(warnings.contains("the destruction of key epoch 1 is overdue"), "{warnings}");
    let mut shop = house.tokens();
    for token in &tokens[1..] {
        house.run(shop.describe(strongroom::rpc::proto::DescribeRequest { token: token.clone() })).unwrap();
    }
}

#[test]
fn the_metric_tells_how_much_lies_under_an_epoch() {
    let house = house(1);
    house.tokenize(account(1));
    let vault = house.vault();
    house.clock.advance(2 * DAY);
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    // Prepared, then promoted; the rewrap would come with the next step.
    metrics::with_local_recorder(&recorder, || {
        house.run(vault.keep_keys()).unwrap();
        house.run(vault.keep_keys()).unwrap();
    });
    let shown = recorder.handle().render();
    let rows = shown.lines().find_map(|line| line.strip_prefix("strongroom_records_under_epoch{epoch=\"1\"} "));
    assert!(rows.unwrap().parse::<u64>().unwrap() > 5, "{shown}");
}

#[test]
fn destroying_early_takes_two_people_and_an_epoch_under_which_nothing_lies() {
    let house = house(1_000_000);
    house.tokenize(account(1));
    let mut keys = keys(&house);
    let mut destroy =
        |epoch| house.run(keys.destroy_epoch(DestroyEpochRequest { epoch })).map(|reply| reply.into_inner().result);
    assert_eq!(reason(&destroy(1).unwrap_err()), "EPOCH_IN_USE", "the active one");
    assert_eq!(reason(&destroy(9).unwrap_err()), "UNKNOWN");
    let mut others = self::keys(&house);
    house.run(rotate(&mut others)).unwrap();
    assert_eq!(reason(&destroy(1).unwrap_err()), "EPOCH_IN_USE", "an idempotency key lies under it");
    house.clock.advance(8 * DAY - DAY / 2);
    house.sweep();
    let Some(destroy_epoch_response::Result::PendingApproval(pending)) = destroy(1).unwrap() else {
        panic!("one person")
    };
    assert!(keyring(&house.config).epoch(Epoch(1)).is_some());
    approve(&house, pending.approval_id);
    assert!(matches!(destroy(1).unwrap(), Some(destroy_epoch_response::Result::Done(_))));
    for keyring in [keyring(&house.config), keyring(&house.config).read_back(&copies(&house.config)[0]).unwrap()] {
        assert!(keyring.has_destroyed(Epoch(1)));
    }
    assert!(matches!(destroy(1).unwrap(), Some(destroy_epoch_response::Result::Done(_))), "again answers the same");
    assert!(refusals(&house).contains(&(Action::DestroyEpoch, RefusalCode::EpochInUse)));
    assert_eq!(told(&house, Action::EpochDestroyed).len(), 1);
}

#[test]
fn postponing_takes_two_people_keeps_the_epoch_and_is_warned_of() {
    let house = house(1_000_000);
    house.tokenize(account(1));
    let mut others = self::keys(&house);
    house.run(rotate(&mut others)).unwrap();
    let planned = list(&house).epochs[1].destroy_at.unwrap();
    let planned = Timestamp(planned.seconds * 1_000_000);
    let mut keys = keys(&house);
    let mut postpone = |until: Timestamp| {
        let request = PostponeEpochRequest { epoch: 1, until: Some(wire_time(until)) };
        house.run(keys.postpone_epoch(request)).map(|reply| reply.into_inner().result)
    };
    for bad in [planned.plus(-DAY), planned.plus(400 * DAY)] {
        assert_eq!(reason(&postpone(bad).unwrap_err()), "NOT_A_TIME");
    }
    let until = planned.plus(5 * DAY);
    let Some(postpone_epoch_response::Result::PendingApproval(pending)) = postpone(until).unwrap() else {
        panic!("one person")
    };
    approve(&house, pending.approval_id);
    assert!(matches!(postpone(until).unwrap(), Some(postpone_epoch_response::Result::Done(_))));
    assert!(status_warnings(&house).contains("key epoch 1 is kept until"));
    live(&house, 10);
    assert!(keyring(&house.config).epoch(Epoch(1)).is_some());
    live(&house, 5);
    assert!(keyring(&house.config).epoch(Epoch(1)).is_none());
    assert!(!status_warnings(&house).contains("is kept until"));
}

#[test]
fn another_root_takes_over_and_the_old_one_opens_neither_keyring_nor_copy() {
    let mut house = house(1_000_000);
    let token = house.tokenize(account(1));
    let mut channel = keys(&house);
    let refused = house.run(channel.rotate_root(RotateRootRequest {})).unwrap_err();
    assert_eq!(reason(&refused), "NO_NEXT_ROOT");
    house.stop();
    let next = RootSource::KeyFile { path: house.dir.path().join("next-root.key") };
    mint_key_file(&next.path().unwrap(), &OsEntropy).unwrap();
    house.config.keys.next_root = Some(next.clone());
    house.start();
    let mut channel = keys(&house);
    let first = house.run(channel.rotate_root(RotateRootRequest {})).unwrap().into_inner().generation;
    let again = house.run(channel.rotate_root(RotateRootRequest {})).unwrap().into_inner().generation;
    assert_eq!((first, again), (2, 2), "again answers the same");
    house.stop();
    let old = house.config.root.unlock(&peek(&house.config.keyring).unwrap().root).unwrap();
    for path in copies(&house.config).iter().chain([&house.config.keyring]) {
        assert!(Keyring::load(path, &old).is_err(), "{}", path.display());
    }
    // A start tries both; then the next one is the root, and stands alone.
    house.start();
    assert!(status_warnings(&house).contains("move it to [root]"));
    house.stop();
    (house.config.root, house.config.keys.next_root) = (next, None);
    house.start();
    assert_eq!(house.tokenize(account(1)), token);
    assert!(!status_warnings(&house).contains("[root]"));
}
