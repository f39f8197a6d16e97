//! The tables of the report.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::model::{Backend, Event, Hour};
use crate::diagnose::utc;

/// A table that scrolls by itself where the page is narrow.
fn table(name: &str, columns: &[&str], rows: &Markup) -> Markup {
    html! {
        div.table role="region" aria-label=(name) tabindex="0" {
            table {
                thead { tr { @for column in columns { th scope="col" { (column) } } } }
                tbody { (rows) }
            }
        }
    }
}

pub(super) fn backends(backends: &[Backend]) -> Markup {
    if backends.is_empty() {
        return html! { p.muted { "There are none." } };
    }
    let columns = [
        "Service",
        "Version",
        "State",
        "Process",
        "Last Hello",
        "Waiting",
        "Handoff",
        "Last error",
        "Endpoint",
    ];
    table(
        "Backends",
        &columns,
        &html! {
            @for backend in backends {
                tr {
                    th scope="row" { (backend.service_name) }
                    td { (backend.service_version) }
                    td { span class={ "state " (state_class(&backend.state)) } { (backend.state) } }
                    td.number { @if let Some(pid) = backend.pid { (pid) } @else { "\u{2013}" } }
                    td.time { @if let Some(at) = backend.last_active_unix_ms { (moment(at)) } @else { "never" } }
                    td.number { (backend.waiting_hellos) }
                    td { (backend.handoff) }
                    td.text { (backend.last_error.as_deref().unwrap_or("\u{2013}")) }
                    td.path { (backend.backend_pipe.as_deref().unwrap_or("\u{2013}")) }
                }
            }
        },
    )
}

fn state_class(state: &str) -> &'static str {
    match state {
        "running" => "good",
        "failed" => "error",
        "draining" | "spawning" => "warn",
        _ => "info",
    }
}

pub(super) fn refusals(hour: &Hour) -> Markup {
    if hour.refusals.is_empty() {
        return html! { p.muted { "There were none." } };
    }
    let all = hour.refused();
    table(
        "Refusals by reason",
        &["Reason", "Count", "Share"],
        &html! {
            @for (reason, count) in &hour.refusals {
                @let share = format!("{:.1}", *count as f64 / all as f64 * 100.0);
                tr {
                    th scope="row" { (reason.replace('_', " ")) }
                    td.number { (count) }
                    td {
                        span.bar aria-hidden="true" { span style={ "width:" (share) "%" } {} }
                        (share) " %"
                    }
                }
            }
        },
    )
}

/// The newest first.
pub(super) fn events(events: &[Event]) -> Markup {
    table(
        "Events",
        &["Time", "Event", "Service", "Process", "Broker", "Detail"],
        &html! {
            @for event in events.iter().rev() {
                tr {
                    td.time { (moment(event.ts_ms)) }
                    th scope="row" { span class={ "dot " (event.class()) } title=(event.severity) {} (event.title()) }
                    td { (event.service_name) }
                    td.number { @if event.pid == 0 { "\u{2013}" } @else { (event.pid) } }
                    td { (event.broker_instance) }
                    td.text {
                        (event.reason)
                        @for (key, value) in &event.extra { " " span.extra { (key) "=" (value) } }
                    }
                }
            }
        },
    )
}

pub(super) fn configuration(groups: &Map<String, Value>) -> Markup {
    let columns = ["Setting", "Value", "Source"];
    html! {
        div.groups {
            @for (group, values) in groups {
                div {
                    h3 { (group.replace('_', " ")) }
                    (table(group, &columns, &html! {
                        @for (name, leaf) in values.as_object().into_iter().flatten() {
                            tr {
                                th scope="row" { (name) }
                                td.path { (plain(leaf.get("value").unwrap_or(leaf))) }
                                td { (plain(leaf.get("source").unwrap_or(&Value::Null))) }
                            }
                        }
                    }))
                }
            }
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn moment(unix_ms: u64) -> Markup {
    let text = utc::text(unix_ms);
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    html! { time datetime=(text) { span.date { (date) } " " (time.trim_end_matches('Z')) } }
}
