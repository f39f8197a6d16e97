//! Answers to the admin verbs (behaviour.md 7).
//!
//! Everything here is rendering: the facts come from the broker's state and from a [`Facts`] that the
//! daemon gathered. Keys are contract and written in the order in which they are declared.

mod config;
mod history;
mod instances;
mod metrics;
mod release;
mod report;
mod upgrade;

use std::rc::Rc;

use broker_core::broker::Broker;
use broker_core::entropy::Entropy;
use broker_core::time::Now;
use broker_protocol::wire::{AdminReply, AdminReplyKind, AdminRequest, AdminVerb};
use broker_transport::limits::InodeUsage;
pub(crate) use instances::{InstanceReport, find_instances};
pub(crate) use release::{Release, ReleaseReport};
pub(crate) use report::EventRow;
use serde::Serialize;
pub(crate) use upgrade::{Upgraded, not_upgraded, upgraded};

use crate::diagnose::{DiagnoseError, Diagnosis};
use crate::failure::{EXIT_REFUSED, EXIT_USAGE};
use crate::serve::reload::LastReload;
use crate::serve::settings::Settings;

/// What the daemon knows and the state machine does not.
pub(crate) struct Facts<'a> {
    pub(crate) now: Now,
    pub(crate) settings: &'a Settings,
    /// What became of the last reload of the configuration, if there was one.
    pub(crate) last_reload: Option<Rc<LastReload>>,
    pub(crate) pid: u32,
    pub(crate) uptime: std::time::Duration,
    pub(crate) descriptors_used: f64,
    /// Of the file system that holds the state directory.
    pub(crate) inodes: Option<InodeUsage>,
    pub(crate) events_dropped: u64,
    /// Messages that came with descriptors where none belong.
    pub(crate) descriptors_discarded: u64,
    pub(crate) instances: Vec<InstanceReport>,
    /// What became of a request to release handles.
    pub(crate) released: Option<ReleaseReport>,
    /// What became of a request for an archive.
    pub(crate) diagnosed: Option<Result<Diagnosis, DiagnoseError>>,
}

/// The head of every JSON body.
#[derive(Serialize)]
pub(crate) struct Body<T> {
    pub(crate) schema_version: u32,
    pub(crate) command: &'static str,
    pub(crate) generated_at_unix_ms: u64,
    #[serde(flatten)]
    pub(crate) content: T,
}

/// Answers a request. `SHUTDOWN` is answered here and carried out by the daemon.
pub(crate) fn answer<E: Entropy>(
    broker: &Broker<E>,
    facts: &Facts<'_>,
    request: &AdminRequest,
) -> AdminReply {
    let Ok(verb) = AdminVerb::try_from(request.verb) else { return unknown(request.verb) };
    match verb {
        AdminVerb::Healthz => text("ok\n", 0),
        AdminVerb::Readyz if broker.is_serving() => text("ready\n", 0),
        AdminVerb::Readyz => text("not ready\n", EXIT_REFUSED),
        AdminVerb::Status if request.json => json("status", facts, report::status(broker, facts)),
        AdminVerb::Status => text(&report::status(broker, facts).to_text(), 0),
        AdminVerb::Dump => json("dump", facts, report::dump(broker, facts)),
        AdminVerb::ListInstances => json("list-instances", facts, report::instances(&facts.instances)),
        AdminVerb::BackendHealth if request.service_name.is_empty() => {
            text("backend-health needs a service name\n", EXIT_USAGE)
        }
        AdminVerb::BackendHealth => {
            json("backend-health", facts, report::backend_health(broker, &request.service_name))
        }
        AdminVerb::Config => json("config", facts, config::effective(facts)),
        AdminVerb::Metrics => AdminReply {
            kind: AdminReplyKind::Openmetrics.into(),
            body: metrics::render(broker, facts),
            exit_code: 0,
            content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8".to_owned(),
        },
        AdminVerb::Shutdown => text("draining\n", 0),
        AdminVerb::Unspecified => match &facts.released {
            Some(released) if request.json => AdminReply {
                exit_code: released.exit_code().into(),
                ..json("release-handles", facts, released)
            },
            Some(released) => text(&released.to_text(), released.exit_code()),
            None => unknown(request.verb),
        },
        AdminVerb::Diagnose => match &facts.diagnosed {
            Some(Ok(diagnosis)) => json("diagnose", facts, diagnosis),
            Some(Err(error)) => text(&error.to_text(), error.exit_code()),
            None => unknown(request.verb),
        },
    }
}

fn unknown(verb: i32) -> AdminReply {
    text(&format!("admin verb {verb} is not served by this broker\n"), EXIT_USAGE)
}

fn text(body: &str, exit_code: u8) -> AdminReply {
    AdminReply {
        kind: AdminReplyKind::Text.into(),
        body: body.to_owned(),
        exit_code: exit_code.into(),
        content_type: "text/plain; charset=utf-8".to_owned(),
    }
}

fn json(command: &'static str, facts: &Facts<'_>, content: impl Serialize) -> AdminReply {
    json_at(command, facts.now.unix.get(), content)
}

fn json_at(command: &'static str, generated_at_unix_ms: u64, content: impl Serialize) -> AdminReply {
    let body = Body { schema_version: 1, command, generated_at_unix_ms, content };
    match serde_json::to_string_pretty(&body) {
        Ok(text) => AdminReply {
            kind: AdminReplyKind::Json.into(),
            body: text,
            exit_code: 0,
            content_type: "application/json".to_owned(),
        },
        Err(error) => text(&format!("cannot write the answer as JSON: {error}\n"), EXIT_REFUSED),
    }
}
