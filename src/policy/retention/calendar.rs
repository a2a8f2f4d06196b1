//! How long something lasts on a shop's calendar. INVARIANT: days, months and years are counted in the shop's zone and to the
//! day: a day keeps its hour across a change of clocks, a month that lacks the day ends on its last one, and what falls into
//! an hour that is skipped is reached late, never early.

use crate::domain::time::{HOUR, Timestamp};
use jiff::Span;
use jiff::civil::{Date, Time, Weekday, date};
use jiff::fmt::temporal::SpanParser;
use jiff::tz::{AmbiguousOffset, TimeZone};
use std::collections::BTreeSet;

use super::file::Reason;

/// A shop's days: where they begin, and which of them nobody works. Saturdays and Sundays are no working days anywhere.
#[derive(Clone, Debug)]
pub(super) struct Calendar {
    pub(super) zone: TimeZone,
    pub(super) holidays: BTreeSet<Date>,
}

/// How long, in the calendar's own measures.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    /// ISO-8601: `P60D`, `P3Y`, `PT36H`.
    Span(Span),
    /// So many whole working days after the day it starts on.
    WorkingDays(u16),
}

const MOST_WORKING_DAYS: u16 = 1_000;
const WORKING_DAYS: &str = " working days";

impl Length {
    pub(super) fn parse(text: &str) -> Result<Self, Reason> {
        if let Some(count) = text.strip_suffix(WORKING_DAYS) {
            let count = count.parse().ok().filter(|count| (1..=MOST_WORKING_DAYS).contains(count));
            return count.map(Self::WorkingDays).ok_or_else(|| Reason::NotWorkingDays(text.to_owned()));
        }
        let span = SpanParser::new().parse_span(text).map_err(|_| Reason::NotADuration(text.to_owned()))?;
        if span.is_negative() {
            return Err(Reason::NotPositive);
        }
        let (start, century) = (date(2000, 1, 1), date(2100, 1, 1));
        match start.to_datetime(Time::midnight()).checked_add(span) {
            Ok(end) if end <= century.to_datetime(Time::midnight()) => Ok(Self::Span(span)),
            _ => Err(Reason::Endless),
        }
    }

    pub(super) fn is_nothing(self) -> bool {
        matches!(self, Self::Span(span) if span.is_zero())
    }
}

impl Calendar {
    /// `start` moved on by `length`. Past the end of the calendar: its end.
    pub(super) fn later(&self, start: Timestamp, length: Length) -> Timestamp {
        let zoned = start.to_jiff().to_zoned(self.zone.clone());
        let moved = match length {
            Length::Span(span) => zoned.checked_add(span).ok(),
            Length::WorkingDays(count) => self.working_day(zoned.date(), count).and_then(|day| {
                let at = day.to_datetime(zoned.time());
                self.zone.to_ambiguous_zoned(at).compatible().ok()
            }),
        };
        Timestamp::from_jiff(moved.map_or(jiff::Timestamp::MAX, |zoned| zoned.timestamp()))
    }

    /// The zone's name in the IANA database.
    pub(super) fn name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The listed holidays.
    pub(super) fn days(&self) -> String {
        self.holidays.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The `count`-th working day after `day`, which itself does not count.
    fn working_day(&self, mut day: Date, count: u16) -> Option<Date> {
        // Every turn goes one day on, and there are no more idle days than weekends and listed holidays.
        for _ in 0..count {
            day = day.tomorrow().ok()?;
            while self.is_idle(day) {
                day = day.tomorrow().ok()?;
            }
        }
        Some(day)
    }

    fn is_idle(&self, day: Date) -> bool {
        let is_weekend = matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday);
        is_weekend || self.holidays.contains(&day) || self.is_skipped(day)
    }

    /// A day that the zone left out of its calendar when it moved across the date line: nobody worked on it.
    fn is_skipped(&self, day: Date) -> bool {
        let noon = day.to_datetime(Time::constant(12, 0, 0, 0));
        matches!(self.zone.to_ambiguous_zoned(noon).offset(), AmbiguousOffset::Gap { .. })
    }

    /// Every sixth hour of the fortnight before each listed holiday.
    pub(super) fn around_holidays(&self) -> impl Iterator<Item = Timestamp> {
        let noon = Time::constant(12, 0, 0, 0);
        let noons = self.holidays.iter().filter_map(move |day| {
            Some(Timestamp::from_jiff(
                self.zone.to_ambiguous_zoned(day.to_datetime(noon)).compatible().ok()?.timestamp(),
            ))
        });
        noons.flat_map(|noon| (0..14 * 4).map(move |step| noon.plus(-step * 6 * HOUR)))
    }

    /// Every seventh hour of nine years: every month, leap day, weekend and change of clocks, at every time of day. Where two
    /// lengths or calendars lead to different ends, they do so from one of these.
    pub(super) fn samples() -> impl Iterator<Item = Timestamp> {
        // 2023-01-01T00:00:00Z.
        const FIRST: i64 = 1_672_531_200_000_000;
        (0..9 * 366 * 24 / 7).map(|step| Timestamp(FIRST + step * 7 * HOUR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(zone: &str, holidays: &[&str]) -> Calendar {
        let holidays = holidays.iter().map(|day| day.parse().unwrap()).collect();
        Calendar { zone: TimeZone::get(zone).unwrap(), holidays }
    }

    fn later(calendar: &Calendar, start: &str, length: &str) -> String {
        let start = Timestamp::from_jiff(start.parse().unwrap());
        let end = calendar.later(start, Length::parse(length).unwrap());
        end.to_jiff().to_zoned(calendar.zone.clone()).strftime("%F %H:%M %a").to_string()
    }

    #[test]
    fn working_days_skip_weekends_and_the_listed_holidays() {
        // 2026-10-01 is a Thursday; the first week of October is a holiday in China.
        let week = ["2026-10-01", "2026-10-02", "2026-10-05", "2026-10-06", "2026-10-07"];
        let (plain, golden) = (calendar("Asia/Shanghai", &[]), calendar("Asia/Shanghai", &week));
        for (start, count, without, with) in [
            ("2026-09-30T10:00:00+08:00", "1 working days", "2026-10-01 10:00 Thu", "2026-10-08 10:00 Thu"),
            ("2026-09-30T10:00:00+08:00", "3 working days", "2026-10-05 10:00 Mon", "2026-10-12 10:00 Mon"),
            ("2026-10-03T23:59:00+08:00", "1 working days", "2026-10-05 23:59 Mon", "2026-10-08 23:59 Thu"),
            ("2026-09-25T00:00:00+08:00", "5 working days", "2026-10-02 00:00 Fri", "2026-10-09 00:00 Fri"),
        ] {
            assert_eq!(later(&plain, start, count), without, "{start} + {count}");
            assert_eq!(later(&golden, start, count), with, "{start} + {count}, with holidays");
        }
    }

    #[test]
    fn a_working_day_begins_in_the_shops_zone() {
        // Friday evening in New York is Saturday in UTC.
        let start = "2026-01-10T01:00:00Z";
        assert_eq!(later(&calendar("America/New_York", &[]), start, "1 working days"), "2026-01-12 20:00 Mon");
        assert_eq!(later(&calendar("UTC", &[]), start, "1 working days"), "2026-01-12 01:00 Mon");
    }

    #[test]
    fn working_days_keep_their_hour_when_clocks_change() {
        // Berlin's clocks go forward on Sunday 2026-03-29; Cairo's at midnight of Friday 2026-04-24: that hour is not there.
        assert_eq!(
            later(&calendar("Europe/Berlin", &[]), "2026-03-27T11:30:00+01:00", "1 working days"),
            "2026-03-30 11:30 Mon"
        );
        let cairo = calendar("Africa/Cairo", &[]);
        assert_eq!(later(&cairo, "2026-04-23T00:30:00+02:00", "1 working days"), "2026-04-24 01:30 Fri");
    }

    #[test]
    fn a_day_that_a_zone_left_out_is_no_working_day_and_no_day_ends_before_its_time() {
        // Samoa went from Thursday 2011-12-29 to Saturday 2011-12-31.
        let apia = calendar("Pacific/Apia", &[]);
        for (length, end) in [
            ("1 working days", "2012-01-02 10:00 Mon"),
            ("2 working days", "2012-01-03 10:00 Tue"),
            ("P1D", "2011-12-31 10:00 Sat"),
            ("PT24H", "2011-12-31 10:00 Sat"),
        ] {
            assert_eq!(later(&apia, "2011-12-29T10:00:00-10:00", length), end, "{length}");
        }
    }

    #[test]
    fn a_calendar_without_end_is_survived() {
        let end = calendar("UTC", &[]).later(Timestamp(i64::MAX), Length::WorkingDays(3));
        assert_eq!(end, Timestamp::from_jiff(jiff::Timestamp::MAX));
    }
}
