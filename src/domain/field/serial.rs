//! Names that machines and offices made: a parcel's serial, a request's idempotency key, a case's number. INVARIANT: they are short and of a few
//! characters; what a machine was told to put in them is not known, so they are kept like personal data.

use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use zeroize::Zeroizing;

use crate::domain::field::card::holds_card_number;
use crate::domain::field::text::secret_text;
use crate::domain::field::{FieldError, FieldReason};

secret_text! {
    /// A parcel's logistics number: 4 to 40 of letters, digits and hyphens, kept as given.
    Serial;
    /// What makes a repeated request one: 1 to 128 printable ASCII characters.
    IdempotencyKey;
    /// What a court or an authority calls its case: 1 to 64 of letters, digits, spaces and `-./_:`.
    CaseReference;
}

impl Serial {
    /// A number that looks like a payment card's is refused, unless it has the form of its carrier's numbers.
    pub fn parse(field: &str, raw: String, pattern: Option<&SerialPattern>) -> Result<Self, FieldError> {
        let raw = Zeroizing::new(raw);
        let is_of_the_grammar = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let refused = |reason| Err(FieldError::new(field, reason));
        match raw.len() {
            0 => refused(FieldReason::Empty),
            _ if !raw.bytes().all(is_of_the_grammar) => refused(FieldReason::NotASerial),
            1..=3 => refused(FieldReason::TooShort),
            4..=40 if holds_card_number(&raw) && !pattern.is_some_and(|pattern| pattern.matches(&raw)) => {
                refused(FieldReason::CardNumber)
            }
            4..=40 => Ok(Self(raw)),
            _ => refused(FieldReason::TooLong),
        }
    }
}

impl IdempotencyKey {
    pub fn parse(field: &str, raw: String) -> Result<Self, FieldError> {
        let raw = Zeroizing::new(raw);
        let refused = |reason| Err(FieldError::new(field, reason));
        match raw.len() {
            0 => refused(FieldReason::Empty),
            1..=128 if raw.bytes().all(|byte| matches!(byte, b' '..=b'~')) => Ok(Self(raw)),
            1..=128 => refused(FieldReason::NotPrintableAscii),
            _ => refused(FieldReason::TooLong),
        }
    }
}

impl CaseReference {
    pub fn parse(field: &str, raw: String) -> Result<Self, FieldError> {
        let raw = Zeroizing::new(raw);
        let is_of_the_grammar = |byte: u8| byte.is_ascii_alphanumeric() || b" -./_:".contains(&byte);
        let refused = |reason| Err(FieldError::new(field, reason));
        match raw.len() {
            _ if raw.trim().is_empty() => refused(FieldReason::Empty),
            1..=64 if !raw.bytes().all(is_of_the_grammar) => refused(FieldReason::NotACase),
            1..=64 if holds_card_number(&raw) => refused(FieldReason::CardNumber),
            1..=64 => Ok(Self(raw)),
            _ => refused(FieldReason::TooLong),
        }
    }
}

/// The form of one carrier's serials: a regular expression that the whole serial must match.
#[derive(Clone, Debug)]
pub struct SerialPattern(Regex);

impl SerialPattern {
    pub fn matches(&self, serial: &str) -> bool {
        self.0.is_match(serial)
    }
}

impl FromStr for SerialPattern {
    type Err = BadPattern;

    fn from_str(raw: &str) -> Result<Self, BadPattern> {
        // Alone first, so that no unbalanced bracket can step out of the anchors.
        Regex::new(raw).map_err(Box::new)?;
        let anchored = RegexBuilder::new(&format!(r"\A(?:{raw})\z")).size_limit(1 << 18).build();
        Ok(Self(anchored.map_err(Box::new)?))
    }
}

/// The text of a configuration is no regular expression, or one too large.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("a serial pattern must be a regular expression of moderate size: {0}")]
pub struct BadPattern(#[from] Box<regex::Error>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_kept_as_given() {
        for raw in ["SR-2026-000001", "RA123456785DE", "abcd", "JJD000390007827458211", "00340434161094042557"] {
            assert_eq!(Serial::parse("serial", raw.to_owned(), None).unwrap().expose(), raw);
        }
    }

    #[test]
    fn a_serial_outside_the_grammar_is_refused() {
        for (raw, reason) in [
            ("", FieldReason::Empty),
            ("abc", FieldReason::TooShort),
            (&"a".repeat(41), FieldReason::TooLong),
            ("SR 2026", FieldReason::NotASerial),
            ("SR_2026", FieldReason::NotASerial),
            ("SR-2026\n", FieldReason::NotASerial),
            ("ＳＲ２０２６", FieldReason::NotASerial),
            ("4111111111111111", FieldReason::CardNumber),
            ("SR-4111-1111-1111-1111", FieldReason::CardNumber),
        ] {
            let error = Serial::parse("serial", raw.to_owned(), None).map(drop).unwrap_err();
            assert_eq!(error, FieldError::new("serial", reason), "{raw}");
        }
    }

    #[test]
    fn a_card_like_serial_passes_only_where_the_carriers_pattern_matches_it_whole() {
        let parse =
            |raw: &str, pattern: &str| Serial::parse("s", raw.to_owned(), Some(&pattern.parse().unwrap())).is_ok();
        assert!(parse("4111111111111111", "[0-9]{16}"));
        assert!(parse("4111111111111111", "x|[0-9]{16}"));
        assert!(!parse("4111111111111111", "[0-9]{15}"));
        assert!(!parse("SR-4111111111111111", "[0-9]{16}"));
        assert!(!parse("4111111111111111", "4|1"));
        assert!(parse("SR-2026-1", "[0-9]{16}"));
    }

    #[test]
    fn a_case_reference_is_an_offices_number_and_no_sentence() {
        let parse = |raw: &str| CaseReference::parse("case", raw.to_owned()).map(drop).map_err(|error| error.reason);
        for raw in ["12 O 345/26", "2:26-cv-00417", "AZ_7.4"] {
            assert_eq!(parse(raw), Ok(()), "{raw}");
        }
        for (raw, reason) in [
            ("", FieldReason::Empty),
            ("  ", FieldReason::Empty),
            ("Müller", FieldReason::NotACase),
            ("a@b.example", FieldReason::NotACase),
            ("12\n", FieldReason::NotACase),
            ("4111 1111 1111 1111", FieldReason::CardNumber),
            (&"1/".repeat(33), FieldReason::TooLong),
        ] {
            assert_eq!(parse(raw), Err(reason), "{raw}");
        }
    }

    #[test]
    fn a_bad_pattern_is_refused_with_its_reason() {
        for bad in ["(", "a)|(b", "[z-a]", "(a{1000}){1000}"] {
            let error = bad.parse::<SerialPattern>().unwrap_err().to_string();
            assert!(error.starts_with("a serial pattern must be"), "{error}");
        }
    }

    #[test]
    fn an_idempotency_key_is_printable() {
        let parse = |raw: &str| IdempotencyKey::parse("key", raw.to_owned()).map(drop).map_err(|error| error.reason);
        assert_eq!(parse("order 17/a"), Ok(()));
        assert_eq!(parse(""), Err(FieldReason::Empty));
        assert_eq!(parse("é"), Err(FieldReason::NotPrintableAscii));
        assert_eq!(parse("a\u{7f}"), Err(FieldReason::NotPrintableAscii));
        assert_eq!(parse(&"a".repeat(129)), Err(FieldReason::TooLong));
    }
}
