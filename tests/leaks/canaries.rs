//! Values that occur nowhere else, and the records and flawed fields made of them.

use strongroom::rpc::proto::field_value::Value;
use strongroom::rpc::proto::{Address, Class, EmergencyContact, Field, FieldValue, TokenizeRequest};

/// What was sent so far.
#[derive(Default)]
pub struct Canaries {
    /// Every text, accepted or not.
    pub sent: Vec<String>,
    /// Those that living records and grants hold in the end.
    pub kept: Vec<String>,
    /// Every token given out, and some that never were.
    pub tokens: Vec<String>,
    phones: u32,
}

/// The rules under which the story plays: every field is collected by some class, and refused by another.
pub const POLICY: &str = r#"
id = "canary"
zone = "UTC"
[class.order]
fields = ["recipient_name", "address", "phone", "email", "payment_account", "emergency_contact"]
action = "desensitize"
cap = "P1Y"
[class.account]
fields = ["account_name", "address", "phone", "email", "payment_account"]
findable = ["email", "phone", "customer_reference"]
action = "purge"
cap = "P1Y"
[class.case]
fields = ["note"]
action = "purge"
cap = "P1Y"
"#;

pub fn collected(class: Class) -> &'static [Field] {
    use Field as F;
    match class {
        Class::Unspecified => &[],
        Class::Order => &[F::RecipientName, F::Address, F::Phone, F::Email, F::PaymentAccount, F::EmergencyContact],
        Class::Account => &[F::AccountName, F::Address, F::Phone, F::Email, F::PaymentAccount],
        Class::Case => &[F::Note],
    }
}

pub const CLASSES: [Class; 3] = [Class::Order, Class::Account, Class::Case];

pub const FIELDS: [Field; 8] = [
    Field::AccountName,
    Field::RecipientName,
    Field::Address,
    Field::Phone,
    Field::Email,
    Field::EmergencyContact,
    Field::PaymentAccount,
    Field::Note,
];

/// A card number of the networks' own test range.
const CARD: &str = "4111 1111 1111 1111";

/// What makes a text no field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    TooLong,
    Control,
    Card,
}

impl Canaries {
    /// A text that fits most fields.
    pub fn word(&mut self, what: &str) -> String {
        let word = format!("canary-7f3a-{what}-{:04}", self.sent.len());
        self.sent.push(word.clone());
        word
    }

    /// A short text that fits a postal code.
    pub fn code(&mut self) -> String {
        let code = format!("CNRY7{:04}", self.sent.len());
        self.sent.push(code.clone());
        code
    }

    /// A number that is valid and nobody's, as people write it, and as it is stored.
    pub fn phone(&mut self) -> (String, String) {
        self.phones += 1;
        // From 100 on: the development vault's example customer has one of the first.
        let last = 99 + self.phones;
        assert!(last < 1_000);
        let (written, stored) = (format!("+49 30 23125{last}"), format!("+493023125{last}"));
        self.sent.extend([written.clone(), stored.clone()]);
        (written, stored)
    }

    pub fn email(&mut self) -> String {
        let address = format!("{}@example.org", self.word("email"));
        self.sent.push(address.clone());
        address
    }

    pub fn address(&mut self) -> Address {
        Address {
            lines: vec![self.word("line-1"), self.word("line-2")],
            locality: self.word("town"),
            region: self.code(),
            postal_code: self.code(),
            country: "DE".to_owned(),
        }
    }

    /// A value of the field, and the texts that are stored of it.
    pub fn value(&mut self, field: Field) -> (FieldValue, Vec<String>) {
        let (value, stored) = match field {
            Field::Address => {
                let address = self.address();
                let parts = [&address.locality, &address.region, &address.postal_code];
                let stored = address.lines.iter().chain(parts).cloned().collect();
                (Value::Address(address), stored)
            }
            Field::EmergencyContact => {
                let (name, (written, stored)) = (self.word("contact"), self.phone());
                let contact = EmergencyContact { name: name.clone(), phone: written };
                (Value::EmergencyContact(contact), vec![name, stored])
            }
            Field::Phone => {
                let (written, stored) = self.phone();
                (Value::Text(written), vec![stored])
            }
            Field::Email => {
                let address = self.email();
                (Value::Text(address.clone()), vec![address])
            }
            Field::Unspecified | Field::AccountName | Field::RecipientName | Field::PaymentAccount | Field::Note => {
                let word = self.word("text");
                (Value::Text(word.clone()), vec![word])
            }
        };
        (FieldValue { field: field.into(), value: Some(value) }, stored)
    }

    /// A request for a record with every field of its class, and the texts that are stored of it.
    pub fn record(&mut self, class: Class) -> (TokenizeRequest, Vec<String>) {
        let (idempotency_key, subject) = (self.word("key"), self.email());
        let (mut fields, mut stored) = (Vec::new(), vec![subject.clone()]);
        for field in collected(class) {
            let (value, texts) = self.value(*field);
            fields.push(value);
            stored.extend(texts);
        }
        (TokenizeRequest { idempotency_key, subject, class: class.into(), fields }, stored)
    }

    pub fn flawed_text(&mut self, flaw: Flaw) -> String {
        let word = self.word("flawed");
        match flaw {
            Flaw::TooLong => word + &"x".repeat(4_000),
            Flaw::Control => word + "\u{7}",
            Flaw::Card => {
                if !self.sent.iter().any(|sent| sent == CARD) {
                    self.sent.push(CARD.to_owned());
                }
                format!("{word} {CARD}")
            }
        }
    }

    /// The field's value with one part flawed, for each of its parts.
    pub fn flawed(&mut self, field: Field, flaw: Flaw) -> Vec<FieldValue> {
        let parts = match field {
            Field::Address => 5,
            Field::EmergencyContact => 2,
            _ => 1,
        };
        (0..parts).map(|part| self.flawed_part(field, part, flaw)).collect()
    }

    fn flawed_part(&mut self, field: Field, part: usize, flaw: Flaw) -> FieldValue {
        let (mut value, _) = self.value(field);
        let flawed = self.flawed_text(flaw);
        match value.value.as_mut().unwrap() {
            Value::Text(text) => *text = flawed,
            Value::EmergencyContact(contact) => *[&mut contact.name, &mut contact.phone][part] = flawed,
            Value::Address(address) => {
                let Address { lines, locality, region, postal_code, country } = address;
                *[&mut lines[1], locality, region, postal_code, country][part] = flawed;
            }
        }
        value
    }
}
