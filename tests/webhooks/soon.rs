//! What is due soon, told beforehand.

use std::collections::BTreeSet;
use std::time::Duration;

use strongroom::domain::caller::Role;
use strongroom::domain::time::{DAY, MINUTE};
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::{
    ApproveRequest, EventKind, HoldKind, LiftHoldRequest, PlaceHoldRequest, TokenizeRequest, lift_hold_response,
};

use crate::common::{House, order};
use crate::people::approvals;
use crate::receiver::{OK, Receiver};
use crate::{digest, house};

/// Time passes, and with it a pass over all that is due soon.
fn passes(house: &House, micros: i64) {
    house.clock.advance(micros.max(2 * MINUTE));
    std::thread::sleep(Duration::from_millis(1_500));
}

fn told(receiver: &Receiver) -> BTreeSet<(String, String)> {
    let told = receiver.told("record.due_soon");
    let all: BTreeSet<_> = told
        .iter()
        .map(|told| (told["record"].as_str().unwrap().to_owned(), told["due_at"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(all.len(), told.len(), "each due of a record is told of once: {told:?}");
    all
}

fn hold(house: &House, token: &str) -> String {
    let request = PlaceHoldRequest {
        idempotency_key: "hold".to_owned(),
        token: token.to_owned(),
        subject: String::new(),
        whole_subject: false,
        kind: HoldKind::Court.into(),
        case_reference: "12 O 345/26".to_owned(),
    };
    let mut office = ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    house.run(office.place_hold(request)).unwrap().into_inner().hold_id
}

fn lift(house: &House, hold_id: &str) {
    let mut office = ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    let ask = LiftHoldRequest { hold_id: hold_id.to_owned() };
    let reply = house.run(office.lift_hold(ask.clone())).unwrap().into_inner().result.unwrap();
    let lift_hold_response::Result::PendingApproval(pending) = reply else { panic!("one person lifted a hold") };
    let approve = ApproveRequest { approval_id: pending.approval_id };
    house.run(approvals(house, Role::KeyAdmin, "office").approve(approve)).unwrap();
    house.run(office.lift_hold(ask)).unwrap();
}

#[test]
fn what_is_due_soon_is_told_once_for_each_due_and_neither_while_it_is_held_nor_while_it_waits() {
    let receiver = Receiver::new(|_| OK);
    let mut house = house(&receiver, Some(7));
    let one = |n| house.tokenize(TokenizeRequest { subject: "one".into(), ..order(n) });
    let [plain, held, waiting, undelivered] = [1, 2, 3, 4].map(one);
    for token in [&plain, &held, &waiting] {
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    house.event(&waiting, EventKind::AfterSalesOpened, 0).unwrap();
    let court = hold(&house, &held);
    passes(&house, 52 * DAY);
    assert_eq!(told(&receiver).len(), 0, "more than a week is not soon");
    passes(&house, DAY + MINUTE);
    let first = (digest(&plain), "2026-03-06T00:00:00Z".to_owned());
    assert_eq!(told(&receiver), BTreeSet::from([first.clone()]));
    let said = receiver.told("record.due_soon").remove(0);
    assert_eq!((&said["reason"], &said["class"]), (&"desensitized".into(), &"order".into()));
    assert_eq!(said["rule"], "order.after.delivered = \"P60D\"");

    // Again and again, and after a restart: nothing new.
    passes(&house, MINUTE);
    house.stop();
    house.start();
    passes(&house, MINUTE);
    assert_eq!(told(&receiver), BTreeSet::from([first.clone()]));

    // What held it, or was waited for, is over: now they are due soon.
    lift(&house, &court);
    house.event(&waiting, EventKind::AfterSalesClosed, 0).unwrap();
    passes(&house, MINUTE);
    let digests = |receiver: &Receiver| told(receiver).into_iter().map(|(record, _)| record).collect::<BTreeSet<_>>();
    assert_eq!(digests(&receiver), BTreeSet::from([&plain, &held, &waiting].map(|token| digest(token))));

    // They go, and that is told; the one that nothing happened to is told of a week before its cap.
    house.clock.advance(8 * DAY);
    assert_eq!(house.sweep(), 3);
    receiver.until("they went", |receiver| receiver.digests("record.erased").len() == 3);
    passes(&house, 300 * DAY);
    assert!(digests(&receiver).contains(&digest(&undelivered)) && told(&receiver).len() == 4, "{:?}", told(&receiver));
    let last = receiver.told("record.due_soon").pop().unwrap();
    assert_eq!(last["rule"], "order.cap = \"P1Y\"");
    house.stop();
}

#[cfg(feature = "planted")]
#[test]
fn planted_a_forgotten_due_is_told_again_and_again_and_noticed() {
    let test = "soon::what_is_due_soon_is_told_once_for_each_due_and_neither_while_it_is_held_nor_while_it_waits";
    let (passed, printed) = crate::planted::with_fault("due-soon-forgotten", test);
    assert!(!passed && printed.contains("told of once"), "{printed}");
}

/// Another event makes it due at another time, which is told too.
#[test]
fn another_due_of_a_record_is_told_again() {
    let receiver = Receiver::new(|_| OK);
    let house = house(&receiver, Some(90));
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    passes(&house, MINUTE);
    assert_eq!(told(&receiver).len(), 1);
    house.event(&token, EventKind::Returned, 0).unwrap();
    house.event(&token, EventKind::Delivered, 1).unwrap();
    passes(&house, 5 * DAY);
    house.event(&token, EventKind::Delivered, 2).unwrap();
    passes(&house, MINUTE);
    assert!(told(&receiver).len() >= 2, "{:?}", told(&receiver));
    assert!(told(&receiver).iter().all(|(record, _)| *record == digest(&token)));
}

/// Nobody is told a year ahead, and so not again when it is time.
#[test]
fn a_wall_clock_that_leaps_ahead_makes_nothing_due_soon() {
    let receiver = Receiver::new(|_| OK);
    let house = house(&receiver, Some(7));
    let token = house.tokenize(order(1));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    house.clock.leap(55 * DAY);
    passes(&house, MINUTE);
    assert_eq!(told(&receiver).len(), 0, "it goes two months from now, whatever the clock says");
    house.clock.leap(-55 * DAY);
    passes(&house, 55 * DAY);
    assert_eq!(told(&receiver), BTreeSet::from([(digest(&token), "2026-03-06T00:00:00Z".to_owned())]));
}

/// More than one page of them, of which half are told already.
#[test]
fn a_pass_finds_what_lies_on_later_pages() {
    let receiver = Receiver::new(|_| OK);
    let house = house(&receiver, Some(90));
    let store = |n| house.tokenize(TokenizeRequest { subject: "one".into(), ..order(n) });
    let early: Vec<String> = (0..150).map(store).collect();
    early.iter().for_each(|token| house.event(token, EventKind::Delivered, 0).unwrap());
    passes(&house, MINUTE);
    receiver.until("the first are told", |receiver| told(receiver).len() == 150);
    let late: Vec<String> = (150..270).map(store).collect();
    late.iter().for_each(|token| house.event(token, EventKind::Delivered, 0).unwrap());
    passes(&house, MINUTE);
    receiver.until("the others are told", |receiver| told(receiver).len() == 270);
}
