//! Postal addresses of every country. INVARIANT: an address has a line and a country; what else a country's addresses have
//! is the sender's to know, so no part is checked against another. Only a retention policy takes its lines away.

use std::fmt;

use zeroize::Zeroizing;

use crate::domain::field::card::holds_card_number;
use crate::domain::field::text::Rules;
use crate::domain::field::{FieldError, FieldReason};

const MOST_LINES: usize = 8;

/// Kosovo has no code in ISO 3166-1, but post, and this code by common use.
const KOSOVO: &str = "XK";

/// An address as it came.
pub struct RawAddress {
    pub lines: Vec<String>,
    pub locality: String,
    pub region: String,
    pub postal_code: String,
    /// ISO 3166-1 alpha-2.
    pub country: String,
}

/// Where a parcel goes: 1 to 8 lines of at most 200 characters; locality, region (100 each) and postal code (20), each of
/// which may be empty; a country. The lines may go before the rest.
pub struct Address {
    pub(super) lines: Vec<Zeroizing<String>>,
    pub(super) locality: Zeroizing<String>,
    pub(super) region: Zeroizing<String>,
    pub(super) postal_code: Zeroizing<String>,
    pub(super) country: Zeroizing<String>,
}

impl Address {
    pub fn parse(field: &str, raw: RawAddress) -> Result<Self, FieldError> {
        let RawAddress { lines, locality, region, postal_code, country } = raw;
        let part = |name: &str, rules: Rules, raw| rules.parse(&format!("{field}.{name}"), raw);

        // Every part is parsed before one is refused: parsing takes the plaintext and wipes it.
        let count = lines.len();
        let lines =
            lines.into_iter().enumerate().map(|(i, line)| part(&format!("lines[{i}]"), Rules::line(1, 200), line));
        let lines: Vec<_> = lines.collect();
        let locality = part("locality", Rules::line(0, 100), locality);
        let region = part("region", Rules::line(0, 100), region);
        let postal_code = part("postal_code", Rules::line(0, 20), postal_code);
        let country = parse_country(&format!("{field}.country"), Zeroizing::new(country));

        match count {
            0 => return Err(FieldError::new(&format!("{field}.lines"), FieldReason::Missing)),
            1..=MOST_LINES => {}
            _ => return Err(FieldError::new(&format!("{field}.lines"), FieldReason::TooMany)),
        }
        let lines = lines.into_iter().collect::<Result<_, _>>()?;
        let (locality, region, postal_code) = (locality?, region?, postal_code?);
        let address = Self { lines, locality, region, postal_code, country: country? };
        // Each part is without a card's number; so must be what they say one after the other.
        if holds_card_number(&address.joined()) {
            return Err(FieldError::new(field, FieldReason::CardNumber));
        }
        Ok(address)
    }

    /// The address without its street lines: what may outlive them.
    pub fn without_lines(mut self) -> Self {
        self.lines.clear();
        self
    }

    /// None at all: their own retention is over.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| line.as_str())
    }

    /// "": unset.
    pub fn locality(&self) -> &str {
        &self.locality
    }

    /// "": unset.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// "": unset.
    pub fn postal_code(&self) -> &str {
        &self.postal_code
    }

    pub fn country(&self) -> &str {
        &self.country
    }

    fn joined(&self) -> Zeroizing<String> {
        let parts = || self.lines().chain([self.locality(), self.region(), self.postal_code()]);
        let mut joined = Zeroizing::new(String::with_capacity(parts().map(|part| part.len() + 1).sum()));
        for part in parts() {
            joined.push_str(part);
            joined.push(' ');
        }
        joined
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address")
    }
}

impl fmt::Debug for RawAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawAddress")
    }
}

fn parse_country(field: &str, raw: Zeroizing<String>) -> Result<Zeroizing<String>, FieldError> {
    if raw.is_empty() {
        return Err(FieldError::new(field, FieldReason::Missing));
    }
    let is_capital = raw.len() == 2 && raw.bytes().all(|byte| byte.is_ascii_uppercase());
    let is_known = is_capital && (raw.as_str() == KOSOVO || rust_iso3166::from_alpha2(&raw).is_some());
    if is_known { Ok(raw) } else { Err(FieldError::new(field, FieldReason::NotACountry)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(lines: &[&str], locality: &str, region: &str, postal_code: &str, country: &str) -> RawAddress {
        let [locality, region, postal_code, country] = [locality, region, postal_code, country].map(str::to_owned);
        RawAddress {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            locality,
            region,
            postal_code,
            country,
        }
    }

    #[test]
    fn an_address_is_kept_to_the_byte() {
        let raw = raw(&["Avinguda Meritxell 88", "Centre històric"], "Andorra la Vella", "", "AD500", "AD");
        let address = Address::parse("address", raw).unwrap();
        assert_eq!(address.lines().collect::<Vec<_>>(), ["Avinguda Meritxell 88", "Centre històric"]);
        assert_eq!((address.locality(), address.region()), ("Andorra la Vella", ""));
        assert_eq!((address.postal_code(), address.country()), ("AD500", "AD"));
    }

    #[test]
    fn a_country_may_have_no_localities() {
        assert!(Address::parse("address", raw(&["1 Main Road"], "", "", "", "GI")).is_ok());
        assert!(Address::parse("address", raw(&["Rruga B"], "Prishtina", "", "10000", KOSOVO)).is_ok());
    }

    #[test]
    fn a_bad_part_is_named() {
        let long = "x".repeat(201);
        for (raw, field, reason) in [
            (raw(&[], "", "", "", "DE"), "address.lines", FieldReason::Missing),
            (raw(&["x"; 9], "", "", "", "DE"), "address.lines", FieldReason::TooMany),
            (raw(&["x", " "], "", "", "", "DE"), "address.lines[1]", FieldReason::Empty),
            (raw(&["x", "y\n"], "", "", "", "DE"), "address.lines[1]", FieldReason::ControlCharacter),
            (raw(&[&long], "", "", "", "DE"), "address.lines[0]", FieldReason::TooLong),
            (raw(&["x"], &long, "", "", "DE"), "address.locality", FieldReason::TooLong),
            (raw(&["x"], "", &long, "", "DE"), "address.region", FieldReason::TooLong),
            (raw(&["x"], "", "", &long, "DE"), "address.postal_code", FieldReason::TooLong),
            (raw(&["x"], "", "", "", ""), "address.country", FieldReason::Missing),
            (raw(&["x"], "", "", "", "de"), "address.country", FieldReason::NotACountry),
            (raw(&["x"], "", "", "", "DEU"), "address.country", FieldReason::NotACountry),
            (raw(&["x"], "", "", "", "ZZ"), "address.country", FieldReason::NotACountry),
            (raw(&["4111 1111 1111 1111"], "", "", "", "DE"), "address.lines[0]", FieldReason::CardNumber),
            (raw(&["4111 1111", "1111 1111"], "", "", "", "DE"), "address", FieldReason::CardNumber),
            (raw(&["x", "4111 1111"], "1111", "", "1111", "DE"), "address", FieldReason::CardNumber),
        ] {
            assert_eq!(Address::parse("address", raw).map(drop), Err(FieldError::new(field, reason)));
        }
    }
}
