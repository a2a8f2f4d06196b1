//! What a restored vault tells: what it knows of, what waited, and what came and went after the backup.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom::cli::restore::restore;
use strongroom::config::Config;
use strongroom::crypto::keyring::{Keyring, peek};
use strongroom::rpc::proto::{BackupRequest, EraseReason};

use crate::common::{House, order};
use crate::receiver::{Answer, OK, Receiver};
use crate::{digest, erase, house, in_outbox, wait_for};

fn keyring(config: &Config) -> Keyring {
    let root = config.root.unlock(&peek(&config.keyring).unwrap().root).unwrap();
    Keyring::load(&config.keyring, &root).unwrap()
}

fn back_up(house: &House) -> PathBuf {
    let mut operations = house.operations();
    house.run(async {
        let mut told = operations.backup(BackupRequest {}).await.unwrap().into_inner();
        let mut manifest = String::new();
        while let Some(message) = told.message().await.unwrap() {
            manifest = message.manifest;
        }
        manifest.into()
    })
}

fn lose_and_restore(house: &mut House, manifest: &Path) {
    house.stop();
    std::fs::remove_file(&house.config.store.database).unwrap();
    restore(&house.config, keyring(&house.config), manifest, Arc::new(house.clock.clone())).unwrap();
}

/// The outbox went with the disk. What the backup knows of is erased again and told; of what came after it the ledger alone knows, and
/// that is enough: the shop has its pictures still.
#[test]
fn what_went_before_a_disk_was_lost_is_told_by_the_restored_vault_whether_the_backup_knew_it_or_not() {
    let receiver = Receiver::new(|_| Answer::Status(503));
    let mut house = house(&receiver, None);
    let waiting = house.tokenize(order(1));
    erase(&house, &waiting, EraseReason::Controller);
    let known = house.tokenize(order(2));
    let living = house.tokenize(order(3));
    let manifest = back_up(&house);
    let unknown = house.tokenize(order(4));
    erase(&house, &known, EraseReason::SubjectRequest);
    erase(&house, &unknown, EraseReason::Minor);
    lose_and_restore(&mut house, &manifest);
    receiver.behave(|_| OK);
    house.start();
    let gone: BTreeSet<String> = [&waiting, &known, &unknown].map(|token| digest(token)).into();
    receiver.until("all is told", |receiver| receiver.digests("record.erased") == gone);
    wait_for("the outbox is empty", || in_outbox(&house.config.store.database) == 0);
    let told = receiver.told("record.erased");
    let of_unknown = told.iter().find(|told| told["record"] == digest(&unknown).as_str()).unwrap();
    assert_eq!((&of_unknown["reason"], &of_unknown["class"]), (&"minor".into(), &serde_json::Value::Null));
    assert!(!receiver.digests("record.erased").contains(&digest(&living)));
}
