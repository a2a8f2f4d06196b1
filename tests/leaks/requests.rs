//! Every RPC with canaries: as it is meant, refused for each reason, by the wrong role, and malformed.

use std::io::Write as _;
use std::net::TcpStream;

use prost::Message as _;
use prost_reflect::DescriptorPool;
use strongroom::cli::dev::CALLERS;
use strongroom::domain::time::{Clock as _, DAY, SystemClock, Timestamp};
use strongroom::domain::token::Token;
use strongroom::rpc::proto::approval_service_client::ApprovalServiceClient;
use strongroom::rpc::proto::delivery_service_client::DeliveryServiceClient;
use strongroom::rpc::proto::disclosure_service_client::DisclosureServiceClient;
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::field_value::Value;
use strongroom::rpc::proto::find_request::By;
use strongroom::rpc::proto::lifecycle_service_client::LifecycleServiceClient;
use strongroom::rpc::proto::retention_service_client::RetentionServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    ApproveRequest, BatchDetokenizeRequest, Class, ConfirmDeliveryRequest, CorrectRequest, DESCRIPTORS,
    DescribeRequest, DetokenizeRequest, DiscloseRequest, EraseReason, EraseRequest, EraseSubjectRequest, EventKind,
    Field, FieldValue, FindRequest, GetDeliveryRequest, GrantShipmentRequest, HoldKind, LiftHoldRequest,
    ListHoldsRequest, Outcome, PlaceHoldRequest, Purpose, ReceiptOfRequest, ReportEventRequest,
    RetentionForecastRequest, RetentionOutlookRequest, RevokeShipmentRequest, ShowApprovalRequest, TokenizeRequest,
    TokenizeStreamRequest, WhoSawRequest, disclose_response, tokenize_stream_response,
};
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::canaries::{CLASSES, Canaries, FIELDS, Flaw, collected};
use crate::raw;
use crate::served::Served;

pub fn all(served: &mut Served, canaries: &mut Canaries) {
    let mut shop = Shop {
        tokens: TokenServiceClient::new(served.channel("shop-backend")),
        lifecycle: LifecycleServiceClient::new(served.channel("shop-backend")),
        carrier: DeliveryServiceClient::new(served.channel("carrier-swift")),
    };
    // What truncates the write-ahead log comes first, so that the log is full in the end.
    let gone = shop.corrected_and_erased(served, canaries);
    erased_by_subject(served, canaries, &mut shop);
    disclosed(served, canaries, &mut shop);
    shop.refused_values(served, canaries);
    shop.refused_places(served, canaries, &gone);
    shop.streamed(served, canaries);
    shop.delivered(served, canaries);
    shop.read(served, canaries);
    shop.found(served, canaries);
    forecast(served, canaries);
    by_the_wrong_role(served, canaries);
    malformed(served, canaries);
}

struct Shop {
    tokens: TokenServiceClient<Channel>,
    lifecycle: LifecycleServiceClient<Channel>,
    carrier: DeliveryServiceClient<Channel>,
}

fn wire(at: Timestamp) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: at.0 / 1_000_000, nanos: 0 })
}

/// A token that nobody was ever given.
fn strange(canaries: &mut Canaries, number: u8) -> String {
    let token = Token::from_bytes([number; 20]).to_text();
    canaries.tokens.push(token.clone());
    token
}

/// The text of one of a request's fields.
fn text_of(request: &TokenizeRequest, field: Field) -> String {
    let value = request.fields.iter().find(|value| value.field() == field).and_then(|value| value.value.clone());
    match value {
        Some(Value::Text(text)) => text,
        _ => panic!("no text"),
    }
}

impl Shop {
    fn store(&mut self, served: &Served, canaries: &mut Canaries, request: TokenizeRequest) -> String {
        let token = served.run(self.tokens.tokenize(request)).unwrap().into_inner().token;
        canaries.tokens.push(token.clone());
        token
    }

    fn stored(&mut self, served: &Served, canaries: &mut Canaries, class: Class) -> String {
        let (request, kept) = canaries.record(class);
        canaries.kept.extend(kept);
        self.store(served, canaries, request)
    }

    /// Records whose values were replaced or destroyed; answers the token of an erased one.
    fn corrected_and_erased(&mut self, served: &mut Served, canaries: &mut Canaries) -> String {
        let mut last = String::new();
        for class in CLASSES {
            let (request, _) = canaries.record(class);
            let subject = request.subject.clone();
            let token = self.store(served, canaries, request);
            let (mut fields, mut kept) = (Vec::new(), vec![subject]);
            for field in collected(class) {
                let (value, texts) = canaries.value(*field);
                fields.push(value);
                kept.extend(texts);
            }
            let correct = CorrectRequest {
                idempotency_key: canaries.word("key"),
                token: token.clone(),
                if_revision: 1,
                fields,
                clear: Vec::new(),
            };
            served.run(self.tokens.correct(correct.clone())).unwrap();
            served.run(self.tokens.correct(correct.clone())).unwrap();
            canaries.kept.extend(kept);
            let stale = CorrectRequest { idempotency_key: canaries.word("key"), ..correct };
            let answer = served.run(self.tokens.correct(stale));
            served.refused("a correction of a stale revision", answer);

            let (request, _) = canaries.record(class);
            last = self.store(served, canaries, request.clone());
            let erase = EraseRequest {
                idempotency_key: canaries.word("key"),
                token: last.clone(),
                reason: EraseReason::SubjectRequest.into(),
            };
            served.run(self.tokens.erase(erase.clone())).unwrap();
            served.run(self.tokens.erase(erase)).unwrap();
            let answer = served.run(self.tokens.tokenize(request));
            served.refused("a repeated request whose record is erased", answer);
        }
        last
    }

    /// Values that no field may have.
    fn refused_values(&mut self, served: &mut Served, canaries: &mut Canaries) {
        for class in CLASSES {
            for field in FIELDS {
                let (value, _) = canaries.value(field);
                let mut wrong = vec![(vec![value.clone(), value], "a repeated or uncollected field")];
                for flaw in [Flaw::TooLong, Flaw::Control, Flaw::Card] {
                    wrong.extend(canaries.flawed(field, flaw).into_iter().map(|value| (vec![value], "a flawed field")));
                }
                wrong.push((vec![wrong_kind(canaries, field)], "a field of the wrong kind"));
                for (fields, what) in wrong {
                    let (mut request, _) = canaries.record(class);
                    request.fields = fields;
                    let answer = served.run(self.tokens.tokenize(request));
                    served.refused(what, answer);
                }
            }
            for flaw in [Flaw::TooLong, Flaw::Control, Flaw::Card] {
                let (mut request, _) = canaries.record(class);
                request.subject = canaries.flawed_text(flaw);
                let answer = served.run(self.tokens.tokenize(request));
                served.refused("a flawed subject", answer);
            }
            for flaw in [Flaw::TooLong, Flaw::Control] {
                let (mut request, _) = canaries.record(class);
                request.idempotency_key = canaries.flawed_text(flaw);
                let answer = served.run(self.tokens.tokenize(request));
                served.refused("a flawed idempotency key", answer);
            }
            let (mut request, _) = canaries.record(class);
            request.class = 99;
            let answer = served.run(self.tokens.tokenize(request));
            served.refused("an unknown class", answer);

            let (request, kept) = canaries.record(class);
            canaries.kept.extend(kept);
            let token = self.store(served, canaries, request.clone());
            assert_eq!(self.store(served, canaries, request.clone()), token);
            let (other, _) = canaries.record(class);
            let answer =
                served.run(self.tokens.tokenize(TokenizeRequest { idempotency_key: request.idempotency_key, ..other }));
            served.refused("an idempotency key used twice", answer);
        }
    }

    /// Tokens, serials and names that lead nowhere, with canaries beside them.
    fn refused_places(&mut self, served: &mut Served, canaries: &mut Canaries, gone: &str) {
        let now = SystemClock::new().now();
        let live = self.stored(served, canaries, Class::Order);
        let mut tokens = vec![gone.to_owned(), strange(canaries, 1), canaries.word("token"), String::new()];
        tokens.push(format!("{live}{}", canaries.word("token")));
        for token in tokens {
            let detokenize = DetokenizeRequest {
                token: token.clone(),
                fields: vec![Field::Phone.into()],
                purpose: Purpose::Delivery.into(),
            };
            let answer = served.run(self.tokens.detokenize(detokenize));
            served.refused("a reading of no record", answer);
            if token != gone {
                let answer = served.run(self.tokens.describe(DescribeRequest { token: token.clone() }));
                served.refused("a description of no record", answer);
                let erase = EraseRequest { idempotency_key: canaries.word("key"), token: token.clone(), reason: 1 };
                let answer = served.run(self.tokens.erase(erase));
                served.refused("an erasure of no record", answer);
            }
            let correct = CorrectRequest {
                idempotency_key: canaries.word("key"),
                token: token.clone(),
                if_revision: 1,
                fields: vec![canaries.value(Field::RecipientName).0],
                clear: Vec::new(),
            };
            let answer = served.run(self.tokens.correct(correct));
            served.refused("a correction of no record", answer);
            let event = ReportEventRequest {
                idempotency_key: canaries.word("key"),
                token: token.clone(),
                kind: EventKind::Placed.into(),
                ordinal: 0,
                occurred_at: wire(now),
            };
            let answer = served.run(self.lifecycle.report_event(event));
            served.refused("an event of no record", answer);
            let grant = grant(canaries, token, now);
            let answer = served.run(self.lifecycle.grant_shipment(grant));
            served.refused("a grant of no record", answer);
        }
        for (serial, carrier) in [
            (canaries.word("serial") + "_", "swift".to_owned()),
            (canaries.word("serial") + &"x".repeat(40), "swift".to_owned()),
            ("4111111111111111".to_owned(), "swift".to_owned()),
            (canaries.word("serial"), canaries.word("carrier") + "_"),
        ] {
            let grant = GrantShipmentRequest { serial: serial.clone(), carrier, ..grant(canaries, live.clone(), now) };
            let answer = served.run(self.lifecycle.grant_shipment(grant));
            served.refused("a grant of no serial or to no carrier", answer);
            let answer = served.run(self.carrier.get_delivery(GetDeliveryRequest { serial: serial.clone() }));
            served.refused("a reading of no serial", answer);
            let confirm =
                ConfirmDeliveryRequest { idempotency_key: canaries.word("key"), serial, delivered_at: wire(now) };
            let answer = served.run(self.carrier.confirm_delivery(confirm));
            served.refused("a confirmation of no serial", answer);
        }
        for grant_id in [canaries.word("grant"), format!("grant-{}", canaries.word("grant"))] {
            let revoke = RevokeShipmentRequest { idempotency_key: canaries.word("key"), grant_id };
            let answer = served.run(self.lifecycle.revoke_shipment(revoke));
            served.refused("a revocation of no grant", answer);
        }
        let page = BatchDetokenizeRequest {
            tokens: vec![strange(canaries, 2), canaries.word("token"), live],
            fields: vec![Field::Email.into()],
            purpose: Purpose::Delivery.into(),
        };
        let reply = served.run(self.tokens.batch_detokenize(page)).unwrap().into_inner();
        served.heard.push(("a page of refusals".to_owned(), reply.encode_to_vec()));
    }

    /// Accounts found by what they hold; values that nobody has or that do not parse; strange page tokens.
    fn found(&mut self, served: &mut Served, canaries: &mut Canaries) {
        let (request, kept) = canaries.record(Class::Account);
        let (reference, email) = (request.subject.clone(), text_of(&request, Field::Email));
        canaries.kept.extend(kept);
        let token = self.store(served, canaries, request);
        let by = |by: By| FindRequest {
            purpose: Purpose::SelfService.into(),
            class: Class::Account.into(),
            by: Some(by),
            page_size: 1,
            page_token: Vec::new(),
        };
        for value in [By::Email(email.clone()), By::CustomerReference(reference)] {
            let page = served.run(self.tokens.find(by(value))).unwrap().into_inner();
            assert_eq!(page.tokens, std::slice::from_ref(&token));
        }
        let (unknown, no_email, no_phone) = (canaries.email(), canaries.word("no-email"), canaries.word("no-phone"));
        for value in [
            By::Email(unknown),
            By::Email(no_email),
            By::Phone(no_phone),
            By::Phone(canaries.phone().0),
            By::CustomerReference(canaries.word("reference")),
            By::CustomerReference(canaries.word("reference") + "\u{7}"),
        ] {
            let answer = served.run(self.tokens.find(by(value.clone())));
            served.refused("a search for what nobody has", answer);
            let elsewhere = FindRequest { class: Class::Order.into(), ..by(value) };
            let answer = served.run(self.tokens.find(elsewhere));
            served.refused("a search in a class that does not opt in", answer);
        }
        let strange = FindRequest { page_token: canaries.word("page").into_bytes(), ..by(By::Email(email)) };
        let answer = served.run(self.tokens.find(strange));
        served.refused("a page token that nobody was given", answer);
    }

    /// One stream of records good and bad.
    fn streamed(&mut self, served: &mut Served, canaries: &mut Canaries) {
        let mut items = Vec::new();
        for class in CLASSES {
            let (good, kept) = canaries.record(class);
            canaries.kept.extend(kept);
            let (mut bad, _) = canaries.record(class);
            bad.fields.push(canaries.flawed(Field::Email, Flaw::Control).remove(0));
            items.extend([Some(good), Some(bad), None]);
        }
        let count = items.len();
        let requests: Vec<_> = items.into_iter().map(|item| TokenizeStreamRequest { item }).collect();
        let mut replies = served.run(self.tokens.tokenize_stream(tokio_stream::iter(requests))).unwrap().into_inner();
        let mut good = 0;
        for _ in 0..count {
            let reply = served.run(replies.message()).unwrap().unwrap();
            match reply.result {
                Some(tokenize_stream_response::Result::Done(done)) => {
                    good += 1;
                    canaries.tokens.push(done.token);
                }
                _ => served.heard.push(("a streamed refusal".to_owned(), reply.encode_to_vec())),
            }
        }
        assert_eq!(good, CLASSES.len());
    }

    /// Parcels granted, read, confirmed, revoked; one grant stays.
    fn delivered(&mut self, served: &mut Served, canaries: &mut Canaries) {
        let now = SystemClock::new().now();
        let token = self.stored(served, canaries, Class::Order);
        let stays = grant(canaries, token.clone(), now);
        served.run(self.lifecycle.grant_shipment(stays.clone())).unwrap();
        canaries.kept.push(stays.serial.clone());
        let read = served.run(self.carrier.get_delivery(GetDeliveryRequest { serial: stays.serial.clone() })).unwrap();
        assert_eq!(read.into_inner().serial, stays.serial);
        let again = GrantShipmentRequest { idempotency_key: canaries.word("key"), ..stays };
        let answer = served.run(self.lifecycle.grant_shipment(again));
        served.refused("a grant of a serial that is granted", answer);

        let revoked = grant(canaries, token.clone(), now);
        let grant_id = served.run(self.lifecycle.grant_shipment(revoked)).unwrap().into_inner().grant_id;
        let revoke = RevokeShipmentRequest { idempotency_key: canaries.word("key"), grant_id };
        served.run(self.lifecycle.revoke_shipment(revoke)).unwrap();

        let confirmed = grant(canaries, token.clone(), now);
        served.run(self.lifecycle.grant_shipment(confirmed.clone())).unwrap();
        let confirm = ConfirmDeliveryRequest {
            idempotency_key: canaries.word("key"),
            serial: confirmed.serial.clone(),
            delivered_at: wire(now),
        };
        served.run(self.carrier.confirm_delivery(confirm.clone())).unwrap();
        served.run(self.carrier.confirm_delivery(confirm)).unwrap();
        let answer = served.run(self.carrier.get_delivery(GetDeliveryRequest { serial: confirmed.serial }));
        served.refused("a reading of a delivered parcel", answer);

        let event = ReportEventRequest {
            idempotency_key: canaries.word("key"),
            token,
            kind: EventKind::RefundOpened.into(),
            ordinal: 0,
            occurred_at: wire(now),
        };
        served.run(self.lifecycle.report_event(event)).unwrap();
    }

    /// Plaintext that leaves as it may, and leaves no trace.
    fn read(&mut self, served: &mut Served, canaries: &mut Canaries) {
        let mut office = TokenServiceClient::new(served.channel("privacy-officer-office"));
        for class in CLASSES {
            let token = self.stored(served, canaries, class);
            let fields: Vec<i32> = collected(class).iter().map(|field| (*field).into()).collect();
            let purpose = Purpose::SubjectRequest.into();
            let single = DetokenizeRequest { token: token.clone(), fields: fields.clone(), purpose };
            let reply = served.run(office.detokenize(single)).unwrap().into_inner();
            assert!(reply.fields.iter().all(|field| field.outcome() == Outcome::Granted && field.value.is_some()));
            let page = BatchDetokenizeRequest { tokens: vec![token.clone()], fields, purpose };
            served.run(office.batch_detokenize(page)).unwrap();
            let asked = WhoSawRequest { token: token.clone(), since: None, until: None, everything: true };
            let path = "/strongroom.v1.InquiryService/WhoSaw";
            let saw = raw::call(served.channel("privacy-officer-office"), path, Request::new(asked.encode_to_vec()));
            let saw = served.run(saw).unwrap();
            served.heard.push(("who saw a subject".to_owned(), saw.concat()));
            let described = served.run(self.tokens.describe(DescribeRequest { token })).unwrap().into_inner();
            served.heard.push(("a description".to_owned(), described.encode_to_vec()));
        }
    }
}

/// Holds with their cases, kept and refused; a subject that goes by its reference; receipts.
fn erased_by_subject(served: &mut Served, canaries: &mut Canaries, shop: &mut Shop) {
    let mut office = ErasureServiceClient::new(served.channel("privacy-officer-office"));
    let (request, kept) = canaries.record(Class::Order);
    canaries.kept.extend(kept);
    let token = shop.store(served, canaries, request);
    let case_reference = canaries.word("case");
    canaries.kept.push(case_reference.clone());
    let place = PlaceHoldRequest {
        idempotency_key: canaries.word("key"),
        token: token.clone(),
        kind: HoldKind::Court.into(),
        case_reference: case_reference.clone(),
        ..Default::default()
    };
    served.run(office.place_hold(place.clone())).unwrap();
    let listed = served.run(office.list_holds(ListHoldsRequest { after: String::new() })).unwrap().into_inner().holds;
    assert!(listed.iter().any(|hold| hold.case_reference == case_reference));
    for request in [
        PlaceHoldRequest { case_reference: canaries.word("other-case"), ..place.clone() },
        PlaceHoldRequest {
            case_reference: canaries.word("case") + "\u{7}",
            idempotency_key: canaries.word("key"),
            ..place.clone()
        },
        PlaceHoldRequest { subject: canaries.word("subject"), idempotency_key: canaries.word("key"), ..place.clone() },
        PlaceHoldRequest {
            token: String::new(),
            subject: canaries.word("subject"),
            idempotency_key: canaries.word("key"),
            ..place
        },
    ] {
        let answer = served.run(office.place_hold(request));
        served.refused("a hold", answer);
    }
    let erase = EraseRequest { idempotency_key: canaries.word("key"), token: token.clone(), reason: 1 };
    let answer = served.run(shop.tokens.erase(erase));
    served.refused("an erasure of a held record", answer);
    let answer = served.run(office.receipt_of(ReceiptOfRequest { token }));
    served.refused("a receipt of what is there", answer);
    let lift = LiftHoldRequest { hold_id: canaries.word("hold") };
    let answer = served.run(office.lift_hold(lift));
    served.refused("a hold of no number", answer);

    let (request, _) = canaries.record(Class::Order);
    let subject = request.subject.clone();
    shop.store(served, canaries, request);
    let leave = EraseSubjectRequest {
        idempotency_key: canaries.word("key"),
        token: String::new(),
        subject,
        reason: EraseReason::Cancellation.into(),
    };
    for _ in 0..2 {
        let mut news = served.run(office.erase_subject(leave.clone())).unwrap().into_inner();
        while let Some(message) = served.run(news.message()).unwrap() {
            served.heard.push(("news of an erasure".to_owned(), message.encode_to_vec()));
        }
    }
    let unknown =
        EraseSubjectRequest { idempotency_key: canaries.word("key"), subject: canaries.word("nobody"), ..leave };
    let answer = served.run(office.erase_subject(unknown));
    served.refused("an erasure of nobody", answer);
}

/// Fields for an authority: asked for, shown to a second person, agreed to, disclosed while a hold keeps them; and refused.
fn disclosed(served: &mut Served, canaries: &mut Canaries, shop: &mut Shop) {
    let mut office = DisclosureServiceClient::new(served.channel("privacy-officer-office"));
    let mut second = ApprovalServiceClient::new(served.channel("key-admin-office"));
    for class in CLASSES {
        let token = shop.stored(served, canaries, class);
        let fields: Vec<i32> = collected(class).iter().map(|field| (*field).into()).collect();
        let ask = DiscloseRequest { token, fields, case: "4 Js 123/26".to_owned() };
        let asked = served.run(office.disclose(ask.clone())).unwrap().into_inner();
        served.heard.push(("a disclosure that waits".to_owned(), asked.encode_to_vec()));
        let Some(disclose_response::Result::PendingApproval(pending)) = asked.result else { panic!("disclosed") };
        let approval_id = pending.approval_id;
        let shown = served.run(second.show_approval(ShowApprovalRequest { approval_id: approval_id.clone() })).unwrap();
        served.heard.push(("what a second person is shown".to_owned(), shown.into_inner().encode_to_vec()));
        let agreed = served.run(second.approve(ApproveRequest { approval_id })).unwrap();
        served.heard.push(("what a second person is answered".to_owned(), agreed.into_inner().encode_to_vec()));
        let done = served.run(office.disclose(ask.clone())).unwrap().into_inner();
        let Some(disclose_response::Result::Done(done)) = done.result else { panic!("not disclosed") };
        assert!(done.fields.iter().any(|field| field.outcome() == Outcome::Granted && field.value.is_some()));
        for ask in [
            DiscloseRequest { token: strange(canaries, 9), ..ask.clone() },
            DiscloseRequest { token: canaries.word("token"), ..ask.clone() },
            DiscloseRequest { case: canaries.word("case") + "\u{7}", ..ask.clone() },
            DiscloseRequest { case: canaries.email(), ..ask.clone() },
            DiscloseRequest { fields: vec![99], ..ask },
        ] {
            let answer = served.run(office.disclose(ask));
            served.refused("a disclosure", answer);
        }
    }
}

/// All that goes within the year, to everyone who may ask; what names a record is a token or nothing.
fn forecast(served: &mut Served, canaries: &mut Canaries) {
    for (caller, tells) in [("privacy-officer-office", true), ("shop-backend", false)] {
        let mut vault = RetentionServiceClient::new(served.channel(caller));
        let mut ask = RetentionForecastRequest { days: 400, page_size: 20, page_token: Vec::new() };
        let mut told = 0;
        loop {
            let page = served.run(vault.retention_forecast(ask.clone())).unwrap().into_inner();
            told += page.records.iter().filter(|record| !record.token.is_empty()).count();
            let place = if tells { &mut served.told_tokens } else { &mut served.heard };
            place.push((format!("a forecast for {caller}"), page.encode_to_vec()));
            ask.page_token = page.page_token;
            if ask.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(told > 10, tells, "{caller} was told {told} tokens");
        ask.page_token = canaries.word("page").into_bytes();
        let answer = served.run(vault.retention_forecast(ask));
        served.refused("a forecast's page", answer);
    }
    let mut vault = RetentionServiceClient::new(served.channel("operator-oncall"));
    let outlook = |page_token| RetentionOutlookRequest { days: 400, page_token };
    let page = served.run(vault.retention_outlook(outlook(Vec::new()))).unwrap().into_inner();
    assert!(!page.groups.is_empty());
    served.heard.push(("an outlook".to_owned(), page.encode_to_vec()));
    let answer = served.run(vault.retention_outlook(outlook(canaries.word("page").into_bytes())));
    served.refused("an outlook's page", answer);
}

fn grant(canaries: &mut Canaries, token: String, now: Timestamp) -> GrantShipmentRequest {
    GrantShipmentRequest {
        idempotency_key: canaries.word("key"),
        token,
        serial: canaries.word("serial"),
        carrier: "swift".to_owned(),
        not_before: wire(now),
        not_after: wire(now.plus(DAY)),
        read_limit: 5,
        parcel: 0,
    }
}

fn wrong_kind(canaries: &mut Canaries, field: Field) -> FieldValue {
    let value = match field {
        Field::Address | Field::EmergencyContact => Value::Text(canaries.word("kind")),
        _ => Value::Address(canaries.address()),
    };
    FieldValue { field: field.into(), value: Some(value) }
}

/// Every RPC by everyone, every text of it a canary: whoever may call is refused for the texts, the others for their role.
fn by_the_wrong_role(served: &mut Served, canaries: &mut Canaries) {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let mut refused = 0;
    for (role, name) in CALLERS {
        let channel = served.channel(&format!("{}-{name}", role.as_str()));
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let message = raw::filled(&method.input(), &mut || canaries.word("filled"));
            let request = Request::new(message.encode_to_vec());
            match served.run(raw::call(channel.clone(), &path, request)) {
                Err(status) => {
                    refused += usize::from(status.code() == Code::PermissionDenied);
                    served.refused(&path, Err::<(), _>(status));
                }
                Ok(messages) => served.heard.push((format!("a reply of {path}"), messages.concat())),
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

/// What is no request at all.
fn malformed(served: &mut Served, canaries: &mut Canaries) {
    let channel = served.channel("shop-backend");
    let tokenize = "/strongroom.v1.TokenService/Tokenize";
    let (record, _) = canaries.record(Class::Order);
    let whole = record.encode_to_vec();
    let cut = whole[..whole.len() - 3].to_vec();
    let word = canaries.word("bytes");
    let not_utf8 = [&[0x12, u8::try_from(word.len() + 1).unwrap(), 0xff], word.as_bytes()].concat();
    let mut large = record.clone();
    large.subject = canaries.word("large").repeat(20_000);
    for (what, request) in [("cut bytes", cut), ("no UTF-8", not_utf8), ("a huge message", large.encode_to_vec())] {
        let answer = served.run(raw::call(channel.clone(), tokenize, Request::new(request)));
        served.refused(what, answer);
    }
    let path = format!("/strongroom.v1.TokenService/{}", canaries.word("path"));
    let answer = served.run(raw::call(channel.clone(), &path, Request::new(Vec::new())));
    // The path is the caller's own to know; the server's log is searched for it.
    assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
    for header in ["authorization", "x-request-id", "traceparent", "user-agent", "grpc-timeout", "grpc-encoding"] {
        let mut request = Request::new(Vec::new());
        request.metadata_mut().insert(header, canaries.word("header").parse().unwrap());
        let answer = served.run(raw::call(channel.clone(), tokenize, request));
        // gRPC tells a caller which encoding it does not know.
        if header != "grpc-encoding" {
            served.refused(header, answer);
        }
    }
    let mut plain = TcpStream::connect(served.host()).unwrap();
    let _ = plain.write_all(format!("GET /{} HTTP/1.1\r\n\r\n", canaries.word("plain")).as_bytes());
}
