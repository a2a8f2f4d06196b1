//! A wrong clock: whatever it does, nothing is destroyed before its true time, reads refuse by the later of clock and mark, somebody
//! is told, and when the clock is right again all goes on. A real server over its real store; only the clock is simulated, and a
//! restart with another clock is a stop and a start, with one on another boot besides.
//!
//! Planted fault: a mark that goes wherever the wall clock does. By hand, each of which turned a test of this file red: a mark that
//! gains on the boot clock while the clock is far ahead; one that stands still while the clock is behind; an erasure of a subject
//! that takes what is over by the wall clock alone; a receipt of the mark's time; records that leave with their subject by time;
//! destruction that goes on while clock and mark contradict each other.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;
#[cfg(feature = "planted")]
#[path = "common/planted.rs"]
mod planted;

use common::{House, START, order, wire_time};
use metrics_exporter_prometheus::PrometheusBuilder;
use people::{log, reason, refusals};
use strongroom::audit::entry::{Action, RefusalCode};
use strongroom::audit::receipt::Receipt;
use strongroom::domain::caller::Role;
use strongroom::domain::time::{Clock as _, DAY, HOUR, MINUTE, SECOND, Timestamp};
use strongroom::policy::retention::Policy;
use strongroom::rpc::proto::erase_subject_response::News;
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::{
    ConfirmClockRequest, DescribeRequest, DescribeResponse, DetokenizeRequest, EraseSubjectRequest, EventKind, Field,
    Outcome, Purpose, ReceiptOfRequest, RecordState, ReportEventRequest, StatusRequest, TokenizeRequest,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const TEN_YEARS: i64 = 3_652 * DAY;

fn describe(house: &House, token: &str) -> DescribeResponse {
    house.run(house.tokens().describe(DescribeRequest { token: token.to_owned() })).unwrap().into_inner()
}

fn state(house: &House, token: &str) -> RecordState {
    describe(house, token).state()
}

fn outcome(house: &House, token: &str) -> Outcome {
    let (fields, purpose) = (vec![Field::Phone.into()], Purpose::Fulfilment.into());
    let request = DetokenizeRequest { token: token.to_owned(), fields, purpose };
    house.run(house.tokens().detokenize(request)).unwrap().into_inner().fields.first().unwrap().outcome()
}

fn confirm_at(house: &House, time: Timestamp) -> Result<(), Status> {
    house.run(house.operations().confirm_clock(ConfirmClockRequest { time: Some(wire_time(time)) })).map(drop)
}

fn confirm(house: &House) -> Result<(), Status> {
    confirm_at(house, house.clock.now())
}

/// What the status warns of that is about the clock.
fn warned(house: &House) -> Option<String> {
    let status = house.run(house.operations().status(StatusRequest {})).unwrap().into_inner();
    status.warnings.into_iter().find(|text| text.contains("the wall clock is"))
}

/// A gauge as it is served.
fn gauge(house: &House, name: &str) -> i64 {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || house.vault().measure(house.clock.now())).unwrap();
    let rendered = recorder.handle().render();
    let value = rendered.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

fn restart(house: &mut House, meanwhile: impl FnOnce(&House)) {
    house.stop();
    meanwhile(house);
    house.start();
}

/// An order that was delivered now, and is over in 60 days.
fn delivered(house: &House, n: usize) -> String {
    let token = house.tokenize(order(n));
    house.event(&token, EventKind::Delivered, 0).unwrap();
    token
}

/// What every clock that is ahead must end in. `leave` sets it wrong, `back` right again.
fn ahead(leave: impl Fn(&mut House), back: impl Fn(&mut House)) {
    let mut house = House::new();
    let early = delivered(&house, 1);
    house.sweep();
    leave(&mut house);
    let off = house.clock.now().since(START);
    assert_eq!(outcome(&house, &early), Outcome::Expired, "reads refuse by the clock");
    for _ in 0..3 {
        assert_eq!(house.sweep(), 0, "and nothing is destroyed");
        house.clock.advance(DAY);
    }
    assert!(warned(&house).unwrap().contains("ahead"));
    assert!((gauge(&house, "strongroom_mark_lag_seconds") - off / SECOND).abs() <= 3 * DAY / SECOND);
    assert_eq!(reason(&confirm_at(&house, START.plus(3 * DAY)).unwrap_err()), "CLOCK_ASTRAY");
    assert_eq!(refusals(&house).last(), Some(&(Action::ConfirmClock, RefusalCode::ClockNotConfirmed)));
    assert_eq!(house.sweep(), 0, "whoever vouches for another time than the clock's confirms nothing");
    // What comes while it is wrong lives no shorter for it.
    let meanwhile = house.tokenize(order(2));
    back(&mut house);
    house.sweep();
    assert!(warned(&house).is_none() && gauge(&house, "strongroom_mark_lag_seconds") == 0);
    assert_eq!((outcome(&house, &early), outcome(&house, &meanwhile)), (Outcome::Granted, Outcome::Granted));
    house.event(&meanwhile, EventKind::Delivered, 0).unwrap();
    let now = house.clock.now();
    house.clock.advance(START.plus(60 * DAY).since(now) - SECOND);
    assert_eq!((house.sweep(), outcome(&house, &early)), (0, Outcome::Granted), "to its last second");
    house.clock.advance(SECOND);
    assert_eq!((house.sweep(), state(&house, &early)), (1, RecordState::Erased));
    let due = describe(&house, &meanwhile).due.unwrap().seconds;
    assert_eq!(due, now.plus(60 * DAY).0 / SECOND, "an event of the right time counts");
    house.clock.advance(3 * DAY);
    assert_eq!((house.sweep(), state(&house, &meanwhile)), (1, RecordState::Erased));
}

#[test]
fn a_clock_that_leaps_ahead_destroys_nothing_and_all_goes_on_when_it_is_right_again() {
    ahead(|house| house.clock.leap(TEN_YEARS), |house| house.clock.leap(-TEN_YEARS));
}

#[test]
fn a_start_ten_years_ahead_destroys_nothing_and_all_goes_on_when_it_is_right_again() {
    let ten = |house: &mut House| restart(house, |house| house.clock.leap(TEN_YEARS));
    ahead(ten, |house| restart(house, |house| house.clock.leap(-TEN_YEARS)));
    // The same with a machine that is started anew each time: then an operator says how long it was off.
    let mut house = House::new();
    let token = delivered(&house, 1);
    house.sweep();
    restart(&mut house, |house| house.clock.reboot(TEN_YEARS));
    house.clock.advance(HOUR);
    assert_eq!((house.sweep(), outcome(&house, &token)), (0, Outcome::Expired));
    restart(&mut house, |house| house.clock.reboot(HOUR - TEN_YEARS));
    assert_eq!((house.sweep(), outcome(&house, &token)), (0, Outcome::Granted));
    assert!(warned(&house).unwrap().contains("ahead"), "an hour of it is not known to have passed");
    confirm(&house).unwrap();
    assert_eq!((house.sweep(), warned(&house)), (0, None));
    house.clock.advance(60 * DAY);
    assert_eq!((house.sweep(), state(&house, &token)), (1, RecordState::Erased));
}

#[test]
fn a_days_downtime_with_a_reboot_waits_for_an_operator_and_one_without_does_not() {
    let mut house = House::new();
    let token = delivered(&house, 1);
    house.clock.advance(60 * DAY - 12 * HOUR);
    house.sweep();
    restart(&mut house, |house| house.clock.reboot(DAY));
    assert_eq!((outcome(&house, &token), house.sweep()), (Outcome::Expired, 0));
    assert!(warned(&house).unwrap().contains("retention confirm-clock"));
    assert_eq!(gauge(&house, "strongroom_mark_lag_seconds"), DAY / SECOND);
    // Half a day later it is due by what is known to have passed, whoever is asleep.
    house.clock.advance(12 * HOUR - SECOND);
    assert_eq!(house.sweep(), 0);
    confirm(&house).unwrap();
    assert_eq!((house.sweep(), state(&house, &token)), (1, RecordState::Erased));
    assert!(warned(&house).is_none() && gauge(&house, "strongroom_mark_lag_seconds") == 0);
    let told = log(&house).into_iter().filter(|entry| entry.action == Action::ConfirmClock);
    assert_eq!(told.count(), 1, "the confirmation is in the log");

    let token = delivered(&house, 2);
    house.clock.advance(60 * DAY - 12 * HOUR);
    house.sweep();
    restart(&mut house, |house| house.clock.advance(DAY));
    house.sweep();
    assert_eq!((state(&house, &token), warned(&house)), (RecordState::Erased, None));
}

#[test]
fn a_receipt_never_says_that_a_record_went_before_it_did() {
    let mut house = House::new();
    let token = delivered(&house, 1);
    house.clock.advance(60 * DAY - 12 * HOUR);
    house.sweep();
    restart(&mut house, |house| house.clock.reboot(DAY));
    let key = strongroom::crypto::note::parse_key(&house.vault().public_key()).unwrap();
    // Nobody confirms the clock; by what is known to have passed it is due at last, a day late.
    house.clock.advance(12 * HOUR);
    assert_eq!(house.sweep(), 1);
    let mut office = ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    let receipt = house.run(office.receipt_of(ReceiptOfRequest { token })).unwrap().into_inner().receipt;
    let receipt = Receipt::verify(&receipt, &key).unwrap();
    assert_eq!(receipt.online_at, house.clock.now());
    let horizon = house.config.keys.schedule.horizon();
    assert_eq!(receipt.in_backups_by, house.clock.now().plus(horizon));
}

#[test]
fn a_boot_clock_that_begins_anew_counts_what_it_saw_and_nothing_else() {
    let mut house = House::new();
    let token = delivered(&house, 1);
    // The reading of this boot is larger than that of the next ones will be, and then smaller.
    for (up, off) in [(20 * DAY, 0), (10 * DAY, 0), (30 * DAY - SECOND, 0)] {
        house.clock.advance(up);
        assert_eq!(house.sweep(), 0);
        restart(&mut house, |house| house.clock.reboot(off));
    }
    assert_eq!((outcome(&house, &token), house.sweep()), (Outcome::Granted, 0));
    house.clock.advance(SECOND);
    // A reboot forgets the seconds since the mark was last saved, and no more than those.
    house.clock.advance(2 * MINUTE);
    assert_eq!((house.sweep(), state(&house, &token)), (1, RecordState::Erased));
}

/// What every clock that is behind must end in.
fn behind(leave: impl Fn(&mut House), back: impl Fn(&mut House)) {
    let mut house = House::new();
    let (over, young) = (delivered(&house, 1), house.tokenize(order(2)));
    house.clock.advance(60 * DAY - MINUTE);
    house.sweep();
    leave(&mut house);
    house.sweep();
    assert_eq!((outcome(&house, &over), outcome(&house, &young)), (Outcome::Granted, Outcome::Granted));
    house.clock.advance(20 * DAY);
    assert_eq!(house.sweep(), 0, "which of the two is wrong, a person must say");
    assert_eq!(outcome(&house, &over), Outcome::Expired, "reads refuse by what is known to have passed");
    assert_eq!(outcome(&house, &young), Outcome::Granted);
    assert!(warned(&house).unwrap().contains("behind"));
    assert!(gauge(&house, "strongroom_mark_lag_seconds") > 0);
    assert!(gauge(&house, "strongroom_sweep_lag_seconds") >= 20 * DAY / SECOND - 2 * 60, "and the sweeper is late");
    assert_eq!(reason(&confirm(&house).unwrap_err()), "CLOCK_BEHIND", "it is no time that one can go back to");
    assert_eq!(refusals(&house).last(), Some(&(Action::ConfirmClock, RefusalCode::ClockNotConfirmed)));
    // The shop knows what time it is; what it stores and reports is not taken for older than it is.
    let true_time = START.plus(80 * DAY - MINUTE);
    let meanwhile = house.tokenize(order(3));
    let report = |ahead: i64| ReportEventRequest {
        idempotency_key: format!("true-{ahead}"),
        token: meanwhile.clone(),
        kind: EventKind::Delivered.into(),
        ordinal: 0,
        occurred_at: Some(wire_time(true_time.plus(ahead))),
    };
    house.run(house.lifecycle().report_event(report(0))).unwrap();
    let refused = house.run(house.lifecycle().report_event(report(6 * MINUTE))).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let stored = describe(&house, &meanwhile).stored_at.unwrap().seconds * SECOND;
    assert!((true_time.0 - 2 * MINUTE..=true_time.0).contains(&stored), "{}", true_time.0 - stored);
    back(&mut house);
    house.clock.advance(2 * MINUTE);
    house.sweep();
    assert_eq!(state(&house, &over), RecordState::Erased, "right again, all goes on");
    assert!(warned(&house).is_none());
    let now = house.clock.now();
    house.clock.advance(true_time.plus(60 * DAY).since(now) - SECOND);
    assert_eq!((house.sweep(), outcome(&house, &meanwhile)), (0, Outcome::Granted));
    house.clock.advance(SECOND);
    assert_eq!((house.sweep(), state(&house, &meanwhile)), (1, RecordState::Erased));
    assert_eq!(state(&house, &young), RecordState::Live);
}

#[test]
fn a_clock_that_leaps_back_is_told_of_and_neither_shortens_nor_prolongs_anything() {
    behind(|house| house.clock.leap(-90 * DAY), |house| house.clock.leap(90 * DAY));
}

#[test]
fn a_start_in_1970_is_told_of_and_neither_shortens_nor_prolongs_anything() {
    let to_1970 = START.0 + 60 * DAY - MINUTE;
    let leave = |house: &mut House| restart(house, |house| house.clock.leap(-to_1970));
    behind(leave, |house| restart(house, |house| house.clock.leap(to_1970)));
}

#[test]
fn a_leap_back_and_then_one_ahead_destroys_nothing_early() {
    let house = House::new();
    let token = delivered(&house, 1);
    house.sweep();
    let mut passed = 0;
    for leap in [-30 * DAY, 400 * DAY, -800 * DAY, TEN_YEARS, 430 * DAY - TEN_YEARS] {
        house.clock.leap(leap);
        assert_eq!(house.sweep(), 0);
        house.clock.advance(DAY);
        passed += DAY;
        assert_eq!(house.sweep(), 0);
    }
    assert_eq!((house.clock.now(), outcome(&house, &token)), (START.plus(passed), Outcome::Granted));
    house.clock.advance(60 * DAY - passed - SECOND);
    assert_eq!((house.sweep(), warned(&house)), (0, None));
    house.clock.advance(SECOND);
    assert_eq!(house.sweep(), 1);
}

#[test]
fn a_leap_second_that_is_repeated_or_smeared_destroys_nothing_early() {
    let house = House::new();
    let token = delivered(&house, 1);
    house.clock.advance(60 * DAY - SECOND / 2);
    assert_eq!(house.sweep(), 0);
    house.clock.leap(-SECOND);
    house.clock.advance(SECOND);
    assert_eq!(house.sweep(), 0, "the second comes twice");
    // Smeared over a day: 86,400 s by the clock take 86,401.
    house.clock.leap(-SECOND / 2);
    assert_eq!((house.sweep(), outcome(&house, &token)), (0, Outcome::Granted));
    house.clock.advance(SECOND);
    assert_eq!((house.sweep(), warned(&house)), (1, None));
}

#[test]
fn a_time_that_no_clock_can_show_is_refused_by_the_fields_name() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let now = wire_time(house.clock.now());
    let report = |seconds, nanos| {
        let occurred_at = Some(prost_types::Timestamp { seconds, nanos });
        let (idempotency_key, kind) = (format!("{seconds}-{nanos}"), EventKind::Delivered.into());
        let request = ReportEventRequest { idempotency_key, token: token.clone(), kind, ordinal: 0, occurred_at };
        house.run(house.lifecycle().report_event(request))
    };
    let five = 5 * MINUTE / SECOND;
    for (seconds, nanos) in [
        // 23:59:60, as some libraries write a leap second.
        (now.seconds - 1, 1_000_000_000),
        (now.seconds - 1, 1_999_999_999),
        (now.seconds, -1),
        (now.seconds + five, 1_000),
        (now.seconds + 86_400, 0),
        (i64::MAX, 0),
        (i64::MIN, 0),
    ] {
        let refused = report(seconds, nanos).unwrap_err();
        let details = refused.get_error_details();
        let field = details.bad_request().unwrap().field_violations.first().unwrap().field.clone();
        assert_eq!((reason(&refused).as_str(), field.as_str()), ("NOT_A_TIME", "occurred_at"), "{seconds} {nanos}");
    }
    report(now.seconds + five, 0).unwrap();
    let unsaid = house.run(house.operations().confirm_clock(ConfirmClockRequest { time: None })).unwrap_err();
    assert_eq!(reason(&unsaid), "NOT_A_TIME");
}

fn at(zoned: &str) -> Timestamp {
    Timestamp::from_jiff(zoned.parse::<jiff::Zoned>().unwrap().timestamp())
}

#[test]
fn a_change_of_clocks_a_skipped_day_and_a_missing_midnight_destroy_nothing_early() {
    for (length, delivered, due) in [
        // Forward on Sunday 2026-03-29, back on Sunday 2026-10-25: a day keeps its hour.
        ("P1D", "2026-03-28T12:00[Europe/Berlin]", "2026-03-29T12:00[Europe/Berlin]"),
        ("P1D", "2026-10-24T12:00[Europe/Berlin]", "2026-10-25T12:00[Europe/Berlin]"),
        ("PT24H", "2026-03-28T12:00[Europe/Berlin]", "2026-03-29T13:00[Europe/Berlin]"),
        ("PT24H", "2026-10-24T12:00[Europe/Berlin]", "2026-10-25T11:00[Europe/Berlin]"),
        ("2 working days", "2026-03-27T12:00[Europe/Berlin]", "2026-03-31T12:00[Europe/Berlin]"),
        ("2 working days", "2026-10-23T12:00[Europe/Berlin]", "2026-10-27T12:00[Europe/Berlin]"),
        // Half past two is not there on that day.
        ("P1D", "2026-03-28T02:30[Europe/Berlin]", "2026-03-29T03:30[Europe/Berlin]"),
        // From the second half past two of that day on.
        ("P1D", "2026-10-25T02:30+01:00[Europe/Berlin]", "2026-10-26T02:30[Europe/Berlin]"),
        // There was no Friday 2011-12-30.
        ("P1D", "2011-12-29T10:00[Pacific/Apia]", "2011-12-31T10:00[Pacific/Apia]"),
        ("1 working days", "2011-12-29T10:00[Pacific/Apia]", "2012-01-02T10:00[Pacific/Apia]"),
        // Cairo's clocks went forward at midnight of Friday 2026-04-24: the day begins at one.
        ("P1D", "2026-04-23T00:00[Africa/Cairo]", "2026-04-24T01:00[Africa/Cairo]"),
        ("1 working days", "2026-04-23T00:30[Africa/Cairo]", "2026-04-24T01:30[Africa/Cairo]"),
    ] {
        let (zone, (happens, due)) = (delivered.split(['[', ']']).nth(1).unwrap(), (at(delivered), at(due)));
        let policy = format!(
            "id = 't'\nzone = '{zone}'\n[class.order]\naction = 'purge'\nafter.delivered = '{length}'\ncap = 'P1Y'\n\
             fields = ['recipient_name', 'address', 'phone', 'email', 'payment_account']\n"
        );
        let policy = Policy::parse(&policy).unwrap();
        let house = House::with(happens, |config| {
            config.policies.insert(strongroom::cli::dev::TENANT.parse().unwrap(), policy);
        });
        let token = self::delivered(&house, 1);
        assert_eq!(describe(&house, &token).due, Some(wire_time(due)), "{length} after {delivered}");
        house.clock.advance(due.since(happens) - SECOND);
        assert_eq!((house.sweep(), outcome(&house, &token)), (0, Outcome::Granted), "{length} after {delivered}");
        house.clock.advance(SECOND);
        assert_eq!(outcome(&house, &token), Outcome::Expired);
        assert_eq!(house.sweep(), 1, "{length} after {delivered}");
    }
}

/// The erasure of a subject, and how many records it destroyed at once.
fn erase_subject(house: &House, key: &str, token: &str) -> u64 {
    let mut office = ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    let request = EraseSubjectRequest {
        idempotency_key: key.to_owned(),
        token: token.to_owned(),
        subject: String::new(),
        reason: strongroom::rpc::proto::EraseReason::Cancellation.into(),
    };
    house.run(async {
        let mut stream = office.erase_subject(request).await.unwrap().into_inner();
        let mut destroyed = 0;
        while let Some(message) = stream.message().await.unwrap() {
            if let Some(News::Destroyed(count)) = message.news {
                destroyed += count;
            }
        }
        destroyed
    })
}

/// Turned red by hand: with the time of the asking compared to that of the storing, in place of their numbers, the second record
/// survives its subject's erasure and the third one goes with it.
#[test]
fn which_records_leave_with_their_subject_is_no_clocks_business() {
    let annas = |n| TokenizeRequest { subject: "anna@shop.example".to_owned(), ..order(n) };
    let house = House::new();
    let waits = house.tokenize(annas(1));
    house.event(&waits, EventKind::RefundOpened, 0).unwrap();
    house.clock.leap(TEN_YEARS);
    let stored_ahead = house.tokenize(annas(2));
    house.clock.leap(-TEN_YEARS);
    house.clock.advance(DAY);
    assert_eq!(erase_subject(&house, "first", &waits), 1);
    assert_eq!(state(&house, &stored_ahead), RecordState::Erased);
    // Asked for again while the clock is ahead: whoever came back since is concerned, whoever comes later is not.
    house.clock.leap(TEN_YEARS);
    assert_eq!(erase_subject(&house, "second", &waits), 0);
    house.clock.leap(-TEN_YEARS);
    let later = house.tokenize(annas(3));
    assert_eq!((house.sweep(), state(&house, &later)), (0, RecordState::Live));
    house.event(&waits, EventKind::RefundSettled, 0).unwrap();
    assert_eq!(
        (house.sweep(), state(&house, &waits), state(&house, &later)),
        (1, RecordState::Erased, RecordState::Live)
    );
}

#[cfg(feature = "planted")]
#[test]
fn a_mark_that_follows_the_wall_clock_is_planted_and_found() {
    for test in [
        "a_clock_that_leaps_ahead_destroys_nothing_and_all_goes_on_when_it_is_right_again",
        "a_start_ten_years_ahead_destroys_nothing_and_all_goes_on_when_it_is_right_again",
        "a_days_downtime_with_a_reboot_waits_for_an_operator_and_one_without_does_not",
        "a_clock_that_leaps_back_is_told_of_and_neither_shortens_nor_prolongs_anything",
    ] {
        let (passed, printed) = planted::with_fault("mark-by-wall-clock", test);
        assert!(!passed, "{test}: {printed}");
    }
}
