//! `status`, `dump`, `list-instances` and `backend-health`.

use std::collections::BTreeMap;
use std::fmt::Write;

use broker_core::backends::Backend;
use broker_core::broker::Broker;
use broker_core::entropy::Entropy;
use broker_core::time::UnixMillis;
use broker_protocol::BoundedEvent;
use serde::Serialize;

use super::config::Effective;
use super::history::History;
use super::{Facts, InstanceReport, config, history};

#[derive(Serialize)]
pub(super) struct Status {
    broker_instance: String,
    broker_pid: u32,
    uptime_seconds: u64,
    accepting_hello: bool,
    connections_open: usize,
    fd_pressure: FdPressure,
    inode_pressure: InodePressure,
    backends: Vec<BackendStatus>,
    /// What is wrong with the configuration file, where it was read again and is not in force for that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    config_errors: Vec<String>,
}

#[derive(Serialize)]
struct FdPressure {
    demoted: bool,
}

#[derive(Serialize)]
struct InodePressure {
    supported: bool,
    inodes_total: u64,
    inodes_free: u64,
    inodes_used: u64,
    used_ratio: f64,
}

#[derive(Serialize)]
struct BackendStatus {
    service_name: String,
    service_version: String,
    pid: Option<u32>,
    backend_pipe: Option<String>,
    last_active_unix_ms: Option<u64>,
    state: &'static str,
}

impl BackendStatus {
    fn of(backend: &Backend) -> Self {
        let live = backend.state().live();
        Self {
            service_name: backend.service().to_string(),
            service_version: backend.version().to_string(),
            pid: live.and_then(|live| live.pid),
            backend_pipe: live.map(|live| live.endpoint.clone()),
            last_active_unix_ms: backend.last_hello().map(UnixMillis::get),
            state: backend.state().as_str(),
        }
    }
}

pub(super) fn status<E: Entropy>(broker: &Broker<E>, facts: &Facts<'_>) -> Status {
    let inodes = facts.inodes;
    let (total, free) = inodes.map_or((0, 0), |inodes| (inodes.total, inodes.free));
    let used = total.saturating_sub(free);
    Status {
        broker_instance: broker.config().instance.to_string(),
        broker_pid: facts.pid,
        uptime_seconds: facts.uptime.as_secs(),
        accepting_hello: broker.is_serving(),
        connections_open: broker.connections_open(),
        fd_pressure: FdPressure { demoted: broker.is_under_descriptor_pressure(facts.now) },
        inode_pressure: InodePressure {
            supported: inodes.is_some_and(|inodes| inodes.total > 0),
            inodes_total: total,
            inodes_free: free,
            inodes_used: used,
            used_ratio: if total == 0 { 0.0 } else { used as f64 / total as f64 },
        },
        backends: broker.backends().into_iter().map(BackendStatus::of).collect(),
        config_errors: facts.last_reload.as_ref().map_or_else(Vec::new, |reload| reload.problems.clone()),
    }
}

impl Status {
    /// A short table for people.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        let accepting = if self.accepting_hello { "accepting Hellos" } else { "draining" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "broker '{}', process {}, up {} s, {accepting}, connections open: {}",
            self.broker_instance, self.broker_pid, self.uptime_seconds, self.connections_open
        );
        if self.fd_pressure.demoted {
            let _ = writeln!(text, "short of file descriptors: new Hellos are refused");
        }
        if !self.config_errors.is_empty() {
            let _ = writeln!(text, "the configuration file is not in force as it is now:");
        }
        for error in &self.config_errors {
            let _ = writeln!(text, "  {error}");
        }
        if self.backends.is_empty() {
            let _ = writeln!(text, "no backends");
        } else {
            let _ = writeln!(text, "{:24} {:16} {:9} {:>8}  ENDPOINT", "SERVICE", "VERSION", "STATE", "PID");
        }
        for backend in &self.backends {
            let _ = writeln!(
                text,
                "{:24} {:16} {:9} {:>8}  {}",
                backend.service_name,
                backend.service_version,
                backend.state,
                backend.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                backend.backend_pipe.as_deref().unwrap_or("-")
            );
        }
        text
    }
}

#[derive(Serialize)]
pub(super) struct Dump {
    #[serde(flatten)]
    core: Status,
    effective_config: Effective,
    backend_table: Vec<BackendRow>,
    spawn_budgets: Vec<BudgetRow>,
    recent_lifecycle_events: Vec<EventRow>,
    history: History,
}

#[derive(Serialize)]
struct BackendRow {
    broker_instance: String,
    #[serde(flatten)]
    status: BackendStatus,
    waiting_hellos: usize,
    /// How connections are passed to it.
    handoff: &'static str,
    last_error: Option<String>,
}

#[derive(Serialize)]
struct BudgetRow {
    broker_instance: String,
    service_name: String,
    service_version: String,
    attempts_used: u32,
    remaining: u32,
    in_flight: bool,
    retry_after_ms: u64,
}

#[derive(Serialize)]
pub(crate) struct EventRow {
    ts_ms: u64,
    kind: &'static str,
    pid: u32,
    service_name: String,
    reason: String,
    severity: String,
    request_id: String,
    connection_id: u64,
    broker_instance: String,
    extra: BTreeMap<String, String>,
}

impl EventRow {
    pub(crate) fn of(event: &BoundedEvent) -> Self {
        let event = event.get();
        Self {
            ts_ms: event.ts_ms,
            kind: event.kind().as_str_name(),
            pid: event.pid,
            service_name: event.service_name.clone(),
            reason: event.reason.clone(),
            severity: event.severity_text.clone(),
            request_id: event.request_id.clone(),
            connection_id: event.connection_id,
            broker_instance: event.broker_instance.clone(),
            extra: event.extra.clone(),
        }
    }
}

pub(super) fn dump<E: Entropy>(broker: &Broker<E>, facts: &Facts<'_>) -> Dump {
    let broker_instance = broker.config().instance.to_string();
    let now = facts.now.monotonic;
    let backends = broker.backends();
    Dump {
        core: status(broker, facts),
        effective_config: config::effective(facts),
        backend_table: backends
            .iter()
            .map(|backend| BackendRow {
                broker_instance: broker_instance.clone(),
                status: BackendStatus::of(backend),
                waiting_hellos: backend.waiting(),
                handoff: backend.handoff().as_str(),
                last_error: backend.last_error().map(str::to_owned),
            })
            .collect(),
        spawn_budgets: backends
            .iter()
            .map(|backend| BudgetRow {
                broker_instance: broker_instance.clone(),
                service_name: backend.service().to_string(),
                service_version: backend.version().to_string(),
                attempts_used: backend.budget().attempts_used(now),
                remaining: backend.budget().remaining(now),
                in_flight: backend.state().as_str() == "spawning",
                retry_after_ms: if backend.budget().remaining(now) > 0 {
                    0
                } else {
                    backend.budget().retry_after(now).as_nanos().div_ceil(1_000_000) as u64
                },
            })
            .collect(),
        recent_lifecycle_events: broker.recent_events().map(|event| EventRow::of(&event)).collect(),
        history: history::of(broker, facts.now),
    }
}

#[derive(Serialize)]
pub(super) struct Instances<'a> {
    instances: &'a [InstanceReport],
}

pub(super) const fn instances(instances: &[InstanceReport]) -> Instances<'_> {
    Instances { instances }
}

#[derive(Serialize)]
pub(super) struct BackendHealth {
    service_name: String,
    backends: Vec<HealthRow>,
}

#[derive(Serialize)]
struct HealthRow {
    service_version: String,
    pid: Option<u32>,
    state: &'static str,
    last_hello_unix_ms: Option<u64>,
    last_error: Option<String>,
}

pub(super) fn backend_health<E: Entropy>(broker: &Broker<E>, service: &str) -> BackendHealth {
    let backends = broker.backends().into_iter().filter(|backend| backend.service().as_str() == service);
    BackendHealth {
        service_name: service.to_owned(),
        backends: backends
            .map(|backend| HealthRow {
                service_version: backend.version().to_string(),
                pid: backend.state().live().and_then(|live| live.pid),
                state: backend.state().as_str(),
                last_hello_unix_ms: backend.last_hello().map(UnixMillis::get),
                last_error: backend.last_error().map(str::to_owned),
            })
            .collect(),
    }
}
