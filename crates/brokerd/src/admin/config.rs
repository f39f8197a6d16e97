//! `config`: every value in force, and where it comes from.

use broker_core::admission::{BUFFERED_PER_PEER, MAX_PEERS};
use broker_core::backends::{SPAWN_ATTEMPTS, SPAWN_WINDOW};
use broker_core::broker::{DEFAULT_WAIT, KILL_AFTER, PENDING_STARTS_PER_PEER};
use broker_core::handoff::HandoffLimits;
use broker_core::hello::DEFAULT_KEEPALIVE;
use broker_core::{HELLO_EVENT_WINDOW, HELLO_EVENTS_PER_WINDOW, RECENT_EVENTS};
use broker_protocol::{ENVELOPE_VERSION, FRAMING_VERSION, PROTOCOL_VERSION, limits, probe};
use serde::Serialize;
use serde_json::{Value, json};

use super::Facts;
use crate::backend_arg::BackendArg;
use crate::serve::event_log::{MAX_LOG, ROTATED_LOGS};
use crate::serve::settings::{Source, Sourced};

/// The body of `config`, and a part of `dump`.
#[derive(Serialize)]
pub(super) struct Effective {
    values: Value,
}

fn leaf(value: impl Serialize, source: Source) -> Value {
    json!(Sourced::new(value, source))
}

/// A setting, shown as something else than it is kept.
fn shown<T>(setting: &Sourced<T>, show: impl FnOnce(&T) -> Value) -> Value {
    leaf(show(&setting.value), setting.source.clone())
}

/// The backends that are registered. Each says itself where it comes from; that of the whole is the weightiest.
fn registered(backends: &[Sourced<BackendArg>]) -> Value {
    let rows = backends.iter().map(|Sourced { value, source }| {
        json!({
            "service_name": value.service.to_string(),
            "service_version": value.version.to_string(),
            "endpoint": value.endpoint,
            "handoff_endpoint": value.handoff,
            "source": source,
        })
    });
    let source = backends.first().map_or(Source::Default, |first| first.source.clone());
    leaf(rows.collect::<Vec<_>>(), source)
}

pub(super) fn effective(facts: &Facts<'_>) -> Effective {
    let settings = facts.settings;
    let path = |path: &std::path::PathBuf| json!(path.display().to_string());
    let millis = |duration: &std::time::Duration| json!(duration.as_millis() as u64);
    let handoff = HandoffLimits::default();
    let domain = if settings.serves_every_domain { "every" } else { "own" };
    Effective {
        values: json!({
            "broker": {
                "instance": shown(&settings.instance, |instance| json!(instance.to_string())),
                "pid": leaf(facts.pid, Source::Runtime),
                "version": leaf(env!("CARGO_PKG_VERSION"), Source::Runtime),
                "trust_domain": leaf(domain, Source::Runtime),
                "keep_backends": shown(&settings.keep_backends, |keep| json!(keep)),
                "sandbox": shown(&settings.sandbox, |is_on| json!(is_on)),
                "backends": registered(&settings.backends),
                "last_reload": leaf(facts.last_reload.as_deref(), Source::Runtime),
                "keepalive_secs": leaf(DEFAULT_KEEPALIVE.as_secs(), Source::Default),
            },
            "protocol": {
                "framing_version": leaf(FRAMING_VERSION, Source::Protocol),
                "envelope_version": leaf(ENVELOPE_VERSION, Source::Protocol),
                "min_protocol": leaf(PROTOCOL_VERSION, Source::Protocol),
                "max_protocol": leaf(PROTOCOL_VERSION, Source::Protocol),
                "probe_timeout_ms": leaf(probe::PROBE_TIMEOUT.as_millis() as u64, Source::Protocol),
            },
            "limits": {
                "frame_body_bytes": leaf(limits::MAX_FRAME_BODY, Source::Protocol),
                "hello_body_bytes": leaf(limits::MAX_HELLO_BODY, Source::Protocol),
                "service_definition_bytes": leaf(limits::MAX_SERVICE_DEFINITION, Source::Schema),
                "connections": shown(&settings.max_connections, |count| json!(count)),
                "connections_per_peer": shown(&settings.max_connections, |count| json!(count / 2)),
                "buffered_bytes_per_peer": leaf(BUFFERED_PER_PEER, Source::Default),
                "pending_starts_per_peer": leaf(PENDING_STARTS_PER_PEER, Source::Default),
                "hello_timeout_ms": shown(&settings.hello_timeout, millis),
                "hello_burst": shown(&settings.hello_burst, |count| json!(count)),
                "hello_refill_per_second": shown(&settings.hello_refill, |count| json!(count)),
                "known_peers": leaf(MAX_PEERS, Source::Default),
                "wait_for_backend_ms": leaf(DEFAULT_WAIT.as_millis() as u64, Source::Default),
                "drain_ms": shown(&settings.drain, millis),
                "kill_after_ms": leaf(KILL_AFTER.as_millis() as u64, Source::Default),
                "pending_handoffs": leaf(handoff.capacity, Source::Default),
                "pending_handoffs_per_backend": leaf(handoff.per_backend, Source::Default),
                "pending_handoffs_per_peer": leaf(handoff.per_peer, Source::Default),
            },
            "paths": {
                "config_file": shown(&settings.config_file, |file| json!(file.as_ref().map(path))),
                "socket": shown(&settings.socket, path),
                "service_dir": shown(&settings.service_dir, path),
                "state_dir": shown(&settings.state_dir, path),
                "manifest_dir": shown(&settings.manifest_dir, path),
                "event_log": leaf(settings.event_log().display().to_string(), Source::Schema),
            },
            "spawn_budget": {
                "attempts": leaf(SPAWN_ATTEMPTS, Source::Default),
                "window_ms": leaf(SPAWN_WINDOW.as_millis() as u64, Source::Default),
            },
            "diagnostics": {
                "log_format": shown(&settings.log, |format| json!(format.as_str())),
                "log_level": shown(&settings.log_level, |level| json!(level)),
                "recent_events": leaf(RECENT_EVENTS, Source::Schema),
                "event_log_bytes": leaf(MAX_LOG, Source::Schema),
                "event_logs_kept": leaf(ROTATED_LOGS, Source::Schema),
                "hello_events_per_window": leaf(HELLO_EVENTS_PER_WINDOW, Source::Default),
                "hello_event_window_ms": leaf(HELLO_EVENT_WINDOW.as_millis() as u64, Source::Default),
            },
        }),
    }
}
