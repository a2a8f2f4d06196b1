//! A customer as a shop's JSON has it, to the protocol and back. INVARIANT: every key is either sent, known to be the
//! shop's own, or refused by name; nothing is dropped in silence, and a flaw never repeats a value.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::client::{plain_name, reason_name};
use crate::domain::vocabulary::{Class, Field};
use crate::rpc::proto::{
    Address, CorrectRequest, EmergencyContact, ErrorReason, FieldValue, TokenizeRequest, field_result, field_value,
};

/// `{order?, customer, name?, address?, email?, phone?, emergency_contact?, payment_account?, note?}`; `name` is the
/// recipient's in an order or case and the account's in an account.
pub struct Customer {
    /// The shop's order number: the vault never learns it, results repeat it.
    pub order: Option<String>,
    /// The shop's reference of the customer.
    pub customer: Option<Zeroizing<String>>,
    pub fields: Vec<FieldValue>,
    /// The fields whose value is `null`.
    pub clear: Vec<Field>,
}

/// Why a JSON customer cannot be sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{reason}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct Flaw {
    /// The key, as `address.country`; empty when the whole is flawed.
    pub field: String,
    /// `NOT_JSON`, or the protocol's name of the reason.
    pub reason: &'static str,
}

impl Flaw {
    pub fn new(field: &str, reason: ErrorReason) -> Self {
        Self {
            field: if field.is_empty() { String::new() } else { plain_name(field).to_owned() },
            reason: reason_name(reason),
        }
    }

    fn not_json() -> Self {
        Self { field: String::new(), reason: "NOT_JSON" }
    }

    fn inside(mut self, field: Field) -> Self {
        self.field = format!("{field}.{}", self.field);
        self
    }
}

impl Customer {
    pub fn parse(text: &[u8], class: Class) -> Result<Self, Flaw> {
        let Json::Object(pairs) = serde_json::from_slice(text).map_err(|_| Flaw::not_json())? else {
            return Err(Flaw::not_json());
        };
        let mut read = Self { order: None, customer: None, fields: Vec::new(), clear: Vec::new() };
        let mut keys = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            // Two keys may name one field: `name` is `recipient_name` in an order.
            let field = field_of(&key, class);
            let known = if let Some(field) = field { field.as_str().to_owned() } else { key.clone() };
            if keys.contains(&known) {
                return Err(Flaw::new(&key, ErrorReason::Repeated));
            }
            keys.push(known);
            match (key.as_str(), field, value) {
                ("order", _, Json::Null) | ("customer", _, Json::Null) => {}
                ("order", _, value) => read.order = Some(value.text("order")?.to_string()),
                ("customer", _, value) => read.customer = Some(value.text("customer")?),
                (_, Some(field), Json::Null) => read.clear.push(field),
                (key, Some(field), value) => {
                    let value = field_value(key, field, value)?;
                    read.fields.push(FieldValue { field: i32::from(field.code()), value: Some(value) });
                }
                (key, None, _) => return Err(Flaw::new(key, ErrorReason::Unknown)),
            }
        }
        Ok(read)
    }

    /// Leaves fields out, as if the JSON did not have them.
    pub fn without(mut self, skipped: &[Field]) -> Self {
        let is_kept = |code: i32| !skipped.iter().any(|field| i32::from(field.code()) == code);
        self.fields.retain(|value| is_kept(value.field));
        self
    }

    /// The request that stores it. A `null` field is one that is not there.
    pub fn into_tokenize(self, class: Class, idempotency_key: String) -> Result<TokenizeRequest, Flaw> {
        let customer = self.customer.ok_or_else(|| Flaw::new("customer", ErrorReason::Missing))?;
        let class = i32::from(class.code());
        Ok(TokenizeRequest { idempotency_key, subject: customer.to_string(), class, fields: self.fields })
    }

    /// The request that changes a record: what is there replaces, what is `null` is dropped (RFC 7396).
    pub fn into_correct(self, token: &str, if_revision: u32, idempotency_key: String) -> Result<CorrectRequest, Flaw> {
        if self.customer.is_some() {
            // A record never changes its data subject.
            return Err(Flaw::new("customer", ErrorReason::NotCollected));
        }
        let clear = self.clear.iter().map(|field| i32::from(field.code())).collect();
        Ok(CorrectRequest { idempotency_key, token: token.to_owned(), if_revision, fields: self.fields, clear })
    }
}

fn field_of(key: &str, class: Class) -> Option<Field> {
    match (key, class) {
        ("name", Class::Account) => Some(Field::AccountName),
        ("name", Class::Order | Class::Case) => Some(Field::RecipientName),
        _ => Field::parse(key),
    }
}

fn field_value(key: &str, field: Field, value: Json) -> Result<field_value::Value, Flaw> {
    Ok(match field {
        Field::Address => field_value::Value::Address(address(value).map_err(|flaw| flaw.inside(field))?),
        Field::EmergencyContact => {
            field_value::Value::EmergencyContact(contact(value).map_err(|flaw| flaw.inside(field))?)
        }
        Field::AccountName
        | Field::RecipientName
        | Field::Phone
        | Field::Email
        | Field::PaymentAccount
        | Field::Note => field_value::Value::Text(value.text(key)?.to_string()),
    })
}

fn address(value: Json) -> Result<Address, Flaw> {
    let mut address = Address::default();
    for (key, value) in value.members(&["lines", "locality", "region", "postal_code", "country"])? {
        let place = match key.as_str() {
            "locality" => &mut address.locality,
            "region" => &mut address.region,
            "postal_code" => &mut address.postal_code,
            "country" => &mut address.country,
            _ => {
                let Json::List(lines) = value else { return Err(Flaw::new("lines", ErrorReason::WrongKind)) };
                let texts = lines.into_iter().map(|line| Ok(line.text("lines")?.to_string()));
                address.lines = texts.collect::<Result<_, Flaw>>()?;
                continue;
            }
        };
        *place = value.text(&key)?.to_string();
    }
    Ok(address)
}

fn contact(value: Json) -> Result<EmergencyContact, Flaw> {
    let mut contact = EmergencyContact::default();
    for (key, value) in value.members(&["name", "phone"])? {
        let place = if key == "name" { &mut contact.name } else { &mut contact.phone };
        *place = value.text(&key)?.to_string();
    }
    Ok(contact)
}

/// A value of a reply, as JSON of the same form.
pub fn value_to_json(value: &field_result::Value) -> Value {
    match value {
        field_result::Value::Text(text) => json!(text),
        field_result::Value::Address(address) => address_to_json(address),
        field_result::Value::EmergencyContact(contact) => json!({ "name": contact.name, "phone": contact.phone }),
    }
}

pub fn address_to_json(address: &Address) -> Value {
    json!({
        "lines": address.lines,
        "locality": address.locality,
        "region": address.region,
        "postal_code": address.postal_code,
        "country": address.country,
    })
}

/// JSON as it was sent: unlike `serde_json::Value` it keeps repeated keys, so that they can be refused, and wipes its
/// texts.
enum Json {
    Null,
    Text(Zeroizing<String>),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
    /// A number or a truth value: nothing here is one.
    Other,
}

impl Json {
    fn text(self, key: &str) -> Result<Zeroizing<String>, Flaw> {
        match self {
            Json::Text(text) => Ok(text),
            Json::Null | Json::List(_) | Json::Object(_) | Json::Other => Err(Flaw::new(key, ErrorReason::WrongKind)),
        }
    }

    /// The pairs of an object, each of them named, none of them twice; an absent and a `null` one alike are left out.
    fn members(self, named: &[&str]) -> Result<Vec<(String, Json)>, Flaw> {
        let Json::Object(mut pairs) = self else { return Err(Flaw::new("value", ErrorReason::WrongKind)) };
        for (at, (key, _)) in pairs.iter().enumerate() {
            if !named.contains(&key.as_str()) {
                return Err(Flaw::new(key, ErrorReason::Unknown));
            }
            if pairs.iter().take(at).any(|(earlier, _)| earlier == key) {
                return Err(Flaw::new(key, ErrorReason::Repeated));
            }
        }
        pairs.retain(|(_, value)| !matches!(value, Json::Null));
        Ok(pairs)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(pair) = pairs.next_entry()? {
            object.push(pair);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"order": "SO-1", "customer": "SO-c1", "name": "Ана", "address": {"lines": ["28th Street",
        "Пошта"], "locality": "L", "region": "", "postal_code": "277", "country": "AE"}, "email": "a@example.org",
        "phone": "+971 50", "emergency_contact": {"name": "N", "phone": "+1"}}"#;

    fn parse(text: &str) -> Result<Customer, Flaw> {
        Customer::parse(text.as_bytes(), Class::Order)
    }

    fn flaw(text: &str) -> String {
        parse(text).and_then(|customer| customer.into_tokenize(Class::Order, String::new())).unwrap_err().to_string()
    }

    fn codes(fields: &[FieldValue]) -> Vec<Option<Field>> {
        fields.iter().map(|value| Field::from_code(value.field as u8)).collect()
    }

    #[test]
    fn a_whole_customer_is_sent_whole() {
        let customer = parse(WHOLE).unwrap();
        assert_eq!(customer.order.as_deref(), Some("SO-1"));
        let request = customer.into_tokenize(Class::Order, "key".to_owned()).unwrap();
        assert_eq!((request.subject.as_str(), request.class, request.idempotency_key.as_str()), ("SO-c1", 1, "key"));
        let expected = [Field::RecipientName, Field::Address, Field::Email, Field::Phone, Field::EmergencyContact];
        assert_eq!(codes(&request.fields), expected.map(Some));
        assert!(matches!(&request.fields[0].value, Some(field_value::Value::Text(name)) if name == "Ана"));
        let Some(field_value::Value::Address(address)) = &request.fields[1].value else { panic!("no address") };
        let given: Value = serde_json::from_str(WHOLE).unwrap();
        assert_eq!(address_to_json(address), given["address"]);
        assert!(matches!(&request.fields[4].value, Some(field_value::Value::EmergencyContact(c)) if c.phone == "+1"));
    }

    #[test]
    fn a_field_to_skip_is_left_out() {
        let request = parse(WHOLE).unwrap().without(&[Field::EmergencyContact, Field::Phone]);
        assert_eq!(codes(&request.fields), [Field::RecipientName, Field::Address, Field::Email].map(Some));
    }

    #[test]
    fn a_name_is_the_accounts_in_an_account() {
        let account = Customer::parse(br#"{"name": "N", "payment_account": "p"}"#, Class::Account).unwrap();
        assert_eq!(codes(&account.fields), [Some(Field::AccountName), Some(Field::PaymentAccount)]);
        assert_eq!(codes(&Customer::parse(br#"{"note": "n"}"#, Class::Case).unwrap().fields), [Some(Field::Note)]);
    }

    #[test]
    fn nothing_is_dropped_in_silence_and_no_value_repeated() {
        for (text, expected) in [
            ("canary-7f3a", "NOT_JSON"),
            ("", "NOT_JSON"),
            (r#"["canary-7f3a"]"#, "NOT_JSON"),
            (r#"{"customer": "c"} canary-7f3a"#, "NOT_JSON"),
            (r#"{"customer": "c", "nickname": "canary-7f3a"}"#, "nickname: UNKNOWN"),
            (r#"{"customer": "c", "canary 7f3a": "x"}"#, "(not a plain name): UNKNOWN"),
            (r#"{"name": "canary-7f3a"}"#, "customer: MISSING"),
            (r#"{"customer": null}"#, "customer: MISSING"),
            (r#"{"customer": 73}"#, "customer: WRONG_KIND"),
            (r#"{"customer": "c", "phone": 4930123456}"#, "phone: WRONG_KIND"),
            (r#"{"customer": "c", "email": ["canary-7f3a"]}"#, "email: WRONG_KIND"),
            (r#"{"customer": "c", "address": "canary-7f3a"}"#, "address.value: WRONG_KIND"),
            (r#"{"customer": "c", "address": {"lines": "canary-7f3a"}}"#, "address.lines: WRONG_KIND"),
            (r#"{"customer": "c", "address": {"door": "canary-7f3a"}}"#, "address.door: UNKNOWN"),
            (r#"{"customer": "c", "address": {"region": "a", "region": "b"}}"#, "address.region: REPEATED"),
            (r#"{"customer": "c", "emergency_contact": {"email": "x"}}"#, "emergency_contact.email: UNKNOWN"),
            (r#"{"customer": "c", "name": "a", "name": "canary-7f3a"}"#, "name: REPEATED"),
            (r#"{"customer": "c", "name": "a", "recipient_name": "b"}"#, "recipient_name: REPEATED"),
        ] {
            assert_eq!(flaw(text), expected, "{text}");
        }
    }

    #[test]
    fn a_correction_replaces_what_is_there_and_drops_what_is_null() {
        let request =
            parse(r#"{"email": "b@example.org", "phone": null}"#).unwrap().into_correct("srt1", 3, String::new());
        let request = request.unwrap();
        assert_eq!(codes(&request.fields), [Some(Field::Email)]);
        assert_eq!((request.clear, request.if_revision), (vec![i32::from(Field::Phone.code())], 3));
        assert!(parse(WHOLE).unwrap().into_correct("srt1", 3, String::new()).is_err());
    }
}
