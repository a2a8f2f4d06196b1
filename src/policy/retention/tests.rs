//! Claims about `due`. INVARIANT: expected instants are written out, never computed by the code they check.

use super::*;
use crate::policy::facts::Event;
use proptest::prelude::*;

fn time(text: &str) -> Timestamp {
    Timestamp::from_jiff(text.parse().unwrap())
}

fn happened(kind: EventKind, ordinal: u32, at: Timestamp) -> Event {
    Event { kind, ordinal, occurred_at: at, recorded_at: at }
}

fn due(policy: &Policy, class: Class, stored: &str, events: &[(EventKind, u32, &str)]) -> Due {
    let mut facts = Facts::new(class, time(stored));
    for (kind, ordinal, at) in events {
        facts.record(happened(*kind, *ordinal, time(at))).unwrap();
    }
    policy.due(&facts).unwrap()
}

fn kitchenware() -> Policy {
    Policy::parse(Policy::KITCHENWARE).unwrap()
}

/// A policy of one rule: `delivered` and `span`, in `zone`.
fn after_delivery(zone: &str, span: &str) -> Policy {
    let text = format!(
        "id = \"t\"\nzone = \"{zone}\"\n[class.order]\nfields = []\naction = \"purge\"\ncap = \"P50Y\"\nafter.delivered = \"{span}\""
    );
    Policy::parse(&text).unwrap()
}

fn by(at: &str, by: DueReason) -> Due {
    Due { at: time(at), by, waiting_for: Vec::new() }
}

const STORED: &str = "2026-01-01T00:00:00Z";
use EventKind::*;

#[test]
fn the_kitchenware_policy_collects_what_it_says_and_no_emergency_contact() {
    let policy = kitchenware();
    assert_eq!(policy.id(), "kitchenware");
    let order = policy.class(Class::Order).unwrap();
    assert_eq!(
        order.fields(),
        [Field::RecipientName, Field::Address, Field::Phone, Field::Email, Field::PaymentAccount]
    );
    for class in Class::ALL {
        let rule = policy.class(*class).unwrap();
        assert_eq!((rule.action(), rule.allows(Field::EmergencyContact)), (Action::Desensitize, false));
    }
}

#[test]
fn an_order_is_due_sixty_days_after_signing() {
    let signed = [(Delivered, 0, "2026-01-10T15:30:00Z")];
    let expected = by("2026-03-11T15:30:00Z", DueReason::Event(Delivered));
    assert_eq!(due(&kitchenware(), Class::Order, STORED, &signed), expected);
}

#[test]
fn the_last_parcel_counts() {
    let signed = [(Delivered, 0, "2026-02-10T00:00:00Z"), (Delivered, 1, "2026-01-10T00:00:00Z")];
    assert_eq!(due(&kitchenware(), Class::Order, STORED, &signed).at, time("2026-04-11T00:00:00Z"));
}

#[test]
fn an_order_of_which_nothing_is_heard_is_due_at_its_cap() {
    let expected = by("2027-01-01T00:00:00Z", DueReason::Cap);
    assert_eq!(due(&kitchenware(), Class::Order, STORED, &[]), expected);
    let placed = [(Placed, 0, STORED), (Dispatched, 0, "2026-01-03T00:00:00Z")];
    assert_eq!(due(&kitchenware(), Class::Order, STORED, &placed), expected);
}

#[test]
fn what_is_open_is_waited_for_up_to_the_cap() {
    let open = [(Delivered, 0, "2026-01-10T00:00:00Z"), (AfterSalesOpened, 0, "2026-02-01T00:00:00Z")];
    let cap = time("2027-01-01T00:00:00Z");
    assert_eq!(
        due(&kitchenware(), Class::Order, STORED, &open),
        Due { at: cap, by: DueReason::Cap, waiting_for: vec![AfterSalesClosed] }
    );
}

#[test]
fn closing_every_case_and_refund_ends_the_waiting() {
    let policy = kitchenware();
    let mut events = vec![
        (Delivered, 0, "2026-01-10T00:00:00Z"),
        (AfterSalesOpened, 0, "2026-02-01T00:00:00Z"),
        (AfterSalesClosed, 0, "2026-02-05T00:00:00Z"),
    ];
    assert_eq!(due(&policy, Class::Order, STORED, &events), by("2026-03-11T00:00:00Z", DueReason::Event(Delivered)));
    events.push((RefundOpened, 1, "2026-02-05T00:00:00Z"));
    assert_eq!(due(&policy, Class::Order, STORED, &events).waiting_for, [RefundSettled]);
    // Another refund's settlement closes nothing.
    events.push((RefundSettled, 0, "2026-04-01T00:00:00Z"));
    assert_eq!(due(&policy, Class::Order, STORED, &events).waiting_for, [RefundSettled]);
    events.push((RefundSettled, 1, "2026-04-02T00:00:00Z"));
    assert_eq!(
        due(&policy, Class::Order, STORED, &events),
        by("2026-04-02T00:00:00Z", DueReason::ClosedLast(RefundSettled))
    );
}

#[test]
fn a_case_opened_again_is_open_and_one_closed_in_the_same_instant_is_not() {
    let once = "2026-02-01T00:00:00Z";
    let closed = [(AfterSalesOpened, 0, once), (AfterSalesClosed, 0, once)];
    assert_eq!(due(&kitchenware(), Class::Case, STORED, &closed).waiting_for, []);
    let again = [(AfterSalesOpened, 0, "2026-02-01T00:00:00.000001Z"), (AfterSalesClosed, 0, once)];
    assert_eq!(due(&kitchenware(), Class::Case, STORED, &again).waiting_for, [AfterSalesClosed]);
}

#[test]
fn the_cap_beats_an_event_that_comes_late() {
    let late = [(Delivered, 0, "2026-12-20T00:00:00Z")];
    assert_eq!(due(&kitchenware(), Class::Order, STORED, &late), by("2027-01-01T00:00:00Z", DueReason::Cap));
}

#[test]
fn an_account_lives_until_cancelled_or_inactive_whichever_is_first() {
    let policy = kitchenware();
    let account = |events: &[_]| due(&policy, Class::Account, STORED, events);
    assert_eq!(account(&[]), by("2028-01-01T00:00:00Z", DueReason::Inactive));
    let active = (AccountActive, 0, "2027-06-01T00:00:00Z");
    assert_eq!(account(&[active]), by("2029-06-01T00:00:00Z", DueReason::Inactive));
    let cancelled = (AccountCancelled, 0, "2027-06-02T00:00:00Z");
    let expected = by("2027-06-17T00:00:00Z", DueReason::Event(AccountCancelled));
    assert_eq!(account(&[active, cancelled]), expected);
    let years: Vec<String> = (2027..2036).map(|year| format!("{year}-01-01T00:00:00Z")).collect();
    let always: Vec<_> = years.iter().map(|at| (AccountActive, 0, at.as_str())).collect();
    assert_eq!(account(&always), by("2036-01-01T00:00:00Z", DueReason::Cap));
}

#[test]
fn months_and_years_end_on_the_last_day_there_is() {
    for (span, signed, expected) in [
        ("P1M", "2026-01-31T12:00:00Z", "2026-02-28T12:00:00Z"),
        ("P1M", "2028-01-31T12:00:00Z", "2028-02-29T12:00:00Z"),
        ("P1Y", "2028-02-29T12:00:00Z", "2029-02-28T12:00:00Z"),
        ("P4Y", "2028-02-29T12:00:00Z", "2032-02-29T12:00:00Z"),
        ("P1Y", "2027-03-01T12:00:00Z", "2028-03-01T12:00:00Z"),
        ("P60D", "2028-01-01T12:00:00Z", "2028-03-01T12:00:00Z"),
    ] {
        let found = due(&after_delivery("UTC", span), Class::Order, STORED, &[(Delivered, 0, signed)]);
        assert_eq!(found, by(expected, DueReason::Event(Delivered)), "{span} after {signed}");
    }
}

#[test]
fn days_keep_their_hour_when_clocks_change_and_hours_do_not() {
    // Berlin's clocks go forward on 2026-03-29 at 02:00 and back on 2026-10-25 at 03:00.
    for (span, signed, expected) in [
        ("P1D", "2026-03-28T12:00:00+01:00", "2026-03-29T12:00:00+02:00"),
        ("PT24H", "2026-03-28T12:00:00+01:00", "2026-03-29T13:00:00+02:00"),
        ("P1D", "2026-10-24T12:00:00+02:00", "2026-10-25T12:00:00+01:00"),
        // An hour that is skipped is reached late, never early.
        ("P1D", "2026-03-28T02:30:00+01:00", "2026-03-29T03:30:00+02:00"),
    ] {
        let found = due(&after_delivery("Europe/Berlin", span), Class::Order, STORED, &[(Delivered, 0, signed)]);
        assert_eq!(found, by(expected, DueReason::Event(Delivered)), "{span} after {signed}");
    }
}

#[test]
fn a_class_the_policy_lacks_has_no_due() {
    let facts = Facts::new(Class::Case, time(STORED));
    assert_eq!(after_delivery("UTC", "P1D").due(&facts), None);
}

#[test]
fn the_ends_of_time_are_survived() {
    let policy = kitchenware();
    for stored in [i64::MIN, i64::MAX] {
        assert!(policy.due(&Facts::new(Class::Order, Timestamp(stored))).is_some());
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let day = 0..500i64;
    (proptest::sample::select(EventKind::ALL), 0..3u32, day)
        .prop_map(|(kind, ordinal, day)| happened(kind, ordinal, time(STORED).plus(day * crate::domain::time::DAY)))
}

proptest! {
    #[test]
    fn the_order_of_arrival_does_not_matter(
        (events, shuffled) in proptest::collection::vec(any_event(), 0..20)
            .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
        class in proptest::sample::select(Class::ALL),
    ) {
        let due = |events: &[Event]| {
            let mut facts = Facts::new(class, time(STORED));
            events.iter().for_each(|event| { facts.record(*event).unwrap(); });
            kitchenware().due(&facts)
        };
        prop_assert_eq!(due(&events), due(&shuffled));
    }

    /// The promise read straight from the policy's text, without the code's notions.
    #[test]
    fn an_order_is_never_due_before_the_text_allows_nor_after_its_cap(
        events in proptest::collection::vec(any_event(), 0..20),
    ) {
        let mut facts = Facts::new(Class::Order, time(STORED));
        events.iter().for_each(|event| { facts.record(*event).unwrap(); });
        let due = kitchenware().due(&facts).unwrap();
        let cap = time("2027-01-01T00:00:00Z");
        prop_assert!(due.at <= cap);
        let before_cap = due.at < cap;
        prop_assert!(!before_cap || due.waiting_for.is_empty());
        for event in facts.events().filter(|_| before_cap) {
            match event.kind {
                Delivered | Cancelled => {
                    prop_assert!(due.at.since(event.occurred_at) >= 60 * crate::domain::time::DAY);
                }
                AfterSalesClosed | RefundSettled => prop_assert!(due.at >= event.occurred_at),
                AfterSalesOpened => prop_assert!(facts.when(AfterSalesClosed, event.ordinal) >= Some(event.occurred_at)),
                RefundOpened => prop_assert!(facts.when(RefundSettled, event.ordinal) >= Some(event.occurred_at)),
                _ => {}
            }
        }
    }
}
