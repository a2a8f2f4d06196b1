//! Claims about every policy and every life, drawn at random. INVARIANT: what a policy allows is read off the figures that it was
//! drawn from, by a reading of its sentences that shares no code with what it checks: dates are walked through on the zone's own
//! calendar, six hours at a time.
//!
//! `STRONGROOM_FULL=1` draws forty times as many; `STRONGROOM_SEED=<printed seed>` repeats a run.

use super::*;
use crate::domain::time::{DAY, HOUR, SECOND};
use jiff::ToSpan as _;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use std::collections::BTreeSet;

/// A length of time, as it is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Drawn {
    Days(i64),
    Hours(i64),
    Working(usize),
}

/// Where a shop is, and when a record of it was stored.
#[derive(Clone, Debug)]
struct Place {
    zone: &'static str,
    stored: Timestamp,
    holidays: BTreeSet<Date>,
}

/// A policy of one class, as it is drawn.
#[derive(Clone, Debug)]
struct DrawnPolicy {
    place: Place,
    class: Class,
    whole: DrawnRule,
    /// The whole record's; of `whole` it is not read.
    cap: Drawn,
    on_request: Option<(BTreeMap<EventKind, Drawn>, Vec<Matter>)>,
    stages: BTreeMap<Piece, DrawnRule>,
}

#[derive(Clone, Debug)]
struct DrawnRule {
    after: BTreeMap<EventKind, Drawn>,
    wait_for: Vec<Matter>,
    after_closing: Option<Drawn>,
    inactive_after: Option<Drawn>,
    at_latest: BTreeMap<EventKind, Drawn>,
    /// A piece's own.
    cap: Option<Drawn>,
}

fn any_length(most: i64) -> impl Strategy<Value = Drawn> {
    prop_oneof![
        3 => (1..most).prop_map(Drawn::Days),
        1 => (1..most * 24).prop_map(Drawn::Hours),
        1 => (1..30_usize).prop_map(Drawn::Working),
    ]
}

fn any_place() -> impl Strategy<Value = Place> {
    // The first month of the zone's most remarkable year: clocks that change, at midnight too, and a day that is not there.
    let zones = vec![
        ("UTC", "2026-01-05T00:00:00Z"),
        ("Europe/Berlin", "2026-03-14T11:30:00Z"),
        ("America/New_York", "2026-09-20T01:30:00Z"),
        ("Africa/Cairo", "2026-04-09T22:00:00Z"),
        ("Pacific/Apia", "2011-12-12T20:00:00Z"),
    ];
    let holidays = btree_set(0..120_i64, 0..6);
    (select(zones), holidays).prop_map(|((zone, stored), days)| {
        let stored = time(stored);
        let date = |day| stored.plus(day * DAY).to_jiff().to_zoned(TimeZone::UTC).date();
        Place { zone, stored, holidays: days.into_iter().map(date).collect() }
    })
}

fn any_terms() -> impl Strategy<Value = BTreeMap<EventKind, Drawn>> {
    btree_map(select(EventKind::ALL), any_length(120), 0..4)
}

fn any_matters() -> impl Strategy<Value = Vec<Matter>> {
    subsequence(Matter::ALL.to_vec(), 0..=2)
}

fn any_rule() -> impl Strategy<Value = DrawnRule> {
    let lengths = (option::of(any_length(90)), option::of(any_length(200)), option::of(any_length(300)));
    (any_terms(), any_matters(), lengths, any_terms()).prop_map(
        |(after, wait_for, (after_closing, inactive_after, cap), at_latest)| DrawnRule {
            after_closing: after_closing.filter(|_| !wait_for.is_empty()),
            after,
            wait_for,
            inactive_after,
            at_latest,
            cap,
        },
    )
}

fn any_policy() -> impl Strategy<Value = DrawnPolicy> {
    let request = option::of((btree_map(select(EventKind::ALL), any_length(120), 1..3), any_matters()));
    let pieces = select(vec![Piece::Whole(Field::Phone), Piece::Whole(Field::Email), Piece::AddressLines]);
    let stages = btree_map(pieces, any_rule(), 0..3);
    (any_place(), select(Class::ALL), any_rule(), any_length(500), request, stages).prop_map(
        |(place, class, whole, cap, on_request, mut stages)| {
            stages.retain(|_, rule| {
                rule.after.len() + rule.at_latest.len() > 0 || rule.inactive_after.is_some() || rule.cap.is_some()
            });
            DrawnPolicy { place, class, whole, cap, on_request, stages }
        },
    )
}

impl std::fmt::Display for Drawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Days(days) => write!(f, "P{days}D"),
            Self::Hours(hours) => write!(f, "PT{hours}H"),
            Self::Working(days) => write!(f, "{days} working days"),
        }
    }
}

impl Place {
    fn local(&self, at: Timestamp) -> DateTime {
        at.to_jiff().to_zoned(TimeZone::get(self.zone).unwrap()).datetime()
    }

    /// Whether `length` after `start` is over at `at`, as somebody with a calendar on the wall would say.
    fn over(&self, start: Timestamp, length: Drawn, at: Timestamp) -> bool {
        let begun = self.local(start);
        let end = match length {
            Drawn::Hours(hours) => return start.plus(hours * HOUR) <= at,
            Drawn::Days(days) => begun.date().checked_add(days.days()).unwrap(),
            Drawn::Working(count) => {
                let mut days: Vec<Date> = Vec::new();
                let mut walked = start;
                // Only days that the zone has are walked through.
                while days.len() < count {
                    walked = walked.plus(6 * HOUR);
                    let day = self.local(walked).date();
                    let is_idle = matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday);
                    if day > begun.date() && !is_idle && !self.holidays.contains(&day) && days.last() != Some(&day) {
                        days.push(day);
                    }
                }
                *days.last().unwrap()
            }
        };
        let end = end.to_datetime(begun.time());
        // An hour that comes twice has been there the first time.
        at > start && (self.local(at) >= end || self.local(at.plus(-HOUR)) >= end)
    }
}

impl DrawnRule {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, length: &Drawn| text.push_str(&format!("{key} = '{length}'\n"));
        self.after.iter().for_each(|(kind, length)| line(&format!("after.{kind}"), length));
        self.at_latest.iter().for_each(|(kind, length)| line(&format!("at_latest.{kind}"), length));
        self.after_closing.iter().for_each(|length| line("after_closing", length));
        self.inactive_after.iter().for_each(|length| line("inactive_after", length));
        format!("{text}wait_for = [{}]\n", named(&self.wait_for))
    }

    /// Whether the rule, read as a sentence, lets something go at `at`.
    fn allows(&self, place: &Place, events: &[Event], at: Timestamp) -> bool {
        let of = |kind: EventKind| events.iter().filter(move |event| event.kind == kind);
        let over = |start: Timestamp, length: Drawn| place.over(start, length, at);
        let times = |kind: EventKind| of(kind).map(|event| event.occurred_at);
        // A deadline that has passed is enough; the first of several is what it runs from.
        if self.at_latest.iter().any(|(kind, length)| times(*kind).min().is_some_and(|first| over(first, *length))) {
            return true;
        }
        // Nothing that is waited for may be open, nor closed too lately.
        for matter in &self.wait_for {
            for opened in of(matter.opened()) {
                let closed = of(matter.closed()).filter(|closed| closed.ordinal == opened.ordinal);
                if !closed.into_iter().any(|closed| closed.occurred_at >= opened.occurred_at) {
                    return false;
                }
            }
        }
        // Of several closings, events or signs of life the last counts.
        let closings = self.wait_for.iter().flat_map(|matter| times(matter.closed()));
        let is_closed_lately = closings.max().is_some_and(|last| match self.after_closing {
            Some(length) => !over(last, length),
            None => last > at,
        });
        if is_closed_lately {
            return false;
        }
        let mut lasts = self.after.iter().filter_map(|(kind, length)| Some((times(*kind).max()?, *length))).peekable();
        let by_event = lasts.peek().is_some() && lasts.all(|(last, length)| over(last, length));
        let by_silence = self
            .inactive_after
            .is_some_and(|length| over(times(AccountActive).fold(place.stored, Timestamp::max), length));
        by_event || by_silence
    }
}

fn named(matters: &[Matter]) -> String {
    matters.iter().map(|matter| format!("'{}'", matter.as_str())).collect::<Vec<_>>().join(", ")
}

impl DrawnPolicy {
    fn policy(&self) -> Policy {
        let Self { place, class, whole, cap, on_request, stages } = self;
        let holidays: Vec<_> = place.holidays.iter().map(|day| format!("'{day}'")).collect();
        let mut text = format!(
            "id = 't'\nzone = '{}'\nholidays = [{}]\n[class.{class}]\nfields = ['phone', 'email', 'address']\n\
             action = 'purge'\ncap = '{cap}'\n{}",
            place.zone,
            holidays.join(", "),
            whole.text(),
        );
        if let Some((after, wait_for)) = on_request {
            text.push_str(&format!("[class.{class}.on_request]\nwait_for = [{}]\n", named(wait_for)));
            after.iter().for_each(|(kind, length)| text.push_str(&format!("after.{kind} = '{length}'\n")));
        }
        for (piece, rule) in stages {
            text.push_str(&format!("[class.{class}.field.{piece}]\n{}", rule.text()));
            rule.cap.iter().for_each(|cap| text.push_str(&format!("cap = '{cap}'\n")));
        }
        Policy::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn allows(&self, events: &[Event], at: Timestamp) -> bool {
        let (place, is_wish) = (&self.place, |event: &Event| event.kind == ClearingRequested);
        let asked = |(after, wait_for): &(BTreeMap<EventKind, Drawn>, Vec<Matter>)| {
            let (after, wait_for) = (after.clone(), wait_for.clone());
            let (after_closing, inactive_after, at_latest, cap) = (None, None, BTreeMap::new(), None);
            let rule = DrawnRule { after, wait_for, after_closing, inactive_after, at_latest, cap };
            events.iter().any(is_wish)
                && events.iter().all(|event| !is_wish(event) || event.occurred_at <= at)
                && rule.allows(place, events, at)
        };
        place.over(place.stored, self.cap, at)
            || self.whole.allows(place, events, at)
            || self.on_request.as_ref().is_some_and(asked)
    }

    fn allows_piece(&self, piece: Piece, events: &[Event], at: Timestamp) -> bool {
        let (place, rule) = (&self.place, self.stages.get(&piece).unwrap());
        rule.cap.is_some_and(|cap| place.over(place.stored, cap, at)) || rule.allows(place, events, at)
    }

    /// How far before its due something may seem to be over to whoever reads the wall: where clocks change, what falls into the
    /// hour or the day that is left out is reached late.
    fn slack(&self) -> i64 {
        match self.place.zone {
            "UTC" => 1,
            "Pacific/Apia" => 25 * HOUR,
            _ => HOUR + SECOND,
        }
    }
}

/// A life of up to 20 events, of the weeks before the storing, too, at any instant of a day; some are told of twice.
fn any_life(stored: Timestamp) -> impl Strategy<Value = Vec<Event>> {
    let event = (select(EventKind::ALL), 0..3u32, -30..400_i64, prop_oneof![Just(0), 0..DAY])
        .prop_map(move |(kind, ordinal, day, within)| happened(kind, ordinal, stored.plus(day * DAY + within)));
    vec(event, 0..20)
}

fn any_policy_and_lives(count: usize) -> impl Strategy<Value = (DrawnPolicy, Vec<Vec<Event>>)> {
    any_policy().prop_flat_map(move |drawn| {
        let lives = vec(any_life(drawn.place.stored), count);
        (Just(drawn), lives)
    })
}

/// The facts of a record that heard of these events in this order.
fn gathered(drawn: &DrawnPolicy, events: &[Event]) -> Facts {
    let mut facts = Facts::new(drawn.class, drawn.place.stored);
    for (heard, event) in (1_i64..).zip(events) {
        facts.record(Event { recorded_at: drawn.place.stored.plus(500 * DAY + heard), ..*event }).unwrap();
    }
    facts
}

/// Of what is told of the same parcel, case or refund more than once, the latest counts.
fn counted(events: &[Event]) -> Vec<Event> {
    let is_superseded = |event: &Event| {
        let same = events.iter().filter(|other| (other.kind, other.ordinal) == (event.kind, event.ordinal));
        same.into_iter().any(|other| other.occurred_at > event.occurred_at)
    };
    events.iter().filter(|event| !is_superseded(event)).copied().collect()
}

fn drawn<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>, claim: impl Fn(T) -> TestCaseResult) {
    let seed = std::env::var("STRONGROOM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) ^ 0x5eed_0000);
    println!("STRONGROOM_SEED={seed}");
    let cases = if std::env::var_os("STRONGROOM_FULL").is_some() { 20_000 } else { 500 };
    let bytes: Vec<u8> = seed.to_be_bytes().repeat(4);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, rng).run(&strategy, claim).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_order_of_arrival_does_not_matter() {
    let arrivals = any_policy_and_lives(1).prop_flat_map(|(drawn, mut lives)| {
        let events = lives.remove(0);
        let again = subsequence(events.clone(), 0..=events.len());
        let shuffled = again.prop_flat_map({
            let events = events.clone();
            move |again| Just([events.clone(), again].concat()).prop_shuffle()
        });
        (Just(drawn), Just(events), shuffled)
    });
    drawn(arrivals, |(drawn, events, shuffled)| {
        let policy = drawn.policy();
        let (facts, again) = (gathered(&drawn, &events), gathered(&drawn, &shuffled));
        prop_assert_eq!(policy.due(&facts), policy.due(&again));
        prop_assert_eq!(policy.stages(&facts), policy.stages(&again));
        Ok(())
    });
}

#[test]
fn nothing_is_due_before_the_policys_text_allows_and_all_is_once_it_does() {
    drawn(any_policy_and_lives(1), |(drawn, lives)| {
        let policy = drawn.policy();
        let facts = gathered(&drawn, &lives[0]);
        let events = counted(&lives[0]);
        let due = policy.due(&facts).unwrap();
        prop_assert!(drawn.allows(&events, due.at), "too early: {due:?}\n{}", policy.text());
        prop_assert!(!drawn.allows(&events, due.at.plus(-drawn.slack())), "too late: {due:?}\n{}", policy.text());
        let stages = policy.stages(&facts);
        for (piece, stage) in &stages {
            let allowed = |at| drawn.allows_piece(*piece, &events, at);
            prop_assert!(allowed(stage.at), "too early: {piece} {stage:?}\n{}", policy.text());
            prop_assert!(!allowed(stage.at.plus(-drawn.slack())), "too late: {piece} {stage:?}\n{}", policy.text());
            prop_assert!(stage.at < due.at);
        }
        for piece in drawn.stages.keys().filter(|piece| stages.iter().all(|(staged, _)| staged != *piece)) {
            let just_before = due.at.plus(-drawn.slack());
            prop_assert!(
                !drawn.allows_piece(*piece, &events, just_before),
                "{piece} is not told of: {due:?}\n{}",
                policy.text()
            );
        }
        Ok(())
    });
}

#[test]
fn what_a_diff_calls_no_shortening_ends_no_life_earlier() {
    // The new policy differs in one place, so that no other change is to blame.
    drawn((any_policy_and_lives(10), any_policy(), 0..7), |((old, lives), other, place)| {
        let mut new = old.clone();
        let is_waiting = !new.whole.wait_for.is_empty();
        match place {
            0 => new.whole.after = other.whole.after,
            1 if new.whole.after_closing.is_some() => new.whole.wait_for = Matter::ALL.to_vec(),
            1 => new.whole.wait_for = other.whole.wait_for,
            2 => new.whole.after_closing = other.whole.after_closing.filter(|_| is_waiting),
            3 => new.whole.inactive_after = other.whole.inactive_after,
            4 => new.whole.at_latest = other.whole.at_latest,
            5 => new.on_request = other.on_request,
            _ => new.cap = other.cap,
        }
        let (old_policy, new_policy) = (old.policy(), new.policy());
        let changes = diff(&old_policy, &new_policy);
        for events in lives {
            let facts = gathered(&old, &events);
            let (before, after) = (old_policy.due(&facts).unwrap().at, new_policy.due(&facts).unwrap().at);
            let says = |effect| changes.iter().any(|change| change.effect == effect || change.effect == Effect::Either);
            prop_assert!(after >= before || says(Effect::Hastened), "{changes:?}");
            prop_assert!(after <= before || says(Effect::Delayed), "{changes:?}");
        }
        Ok(())
    });
}
