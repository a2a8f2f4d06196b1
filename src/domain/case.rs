//! An authority's own reference of a case. INVARIANT: a short code of few characters, without the number of a payment card; it
//! stands in approvals, so it is nothing to keep secret.

use std::fmt;

use crate::domain::field::{FieldError, FieldReason, holds_card_number};

/// 3 to 64 of A-Z, a-z, 0-9, space, `.`, `/`, `-` and `_`, with no space at an end: `4 Js 123/26`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaseReference(String);

impl CaseReference {
    pub fn parse(field: &str, raw: String) -> Result<Self, FieldError> {
        let is_of_the_grammar = |byte: u8| byte.is_ascii_alphanumeric() || b" ./-_".contains(&byte);
        let refused = |reason| Err(FieldError::new(field, reason));
        match raw.len() {
            0 => refused(FieldReason::Missing),
            1..=2 => refused(FieldReason::TooShort),
            3..=64 if !raw.bytes().all(is_of_the_grammar) || raw.trim() != raw => refused(FieldReason::NotACase),
            3..=64 if holds_card_number(&raw) => refused(FieldReason::CardNumber),
            3..=64 => Ok(Self(raw)),
            _ => refused(FieldReason::TooLong),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CaseReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_code_of_few_characters_and_no_card_number() {
        for good in ["4 Js 123/26", "A-1", "AZ_7.2026", &"a".repeat(64)] {
            assert_eq!(CaseReference::parse("case", good.to_owned()).unwrap().as_str(), good);
        }
        for (bad, reason) in [
            ("", FieldReason::Missing),
            ("ab", FieldReason::TooShort),
            (&"a".repeat(65), FieldReason::TooLong),
            ("anna@example.org", FieldReason::NotACase),
            (" 4 Js 123", FieldReason::NotACase),
            ("4 Js\n123", FieldReason::NotACase),
            ("Jäger 12", FieldReason::NotACase),
            ("4111 1111 1111 1111", FieldReason::CardNumber),
        ] {
            let error = CaseReference::parse("case", bad.to_owned()).unwrap_err();
            assert_eq!((error.field.as_str(), error.reason), ("case", reason), "{bad}");
        }
    }
}
