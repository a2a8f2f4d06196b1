//! What the demonstration tells. INVARIANT: every line that was printed is kept, to be searched for leaks like any file; a claim
//! that does not hold is printed as such and fails the whole.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::cli::Failure;

#[derive(Default)]
pub struct Transcript {
    text: String,
    acts: u32,
    claims: u64,
    failed: u64,
}

impl Transcript {
    /// A paragraph, indented and wrapped.
    pub fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.line(&wrapped("  ", text))
    }

    /// A line as it is.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()?;
        let _ = writeln!(self.text, "{text}");
        Ok(())
    }

    pub fn act(&mut self, title: &str) -> Result<(), Failure> {
        self.acts += 1;
        let heading = format!("Act {}. {title}", self.acts);
        self.line(&format!("\n{heading}\n{}", "─".repeat(heading.chars().count())))
    }

    /// Prints a claim with its verdict.
    pub fn claim(&mut self, holds: bool, claim: &str) -> Result<(), Failure> {
        self.claims += 1;
        self.failed += u64::from(!holds);
        self.line(&wrapped(if holds { "  ✔ " } else { "  ✘ NOT TRUE: " }, claim))
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The last word: whether all claims held.
    pub fn end(mut self) -> Result<(), Failure> {
        let (claims, failed) = (HumanCount(self.claims), HumanCount(self.failed));
        if self.failed > 0 {
            let message = format!("{failed} of the {claims} claims did not hold (marked ✘ above)");
            return Err(Failure { message, code: 1 });
        }
        self.line(&format!("\nAll {claims} claims held."))
    }
}

/// Fits a terminal of this many columns.
const WIDTH: usize = 100;

/// The text behind `first`, its further lines indented as deep.
fn wrapped(first: &str, text: &str) -> String {
    let (mut lines, mut width) = (first.to_owned(), first.chars().count());
    let indent = width.min(4);
    for (number, word) in text.split_whitespace().enumerate() {
        let length = word.chars().count();
        if number > 0 && width + 1 + length > WIDTH {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            width = indent;
        } else if number > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += length;
    }
    lines
}

/// `5,000`.
pub fn count(number: impl TryInto<u64>) -> HumanCount {
    HumanCount(number.try_into().unwrap_or(u64::MAX))
}

/// A bar for so many days, on a terminal's stderr alone.
pub fn days_bar(days: i64) -> ProgressBar {
    let style = ProgressStyle::with_template("  {bar:40} day {pos} of {len}  {msg}  {elapsed} (another {eta})");
    ProgressBar::new(u64::try_from(days).unwrap_or(0))
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_wrapped_between_words_and_loses_none() {
        let text = "word ".repeat(60);
        let lines = wrapped("  ✔ ", &text);
        assert!(lines.lines().count() > 2 && lines.lines().all(|line| line.chars().count() <= WIDTH));
        assert!(lines.lines().skip(1).all(|line| line.starts_with("    word")));
        assert_eq!(lines.matches("word").count(), 60);
    }

    #[test]
    fn one_claim_that_does_not_hold_fails_the_whole() {
        let mut out = Transcript::default();
        out.claim(true, "so").unwrap();
        out.claim(false, "not so").unwrap();
        let failure = out.end().unwrap_err();
        assert_eq!((failure.code, failure.message.contains("1 of the 2 claims")), (1, true));
    }
}
