//! Every role, purpose, class and field: the whole cube, on the wire and at gate 1, against a table written apart.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use strongroom::domain::caller::Role;
use strongroom::domain::vocabulary::{Class, Field, Purpose};
use strongroom::policy::release::{Access, decide};
use strongroom::rpc::proto::field_value::Value;
use strongroom::rpc::proto::find_request::By;
use strongroom::rpc::proto::{
    self, BatchDetokenizeRequest, BatchDetokenizeResponse, DetokenizeRequest, DetokenizeResponse, FieldValue,
    FindRequest, FindResponse, Outcome, TokenizeRequest, batch_detokenize_item, field_result,
};
use tonic::{Code, Request, Status};

use crate::common::{House, text};
use crate::{callers, open_house, raw, reason};

/// Gate 1, written apart from the vault's own table. One column a field: account_name, recipient_name, address, phone, email,
/// emergency_contact, payment_account, note. `G` granted, `M` masked, `.` denied; a row that is not here opens nothing.
const CUBE: &str = "
shop              fulfilment       order    .GGG....
shop              notification     order    .G..G...
shop              self_service     order    .GGGGGM.
shop              refund           order    ......G.
shop              identity_check   order    ...MM...
shop              self_service     account  G.GGGGM.
shop              notification     account  G...G...
shop              identity_check   account  ...MM...
shop              after_sales      case     .......G
shop              self_service     case     .......G
warehouse         fulfilment       order    .GGG....
carrier           delivery         order    ..G.....
customer-service  after_sales      case     .......G
customer-service  identity_check   order    ...MM...
customer-service  identity_check   account  ...MM...
finance           refund           order    ......G.
finance           refund           account  ......G.
privacy-officer   subject_request  order    GGGGGGGG
privacy-officer   subject_request  account  GGGGGGGG
privacy-officer   subject_request  case     GGGGGGGG
";

/// Roles that have no RPC to ask for fields by token.
const SHUT_OUT: [Role; 4] = [Role::Carrier, Role::Operator, Role::Auditor, Role::KeyAdmin];

/// What became of every cell: one of CUBE's marks, `-` for a record not found, `x` for a call not allowed.
type Cube = BTreeMap<String, char>;

const CELLS: usize = 9 * 9 * 3 * 8;

fn cell(role: Role, purpose: Purpose, class: Class, field: Field) -> String {
    format!("{} {purpose} {class} {field}", role.as_str())
}

/// The cube as CUBE has it; `other` marks the cells of a role for which no row is there.
fn expected(other: impl Fn(Role) -> char, is_shut_out: impl Fn(Role) -> bool) -> Cube {
    let rows: BTreeMap<String, &str> = CUBE
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!((words.len(), words[3].len()), (4, Field::ALL.len()), "{line}");
            (words[..3].join(" "), words[3])
        })
        .collect();
    let mut cube = Cube::new();
    for (role, purpose, class) in places() {
        let row = rows.get(&format!("{} {purpose} {class}", role.as_str())).filter(|_| !is_shut_out(role));
        for (at, field) in Field::ALL.iter().enumerate() {
            let mark = row.map_or_else(|| other(role), |row| char::from(row.as_bytes()[at]));
            cube.insert(cell(role, purpose, class, *field), mark);
        }
    }
    cube
}

fn places() -> impl Iterator<Item = (Role, Purpose, Class)> {
    Role::ALL.into_iter().flat_map(|role| {
        Purpose::ALL.iter().flat_map(move |purpose| Class::ALL.iter().map(move |class| (role, *purpose, *class)))
    })
}

/// The cells in which two cubes differ; both must be whole.
fn differences(expected: &Cube, found: &Cube) -> Vec<String> {
    assert_eq!((expected.len(), found.len()), (CELLS, CELLS));
    let differs = |(cell, mark): (&String, &char)| {
        let found = found[cell];
        (found != *mark).then(|| format!("{cell}: expected {mark}, found {found}"))
    };
    expected.iter().filter_map(differs).collect()
}

/// A record with every field; no value of one field or class is part of another's.
pub struct Specimen {
    class: Class,
    pub token: String,
    /// Each field with the texts that must not be seen unless it is granted.
    fields: BTreeMap<Field, (FieldValue, Vec<String>)>,
}

impl Specimen {
    pub fn store(house: &House, class: Class) -> Self {
        let fields: BTreeMap<_, _> = Field::ALL.iter().map(|field| (*field, specimen(class, *field))).collect();
        let request = TokenizeRequest {
            idempotency_key: format!("specimen-{class}"),
            subject: "subject-7f3a".to_owned(),
            class: class.code().into(),
            fields: fields.values().map(|(value, _)| value.clone()).collect(),
        };
        Self { class, token: house.tokenize(request), fields }
    }

    pub fn texts(&self, field: Field) -> &[String] {
        &self.fields[&field].1
    }
}

fn specimen(class: Class, field: Field) -> (FieldValue, Vec<String>) {
    let of = |part: &str| format!("7f3a-{class}-{field}-{part}");
    let phone = |last: u8| format!("+493023125{}{last}0", class.code());
    let wire = proto::Field::try_from(i32::from(field.code())).unwrap();
    let (value, texts) = match field {
        Field::Address => {
            let texts = [of("line1"), of("line2"), of("town"), of("region"), format!("PC7F3A{}", class.code())];
            let address = proto::Address {
                lines: texts[..2].to_vec(),
                locality: texts[2].clone(),
                region: texts[3].clone(),
                postal_code: texts[4].clone(),
                country: "DE".to_owned(),
            };
            (FieldValue { field: wire.into(), value: Some(Value::Address(address)) }, texts.to_vec())
        }
        Field::EmergencyContact => {
            let texts = [of("name"), phone(2)];
            let contact = proto::EmergencyContact { name: texts[0].clone(), phone: texts[1].clone() };
            (FieldValue { field: wire.into(), value: Some(Value::EmergencyContact(contact)) }, texts.to_vec())
        }
        Field::Phone => (text(wire, &phone(1)), vec![phone(1)]),
        Field::Email => (text(wire, &of("x@example.org")), vec![of("x@example.org")]),
        Field::AccountName | Field::RecipientName | Field::PaymentAccount | Field::Note => {
            (text(wire, &of("value")), vec![of("value")])
        }
    };
    (value, texts)
}

/// What `reply` tells of `specimen`, which was asked for every field; nothing in its bytes may tell more.
fn judged(specimen: &Specimen, reply: &DetokenizeResponse) -> Vec<(Field, char)> {
    assert_eq!(reply.fields.len(), Field::ALL.len());
    let judge = |(field, result): (&Field, &proto::FieldResult)| {
        assert_eq!(result.field, i32::from(field.code()));
        let mark = match result.outcome() {
            Outcome::Granted => {
                assert!(same(specimen.fields[field].0.value.as_ref(), result.value.as_ref()), "{field}");
                'G'
            }
            Outcome::Masked => {
                let Some(field_result::Value::Text(shown)) = &result.value else { panic!("{field} has no mask") };
                let known = shown.trim_matches('•').chars().filter(|c| c.is_alphanumeric()).count();
                assert!(known <= 4, "{field} shows {known} characters");
                'M'
            }
            Outcome::Denied => {
                assert!(result.value.is_none());
                '.'
            }
            outcome => panic!("{field}: {outcome:?}"),
        };
        (*field, mark)
    };
    Field::ALL.iter().zip(&reply.fields).map(judge).collect()
}

fn same(sent: Option<&Value>, got: Option<&field_result::Value>) -> bool {
    match (sent, got) {
        (Some(Value::Text(sent)), Some(field_result::Value::Text(got))) => sent == got,
        (Some(Value::Address(sent)), Some(field_result::Value::Address(got))) => sent == got,
        (Some(Value::EmergencyContact(sent)), Some(field_result::Value::EmergencyContact(got))) => sent == got,
        _ => false,
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Every value that the raw bytes of a reply hold must be one of these fields of these specimens; a granted one must be there.
pub fn hold_nothing_but(bytes: &[u8], specimens: &[Specimen], granted: &BTreeSet<(Class, Field)>) {
    for specimen in specimens {
        for field in Field::ALL {
            for text in specimen.texts(*field) {
                let allowed = granted.contains(&(specimen.class, *field));
                assert_eq!(holds(bytes, text), allowed, "{} {field}", specimen.class);
            }
        }
    }
}

fn all_fields() -> Vec<i32> {
    Field::ALL.iter().map(|field| i32::from(field.code())).collect()
}

#[test]
fn every_cell_of_the_cube_is_as_written_on_the_wire() {
    let house = open_house();
    let specimens: Vec<Specimen> = Class::ALL.iter().map(|class| Specimen::store(&house, *class)).collect();
    let (mut single, mut batched) = (Cube::new(), Cube::new());
    for (role, (_, channel)) in callers(&house) {
        for purpose in Purpose::ALL {
            let mut granted_of_all = BTreeSet::new();
            for specimen in &specimens {
                let request = DetokenizeRequest {
                    token: specimen.token.clone(),
                    fields: all_fields(),
                    purpose: purpose.code().into(),
                };
                let path = "/strongroom.v1.TokenService/Detokenize";
                let answer = house.run(raw::call(channel.clone(), path, Request::new(request.encode_to_vec())));
                let (marks, bytes) = marks(specimen, answer);
                let granted: BTreeSet<_> = granted(specimen.class, &marks).collect();
                hold_nothing_but(&bytes, &specimens, &granted);
                granted_of_all.extend(granted);
                single
                    .extend(marks.into_iter().map(|(field, mark)| (cell(role, *purpose, specimen.class, field), mark)));
            }
            let request = BatchDetokenizeRequest {
                tokens: specimens.iter().map(|specimen| specimen.token.clone()).collect(),
                fields: all_fields(),
                purpose: purpose.code().into(),
            };
            let path = "/strongroom.v1.TokenService/BatchDetokenize";
            let answer = house.run(raw::call(channel.clone(), path, Request::new(request.encode_to_vec())));
            let bytes = answer.as_ref().map_or_else(|status| status.details().to_vec(), |messages| messages.concat());
            hold_nothing_but(&bytes, &specimens, &granted_of_all);
            for (specimen, marks) in specimens.iter().zip(batch_marks(&specimens, answer)) {
                batched
                    .extend(marks.into_iter().map(|(field, mark)| (cell(role, *purpose, specimen.class, field), mark)));
            }
        }
    }
    let is_shut_out = |role| SHUT_OUT.contains(&role);
    let expected = expected(|role| if is_shut_out(role) { 'x' } else { '-' }, is_shut_out);
    assert_eq!(differences(&expected, &single), [""; 0]);
    assert_eq!(differences(&expected, &batched), [""; 0]);
}

fn granted(class: Class, marks: &[(Field, char)]) -> impl Iterator<Item = (Class, Field)> {
    marks.iter().filter(|(_, mark)| *mark == 'G').map(move |(field, _)| (class, *field))
}

/// The marks of one record's answer, and all its bytes.
fn marks(specimen: &Specimen, answer: Result<Vec<Vec<u8>>, Status>) -> (Vec<(Field, char)>, Vec<u8>) {
    match answer {
        Ok(messages) => {
            assert_eq!(messages.len(), 1);
            let reply = DetokenizeResponse::decode(messages[0].as_slice()).unwrap();
            (judged(specimen, &reply), messages.concat())
        }
        Err(status) => {
            let mark = match (status.code(), reason(&status).as_str()) {
                (Code::NotFound, "NOT_FOUND") => '-',
                (Code::PermissionDenied, "ROLE_NOT_ALLOWED") => 'x',
                told => panic!("{told:?}"),
            };
            let bytes = [status.details(), status.message().as_bytes(), format!("{status:?}").as_bytes()].concat();
            (Field::ALL.iter().map(|field| (*field, mark)).collect(), bytes)
        }
    }
}

fn batch_marks(specimens: &[Specimen], answer: Result<Vec<Vec<u8>>, Status>) -> Vec<Vec<(Field, char)>> {
    let messages = match answer {
        Ok(messages) => messages,
        Err(status) => return specimens.iter().map(|specimen| marks(specimen, Err(status.clone())).0).collect(),
    };
    let items = BatchDetokenizeResponse::decode(messages[0].as_slice()).unwrap().items;
    assert_eq!(items.len(), specimens.len());
    let judge = |(specimen, item): (&Specimen, proto::BatchDetokenizeItem)| match item.result.unwrap() {
        batch_detokenize_item::Result::Done(done) => judged(specimen, &done),
        batch_detokenize_item::Result::Error(error) => {
            assert_eq!((error.reason().as_str_name(), error.field.as_str()), ("ERROR_REASON_NOT_FOUND", ""));
            Field::ALL.iter().map(|field| (*field, '-')).collect()
        }
    };
    specimens.iter().zip(items).map(judge).collect()
}

/// Finding goes by the same table: by what a role sees, masked at least, it finds; by nothing else.
#[test]
fn a_role_finds_by_what_it_sees_and_by_nothing_else() {
    let house = open_house();
    let specimens: Vec<Specimen> = Class::ALL.iter().map(|class| Specimen::store(&house, *class)).collect();
    let may_call = [Role::Shop, Role::CustomerService, Role::PrivacyOfficer];
    let table = expected(|_| '-', |_| false);
    let (mut found, mut as_written) = (Vec::new(), Vec::new());
    for (role, (_, channel)) in callers(&house) {
        for purpose in Purpose::ALL {
            for specimen in &specimens {
                for field in [Field::Phone, Field::Email] {
                    let value = specimen.texts(field)[0].clone();
                    let by = if field == Field::Phone { By::Phone(value) } else { By::Email(value.to_uppercase()) };
                    let request = FindRequest {
                        purpose: purpose.code().into(),
                        class: specimen.class.code().into(),
                        by: Some(by),
                        page_size: 0,
                        page_token: Vec::new(),
                    };
                    let path = "/strongroom.v1.TokenService/Find";
                    let answer = house.run(raw::call(channel.clone(), path, Request::new(request.encode_to_vec())));
                    let mark = match &answer {
                        Ok(messages) => {
                            hold_nothing_but(&messages.concat(), &specimens, &BTreeSet::new());
                            let page = FindResponse::decode(messages[0].as_slice()).unwrap();
                            assert_eq!(page.tokens, std::slice::from_ref(&specimen.token));
                            'f'
                        }
                        Err(status) => match (status.code(), reason(status).as_str()) {
                            (Code::NotFound, "NOT_FOUND") => '-',
                            (Code::PermissionDenied, "ROLE_NOT_ALLOWED") => 'x',
                            told => panic!("{told:?}"),
                        },
                    };
                    let place = cell(role, *purpose, specimen.class, field);
                    let written = match (may_call.contains(&role), table[&place]) {
                        (false, _) => 'x',
                        (true, 'G' | 'M') => 'f',
                        (true, _) => '-',
                    };
                    found.push(format!("{place} {mark}"));
                    as_written.push(format!("{place} {written}"));
                }
            }
        }
    }
    assert!(found.iter().filter(|cell| cell.ends_with('f')).count() > 15);
    assert_eq!(found, as_written);
}

#[test]
fn every_cell_of_the_cube_is_as_written_at_gate_one() {
    let mut found = Cube::new();
    for (role, purpose, class) in places() {
        let permit = decide(role, purpose, class);
        for field in Field::ALL {
            let mark = permit.as_ref().map_or('-', |permit| match permit.access(*field) {
                Access::Grant => 'G',
                Access::Mask => 'M',
                Access::Deny => '.',
            });
            found.insert(cell(role, purpose, class, *field), mark);
        }
    }
    assert_eq!(differences(&expected(|_| '-', |_| false), &found), [""; 0]);
}
