//! The shop's own file of orders, read apart from the vault's code. INVARIANT: a value here is the file's, to the byte: what
//! comes back out of the vault is compared with it, and every file is searched for it, so all of them stay in memory.

use std::path::Path;

use serde::Deserialize;

use crate::cli::Failure;
use crate::rpc::proto::field_value::Value;
use crate::rpc::proto::{self, Class, Field, FieldValue, TokenizeRequest};

/// Nobody: generated names, public landmarks, example domains, numbers that the plans keep for examples.
const SAMPLE: &str = include_str!("sample.jsonl");

/// Two people more, whose data is still wanted at the end: an account in use, and an order of the last day.
const STILL_WANTED: &str = r#"
{"order": "control-1", "customer": "control-account-1", "name": "Wilhelmina Ottokar", "address": {"lines": ["Unter den Linden 77", "Hofeingang Mitte"], "locality": "Berlin-Mitte", "region": "Land Berlin", "postal_code": "10117", "country": "DE"}, "email": "wilhelmina.ottokar@example.org", "phone": "+49 30 23125042"}
{"order": "control-2", "customer": "control-order-2", "name": "Bartholomew Quist", "address": {"lines": ["Raadhuspladsen 1"], "locality": "Kobenhavn V", "region": "Hovedstaden", "postal_code": "DK-1599", "country": "DK"}, "email": "bartholomew.quist@example.org", "phone": "+45 32 12 34 56"}
"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The shop's business; the vault never needs it.
    #[serde(rename = "order")]
    _order: Option<String>,
    pub customer: String,
    pub name: String,
    pub address: Address,
    pub email: Option<String>,
    pub phone: Option<String>,
    pub emergency_contact: Option<Contact>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    pub lines: Vec<String>,
    #[serde(default)]
    pub locality: String,
    #[serde(default)]
    pub region: String,
    #[serde(default)]
    pub postal_code: String,
    pub country: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    pub name: String,
    pub phone: String,
}

/// The file's orders, or the bundled sample's.
pub fn read(path: Option<&Path>) -> Result<Vec<Order>, Failure> {
    let text = match path {
        Some(path) => std::fs::read_to_string(path).map_err(|error| Failure::io(path, &error))?,
        None => SAMPLE.to_owned(),
    };
    let name = path.map_or_else(|| "the bundled sample".to_owned(), |path| path.display().to_string());
    let orders = parse(&text).map_err(|line| {
        let help = "is no order: {\"customer\": …, \"name\": …, \"address\": {\"lines\": […], …, \"country\": …}, …}";
        Failure::usage(format!("{name}, line {line}: {help}"))
    })?;
    if orders.is_empty() { Err(Failure::usage(format!("{name} holds no orders"))) } else { Ok(orders) }
}

/// The account and the order that are still wanted at the end.
pub fn still_wanted() -> Result<Vec<Order>, Failure> {
    parse(STILL_WANTED).map_err(|_| Failure::local("the built-in orders cannot be read"))
}

/// One order a line; an error is the number of the first line that is none. What the parser says could quote a value.
fn parse(text: &str) -> Result<Vec<Order>, usize> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| serde_json::from_str(line).map_err(|_| number + 1)).collect()
}

impl Order {
    /// What the shop sends: the fields that the kitchenware policy lets an order hold.
    pub fn request(&self, idempotency_key: String) -> TokenizeRequest {
        let texts = [
            (Field::RecipientName, Some(&self.name)),
            (Field::Phone, self.phone.as_ref()),
            (Field::Email, self.email.as_ref()),
        ];
        let texts = texts.into_iter().filter_map(|(field, text)| Some(value(field, Value::Text(text?.clone()))));
        let address = value(Field::Address, Value::Address(self.address.on_the_wire()));
        TokenizeRequest {
            idempotency_key,
            subject: self.customer.clone(),
            class: Class::Order.into(),
            fields: texts.chain([address]).collect(),
        }
    }

    /// The same person's account.
    pub fn account_request(&self, idempotency_key: String) -> TokenizeRequest {
        let mut request = self.request(idempotency_key);
        request.class = Class::Account.into();
        for field in &mut request.fields {
            if field.field == i32::from(Field::RecipientName) {
                field.field = Field::AccountName.into();
            }
        }
        request
    }

    /// What the shop must not send: the order with its emergency contact.
    pub fn request_with_contact(&self, idempotency_key: String) -> Option<TokenizeRequest> {
        let contact = self.emergency_contact.as_ref()?;
        let contact = proto::EmergencyContact { name: contact.name.clone(), phone: contact.phone.clone() };
        let mut request = self.request(idempotency_key);
        request.fields.push(value(Field::EmergencyContact, Value::EmergencyContact(contact)));
        Some(request)
    }

    /// Every value that the vault is to keep.
    pub fn stored_values(&self) -> impl Iterator<Item = &str> {
        let address = &self.address;
        let texts = [&self.customer, &self.name, &address.locality, &address.region, &address.postal_code];
        let texts = texts.into_iter().chain(&address.lines).chain(&self.email).chain(&self.phone);
        texts.map(String::as_str)
    }

    /// Every value that never may reach it.
    pub fn unsent_values(&self) -> impl Iterator<Item = &str> {
        self.emergency_contact.iter().flat_map(|contact| [contact.name.as_str(), contact.phone.as_str()])
    }

    /// The phone as it comes back: E.164 is a plus sign and the digits.
    pub fn phone_e164(&self) -> Option<String> {
        let digits = |phone: &String| phone.chars().filter(char::is_ascii_digit).collect::<String>();
        self.phone.as_ref().map(|phone| format!("+{}", digits(phone)))
    }
}

impl Address {
    pub fn on_the_wire(&self) -> proto::Address {
        proto::Address {
            lines: self.lines.clone(),
            locality: self.locality.clone(),
            region: self.region.clone(),
            postal_code: self.postal_code.clone(),
            country: self.country.clone(),
        }
    }
}

fn value(field: Field, value: Value) -> FieldValue {
    FieldValue { field: field.into(), value: Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_sample_is_of_many_countries_and_some_orders_have_an_emergency_contact() {
        let orders = read(None).unwrap();
        let countries: BTreeSet<_> = orders.iter().map(|order| order.address.country.as_str()).collect();
        assert!(orders.len() >= 50 && countries.len() >= 20);
        assert_eq!(orders.iter().filter(|order| order.emergency_contact.is_some()).count(), 8);
        assert_eq!(still_wanted().unwrap().len(), 2);
    }

    #[test]
    fn a_line_that_is_no_order_is_named_and_not_quoted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\n{\"customer\": \"canary-7f3a\"}\n").unwrap();
        let message = read(Some(file.path())).err().unwrap().message;
        assert!(message.contains("line 2") && !message.contains("canary"), "{message}");
    }
}
