//! `upgrade`: what has become of it.

use broker_protocol::wire::AdminReply;
use serde::Serialize;

use super::{json_at, text};
use crate::failure::EXIT_REFUSED;

/// What the new program has taken over.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Upgraded {
    upgraded: bool,
    broker_pid: u32,
    from_version: String,
    to_version: &'static str,
    backends_kept: usize,
    connections_kept: usize,
}

#[derive(Serialize)]
struct NotUpgraded<'a> {
    upgraded: bool,
    broker_pid: u32,
    detail: &'a str,
}

impl Upgraded {
    pub(crate) fn new(from_version: String, backends_kept: usize, connections_kept: usize) -> Self {
        Self {
            upgraded: true,
            broker_pid: std::process::id(),
            from_version,
            to_version: env!("CARGO_PKG_VERSION"),
            backends_kept,
            connections_kept,
        }
    }
}

pub(crate) fn upgraded(upgraded: &Upgraded, wants_json: bool, unix_ms: u64) -> AdminReply {
    if wants_json {
        return json_at("upgrade", unix_ms, upgraded);
    }
    let Upgraded { broker_pid, from_version, to_version, backends_kept, connections_kept, .. } = upgraded;
    text(
        &format!(
            "upgraded: process {broker_pid} goes on as version {to_version} (was {from_version}); \
             kept {backends_kept} backends and {connections_kept} open requests\n"
        ),
        0,
    )
}

pub(crate) fn not_upgraded(why: &str, wants_json: bool, unix_ms: u64) -> AdminReply {
    if wants_json {
        let body = NotUpgraded { upgraded: false, broker_pid: std::process::id(), detail: why };
        return AdminReply { exit_code: EXIT_REFUSED.into(), ..json_at("upgrade", unix_ms, body) };
    }
    text(&format!("not upgraded, the broker goes on as it is: {why}\n"), EXIT_REFUSED)
}
