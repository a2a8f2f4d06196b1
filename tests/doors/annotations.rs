//! What the protocol says of itself: every RPC names its roles, every field that carries personal data is marked, and no
//! message prints what it holds.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto,
};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, Value};
use strongroom::domain::caller::Role;
use strongroom::rpc::proto;

use crate::raw::filled;

const PACKAGE: &str = "strongroom.v1";

/// Texts that speak of the vault, the shop's partners or its rules, never of a person. All others are marked.
const NO_PII: &[&str] = &[
    "EraseResponse.receipt",
    "EraseSubjectResponse.receipt",
    "Hold.hold_id",
    "Hold.placed_by",
    "KeptRecord.waiting_for",
    "LiftHoldRequest.hold_id",
    "ListHoldsRequest.after",
    "PlaceHoldResponse.hold_id",
    "PublishedCell.country",
    "PublishedMonth.month",
    "PublishedRequest.from",
    "PublishedRequest.until",
    "Disappearance.piece",
    "ForecastGroup.day",
    "ForecastGroup.due_by",
    "ForecastGroup.piece",
    "ForecastGroup.rule",
    "ForecastGroup.source",
    // As a receipt has it.
    "ForecastRecord.digest",
    "RetentionForecastResponse.tenant",
    "RetentionForecastResponse.zone",
    // Sealed by the vault, for the vault.
    "RetentionOutlookResponse.page_token",
    "RetentionOutlookResponse.zone",
    // A record's digest leads nobody to it who has not its token.
    "ReceiptOfResponse.public_key",
    "ReceiptOfResponse.receipt",
    "Approval.about",
    "Approval.approval_id",
    "Approval.asked_by",
    "Approval.asked_key",
    "Approval.decided_by",
    "Approval.decided_key",
    "Approval.digest",
    "ApproveRequest.approval_id",
    "CheckpointResponse.note",
    "CheckpointResponse.verifier_key",
    "ConsistencyProofResponse.hashes",
    "ConsistencyProofResponse.note",
    "ExportResponse.lines",
    "InclusionProofResponse.hashes",
    "InclusionProofResponse.leaf_hash",
    "InclusionProofResponse.note",
    "Caller.enrolled_by",
    "Caller.issuer",
    "Caller.name",
    "Caller.pins",
    "Caller.suspended_certificates",
    "EnrolCallerRequest.issuer",
    "EnrolCallerRequest.name",
    "EnrolCallerRequest.pins",
    "PendingApproval.approval_id",
    "RejectRequest.approval_id",
    "ReplacePinsRequest.name",
    "ReplacePinsRequest.pins",
    "ResumeCallerRequest.certificate",
    "ResumeCallerRequest.name",
    "SealRequest.trust_domain",
    "SealState.root_source",
    "ShowApprovalRequest.approval_id",
    "SuspendCallerRequest.certificate",
    "SuspendCallerRequest.name",
    "DiscloseRequest.case",
    "DescribeResponse.due_by",
    "DescribeResponse.erase_reason",
    "DescribeResponse.policy_version",
    "ExplainRetentionResponse.erase_reason",
    "ExplainRetentionResponse.policy_id",
    "ExplainRetentionResponse.policy_version",
    "PieceDue.piece",
    "PolicyAllowed.policy_version",
    "PolicyChange.effect",
    "PolicyChange.new",
    "PolicyChange.old",
    "PolicyChange.rule",
    "ProposePolicyRequest.policy",
    "WhyDue.due_by",
    "WhyDue.rule",
    "WhyDue.source",
    "GrantShipmentRequest.carrier",
    "GrantShipmentResponse.grant_id",
    "BackupResponse.manifest",
    "KeyringCopy.path",
    "ListKeysResponse.warnings",
    "RowsUnderEpoch.table",
    "ItemError.field",
    "Protection.key_memory",
    "ReportEventResponse.due_by",
    "RevokeShipmentRequest.grant_id",
    "StatusResponse.audit_root",
    "StatusResponse.policy_id",
    "StatusResponse.policy_version",
    "StatusResponse.root_source",
    "StatusResponse.version",
    "StatusResponse.warnings",
    "AuditEntry.about_certificate",
    "AuditEntry.about_name",
    "AuditEntry.action",
    "AuditEntry.certificate",
    "AuditEntry.name",
    "AuditEntry.refusal",
    "AuditEntry.request_id",
    "AuditEntry.words",
    "ExplainRequest.request_id",
    "RefusalGroup.action",
    "RefusalGroup.last_request_id",
    "RefusalGroup.name",
    "RefusalGroup.refusal",
    "RefusalGroup.why",
    "SeenByRequest.certificate",
    "SeenByRequest.name",
    "UnusedGrant.carrier",
    "UnusedGrant.grant_id",
];

/// One RPC as annotated.
pub struct Rpc {
    /// `/package.Service/Method`.
    pub path: String,
    pub name: String,
    pub roles: Vec<i32>,
    reply: MessageDescriptor,
}

/// Every RPC of the protocol.
pub fn methods() -> Vec<Rpc> {
    rpcs(&pool())
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(proto::DESCRIPTORS).unwrap()
}

fn rpcs(pool: &DescriptorPool) -> Vec<Rpc> {
    let option = pool.get_extension_by_name("strongroom.v1.roles").unwrap();
    let services = pool.services().filter(|service| service.package_name() == PACKAGE);
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>()).map(|method| {
        let options = method.options();
        let roles = options.get_extension(&option);
        Rpc {
            path: format!("/{}/{}", method.parent_service().full_name(), method.name()),
            name: method.name().to_owned(),
            roles: roles.as_list().unwrap().iter().filter_map(Value::as_enum_number).collect(),
            reply: method.output(),
        }
    });
    methods.collect()
}

fn messages(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> {
    pool.all_messages().filter(|message| message.package_name() == PACKAGE)
}

fn is_marked(field: &FieldDescriptor) -> bool {
    let option = field.parent_pool().get_extension_by_name("strongroom.v1.pii").unwrap();
    field.options().get_extension(&option).as_bool().unwrap()
}

/// Whether any field of the message, however deep, is marked.
fn carries_pii(message: &MessageDescriptor) -> bool {
    message.fields().any(|field| is_marked(&field) || field.kind().as_message().is_some_and(carries_pii))
}

/// What the descriptor lacks.
fn complaints(pool: &DescriptorPool) -> Vec<String> {
    let mut complaints = Vec::new();
    for rpc in rpcs(pool) {
        let known = |role: &i32| Role::ALL.iter().any(|known| *known as i32 == *role);
        if rpc.roles.is_empty() || !rpc.roles.iter().all(known) {
            complaints.push(format!("{} names no roles", rpc.path));
        }
    }
    let mut excepted: BTreeSet<&str> = NO_PII.iter().copied().collect();
    for field in messages(pool).flat_map(|message| message.fields().collect::<Vec<_>>()) {
        let place = format!("{}.{}", field.parent_message().name(), field.name());
        let must_be_marked = match field.kind() {
            Kind::String | Kind::Bytes => !excepted.remove(place.as_str()),
            Kind::Message(message) => carries_pii(&message),
            _ => false,
        };
        if must_be_marked != is_marked(&field) {
            complaints.push(format!("{place} is marked: {}", is_marked(&field)));
        }
    }
    complaints.extend(excepted.iter().map(|place| format!("{place} is excepted and not there")));
    complaints
}

#[test]
fn every_rpc_names_its_roles_and_every_field_that_carries_pii_is_marked() {
    assert_eq!(complaints(&pool()), [""; 0]);
}

#[test]
fn the_table_of_the_door_is_the_descriptors() {
    let annotated = methods();
    let table: Vec<(&str, Vec<i32>)> = proto::annotations::METHODS
        .iter()
        .map(|(path, roles)| (*path, roles.iter().map(|role| i32::from(*role)).collect()))
        .collect();
    let annotated: Vec<_> = annotated.iter().map(|rpc| (rpc.path.as_str(), rpc.roles.clone())).collect();
    assert_eq!(table, annotated);
}

#[test]
fn who_runs_the_vault_gets_no_reply_with_pii_and_a_carrier_one() {
    for rpc in methods() {
        let open_to = |role: Role| rpc.roles.contains(&(role as i32));
        if carries_pii(&rpc.reply) {
            assert!(![Role::Operator, Role::Auditor, Role::KeyAdmin].into_iter().any(open_to), "{}", rpc.path);
        }
        let is_a_carriers = ["GetDelivery", "ConfirmDelivery"].contains(&rpc.name.as_str());
        assert_eq!(open_to(Role::Carrier), is_a_carriers, "{}", rpc.path);
    }
}

#[test]
fn a_protocol_without_annotations_is_complained_about() {
    let field =
        |name: &str, number, kind: field_descriptor_proto::Type, type_name: Option<&str>| FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            r#type: Some(kind.into()),
            label: Some(field_descriptor_proto::Label::Optional.into()),
            type_name: type_name.map(str::to_owned),
            ..Default::default()
        };
    use field_descriptor_proto::Type;
    let planted = FileDescriptorProto {
        name: Some("planted.proto".to_owned()),
        package: Some(PACKAGE.to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: vec!["strongroom/v1/common.proto".to_owned()],
        message_type: vec![DescriptorProto {
            name: Some("Planted".to_owned()),
            field: vec![
                field("nickname", 1, Type::String, None),
                field("portrait", 2, Type::Bytes, None),
                field("home", 3, Type::Message, Some(".strongroom.v1.Address")),
                field("count", 4, Type::Uint32, None),
            ],
            ..Default::default()
        }],
        service: vec![ServiceDescriptorProto {
            name: Some("PlantedService".to_owned()),
            method: vec![MethodDescriptorProto {
                name: Some("Leak".to_owned()),
                input_type: Some(".strongroom.v1.Planted".to_owned()),
                output_type: Some(".strongroom.v1.Planted".to_owned()),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut pool = pool();
    pool.add_file_descriptor_proto(planted).unwrap();
    assert_eq!(
        complaints(&pool),
        [
            "/strongroom.v1.PlantedService/Leak names no roles",
            "Planted.nickname is marked: false",
            "Planted.portrait is marked: false",
            "Planted.home is marked: false",
        ]
    );
}

/// Every message of the protocol with a way to print one.
macro_rules! printed {
    ($($name:ident)*) => {
        &[$((stringify!($name), |bytes: &[u8]| {
            let message = proto::$name::decode(bytes).unwrap();
            let names = format!("{message:?} {message:#?}");
            assert!(!format!("{:?}", tonic::Request::new(message)).contains("7f3a"));
            names
        }),)*]
    };
}

type Printed = (&'static str, fn(&[u8]) -> String);

const PRINTED: &[Printed] = printed![
    Address EmergencyContact FieldValue FieldResult ItemError
    TokenizeRequest TokenizeResponse TokenizeStreamRequest TokenizeStreamResponse
    DetokenizeRequest DetokenizeResponse BatchDetokenizeRequest BatchDetokenizeResponse BatchDetokenizeItem
    CorrectRequest CorrectResponse EraseRequest EraseResponse DescribeRequest DescribeResponse
    ReportEventRequest ReportEventResponse GrantShipmentRequest GrantShipmentResponse
    RevokeShipmentRequest RevokeShipmentResponse
    GetDeliveryRequest GetDeliveryResponse ConfirmDeliveryRequest ConfirmDeliveryResponse
    StatusRequest StatusResponse Protection ConfirmClockRequest ConfirmClockResponse
    Caller EnrolCallerRequest EnrolCallerResponse SuspendCallerRequest SuspendCallerResponse
    ResumeCallerRequest ResumeCallerResponse ReplacePinsRequest ReplacePinsResponse
    ListCallersRequest ListCallersResponse PendingApproval
    Approval ListApprovalsRequest ListApprovalsResponse ShowApprovalRequest ShowApprovalResponse
    ApproveRequest ApproveResponse RejectRequest RejectResponse
    EraseSubjectRequest EraseSubjectResponse KeptRecord ReceiptOfRequest ReceiptOfResponse
    PlaceHoldRequest PlaceHoldResponse LiftHoldRequest LiftHoldResponse ListHoldsRequest ListHoldsResponse Hold
    PublishedRequest PublishedResponse PublishedMonth PublishedCell ResumeSweepRequest ResumeSweepResponse
    BackupRequest BackupResponse
    AuditEntry FieldOutcome WhoSawRequest WhoSawResponse SeenByRequest SeenByResponse SubjectSeen SeenSummary FieldSeen
    RefusalsRequest RefusalsResponse RefusalGroup UnusedGrantsRequest UnusedGrantsResponse UnusedGrant
    ExplainRequest ExplainResponse
    FindRequest FindResponse ListKeysRequest ListKeysResponse KeyEpoch RowsUnderEpoch KeyringCopy
    RotateKekRequest RotateKekResponse DestroyEpochRequest DestroyEpochResponse EpochDestroyed
    PostponeEpochRequest PostponeEpochResponse EpochPostponed RotateRootRequest RotateRootResponse
    CheckpointRequest CheckpointResponse InclusionProofRequest InclusionProofResponse
    DiscloseRequest DiscloseResponse Disclosure
    ConsistencyProofRequest ConsistencyProofResponse ExportRequest ExportResponse
    ExplainRetentionRequest ExplainRetentionResponse WhyDue PieceDue
    ProposePolicyRequest ProposePolicyResponse PolicyChange PolicyAllowed
    RetentionForecastRequest RetentionForecastResponse ForecastRecord ForecastGroup Disappearance
    RetentionOutlookRequest RetentionOutlookResponse
    SealState SealStatusRequest SealStatusResponse UnsealRequest UnsealResponse SealRequest SealResponse
];

fn canary() -> String {
    "canary-7f3a".to_owned()
}

#[test]
fn debug_of_every_message_prints_its_name_alone() {
    let pool = pool();
    let named: BTreeSet<String> = messages(&pool).map(|message| message.name().to_owned()).collect();
    assert_eq!(named, PRINTED.iter().map(|(name, _)| (*name).to_owned()).collect());
    for (name, print) in PRINTED {
        let message = pool.get_message_by_name(&format!("{PACKAGE}.{name}")).unwrap();
        let bytes = filled(&message, &mut canary).encode_to_vec();
        assert_eq!(print(&bytes), format!("{name} {name}"));
    }
}

#[test]
fn debug_of_every_oneof_prints_its_messages_name_alone() {
    let bytes = |name: &str| {
        let message = pool().get_message_by_name(&format!("{PACKAGE}.{name}")).unwrap();
        filled(&message, &mut canary).encode_to_vec()
    };
    let print = |value: &dyn std::fmt::Debug| format!("{value:?} {value:#?}");
    let printed = [
        print(&proto::FieldValue::decode(bytes("FieldValue").as_slice()).unwrap().value.unwrap()),
        print(&proto::FieldResult::decode(bytes("FieldResult").as_slice()).unwrap().value.unwrap()),
        print(
            &proto::TokenizeStreamResponse::decode(bytes("TokenizeStreamResponse").as_slice()).unwrap().result.unwrap(),
        ),
        print(&proto::BatchDetokenizeItem::decode(bytes("BatchDetokenizeItem").as_slice()).unwrap().result.unwrap()),
        print(&proto::ResumeCallerResponse::decode(bytes("ResumeCallerResponse").as_slice()).unwrap().result.unwrap()),
        print(&proto::ReplacePinsResponse::decode(bytes("ReplacePinsResponse").as_slice()).unwrap().result.unwrap()),
        print(&proto::EraseSubjectResponse::decode(bytes("EraseSubjectResponse").as_slice()).unwrap().news.unwrap()),
        print(&proto::LiftHoldResponse::decode(bytes("LiftHoldResponse").as_slice()).unwrap().result.unwrap()),
        print(&proto::FindRequest::decode(bytes("FindRequest").as_slice()).unwrap().by.unwrap()),
        print(&proto::DestroyEpochResponse::decode(bytes("DestroyEpochResponse").as_slice()).unwrap().result.unwrap()),
        print(
            &proto::PostponeEpochResponse::decode(bytes("PostponeEpochResponse").as_slice()).unwrap().result.unwrap(),
        ),
        print(&proto::DiscloseResponse::decode(bytes("DiscloseResponse").as_slice()).unwrap().result.unwrap()),
        print(&proto::ExportResponse::decode(bytes("ExportResponse").as_slice()).unwrap().result.unwrap()),
        print(
            &proto::ProposePolicyResponse::decode(bytes("ProposePolicyResponse").as_slice()).unwrap().result.unwrap(),
        ),
    ];
    let names = [
        "FieldValue",
        "FieldResult",
        "TokenizeStreamResponse",
        "BatchDetokenizeItem",
        "ResumeCallerResponse",
        "ReplacePinsResponse",
        "EraseSubjectResponse",
        "LiftHoldResponse",
        "FindRequest",
        "DestroyEpochResponse",
        "PostponeEpochResponse",
        "DiscloseResponse",
        "ExportResponse",
        "ProposePolicyResponse",
    ];
    assert_eq!(printed, names.map(|name| format!("{name} {name}")));
    let oneofs: usize = messages(&pool()).map(|message| message.oneofs().len()).sum();
    assert_eq!(oneofs, names.len());
}
