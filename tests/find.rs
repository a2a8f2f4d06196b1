//! Finding tokens by a value: what is found, by whom, where the class opts in; across rotations; and what a miss leaves behind.
//! Seen red by hand: with the opt-in unasked in `vault::find`, `a_class_that_does_not_opt_in_…` finds; with `is_held_by` always
//! true, `an_index_row_that_was_bent_…` leads to a stranger's record.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;

use common::{House, order, text};
use people::{log, reason, refusals};
use rusqlite::Connection;
use strongroom::audit::entry::{Action, RefusalCode, RequestId, Verdict};
use strongroom::cli::dev::{TENANT, TRUST_DOMAIN};
use strongroom::domain::caller::{Caller, CertificateHash, Role};
use strongroom::domain::field::Email;
use strongroom::domain::time::DAY;
use strongroom::rpc::proto::find_request::By;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    Class, CorrectRequest, EraseReason, EraseRequest, Field, FindRequest, FindResponse, Purpose, TokenizeRequest,
};
use strongroom::vault::{Call, Find, Sought};
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn account(key: &str, subject: &str, email: &str, phone: &str) -> TokenizeRequest {
    TokenizeRequest {
        idempotency_key: key.to_owned(),
        subject: subject.to_owned(),
        class: Class::Account.into(),
        fields: vec![text(Field::Email, email), text(Field::Phone, phone)],
    }
}

fn by(class: Class, purpose: Purpose, by: By) -> FindRequest {
    FindRequest { purpose: purpose.into(), class: class.into(), by: Some(by), page_size: 0, page_token: Vec::new() }
}

fn find_as(house: &House, role: Role, name: &str, request: FindRequest) -> Result<FindResponse, Status> {
    let mut client = TokenServiceClient::new(house.channel(role, name));
    house.run(client.find(request)).map(tonic::Response::into_inner)
}

fn find(house: &House, value: By) -> Result<Vec<String>, String> {
    let found = find_as(house, Role::Shop, "backend", by(Class::Account, Purpose::SelfService, value));
    found.map(|found| found.tokens).map_err(|status| reason(&status))
}

fn email(address: &str) -> By {
    By::Email(address.to_owned())
}

fn nothing() -> Result<Vec<String>, String> {
    Err("NOT_FOUND".to_owned())
}

fn rotate(house: &House) {
    let vault = house.vault();
    house.clock.advance(400 * DAY);
    house.run(async { while vault.keep_keys().await.unwrap().more {} });
}

#[test]
fn a_value_leads_to_its_live_records_however_it_is_written_and_to_nothing_else() {
    let house = House::new();
    let anne = house.tokenize(account("a", "c-1", "Anne.Smith@Example.org", "+49 30 901820"));
    let bert = house.tokenize(account("b", "c-2", "bert@example.org", "+49 30 901820"));
    assert_eq!(find(&house, email("anne.smith@EXAMPLE.ORG")), Ok(vec![anne.clone()]));
    assert_eq!(find(&house, By::Phone("0049 30 901820".replace("00", "+"))), Ok(vec![anne.clone(), bert.clone()]));
    assert_eq!(find(&house, By::CustomerReference("c-2".to_owned())), Ok(vec![bert.clone()]));
    for miss in
        [email("anne@example.org"), By::Phone("+49 30 901821".to_owned()), By::CustomerReference("c-3".to_owned())]
    {
        assert_eq!(find(&house, miss), nothing());
    }
    let mut shop = house.tokens();
    let correct = CorrectRequest {
        idempotency_key: "correct".to_owned(),
        token: anne.clone(),
        if_revision: 1,
        fields: vec![text(Field::Email, "anne.jones@example.org")],
        clear: Vec::new(),
    };
    house.run(shop.correct(correct)).unwrap();
    assert_eq!(find(&house, email("anne.smith@example.org")), nothing(), "the old value finds no more");
    assert_eq!(find(&house, email("anne.jones@example.org")), Ok(vec![anne.clone()]));
    let reason = EraseReason::SubjectRequest.into();
    house.run(shop.erase(EraseRequest { idempotency_key: "erase".to_owned(), token: anne, reason })).unwrap();
    assert_eq!(find(&house, email("anne.jones@example.org")), nothing());
    assert_eq!(find(&house, By::Phone("+4930901820".to_owned())), Ok(vec![bert]));
    house.clock.advance(800 * DAY);
    assert_eq!(find(&house, email("bert@example.org")), nothing(), "what is due is not found");
}

#[test]
fn every_hit_and_every_miss_is_in_the_log_and_no_value_is() {
    let house = House::new();
    house.tokenize(account("a", "c-1", "canary-7f3a@example.org", "+49 30 901820"));
    find(&house, email("canary-7f3a@example.org")).unwrap();
    assert_eq!(find(&house, email("canary-7f3b@example.org")), nothing());
    let told: Vec<_> = log(&house).into_iter().filter(|entry| entry.action == Action::Find).collect();
    assert_eq!(told.len(), 2);
    assert_eq!((told[0].verdict, told[0].subject.is_some()), (Verdict::Done, true));
    assert_eq!((told[1].verdict, told[1].subject), (Verdict::Refused(RefusalCode::Unknown), None));
    assert!(told.iter().all(|entry| !entry.to_bytes().windows(4).any(|bytes| bytes == b"7f3a" || bytes == b"7f3b")));
}

#[test]
fn misses_are_counted_by_role() {
    let house = House::new();
    let uri = format!("spiffe://{TRUST_DOMAIN}/tenant/{TENANT}/shop/backend");
    let caller = Caller::from_uri(&uri, TRUST_DOMAIN, CertificateHash([7; 32])).unwrap();
    let call = Call { caller, request: RequestId([7; 16]) };
    let address = Email::parse("email", "nobody@example.org".to_owned()).unwrap();
    let ask = Find {
        purpose: strongroom::domain::vocabulary::Purpose::SelfService,
        class: strongroom::domain::vocabulary::Class::Account,
        by: Sought::Email(address),
        page_size: 1,
        page_token: Vec::new(),
    };
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let vault = house.vault();
    metrics::with_local_recorder(&recorder, || {
        for _ in 0..3 {
            assert!(house.run(vault.find_tokens(&call, &ask)).is_err());
        }
    });
    let shown = recorder.handle().render();
    assert!(shown.contains("strongroom_find_misses_total{role=\"shop\"} 3"), "{shown}");
}

#[test]
fn a_class_that_does_not_opt_in_is_not_found_by_it_and_nobody_finds_by_what_they_may_not_see() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let refused = find_as(
        &house,
        Role::Shop,
        "backend",
        by(Class::Order, Purpose::SelfService, email("wilhelmina.1@example.org")),
    );
    let refused = refused.unwrap_err();
    let field = refused.get_error_details().bad_request().unwrap().field_violations[0].field.clone();
    assert_eq!(
        (refused.code(), reason(&refused).as_str(), field.as_str()),
        (Code::InvalidArgument, "NOT_FINDABLE", "email")
    );
    let reference = || By::CustomerReference("customer-1@shop.example".to_owned());
    let found = find_as(&house, Role::Shop, "backend", by(Class::Order, Purpose::SelfService, reference())).unwrap();
    assert_eq!(found.tokens, [token]);
    // Without a purpose under which the role sees anything of such a record, it is as if there were none.
    let blind = find_as(&house, Role::Shop, "backend", by(Class::Order, Purpose::Delivery, reference())).unwrap_err();
    assert_eq!((blind.code(), reason(&blind).as_str()), (Code::NotFound, "NOT_FOUND"));
    assert_eq!(refusals(&house).last().unwrap(), &(Action::Find, RefusalCode::Forbidden));
    for (role, name) in [(Role::Warehouse, "packing"), (Role::KeyAdmin, "office"), (Role::Operator, "oncall")] {
        let refused = find_as(&house, role, name, by(Class::Order, Purpose::Fulfilment, reference())).unwrap_err();
        assert_eq!(reason(&refused), "ROLE_NOT_ALLOWED");
    }
}

#[test]
fn pages_go_on_where_they_ended_across_a_rotation_and_serve_no_other_search() {
    let house = House::new();
    let tokens: Vec<String> = (0..7)
        .map(|n| house.tokenize(account(&format!("{n}"), &format!("c-{n}"), "one@example.org", "+49 30 901820")))
        .collect();
    let mut request = by(Class::Account, Purpose::SelfService, email("one@example.org"));
    request.page_size = 3;
    let page = find_as(&house, Role::Shop, "backend", request.clone()).unwrap();
    assert_eq!(page.tokens, tokens[..3]);
    request.page_token = page.page_token.clone();
    let other = FindRequest { by: Some(By::Phone("+49 30 901820".to_owned())), ..request.clone() };
    let refused = find_as(&house, Role::Shop, "backend", other).unwrap_err();
    assert_eq!(reason(&refused), "UNKNOWN");
    rotate(&house);
    let page = find_as(&house, Role::Shop, "backend", request.clone()).unwrap();
    assert_eq!(page.tokens, tokens[3..6]);
    request.page_token = page.page_token;
    let page = find_as(&house, Role::Shop, "backend", request).unwrap();
    assert_eq!((page.tokens.as_slice(), page.page_token.len()), (&tokens[6..], 0));
}

#[test]
fn an_index_row_that_was_bent_to_another_record_leads_to_nothing() {
    let mut house = House::new();
    house.tokenize(account("a", "c-1", "anne@example.org", "+49 30 901820"));
    let bert = house.tokenize(account("b", "c-2", "bert@example.org", "+49 30 901821"));
    house.stop();
    let connection = Connection::open(&house.config.store.database).unwrap();
    let bend = "UPDATE index_tag SET record = (SELECT MAX(id) FROM record)";
    assert_eq!(connection.execute(bend, []).unwrap(), 4);
    drop(connection);
    house.start();
    assert_eq!(find(&house, email("anne@example.org")), nothing());
    assert_eq!(find(&house, email("bert@example.org")), Ok(vec![bert]));
}
