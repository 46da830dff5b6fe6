//! When machines may be disturbed, in tables.

use jiff::Timestamp;
use slipway_model::{Maintenance, Weekday, Window};
use slipway_plan::{Closed, maintenance_open};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn until(text: &str) -> Result<(), Closed> {
    Err(Closed::Until(Some(at(text))))
}

/// 2026-01-01 is a Thursday.
fn windows(windows: Vec<Window>) -> Maintenance {
    Maintenance { windows, ..Maintenance::default() }
}

#[test]
fn without_windows_it_is_always_open_and_paused_it_never_is() {
    let now = at("2026-01-01T12:00:00Z");
    assert_eq!(maintenance_open(&Maintenance::default(), now), Ok(()));
    let paused = Maintenance { paused: true, ..windows(vec![Window { days: vec![], start: 0, minutes: 1440 }]) };
    assert_eq!(maintenance_open(&paused, now), Err(Closed::Paused));
}

#[test]
fn a_window_is_open_from_its_first_second_to_before_its_last_and_says_when_it_opens_next() {
    let daily = windows(vec![Window { days: vec![], start: 120, minutes: 60 }]);
    for (now, expected) in [
        ("2026-01-01T01:59:59Z", until("2026-01-01T02:00:00Z")),
        ("2026-01-01T02:00:00Z", Ok(())),
        ("2026-01-01T02:59:59Z", Ok(())),
        ("2026-01-01T03:00:00Z", until("2026-01-02T02:00:00Z")),
    ] {
        assert_eq!(maintenance_open(&daily, at(now)), expected, "{now}");
    }
}

#[test]
fn a_window_of_a_weekday_may_last_into_the_next_day_and_comes_again_after_a_week() {
    let saturday = windows(vec![Window { days: vec![Weekday::Saturday], start: 23 * 60, minutes: 120 }]);
    for (now, expected) in [
        ("2026-01-01T12:00:00Z", until("2026-01-03T23:00:00Z")),
        ("2026-01-03T22:59:59Z", until("2026-01-03T23:00:00Z")),
        ("2026-01-03T23:30:00Z", Ok(())),
        ("2026-01-04T00:59:59Z", Ok(())),
        ("2026-01-04T01:00:00Z", until("2026-01-10T23:00:00Z")),
        ("2026-01-05T00:30:00Z", until("2026-01-10T23:00:00Z")),
    ] {
        assert_eq!(maintenance_open(&saturday, at(now)), expected, "{now}");
    }
}

#[test]
fn of_several_windows_the_next_one_counts() {
    let several = windows(vec![
        Window { days: vec![Weekday::Monday], start: 0, minutes: 30 },
        Window { days: vec![Weekday::Friday, Weekday::Sunday], start: 600, minutes: 30 },
    ]);
    for (now, expected) in [
        ("2026-01-01T12:00:00Z", until("2026-01-02T10:00:00Z")),
        ("2026-01-02T10:29:00Z", Ok(())),
        ("2026-01-02T10:30:00Z", until("2026-01-04T10:00:00Z")),
        ("2026-01-04T10:45:00Z", until("2026-01-05T00:00:00Z")),
        ("2026-01-05T00:29:59Z", Ok(())),
    ] {
        assert_eq!(maintenance_open(&several, at(now)), expected, "{now}");
    }
}

#[test]
fn a_window_of_a_whole_day_on_every_day_never_closes() {
    let always = windows(vec![Window { days: vec![], start: 720, minutes: 1440 }]);
    for now in ["2026-01-01T00:00:00Z", "2026-01-01T11:59:59Z", "2026-01-01T12:00:00Z"] {
        assert_eq!(maintenance_open(&always, at(now)), Ok(()), "{now}");
    }
}
