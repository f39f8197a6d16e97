//! `list-instances`: every broker of this user, found on disk and asked.

use std::path::Path;
use std::time::Duration;

use broker_protocol::wire::{AdminRequest, AdminVerb};
use serde::Serialize;
use serde_json::Value;

/// How long another broker has for its answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// One broker.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct InstanceReport {
    pub(crate) broker_instance: String,
    pub(crate) pipe: String,
    pub(crate) pid: Option<u32>,
    pub(crate) state: &'static str,
}

/// Asks every broker socket beside the usual endpoints who is behind it; except `own`, where a broker asks.
pub(crate) async fn find_instances(own: Option<&Path>) -> Vec<InstanceReport> {
    let mut found = Vec::new();
    for (name, path) in broker_transport::endpoint::find_brokers() {
        if own != Some(&*path) {
            found.push(ask(name, &path).await);
        }
    }
    found
}

async fn ask(name: String, path: &Path) -> InstanceReport {
    let request = AdminRequest { verb: AdminVerb::Status.into(), json: true, ..AdminRequest::default() };
    let reply = tokio::time::timeout(PATIENCE, broker_client::admin(path, &request)).await;
    let report = |pid, state| InstanceReport {
        broker_instance: name.clone(),
        pipe: path.display().to_string(),
        pid,
        state,
    };
    match reply {
        Err(_) => report(None, "unresponsive"),
        Ok(Err(_)) => report(None, "stale"),
        Ok(Ok(reply)) => {
            let status: Value = serde_json::from_str(&reply.body).unwrap_or_default();
            let pid = status["broker_pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            let accepting = status["accepting_hello"].as_bool().unwrap_or_default();
            let state = if accepting { "running" } else { "draining" };
            let instance = status["broker_instance"].as_str().map(str::to_owned);
            InstanceReport { broker_instance: instance.unwrap_or_else(|| name.clone()), ..report(pid, state) }
        }
    }
}
