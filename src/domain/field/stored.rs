//! The stored form of a field: a format byte, then each part behind its length (u32, big-endian). INVARIANT: every value
//! has one stored form and every stored form one value; reading checks the structure and no rule of parsing.

use zeroize::Zeroizing;

use crate::domain::field::{Address, Email, EmergencyContact, FieldValue, Name, Note, PaymentAccount, Phone};
use crate::domain::vocabulary::Field;

const FORMAT: u8 = 1;
const LENGTH_BYTES: usize = size_of::<u32>();

pub fn to_bytes(value: &FieldValue) -> Zeroizing<Vec<u8>> {
    match value {
        FieldValue::AccountName(name) | FieldValue::RecipientName(name) => write(&[name.expose()]),
        FieldValue::Phone(phone) => write(&[phone.expose()]),
        FieldValue::Email(email) => write(&[email.expose()]),
        FieldValue::EmergencyContact(contact) => write(&[contact.name().expose(), contact.phone().expose()]),
        FieldValue::PaymentAccount(account) => write(&[account.expose()]),
        FieldValue::Note(note) => write(&[note.expose()]),
        FieldValue::Address(address) => {
            let mut parts = vec![address.country(), address.postal_code(), address.region(), address.locality()];
            parts.extend(address.lines());
            write(&parts)
        }
    }
}

pub fn from_bytes(field: Field, bytes: &[u8]) -> Option<FieldValue> {
    let mut parts = Parts::of(bytes)?;
    let value = match field {
        Field::AccountName => FieldValue::AccountName(Name::from_store(parts.next()?)),
        Field::RecipientName => FieldValue::RecipientName(Name::from_store(parts.next()?)),
        Field::Phone => FieldValue::Phone(Phone::from_store(parts.next()?)),
        Field::Email => FieldValue::Email(Email::from_store(parts.next()?)),
        Field::EmergencyContact => {
            let (name, phone) = (Name::from_store(parts.next()?), Phone::from_store(parts.next()?));
            FieldValue::EmergencyContact(EmergencyContact::from_store(name, phone))
        }
        Field::PaymentAccount => FieldValue::PaymentAccount(PaymentAccount::from_store(parts.next()?)),
        Field::Note => FieldValue::Note(Note::from_store(parts.next()?)),
        Field::Address => FieldValue::Address(Address {
            country: parts.next()?,
            postal_code: parts.next()?,
            region: parts.next()?,
            locality: parts.next()?,
            // None: they went before the rest.
            lines: parts.by_ref().collect(),
        }),
    };
    parts.0.is_empty().then_some(value)
}

fn write(parts: &[&str]) -> Zeroizing<Vec<u8>> {
    // SECURITY: sized once, so that growing leaves no copy behind.
    let size = 1 + parts.iter().map(|part| LENGTH_BYTES + part.len()).sum::<usize>();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    bytes.push(FORMAT);
    for part in parts {
        bytes.extend((part.len() as u32).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

/// The parts not yet read. What is left when a part is malformed stays, so that a reader finds it has not reached the end.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let (format, parts) = bytes.split_first()?;
        (*format == FORMAT).then_some(Self(parts))
    }
}

impl Iterator for Parts<'_> {
    type Item = Zeroizing<String>;

    fn next(&mut self) -> Option<Zeroizing<String>> {
        let (length, rest) = self.0.split_first_chunk::<LENGTH_BYTES>()?;
        let (part, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let text = std::str::from_utf8(part).ok()?;
        self.0 = rest;
        Some(Zeroizing::new(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::field::text::canary;
    use proptest::prelude::*;

    #[test]
    fn the_stored_form_is_the_documented_one() {
        let name = FieldValue::AccountName(Name::parse("n", "Zoë".to_owned()).unwrap());
        assert_eq!(name.to_bytes().as_slice(), b"\x01\0\0\0\x04Zo\xc3\xab");
    }

    #[test]
    fn every_field_reads_back() {
        let values = canary::values();
        assert_eq!(values.iter().map(FieldValue::field).collect::<Vec<_>>(), Field::ALL);
        for value in values {
            let bytes = value.to_bytes();
            let read = FieldValue::from_bytes(value.field(), &bytes).unwrap();
            assert_eq!((read.field(), read.to_bytes()), (value.field(), bytes));
        }
    }

    #[test]
    fn a_damaged_stored_form_is_no_value() {
        for value in canary::values() {
            let bytes = value.to_bytes();
            let read = |bytes: &[u8]| FieldValue::from_bytes(value.field(), bytes).map(drop);
            // An address cut between two lines is an address of fewer lines; the seal around it finds that.
            let cut = if value.field() == Field::Address { 1..30 } else { 0..bytes.len() };
            for end in cut {
                assert!(read(&bytes[..end]).is_none(), "{} cut at {end}", value.field());
            }
            assert!(read(&[bytes.as_slice(), b"x"].concat()).is_none(), "{} and more", value.field());
            assert!(read(&[b"\x02", &bytes[1..]].concat()).is_none(), "{} of another format", value.field());
            assert!(read(&[&bytes[..5], b"\xff", &bytes[6..]].concat()).is_none(), "{} not UTF-8", value.field());
        }
    }

    #[test]
    fn what_the_rules_refuse_today_still_reads() {
        let bytes = write(&["4111111111111111\n"]);
        assert!(matches!(from_bytes(Field::Note, &bytes), Some(FieldValue::Note(note)) if note.expose().len() == 17));
    }

    proptest! {
        #[test]
        fn any_bytes_read_to_what_writes_them_or_to_nothing(code in 1..=8_u8, bytes: Vec<u8>, text in "\\PC{0,9}") {
            let field = Field::from_code(code).unwrap();
            for bytes in [bytes, write(&[text.as_str(); 5]).to_vec(), write(&[&text]).to_vec()] {
                if let Some(value) = from_bytes(field, &bytes) {
                    let written = to_bytes(&value);
                    prop_assert_eq!(written.as_slice(), bytes.as_slice());
                }
            }
        }
    }
}
