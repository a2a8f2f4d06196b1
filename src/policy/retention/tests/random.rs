//! Claims about every policy and every life, drawn at random. INVARIANT: what a policy allows is read off the figures that it was
//! drawn from, in days, and never asked of the code.

use super::*;
use crate::domain::time::DAY;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::sample::{select, subsequence};

/// A policy of one class in days, as it is drawn.
#[derive(Clone, Debug)]
struct Drawn {
    class: Class,
    whole: DrawnRule,
    cap: i64,
    on_request: Option<(EventKind, i64)>,
    phone: Option<DrawnRule>,
}

#[derive(Clone, Debug)]
struct DrawnRule {
    after: BTreeMap<EventKind, i64>,
    wait_for: Vec<Matter>,
    after_closing: Option<i64>,
    inactive_after: Option<i64>,
    at_latest: BTreeMap<EventKind, i64>,
}

fn any_rule() -> impl Strategy<Value = DrawnRule> {
    let terms = || btree_map(select(EventKind::ALL), 1..120_i64, 0..4);
    let waits = subsequence(Matter::ALL.to_vec(), 0..=2);
    (terms(), waits, option::of(1..90_i64), option::of(1..200_i64), terms()).prop_map(
        |(after, wait_for, after_closing, inactive_after, at_latest)| DrawnRule {
            after_closing: after_closing.filter(|_| !wait_for.is_empty()),
            after,
            wait_for,
            inactive_after,
            at_latest,
        },
    )
}

fn any_policy() -> impl Strategy<Value = Drawn> {
    let request = option::of((select(EventKind::ALL), 1..120_i64));
    (select(Class::ALL), any_rule(), 1..500_i64, request, option::of(any_rule())).prop_map(
        |(class, whole, cap, on_request, phone)| Drawn {
            class,
            whole,
            cap,
            on_request,
            phone: phone.filter(|rule| rule.after.len() + rule.at_latest.len() > 0 || rule.inactive_after.is_some()),
        },
    )
}

impl DrawnRule {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, days: i64| text.push_str(&format!("{key} = 'P{days}D'\n"));
        self.after.iter().for_each(|(kind, days)| line(&format!("after.{kind}"), *days));
        self.at_latest.iter().for_each(|(kind, days)| line(&format!("at_latest.{kind}"), *days));
        self.after_closing.iter().for_each(|days| line("after_closing", *days));
        self.inactive_after.iter().for_each(|days| line("inactive_after", *days));
        let matters: Vec<_> = self.wait_for.iter().map(|matter| format!("'{}'", matter.as_str())).collect();
        format!("{text}wait_for = [{}]\n", matters.join(", "))
    }

    /// Whether the rule, read as a sentence, lets something go at `at`.
    fn allows(&self, events: &[Event], at: Timestamp) -> bool {
        let over = |start: Timestamp, days: i64| start.plus(days * DAY) <= at;
        let of = |kind: EventKind| events.iter().filter(move |event| event.kind == kind);
        // A deadline that has passed is enough.
        if self.at_latest.iter().any(|(kind, days)| of(*kind).any(|event| over(event.occurred_at, *days))) {
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
            if of(matter.closed()).any(|closed| !over(closed.occurred_at, self.after_closing.unwrap_or(0))) {
                return false;
            }
        }
        let mut starts =
            self.after.iter().flat_map(|(kind, days)| of(*kind).map(move |event| (event, *days))).peekable();
        let by_event = starts.peek().is_some() && starts.all(|(event, days)| over(event.occurred_at, days));
        let by_silence = self.inactive_after.is_some_and(|days| {
            over(time(STORED), days) && of(AccountActive).all(|event| over(event.occurred_at, days))
        });
        by_event || by_silence
    }
}

impl Drawn {
    fn policy(&self) -> Policy {
        let class = self.class;
        let mut text = format!(
            "id = 't'\nzone = 'UTC'\n[class.{class}]\nfields = ['phone']\naction = 'purge'\ncap = 'P{}D'\n{}",
            self.cap,
            self.whole.text(),
        );
        if let Some((kind, days)) = self.on_request {
            text.push_str(&format!("[class.{class}.on_request]\nafter.{kind} = 'P{days}D'\nwait_for = ['refund']\n"));
        }
        if let Some(phone) = &self.phone {
            text.push_str(&format!("[class.{class}.field.phone]\n{}", phone.text()));
        }
        Policy::parse(&text).unwrap()
    }

    fn allows(&self, events: &[Event], at: Timestamp) -> bool {
        let asked = |(kind, days): (EventKind, i64)| {
            let refunds = DrawnRule {
                after: BTreeMap::from([(kind, days)]),
                wait_for: vec![Matter::Refund],
                after_closing: None,
                inactive_after: None,
                at_latest: BTreeMap::new(),
            };
            events.iter().any(|event| event.kind == ClearingRequested)
                && events.iter().all(|event| event.kind != ClearingRequested || event.occurred_at <= at)
                && refunds.allows(events, at)
        };
        time(STORED).plus(self.cap * DAY) <= at || self.whole.allows(events, at) || self.on_request.is_some_and(asked)
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    (select(EventKind::ALL), 0..3u32, 0..500_i64)
        .prop_map(|(kind, ordinal, day)| happened(kind, ordinal, time(STORED).plus(day * DAY)))
}

fn any_life() -> impl Strategy<Value = Vec<Event>> {
    vec(any_event(), 0..20)
}

fn gathered(class: Class, events: &[Event]) -> Facts {
    let mut facts = Facts::new(class, time(STORED));
    for event in events {
        facts.record(*event).unwrap();
    }
    facts
}

proptest! {
    #[test]
    fn the_order_of_arrival_does_not_matter(
        drawn in any_policy(),
        (events, shuffled) in any_life().prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
    ) {
        let policy = drawn.policy();
        let (facts, again) = (gathered(drawn.class, &events), gathered(drawn.class, &shuffled));
        prop_assert_eq!(policy.due(&facts), policy.due(&again));
        prop_assert_eq!(policy.stages(&facts), policy.stages(&again));
    }

    #[test]
    fn nothing_is_due_before_the_policys_text_allows_and_all_is_once_it_does(
        drawn in any_policy(),
        events in any_life(),
    ) {
        let policy = drawn.policy();
        let facts = gathered(drawn.class, &events);
        let events: Vec<Event> = facts.events().collect();
        let due = policy.due(&facts).unwrap();
        prop_assert!(drawn.allows(&events, due.at), "too early: {due:?}\n{}", policy.text());
        prop_assert!(!drawn.allows(&events, due.at.plus(-1)), "too late: {due:?}\n{}", policy.text());
        let stages = policy.stages(&facts);
        prop_assert!(stages.len() <= 1);
        for (_, stage) in stages {
            let phone = drawn.phone.as_ref().unwrap();
            prop_assert!(phone.allows(&events, stage.at), "too early: {stage:?}\n{}", policy.text());
            prop_assert!(!phone.allows(&events, stage.at.plus(-1)), "too late: {stage:?}\n{}", policy.text());
            prop_assert!(stage.at < due.at);
        }
    }

    /// The new policy differs in one place, so that no other change is to blame.
    #[test]
    fn what_a_diff_calls_no_shortening_ends_no_life_earlier(
        old in any_policy(),
        other in any_policy(),
        place in 0..7,
        lives in vec(any_life(), 10),
    ) {
        let mut new = old.clone();
        match place {
            0 => new.whole.after = other.whole.after,
            1 => new.whole.wait_for = if new.whole.after_closing.is_some() { Matter::ALL.to_vec() } else { other.whole.wait_for },
            2 => new.whole.after_closing = other.whole.after_closing.filter(|_| !new.whole.wait_for.is_empty()),
            3 => new.whole.inactive_after = other.whole.inactive_after,
            4 => new.whole.at_latest = other.whole.at_latest,
            5 => new.on_request = other.on_request,
            _ => new.cap = other.cap,
        }
        let (old_policy, new_policy) = (old.policy(), new.policy());
        let changes = diff(&old_policy, &new_policy);
        for events in lives {
            let facts = gathered(old.class, &events);
            let (before, after) = (old_policy.due(&facts).unwrap().at, new_policy.due(&facts).unwrap().at);
            let says = |effect| changes.iter().any(|change| change.effect == effect || change.effect == Effect::Either);
            prop_assert!(after >= before || says(Effect::Hastened), "{changes:?}");
            prop_assert!(after <= before || says(Effect::Delayed), "{changes:?}");
        }
    }
}
