//! A certificate alone lets nobody in: who is not enrolled, or enrolled otherwise, or suspended, is refused with the reason in the
//! log; a change works on the very next message of a connection that lives.
//!
//! Faults planted once, each of which turned these tests or those of `policy::enrolment` red: every caller welcome; unknown names
//! welcome; role, standing, suspended certificate, issuer and pins each not looked at; the issuer taken from the client's chain by
//! its name; streams not asked again; a change kept out of memory, always or when its asker hangs up; anchors not asked; MACs of
//! enrolments not checked; enrolling replaces; refusals logged without a bound.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;

use std::process::Command;

use common::{House, order};
use people::{callers, certificate, certs, enrol_here, issuer, key_of, log, mint, mint_by, reason, refusals};
use rusqlite::Connection;
use strongroom::audit::entry::{Action, RefusalCode, RequestId, Whom};
use strongroom::cli::dev::{CALLERS, TRUST_DOMAIN};
use strongroom::cli::mint::{Authority, write_private};
use strongroom::domain::caller::{Caller, CallerKeys, CertificateHash, Role};
use strongroom::domain::time::{Clock as _, DAY, SECOND, SystemClock};
use strongroom::rpc::identity::{certificate_in, keys_in};
use strongroom::rpc::proto::operations_service_client::OperationsServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    self, DescribeRequest, EnrolCallerRequest, ListCallersRequest, StatusRequest, SuspendCallerRequest,
    TokenizeStreamRequest, tokenize_stream_response,
};
use strongroom::rpc::trust::{AnchorFile, Trust, TrustError};
use strongroom::vault::{Call, Named, SuspendCaller};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

const ADMIN: &str = "office";

/// A call that every role with records may make: an unknown token, so that coming in answers NOT_FOUND.
fn knock(house: &House, channel: &Channel) -> Result<(), Status> {
    let mut tokens = TokenServiceClient::new(channel.clone());
    let unknown = strongroom::domain::token::Token::from_bytes([9; 20]).to_text();
    match house.run(tokens.describe(DescribeRequest { token: unknown })) {
        Err(status) if reason(&status) == "NOT_FOUND" => Ok(()),
        answer => answer.map(drop),
    }
}

/// The call was refused since the caller is nobody here, and for this reason in the log.
fn must_be_refused(house: &House, channel: &Channel, why: RefusalCode) {
    // One refusal a certificate and second is logged; the vault's clock stands still otherwise.
    house.clock.advance(2 * SECOND);
    let refused = knock(house, channel).unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "IDENTITY_REFUSED"));
    assert_eq!(refusals(house).last(), Some(&(Action::Describe, why)));
}

fn enrol(house: &House, role: Role, name: &str, pins: Vec<String>) -> Result<proto::Caller, Status> {
    let mut callers = callers(house, ADMIN);
    let request = EnrolCallerRequest { role: role as i32, name: name.to_owned(), issuer: String::new(), pins };
    house.run(callers.enrol_caller(request)).map(|answer| answer.into_inner().caller.unwrap())
}

fn suspend(house: &House, role: Role, name: &str, certificate: Option<CertificateHash>) {
    let mut callers = callers(house, ADMIN);
    let certificate = certificate.map(|hash| hex::encode(hash.0)).unwrap_or_default();
    let request = SuspendCallerRequest { role: role as i32, name: name.to_owned(), certificate };
    house.run(callers.suspend_caller(request)).unwrap();
}

fn list(house: &House) -> Vec<proto::Caller> {
    let mut callers = callers(house, ADMIN);
    house.run(callers.list_callers(ListCallersRequest {})).unwrap().into_inner().callers
}

fn field(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    status.get_error_details().bad_request().unwrap().field_violations[0].field.clone()
}

#[test]
fn a_good_certificate_of_nobody_enrolled_is_refused_until_it_is_and_comes_in_on_the_same_connection() {
    let house = House::new();
    mint(&house, Role::Shop, "second");
    let channel = house.channel(Role::Shop, "second");
    must_be_refused(&house, &channel, RefusalCode::NotEnrolled);
    let caller = enrol(&house, Role::Shop, "second", Vec::new()).unwrap();
    assert_eq!(caller.enrolled_by, "tenant/kitchenware/key-admin/office");
    knock(&house, &channel).unwrap();
    let entry = log(&house).into_iter().rfind(|entry| entry.action == Action::EnrolCaller).unwrap();
    assert_eq!(entry.whom, Some(Whom::Caller { role: Role::Shop, name: "second".parse().unwrap() }));
}

#[test]
fn another_role_another_ca_and_another_key_than_enrolled_are_refused_each_with_its_reason() {
    let mut house = House::new();
    house.stop();
    // A second CA that the door trusts as well, with its list.
    let second = house.dir.path().join("second");
    std::fs::create_dir(&second).unwrap();
    let authority = Authority::mint("a second CA", SystemClock::new().now()).unwrap();
    let now = SystemClock::new().now();
    let crl = authority.crl(&[], now.plus(-DAY), now.plus(DAY), 1).unwrap();
    write_private(&second.join("crl.pem"), crl.as_bytes()).unwrap();
    let ca = std::fs::read_to_string(certs(&house).join("ca.pem")).unwrap();
    let both = second.join("roots.pem");
    write_private(&both, format!("{ca}{}", authority.cert_pem()).as_bytes()).unwrap();
    house.config.trust.roots = both;
    house.config.trust.crls.push(second.join("crl.pem"));
    house.start();

    let backend = house.channel(Role::Shop, "backend");
    knock(&house, &backend).unwrap();
    mint_by(&house, &authority, Role::Shop, "backend", 1);
    must_be_refused(&house, &house.channel(Role::Shop, "backend"), RefusalCode::IssuerMismatch);
    mint(&house, Role::Finance, "packing");
    must_be_refused(&house, &house.channel(Role::Finance, "packing"), RefusalCode::RoleMismatch);
    mint(&house, Role::PrivacyOfficer, "office");
    must_be_refused(&house, &house.channel(Role::PrivacyOfficer, "office"), RefusalCode::SpkiMismatch);
    knock(&house, &backend).unwrap();
}

#[test]
fn an_intermediate_that_the_client_brings_is_no_way_to_another_issuer() {
    let house = House::new();
    // Someone else's CA presented beside the chain does not become the issuer: its key signed nothing of it.
    let stranger = Authority::mint("Strongroom development CA", SystemClock::new().now()).unwrap();
    let files = house.files(Role::Shop, "backend");
    let chain = std::fs::read_to_string(&files.certificate).unwrap() + stranger.cert_pem();
    write_private(&files.certificate, chain.as_bytes()).unwrap();
    knock(&house, &house.channel(Role::Shop, "backend")).unwrap();
}

#[test]
fn a_suspended_caller_is_out_at_once_and_stays_out_over_a_restart() {
    let mut house = House::new();
    let channel = house.channel(Role::Warehouse, "packing");
    knock_as_warehouse(&house, &channel).unwrap();
    suspend(&house, Role::Warehouse, "packing", None);
    assert_eq!(reason(&knock_as_warehouse(&house, &channel).unwrap_err()), "IDENTITY_REFUSED");
    assert_eq!(refusals(&house).last().unwrap().1, RefusalCode::Suspended);
    house.stop();
    house.start();
    let channel = house.channel(Role::Warehouse, "packing");
    assert_eq!(reason(&knock_as_warehouse(&house, &channel).unwrap_err()), "IDENTITY_REFUSED");
    let listed = list(&house).into_iter().find(|caller| caller.role == Role::Warehouse as i32).unwrap();
    assert_eq!(listed.standing(), proto::CallerStanding::Suspended);
}

/// The warehouse may detokenize and not describe.
fn knock_as_warehouse(house: &House, channel: &Channel) -> Result<(), Status> {
    let mut tokens = TokenServiceClient::new(channel.clone());
    let request = proto::DetokenizeRequest {
        token: strongroom::domain::token::Token::from_bytes([9; 20]).to_text(),
        fields: vec![proto::Field::Address.into()],
        purpose: proto::Purpose::Fulfilment.into(),
    };
    match house.run(tokens.detokenize(request)) {
        Err(status) if reason(&status) == "NOT_FOUND" => Ok(()),
        answer => answer.map(drop),
    }
}

#[test]
fn one_suspended_certificate_is_out_and_the_callers_other_one_is_not() {
    let house = House::new();
    let old = certificate_in(&certificate(&house, Role::Shop, "backend")).unwrap();
    let with_old = house.channel(Role::Shop, "backend");
    mint(&house, Role::Shop, "backend");
    let with_new = house.channel(Role::Shop, "backend");
    knock(&house, &with_old).unwrap();
    suspend(&house, Role::Shop, "backend", Some(old));
    must_be_refused(&house, &with_old, RefusalCode::Suspended);
    knock(&house, &with_new).unwrap();
    let entry = log(&house).into_iter().rfind(|entry| entry.action == Action::SuspendCaller).unwrap();
    let certificate = old.0[..8].try_into().unwrap();
    let name = "backend".parse().unwrap();
    assert_eq!(entry.whom, Some(Whom::Certificate { role: Role::Shop, name, certificate }));
}

#[test]
fn a_live_stream_ends_with_the_first_message_after_the_suspension() {
    let house = House::new();
    let mut tokens = house.tokens();
    let (send, messages) = tokio::sync::mpsc::channel(1);
    let message = |n: usize| TokenizeStreamRequest { item: Some(order(n)) };
    let mut replies = house.run(async {
        send.send(message(0)).await.unwrap();
        tokens.tokenize_stream(ReceiverStream::new(messages)).await.unwrap().into_inner()
    });
    let next = |replies: &mut tonic::Streaming<proto::TokenizeStreamResponse>| house.run(replies.next()).unwrap();
    let mut accepted = 0;
    for n in 1..50 {
        let reply = next(&mut replies).unwrap();
        assert!(matches!(reply.result, Some(tokenize_stream_response::Result::Done(_))));
        accepted += 1;
        house.run(send.send(message(n))).unwrap();
    }
    next(&mut replies).unwrap();
    suspend(&house, Role::Shop, "backend", None);
    let records = records(&house);
    assert_eq!(records, accepted + 1);
    house.run(send.send(message(1_000))).unwrap();
    let refused = next(&mut replies).unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "IDENTITY_REFUSED"));
    assert!(house.run(replies.next()).is_none_or(|more| more.is_err()));
    // What is sent after that goes nowhere: at most as many tries as the client takes to notice the end.
    for n in 1_001..1_100 {
        if house.run(send.send(message(n))).is_err() {
            break;
        }
    }
    assert_eq!(self::records(&house), records, "a message was accepted after the suspension");
}

fn records(house: &House) -> u64 {
    let mut operations = house.operations();
    house.run(operations.status(StatusRequest {})).unwrap().into_inner().records_live
}

#[test]
fn a_suspension_works_though_who_asked_for_it_hangs_up() {
    let house = House::new();
    let vault = &house.vault();
    let caller = |role: Role, name: &str| {
        let uri = format!("spiffe://{TRUST_DOMAIN}/tenant/kitchenware/{}/{name}", role.as_str());
        let keys = CallerKeys { own: key_of(&house, role, name), issuer: issuer(&house) };
        Caller::from_uri(&uri, TRUST_DOMAIN, CertificateHash([0; 32])).unwrap().with_keys(keys)
    };
    let (admin, carriers) = (caller(Role::KeyAdmin, ADMIN), ["swift", "parcelo", "northwind"]);
    for name in carriers {
        let shown = caller(Role::Carrier, name);
        vault.welcome(&shown).unwrap();
        let call = Call { caller: admin.clone(), request: RequestId([1; 16]) };
        let ask =
            SuspendCaller { caller: Named { role: Role::Carrier, name: name.parse().unwrap() }, certificate: None };
        house.run(async {
            tokio::select! {
                biased;
                _ = vault.suspend_caller(&call, &ask) => {}
                () = tokio::task::yield_now() => {}
            }
        });
        let mut polls = 0;
        while vault.welcome(&shown).is_ok() {
            polls += 1;
            assert!(polls < 500, "the suspension of {name} was lost");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn enrolling_again_changes_nothing_and_powerful_roles_need_a_pinned_key() {
    let house = House::new();
    let known = list(&house).len();
    assert_eq!(known, CALLERS.len());
    enrol(&house, Role::Carrier, "swift", Vec::new()).unwrap();
    let other = enrol(&house, Role::Carrier, "swift", vec!["ab".repeat(32)]).unwrap_err();
    assert_eq!((other.code(), reason(&other).as_str()), (Code::AlreadyExists, "ALREADY_ENROLLED"));
    suspend(&house, Role::Carrier, "swift", None);
    let again = enrol(&house, Role::Carrier, "swift", Vec::new()).unwrap_err();
    assert_eq!(reason(&again), "ALREADY_ENROLLED", "enrolling is no way around a suspension");
    let new_key = enrol(&house, Role::Operator, "oncall", vec!["ab".repeat(32)]).unwrap_err();
    assert_eq!(reason(&new_key), "ALREADY_ENROLLED", "enrolling is no way around two people for a key");
    for role in [Role::KeyAdmin, Role::Operator, Role::PrivacyOfficer] {
        let bare = enrol(&house, role, "bare", Vec::new()).unwrap_err();
        assert_eq!((reason(&bare).as_str(), field(&bare).as_str()), ("MISSING", "pins"));
    }
    for (pins, why) in [
        (vec!["ab".repeat(32); 2], "REPEATED"),
        (vec!["ab".repeat(32); 3], "TOO_MANY"),
        (vec!["ab".repeat(31)], "NOT_A_HASH"),
        (vec!["key".to_owned()], "NOT_A_HASH"),
    ] {
        assert_eq!(reason(&enrol(&house, Role::Shop, "bare", pins).unwrap_err()), why);
    }
    assert_eq!(list(&house).len(), known);
}

#[test]
fn a_forged_enrolment_lets_nobody_in_and_shuts_out_nobody_else() {
    let mut house = House::new();
    suspend(&house, Role::Shop, "backend", None);
    house.stop();
    let database = Connection::open(&house.config.store.database).unwrap();
    let forge = "UPDATE caller SET standing = 1 WHERE role = 1 AND name = 'backend'";
    assert_eq!(database.execute(forge, []).unwrap(), 1);
    // A carrier's whole row, stamp and all, under a new name.
    let copy = "INSERT INTO caller SELECT tenant, role, 'ghost', issuer, standing, pins, suspended, enrolled_by, line, \
                since, version, epoch, mac FROM caller WHERE name = 'swift'";
    assert_eq!(database.execute(copy, []).unwrap(), 1);
    drop(database);
    house.start();
    mint(&house, Role::Carrier, "ghost");
    must_be_refused(&house, &house.channel(Role::Shop, "backend"), RefusalCode::NotEnrolled);
    must_be_refused(&house, &house.channel(Role::Carrier, "ghost"), RefusalCode::NotEnrolled);
    knock_as_warehouse(&house, &house.channel(Role::Warehouse, "packing")).unwrap();
    assert!(refusals(&house).contains(&(Action::Tamper, RefusalCode::Tampered)));
    let mut admin = callers(&house, ADMIN);
    let listed = house.run(admin.list_callers(ListCallersRequest {})).unwrap_err();
    assert_eq!((listed.code(), reason(&listed).as_str()), (Code::DataLoss, "TAMPERED"));
}

#[test]
fn an_anchor_speaks_only_for_its_tenants_and_roles() {
    let mut house = House::new();
    let warnings = |house: &House| {
        let mut operations = house.operations();
        house.run(operations.status(StatusRequest {})).unwrap().into_inner().warnings
    };
    assert!(warnings(&house).iter().any(|warning| warning.contains("[[anchor]]")));
    house.stop();
    let roots = certs(&house).join("ca.pem");
    let anchor = |tenants: &[&str], roles: &[Role]| AnchorFile {
        roots: roots.clone(),
        tenants: tenants.iter().map(|tenant| tenant.parse().unwrap()).collect(),
        roles: roles.to_vec(),
    };
    house.config.trust.anchors =
        vec![anchor(&["rival"], &Role::ALL), anchor(&["kitchenware"], &[Role::Shop, Role::Operator])];
    house.start();
    knock(&house, &house.channel(Role::Shop, "backend")).unwrap();
    assert!(!warnings(&house).iter().any(|warning| warning.contains("[[anchor]]")));
    let files = house.files(Role::Warehouse, "packing");
    let endpoint = format!("https://{}", house.running().address);
    // Refused at the handshake, so that the connection or its first call fails without an answer of ours.
    if let Ok(channel) = house.run(strongroom::rpc::client::connect(&endpoint, &files)) {
        let refused = knock_as_warehouse(&house, &channel).unwrap_err();
        assert_eq!(reason(&refused), "", "{refused:?}");
    }

    let mut trust = house.config.trust.clone();
    let stranger = house.dir.path().join("stranger.pem");
    let authority = Authority::mint("a stranger", SystemClock::new().now()).unwrap();
    write_private(&stranger, authority.cert_pem().as_bytes()).unwrap();
    trust.anchors = vec![AnchorFile { roots: stranger.clone(), ..anchor(&["kitchenware"], &Role::ALL) }];
    assert!(matches!(Trust::load(trust.clone()).err(), Some(TrustError::StrayAnchor { .. })));
    let (ca, other) = (std::fs::read_to_string(&roots).unwrap(), authority.cert_pem());
    trust.roots = house.dir.path().join("two.pem");
    write_private(&trust.roots, format!("{ca}{other}").as_bytes()).unwrap();
    let now = SystemClock::new().now();
    let crl = house.dir.path().join("stranger-crl.pem");
    write_private(&crl, authority.crl(&[], now.plus(-DAY), now.plus(DAY), 1).unwrap().as_bytes()).unwrap();
    trust.crls.push(crl);
    trust.anchors = vec![anchor(&["kitchenware"], &Role::ALL)];
    assert!(matches!(Trust::load(trust).err(), Some(TrustError::RootWithoutAnchor { .. })));
}

#[test]
fn a_certificate_that_runs_out_soon_is_listed_and_warned_of() {
    let house = House::new();
    mint_by(&house, &Authority::load(&certs(&house)).unwrap(), Role::Shop, "backend", 10);
    knock(&house, &house.channel(Role::Shop, "backend")).unwrap();
    let listed = list(&house);
    let days = |role: Role, name: &str| {
        let caller = listed.iter().find(|caller| caller.role == role as i32 && caller.name == name).unwrap();
        caller.certificate_good_until.map(|_| caller.certificate_days_left)
    };
    // Whole days, rounded down: it was minted a moment ago.
    assert!(matches!(days(Role::Shop, "backend"), Some(9 | 10)));
    assert!(matches!(days(Role::KeyAdmin, ADMIN), Some(364 | 365)));
    assert_eq!(days(Role::Carrier, "swift"), None, "not seen since the start");
    let mut operations = OperationsServiceClient::new(house.channel(Role::Operator, "oncall"));
    let warnings = house.run(operations.status(StatusRequest {})).unwrap().into_inner().warnings;
    let about: Vec<_> = warnings.iter().filter(|warning| warning.contains("the certificate of")).collect();
    assert_eq!(about.len(), 1, "{warnings:?}");
    assert!(about[0].starts_with("the certificate of tenant/kitchenware/shop/backend has "), "{about:?}");
}

#[test]
fn refusals_without_end_leave_one_entry_a_certificate_and_second() {
    let house = House::new();
    mint(&house, Role::Shop, "second");
    let channel = house.channel(Role::Shop, "second");
    for _ in 0..3 {
        house.clock.advance(2 * SECOND);
        for _ in 0..40 {
            knock(&house, &channel).unwrap_err();
        }
    }
    let refused = refusals(&house).into_iter().filter(|(_, code)| *code == RefusalCode::NotEnrolled);
    assert_eq!(refused.count(), 3);
}

#[test]
fn the_machine_enrols_the_first_and_lets_the_locked_out_back_in_but_only_while_nobody_serves() {
    let mut house = House::new();
    suspend(&house, Role::KeyAdmin, ADMIN, None);
    let enrol = |house: &House, words: &[&str]| {
        let config = house.data().join("config.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.args(["callers", "enrol", "--tenant", "kitchenware", "--config"]).arg(config).args(words);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let pem = certificate(&house, Role::KeyAdmin, ADMIN);
    let words = ["--role", "key-admin", "--name", ADMIN, "--certificate", pem.to_str().unwrap()];
    let (code, said) = enrol(&house, &words);
    assert!(code == Some(5) && said.contains("another process holds this store"), "{said}");
    house.stop();
    assert_eq!(enrol(&house, &words[..4]).0, Some(2), "a key admin needs a pinned key");
    assert_eq!(enrol(&house, &words), (Some(0), String::new()));
    house.start();
    let back = list(&house).into_iter().find(|caller| caller.role == Role::KeyAdmin as i32).unwrap();
    assert_eq!(back.standing(), proto::CallerStanding::Active);
    assert_eq!(back.pins, [hex::encode(keys_in(&pem).unwrap()[0].0)]);
    // Whoever the machine enrols is in the log too.
    house.stop();
    mint(&house, Role::Auditor, "second");
    enrol_here(&house, Role::Auditor, "second", Vec::new());
    house.start();
    let name = "second".parse().unwrap();
    let whom = Some(Whom::Caller { role: Role::Auditor, name });
    assert!(log(&house).iter().any(|entry| entry.action == Action::EnrolCaller && entry.whom == whom));
}
