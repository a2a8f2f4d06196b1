//! The search for personal data in everything that the demonstration wrote. INVARIANT: every file of the folder is searched for
//! every value of the file of orders, in every form; a value counts as found wherever and whenever it was.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::orders::Order;
use super::plan::Story;
use super::scan::{Form, LEAST, Scanner};
use crate::cli::Failure;

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The vault was given it.
    Stored,
    /// An emergency contact's: sent once, to be refused.
    Unsent,
    Serial,
    Token,
}

pub struct Leaks {
    scanner: Scanner,
    kinds: Vec<Kind>,
    found: BTreeSet<usize>,
    /// Which files held something, in which form.
    places: BTreeSet<(String, Form)>,
    pub searched: u64,
}

impl Leaks {
    pub fn of_values(orders: &[&Order], stories: &[Story]) -> Result<Self, Failure> {
        let stored: BTreeSet<&str> = orders.iter().flat_map(|order| order.stored_values()).collect();
        let unsent: BTreeSet<&str> = orders.iter().flat_map(|order| order.unsent_values()).collect();
        let unsent = without_those_in(&stored, unsent.into_iter().collect())?;
        let unsent = unsent.into_iter().map(|value| (value, Kind::Unsent));
        let serials = stories.iter().map(|story| (story.serial.as_str(), Kind::Serial));
        Self::new(stored.into_iter().map(|value| (value, Kind::Stored)).chain(unsent).chain(serials).collect())
    }

    pub fn of_tokens(tokens: &[String]) -> Result<Self, Failure> {
        Self::new(tokens.iter().map(|token| (token.as_str(), Kind::Token)).collect())
    }

    fn new(mut values: Vec<(&str, Kind)>) -> Result<Self, Failure> {
        values.retain(|(value, _)| value.len() >= LEAST);
        let scanner = Scanner::new(values.iter().map(|(value, _)| *value));
        Ok(Self {
            scanner: scanner.map_err(|error| Failure::local(error.to_string()))?,
            kinds: values.into_iter().map(|(_, kind)| kind).collect(),
            found: BTreeSet::new(),
            places: BTreeSet::new(),
            searched: 0,
        })
    }

    /// Searches every file below the folder.
    pub fn search_folder(&mut self, folder: &Path) -> Result<(), Failure> {
        let unreadable = |error: std::io::Error| Failure::io(folder, &error);
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.is_dir() {
                self.search_folder(&path)?;
            } else {
                let bytes = fs::read(&path).map_err(|error| Failure::io(&path, &error))?;
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                self.search(&name, &bytes);
            }
        }
        Ok(())
    }

    pub fn search(&mut self, name: &str, bytes: &[u8]) {
        self.searched += bytes.len() as u64;
        for hit in self.scanner.scan_bytes(bytes) {
            self.found.insert(hit.value);
            self.places.insert((name.to_owned(), hit.form));
        }
    }

    /// How many values of the kind were looked for, and how many of them found.
    pub fn counts(&self, kind: Kind) -> (usize, usize) {
        let of_kind = |value: &usize| self.kinds.get(*value) == Some(&kind);
        (
            self.kinds.iter().filter(|other| **other == kind).count(),
            self.found.iter().filter(|value| of_kind(value)).count(),
        )
    }

    /// Where something was found, and in which form.
    pub fn places(&self) -> Vec<String> {
        self.places.iter().map(|(name, form)| format!("{name} ({form:?})").to_lowercase()).collect()
    }
}

/// The values that do not stand in a stored one, which is looked for anyway: the same number spaced otherwise, a name in a name.
fn without_those_in<'a>(stored: &BTreeSet<&str>, values: Vec<&'a str>) -> Result<Vec<&'a str>, Failure> {
    let digits = |value: &&str| value.chars().filter(char::is_ascii_digit).collect::<String>();
    let text: String = stored.iter().map(|value| format!("{value}\n{}\n", digits(value))).collect();
    let scanner = Scanner::new(values.iter().copied()).map_err(|error| Failure::local(error.to_string()))?;
    let inside: BTreeSet<usize> = scanner.scan_bytes(text.as_bytes()).into_iter().map(|hit| hit.value).collect();
    Ok(values.into_iter().enumerate().filter(|(place, _)| !inside.contains(place)).map(|(_, value)| value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_was_stored_in_other_words_is_not_taken_for_one_that_never_was() {
        let stored = BTreeSet::from(["+49 30 23125-042", "Anna-Maria Huber"]);
        let values = vec!["+493023125042", "Maria Huber", "Maria Gruber"];
        assert_eq!(without_those_in(&stored, values).unwrap(), ["Maria Gruber"]);
    }
}
