//! The sweeper stops when far more comes due than was forecast, and goes on when somebody has looked; its lag is a metric.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;

use common::{House, order, wire_time};
use metrics_exporter_prometheus::PrometheusBuilder;
use people::log;
use strongroom::audit::entry::Action;
use strongroom::domain::caller::Role;
use strongroom::domain::time::{Clock as _, DAY, HOUR};
use strongroom::policy::retention::Policy;
use strongroom::rpc::proto::erasure_service_client::ErasureServiceClient;
use strongroom::rpc::proto::{
    ConfirmClockRequest, DescribeRequest, EventKind, HoldKind, PlaceHoldRequest, RecordState, ReportEventRequest,
    ResumeSweepRequest, StatusRequest, StatusResponse, TokenizeRequest,
};

fn status(house: &House) -> StatusResponse {
    house.run(house.operations().status(StatusRequest {})).unwrap().into_inner()
}

fn resume(house: &House) -> u64 {
    house.run(house.operations().resume_sweep(ResumeSweepRequest {})).unwrap().into_inner().records_due
}

fn stored(house: &House, count: usize) -> Vec<String> {
    (0..count).map(|n| house.tokenize(order(n))).collect()
}

/// Says of each that it was signed for two months ago.
fn falsely_signed(house: &House, tokens: &[String]) {
    let mut lifecycle = house.lifecycle();
    for (n, token) in tokens.iter().enumerate() {
        let request = ReportEventRequest {
            idempotency_key: format!("false-{n}"),
            token: token.clone(),
            kind: EventKind::Delivered.into(),
            ordinal: 0,
            occurred_at: Some(wire_time(house.clock.now().plus(-61 * DAY))),
        };
        house.run(lifecycle.report_event(request)).unwrap();
    }
}

#[test]
fn a_flood_of_false_events_is_unreadable_and_not_destroyed_until_somebody_has_looked() {
    let mut house = House::new();
    let tokens = stored(&house, 150);
    house.sweep();
    falsely_signed(&house, &tokens);
    assert_eq!(house.sweep(), 100, "so many as make nobody look");
    let seen = status(&house);
    assert!(
        seen.sweep_paused && seen.warnings.iter().any(|text| text.contains("retention resume")),
        "{:?}",
        seen.warnings
    );
    assert_eq!((seen.records_due, house.sweep()), (50, 0));
    house.stop();
    house.start();
    assert_eq!(house.sweep(), 0, "a restart does not forget");
    house.clock.advance(3 * DAY);
    assert_eq!(house.sweep(), 0, "nor does the next day");
    for token in &tokens {
        let found = house.run(house.tokens().describe(DescribeRequest { token: token.clone() })).unwrap().into_inner();
        assert!([RecordState::Expired, RecordState::Erased].contains(&found.state()));
    }
    assert_eq!(resume(&house), 50);
    assert_eq!(house.sweep(), 50);
    assert!(!status(&house).sweep_paused);
    let told: Vec<_> = log(&house).into_iter().map(|entry| entry.action).collect();
    let count = |action| told.iter().filter(|told| **told == action).count();
    assert_eq!((count(Action::PauseSweep), count(Action::ResumeSweep)), (1, 1));
}

#[test]
fn what_was_forecast_goes_however_much_it_is() {
    let house = House::new();
    for token in stored(&house, 160) {
        house.event(&token, EventKind::Delivered, 0).unwrap();
    }
    let mut destroyed = 0;
    for _ in 0..61 {
        house.clock.advance(DAY);
        destroyed += house.sweep();
    }
    assert_eq!((destroyed, status(&house).sweep_paused), (160, false));
}

#[test]
fn a_clock_that_was_confirmed_wrongly_destroys_no_more_than_a_day_may_bring() {
    let house = House::new();
    stored(&house, 150);
    house.sweep();
    house.clock.leap(400 * DAY);
    house
        .run(house.operations().confirm_clock(ConfirmClockRequest { time: Some(wire_time(house.clock.now())) }))
        .unwrap();
    assert_eq!((house.sweep(), status(&house).sweep_paused), (100, true));
}

/// Phones go a fortnight after the delivery.
const STAGED: &str = "id = 't'\nzone = 'UTC'\n[class.order]\naction = 'purge'\nafter.delivered = 'P60D'\ncap = 'P1Y'\n\
                      fields = ['recipient_name', 'address', 'phone', 'email', 'payment_account']\n\
                      [class.order.field.phone]\nafter.delivered = 'P14D'\n";

#[test]
fn a_flood_that_takes_pieces_of_records_stops_like_one_that_takes_records() {
    let house = House::under(Policy::parse(STAGED).unwrap());
    let tokens = stored(&house, 150);
    house.sweep();
    let signed_before = |tokens: &[String], days: i64| {
        for (n, token) in tokens.iter().enumerate() {
            let request = ReportEventRequest {
                idempotency_key: format!("false-{days}-{n}"),
                token: token.clone(),
                kind: EventKind::Delivered.into(),
                ordinal: 0,
                occurred_at: Some(wire_time(house.clock.now().plus(-days * DAY))),
            };
            house.run(house.lifecycle().report_event(request)).unwrap();
        }
    };
    let (whole, phones) = tokens.split_at(30);
    signed_before(whole, 61);
    signed_before(phones, 15);
    assert_eq!((house.sweep(), status(&house).sweep_paused), (30, true));
    let staged = || log(&house).iter().filter(|entry| entry.action == Action::Stage).count();
    assert_eq!(staged(), 70, "records and pieces count together");
    house.clock.advance(DAY);
    assert_eq!((house.sweep(), staged()), (0, 70));
    assert_eq!(resume(&house), 50);
    assert_eq!((house.sweep(), staged(), status(&house).sweep_paused), (0, 120, false));
}

#[test]
fn what_holds_keep_back_makes_no_room_for_a_flood() {
    let house = House::new();
    let held: Vec<_> =
        (0..120).map(|n| house.tokenize(TokenizeRequest { subject: "anna".to_owned(), ..order(n) })).collect();
    held.iter().for_each(|token| house.event(token, EventKind::Delivered, 0).unwrap());
    let mut office = ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    let hold = PlaceHoldRequest {
        idempotency_key: "hold".to_owned(),
        subject: "anna".to_owned(),
        whole_subject: true,
        kind: HoldKind::Court.into(),
        case_reference: "12 O 345/26".to_owned(),
        ..Default::default()
    };
    house.run(office.place_hold(hold)).unwrap();
    for _ in 0..63 {
        house.clock.advance(DAY);
        assert_eq!(house.sweep(), 0);
    }
    let others: Vec<_> = (200..350).map(|n| house.tokenize(order(n))).collect();
    falsely_signed(&house, &others);
    assert_eq!((house.sweep(), status(&house).sweep_paused), (100, true));
}

#[test]
fn its_lag_and_its_brake_are_metrics() {
    let house = House::new();
    let tokens = stored(&house, 130);
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let shown = |line: &str| handle.render().lines().any(|rendered| rendered == line);
    metrics::with_local_recorder(&recorder, || {
        house.sweep();
        assert!(shown("strongroom_sweep_lag_seconds 0") && shown("strongroom_sweep_paused 0"), "{}", handle.render());
        falsely_signed(&house, &tokens);
        house.clock.advance(HOUR);
        house.sweep();
        // Signed for 61 days before they were stored, an hour ago.
        assert!(
            shown("strongroom_sweep_lag_seconds 90000") && shown("strongroom_sweep_paused 1"),
            "{}",
            handle.render()
        );
        assert!(shown("strongroom_swept_total 100"), "{}", handle.render());
        resume(&house);
        house.sweep();
        assert!(shown("strongroom_sweep_lag_seconds 0") && shown("strongroom_swept_total 130"));
    });
}

#[test]
fn what_a_hold_keeps_beyond_its_time_is_no_lag() {
    let house = House::new();
    let tokens = stored(&house, 2);
    for token in &tokens {
        house.event(token, EventKind::Delivered, 0).unwrap();
    }
    let place = PlaceHoldRequest {
        idempotency_key: "hold".to_owned(),
        token: tokens.first().unwrap().clone(),
        kind: HoldKind::Court.into(),
        case_reference: "12 O 345/26".to_owned(),
        ..Default::default()
    };
    let mut office = ErasureServiceClient::new(house.channel(Role::PrivacyOfficer, "office"));
    house.run(office.place_hold(place)).unwrap();
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let lag =
        || handle.render().lines().find(|line| line.starts_with("strongroom_sweep_lag_seconds ")).map(str::to_owned);
    metrics::with_local_recorder(&recorder, || {
        house.clock.advance(60 * DAY + HOUR);
        house.vault().measure(house.clock.now()).unwrap();
        assert_eq!(lag().as_deref(), Some("strongroom_sweep_lag_seconds 0"), "by the mark, which nobody has moved");
        assert_eq!(house.sweep(), 1);
        assert_eq!(lag().as_deref(), Some("strongroom_sweep_lag_seconds 0"), "the held one waits for no sweeper");
    });
}
