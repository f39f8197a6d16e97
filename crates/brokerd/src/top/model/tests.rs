use super::*;

fn counters(uptime_seconds: f64, negotiated: u64, refused: u64) -> Counters {
    let mut counters = Counters::default();
    counters.uptime_seconds = uptime_seconds;
    counters.negotiated.insert((Plain::of("cache"), Plain::of("1.0.0")), negotiated);
    counters.refused.insert(Plain::of("version_blocked"), refused);
    counters.refused.insert(Plain::of("internal"), 1);
    counters.handed_over.insert(Plain::of("cache"), 4);
    counters
}

fn state() -> State {
    serde_json::from_value(serde_json::json!({
        "generated_at_unix_ms": 60_000, "broker_instance": "shared", "broker_pid": 7, "accepting_hello": true,
        "backends": [
            { "service_name": "cache", "service_version": "1.0.0", "pid": 8, "last_active_unix_ms": 57_500,
              "state": "running" },
            { "service_name": "cache", "service_version": "2.0.0", "pid": null, "state": "failed" },
        ],
    }))
    .unwrap()
}

fn details() -> Details {
    serde_json::from_value(serde_json::json!({
        "effective_config": { "values": { "broker": { "version": { "value": "0.1.0", "source": "runtime" } } } },
        "backend_table": [{ "service_name": "cache", "service_version": "2.0.0", "last_error": "exit code 7" }],
        "recent_lifecycle_events": [
            { "ts_ms": 1, "kind": "SPAWN", "service_name": "cache", "reason": "" },
            { "ts_ms": 2, "kind": "HELLO_ACCEPTED", "service_name": "cache" },
            { "ts_ms": 3, "kind": "HELLO_REFUSED", "service_name": "cache", "reason": "older" },
            { "ts_ms": 4, "kind": "HELLO_REFUSED", "service_name": "cache", "reason": "newer" },
        ],
        "history": {
            "latency_bounds_us": [10, 25],
            "minutes": [
                { "minutes_ago": 70, "accepted": 1, "refused": {}, "latency_counts": [1, 0, 0] },
                { "minutes_ago": 5, "accepted": 3, "refused": { "internal": 2 }, "latency_counts": [0, 0, 5] },
                { "minutes_ago": 0, "accepted": 1, "refused": { "internal": 1 }, "latency_counts": [0, 2, 0] },
            ],
        },
    }))
    .unwrap()
}

fn sample(counters: Counters, details: Option<Details>) -> Sample {
    Sample { counters, state: state(), details }
}

/// A model that has seen two samples, two seconds apart.
fn model() -> Model {
    let mut model = Model::default();
    model.take(sample(counters(10.0, 100, 5), Some(details())));
    model.take(sample(counters(12.0, 110, 6), None));
    model
}

#[test]
fn a_rate_takes_two_samples_and_is_over_the_broker_s_own_time() {
    let mut model = Model::default();
    model.take(sample(counters(10.0, 100, 5), Some(details())));
    assert_eq!(model.picture().rates, None);
    assert_eq!(model.picture().backends[0].hellos_per_second, None);
    model.take(sample(counters(12.0, 110, 6), None));
    let rates = model.picture().rates.unwrap();
    assert_eq!((rates.seconds, rates.negotiated_per_second, rates.refused_per_second), (2.0, 5.0, 0.5));
    assert_eq!(model.picture().backends[0].hellos_per_second, Some(5.0));
    assert_eq!(model.picture().backends[1].hellos_per_second, Some(0.0));
}

#[test]
fn a_broker_that_begins_anew_has_no_rate_until_the_next_sample() {
    let mut model = model();
    model.take(sample(counters(0.5, 3, 0), None));
    assert_eq!(model.picture().rates, None);
    model.take(sample(counters(1.5, 4, 0), None));
    assert_eq!(model.picture().rates.unwrap().negotiated_per_second, 1.0);
}

#[test]
fn another_process_is_another_broker_also_where_it_has_counted_more() {
    let mut model = model();
    let mut other = sample(counters(13.0, 200, 9), None);
    other.state.broker_pid += 1;
    model.take(other);
    assert_eq!(model.picture().rates, None);
}

#[test]
fn after_a_silence_there_is_no_rate_over_it_and_the_picture_stays() {
    let mut model = model();
    model.lose();
    assert_eq!(model.picture().broker.pid, 7);
    // It has counted on, and for all that is known another one may have, too.
    model.take(sample(counters(99.0, 1_000, 50), None));
    assert_eq!(model.picture().rates, None);
}

#[test]
fn what_only_a_dump_tells_stays_until_the_next_one() {
    let model = model();
    let picture = model.picture();
    assert_eq!(picture.broker.version.as_str(), "0.1.0");
    assert_eq!(picture.backends[1].last_error, Some(Plain::of("exit code 7")));
    let reasons: Vec<_> = picture.last_refused.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["newer", "older"]);
    let kinds: Vec<_> = picture.events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["SPAWN"], "a Hello is no event of the broker's life");
}

#[test]
fn the_last_hour_is_by_the_minute_and_the_calmer_percentiles_are_of_five() {
    let model = model();
    let picture = model.picture();
    assert_eq!(picture.hellos_per_minute.len(), MINUTES);
    assert_eq!(picture.hellos_per_minute[MINUTES - 6..], [5, 0, 0, 0, 0, 2]);
    assert_eq!(picture.hellos_per_minute.iter().sum::<u64>(), 7, "70 minutes are more than an hour");
    assert_eq!(picture.latency_last_minutes.unwrap().hellos, 2, "five minutes ago is over");
}

#[test]
fn refusals_are_told_by_reason_the_most_frequent_first() {
    let model = model();
    let rows: Vec<_> = model
        .picture()
        .refusals
        .iter()
        .map(|row| (row.reason.as_str(), row.since_start, row.last_hour))
        .collect();
    assert_eq!(rows, [("version_blocked", 6, 0), ("internal", 1, 3)]);
}

#[test]
fn a_backend_was_asked_for_so_long_ago_by_the_broker_s_clock() {
    let model = model();
    let rows = &model.picture().backends;
    assert_eq!((rows[0].last_hello_seconds_ago, rows[1].last_hello_seconds_ago), (Some(2), None));
    assert_eq!(rows[0].handoffs_of_service, 4);
}

#[test]
fn a_broker_that_says_less_is_shown_with_what_it_says() {
    let mut model = Model::default();
    model.take(Sample::default());
    model.take(Sample { details: Some(serde_json::from_str("{}").unwrap()), ..Sample::default() });
    assert_eq!(model.picture().hellos_per_minute, vec![0; MINUTES]);
    assert_eq!(model.picture().latency_last_minutes, None);
}
