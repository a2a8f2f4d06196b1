//! A thousand orders lived day by day under each of the three policies, against an oracle in Python that was written from the
//! policies' published sentences, not from this code (`tests/oracle/retention.py`).
//!
//! `STRONGROOM_FULL=1` lives 20,000 under each; `STRONGROOM_SEED` replays a run. Without `python3` the tests say so and pass;
//! `STRONGROOM_ORACLE=required` makes that a failure. Planted faults: everything due a day early; and, once by hand, a cap and a
//! grace a month off, a refund not waited for by the timer or by the customer's wish, the three years not begun anew by a closing,
//! Saturdays and holidays taken for working days, the first of several parcels counted, a minor's record kept for two days, a year a
//! day too long: each turned these tests red.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use common::{House, START, order, wire_time};
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use serde_json::{Value, json};
use strongroom::crypto::entropy::{SeededEntropy, array};
use strongroom::domain::time::{Clock as _, DAY, MINUTE, Timestamp};
use strongroom::domain::vocabulary::{Class, EventKind};
use strongroom::policy::facts::{Event, Facts};
use strongroom::policy::retention::{Parameters, Policy};
use strongroom::rpc::proto::{DescribeRequest, Field, RecordState, ReportEventRequest};

/// A shop that lives by one of the policies, with its own figures.
struct Shop {
    name: &'static str,
    zone: &'static str,
    hours: i8,
    parameters: &'static [(&'static str, i64)],
    /// What the policy's sentences leave to the shop, for the oracle.
    figures: Value,
}

/// Two days a month on which nobody works.
fn holidays() -> Vec<String> {
    let months = (2026..2031).flat_map(|year| (1..=12).map(move |month| format!("{year}-{month:02}")));
    months.flat_map(|month| [format!("{month}-15"), format!("{month}-16")]).collect()
}

fn shops() -> [Shop; 5] {
    let kitchenware = |zone, hours, days: &'static [(&'static str, i64)], count| Shop {
        name: "kitchenware",
        zone,
        hours,
        parameters: days,
        figures: json!({ "cap_months": 12, "working_days": count }),
    };
    [
        kitchenware("UTC", 0, &[], 10),
        kitchenware("Asia/Shanghai", 8, &[("working_days", 7)], 7),
        Shop {
            name: "general",
            zone: "UTC",
            hours: 0,
            parameters: &[("years", 2)],
            figures: json!({ "years": 2, "grace_months": 6 }),
        },
        Shop { name: "cross-border", zone: "UTC", hours: 0, parameters: &[], figures: json!({ "cap_months": 72 }) },
        Shop {
            name: "cross-border",
            zone: "America/Bogota",
            hours: -5,
            parameters: &[],
            figures: json!({ "cap_months": 72 }),
        },
    ]
}

impl Shop {
    fn policy(&self) -> Policy {
        let (_, text) = Policy::BUILTIN.iter().find(|(name, _)| *name == self.name).unwrap();
        let days: Vec<String> = holidays().iter().map(|day| format!("\"{day}\"")).collect();
        let text = text.replace("zone = \"UTC\"", &format!("zone = \"{}\"", self.zone));
        let text = text.replace("holidays = []", &format!("holidays = [{}]", days.join(", ")));
        let parameters: Parameters = self.parameters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Policy::parse_with(&text, &parameters).unwrap()
    }

    fn zone(&self) -> TimeZone {
        TimeZone::fixed(Offset::constant(self.hours))
    }

    fn local(&self, at: Timestamp) -> String {
        at.to_jiff().to_zoned(self.zone()).strftime("%Y-%m-%dT%H:%M").to_string()
    }

    /// The first instant of a day.
    fn midnight(&self, day: Date) -> Timestamp {
        Timestamp::from_jiff(day.to_zoned(self.zone()).unwrap().timestamp())
    }

    fn day(&self, at: Timestamp) -> Date {
        at.to_jiff().to_zoned(self.zone()).date()
    }
}

/// One order, and what the shop tells of it, in the order of telling.
struct Life {
    stored: Timestamp,
    events: Vec<Event>,
}

struct Dice(SeededEntropy);

impl Dice {
    fn below(&self, end: i64) -> i64 {
        i64::try_from(u64::from_be_bytes(array(&self.0)) % u64::try_from(end).unwrap()).unwrap()
    }

    fn happens(&self, percent: i64) -> bool {
        self.below(100) < percent
    }

    /// So many days, and a time of day.
    fn days(&self, from: i64, to: i64) -> i64 {
        (from + self.below(to - from)) * DAY + self.below(24 * 60) * MINUTE
    }

    fn life(&self, first: Timestamp, storing_days: i64) -> Life {
        use EventKind::*;
        let stored = first.plus(self.days(0, storing_days));
        let mut told: Vec<(EventKind, u32, i64)> = vec![(Placed, 0, 0)];
        let mut last = self.days(1, 20);
        for parcel in 0..self.below(3) {
            told.push((Dispatched, parcel as u32, self.days(0, 5)));
            last = last.max(self.days(4, 25));
            told.push((Delivered, parcel as u32, last));
        }
        if self.happens(70) {
            told.push((Completed, 0, last + self.days(0, 12)));
        }
        if self.happens(15) {
            told.push((Cancelled, 0, self.days(0, 12)));
        }
        // Now and then what is open stays open for years.
        let long = if self.happens(10) { 900 } else { 80 };
        for number in 0..self.below(3) {
            let opened = last + self.days(0, long);
            told.push((AfterSalesOpened, number as u32, opened));
            if self.happens(85) {
                let closed = opened + self.days(0, long);
                told.push((AfterSalesClosed, number as u32, closed));
                if self.happens(15) {
                    told.push((AfterSalesOpened, number as u32, closed + self.days(0, 30)));
                }
            }
        }
        if self.happens(40) {
            let opened = last + self.days(0, 70);
            told.push((RefundOpened, 0, opened));
            if self.happens(90) {
                told.push((RefundSettled, 0, opened + self.days(5, 11)));
            }
        }
        for (kind, percent, latest) in
            [(ClearingRequested, 20, 200), (AccountCancelled, 15, 300), (MinorFound, 4, 300), (AccountActive, 10, 99)]
        {
            if self.happens(percent) {
                told.push((kind, 0, self.days(1, latest)));
            }
        }
        let mut events: Vec<Event> =
            told.into_iter().map(|(kind, ordinal, after)| self.told(stored, kind, ordinal, after)).collect();
        // Some say the same again, or another date for it.
        for again in 0..events.len() {
            if self.happens(8) {
                let Event { kind, ordinal, occurred_at, .. } = events[again];
                let moved = occurred_at.since(stored) + self.days(0, 3) - 2 * DAY;
                events.push(self.told(stored, kind, ordinal, moved.max(0)));
            }
        }
        events.sort_by_key(|event| event.recorded_at);
        Life { stored, events }
    }

    /// An event, heard of at once or up to three weeks later.
    fn told(&self, stored: Timestamp, kind: EventKind, ordinal: u32, after: i64) -> Event {
        let occurred_at = stored.plus(after);
        let late = if self.happens(60) { MINUTE } else { self.days(0, 21) + MINUTE };
        Event { kind, ordinal, occurred_at, recorded_at: occurred_at.plus(late) }
    }
}

/// The day at whose end the order is gone, by our own engine.
fn lived(shop: &Shop, policy: &Policy, life: &Life) -> Date {
    let mut facts = Facts::new(Class::Order, life.stored);
    let mut due = policy.due(&facts).unwrap().at;
    let mut told = life.events.iter().peekable();
    let mut today = shop.day(life.stored);
    loop {
        let tomorrow = today.tomorrow().unwrap();
        let midnight = shop.midnight(tomorrow);
        while let Some(event) = told.next_if(|event| event.recorded_at < midnight) {
            // What comes too late changes nothing.
            if event.recorded_at < due {
                facts.record(*event).unwrap();
                due = policy.due(&facts).unwrap().at;
            }
        }
        if due < midnight {
            return today;
        }
        today = tomorrow;
    }
}

/// The days the oracle says; `None`: there is no Python here, and nobody insists.
fn told_by_the_oracle(shop: &Shop, lives: &[Life]) -> Option<Vec<Date>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/retention.py");
    let child = Command::new("python3").arg("-B").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        assert!(std::env::var("STRONGROOM_ORACLE").as_deref() != Ok("required"), "there is no python3");
        println!("skipped: there is no python3 to ask the oracle with");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let lines: Vec<String> = lives.iter().map(|life| line(shop, life)).collect();
    let writer = std::thread::spawn(move || lines.iter().try_for_each(|line| writeln!(stdin, "{line}")).unwrap());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the oracle failed; its error is above");
    writer.join().unwrap();
    let days: Vec<Date> = String::from_utf8(output.stdout).unwrap().lines().map(|day| day.parse().unwrap()).collect();
    assert_eq!(days.len(), lives.len());
    Some(days)
}

fn line(shop: &Shop, life: &Life) -> String {
    let events = life.events.iter().map(|event| {
        json!([event.kind.as_str(), event.ordinal, shop.local(event.occurred_at), shop.local(event.recorded_at)])
    });
    let holidays = if shop.name == "kitchenware" { holidays() } else { Vec::new() };
    json!({
        "policy": shop.name,
        "stored": shop.local(life.stored),
        "shop": shop.figures,
        "holidays": holidays,
        "events": events.collect::<Vec<_>>(),
    })
    .to_string()
}

fn dice() -> Dice {
    let seed = std::env::var("STRONGROOM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from_be_bytes(array(&strongroom::crypto::entropy::OsEntropy)));
    println!("replay with STRONGROOM_SEED={seed}");
    Dice(SeededEntropy::new(seed))
}

fn is_full() -> bool {
    std::env::var_os("STRONGROOM_FULL").is_some()
}

#[test]
fn every_order_goes_on_the_day_that_the_policys_sentences_say() {
    let dice = dice();
    let count = if is_full() { 20_000 } else { 1_000 };
    for shop in shops() {
        let policy = shop.policy();
        // Stored on any day of four years, a leap day among them.
        let lives: Vec<Life> = (0..count).map(|_| dice.life(START, 1_461)).collect();
        let Some(oracle) = told_by_the_oracle(&shop, &lives) else { return };
        let mut ages = BTreeMap::<i64, usize>::new();
        for (life, oracle) in lives.iter().zip(oracle) {
            let ours = lived(&shop, &policy, life);
            assert_eq!(ours, oracle, "{} in {}: {}", shop.name, shop.zone, line(&shop, life));
            *ages.entry(shop.midnight(ours).since(life.stored) / DAY / 100).or_default() += 1;
        }
        let ages: Vec<String> = ages.iter().map(|(age, count)| format!("{}: {count}", age * 100)).collect();
        println!("{count} orders under {} in {} agree; by age in days: {}", shop.name, shop.zone, ages.join(", "));
    }
}

/// The same through the whole vault: stored, told and swept, over the wire.
fn orders_in_the_vault_go_on_the_oracles_days(shop: &Shop) {
    let dice = dice();
    let count = if is_full() { 1_000 } else { 60 };
    let mut lives: Vec<Life> = (0..count).map(|_| dice.life(START, 40)).collect();
    lives.sort_by_key(|life| life.stored);
    let Some(oracle) = told_by_the_oracle(shop, &lives) else { return };
    let house = House::under(shop.policy());
    let (mut tokens, mut lifecycle) = (house.tokens(), house.lifecycle());
    let mut tale: Vec<(Timestamp, usize, Option<Event>)> = Vec::new();
    for (n, life) in lives.iter().enumerate() {
        tale.push((life.stored, n, None));
        tale.extend(life.events.iter().map(|event| (event.recorded_at, n, Some(*event))));
    }
    tale.sort_by_key(|(at, n, event)| (*at, *n, event.is_some()));
    let mut tale = tale.into_iter().peekable();
    let mut stored: BTreeMap<usize, String> = BTreeMap::new();
    let (mut today, last) = (shop.day(START), *oracle.iter().max().unwrap());
    while today <= last {
        let midnight = shop.midnight(today.tomorrow().unwrap());
        while let Some((at, n, event)) = tale.next_if(|(at, ..)| *at < midnight) {
            house.clock.advance(at.since(house.clock.now()));
            let Some(event) = event else {
                let mut request = order(n);
                request.fields.retain(|value| shop.name == "kitchenware" || value.field() != Field::PaymentAccount);
                stored.insert(n, house.run(tokens.tokenize(request)).unwrap().into_inner().token);
                continue;
            };
            let request = ReportEventRequest {
                idempotency_key: format!("{n}-{}-{}-{}-{}", event.kind, event.ordinal, event.occurred_at.0, at.0),
                token: stored[&n].clone(),
                kind: i32::from(event.kind.code()),
                ordinal: event.ordinal,
                occurred_at: Some(wire_time(event.occurred_at)),
            };
            // Some come too late, as they do in the oracle.
            let _ = house.run(lifecycle.report_event(request));
        }
        // The last microsecond of the day.
        house.clock.advance(midnight.plus(-1).since(house.clock.now()));
        let expected: Vec<usize> = (0..count).filter(|n| oracle[*n] == today).collect();
        assert_eq!(house.sweep(), expected.len(), "{} on {today}: {expected:?}", shop.name);
        for n in expected {
            let request = DescribeRequest { token: stored[&n].clone() };
            let state = house.run(tokens.describe(request)).unwrap().into_inner().state();
            assert_eq!(state, RecordState::Erased, "{} on {today}: {}", shop.name, line(shop, &lives[n]));
        }
        today = today.tomorrow().unwrap();
    }
    let status = house.vault().store().read(|view| view.counts(house.clock.now())).unwrap();
    assert_eq!((status.records, stored.len()), (0, count), "all are gone");
}

#[test]
fn orders_in_the_vault_go_on_the_oracles_days_under_the_kitchenware_policy() {
    orders_in_the_vault_go_on_the_oracles_days(&shops()[0]);
}

#[test]
fn orders_in_the_vault_go_on_the_oracles_days_under_the_general_policy() {
    orders_in_the_vault_go_on_the_oracles_days(&shops()[2]);
}

#[test]
fn orders_in_the_vault_go_on_the_oracles_days_under_the_cross_border_policy() {
    orders_in_the_vault_go_on_the_oracles_days(&shops()[3]);
}

#[cfg(feature = "planted")]
#[test]
fn planted_due_early_is_found_by_the_oracle() {
    if Command::new("python3").arg("--version").output().is_err() {
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "every_order_goes_on_the_day_that_the_policys_sentences_say"])
        .env("STRONGROOM_PLANTED_FAULT", "due-early")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&[child.stdout, child.stderr].concat()).into_owned();
    assert!(!child.status.success() && printed.contains("left == right"), "{printed}");
}
