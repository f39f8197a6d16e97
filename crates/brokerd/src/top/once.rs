//! One frame, without a terminal: as plain text of any width, or as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::model::{Picture, RECENT_MINUTES};
use super::sample::Event;
use super::words;

#[derive(Serialize)]
struct Body<'a> {
    schema_version: u32,
    command: &'static str,
    generated_at_unix_ms: u64,
    #[serde(flatten)]
    picture: &'a Picture,
}

/// The frame for programs.
pub(super) fn json(picture: &Picture) -> impl Serialize {
    Body { schema_version: 1, command: "top", generated_at_unix_ms: picture.broker.at_unix_ms, picture }
}

/// The frame for people. Lists are told whole.
pub(super) fn text(picture: &Picture) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, picture);
    out
}

fn write(out: &mut String, picture: &Picture) -> std::fmt::Result {
    let broker = &picture.broker;
    let state = if broker.is_accepting { "accepting" } else { "draining" };
    writeln!(
        out,
        "{}  {state}  pid {}  up {}  {}",
        broker.instance.as_str(),
        broker.pid,
        words::duration(broker.uptime_seconds),
        broker.version.as_str()
    )?;
    let short = if broker.is_short_of_descriptors { "  short of descriptors" } else { "" };
    writeln!(
        out,
        "connections {}  descriptors {:.0}%{short}  events dropped {}  {} UTC",
        broker.connections_open,
        broker.descriptors_used_ratio * 100.0,
        broker.events_dropped,
        words::time(broker.at_unix_ms)
    )?;
    match picture.rates {
        Some(rates) => writeln!(
            out,
            "negotiated {}  refused {}  over {:.1} s",
            words::rate(rates.negotiated_per_second),
            words::rate(rates.refused_per_second),
            rates.seconds
        )?,
        None => writeln!(out, "negotiated -  refused -  (the broker began to count anew)")?,
    }
    writeln!(out, "latency  now    {}", words::percentiles(picture.latency_now))?;
    let calm = words::percentiles(picture.latency_last_minutes);
    writeln!(out, "         {RECENT_MINUTES} min  {calm}  (upper bounds of buckets)")?;
    let hour: u64 = picture.hellos_per_minute.iter().sum();
    let most = picture.hellos_per_minute.iter().max().copied().unwrap_or_default();
    writeln!(out, "Hellos in the last hour {hour}, in its fullest minute {most}")?;
    writeln!(out, "\nBackends ({})", picture.backends.len())?;
    for row in &picture.backends {
        writeln!(
            out,
            "  {:24} {:16} {:9} {:>8}  last Hello {:>8}  {:>9}  handoffs of the service {}  {}",
            row.service.as_str(),
            row.version.as_str(),
            row.state.as_str(),
            words::or_dash(row.pid, |pid| pid.to_string()),
            words::or_dash(row.last_hello_seconds_ago, |ago| format!("{} ago", words::duration(ago))),
            words::or_dash(row.hellos_per_second, words::rate),
            row.handoffs_of_service,
            words::or_dash(row.last_error.as_ref(), |error| error.as_str().to_owned()),
        )?;
    }
    writeln!(out, "\nRefusals by reason ({})", picture.refusals.len())?;
    for row in &picture.refusals {
        let reason = row.reason.as_str();
        writeln!(out, "  {reason:24} since start {:>8}  last hour {:>8}", row.since_start, row.last_hour)?;
    }
    list(out, "Last refusals", &picture.last_refused)?;
    list(out, "Events", &picture.events)
}

fn list(out: &mut String, title: &str, events: &[Event]) -> std::fmt::Result {
    writeln!(out, "\n{title} ({})", events.len())?;
    for event in events {
        let service = event.service_name.as_str();
        let (time, kind) = (words::time(event.ts_ms), event.kind.as_str());
        writeln!(out, "  {time}  {kind:18} {service:16} {}", event.reason.as_str())?;
    }
    Ok(())
}
