//! Gathering what an admin answer needs beside the broker's own state.

use std::rc::Rc;

use broker_protocol::wire::{AdminReply, AdminRequest, AdminVerb};
use broker_transport::limits;

use super::shell::Shell;
use crate::admin::{self, Facts, InstanceReport};

/// Answers an admin request.
pub(super) async fn answer(shell: &Rc<Shell>, request: &AdminRequest) -> AdminReply {
    let wants = |verb: AdminVerb| request.verb == verb as i32;
    let instances = if wants(AdminVerb::ListInstances) { instances(shell).await } else { Vec::new() };
    let settings = shell.settings();
    shell.look(|broker, now| {
        let facts = Facts {
            now,
            settings,
            pid: std::process::id(),
            uptime: now.monotonic.duration_since(broker_core::time::Monotonic::default()),
            descriptors_used: limits::descriptor_usage().map_or(1.0, limits::DescriptorUsage::ratio),
            inodes: limits::inode_usage(&settings.state_dir.value).ok(),
            events_dropped: shell.events_dropped(),
            instances,
        };
        admin::answer(broker, &facts, request)
    })
}

/// This broker and every other one of this user.
async fn instances(shell: &Rc<Shell>) -> Vec<InstanceReport> {
    let settings = shell.settings();
    let own = InstanceReport {
        broker_instance: settings.instance.value.to_string(),
        pipe: settings.socket.value.display().to_string(),
        pid: Some(std::process::id()),
        state: shell.look(|broker, _| if broker.is_serving() { "running" } else { "draining" }),
    };
    let mut all = vec![own];
    all.extend(admin::find_instances(&settings.socket.value).await);
    all
}
