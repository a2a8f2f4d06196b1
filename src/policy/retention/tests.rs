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
    // Ten working days after a Wednesday.
    let expected = by("2027-06-16T00:00:00Z", DueReason::Event(AccountCancelled));
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

// The other two policies.

fn general(years: i64) -> Policy {
    Policy::parse_with(Policy::GENERAL, &Parameters::from([("years".to_owned(), years)])).unwrap()
}

fn cross_border() -> Policy {
    Policy::parse(Policy::CROSS_BORDER).unwrap()
}

#[test]
fn the_general_policy_does_not_load_without_its_number_of_years() {
    let error = Policy::parse(Policy::GENERAL).unwrap_err();
    let line = 1 + Policy::GENERAL.lines().position(|line| line.starts_with("years = ")).unwrap();
    assert_eq!(error, PolicyError { line, reason: Reason::ParameterMissing("years".to_owned()) });
    assert!(error.to_string().contains("years has no value"));
    let none = Policy::parse_with(Policy::GENERAL, &Parameters::new()).unwrap_err();
    assert_eq!(none, error);
}

#[test]
fn the_general_policy_keeps_an_order_n_years_from_completion_whatever_is_open() {
    for (years, expected) in [(1, "2027-02-10T00:00:00Z"), (5, "2031-02-10T00:00:00Z")] {
        let events = [(Completed, 0, "2026-02-10T00:00:00Z"), (AfterSalesOpened, 0, "2026-03-01T00:00:00Z")];
        let found = due(&general(years), Class::Order, STORED, &events);
        assert_eq!(found, by(expected, DueReason::Event(Completed)));
    }
    assert_eq!(due(&general(5), Class::Order, STORED, &[]), by("2031-07-01T00:00:00Z", DueReason::Cap));
}

#[test]
fn the_general_policy_lets_a_minors_record_go_at_once() {
    for class in Class::ALL {
        let open = [(AfterSalesOpened, 0, "2026-01-05T00:00:00Z"), (MinorFound, 0, "2026-01-08T09:30:00Z")];
        let found = due(&general(5), *class, STORED, &open);
        assert_eq!((found.at, found.by), (time("2026-01-08T09:30:00Z"), DueReason::Deadline(MinorFound)), "{class}");
    }
}

#[test]
fn the_cross_border_policy_counts_three_years_from_order_and_after_sales_both() {
    let policy = cross_border();
    let completed = (Completed, 0, "2026-02-10T00:00:00Z");
    let ended = DueReason::Event(Completed);
    assert_eq!(due(&policy, Class::Order, STORED, &[completed]), by("2029-02-10T00:00:00Z", ended));
    let opened = (AfterSalesOpened, 0, "2026-03-01T00:00:00Z");
    let waiting = due(&policy, Class::Order, STORED, &[completed, opened]);
    assert_eq!((waiting.at, waiting.waiting_for), (time("2032-01-01T00:00:00Z"), vec![AfterSalesClosed]));
    let closed = (AfterSalesClosed, 0, "2026-04-01T00:00:00Z");
    let expected = by("2029-04-01T00:00:00Z", DueReason::ClosedLast(AfterSalesClosed));
    assert_eq!(due(&policy, Class::Order, STORED, &[completed, opened, closed]), expected);
    // After-sales service that is over does not complete an order.
    assert_eq!(due(&policy, Class::Order, STORED, &[opened, closed]).by, DueReason::Cap);
}

#[test]
fn the_cross_border_policy_collects_an_emergency_contact_and_the_others_do_not() {
    let holds = |policy: &Policy| policy.class(Class::Order).unwrap().allows(Field::EmergencyContact);
    assert!(holds(&cross_border()) && !holds(&kitchenware()) && !holds(&general(5)));
}

#[test]
fn no_ready_policy_gives_a_carrier_more_and_a_file_may_give_the_phone() {
    for policy in [kitchenware(), general(5), cross_border()] {
        assert_eq!(policy.carrier_also(), []);
    }
    let on = Policy::CROSS_BORDER.replace("carrier = []", "carrier = [\"phone\"]");
    assert_eq!(Policy::parse(&on).unwrap().carrier_also(), [Field::Phone]);
    let all = Policy::CROSS_BORDER.replace("carrier = []", "carrier = [\"email\"]");
    assert!(Policy::parse(&all).unwrap_err().to_string().contains("\"email\" is no field that a carrier may have"));
}

#[test]
fn every_rule_of_the_ready_policies_cites_the_section_it_implements() {
    for (name, text) in Policy::BUILTIN {
        let policy = Policy::parse(&text.replace("\"required\"", "5")).unwrap();
        for (class, rule) in &policy.classes {
            let terms = rule.whole.after.values().chain(rule.whole.at_latest.values());
            let terms = terms.chain(&rule.whole.after_closing).chain(&rule.whole.inactive_after);
            for term in terms.chain(&rule.whole.cap) {
                let source = file::comment_above(text, term.line);
                assert!(
                    source.contains("ection ") || source.contains("\": "),
                    "{name} line {}: {class} {}",
                    term.line,
                    term.written
                );
            }
        }
    }
}

#[test]
fn the_policy_that_the_documentation_shows_is_one() {
    let readme = include_str!("../../../README.md");
    let mut shown = readme.split("```toml\n").skip(1).map(|block| block.split_once("```").unwrap().0);
    let policy = Policy::parse(shown.find(|block| block.starts_with("id = ")).unwrap()).unwrap();
    let pieces: Vec<_> = policy.class(Class::Order).unwrap().stages.keys().copied().collect();
    assert_eq!((policy.id(), pieces), ("shop", vec![Piece::Whole(Field::Phone), Piece::AddressLines]));
}

// Wishes, deadlines, parameters.

#[test]
fn a_completed_order_is_cleared_on_request_once_the_guarantee_is_over() {
    let policy = kitchenware();
    let delivered = (Delivered, 0, "2026-01-10T00:00:00Z");
    let case = (AfterSalesOpened, 0, "2026-02-01T00:00:00Z");
    let asked = |at| (ClearingRequested, 0, at);
    let early = due(&policy, Class::Order, STORED, &[delivered, case, asked("2026-02-20T00:00:00Z")]);
    assert_eq!((early.at, early.by), (time("2026-03-11T00:00:00Z"), DueReason::Request), "the guarantee first");
    let late = due(&policy, Class::Order, STORED, &[delivered, case, asked("2026-05-05T00:00:00Z")]);
    assert_eq!((late.at, late.by), (time("2026-05-05T00:00:00Z"), DueReason::Request));
    let refund = (RefundOpened, 0, "2026-02-02T00:00:00Z");
    let open = due(&policy, Class::Order, STORED, &[delivered, refund, asked("2026-05-05T00:00:00Z")]);
    assert_eq!((open.by, open.waiting_for), (DueReason::Cap, vec![RefundSettled]), "a refund is finished first");
    let unsigned = due(&policy, Class::Order, STORED, &[case, asked("2026-05-05T00:00:00Z")]);
    assert_eq!(unsigned.by, DueReason::Cap, "only a signed order is cleared");
}

#[test]
fn a_cancelled_account_takes_its_orders_along_within_the_working_days() {
    let cancelled = (AccountCancelled, 0, "2026-01-16T12:00:00Z");
    let open = [(Delivered, 0, "2026-01-10T00:00:00Z"), (RefundOpened, 0, "2026-01-11T00:00:00Z"), cancelled];
    // 2026-01-16 is a Friday.
    let due_with = |policy: &Policy| due(policy, Class::Order, STORED, &open).at;
    assert_eq!(due_with(&kitchenware()), time("2026-01-30T12:00:00Z"));
    let five = Parameters::from([("working_days".to_owned(), 5)]);
    assert_eq!(due_with(&Policy::parse_with(Policy::KITCHENWARE, &five).unwrap()), time("2026-01-23T12:00:00Z"));
    let holidays = Policy::KITCHENWARE.replace("holidays = []", "holidays = [\"2026-01-19\", \"2026-01-20\"]");
    assert_eq!(due_with(&Policy::parse(&holidays).unwrap()), time("2026-02-03T12:00:00Z"));
    let case = due(&kitchenware(), Class::Case, STORED, &[(AfterSalesOpened, 0, STORED), cancelled]);
    assert_eq!((case.at, case.by), (time("2026-01-30T12:00:00Z"), DueReason::Deadline(AccountCancelled)));
}

#[test]
fn a_shops_own_figures_are_part_of_what_is_kept_and_hashed() {
    let (five, six) = (general(5), general(6));
    assert_ne!(five.version(), six.version());
    assert!(five.text().contains("\nyears = 5\n"));
    assert_eq!(Policy::parse(five.text()).unwrap().version(), five.version());
}

// Stages.

/// Phone and street first, the city to the end.
const STAGED: &str = "\
id = 'staged'
zone = 'UTC'
[class.order]
fields = ['recipient_name', 'address', 'phone']
action = 'desensitize'
cap = 'P1Y'
after.delivered = 'P60D'
[class.order.field.phone]
wait_for = ['refund']
after.delivered = 'P14D'
[class.order.field.address_lines]
cap = 'P45D'
";

#[test]
fn a_field_goes_earlier_than_its_record_by_its_own_rule() {
    let policy = Policy::parse(STAGED).unwrap();
    let mut facts = Facts::new(Class::Order, time(STORED));
    let lines = (Piece::AddressLines, by("2026-02-15T00:00:00Z", DueReason::Cap));
    assert_eq!(policy.stages(&facts), std::slice::from_ref(&lines));
    facts.record(happened(Delivered, 0, time("2026-01-03T00:00:00Z"))).unwrap();
    let phone = (Piece::Whole(Field::Phone), by("2026-01-17T00:00:00Z", DueReason::Event(Delivered)));
    assert_eq!(policy.stages(&facts), [phone, lines.clone()]);
    facts.record(happened(RefundOpened, 0, time("2026-01-04T00:00:00Z"))).unwrap();
    assert_eq!(policy.stages(&facts), [lines], "without a cap of its own it waits for the record's end");
    assert_eq!(policy.due(&facts).unwrap().at, time("2026-03-04T00:00:00Z"));
    assert_eq!(kitchenware().stages(&facts), []);
}

#[test]
fn a_due_cites_its_rule_with_line_and_source() {
    let policy = kitchenware();
    let cited = policy.cited(Class::Order, None, DueReason::Event(Delivered)).unwrap();
    assert_eq!(cited.rule, "order.after.delivered = \"P60D\"");
    assert_eq!(Policy::KITCHENWARE.lines().nth(cited.line - 1), Some("delivered = \"P60D\""));
    assert!(cited.source.starts_with("\"Long-Term Data Storage\": \"after exceeding 60-day"), "{}", cited.source);
    let staged = Policy::parse(STAGED).unwrap();
    let cited = staged.cited(Class::Order, Some(Piece::AddressLines), DueReason::Cap).unwrap();
    assert_eq!(cited.rule, "order.field.address_lines.cap = \"P45D\"");
}

// What a new policy changes.

fn effect(old: &str, from: &str, to: &str) -> Vec<(String, Effect)> {
    let new = old.replacen(from, to, 1);
    assert_ne!(old, new, "{from}");
    let changes = diff(&Policy::parse(old).unwrap(), &Policy::parse(&new).unwrap());
    changes.into_iter().map(|change| (change.rule, change.effect)).collect()
}

#[test]
fn a_change_is_told_by_its_rule_and_by_what_it_does() {
    for (old, from, to, rule, expected) in [
        (STAGED, "'P60D'", "'P61D'", "order.after.delivered", Effect::Delayed),
        (STAGED, "'P60D'", "'P59D'", "order.after.delivered", Effect::Hastened),
        // February is shorter than 30 days, every other month is not.
        (STAGED, "'P45D'", "'P6W'", "order.field.address_lines.cap", Effect::Hastened),
        (STAGED, "'P60D'", "'P2M'", "order.after.delivered", Effect::Either),
        (STAGED, "'P1Y'", "'P366D'", "order.cap", Effect::Delayed),
        (STAGED, "'P1Y'", "'P365D'", "order.cap", Effect::Hastened),
        // From a Monday it is the same fortnight, from a Saturday a day less.
        (STAGED, "'P14D'", "'10 working days'", "order.field.phone.after.delivered", Effect::Hastened),
        (STAGED, "wait_for = ['refund']\n", "", "order.field.phone.wait_for", Effect::Hastened),
        (STAGED, "['refund']", "['refund', 'after_sales']", "order.field.phone.wait_for", Effect::Delayed),
        (
            STAGED,
            "after.delivered = 'P60D'",
            "at_latest.minor_found = 'PT0S'\nafter.delivered = 'P60D'",
            "order.at_latest.minor_found",
            Effect::Hastened,
        ),
        (
            STAGED,
            "after.delivered = 'P60D'",
            "after.completed = 'P90D'\nafter.delivered = 'P60D'",
            "order.after.completed",
            Effect::Either,
        ),
        (STAGED, "[class.order.field.address_lines]\ncap = 'P45D'\n", "", "order.field.address_lines", Effect::Delayed),
        (STAGED, "'desensitize'", "'purge'", "order.action", Effect::Otherwise),
        (STAGED, "'recipient_name', ", "", "order.fields", Effect::Otherwise),
    ] {
        assert_eq!(effect(old, from, to), [(rule.to_owned(), expected)], "{from} -> {to}");
    }
    let zone = effect(STAGED, "'UTC'", "'America/New_York'");
    assert_eq!(zone[0], ("zone".to_owned(), Effect::Otherwise));
    assert!(zone.iter().any(|(rule, effect)| rule == "order.after.delivered" && *effect == Effect::Either), "{zone:?}");
    let same = Policy::parse(STAGED).unwrap();
    assert_eq!(diff(&same, &Policy::parse(&format!("# The same.\n{STAGED}")).unwrap()), []);
}

#[test]
fn a_holiday_more_delays_and_a_working_day_less_hastens() {
    let holiday = effect(Policy::KITCHENWARE, "holidays = []", "holidays = [\"2051-03-01\"]");
    assert_eq!(holiday[0], ("holidays".to_owned(), Effect::Otherwise));
    assert!(
        holiday[1..].len() == 3 && holiday[1..].iter().all(|(_, effect)| *effect == Effect::Delayed),
        "{holiday:?}"
    );
    let fewer = effect(Policy::KITCHENWARE, "working_days = 10\n", "working_days = 9\n");
    assert!(fewer.len() == 3 && fewer.iter().all(|(_, effect)| *effect == Effect::Hastened), "{fewer:?}");
}

mod random;
