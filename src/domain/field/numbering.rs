//! Which phone numbers the countries' numbering plans have. INVARIANT: the answers are phonenumber's tables', compiled once: the
//! crate itself keeps 100 expressions behind a lock, and with customers in more countries compiles a few at every number.

use std::collections::HashMap;
use std::sync::LazyLock;

use phonenumber::Type;
use phonenumber::metadata::DATABASE;
use regex::{Regex, RegexBuilder};

/// E.164, §6.2.1: at most fifteen digits, of which one to three are the country code.
const MOST_DIGITS: usize = 15;
const LONGEST_CODE: usize = 3;

/// The kinds of numbers that a person may have.
const KINDS: [Type; 10] = [
    Type::FixedLine,
    Type::Mobile,
    Type::TollFree,
    Type::PremiumRate,
    Type::SharedCost,
    Type::PersonalNumber,
    Type::Voip,
    Type::Pager,
    Type::Uan,
    Type::Voicemail,
];

/// The numbers of one region; a country code may have several.
struct Plan {
    national: Option<Regex>,
    lengths: Vec<u16>,
}

static PLANS: LazyLock<HashMap<u16, Vec<Plan>>> = LazyLock::new(|| {
    let regions = (1..=999).filter_map(|code| Some((code, DATABASE.by_code(&code)?)));
    regions.map(|(code, regions)| (code, regions.into_iter().map(Plan::of).collect())).collect()
});

impl Plan {
    fn of(region: &phonenumber::Metadata) -> Self {
        let descriptors = region.descriptors();
        let whole = format!(r"\A(?:{})\z", descriptors.general().national_number().as_str());
        // A region whose expression is not understood is judged by lengths alone.
        let national = RegexBuilder::new(&whole).ignore_whitespace(true).unicode(false).build().ok();
        let kinds = KINDS.iter().filter_map(|kind| descriptors.get(*kind));
        Self { national, lengths: kinds.flat_map(|kind| kind.possible_length()).copied().collect() }
    }

    fn knows(&self, national: &str) -> bool {
        self.national.as_ref().is_some_and(|expression| expression.is_match(national))
    }

    fn allows(&self, national: &str) -> bool {
        self.lengths.iter().any(|length| usize::from(*length) == national.len())
    }
}

/// Whether a plan has numbers of this form. The number is a plus sign and ASCII digits.
pub fn is_known(number: &str) -> bool {
    national(number).is_some_and(|(plans, national)| plans.iter().any(|plan| plan.knows(national)))
}

/// Whether a plan has numbers of this length.
pub fn is_possible(number: &str) -> bool {
    national(number).is_some_and(|(plans, national)| plans.iter().any(|plan| plan.allows(national)))
}

/// The plans of the number's country code, and what follows the code. No code begins with another.
fn national(number: &str) -> Option<(&'static [Plan], &str)> {
    let digits = number.strip_prefix('+')?;
    if digits.len() > MOST_DIGITS || !digits.starts_with(|first| matches!(first, '1'..='9')) {
        return None;
    }
    (1..=LONGEST_CODE).find_map(|length| {
        let (code, national) = digits.split_at_checked(length)?;
        Some((PLANS.get(&code.parse().ok()?)?.as_slice(), national))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_know_their_own_examples() {
        let mut seen = 0;
        for region in DATABASE.iter() {
            for kind in KINDS {
                let Some(example) = region.descriptors().get(kind).and_then(|descriptor| descriptor.example()) else {
                    continue;
                };
                assert!(is_known(&format!("+{}{example}", region.country_code())), "{} {kind:?}", region.id());
                seen += 1;
            }
        }
        assert!(seen > 500, "{seen}");
    }

    #[test]
    fn every_expression_compiles() {
        assert!(PLANS.len() > 200 && PLANS.values().flatten().all(|plan| plan.national.is_some()));
    }

    #[test]
    fn what_no_plan_has_is_told_apart() {
        assert!(
            is_possible("+15550100100")
                && is_known("+15550100100")
                && is_possible("+10550100100")
                && !is_known("+10550100100")
        );
        for bad in
            ["", "+", "+4", "49301234567", "+99912345678", "+3763126901234567", "+012345678", "+é1", "++4930123456"]
        {
            assert!(!is_possible(bad) && !is_known(bad), "{bad}");
        }
    }
}
