//! Looks for known values in bytes that must not hold them. INVARIANT: a value is found in every form that it could leak in
//! (as UTF-8, in hex, in base64 at any alignment, a phone's bare digits), whatever stands around it.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Values of fewer bytes are not looked for: they are found everywhere by chance.
pub const LEAST: usize = 8;

/// How a value was written where it was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Form {
    /// As it is, in UTF-8.
    Text,
    /// Its UTF-8 in lower-case or in upper-case hexadecimal digits.
    Hex,
    /// Its UTF-8 as a part of any base64, standard or URL-safe.
    Base64,
    /// A phone number without its punctuation.
    Digits,
}

/// One place where a value was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hit {
    /// The value's place among those given to `Scanner::new`, from 0.
    pub value: usize,
    pub form: Form,
    /// Where the form starts, in bytes.
    pub at: usize,
}

/// Searches for all values in all their forms at once.
pub struct Scanner {
    automaton: AhoCorasick,
    /// For each pattern of the automaton: the value, and the form that the pattern is.
    patterns: Vec<(usize, Form)>,
    values: BTreeSet<usize>,
}

impl Scanner {
    /// Errors: more values than an automaton has room for.
    pub fn new<'a>(values: impl Iterator<Item = &'a str>) -> Result<Self, TooMany> {
        let (mut texts, mut patterns, mut looked_for) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (value, text) in values.enumerate().filter(|(_, text)| text.len() >= LEAST) {
            looked_for.insert(value);
            for (form, pattern) in forms(text) {
                texts.push(pattern);
                patterns.push((value, form));
            }
        }
        let automaton = AhoCorasick::builder().kind(Some(AhoCorasickKind::ContiguousNFA)).build(&texts);
        Ok(Self { automaton: automaton.map_err(|_| TooMany)?, patterns, values: looked_for })
    }

    /// The values that are looked for: those long enough.
    pub fn values(&self) -> &BTreeSet<usize> {
        &self.values
    }

    /// Every place of every value, in the order in which they end.
    pub fn scan_bytes(&self, bytes: &[u8]) -> Vec<Hit> {
        let found = self.automaton.find_overlapping_iter(bytes);
        let hits = found.filter(|found| !is_chance(bytes, found.range())).filter_map(|found| {
            let (value, form) = self.patterns.get(found.pattern().as_usize())?;
            Some(Hit { value: *value, form: *form, at: found.start() })
        });
        hits.collect()
    }
}

/// There are too many values to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are too many values to look for them at once")]
pub struct TooMany;

/// The forms of one value, each written out once.
fn forms(text: &str) -> BTreeSet<(Form, String)> {
    let mut forms = BTreeSet::from([
        (Form::Text, text.to_owned()),
        (Form::Hex, hex::encode(text)),
        (Form::Hex, hex::encode_upper(text)),
    ]);
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        forms.extend((0..3).map(|before| (Form::Base64, inside(&engine.encode(padded(text, before)), text, before))));
    }
    forms.extend(bare_digits(text).map(|digits| (Form::Digits, digits)));
    forms
}

/// The value behind `before` other bytes.
fn padded(text: &str, before: usize) -> Vec<u8> {
    [vec![0; before].as_slice(), text.as_bytes()].concat()
}

/// The characters of `encoded` that hold bits of the value alone, and so are the same in whatever stands around it.
fn inside(encoded: &str, text: &str, before: usize) -> String {
    let first = (before * 8).div_ceil(6);
    let end = (before + text.len()) * 8 / 6;
    encoded.get(first..end).unwrap_or_default().to_owned()
}

/// The digits of what looks like a phone number and is not written as digits alone.
fn bare_digits(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let is_phone = text.chars().all(|c| c.is_ascii_digit() || " +-()./".contains(c));
    (is_phone && digits.len() >= LEAST && digits.len() < text.len()).then_some(digits)
}

/// The shortest of the digests that our files spell in hexadecimal digits.
const DIGEST: usize = 32;

/// Whether a short match lies within a digest: eight decimal digits stand in some of a few thousand digests by chance.
fn is_chance(bytes: &[u8], range: std::ops::Range<usize>) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let Some(found) = bytes.get(range.clone()).filter(|found| found.len() < 2 * LEAST) else { return false };
    if !found.iter().all(is_digit) {
        return false;
    }
    let before = bytes.get(..range.start).unwrap_or_default().iter().rev().take_while(|byte| is_digit(byte)).count();
    let after = bytes.get(range.end..).unwrap_or_default().iter().take_while(|byte| is_digit(byte)).count();
    before + found.len() + after >= DIGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [&str; 4] = ["Πλατεία 7", "short", "+49 30 23125-042", "canary-7f3a"];

    fn scanner() -> Scanner {
        Scanner::new(VALUES.into_iter()).unwrap()
    }

    fn found(bytes: &[u8]) -> BTreeSet<(usize, Form)> {
        scanner().scan_bytes(bytes).into_iter().map(|hit| (hit.value, hit.form)).collect()
    }

    #[test]
    fn a_value_is_found_in_every_form_whatever_stands_around_it() {
        for (value, text) in VALUES.iter().enumerate().filter(|(_, text)| text.len() >= LEAST) {
            for before in 0..5 {
                for after in 0..5 {
                    let around = |inner: &[u8]| [&vec![0xfb; before], inner, &vec![0xff; after]].concat();
                    let whole = around(text.as_bytes());
                    for (form, bytes) in [
                        (Form::Text, whole.clone()),
                        (Form::Hex, hex::encode(&whole).into_bytes()),
                        (Form::Hex, hex::encode_upper(&whole).into_bytes()),
                        (Form::Base64, STANDARD_NO_PAD.encode(&whole).into_bytes()),
                        (Form::Base64, URL_SAFE_NO_PAD.encode(&whole).into_bytes()),
                    ] {
                        assert_eq!(found(&bytes), BTreeSet::from([(value, form)]), "{text} {form:?} {before} {after}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_phone_is_found_by_its_digits() {
        assert_eq!(found(b"tel:+493023125042;"), BTreeSet::from([(2, Form::Digits)]));
        assert_eq!(found(b"17493023125042"), BTreeSet::from([(2, Form::Digits)]));
    }

    #[test]
    fn a_digest_is_no_phone_and_a_short_value_is_not_looked_for() {
        let digest = b"\"5f493023125042aa00000000000000000000\"";
        assert_eq!(found(digest), BTreeSet::new());
        assert_eq!(found(&digest[..20]), BTreeSet::from([(2, Form::Digits)]));
        assert_eq!(found(b"short"), BTreeSet::new());
        assert_eq!(scanner().values(), &BTreeSet::from([0, 2, 3]));
    }

    #[test]
    fn every_place_is_told_also_of_values_within_values() {
        let scanner = Scanner::new(["Main Street 17", "Main Street", "n Street 1"].into_iter()).unwrap();
        let hits: BTreeSet<_> =
            scanner.scan_bytes(b"17 Main Street 17").iter().map(|hit| (hit.value, hit.at)).collect();
        assert_eq!(hits, BTreeSet::from([(0, 3), (1, 3), (2, 6)]));
    }
}
