//! What must look alike: whatever a caller may not have, it gets the one answer of what never was.

use std::collections::BTreeMap;

use prost::Message as _;
use strongroom::domain::caller::Role;
use strongroom::domain::time::{Clock as _, DAY};
use strongroom::domain::token::Token;
use strongroom::rpc::proto::delivery_service_client::DeliveryServiceClient;
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::inquiry_service_client::InquiryServiceClient;
use strongroom::rpc::proto::lifecycle_service_client::LifecycleServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    self, BatchDetokenizeRequest, ConfirmDeliveryRequest, CorrectRequest, DescribeRequest, DetokenizeRequest,
    EraseRequest, EraseSubjectRequest, GetDeliveryRequest, GrantShipmentRequest, LiftHoldRequest, PlaceHoldRequest,
    ReceiptOfRequest, ReportEventRequest, RevokeShipmentRequest, WhoSawRequest,
};
use tonic::{Code, Request, Status};

use crate::common::{self, House, text, wire_time};
use crate::{fields, open_house, raw};

/// Code, message, details and headers.
type Received = (i32, String, Vec<u8>, Vec<String>);

/// All that a refused caller receives, the date of the answer aside.
fn received(status: &Status) -> Received {
    let mut headers = status.metadata().clone().into_headers();
    headers.remove("date");
    let mut headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    headers.sort();
    (status.code() as i32, status.message().to_owned(), status.details().to_vec(), headers)
}

/// Tokens that one caller must not tell apart: nobody's, another tenant's, one that the caller's purpose opens nothing of.
struct Lookalikes {
    unknown: String,
    foreign: String,
    own: String,
}

fn lookalikes(house: &House) -> Lookalikes {
    let unknown = Token::from_bytes([7; 20]).to_text();
    let own = house.tokenize(common::order(1));
    let mut rival = TokenServiceClient::new(house.channel(Role::Shop, "rival"));
    let foreign = house.run(rival.tokenize(common::order(1))).unwrap().into_inner().token;
    Lookalikes { unknown, foreign, own }
}

#[test]
fn unknown_foreign_and_forbidden_are_one_answer_at_every_rpc_that_takes_a_token() {
    let house = open_house();
    let Lookalikes { unknown, foreign, own } = lookalikes(&house);
    let mut answers = BTreeMap::new();
    let mut note = |what: &str, status: Status| answers.insert(what.to_owned(), received(&status));
    let read = |role, name: &str, token: &str, purpose: proto::Purpose| {
        let request = DetokenizeRequest {
            token: token.to_owned(),
            fields: vec![proto::Field::Phone.into(), proto::Field::Note.into()],
            purpose: purpose.into(),
        };
        house.run(TokenServiceClient::new(house.channel(role, name)).detokenize(request)).unwrap_err()
    };
    for (token, what) in [(&unknown, "unknown"), (&foreign, "foreign"), (&own, "forbidden")] {
        let answer = read(Role::CustomerService, "desk", token, proto::Purpose::AfterSales);
        note(&format!("desk reads {what}"), answer);
        note(&format!("shop reads {what}"), read(Role::Shop, "backend", token, proto::Purpose::Delivery));
        note(&format!("warehouse reads {what}"), read(Role::Warehouse, "packing", token, proto::Purpose::Refund));
    }
    let (mut tokens, mut lifecycle) = (house.tokens(), house.lifecycle());
    let now = house.clock.now();
    let mut officer = InquiryServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    for (token, what) in [(unknown, "unknown"), (foreign, "foreign")] {
        let key = || format!("{what}-key");
        let who_saw = WhoSawRequest { token: token.clone(), since: None, until: None, everything: true };
        note(&format!("who saw {what}"), house.run(officer.who_saw(who_saw)).unwrap_err());
        let describe = DescribeRequest { token: token.clone() };
        note(&format!("describe {what}"), house.run(tokens.describe(describe)).unwrap_err());
        let erase = EraseRequest { idempotency_key: key(), token: token.clone(), reason: 1 };
        note(&format!("erase {what}"), house.run(tokens.erase(erase)).unwrap_err());
        let correct = CorrectRequest {
            idempotency_key: key(),
            token: token.clone(),
            if_revision: 1,
            fields: vec![text(proto::Field::Note, "x")],
            clear: Vec::new(),
        };
        note(&format!("correct {what}"), house.run(tokens.correct(correct)).unwrap_err());
        let event = ReportEventRequest {
            idempotency_key: key(),
            token: token.clone(),
            kind: 3,
            ordinal: 0,
            occurred_at: Some(wire_time(now)),
        };
        note(&format!("event {what}"), house.run(lifecycle.report_event(event)).unwrap_err());
        let mut erasures = ErasureServiceClient::new(house.channel(Role::Shop, "backend"));
        let receipt = ReceiptOfRequest { token: token.clone() };
        note(&format!("receipt {what}"), house.run(erasures.receipt_of(receipt)).unwrap_err());
        let leave = EraseSubjectRequest {
            idempotency_key: key(),
            token: token.clone(),
            subject: String::new(),
            reason: proto::EraseReason::Minor.into(),
        };
        note(&format!("erase the subject of {what}"), house.run(erasures.erase_subject(leave)).unwrap_err());
        let hold = PlaceHoldRequest {
            idempotency_key: key(),
            token: token.clone(),
            kind: proto::HoldKind::Court.into(),
            case_reference: "1/26".to_owned(),
            ..Default::default()
        };
        let mut officer = ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
        note(&format!("hold {what}"), house.run(officer.place_hold(hold)).unwrap_err());
        let lift = LiftHoldRequest { hold_id: "hold-987654321".to_owned() };
        note("lift unknown", house.run(officer.lift_hold(lift)).unwrap_err());
        let grant = GrantShipmentRequest {
            idempotency_key: key(),
            token,
            serial: "SW000000001".to_owned(),
            carrier: "swift".to_owned(),
            not_before: Some(wire_time(now)),
            not_after: Some(wire_time(now.plus(DAY))),
            read_limit: 1,
            parcel: 0,
        };
        note(&format!("grant {what}"), house.run(lifecycle.grant_shipment(grant)).unwrap_err());
    }
    let own_grant = house.grant(&own, "SW000000002", "swift");
    let mut rival = LifecycleServiceClient::new(house.channel(Role::Shop, "rival"));
    for (grant_id, what) in [("grant-987654321".to_owned(), "unknown"), (own_grant, "foreign")] {
        let revoke = RevokeShipmentRequest { idempotency_key: "revoke".to_owned(), grant_id };
        note(&format!("revoke {what}"), house.run(rival.revoke_shipment(revoke)).unwrap_err());
    }
    assert_alike(&answers, 30);
}

fn assert_alike(answers: &BTreeMap<String, Received>, count: usize) {
    assert_eq!(answers.len(), count);
    let first = answers.values().next().unwrap();
    assert_eq!(first.0, Code::NotFound as i32);
    for (what, answer) in answers {
        assert_eq!(answer, first, "{what}");
    }
}

#[test]
fn items_of_a_page_that_are_unknown_foreign_or_forbidden_are_byte_equal() {
    let house = open_house();
    let Lookalikes { unknown, foreign, own } = lookalikes(&house);
    let request = BatchDetokenizeRequest {
        tokens: vec![unknown, foreign, own],
        fields: vec![proto::Field::Phone.into(), proto::Field::Note.into()],
        purpose: proto::Purpose::AfterSales.into(),
    };
    let path = "/strongroom.v1.TokenService/BatchDetokenize";
    let channel = house.channel(Role::CustomerService, "desk");
    let reply = house.run(raw::call(channel, path, Request::new(request.encode_to_vec()))).unwrap();
    let items = fields(&reply[0]);
    assert_eq!(items.len(), 3);
    assert!(items.iter().all(|item| *item == items[0]));
}

#[test]
fn whatever_a_carrier_may_not_have_is_one_answer() {
    let house = open_house();
    let mut answers = BTreeMap::new();
    for (serial, what) in [
        ("SW000000001", "unknown"),
        ("SW000000002", "another carrier's"),
        ("SW000000003", "another tenant's"),
        ("SW000000004", "revoked"),
        ("SW000000005", "delivered"),
        ("SW000000006", "used up"),
        ("SW000000007", "erased"),
        ("SW000000008", "over"),
        ("SW000000009", "expired"),
    ] {
        // An order each: a delivery ends every grant for its parcel.
        let token = house.tokenize(common::order(100 + answers.len()));
        forbid(&house, &token, serial, what);
        let mut carrier = match what {
            "another tenant's" => DeliveryServiceClient::new(house.channel(Role::Carrier, "rival")),
            _ => house.carrier("swift"),
        };
        let get = GetDeliveryRequest { serial: serial.to_owned() };
        answers.insert(format!("get {what}"), received(&house.run(carrier.get_delivery(get)).unwrap_err()));
        // What is only used up, over or expired may still be confirmed.
        if ["used up", "over", "expired"].contains(&what) {
            continue;
        }
        let confirm = ConfirmDeliveryRequest {
            idempotency_key: format!("again-{serial}"),
            serial: serial.to_owned(),
            delivered_at: Some(wire_time(house.clock.now())),
        };
        answers.insert(format!("confirm {what}"), received(&house.run(carrier.confirm_delivery(confirm)).unwrap_err()));
    }
    assert_alike(&answers, 15);
}

/// Brings a serial into the state named.
fn forbid(house: &House, token: &str, serial: &str, what: &str) {
    let get = || GetDeliveryRequest { serial: serial.to_owned() };
    match what {
        "unknown" => {}
        "another carrier's" => drop(house.grant(token, serial, "parcelo")),
        "another tenant's" => drop(house.grant(token, serial, "swift")),
        "revoked" => {
            let grant_id = house.grant(token, serial, "swift");
            let revoke = RevokeShipmentRequest { idempotency_key: "revoke".to_owned(), grant_id };
            house.run(house.lifecycle().revoke_shipment(revoke)).unwrap();
        }
        "delivered" => {
            house.grant(token, serial, "swift");
            let confirm = ConfirmDeliveryRequest {
                idempotency_key: "delivered".to_owned(),
                serial: serial.to_owned(),
                delivered_at: Some(wire_time(house.clock.now())),
            };
            house.run(house.carrier("swift").confirm_delivery(confirm)).unwrap();
        }
        "used up" => {
            house.grant(token, serial, "swift");
            let mut carrier = house.carrier("swift");
            (0..10).for_each(|_| drop(house.run(carrier.get_delivery(get())).unwrap()));
        }
        "erased" => {
            let token = house.tokenize(common::order(7));
            house.grant(&token, serial, "swift");
            let erase = EraseRequest { idempotency_key: "erase".to_owned(), token, reason: 1 };
            house.run(house.tokens().erase(erase)).unwrap();
        }
        "over" => {
            house.grant(token, serial, "swift");
            house.clock.advance(30 * DAY);
        }
        "expired" => {
            house.clock.advance(350 * DAY);
            house.grant(token, serial, "swift");
            house.run(house.carrier("swift").get_delivery(get())).unwrap();
            house.clock.advance(20 * DAY);
        }
        _ => panic!("{what}"),
    }
}
