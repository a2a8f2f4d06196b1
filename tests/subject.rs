//! Erasing a subject: everything of it goes; what must stay is listed with its reason, unreadable where nothing keeps it, and
//! goes by itself later; whoever is cut off, it is carried on.
//!
//! Planted by hand: `loaded::as_it_left` taken out of storing and reporting. Within 30 rounds a record was neither in use nor gone,
//! and another was kept by a refund that was settled.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;

use common::{House, order, text, wire_time};
use people::{approvals, log, reason};
use strongroom::audit::entry::{Action, Actor, RequestId};
use strongroom::audit::receipt::Receipt;
use strongroom::domain::caller::Role;
use strongroom::domain::field::{CustomerReference, IdempotencyKey};
use strongroom::domain::time::{Clock as _, DAY};
use strongroom::domain::token::Token;
use strongroom::domain::vocabulary::EraseReason as Reason;
use strongroom::rpc::proto::erase_subject_response::News;
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::{
    ApproveRequest, CorrectRequest, DescribeRequest, EraseReason, EraseSubjectRequest, EventKind, Field,
    GetDeliveryRequest, HoldKind, KeepReason, KeptRecord, LiftHoldRequest, PlaceHoldRequest, RecordState,
    ReportEventRequest, ResumeSweepRequest, StatusRequest, TokenizeRequest, lift_hold_response,
};
use strongroom::vault::{EraseSubject, SubjectNews, Which};
use tonic::transport::Channel;
use tonic::{Code, Status};

const ANNA: &str = "anna@shop.example";

/// The `n`th order of Anna's.
fn annas(n: usize) -> TokenizeRequest {
    TokenizeRequest { subject: ANNA.to_owned(), ..order(n) }
}

fn officer(house: &House) -> ErasureServiceClient<Channel> {
    ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"))
}

fn by_token(token: &str, why: EraseReason) -> EraseSubjectRequest {
    let idempotency_key = format!("leave-{why:?}-{}", token.get(..14).unwrap_or(token));
    EraseSubjectRequest { idempotency_key, token: token.to_owned(), subject: String::new(), reason: why.into() }
}

fn by_reference(subject: &str, why: EraseReason) -> EraseSubjectRequest {
    EraseSubjectRequest { token: String::new(), subject: subject.to_owned(), ..by_token(subject, why) }
}

#[derive(Default, PartialEq, Debug)]
struct List {
    destroyed: u64,
    receipts: Vec<String>,
    kept: Vec<KeptRecord>,
}

fn erase(house: &House, request: EraseSubjectRequest) -> Result<List, Status> {
    let mut vault = officer(house);
    house.run(async {
        let mut stream = vault.erase_subject(request).await?.into_inner();
        let mut list = List::default();
        while let Some(message) = stream.message().await? {
            match message.news.unwrap() {
                News::Destroyed(count) => list.destroyed += count,
                News::Receipt(receipt) => list.receipts.push(receipt),
                News::Kept(kept) => list.kept.push(kept),
            }
        }
        Ok(list)
    })
}

fn state(house: &House, token: &str) -> (RecordState, String) {
    let request = DescribeRequest { token: token.to_owned() };
    let found = house.run(house.tokens().describe(request)).unwrap().into_inner();
    let why = if found.erase_reason.is_empty() { found.due_by.clone() } else { found.erase_reason.clone() };
    (found.state(), why)
}

/// How many rows of each table there are that could tell of somebody.
fn rows(house: &House) -> Vec<i64> {
    let database = rusqlite::Connection::open(&house.config.store.database).unwrap();
    let count = |table| database.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).unwrap();
    ["record", "subject", "dek", "sealed", "shipment_grant", "hold"].map(count).into()
}

fn hold(house: &House, token: &str, kind: HoldKind) -> String {
    let request = PlaceHoldRequest {
        idempotency_key: format!("hold-{kind:?}-{}", token.get(..14).unwrap()),
        token: token.to_owned(),
        subject: String::new(),
        whole_subject: false,
        kind: kind.into(),
        case_reference: "12 O 345/26".to_owned(),
    };
    house.run(officer(house).place_hold(request)).unwrap().into_inner().hold_id
}

fn lift(house: &House, hold_id: &str) {
    let request = LiftHoldRequest { hold_id: hold_id.to_owned() };
    let reply = house.run(officer(house).lift_hold(request.clone())).unwrap().into_inner();
    let Some(lift_hold_response::Result::PendingApproval(pending)) = reply.result else { unreachable!() };
    let approve = ApproveRequest { approval_id: pending.approval_id };
    house.run(approvals(house, Role::Operator, "oncall").approve(approve)).unwrap();
    house.run(officer(house).lift_hold(request)).unwrap();
}

#[test]
fn a_cancellation_destroys_every_record_revision_grant_and_key_and_the_subject_itself() {
    let house = House::new();
    let bert = house.tokenize(order(1));
    let before = rows(&house);
    let tokens: Vec<String> = (10..55).map(|n| house.tokenize(annas(n))).collect();
    let first = tokens.first().unwrap();
    house.grant(first, "SW-000010", "swift");
    let correct = CorrectRequest {
        idempotency_key: "correct".to_owned(),
        token: first.clone(),
        if_revision: 1,
        fields: vec![text(Field::RecipientName, "Anna Ottokar")],
        clear: Vec::new(),
    };
    house.run(house.tokens().correct(correct)).unwrap();
    let list = erase(&house, by_reference(ANNA, EraseReason::Cancellation)).unwrap();
    assert_eq!((list.destroyed, list.receipts.len(), list.kept.len()), (45, 45, 0));
    assert_eq!(rows(&house), before, "of Anna nothing is left, of Bert everything");
    let key = house.vault().public_key();
    let key = strongroom::crypto::note::parse_key(&key).unwrap();
    let mut told: Vec<_> = list.receipts.iter().map(|one| Receipt::verify(one, &key).unwrap()).collect();
    assert!(told.iter().all(|receipt| receipt.reason == Reason::Cancellation));
    told.sort_by_key(|receipt| receipt.record);
    let mut digests: Vec<_> = tokens.iter().map(|token| Token::parse(token).unwrap().digest(&house.tenant())).collect();
    digests.sort();
    assert_eq!(told.into_iter().map(|receipt| receipt.record).collect::<Vec<_>>(), digests);
    for token in &tokens {
        assert_eq!(state(&house, token), (RecordState::Erased, "cancellation".to_owned()));
    }
    let mut swift = house.carrier("swift");
    let parcel = GetDeliveryRequest { serial: "SW-000010".to_owned() };
    assert_eq!(house.run(swift.get_delivery(parcel)).unwrap_err().code(), Code::NotFound);
    assert_eq!(state(&house, &bert).0, RecordState::Live);
    let again = house.run(house.tokens().tokenize(annas(10))).unwrap_err();
    assert_eq!(reason(&again), "ERASED", "the key of a record that is gone leads to it no more");
}

#[test]
fn asking_again_answers_the_same_list_by_whichever_name() {
    let mut house = House::new();
    let (gone, waits) = (house.tokenize(annas(1)), house.tokenize(annas(2)));
    house.event(&waits, EventKind::RefundOpened, 0).unwrap();
    let first = erase(&house, by_token(&gone, EraseReason::Cancellation)).unwrap();
    assert_eq!((first.destroyed, first.receipts.len(), first.kept.len()), (1, 1, 1));
    let same = |list: List| (list.receipts, list.kept);
    let again = erase(&house, by_token(&gone, EraseReason::Cancellation)).unwrap();
    assert_eq!(again.destroyed, 0);
    let expected = same(first);
    assert_eq!(same(again), expected, "the same key");
    house.stop();
    house.start();
    assert_eq!(same(erase(&house, by_token(&gone, EraseReason::Cancellation)).unwrap()), expected, "after a restart");
    let anew =
        EraseSubjectRequest { idempotency_key: "anew".to_owned(), ..by_token(&waits, EraseReason::Cancellation) };
    assert_eq!(same(erase(&house, anew).unwrap()), expected, "a fresh key, by the other record");
    let by_name = by_reference(ANNA, EraseReason::Cancellation);
    assert_eq!(same(erase(&house, by_name.clone()).unwrap()), expected, "by reference");
    let other = EraseSubjectRequest { reason: EraseReason::SubjectRequest.into(), ..by_name.clone() };
    assert_eq!(reason(&erase(&house, other).unwrap_err()), "IDEMPOTENCY_KEY_REUSED");
    // When the last record has gone, the reference leads nowhere; the key and the tokens still do.
    house.event(&waits, EventKind::RefundSettled, 0).unwrap();
    assert_eq!(house.sweep(), 1);
    for request in [
        by_name.clone(),
        EraseSubjectRequest { idempotency_key: "t".to_owned(), ..by_token(&gone, EraseReason::Minor) },
    ] {
        let list = erase(&house, request).unwrap();
        assert_eq!((list.receipts.len(), list.kept.len()), (2, 0));
    }
    let unknown = EraseSubjectRequest { idempotency_key: "nobody".to_owned(), ..by_name };
    assert_eq!(reason(&erase(&house, unknown).unwrap_err()), "NOT_FOUND");
}

#[test]
fn what_must_stay_is_listed_with_its_reason_and_goes_by_itself_when_that_is_over() {
    let house = House::new();
    let tokens: Vec<String> = (1..=5).map(|n| house.tokenize(annas(n))).collect();
    let [plain, held, refund, both, settled] = tokens.as_slice() else { unreachable!() };
    let court = hold(&house, held, HoldKind::Court);
    let dispute = hold(&house, both, HoldKind::Dispute);
    for token in [refund, both, settled] {
        house.event(token, EventKind::RefundOpened, 0).unwrap();
    }
    house.event(settled, EventKind::RefundSettled, 0).unwrap();
    let list = erase(&house, by_reference(ANNA, EraseReason::Cancellation)).unwrap();
    assert_eq!(list.destroyed, 2, "what is plain, and what is settled");
    let told: Vec<_> = list.kept.iter().map(|kept| (kept.token.as_str(), kept.reason(), kept.hold())).collect();
    let expected = [
        (held.as_str(), KeepReason::Held, HoldKind::Court),
        (refund.as_str(), KeepReason::Open, HoldKind::Unspecified),
        (both.as_str(), KeepReason::Held, HoldKind::Dispute),
    ];
    assert_eq!(told, expected);
    let open = list.kept.get(1).unwrap();
    assert_eq!((open.waiting_for.as_slice(), open.until.is_some()), (&["refund_settled".to_owned()][..], true));
    // Nothing but the hold keeps the one: it is unreadable. The other is in use until its refund is settled.
    assert_eq!(state(&house, held), (RecordState::Expired, "by cancellation".to_owned()));
    assert_eq!(state(&house, refund).0, RecordState::Live);
    assert_eq!(state(&house, plain).0, RecordState::Erased);
    assert_eq!(house.sweep(), 0);
    house.clock.advance(3 * DAY);
    for token in [refund, both] {
        house.event(token, EventKind::RefundSettled, 0).unwrap();
    }
    assert_eq!(house.sweep(), 1);
    assert_eq!(state(&house, refund), (RecordState::Erased, "cancellation".to_owned()));
    assert_eq!(state(&house, both).0, RecordState::Expired);
    lift(&house, &court);
    assert_eq!((house.sweep(), state(&house, held).0), (1, RecordState::Erased));
    lift(&house, &dispute);
    assert_eq!((house.sweep(), state(&house, both).0), (1, RecordState::Erased));
    assert_eq!(rows(&house).get(..5).unwrap(), [0; 5], "and with the last record the subject");
    let list = erase(&house, by_reference(ANNA, EraseReason::Cancellation)).unwrap();
    assert_eq!((list.receipts.len(), list.kept.len()), (5, 0), "one story tells of all five");
}

#[test]
fn a_minors_data_waits_for_a_courts_hold_and_nothing_else() {
    let house = House::new();
    let tokens: Vec<String> = (1..=3).map(|n| house.tokenize(annas(n))).collect();
    let [refund, disputed, ordered] = tokens.as_slice() else { unreachable!() };
    house.event(refund, EventKind::RefundOpened, 0).unwrap();
    hold(&house, disputed, HoldKind::Dispute);
    hold(&house, ordered, HoldKind::Court);
    let kept = erase(&house, by_token(refund, EraseReason::Cancellation)).unwrap().kept.len();
    assert_eq!(kept, 3);
    let list = erase(&house, by_token(refund, EraseReason::Minor)).unwrap();
    assert_eq!(list.destroyed, 2, "a weightier reason takes along what the first one left");
    assert_eq!(list.kept.iter().map(|kept| kept.token.as_str()).collect::<Vec<_>>(), [ordered]);
    assert_eq!(state(&house, refund), (RecordState::Erased, "minor".to_owned()));
}

#[test]
fn whoever_comes_back_is_a_customer_again() {
    let house = House::new();
    let waits = house.tokenize(annas(1));
    house.event(&waits, EventKind::RefundOpened, 0).unwrap();
    erase(&house, by_token(&waits, EraseReason::Cancellation)).unwrap();
    house.clock.advance(DAY);
    let later = house.tokenize(annas(2));
    assert_eq!(house.sweep(), 0);
    assert_eq!(state(&house, &later).0, RecordState::Live);
    let list = erase(&house, by_token(&waits, EraseReason::Cancellation)).unwrap();
    assert_eq!(list.kept.len(), 1, "what came later is none of its business");
    house.event(&waits, EventKind::RefundSettled, 0).unwrap();
    assert_eq!((house.sweep(), state(&house, &later).0), (1, RecordState::Live));
    let anew =
        EraseSubjectRequest { idempotency_key: "anew".to_owned(), ..by_token(&later, EraseReason::Cancellation) };
    assert_eq!(erase(&house, anew).unwrap().destroyed, 1);
}

/// Storing, reporting and erasing at once: whatever came first, nothing is left that is neither in use nor gone. The clock
/// stands still meanwhile, so that no time can tell what came first.
#[test]
fn what_races_with_an_erasure_comes_before_it_and_goes_or_after_it_and_stays() {
    let rounds = if std::env::var_os("STRONGROOM_FULL").is_some() { 300 } else { 30 };
    let house = House::new();
    let (mut gone, mut stayed) = (0, 0);
    for round in 0..rounds {
        let of = |n: usize| {
            let order = order(round * 10 + n);
            TokenizeRequest { subject: format!("racer-{round}@shop.example"), ..order }
        };
        let waits = house.tokenize(of(0));
        house.event(&waits, EventKind::RefundOpened, 0).unwrap();
        let settled = ReportEventRequest {
            idempotency_key: format!("settled-{round}"),
            token: waits.clone(),
            kind: EventKind::RefundSettled.into(),
            ordinal: 0,
            occurred_at: Some(wire_time(house.clock.now())),
        };
        let lanes: Vec<_> = (1..5).map(|n| (house.tokens(), of(n))).collect();
        let (mut office, mut shop) = (officer(&house), house.lifecycle());
        let request = by_token(&waits, EraseReason::Cancellation);
        let tokens: Vec<String> = house.run(async {
            let storing: Vec<_> = lanes
                .into_iter()
                .map(|(mut lane, order)| tokio::spawn(async move { lane.tokenize(order).await }))
                .collect();
            let erasing = tokio::spawn(async move {
                let mut news = office.erase_subject(request).await.unwrap().into_inner();
                while news.message().await.unwrap().is_some() {}
            });
            // Refused, if the record was gone by then.
            let reporting = tokio::spawn(async move { drop(shop.report_event(settled).await) });
            let mut tokens = Vec::new();
            for stored in storing {
                tokens.push(stored.await.unwrap().unwrap().into_inner().token);
            }
            erasing.await.unwrap();
            reporting.await.unwrap();
            tokens
        });
        house.sweep();
        if house.run(house.operations().status(StatusRequest {})).unwrap().into_inner().sweep_paused {
            // So many at once as make the sweeper wait for a person.
            house.run(house.operations().resume_sweep(ResumeSweepRequest {})).unwrap();
            house.sweep();
        }
        assert_eq!(state(&house, &waits).0, RecordState::Erased, "round {round}: settled and asked for");
        for token in tokens {
            match state(&house, &token).0 {
                RecordState::Erased => gone += 1,
                RecordState::Live => stayed += 1,
                other => panic!("round {round}: {other:?}"),
            }
        }
    }
    assert_eq!(gone + stayed, 4 * rounds);
    println!("{gone} came before and are gone, {stayed} came after and stayed");
}

/// A hold and an erasure at once: a hold that was placed has kept its record, and one that came too late is told so.
#[test]
fn a_hold_that_races_with_an_erasure_keeps_its_record_or_is_refused() {
    let rounds = if std::env::var_os("STRONGROOM_FULL").is_some() { 300 } else { 30 };
    let house = House::new();
    let (mut kept, mut late) = (0, 0);
    for round in 0..rounds {
        let of = |n: usize| TokenizeRequest { subject: format!("held-{round}@shop.example"), ..order(round * 10 + n) };
        let tokens: Vec<String> = (0..3).map(|n| house.tokenize(of(n))).collect();
        let held = tokens.last().unwrap().clone();
        let request = PlaceHoldRequest {
            idempotency_key: format!("race-{round}"),
            token: held.clone(),
            whole_subject: round % 2 == 0,
            kind: HoldKind::Authority.into(),
            case_reference: "12 O 345/26".to_owned(),
            ..Default::default()
        };
        let (mut officer_one, mut officer_two) = (officer(&house), officer(&house));
        let leave = by_token(&held, EraseReason::Cancellation);
        let (placed, count) = house.run(async {
            let erasing = tokio::spawn(async move {
                let (mut news, mut count) = (officer_one.erase_subject(leave).await.unwrap().into_inner(), 0);
                while let Some(message) = news.message().await.unwrap() {
                    count += usize::from(matches!(message.news, Some(News::Kept(_))));
                }
                count
            });
            // An erasure is several commits: the hold comes between any two of them, or after all.
            let wait = std::time::Duration::from_micros(u64::try_from(round % 10).unwrap() * 700);
            let placing = tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                officer_two.place_hold(request).await
            });
            (placing.await.unwrap(), erasing.await.unwrap())
        });
        house.sweep();
        match placed {
            Ok(_) => {
                assert_eq!(state(&house, &held).0, RecordState::Expired, "round {round}: it is kept, and unreadable");
                assert!(count <= tokens.len());
                kept += 1;
            }
            Err(refused) => {
                assert_eq!(reason(&refused), "ERASED");
                assert_eq!(state(&house, &held).0, RecordState::Erased);
                late += 1;
            }
        }
    }
    println!("{kept} holds were in time, {late} came too late");
}

#[test]
fn an_erasure_that_is_cut_off_is_unreadable_at_once_and_carried_on_without_the_caller() {
    let mut house = House::new();
    let tokens: Vec<String> = (1..=50).map(|n| house.tokenize(annas(n))).collect();
    let last = tokens.last().unwrap();
    let call = strongroom::vault::Call {
        caller: strongroom::domain::caller::Caller::from_uri(
            "spiffe://shop.test/tenant/kitchenware/privacy-officer/office",
            "shop.test",
            strongroom::domain::caller::CertificateHash([7; 32]),
        )
        .unwrap(),
        request: RequestId([3; 16]),
    };
    let ask = EraseSubject {
        key: IdempotencyKey::parse("key", "leave".to_owned()).unwrap(),
        which: Which::Subject(CustomerReference::parse("subject", ANNA.to_owned()).unwrap()),
        reason: Reason::Cancellation,
    };
    let vault = house.vault().clone();
    let news = house.run(async {
        let mut erasure = vault.erase_subject(&call, &ask).await.unwrap();
        vault.go_on(&call, &mut erasure).await.unwrap()
    });
    assert!(matches!(news.as_slice(), [SubjectNews::Progress(20)]), "one chunk, and the caller is gone");
    drop(vault);
    assert_eq!(state(&house, last), (RecordState::Expired, "by cancellation".to_owned()));
    house.stop();
    house.start();
    // The sweeper went on with the start, and may be done by now.
    assert!([RecordState::Expired, RecordState::Erased].contains(&state(&house, last).0));
    assert!(house.sweep() <= 30);
    assert_eq!(rows(&house), [0; 6]);
    let by_vault = log(&house).into_iter().filter(|entry| entry.request == call.request && entry.actor == Actor::Vault);
    assert_eq!(by_vault.filter(|entry| entry.action == Action::Erase).count(), 50, "told under the asking's number");
}

#[test]
fn what_is_no_erasure_of_a_subject_is_refused_by_the_fields_name() {
    let house = House::new();
    let token = house.tokenize(annas(1));
    let good = || by_token(&token, EraseReason::Cancellation);
    for (request, why) in [
        (EraseSubjectRequest { reason: EraseReason::Controller.into(), ..good() }, "UNKNOWN"),
        (EraseSubjectRequest { reason: 0, ..good() }, "UNKNOWN"),
        (EraseSubjectRequest { reason: 77, ..good() }, "UNKNOWN"),
        (EraseSubjectRequest { token: String::new(), ..good() }, "MISSING"),
        (EraseSubjectRequest { subject: ANNA.to_owned(), ..good() }, "REPEATED"),
        (EraseSubjectRequest { token: "srt1".to_owned(), ..good() }, "NOT_A_TOKEN"),
        (EraseSubjectRequest { idempotency_key: String::new(), ..good() }, "MISSING"),
        (by_token(&Token::from_bytes([9; 20]).to_text(), EraseReason::Minor), "NOT_FOUND"),
        (by_reference("nobody", EraseReason::Minor), "NOT_FOUND"),
    ] {
        assert_eq!(reason(&erase(&house, request).unwrap_err()), why);
    }
    assert_eq!(state(&house, &token).0, RecordState::Live);
}
