//! Why something is due, and a policy that shortens something.

use strongroom::audit::entry::{Action, Actor};
use strongroom::domain::caller::Role;
use strongroom::domain::time::DAY;
use strongroom::policy::retention::{Parameters, Policy};
use strongroom::rpc::proto::operations_service_client::OperationsServiceClient;
use strongroom::rpc::proto::propose_policy_response::Result::{Done, PendingApproval};
use strongroom::rpc::proto::retention_service_client::RetentionServiceClient;
use strongroom::rpc::proto::{
    ApproveRequest, DescribeRequest, EventKind, ExplainRetentionRequest, ExplainRetentionResponse,
    ProposePolicyRequest, ProposePolicyResponse, RecordState, StatusRequest,
};
use tonic::{Code, Status};

use super::{STAGED, staged};
use crate::common::{House, START, order, wire_time};
use crate::people::{approvals, log, reason};

fn explain(house: &House, token: &str) -> ExplainRetentionResponse {
    let mut retention = RetentionServiceClient::new(house.channel(Role::Shop, "backend"));
    house.run(retention.explain_retention(ExplainRetentionRequest { token: token.to_owned() })).unwrap().into_inner()
}

#[test]
fn explaining_tells_when_by_which_rule_and_waiting_for_what() {
    let house = staged();
    let token = house.tokenize(order(1));
    let told = explain(&house, &token);
    assert_eq!((told.state(), told.policy_id.as_str(), told.pieces.len()), (RecordState::Live, "staged", 0));
    let record = told.record.unwrap();
    assert_eq!((record.due_by.as_str(), record.rule.as_str()), ("cap", "order.cap = \"P1Y\""));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    house.clock.advance(DAY);
    let told = explain(&house, &token);
    let record = told.record.unwrap();
    assert_eq!(record.due, Some(wire_time(START.plus(60 * DAY))));
    assert_eq!(record.rule, "order.after.delivered = \"P60D\"");
    assert_eq!(record.source, "Section 1: the shop's own sixty days.");
    assert_eq!(STAGED.lines().nth(record.line as usize - 1), Some("after.delivered = \"P60D\""));
    let pieces: Vec<_> = told.pieces.iter().map(|piece| (piece.piece.as_str(), piece.over)).collect();
    assert_eq!(pieces, [("phone", false), ("address_lines", false)]);
    let phone = told.pieces[0].why.as_ref().unwrap();
    assert_eq!(phone.due, Some(wire_time(START.plus(14 * DAY))));
    assert_eq!(phone.rule, "order.field.phone.after.delivered = \"P14D\"");
    assert_eq!(phone.source, "Section 2: nobody rings after a fortnight.");
    house.clock.advance(14 * DAY);
    house.event(&token, EventKind::RefundOpened, 0).unwrap();
    house.sweep();
    let told = explain(&house, &token);
    let record = told.record.unwrap();
    assert_eq!(
        (record.rule.as_str(), record.waiting_for.as_slice()),
        ("order.cap = \"P1Y\"", &[EventKind::RefundSettled.into()][..])
    );
    assert_eq!((told.pieces[0].piece.as_str(), told.pieces[0].over), ("phone", true));
    assert!(!told.pieces[1].over);
    house.clock.advance(365 * DAY);
    assert_eq!(explain(&house, &token).state(), RecordState::Expired);
    house.sweep();
    let told = explain(&house, &token);
    assert_eq!((told.state(), told.erase_reason.as_str()), (RecordState::Erased, "desensitized"));
    let unknown = strongroom::domain::token::Token::from_bytes([7; 20]).to_text();
    let mut retention = RetentionServiceClient::new(house.channel(Role::Shop, "backend"));
    let refused = house.run(retention.explain_retention(ExplainRetentionRequest { token: unknown })).unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "NOT_FOUND"));
    let told = log(&house).into_iter().filter(|entry| entry.action == Action::ExplainRetention).count();
    assert_eq!(told, 6, "every look is logged, the refused one too");
}

/// The policy that new records are collected under.
fn in_force(house: &House, n: usize) -> String {
    let token = house.tokenize(order(n));
    let mut tokens = house.tokens();
    house.run(tokens.describe(DescribeRequest { token })).unwrap().into_inner().policy_version
}

fn version(policy: &Policy) -> String {
    hex::encode(policy.version().0)
}

fn warnings(house: &House) -> Vec<String> {
    let mut operations = OperationsServiceClient::new(house.channel(Role::Operator, "oncall"));
    let status = house.run(operations.status(StatusRequest {})).unwrap().into_inner();
    status.warnings.into_iter().filter(|warning| warning.contains("retention policy")).collect()
}

const OFFICER: (Role, &str) = (Role::PrivacyOfficer, "office");
const ADMIN: (Role, &str) = (Role::KeyAdmin, "office");

fn propose(house: &House, who: (Role, &str), policy: &str) -> Result<ProposePolicyResponse, Status> {
    let mut retention = RetentionServiceClient::new(house.channel(who.0, who.1));
    let request = ProposePolicyRequest { policy: policy.to_owned() };
    house.run(retention.propose_policy(request)).map(tonic::Response::into_inner)
}

/// Restarts with another policy in the configuration.
fn configure(house: &mut House, policy: &Policy) {
    house.stop();
    house.config.policies.insert(house.tenant(), policy.clone());
    house.start();
}

fn shorter() -> Policy {
    Policy::parse(&Policy::KITCHENWARE.replace("\"P60D\"", "\"P59D\"")).unwrap()
}

#[test]
fn a_policy_that_shortens_something_waits_for_a_second_person() {
    let mut house = House::new();
    let (old, new) = (Policy::parse(Policy::KITCHENWARE).unwrap(), shorter());
    let first = house.tokenize(order(1));
    configure(&mut house, &new);
    assert_eq!(in_force(&house, 2), version(&old), "new records live by the old policy");
    let [warning] = warnings(&house).try_into().unwrap();
    assert!(warning.contains("strongroom policy propose") && warning.contains(&version(&new)[..12]), "{warning}");

    let told = propose(&house, OFFICER, new.text()).unwrap();
    let changes: Vec<_> = told.changes.iter().map(|change| (change.rule.as_str(), change.effect.as_str())).collect();
    assert!(changes.contains(&("order.after.delivered", "hastened")), "{changes:?}");
    let Some(PendingApproval(pending)) = told.result else { panic!("one person was enough") };
    configure(&mut house, &new);
    assert_eq!(in_force(&house, 3), version(&old), "asking is not enough");
    let mut own = approvals(&house, OFFICER.0, OFFICER.1);
    let yes = ApproveRequest { approval_id: pending.approval_id.clone() };
    assert_eq!(reason(&house.run(own.approve(yes.clone())).unwrap_err()), "NOT_TWO_PEOPLE");
    let mut second = approvals(&house, ADMIN.0, ADMIN.1);
    let approved = house.run(second.approve(yes)).unwrap().into_inner().approval.unwrap();
    assert!(approved.about.contains("order.after.delivered: P60D -> P59D (hastened)"), "{}", approved.about);
    let Some(Done(done)) = propose(&house, OFFICER, new.text()).unwrap().result else { panic!("not carried out") };
    assert_eq!(done.policy_version, version(&new));
    assert_eq!(in_force(&house, 4), version(&old), "until the next start");
    configure(&mut house, &new);
    assert_eq!((in_force(&house, 5), warnings(&house)), (version(&new), Vec::new()));
    let mut tokens = house.tokens();
    let kept = house.run(tokens.describe(DescribeRequest { token: first })).unwrap().into_inner().policy_version;
    assert_eq!(kept, version(&old), "a record lives by the policy it was collected under");
    let adopted = log(&house).into_iter().filter(|entry| entry.action == Action::AdoptPolicy);
    assert_eq!(adopted.map(|entry| entry.actor).collect::<Vec<_>>(), [Actor::Vault, Actor::Vault]);
}

#[test]
fn what_was_let_in_is_that_policy_against_that_one_and_no_other() {
    let mut house = House::new();
    let new = shorter();
    let Some(PendingApproval(pending)) = propose(&house, ADMIN, new.text()).unwrap().result else { panic!() };
    let mut second = approvals(&house, OFFICER.0, OFFICER.1);
    house.run(second.approve(ApproveRequest { approval_id: pending.approval_id })).unwrap();
    let other = Policy::parse(&Policy::KITCHENWARE.replace("\"P60D\"", "\"P58D\"")).unwrap();
    let answer = propose(&house, ADMIN, other.text()).unwrap().result;
    assert!(matches!(answer, Some(PendingApproval(_))), "the word was not given for this one");
    let answer = propose(&house, OFFICER, new.text()).unwrap().result;
    assert!(matches!(answer, Some(PendingApproval(_))), "nor to this asker");
    let old = Policy::parse(Policy::KITCHENWARE).unwrap();
    assert!(matches!(propose(&house, ADMIN, new.text()).unwrap().result, Some(Done(_))));
    configure(&mut house, &other);
    assert_eq!(in_force(&house, 1), version(&old));
    configure(&mut house, &new);
    assert_eq!(in_force(&house, 2), version(&new));
    // A longer one takes nobody's word; back to the shorter one takes two people again.
    configure(&mut house, &old);
    assert_eq!(in_force(&house, 3), version(&old));
    configure(&mut house, &new);
    assert_eq!(in_force(&house, 4), version(&old), "an approval serves once");
}

#[test]
fn a_policy_that_shortens_nothing_takes_nobody_else() {
    let mut house = House::new();
    let longer = Policy::parse(&Policy::KITCHENWARE.replace("\"P60D\"", "\"P61D\"")).unwrap();
    let told = propose(&house, OFFICER, longer.text()).unwrap();
    assert!(matches!(told.result, Some(Done(_))) && !told.changes.is_empty());
    assert!(told.changes.iter().all(|change| change.effect == "delayed"));
    configure(&mut house, &longer);
    assert_eq!((in_force(&house, 1), warnings(&house)), (version(&longer), Vec::new()));
}

#[test]
fn a_shops_own_figure_that_shortens_takes_two_people_too() {
    let with = |years| Policy::parse_with(Policy::GENERAL, &Parameters::from([("years".to_owned(), years)])).unwrap();
    let mut house = House::under(with(5));
    configure(&mut house, &with(4));
    assert_eq!(warnings(&house).len(), 1);
    configure(&mut house, &with(6));
    assert_eq!(warnings(&house).len(), 0);
}

#[test]
fn what_is_no_policy_is_refused_by_its_field() {
    let house = House::new();
    for (policy, expected) in [
        (String::new(), "MISSING"),
        ("canary = 1".to_owned(), "NOT_A_POLICY"),
        (Policy::GENERAL.to_owned(), "NOT_A_POLICY"),
        ("#".repeat(65 * 1024), "TOO_LONG"),
    ] {
        let refused = propose(&house, OFFICER, &policy).unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, expected));
        assert!(!format!("{refused:?}").contains("canary"));
    }
    assert_eq!(propose(&house, (Role::Shop, "backend"), "").unwrap_err().code(), Code::PermissionDenied);
}
