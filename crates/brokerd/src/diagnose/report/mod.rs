//! `report.html`: the archive at a glance, in one page that needs nothing else.
//!
//! It is made of redacted values alone, and every text goes through the template's escaping, so what a peer or a
//! backend wrote is shown and never understood. Invariant: the page names no address, has no script, and forbids
//! a browser both.

mod charts;
mod model;
mod tables;
mod timeline;

use broker_core::time::UnixMillis;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;

use self::model::{Dump, Event, Hour};
use super::utc;
use crate::redact::{Redacted, RedactedJson};

const STYLE: &str = include_str!("report.css");
/// Nothing is loaded from anywhere, and nothing runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Events that the page shows; the others are beside it in the archive.
const EVENTS: usize = 250;

/// The page about a broker whose `dump` this is. Without a log the events are those that the broker remembers.
pub(super) fn page(dump: &RedactedJson, log: Option<&[RedactedJson]>, now: UnixMillis) -> Redacted {
    let markup = match Dump::deserialize(dump.get()) {
        Ok(dump) => {
            let logged =
                log.map(|log| log.iter().filter_map(|row| Event::deserialize(row.get()).ok()).collect());
            let events: Vec<Event> = logged.unwrap_or_else(|| dump.recent_lifecycle_events.clone());
            let shown = &events[events.len().saturating_sub(EVENTS)..];
            document(&dump.broker_instance, &contents(&dump, shown, events.len(), now))
        }
        Err(error) => document(
            "unknown",
            &html! {
                main { p.notice { "The broker's own account could not be read: " (error) } }
            },
        ),
    };
    Redacted::made_of_redacted(markup.into_string())
}

fn document(instance: &str, contents: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Broker " (instance) }
                style { (PreEscaped(STYLE)) }
            }
            body { (contents) }
        }
    }
}

fn contents(dump: &Dump, events: &[Event], known: usize, now: UnixMillis) -> Markup {
    let hour = Hour::of(&dump.history);
    html! {
        header {
            h1 { "Broker " code { (dump.broker_instance) } }
            p.muted {
                "Process " (dump.broker_pid) ", version " (dump.version()) ", up " (uptime(dump.uptime_seconds))
                ". Written " time datetime=(utc::text(now.get())) { (utc::text(now.get())) } "."
            }
            @if !dump.accepting_hello { p.notice { "It is draining: new Hellos are refused." } }
            @if dump.fd_pressure.demoted { p.notice { "It is short of file descriptors: new Hellos are refused." } }
        }
        main {
            (figures(dump, &hour))
            section aria-labelledby="backends" {
                h2 id="backends" { "Backends" }
                (tables::backends(&dump.backend_table))
            }
            section aria-labelledby="hellos" {
                h2 id="hellos" { "Hellos of the last hour" }
                @if hour.total() == 0 {
                    p.muted { "There were none." }
                } @else {
                    div.pair {
                        figure {
                            figcaption { "Rate, by the minute" }
                            (charts::rate(&dump.history, now))
                            p.legend { span.key.accepted { "accepted" } span.key.refused { "refused" } }
                        }
                        figure {
                            figcaption { "Latency, from accept to the answer" }
                            (charts::latency(&dump.history, &hour))
                        }
                    }
                }
            }
            section aria-labelledby="refusals" {
                h2 id="refusals" { "Refusals of the last hour" }
                (tables::refusals(&hour))
            }
            section aria-labelledby="events" {
                h2 id="events" { "Events" }
                @if events.is_empty() {
                    p.muted { "None is known." }
                } @else {
                    @if known > events.len() { p.muted { "The last " (events.len()) " of " (known) " in the archive." } }
                    figure { (timeline::chart(events)) (timeline::legend()) }
                    (tables::events(events))
                }
            }
            section aria-labelledby="configuration" {
                h2 id="configuration" { "Effective configuration" }
                (tables::configuration(&dump.effective_config.values))
            }
        }
        footer.muted {
            p {
                "Home directories are shown as ~, ids of users and groups as hashes, and values whose name has KEY, "
                "TOKEN, SECRET or PASS in it not at all. Times are UTC."
            }
        }
    }
}

fn figures(dump: &Dump, hour: &Hour) -> Markup {
    let running = dump.backend_table.iter().filter(|backend| backend.state == "running").count();
    let latency = |share| hour.latency(&dump.history, share).unwrap_or_else(|| "\u{2013}".to_owned());
    let figures = [
        ("Backends running", format!("{running} of {}", dump.backend_table.len())),
        ("Hellos in the last hour", charts::grouped(hour.total())),
        ("Refused of these", charts::grouped(hour.refused())),
        ("Half are answered in", latency(0.5)),
        ("99 of 100 in", latency(0.99)),
        ("Connections open", dump.connections_open.to_string()),
    ];
    html! {
        dl.figures {
            @for (name, value) in figures { div { dt { (name) } dd { (value) } } }
        }
    }
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests;
