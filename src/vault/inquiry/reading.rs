//! The log, page by page, for those who ask. INVARIANT: whoever reads it this way sees every entry of the question's tenant and
//! period that was there when it was asked, in order, and no other entry at all; no page keeps a snapshot open while it is
//! looked at, and no clock that leapt can hide an entry.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Period, Question};
use crate::audit::entry::glance::{Glance, each};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::vault::Error;

/// What is read in one snapshot: some milliseconds' worth.
const PAGE: usize = 1 << 20;
/// Between two snapshots, so that the write-ahead log can be truncated, which an erasure waits for.
pub(super) const REST: Duration = Duration::from_millis(1);

/// Reads the log once.
pub(super) struct Reading<'a, T> {
    question: &'a Question<T>,
    period: Period,
    /// The first entry that was read or skipped.
    began: Option<u64>,
    next: u64,
    page: Vec<u8>,
}

impl<'a, T> Reading<'a, T> {
    pub(super) fn new(question: &'a Question<T>, period: Period) -> Self {
        Self { question, period, began: None, next: 0, page: Vec::with_capacity(PAGE + PAGE / 4) }
    }

    /// Turns to the next page that may hold something of the period, and tells how far the reading is; `false` at the end.
    pub(super) fn turn(&mut self) -> Result<bool, Error> {
        let Question { vault, end, reply, .. } = self.question;
        while self.next < *end {
            reply.progress(self.thousandths())?;
            if let Some(behind) = vault.inner.desk.read.behind(self.next, &self.period) {
                self.began.get_or_insert(self.next);
                self.next = behind;
                continue;
            }
            std::thread::sleep(REST);
            let from = self.next;
            self.page.clear();
            self.next = vault.store().read(|view| view.audit_entries(from, *end, PAGE, &mut self.page))?;
            if self.next == from {
                break;
            }
            self.began.get_or_insert(from);
            let span = Span { from, next: self.next, times: times(&self.page)? };
            let is_outside = span.is_outside(&self.period);
            if self.page.len() >= PAGE {
                vault.inner.desk.read.note(span);
            }
            if !is_outside {
                return Ok(true);
            }
        }
        reply.progress(1_000)?;
        Ok(false)
    }

    /// The page's entries of the tenant and the period.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<Glance<'_>, Error>> {
        let glances = each(&self.page).map(|bytes| bytes.and_then(Glance::of).ok_or_else(corrupt));
        glances.filter(|glance| match glance {
            Ok(glance) => self.period.holds(glance.at) && glance.is_of(&self.question.tenant),
            Err(_) => true,
        })
    }

    fn thousandths(&self) -> u16 {
        let began = self.began.unwrap_or(0);
        let (done, all) = (self.next.saturating_sub(began), self.question.end.saturating_sub(began));
        u16::try_from(done.saturating_mul(1_000) / all.max(1)).unwrap_or(1_000)
    }
}

pub(super) fn corrupt() -> Error {
    StoreError::Corrupt { table: "audit_batch", column: "entries" }.into()
}

/// The earliest and the latest time of packed entries.
fn times(packed: &[u8]) -> Result<(Timestamp, Timestamp), Error> {
    let mut times = (Timestamp(i64::MAX), Timestamp(i64::MIN));
    for bytes in each(packed) {
        let at = bytes.and_then(Glance::at).ok_or_else(corrupt)?;
        times = (times.0.min(at), times.1.max(at));
    }
    Ok(times)
}

/// A page that was read: which entries, and between which times they happened.
#[derive(Clone, Copy)]
struct Span {
    from: u64,
    next: u64,
    times: (Timestamp, Timestamp),
}

impl Span {
    fn is_outside(&self, period: &Period) -> bool {
        self.times.1 < period.since || self.times.0 >= period.until
    }
}

/// Which times the whole pages at the front of the log speak of, as far as any question has read. Entries never change, so
/// this is only ever a reason to skip what was read before; it takes some bytes for every thousand entries.
#[derive(Default)]
pub(super) struct Read(Mutex<Vec<Span>>);

impl Read {
    /// Where to go on, if the page that begins there holds nothing of the period.
    fn behind(&self, from: u64, period: &Period) -> Option<u64> {
        let spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = spans.binary_search_by_key(&from, |span| span.from).ok()?;
        spans.get(at).filter(|span| span.is_outside(period)).map(|span| span.next)
    }

    fn note(&self, span: Span) {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spans.last().map_or(0, |last| last.next) == span.from {
            spans.push(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_lie_outside_of_the_period_as_a_whole_are_skipped() {
        let read = Read::default();
        let span = |from, next, first, last| Span { from, next, times: (Timestamp(first), Timestamp(last)) };
        let period = |since, until| Period { since: Timestamp(since), until: Timestamp(until) };
        read.note(span(0, 10, 100, 200));
        // The clock leapt ahead and back within this one.
        read.note(span(10, 20, 150, 900));
        read.note(span(30, 40, 0, 0));
        assert_eq!(read.behind(0, &period(201, 300)), Some(10));
        assert_eq!(read.behind(0, &period(200, 300)), None);
        assert_eq!(read.behind(0, &period(0, 100)), Some(10));
        assert_eq!(read.behind(0, &period(0, 101)), None);
        assert_eq!(read.behind(10, &period(300, 400)), None);
        assert_eq!(read.behind(20, &period(300, 400)), None, "nobody has read that page");
        assert_eq!(read.behind(30, &period(300, 400)), None, "a page that does not follow the known ones is not noted");
        assert_eq!(read.behind(5, &period(201, 300)), None);
    }
}
