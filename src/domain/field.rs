//! The fields a record holds, each a type of its own. INVARIANT: a field came through its `parse` or out of the store; it is
//! wiped when dropped, and nothing prints it.

use std::fmt;

use zeroize::Zeroizing;

pub use crate::domain::field::address::{Address, RawAddress};
pub use crate::domain::field::contact::EmergencyContact;
pub use crate::domain::field::email::Email;
pub use crate::domain::field::phone::Phone;
pub use crate::domain::field::serial::{BadPattern, IdempotencyKey, Serial, SerialPattern};
pub use crate::domain::field::text::{CustomerReference, Name, Note, PaymentAccount};
use crate::domain::vocabulary::Field;

pub(in crate::domain) use crate::domain::field::card::holds_card_number;

mod address;
mod card;
mod contact;
mod digit;
mod email;
mod mask;
mod numbering;
pub mod phone;
mod serial;
mod stored;
mod text;

/// The value of one field of a record.
#[derive(Debug)]
pub enum FieldValue {
    AccountName(Name),
    RecipientName(Name),
    Address(Address),
    Phone(Phone),
    Email(Email),
    EmergencyContact(EmergencyContact),
    PaymentAccount(PaymentAccount),
    Note(Note),
}

impl FieldValue {
    pub fn field(&self) -> Field {
        match self {
            FieldValue::AccountName(_) => Field::AccountName,
            FieldValue::RecipientName(_) => Field::RecipientName,
            FieldValue::Address(_) => Field::Address,
            FieldValue::Phone(_) => Field::Phone,
            FieldValue::Email(_) => Field::Email,
            FieldValue::EmergencyContact(_) => Field::EmergencyContact,
            FieldValue::PaymentAccount(_) => Field::PaymentAccount,
            FieldValue::Note(_) => Field::Note,
        }
    }

    /// The canonical stored form, which is what gets sealed.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        stored::to_bytes(self)
    }

    /// Reads the stored form back. The rules of parsing are not asked again: they may have tightened since it was stored.
    /// `None`: the bytes are not the stored form of this field.
    pub fn from_bytes(field: Field, bytes: &[u8]) -> Option<FieldValue> {
        stored::from_bytes(field, bytes)
    }

    /// Enough to recognise and too little to use: at most four characters of the value. `None`: the field has no such form.
    pub fn masked(&self) -> Option<Zeroizing<String>> {
        match self {
            FieldValue::Phone(phone) => Some(mask::tail(phone.expose(), 3)),
            FieldValue::PaymentAccount(account) => Some(mask::tail(account.expose(), 4)),
            FieldValue::Email(email) => Some(mask::email(email.expose())),
            FieldValue::AccountName(_)
            | FieldValue::RecipientName(_)
            | FieldValue::Address(_)
            | FieldValue::EmergencyContact(_)
            | FieldValue::Note(_) => None,
        }
    }
}

/// One field was refused. Names the field and the reason, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// Where, in the request's own words: `address.lines[1]`.
    pub field: String,
    pub reason: FieldReason,
}

impl FieldError {
    pub fn new(field: &str, reason: FieldReason) -> Self {
        Self { field: field.to_owned(), reason }
    }
}

macro_rules! reasons {
    ($($reason:ident = $name:literal $sentence:literal,)*) => {
        /// Why a field was refused.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum FieldReason { $($reason,)* }

        impl FieldReason {
            pub const ALL: &[FieldReason] = &[$(FieldReason::$reason,)*];

            /// The stable name that clients may act on.
            pub fn as_str(self) -> &'static str {
                match self { $(FieldReason::$reason => $name,)* }
            }
        }

        impl fmt::Display for FieldReason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(FieldReason::$reason => $sentence,)* })
            }
        }
    };
}

reasons! {
    Missing = "MISSING" "This must be given.",
    NotCollected = "NOT_COLLECTED" "Records of this class do not hold this.",
    Unknown = "UNKNOWN" "This is none of the known values.",
    Empty = "EMPTY" "This must not be empty or blank.",
    TooShort = "TOO_SHORT" "This is shorter than allowed.",
    TooLong = "TOO_LONG" "This is longer than allowed.",
    TooMany = "TOO_MANY" "There are more of these than allowed.",
    ControlCharacter = "CONTROL_CHARACTER" "This holds a control character or a forbidden invisible one.",
    CardNumber = "CARD_NUMBER" "This seems to hold the number of a payment card, which is never stored.",
    NotAPhone = "NOT_A_PHONE" "This must be one phone number that starts with + and the country code, without extension.",
    NotAnEmail = "NOT_AN_EMAIL" "This must be one email address.",
    NotACountry = "NOT_A_COUNTRY" "This must be an ISO 3166-1 code of two capital letters.",
    NotASerial = "NOT_A_SERIAL" "This must consist of the letters A to Z in either case, digits and hyphens.",
    NotPrintableAscii = "NOT_PRINTABLE_ASCII" "This must consist of printable ASCII characters.",
    NotFindable = "NOT_FINDABLE" "Records of this class are not found by this.",
    NotAToken = "NOT_A_TOKEN" "This must be a token as the vault gave it.",
    WrongKind = "WRONG_KIND" "This is of another kind than the field holds.",
    Repeated = "REPEATED" "This is given twice.",
    NotATime = "NOT_A_TIME" "This must be a time at most 5 minutes ahead and at most a year before the record.",
    NotAWindow = "NOT_A_WINDOW" "This must be a window of at most a year that is not over, with 1 to 1000 reads.",
    NotAName = "NOT_A_NAME" "This must be a name of a-z, 0-9 and hyphens that starts with a letter.",
    NotAHash = "NOT_A_HASH" "This must be a SHA-256 hash or a request's or an approval's number, in hexadecimal digits.",
    NotAPeriod = "NOT_A_PERIOD" "This must be a time, and a period must end after it begins.",
    NotInTheLog = "NOT_IN_THE_LOG" "There is no such year, entry or size in the log, or it is kept no more.",
    RetentionOver = "RETENTION_OVER" "The record may go on, but its retention of this is over.",
    NotAPolicy = "NOT_A_POLICY" "This is no retention policy; `strongroom policy check` names the line and the reason.",
    NotACase = "NOT_A_CASE" "This must be an authority's case reference: 3 to 64 of A-Z, a-z, 0-9, space and . / - _",
    NotAShare = "NOT_A_SHARE" "This must be a share of a root key, srs1 and 75 more characters, checksum included.",
    OtherShares = "OTHER_SHARES" "This share was made for another keyring, or before the root was replaced.",
    WrongShare = "WRONG_SHARE" "This share is none of those that were handed out.",
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::field::text::canary;

    #[test]
    fn a_masked_value_shows_at_most_four_characters() {
        let phone = |raw: &str| FieldValue::Phone(Phone::parse("phone", raw.to_owned()).unwrap());
        let email = |raw: &str| FieldValue::Email(Email::parse("email", raw.to_owned()).unwrap());
        let account = |raw: &str| FieldValue::PaymentAccount(PaymentAccount::parse("a", raw.to_owned()).unwrap());
        for (value, expected) in [
            (phone("+376 312 690"), "•••690"),
            (email("chris.curtis@example.org"), "c•••@•••.org"),
            (email("济公@例子.中国"), "•••@•••.中国"),
            (email("anne@shop.photography"), "a•••@•••"),
            (account("acct_1032D82eZvKYlo2C"), "•••lo2C"),
            (account("ab"), "•••"),
            (account("abcdef"), "•••ef"),
        ] {
            assert_eq!(value.masked().unwrap().as_str(), expected);
        }
    }

    #[test]
    fn what_cannot_be_masked_is_not_shown_at_all() {
        let name = || Name::parse("n", "Anne".to_owned()).unwrap();
        assert!(FieldValue::AccountName(name()).masked().is_none());
        assert!(FieldValue::RecipientName(name()).masked().is_none());
        assert!(FieldValue::Note(Note::parse("n", "broken".to_owned()).unwrap()).masked().is_none());
    }

    #[test]
    fn debug_prints_types_and_no_value() {
        for value in canary::values() {
            let printed = format!("{value:?} {value:#?}");
            assert!(!printed.contains("canary") && !printed.contains("1234"), "{printed}");
        }
        assert_eq!(format!("{:?}", Name::parse("n", "canary".to_owned()).unwrap()), "Name");
    }

    #[test]
    fn an_error_names_the_field_and_never_the_value() {
        for (field, raw) in [("note", "canary\u{7}"), ("note", "canary 4111 1111 1111 1111")] {
            let error = Note::parse(field, raw.to_owned()).unwrap_err();
            let printed = format!("{error} {error:?}");
            assert!(printed.starts_with("note: This") && !printed.contains("canary") && !printed.contains("4111"));
        }
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = FieldReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), FieldReason::ALL.len());
    }
}
