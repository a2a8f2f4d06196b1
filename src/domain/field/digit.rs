//! Digits as the world writes them. INVARIANT: a decimal digit of any script has its value, and nothing else has one.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use icu_properties::CodePointMapData;
use icu_properties::props::GeneralCategory;

/// The sign before a country code.
pub fn is_plus(c: char) -> bool {
    matches!(c, '+' | '＋')
}

/// The value of a decimal digit of any script.
pub fn digit_value(c: char) -> Option<u8> {
    /// Unicode keeps each script's digits in one ascending run of ten (the standard, §4.6), so a run's start is enough.
    static RUNS: LazyLock<Vec<RangeInclusive<u32>>> = LazyLock::new(|| {
        CodePointMapData::<GeneralCategory>::new().iter_ranges_for_value(GeneralCategory::DecimalNumber).collect()
    });
    if c.is_ascii() {
        return c.to_digit(10).and_then(|digit| u8::try_from(digit).ok());
    }
    let code = u32::from(c);
    let run = RUNS.get(RUNS.partition_point(|run| *run.end() < code)).filter(|run| run.contains(&code))?;
    u8::try_from((code - run.start()) % 10).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_every_script_have_their_value() {
        for (text, value) in [("0٠۰०๐０𝟎𝟘", 0), ("7٧۷७๗７𝟕𝟟", 7), ("9٩۹९๙９𝟗𝟡", 9)]
        {
            assert!(text.chars().all(|c| digit_value(c) == Some(value)), "{text}");
        }
        assert!("a²½Ⅷ一/:".chars().all(|c| digit_value(c).is_none()));
    }
}
