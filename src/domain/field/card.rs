//! Finds the number of a payment card in text. INVARIANT: a number with a known issuer's prefix and length and a valid check
//! digit (ISO/IEC 7812-1) is found in any digit script and however it is spaced, unless letters or more digits touch it so
//! that it is no number of its own.

use std::ops::RangeInclusive;

use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;

use zeroize::Zeroizing;

use crate::domain::field::digit::{digit_value, is_plus};
use crate::domain::field::numbering;

/// An issuer's first four digits, and how many digits its numbers have.
struct Issuer(RangeInclusive<u16>, RangeInclusive<usize>);

/// The published ranges of the networks in use. Of Maestro only the common ranges: the whole 50, 56–69 with any length
/// would catch telephone numbers.
const ISSUERS: &[Issuer] = &[
    // Visa; thirteen digits are of old
    Issuer(4000..=4999, 13..=13),
    Issuer(4000..=4999, 16..=16),
    Issuer(4000..=4999, 19..=19),
    // Mastercard
    Issuer(2221..=2720, 16..=16),
    Issuer(5100..=5599, 16..=16),
    // American Express
    Issuer(3400..=3499, 15..=15),
    Issuer(3700..=3799, 15..=15),
    // Diners Club
    Issuer(3000..=3059, 14..=19),
    Issuer(3095..=3095, 14..=19),
    Issuer(3600..=3699, 14..=19),
    Issuer(3800..=3999, 14..=19),
    // Discover
    Issuer(6011..=6011, 16..=19),
    Issuer(6440..=6599, 16..=19),
    // JCB
    Issuer(3528..=3589, 16..=19),
    // UnionPay
    Issuer(6200..=6299, 16..=19),
    Issuer(8100..=8171, 16..=19),
    // RuPay
    Issuer(5085..=5089, 16..=16),
    Issuer(6069..=6085, 16..=16),
    Issuer(8172..=8299, 16..=16),
    // Mir
    Issuer(2200..=2204, 16..=19),
    // Troy
    Issuer(9792..=9792, 16..=16),
    // Elo
    Issuer(5066..=5067, 16..=16),
    Issuer(6362..=6363, 16..=16),
    // Verve
    Issuer(5060..=5061, 16..=19),
    Issuer(5078..=5079, 16..=19),
    // Dankort
    Issuer(5019..=5019, 16..=16),
    // Maestro
    Issuer(5018..=5018, 12..=19),
    Issuer(5020..=5020, 12..=19),
    Issuer(5038..=5038, 12..=19),
    Issuer(5893..=5893, 12..=19),
    Issuer(6304..=6304, 12..=19),
    Issuer(6759..=6759, 12..=19),
    Issuer(6761..=6763, 12..=19),
];

/// How many characters that are neither letters nor digits may lie between two digits of one number.
const WIDEST_GAP: usize = 3;

const FEWEST_DIGITS: usize = 12;

pub fn holds_card_number(text: &str) -> bool {
    let most = text.chars().filter(|c| c.is_numeric()).count();
    // Most names and lines have too few digits to look at.
    if most < FEWEST_DIGITS {
        return false;
    }
    let invisible = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let mut run = Run::of_at_most(most);
    let mut gap = 0;
    for c in text.chars().filter(|c| !invisible.contains(*c)) {
        if let Some(digit) = digit_value(c) {
            run.push(digit, gap > 0);
            gap = 0;
            continue;
        }
        gap += 1;
        // Letters, a plus sign or a wide gap end a run.
        if c.is_alphanumeric() || is_plus(c) || gap > WIDEST_GAP {
            if run.holds_card_number() {
                return true;
            }
            run.restart();
        }
        run.follows_plus |= is_plus(c) && run.digits.is_empty();
    }
    run.holds_card_number()
}

/// Digits that may belong together.
struct Run {
    digits: Zeroizing<Vec<u8>>,
    /// For each digit: something stands before it, so that a number may start here and another may have ended.
    starts: Vec<bool>,
    /// A plus sign stands before the first digit.
    follows_plus: bool,
}

impl Run {
    /// Room for all digits of a text at once: digits that move leave a copy behind.
    fn of_at_most(most: usize) -> Self {
        Self { digits: Zeroizing::new(Vec::with_capacity(most)), starts: Vec::with_capacity(most), follows_plus: false }
    }

    fn push(&mut self, digit: u8, after_gap: bool) {
        self.starts.push(after_gap || self.digits.is_empty());
        self.digits.push(digit);
    }

    fn restart(&mut self) {
        self.digits.clear();
        self.starts.clear();
        self.follows_plus = false;
    }

    fn holds_card_number(&self) -> bool {
        let starts = self.starts.iter().enumerate().filter(|(_, starts)| **starts);
        starts.filter_map(|(at, _)| Some((at, self.digits.get(at..)?))).any(|(at, rest)| {
            let prefix = rest.iter().take(4).fold(0, |prefix, digit| 10 * prefix + u16::from(*digit));
            let issuers = ISSUERS.iter().filter(|Issuer(prefixes, _)| prefixes.contains(&prefix));
            issuers.flat_map(|Issuer(_, lengths)| lengths.clone()).any(|length| {
                let ends = self.starts.get(at + length).copied().unwrap_or(true);
                let number = rest.get(..length).filter(|number| ends && has_valid_check_digit(number));
                number.is_some_and(|number| !(at == 0 && self.follows_plus && is_phone(number)))
            })
        })
    }
}

/// An international phone number may look like a card's by chance: thirteen digits from +4 do one time in ten.
fn is_phone(digits: &[u8]) -> bool {
    let mut number = Zeroizing::new(String::with_capacity(1 + digits.len()));
    number.push('+');
    number.extend(digits.iter().map(|digit| char::from(b'0' + digit)));
    numbering::is_known(&number)
}

/// The Luhn formula (ISO/IEC 7812-1, annex B).
fn has_valid_check_digit(digits: &[u8]) -> bool {
    let doubled = |digit: u8| if digit < 5 { 2 * digit } else { 2 * digit - 9 };
    let weighted = digits.iter().rev().enumerate().map(|(i, digit)| if i % 2 == 0 { *digit } else { doubled(*digit) });
    weighted.map(u32::from).sum::<u32>().is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_networks_number_is_found_however_it_is_written() {
        for text in [
            "4111111111111111",
            "4222222222222",
            "5555555555554444",
            "2223003122003222",
            "378282246310005",
            "6011111111111117",
            "30569309025904",
            "3530111333300000",
            "6200000000000005",
            "2200000000000004",
            "6304000000000000",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "4111.1111.1111.1111",
            "4111_1111/1111\\1111",
            "4111 - 1111 - 1111 - 1111",
            "(4111)(1111)(1111)(1111)",
            "4111\u{A0}1111\u{2009}1111\u{3000}1111",
            "4111–1111—1111‑1111",
            "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
            "4\u{200B}1\u{200D}1\u{FEFF}1\u{AD}111111111111",
            "4\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}111111111111111",
            "4️⃣1️⃣1️⃣1️⃣ 1️⃣1️⃣1️⃣1️⃣ 1️⃣1️⃣1️⃣1️⃣ 1️⃣1️⃣1️⃣1️⃣",
            "card:4111111111111111x",
            "№4111111111111111, 12/28, 123",
            "12 4111 1111 1111 1111 12/28 123",
            "call +49 30 123456 or 4111 1111 1111 1111",
            "+4111111111111111",
            "4915123456704",
            "+49 15123456704 4111111111111111",
            "4111111111111111 +",
            "4111\n1111\n1111\n1111",
            "４１１１１１１１１１１１１１１１",
            "٤١١١ ١١١١ ١١١١ ١١١١",
            "۴۱۱۱۱۱۱۱۱۱۱۱۱۱۱۱",
            "४१११ ११११ ११११ ११११",
            "𝟒𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏",
        ] {
            assert!(holds_card_number(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_card_number_is_left_alone() {
        for text in [
            "",
            "Avinguda Meritxell 88",
            "4111111111111112",
            "1111111111111117",
            "411111111111111",
            "41111111111111110000000",
            "4111 1111 and 1111 1111",
            "4111    1111    1111    1111",
            "0000 0000 0000 0000",
            "+4915123456704",
            "+49 151 23456704, 2",
            "call +4915123456704 or +49 151 23456712",
            "DE89 3704 0044 0532 0130 00",
            "9400 1000 0000 0000 0000 00",
        ] {
            assert!(!holds_card_number(text), "{text}");
        }
    }

    /// A number of a known issuer with its check digit.
    fn card_number() -> impl Strategy<Value = Vec<u8>> {
        let issuer = (0..ISSUERS.len()).prop_flat_map(|i| (ISSUERS[i].0.clone(), ISSUERS[i].1.clone()));
        (issuer, prop::collection::vec(0..10_u8, 19)).prop_map(|((prefix, length), tail)| {
            let prefix = [1000, 100, 10, 1].map(|unit| (prefix / unit % 10) as u8);
            let mut digits: Vec<u8> = prefix.into_iter().chain(tail).take(length - 1).collect();
            let check = (0..10).find(|check| {
                let whole: Vec<u8> = digits.iter().copied().chain([*check]).collect();
                has_valid_check_digit(&whole)
            });
            digits.extend(check);
            digits
        })
    }

    proptest! {
        #[test]
        fn any_card_number_is_found_in_any_script_and_spacing(
            digits in card_number(),
            zeros in prop::collection::vec(prop::sample::select(vec!['0', '٠', '۰', '०', '๐', '０', '𝟎']), 19),
            gaps in prop::collection::vec("[-  ./_\u{200B}\u{2013}]{0,3}", 19),
            before in "[a-z ]{0,8}",
            after in "[a-z ]{0,8}",
        ) {
            let mut text = before;
            for ((digit, zero), gap) in digits.iter().zip(zeros).zip(gaps) {
                text.push(char::from_u32(u32::from(zero) + u32::from(*digit)).unwrap());
                text.push_str(&gap);
            }
            text.push_str(&after);
            prop_assert!(holds_card_number(&text), "{}", text);
        }

        #[test]
        fn a_wrong_check_digit_is_no_card_number(digits in card_number(), off in 1..10_u8) {
            let mut digits = digits;
            if let Some(last) = digits.last_mut() {
                *last = (*last + off) % 10;
            }
            let text: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
            prop_assert!(!holds_card_number(&text));
        }
    }
}
