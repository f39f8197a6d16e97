//! Gathering what an admin answer needs beside the broker's own state.

use std::rc::Rc;
use std::time::Duration;

use broker_core::handoff::BackendSlot;
use broker_protocol::control::{ControlMessage, ReleaseHandles};
use broker_protocol::wire::{AdminReply, AdminRequest, AdminVerb};
use broker_transport::{fd_passing, limits};
use tokio::time::Instant;

use super::diagnosis;
use super::shell::Shell;
use crate::admin::{self, Facts, InstanceReport, Release, ReleaseReport};

/// How long all backends of a service may take to close what they hold open.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);

/// Answers an admin request.
pub(super) async fn answer(shell: &Rc<Shell>, request: &AdminRequest) -> AdminReply {
    let wants = |verb: AdminVerb| request.verb == verb as i32;
    let instances = if wants(AdminVerb::ListInstances) { instances(shell).await } else { Vec::new() };
    let released = match &request.release_handles {
        Some(path) if wants(AdminVerb::Unspecified) => {
            Some(release(shell, &request.service_name, path).await)
        }
        Some(_) | None => None,
    };
    let diagnosed = if wants(AdminVerb::Diagnose) {
        Some(Box::pin(diagnosis::diagnose(shell, &request.output_path)).await)
    } else {
        None
    };
    let settings = shell.settings();
    // A few words take no longer than a Hello, and whoever watches over the broker waits for them.
    let is_short = [AdminVerb::Healthz, AdminVerb::Readyz, AdminVerb::Shutdown].into_iter().any(wants);
    let _turn = if is_short { None } else { Some(shell.turn_to_render().await) };
    shell.look(|broker, now| {
        let facts = Facts {
            now,
            settings: &settings,
            last_reload: shell.configuration().last_reload(),
            pid: std::process::id(),
            uptime: now.monotonic.duration_since(broker_core::time::Monotonic::default()),
            descriptors_used: limits::descriptor_usage().map_or(1.0, limits::DescriptorUsage::ratio),
            inodes: limits::inode_usage(&settings.state_dir.value).ok(),
            events_dropped: shell.events_dropped(),
            descriptors_discarded: fd_passing::discarded_messages(),
            instances,
            released,
            diagnosed,
        };
        admin::answer(broker, &facts, request)
    })
}

/// Asks every running backend of a service to close what it holds open below a path.
async fn release(shell: &Rc<Shell>, service: &str, path: &str) -> ReleaseReport {
    let running = shell.look(|broker, _| {
        let backends = broker.backends().into_iter();
        let running = backends.filter(|backend| backend.service().as_str() == service);
        let running = running.filter_map(|backend| {
            let live = backend.state().live()?;
            Some((backend.slot(), backend.version().to_string(), live.pid))
        });
        running.collect::<Vec<_>>()
    });
    let deadline = Instant::now() + RELEASE_LIMIT;
    // All at once: one that hangs takes no time from the others.
    let asked: Vec<_> = running
        .into_iter()
        .map(|(slot, version, pid)| {
            let (shell, path) = (Rc::clone(shell), path.to_owned());
            let answer = async move { release_of(&shell, slot, &path, deadline).await };
            (version, pid, tokio::task::spawn_local(answer))
        })
        .collect();
    let mut backends = Vec::new();
    for (service_version, pid, answer) in asked {
        let (released, detail) = match answer.await {
            Ok(Ok(())) => (true, String::new()),
            Ok(Err(why)) => (false, why),
            Err(error) => (false, error.to_string()),
        };
        backends.push(Release { service_version, pid, released, detail });
    }
    ReleaseReport { service_name: service.to_owned(), backends }
}

async fn release_of(
    shell: &Rc<Shell>,
    slot: BackendSlot,
    path: &str,
    deadline: Instant,
) -> Result<(), String> {
    let Some(control) = shell.control(slot) else {
        return Err("it has no control connection; end it instead".to_owned());
    };
    let question = ControlMessage::ReleaseHandles(ReleaseHandles { path: path.to_owned() });
    match tokio::time::timeout_at(deadline, control.ask(&question)).await {
        Ok(Some(ControlMessage::HandlesReleased(answer))) if answer.released => Ok(()),
        Ok(Some(ControlMessage::HandlesReleased(answer))) => Err(answer.detail),
        Ok(Some(_) | None) => Err("it has ended, or gave no answer that is understood".to_owned()),
        Err(_) => Err(format!("it has not answered within {} s", RELEASE_LIMIT.as_secs())),
    }
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
    all.extend(admin::find_instances(Some(&settings.socket.value)).await);
    all
}
