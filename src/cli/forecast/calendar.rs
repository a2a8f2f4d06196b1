//! A calendar of what goes, as SVG. INVARIANT: nothing is in it but dates, counts and what is said of a day, every character of which is
//! escaped; it reads in light and in dark, and without colours, for the figure stands in the day.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::civil::Date;

/// What goes on one day.
#[derive(Clone, Default)]
pub(super) struct Day {
    goes: u64,
    /// Kept by a hold beyond its time.
    held: u64,
    /// How many of what.
    kinds: BTreeMap<String, u64>,
}

pub(super) struct Calendar {
    first: Date,
    last: Date,
    days: BTreeMap<Date, Day>,
}

const CELL: i32 = 38;
const MONTH: i32 = 7 * CELL + 24;
const MONTH_HEIGHT: i32 = 6 * CELL + 62;
const COLUMNS: i32 = 3;
const MARGIN: i32 = 24;
const HEAD: i32 = 64;
const FOOT: i32 = 48;
/// Shades of a day, from few to many.
const SHADES: u32 = 4;

const STYLE: &str = "\
text{font-family:system-ui,sans-serif;font-size:11px;fill:#1f2328}.title{font-size:18px;font-weight:600}\
.month{font-size:13px;font-weight:600}.faint{font-size:9px;fill:#59636e}.count{font-weight:600;text-anchor:middle}\
.paper{fill:#ffffff}.c0{fill:#f0f2f4}.c1{fill:#fde4c3}.c2{fill:#fbbd79}.c3{fill:#ee8b45}.c4{fill:#c9581c}\
.held{fill:none;stroke:#0969da;stroke-width:2}.on4{fill:#ffffff}\
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9198a1}.paper{fill:#0d1117}.c0{fill:#1c2128}\
.c1{fill:#4a3015}.c2{fill:#75491a}.c3{fill:#a9611c}.c4{fill:#f0a35c}.held{stroke:#58a6ff}.on4{fill:#0d1117}}";

impl Calendar {
    pub(super) fn new(first: Date, last: Date) -> Self {
        Self { first, last: last.max(first), days: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, day: Date, what: &str, count: u64, is_held: bool) {
        let day = self.days.entry(day).or_default();
        if is_held {
            day.held += count;
        } else {
            day.goes += count;
            *day.kinds.entry(what.to_owned()).or_default() += count;
        }
    }

    pub(super) fn svg(&self) -> String {
        let months = self.months();
        let count = i32::try_from(months.len()).unwrap_or(0);
        let (columns, rows) = (count.clamp(2, COLUMNS), (count + COLUMNS - 1) / COLUMNS);
        let (width, height) = (2 * MARGIN + columns * MONTH, HEAD + rows * MONTH_HEIGHT + FOOT);
        let title = format!("What disappears from {} to {}", self.first, self.last);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n"
        );
        let (goes, held) = self.days.values().fold((0, 0), |(goes, held), day| (goes + day.goes, held + day.held));
        put_text(&mut out, (MARGIN, 32), "title", &title);
        put_text(
            &mut out,
            (MARGIN, 50),
            "faint",
            &format!("{goes} go, {held} are held; whole records and parts of records, each once"),
        );
        for (number, month) in (0..).zip(months) {
            let at = (MARGIN + number % COLUMNS * MONTH, HEAD + number / COLUMNS * MONTH_HEIGHT);
            self.month(&mut out, month, at);
        }
        self.legend(&mut out, height - FOOT + 16);
        out.push_str("</svg>\n");
        out
    }

    /// The first days of the months that are drawn.
    fn months(&self) -> Vec<Date> {
        let mut months = vec![self.first.first_of_month()];
        while let Some(last) = months.last()
            && let Ok(next) = last.last_of_month().tomorrow()
            && next <= self.last
        {
            months.push(next);
        }
        months
    }

    fn month(&self, out: &mut String, month: Date, (x, y): (i32, i32)) {
        put_text(out, (x, y + 16), "month", &month.strftime("%B %Y").to_string());
        for (column, name) in (0..).zip(["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"]) {
            put_text(out, (x + column * CELL + 3, y + 34), "faint", name);
        }
        let before = i32::from(month.weekday().to_monday_zero_offset());
        for date in month.series(jiff::ToSpan::day(1)).take_while(|date| date.month() == month.month()) {
            let place = before + i32::from(date.day()) - 1;
            let at = (x + place % 7 * CELL, y + 40 + place / 7 * CELL);
            if self.first <= date && date <= self.last {
                self.day(out, date, at);
            } else {
                put_text(out, (at.0 + 3, at.1 + 11), "faint", &date.day().to_string());
            }
        }
    }

    fn day(&self, out: &mut String, date: Date, (x, y): (i32, i32)) {
        let nothing = Day::default();
        let day = self.days.get(&date).unwrap_or(&nothing);
        let (shade, side) = (self.shade(day.goes), CELL - 3);
        let _ = writeln!(out, "<g><title>{}</title>", escaped(&told(date, day)));
        let _ =
            writeln!(out, "<rect class=\"c{shade}\" x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" rx=\"4\"/>");
        if day.held > 0 {
            let (x, y, side) = (x + 1, y + 1, side - 2);
            let _ =
                writeln!(out, "<rect class=\"held\" x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" rx=\"3\"/>");
        }
        let on = if shade == SHADES { " on4" } else { "" };
        put_text(out, (x + 3, y + 11), &format!("faint{on}"), &date.day().to_string());
        if day.goes > 0 {
            put_text(out, (x + side / 2, y + 27), &format!("count{on}"), &short(day.goes));
        }
        out.push_str("</g>\n");
    }

    /// The fewest that have a shade: each takes half as many as the next, and the last more than half of the most.
    fn least(&self, shade: u32) -> u64 {
        let most = self.days.values().map(|day| day.goes).max().unwrap_or(0);
        if shade <= 1 { shade.into() } else { (most >> (SHADES - shade + 1)) + 1 }
    }

    fn shade(&self, count: u64) -> u32 {
        (0..=SHADES).rev().find(|shade| self.least(*shade) <= count).unwrap_or(0)
    }

    fn legend(&self, out: &mut String, y: i32) {
        let mut x = MARGIN;
        // A shade whose least is the next one's is no day's.
        for shade in (0..=SHADES).filter(|shade| *shade == SHADES || self.least(*shade) < self.least(shade + 1)) {
            let least = if shade == 0 { "none".to_owned() } else { format!("{} or more", short(self.least(shade))) };
            let _ = writeln!(out, "<rect class=\"c{shade}\" x=\"{x}\" y=\"{y}\" width=\"14\" height=\"14\" rx=\"3\"/>");
            put_text(out, (x + 20, y + 11), "faint", &least);
            x += 84;
        }
        let _ =
            writeln!(out, "<rect class=\"held\" x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" rx=\"2\"/>", x + 1, y + 1);
        put_text(out, (x + 20, y + 11), "faint", "some held");
    }
}

/// `2026-03-06: 12 order record desensitized, 3 order phone shredded; 1 held`.
fn told(date: Date, day: &Day) -> String {
    let kinds: Vec<String> = day.kinds.iter().map(|(what, count)| format!("{count} {what}")).collect();
    let goes = if kinds.is_empty() { "nothing goes".to_owned() } else { kinds.join(", ") };
    if day.held == 0 { format!("{date}: {goes}") } else { format!("{date}: {goes}; {} held", day.held) }
}

/// A count in five characters at most, never too high.
fn short(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{}k", count / 1_000),
        _ => format!("{}M", count / 1_000_000),
    }
}

fn put_text(out: &mut String, (x, y): (i32, i32), class: &str, text: &str) {
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(text));
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            letter if letter.is_control() => out.push('?'),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn march() -> Calendar {
        let mut calendar = Calendar::new(date(2026, 2, 25), date(2026, 3, 10));
        calendar.add(date(2026, 3, 1), "order record desensitized", 64, false);
        calendar.add(date(2026, 3, 2), "order phone shredded", 3, false);
        calendar.add(date(2026, 3, 2), "order record purged", 2, true);
        calendar
    }

    #[test]
    fn every_day_of_the_time_stands_once_with_its_figure_and_what_goes() {
        let svg = march().svg();
        let days: Vec<_> = svg.lines().filter(|line| line.starts_with("<g><title>")).collect();
        assert_eq!(days.len(), 4 + 10);
        assert!(svg.contains("<g><title>2026-03-01: 64 order record desensitized</title>"));
        assert!(svg.contains("<g><title>2026-03-02: 3 order phone shredded; 2 held</title>"));
        assert!(svg.contains("<g><title>2026-03-03: nothing goes</title>"));
        assert!(svg.contains(">64</text>") && svg.contains(">3</text>") && svg.contains("67 go, 2 are held"));
        assert_eq!(svg.matches("class=\"month\"").count(), 2);
        assert!(svg.contains(">February 2026<") && svg.contains(">March 2026<"));
        assert_eq!(svg.matches("class=\"held\"").count(), 2, "the day's and the legend's");
    }

    #[test]
    fn a_shade_is_what_the_legend_says_it_is() {
        let calendar = march();
        for (count, shade) in [(0, 0), (1, 1), (8, 1), (9, 2), (16, 2), (17, 3), (32, 3), (33, 4), (64, 4)] {
            assert_eq!(calendar.shade(count), shade, "{count}");
        }
        let svg = calendar.svg();
        for told in ["none", "1 or more", "9 or more", "17 or more", "33 or more"] {
            assert!(svg.contains(&format!(">{told}<")), "{told}");
        }
    }

    #[test]
    fn a_year_has_all_its_months_and_an_empty_calendar_its_days() {
        let svg = Calendar::new(date(2028, 1, 31), date(2029, 3, 6)).svg();
        assert_eq!((svg.matches("class=\"month\"").count(), svg.matches("<g><title>").count()), (15, 401));
        assert!(svg.contains("2028-02-29"));
    }

    /// Elements that are opened and closed in turn, and no character that is markup by accident.
    fn open_elements(svg: &str) -> Vec<String> {
        let mut open = Vec::new();
        for piece in svg.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').unwrap();
            assert!(!text.contains('>') && !text.replace("&amp;", "").replace("&lt;", "").contains("& "), "{text}");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop().as_deref(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap().to_owned()),
            }
        }
        open
    }

    #[test]
    fn what_is_said_of_a_day_is_text_and_never_markup() {
        let mut calendar = march();
        calendar.add(date(2026, 3, 4), "</title><script>\"&\u{1b}", 1, false);
        let svg = calendar.svg();
        assert!(svg.contains("&lt;/title&gt;&lt;script&gt;&quot;&amp;?"));
        assert_eq!(open_elements(&svg), [""; 0]);
        assert!(std::panic::catch_unwind(|| open_elements("<svg><g></svg>")).is_err(), "the check can fail");
    }

    #[test]
    fn a_count_fits_its_day_and_is_never_told_too_high() {
        for (count, told) in [(7, "7"), (9_999, "9999"), (10_999, "10k"), (999_999, "999k"), (1_999_999, "1M")] {
            assert_eq!(short(count), told);
        }
    }
}
