//! Two people for what is dangerous: every way for one person to be two is refused, and an approval serves once, for the very
//! request it was given for, in time.
//!
//! Faults planted once, each of which turned these tests or those of `policy::approval` red: self-approval; the table of roles,
//! suspension, keys in use, keys in slots and lines of enrolment each not looked at; approvals without an end; an approval that
//! serves again, for another request, for another asker, for an enrolment that has changed since, or without being judged again;
//! MACs of approvals not checked.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;

use common::House;
use people::{approvals, callers, enrol_here, key_of, log, mint, mint_with_key_of, reason, refusals};
use rusqlite::Connection;
use strongroom::audit::entry::{Action, RefusalCode, Verdict};
use strongroom::cli::dev::TRUST_DOMAIN;
use strongroom::cli::mint::{Authority, LeafSpec};
use strongroom::domain::caller::{Role, SpkiHash};
use strongroom::domain::time::{Clock as _, DAY, HOUR, MINUTE, SystemClock};
use strongroom::rpc::proto::approval_service_client::ApprovalServiceClient;
use strongroom::rpc::proto::operations_service_client::OperationsServiceClient;
use strongroom::rpc::proto::{
    Approval, ApprovalState, ApproveRequest, Caller, EnrolCallerRequest, ListApprovalsRequest, RejectRequest,
    ReplacePinsRequest, ResumeCallerRequest, ShowApprovalRequest, StatusRequest, SuspendCallerRequest,
    replace_pins_response, resume_caller_response,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Who asks in most of these stories, and who decides.
const ADMIN: &str = "office";
const SECOND: (Role, &str) = (Role::Operator, "oncall");

fn suspend(house: &House, name: &str) {
    let mut callers = callers(house, ADMIN);
    let request =
        SuspendCallerRequest { role: Role::Carrier as i32, name: name.to_owned(), certificate: String::new() };
    house.run(callers.suspend_caller(request)).unwrap();
}

/// Asks for a suspended carrier to be let back in: the approval's number as long as it waits.
fn ask(house: &House, admin: &str, name: &str) -> Result<Result<Caller, String>, Status> {
    use resume_caller_response::Result::{Done, PendingApproval};
    let mut callers = callers(house, admin);
    let request = ResumeCallerRequest { role: Role::Carrier as i32, name: name.to_owned(), certificate: String::new() };
    Ok(match house.run(callers.resume_caller(request))?.into_inner().result.unwrap() {
        Done(caller) => Ok(caller),
        PendingApproval(pending) => Err(pending.approval_id),
    })
}

fn pending(house: &House, admin: &str, name: &str) -> String {
    ask(house, admin, name).unwrap().unwrap_err()
}

fn approve(house: &House, (role, name): (Role, &str), id: &str) -> Result<Approval, Status> {
    let mut approvals = approvals(house, role, name);
    let answer = house.run(approvals.approve(ApproveRequest { approval_id: id.to_owned() }));
    answer.map(|answer| answer.into_inner().approval.unwrap())
}

fn reject(house: &House, (role, name): (Role, &str), id: &str) -> Result<Approval, Status> {
    let mut approvals = approvals(house, role, name);
    let answer = house.run(approvals.reject(RejectRequest { approval_id: id.to_owned() }));
    answer.map(|answer| answer.into_inner().approval.unwrap())
}

fn show(house: &House, id: &str) -> Result<Approval, Status> {
    let mut approvals = approvals(house, Role::Auditor, "office");
    let answer = house.run(approvals.show_approval(ShowApprovalRequest { approval_id: id.to_owned() }));
    answer.map(|answer| answer.into_inner().approval.unwrap())
}

/// Enrols another caller over the wire, by its certificate.
fn enrol(house: &House, admin: &str, role: Role, name: &str) {
    mint(house, role, name);
    let pins = vec![hex::encode(key_of(house, role, name).0)];
    let mut callers = callers(house, admin);
    let request = EnrolCallerRequest { role: role as i32, name: name.to_owned(), issuer: String::new(), pins };
    house.run(callers.enrol_caller(request)).unwrap();
}

fn last_refusal(house: &House) -> (Action, RefusalCode) {
    *refusals(house).last().unwrap()
}

/// Stands the house still for some work.
fn meanwhile(house: &mut House, work: impl FnOnce(&House)) {
    house.stop();
    work(house);
    house.start();
}

#[test]
fn a_second_person_agrees_and_the_same_call_again_is_carried_out_once() {
    let house = House::new();
    suspend(&house, "swift");
    let id = pending(&house, ADMIN, "swift");
    assert_eq!(pending(&house, ADMIN, "swift"), id, "asking again finds the request that waits");
    let shown = show(&house, &id).unwrap();
    assert_eq!(shown.state(), ApprovalState::Open);
    assert_eq!(shown.about, "let tenant/kitchenware/carrier/swift back in");
    assert_eq!(shown.asked_by, "tenant/kitchenware/key-admin/office");
    assert_eq!(shown.asked_key, hex::encode(key_of(&house, Role::KeyAdmin, ADMIN).0));

    assert_eq!(approve(&house, SECOND, &id).unwrap().state(), ApprovalState::Approved);
    assert_eq!(approve(&house, SECOND, &id).unwrap().state(), ApprovalState::Approved, "the same word again is heard");
    let back = ask(&house, ADMIN, "swift").unwrap().unwrap();
    assert_eq!((back.name.as_str(), back.standing), ("swift", 1));
    let shown = show(&house, &id).unwrap();
    assert_eq!(shown.state(), ApprovalState::Used);
    assert_eq!(shown.decided_by, "tenant/kitchenware/operator/oncall");
    assert!(ask(&house, ADMIN, "swift").unwrap().is_ok(), "nothing is left to do");

    suspend(&house, "swift");
    assert_ne!(pending(&house, ADMIN, "swift"), id, "an approval serves once");

    let story = log(&house).into_iter().filter(|entry| entry.request.to_string() == id);
    let told: Vec<_> = story.map(|entry| (entry.action, entry.verdict == Verdict::Done)).collect();
    let expected = [
        Action::RequestApproval,
        Action::ShowApproval,
        Action::Approve,
        Action::Approve,
        Action::ResumeCaller,
        Action::ShowApproval,
    ];
    assert_eq!(told, expected.map(|action| (action, true)));
}

#[test]
fn nobody_approves_their_own_request() {
    let house = House::new();
    suspend(&house, "swift");
    let id = pending(&house, ADMIN, "swift");
    let refused = approve(&house, (Role::KeyAdmin, ADMIN), &id).unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_TWO_PEOPLE"));
    assert_eq!(last_refusal(&house), (Action::Approve, RefusalCode::SamePerson));
    assert_eq!(pending(&house, ADMIN, "swift"), id);
}

#[test]
fn one_key_is_one_person_in_use_or_in_a_slot() {
    let mut house = House::new();
    meanwhile(&mut house, |house| {
        mint_with_key_of(house, (Role::Operator, "twin"), (Role::KeyAdmin, ADMIN));
        enrol_here(house, Role::Operator, "twin", vec![key_of(house, Role::Operator, "twin")]);
        mint(house, Role::Operator, "sly");
        let pins = vec![key_of(house, Role::Operator, "sly"), key_of(house, Role::KeyAdmin, ADMIN)];
        enrol_here(house, Role::Operator, "sly", pins);
    });
    suspend(&house, "swift");
    let id = pending(&house, ADMIN, "swift");
    for name in ["twin", "sly"] {
        let refused = approve(&house, (Role::Operator, name), &id).unwrap_err();
        assert_eq!(reason(&refused), "NOT_TWO_PEOPLE", "{name}");
        assert_eq!(last_refusal(&house), (Action::Approve, RefusalCode::SameKey), "{name}");
    }
}

#[test]
fn whoever_was_enrolled_by_the_other_is_no_second_person_either_way_nor_two_of_one_enroller() {
    let house = House::new();
    enrol(&house, ADMIN, Role::KeyAdmin, "puppet");
    enrol(&house, ADMIN, Role::Operator, "marionette");
    enrol(&house, "puppet", Role::Operator, "grandchild");
    suspend(&house, "swift");
    for (asks, decides) in [
        (ADMIN, (Role::KeyAdmin, "puppet")),
        ("puppet", (Role::KeyAdmin, ADMIN)),
        (ADMIN, (Role::Operator, "grandchild")),
        ("puppet", (Role::Operator, "marionette")),
    ] {
        let id = pending(&house, asks, "swift");
        let refused = approve(&house, decides, &id).unwrap_err();
        assert_eq!(reason(&refused), "NOT_TWO_PEOPLE", "{asks} / {decides:?}");
        assert_eq!(last_refusal(&house), (Action::Approve, RefusalCode::SameLine), "{asks} / {decides:?}");
    }
    let id = pending(&house, "puppet", "swift");
    approve(&house, SECOND, &id).unwrap();
    assert!(ask(&house, "puppet", "swift").unwrap().is_ok(), "someone of another line is a second person to both");
}

#[test]
fn a_role_that_does_not_decide_the_verb_is_refused_and_so_is_one_that_decides_nothing() {
    let house = House::new();
    suspend(&house, "swift");
    let id = pending(&house, ADMIN, "swift");
    for (role, name) in [(Role::PrivacyOfficer, "office"), (Role::Auditor, "office"), (Role::Shop, "backend")] {
        for refused in [approve(&house, (role, name), &id), reject(&house, (role, name), &id)] {
            let refused = refused.unwrap_err();
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "ROLE_NOT_ALLOWED"));
        }
    }
    assert_eq!(show(&house, &id).unwrap().state(), ApprovalState::Open);
}

#[test]
fn a_request_and_an_approval_end_after_a_day() {
    let house = House::new();
    suspend(&house, "swift");
    let id = pending(&house, ADMIN, "swift");
    house.clock.advance(DAY);
    let refused = approve(&house, SECOND, &id).unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "APPROVAL_OVER"));
    assert_eq!(last_refusal(&house), (Action::Approve, RefusalCode::ApprovalOver));
    assert_eq!(show(&house, &id).unwrap().state(), ApprovalState::Expired);

    let next = pending(&house, ADMIN, "swift");
    assert_ne!(next, id);
    house.clock.advance(23 * HOUR);
    approve(&house, SECOND, &next).unwrap();
    house.clock.advance(HOUR - MINUTE);
    assert_eq!(show(&house, &next).unwrap().state(), ApprovalState::Approved);
    house.clock.advance(MINUTE);
    assert_ne!(pending(&house, ADMIN, "swift"), next, "an approval not used in time is none");
    assert!(house.vault().welcome(&swift(&house)).is_err());
}

/// The carrier as the vault would meet it.
fn swift(house: &House) -> strongroom::domain::caller::Caller {
    use strongroom::domain::caller::{Caller, CallerKeys, CertificateHash};
    let uri = format!("spiffe://{TRUST_DOMAIN}/tenant/kitchenware/carrier/swift");
    let keys = CallerKeys { own: SpkiHash([0; 32]), issuer: people::issuer(house) };
    Caller::from_uri(&uri, TRUST_DOMAIN, CertificateHash([0; 32])).unwrap().with_keys(keys)
}

#[test]
fn an_approval_is_for_the_very_request_of_the_very_asker_as_things_stood() {
    let mut house = House::new();
    meanwhile(&mut house, |house| {
        mint(house, Role::KeyAdmin, "other");
        enrol_here(house, Role::KeyAdmin, "other", vec![key_of(house, Role::KeyAdmin, "other")]);
    });
    for name in ["swift", "parcelo"] {
        suspend(&house, name);
    }
    let id = pending(&house, ADMIN, "swift");
    approve(&house, SECOND, &id).unwrap();
    assert_ne!(pending(&house, ADMIN, "parcelo"), id, "another caller is another request");
    assert_ne!(pending(&house, "other", "swift"), id, "another asker is another request");
    let mut callers = callers(&house, ADMIN);
    let swift = || (Role::Carrier as i32, "swift".to_owned());
    let (role, name) = swift();
    let certificate = hex::encode([7; 32]);
    let request = SuspendCallerRequest { role, name, certificate: certificate.clone() };
    house.run(callers.suspend_caller(request)).unwrap();
    let (role, name) = swift();
    let answer = house.run(callers.resume_caller(ResumeCallerRequest { role, name, certificate })).unwrap();
    let Some(resume_caller_response::Result::PendingApproval(of_certificate)) = answer.into_inner().result else {
        panic!("a certificate came back by the approval of another request")
    };
    assert_ne!(of_certificate.approval_id, id);
    assert_ne!(pending(&house, ADMIN, "swift"), id, "the enrolment has changed since the approval was given");
}

#[test]
fn what_was_rejected_or_withdrawn_or_taken_back_does_not_serve() {
    let house = House::new();
    suspend(&house, "swift");
    let rejected = pending(&house, ADMIN, "swift");
    assert_eq!(reject(&house, SECOND, &rejected).unwrap().state(), ApprovalState::Rejected);
    assert_eq!(reason(&approve(&house, SECOND, &rejected).unwrap_err()), "APPROVAL_OVER");

    let withdrawn = pending(&house, ADMIN, "swift");
    assert_ne!(withdrawn, rejected);
    reject(&house, (Role::KeyAdmin, ADMIN), &withdrawn).unwrap();
    assert_eq!(reason(&approve(&house, SECOND, &withdrawn).unwrap_err()), "APPROVAL_OVER");

    let taken_back = pending(&house, ADMIN, "swift");
    approve(&house, SECOND, &taken_back).unwrap();
    reject(&house, SECOND, &taken_back).unwrap();
    assert_ne!(pending(&house, ADMIN, "swift"), taken_back);
}

#[test]
fn the_word_of_who_was_suspended_since_does_not_count() {
    let house = House::new();
    suspend(&house, "swift");
    let id = pending(&house, ADMIN, "swift");
    approve(&house, SECOND, &id).unwrap();
    let mut callers = callers(&house, ADMIN);
    let (role, name) = (Role::Operator as i32, "oncall".to_owned());
    house.run(callers.suspend_caller(SuspendCallerRequest { role, name, certificate: String::new() })).unwrap();
    assert_ne!(pending(&house, ADMIN, "swift"), id);
}

#[test]
fn a_forged_approval_is_refused_and_told_of() {
    let mut house = House::new();
    suspend(&house, "swift");
    let id = pending(&house, ADMIN, "swift");
    approve(&house, SECOND, &id).unwrap();
    reject(&house, SECOND, &id).unwrap();
    let forge = |house: &mut House, change: &str| {
        meanwhile(house, |house| {
            let database = Connection::open(&house.config.store.database).unwrap();
            assert_eq!(database.execute(change, []).unwrap(), 1);
        });
    };
    // A rejected request is made an approved one, as a database administrator could write it.
    forge(&mut house, "UPDATE approval SET state = 2");
    let list = |house: &House| {
        let mut approvals = approvals(house, Role::Auditor, "office");
        house.run(approvals.list_approvals(ListApprovalsRequest {})).map(drop)
    };
    let refused: Vec<Status> = vec![
        ask(&house, ADMIN, "swift").unwrap_err(),
        approve(&house, SECOND, &id).unwrap_err(),
        show(&house, &id).unwrap_err(),
        list(&house).unwrap_err(),
    ];
    for status in &refused {
        assert_eq!((status.code(), reason(status).as_str()), (Code::DataLoss, "TAMPERED"));
    }
    let tampered = refusals(&house).into_iter().filter(|refusal| *refusal == (Action::Tamper, RefusalCode::Tampered));
    assert_eq!(tampered.count(), refused.len());
    // As it was, it is a rejected request again.
    forge(&mut house, "UPDATE approval SET state = 3");
    assert_eq!(show(&house, &id).unwrap().state(), ApprovalState::Rejected);
    // The time it ends belongs to what is authentic, and so does who asked.
    for change in ["expires_at = expires_at + 1", "asked_by = 'tenant/kitchenware/operator/oncall'", "about = ''"] {
        forge(&mut house, &format!("UPDATE approval SET {change}"));
        assert_eq!(reason(&show(&house, &id).unwrap_err()), "TAMPERED", "{change}");
    }
}

#[test]
fn another_tenants_request_is_not_there() {
    let mut house = House::new();
    house.stop();
    let policy = house.config.policies[&house.tenant()].clone();
    house.config.policies.insert("rival".parse().unwrap(), policy);
    let now = SystemClock::new().now();
    let uri = format!("spiffe://{TRUST_DOMAIN}/tenant/rival/operator/spy");
    let authority = Authority::load(&people::certs(&house)).unwrap();
    let leaf = authority.issue(&LeafSpec::client(&uri, now, now.plus(DAY))).unwrap();
    let files = house.files(Role::Operator, "spy");
    std::fs::write(&files.certificate, leaf.cert_pem).unwrap();
    std::fs::write(&files.key, leaf.key_pem.as_bytes()).unwrap();
    people::enrol_of(&house, "tenant/rival/operator/spy", vec![key_of(&house, Role::Operator, "spy")]);
    house.start();
    suspend(&house, "swift");
    let id = pending(&house, ADMIN, "swift");
    for refused in [approve(&house, (Role::Operator, "spy"), &id), reject(&house, (Role::Operator, "spy"), &id)] {
        assert_eq!(reason(&refused.unwrap_err()), "NOT_FOUND");
    }
    let mut spy = approvals(&house, Role::Operator, "spy");
    assert!(house.run(spy.list_approvals(ListApprovalsRequest {})).unwrap().into_inner().approvals.is_empty());
    assert_eq!(reason(&approve(&house, SECOND, &hex::encode([1; 16])).unwrap_err()), "NOT_FOUND");
}

#[test]
fn a_key_is_changed_by_two_people_and_both_keys_are_good_meanwhile() {
    use replace_pins_response::Result::{Done, PendingApproval};
    let house = House::new();
    let with_old = house.channel(Role::Operator, "oncall");
    let old = key_of(&house, Role::Operator, "oncall");
    mint(&house, Role::Operator, "oncall");
    let new = key_of(&house, Role::Operator, "oncall");
    let with_new = house.channel(Role::Operator, "oncall");
    let comes_in = |channel: &Channel| {
        let mut operations = OperationsServiceClient::new(channel.clone());
        house.run(operations.status(StatusRequest {})).is_ok()
    };
    assert!(comes_in(&with_old) && !comes_in(&with_new));
    let mut admin = callers(&house, ADMIN);
    let mut replace = |pins: &[SpkiHash]| {
        let pins = pins.iter().map(|pin| hex::encode(pin.0)).collect();
        let request = ReplacePinsRequest { role: Role::Operator as i32, name: "oncall".to_owned(), pins };
        house.run(admin.replace_pins(request)).unwrap().into_inner().result.unwrap()
    };
    for (pins, decides) in [(vec![old, new], &with_old), (vec![new], &with_new)] {
        let PendingApproval(pending) = replace(&pins) else { panic!("pins were replaced by one person") };
        let mut decide = ApprovalServiceClient::new(decides.clone());
        house.run(decide.approve(ApproveRequest { approval_id: pending.approval_id })).unwrap();
        let Done(caller) = replace(&pins) else { panic!("two people were not enough") };
        assert_eq!(caller.pins.len(), pins.len());
        assert_eq!((comes_in(&with_old), comes_in(&with_new)), (pins.contains(&old), true));
    }
}
