//! Text that people wrote, in any script. INVARIANT: it is in Unicode's normal form C, within its limits, without control
//! characters and without the number of a payment card; text that came that way is kept to the byte.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::CodePointSetData;
use icu_properties::props::{DefaultIgnorableCodePoint, NoncharacterCodePoint};
use zeroize::Zeroizing;

use crate::domain::field::card::holds_card_number;
use crate::domain::field::{FieldError, FieldReason};

/// Defines types for text that has one door (`expose`), is wiped when dropped, and prints as its type's name.
macro_rules! secret_text {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        pub struct $name(zeroize::Zeroizing<String>);

        impl $name {
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
pub(super) use secret_text;

/// What may come back from the store without being parsed anew.
macro_rules! storable {
    ($($name:ident)*) => {$(
        impl $name {
            pub(super) fn from_store(text: zeroize::Zeroizing<String>) -> Self {
                Self(text)
            }
        }
    )*};
}
pub(super) use storable;

secret_text! {
    /// A person's name, of an account or on a parcel: 1 to 200 characters.
    Name;
    /// What a customer said in an after-sales case: 1 to 4,000 characters, line breaks and tabs among them.
    Note;
    /// The public id of an account with a payment provider: 1 to 128 characters.
    PaymentAccount;
    /// The shop's own name for a data subject, which may be an email address: 1 to 128 characters.
    CustomerReference;
}
storable!(Name Note PaymentAccount);

impl Name {
    pub fn parse(field: &str, raw: String) -> Result<Self, FieldError> {
        Rules::line(1, 200).parse(field, raw).map(Self)
    }
}

impl Note {
    pub fn parse(field: &str, raw: String) -> Result<Self, FieldError> {
        Rules { least: 1, most: 4_000, breaks: true }.parse(field, raw).map(Self)
    }
}

impl PaymentAccount {
    pub fn parse(field: &str, raw: String) -> Result<Self, FieldError> {
        Rules::line(1, 128).parse(field, raw).map(Self)
    }
}

impl CustomerReference {
    pub fn parse(field: &str, raw: String) -> Result<Self, FieldError> {
        Rules::line(1, 128).parse(field, raw).map(Self)
    }
}

/// What a text may be.
pub(super) struct Rules {
    /// 0: may be empty.
    least: usize,
    /// In characters, which is at most four times as much in bytes.
    most: usize,
    /// May hold line breaks and tabs.
    breaks: bool,
}

impl Rules {
    pub(super) const fn line(least: usize, most: usize) -> Self {
        Self { least, most, breaks: false }
    }

    pub(super) fn parse(&self, field: &str, raw: String) -> Result<Zeroizing<String>, FieldError> {
        self.refusal_or_text(Zeroizing::new(raw)).map_err(|reason| FieldError::new(field, reason))
    }

    fn refusal_or_text(&self, raw: Zeroizing<String>) -> Result<Zeroizing<String>, FieldReason> {
        // Decomposed text may shrink below the limit, but not by this much: do no work on what cannot fit.
        if raw.len() > 16 * self.most {
            return Err(FieldReason::TooLong);
        }
        let text = composed(raw);
        if text.chars().any(|c| is_forbidden(c) && !(self.breaks && matches!(c, '\n' | '\t'))) {
            return Err(FieldReason::ControlCharacter);
        }
        if self.least > 0 && is_blank(&text) {
            return Err(FieldReason::Empty);
        }
        match text.chars().count() {
            length if length < self.least => Err(FieldReason::TooShort),
            length if length > self.most => Err(FieldReason::TooLong),
            _ if holds_card_number(&text) => Err(FieldReason::CardNumber),
            _ => Ok(text),
        }
    }
}

/// `raw` in normal form C. Text that is in it already, as nearly all is, moves through untouched.
fn composed(raw: Zeroizing<String>) -> Zeroizing<String> {
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    let (_, rest) = nfc.split_normalized(&raw);
    if rest.is_empty() {
        return raw;
    }
    // SECURITY: NFC makes UTF-8 at most three times as long (UAX #15, §11), so the buffer never moves and leaves no copy.
    let mut text = Zeroizing::new(String::with_capacity(3 * raw.len()));
    match nfc.normalize_to(&raw, &mut *text) {
        Ok(()) => text,
        // Writing to a string does not fail; if it did, the text as given would be the truth.
        Err(std::fmt::Error) => raw,
    }
}

/// Controls, line and paragraph separators, noncharacters, and what can reorder the text around it on a label. The bidi
/// marks and the joiners stay: Arabic, Hebrew, Persian and Indic text needs them.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
        || CodePointSetData::new::<NoncharacterCodePoint>().contains(c)
}

/// Nothing in it would leave ink.
fn is_blank(text: &str) -> bool {
    let invisible = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    text.chars().all(|c| c.is_whitespace() || invisible.contains(c))
}

#[cfg(test)]
pub(super) mod canary {
    use crate::domain::field::*;

    /// One of each field, every part of it a canary.
    pub fn values() -> Vec<FieldValue> {
        let name = || Name::parse("name", "canary-name".to_owned()).unwrap();
        let lines = vec!["canary-line 1".to_owned(), "canary-line 2".to_owned()];
        let [locality, region, postal_code] = ["canary-town", "", "canary-12"].map(str::to_owned);
        let address = RawAddress { lines, locality, region, postal_code, country: "DE".to_owned() };
        let phone = "+376 312 690".to_owned();
        vec![
            FieldValue::AccountName(name()),
            FieldValue::RecipientName(name()),
            FieldValue::Address(Address::parse("address", address).unwrap()),
            FieldValue::Phone(Phone::parse("phone", phone.clone()).unwrap()),
            FieldValue::Email(Email::parse("email", "canary@example.org".to_owned()).unwrap()),
            FieldValue::EmergencyContact(EmergencyContact::parse("e", "canary".to_owned(), phone).unwrap()),
            FieldValue::PaymentAccount(PaymentAccount::parse("a", "canary-account".to_owned()).unwrap()),
            FieldValue::Note(Note::parse("note", "canary\n\tnote".to_owned()).unwrap()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(raw: &str) -> Result<String, FieldReason> {
        Name::parse("name", raw.to_owned()).map(|name| name.expose().to_owned()).map_err(|error| error.reason)
    }

    #[test]
    fn names_of_the_world_are_kept_to_the_byte() {
        for raw in [
            "Chris Curtis",
            "O’Brien-Smith, Jr.",
            "أبو ظبي",
            "\u{200F}שרה\u{200E}",
            "می‌خواهم",
            "क्‍ष",
            "山田 太郎",
            "Nguyễn Thị Ánh",
            "𠮷野家",
            "ᠮᠣᠩᠭᠣᠯ",
            "\u{E000}",
            "👩‍👧",
            " as given ",
            "X",
        ] {
            assert_eq!(name(raw).as_deref(), Ok(raw));
        }
    }

    #[test]
    fn decomposed_text_is_composed() {
        assert_eq!(name("Jose\u{301}").as_deref(), Ok("José"));
        assert_eq!(name(&"\u{1112}\u{1161}\u{11AB}".repeat(200)), Ok("한".repeat(200)));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for (raw, reason) in [
            ("", FieldReason::Empty),
            (" \u{A0}\u{3000}", FieldReason::Empty),
            ("\u{200E}\u{200D}", FieldReason::Empty),
            ("a\nb", FieldReason::ControlCharacter),
            ("a\0", FieldReason::ControlCharacter),
            ("a\u{85}", FieldReason::ControlCharacter),
            ("a\u{2028}b", FieldReason::ControlCharacter),
            ("a\u{202E}b", FieldReason::ControlCharacter),
            ("a\u{2066}b", FieldReason::ControlCharacter),
            ("\u{FEFF}a", FieldReason::ControlCharacter),
            ("a\u{FFFE}", FieldReason::ControlCharacter),
            ("a\u{FDD0}", FieldReason::ControlCharacter),
            ("a\u{10FFFF}", FieldReason::ControlCharacter),
            ("Anne 4111 1111 1111 1111", FieldReason::CardNumber),
            (&"é".repeat(201), FieldReason::TooLong),
            (&"a".repeat(1_000_000), FieldReason::TooLong),
        ] {
            assert_eq!(name(raw), Err(reason), "{:?}", raw.chars().take(10).collect::<String>());
        }
        assert_eq!(name(&"𠮷".repeat(200)), Ok("𠮷".repeat(200)));
    }

    #[test]
    fn only_a_note_holds_lines() {
        let note = |raw: &str| Note::parse("note", raw.to_owned()).map(drop).map_err(|error| error.reason);
        assert_eq!(note("one\n\ttwo"), Ok(()));
        assert_eq!(note("one\r\ntwo"), Err(FieldReason::ControlCharacter));
        assert_eq!(note("\n\t"), Err(FieldReason::Empty));
        assert_eq!(note(&"x".repeat(4_001)), Err(FieldReason::TooLong));
    }

    proptest! {
        #[test]
        fn what_was_accepted_once_is_kept_to_the_byte(raw in "\\PC{1,60}") {
            if let Ok(text) = name(&raw) {
                prop_assert_eq!(name(&text), Ok(text));
            }
        }
    }
}
