//! Phone numbers. INVARIANT: a phone is in E.164, a plus sign and at most fifteen digits, of a country code in use.

use zeroize::Zeroizing;

use crate::domain::field::digit::{digit_value, is_plus};
use crate::domain::field::numbering;
use crate::domain::field::text::{secret_text, storable};
use crate::domain::field::{FieldError, FieldReason};

/// Longer than any way to write fifteen digits that people use.
const LONGEST: usize = 40;

secret_text! {
    /// A phone number, kept in E.164 whatever it was written like.
    Phone;
}
storable!(Phone);

impl Phone {
    /// Takes an international number in any digits and spacing. An extension has no place in E.164: rather than lose it
    /// unseen, a number with letters in it is refused.
    pub fn parse(field: &str, raw: String) -> Result<Self, FieldError> {
        let raw = Zeroizing::new(raw);
        let phone = plus_and_digits(&raw).and_then(|dialled| e164(&dialled));
        phone.map(Self).map_err(|reason| FieldError::new(field, reason))
    }
}

/// Loads the tables of numbers, which takes a good while once; a server does it before it serves.
pub fn warm() {
    // With a trunk prefix in it, so that both tables are asked.
    drop(e164("+49030123456"));
}

/// What is left of `raw` on a keypad.
fn plus_and_digits(raw: &str) -> Result<Zeroizing<String>, FieldReason> {
    if raw.trim().is_empty() {
        return Err(FieldReason::Empty);
    }
    if raw.chars().count() > LONGEST {
        return Err(FieldReason::TooLong);
    }
    let mut dialled = Zeroizing::new(String::with_capacity(LONGEST));
    for c in raw.chars() {
        match digit_value(c) {
            Some(digit) => dialled.extend(char::from_digit(u32::from(digit), 10)),
            None if is_plus(c) && dialled.is_empty() => dialled.push('+'),
            None if is_punctuation(c) => {}
            None => return Err(FieldReason::NotAPhone),
        }
    }
    if dialled.starts_with('+') { Ok(dialled) } else { Err(FieldReason::NotAPhone) }
}

/// What people and address books put between the digits; the bidi controls come with numbers copied out of a phone.
fn is_punctuation(c: char) -> bool {
    c.is_whitespace() && !c.is_control()
        || matches!(c, '(' | ')' | '[' | ']' | '.' | '/' | '-' | '~' | '·' | '（' | '）' | '．' | '／' | '－' | 'ー')
        || matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2060}')
        || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// A number is good when the tables know it, or know its length in its country: they lag behind the numbering plans.
fn e164(dialled: &str) -> Result<Zeroizing<String>, FieldReason> {
    let as_given = Zeroizing::new(dialled.to_owned());
    if numbering::is_known(&as_given) {
        return Ok(as_given);
    }
    // Not as it stands: perhaps there is a trunk prefix in it, as in +49 (0)30. Where there is none, phonenumber may take
    // the number's own start for one (Russia's 8), so the number as given is asked first and last.
    let number = phonenumber::parse(None, dialled).map_err(|_| FieldReason::NotAPhone)?;
    let stripped = Zeroizing::new(number.format().to_string());
    if numbering::is_known(&stripped) {
        Ok(stripped)
    } else if numbering::is_possible(&as_given) {
        Ok(as_given)
    } else if numbering::is_possible(&stripped) {
        Ok(stripped)
    } else {
        Err(FieldReason::NotAPhone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn phone(raw: &str) -> Result<String, FieldReason> {
        Phone::parse("phone", raw.to_owned()).map(|phone| phone.expose().to_owned()).map_err(|error| error.reason)
    }

    #[test]
    fn a_phone_is_kept_in_e164_however_it_is_written() {
        for (raw, e164) in [
            ("+376 312 690", "+376312690"),
            ("+37631269 0", "+376312690"),
            ("+1 268-464-7195", "+12684647195"),
            ("+49 (0)30 / 123 456", "+4930123456"),
            ("＋４９ ３０ １２３４５６", "+4930123456"),
            ("+٩٧١ ٥٠ ١٢٣ ٦٧٧٣", "+971501236773"),
            ("\u{202A}+971 50 123 6773\u{202C}", "+971501236773"),
            ("+39 06 1234 5678", "+390612345678"),
            ("+86 138 0013 8000", "+8613800138000"),
            // what begins like a trunk prefix and is none
            ("+7 812 123-45-67", "+78121234567"),
            ("+370 800 12345", "+37080012345"),
            ("+1 555 010 0100", "+15550100100"),
            // in no table, but of a possible length
            ("+1 055 010 0100", "+10550100100"),
        ] {
            assert_eq!(phone(raw).as_deref(), Ok(e164), "{raw}");
        }
    }

    #[test]
    fn what_is_no_international_number_is_refused() {
        for (raw, reason) in [
            ("", FieldReason::Empty),
            (" ", FieldReason::Empty),
            ("+", FieldReason::NotAPhone),
            ("030 123456", FieldReason::NotAPhone),
            ("0049 30 123456", FieldReason::NotAPhone),
            ("+49 30 123456 ext. 12", FieldReason::NotAPhone),
            ("+1 800 FLOWERS", FieldReason::NotAPhone),
            ("+49 30 123456\0", FieldReason::NotAPhone),
            ("+49+30 123456", FieldReason::NotAPhone),
            ("tel:+4930123456", FieldReason::NotAPhone),
            ("+999 123 456 789", FieldReason::NotAPhone),
            ("+4111111111111111", FieldReason::NotAPhone),
            ("+1 23", FieldReason::NotAPhone),
            ("+1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2", FieldReason::TooLong),
        ] {
            assert_eq!(phone(raw), Err(reason), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn no_digits_bring_the_tables_down(digits in "[+][0-9]{0,20}") {
            if let Ok(e164) = phone(&digits) {
                prop_assert!((2..=16).contains(&e164.len()) && phone(&e164).is_ok(), "{}", e164);
            }
        }
    }
}
