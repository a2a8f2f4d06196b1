//! A restored vault forecasts what the lost one did, of the records that the backup has.

use std::sync::Arc;

use strongroom::cli::restore::restore;
use strongroom::crypto::keyring::{Keyring, peek};
use strongroom::rpc::proto::{BackupRequest, EraseReason, EraseSubjectRequest, TokenizeRequest};

use super::*;

/// What changes a forecast comes after the backup: an event, a case that is opened, a hold, a subject that leaves.
#[test]
fn a_restored_vault_forecasts_what_the_lost_one_did() {
    let mut house = staged();
    let of = |n| TokenizeRequest { subject: "one".into(), ..order(n) };
    let [plain, delivered, held] = [1, 2, 3].map(|n| house.tokenize(order(n)));
    let [waiting, _goes] = [4, 5].map(|n| house.tokenize(of(n)));
    house.event(&held, EventKind::Delivered, 0).unwrap();
    let mut operations = house.operations();
    let manifest = house.run(async {
        let mut told = operations.backup(BackupRequest {}).await.unwrap().into_inner();
        let mut manifest = String::new();
        while let Some(message) = told.message().await.unwrap() {
            manifest = message.manifest;
        }
        manifest
    });
    house.clock.advance(DAY);
    house.event(&delivered, EventKind::Delivered, 0).unwrap();
    house.event(&waiting, EventKind::RefundOpened, 0).unwrap();
    let mut office = ErasureServiceClient::new(house.channel(OFFICER.0, OFFICER.1));
    let place = PlaceHoldRequest {
        idempotency_key: "hold".to_owned(),
        token: held.clone(),
        kind: HoldKind::Court.into(),
        case_reference: "12 O 345/26".to_owned(),
        ..Default::default()
    };
    house.run(office.place_hold(place)).unwrap();
    let leave = EraseSubjectRequest {
        idempotency_key: "leave".to_owned(),
        token: waiting.clone(),
        subject: String::new(),
        reason: EraseReason::SubjectRequest.into(),
    };
    house.run(async {
        let mut news = office.erase_subject(leave).await.unwrap().into_inner();
        while news.message().await.unwrap().is_some() {}
    });
    let before = records(&house, 400);
    assert_eq!(before.len(), 4);
    let tokens: Vec<&str> = before.iter().map(|record| record.token.as_str()).collect();
    assert!([&plain, &delivered, &held, &waiting].iter().all(|token| tokens.contains(&token.as_str())));

    house.stop();
    std::fs::remove_file(&house.config.store.database).unwrap();
    let root = house.config.root.unlock(&peek(&house.config.keyring).unwrap().root).unwrap();
    let keyring = Keyring::load(&house.config.keyring, &root).unwrap();
    restore(&house.config, keyring, manifest.as_ref(), Arc::new(house.clock.clone())).unwrap();
    house.start();
    assert_eq!(records(&house, 400), before);
}
