//! Starting, probing and ending backends, as the broker orders it (behaviour.md 4).
//!
//! Invariants: the outcome of every order goes back to the broker exactly once; a process that did not
//! become ready is dead and reaped before its failure is told; the socket of a backend that was started
//! here goes when the backend does.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use broker_core::backends::Origin;
use broker_core::broker::{Exit, Input, StartOrder};
use broker_core::handoff::BackendSlot;
use broker_core::services::Activation;
use broker_protocol::control::{CONTROL_FD, ControlMessage, Quiesce, UsageQuery};
use broker_protocol::wire::DaemonProcess;
use broker_protocol::{SpawnFailure, SpawnStage};
use broker_transport::descriptor::OwnedDescriptor;
use broker_transport::listener::{BindOptions, BoundSocket, has_connections};
use broker_transport::passing::Recipient;
use broker_transport::probe::{self, Expectation, NotReady, probe_identity};
use broker_transport::process::{
    self, ChildProcess, Inherited, ParentDeath, ProcessWatch, SpawnCommand, Spawner,
};
use broker_transport::stream::Stream;
use broker_transport::{endpoint, identity};

use super::backend_process::Process;
use super::control::{self, InUse};
use super::executable::{self, Unlike};
use super::records::Note;
use super::shell::Shell;
use super::watches::Watches;
use crate::definitions;
use crate::redact::redact;

/// How long a process may be on its way out, without an executable and not yet dead.
const DIES_WITHIN: Duration = Duration::from_secs(1);
/// How long it may take to write down that a backend runs, before it is used all the same.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3);
/// What stands for the last words of a backend that is to outlive the broker: its standard error leads nowhere, as
/// nobody would read it then.
const NOT_KEPT: &str = "(with --keep-backends, what a backend says is not kept)";
/// How long a backend may take to say whether it is in use.
const USAGE_LIMIT: Duration = Duration::from_secs(1);
/// Lines of a dead backend's standard error that are told.
const STDERR_LINES: usize = 12;

/// Goes on with a backend that a predecessor has started: `control` is its connection, where it has one.
pub(super) fn resume(
    shell: &Rc<Shell>,
    slot: BackendSlot,
    started: control::Started,
    (child, has_adopted): (ChildProcess, bool),
    connection: Option<(Stream, control::ControlProgress)>,
) {
    let process = Process::inherited(PathBuf::from(&started.endpoint), has_adopted);
    let (service, version) = (started.service.clone(), started.version.clone());
    let child = process.adopt(child);
    shell.add_process(slot, &process);
    if let Some((stream, progress)) = connection {
        let announced = progress.announced;
        let recipient = Recipient::child(&child);
        let control = control::of_started(shell, slot, (stream, recipient), progress);
        let in_use = announced.map(|announced| InUse::begin(shell, &control, announced));
        process.serve_control(shell, control, started, in_use);
    }
    let shell = Rc::clone(shell);
    tokio::task::spawn_local(async move {
        let (pid, exit) = (child.pid(), end_of(&child).await);
        let exited = Input::Exited { slot, pid, origin: Origin::Started, exit };
        shell.records().note(Note::Ended { service, version, pid: child.pid() });
        clear_away(&shell, slot, &process, exited).await;
    });
}

/// Carries out a start, and stays with the process until it ends.
pub(super) async fn start(shell: Rc<Shell>, order: StartOrder, process: Rc<Process>) {
    let slot = order.slot;
    // As it was when the process began; a reload may come in between.
    let parent_death = parent_death(&shell);
    let ended = match bring_up(&shell, &order, &process, parent_death).await {
        Ok((child, daemon)) => {
            let (pid, endpoint) = (child.pid(), endpoint_of(&daemon));
            let (service, version) = (order.definition.service().clone(), order.version.clone());
            // One that ends with the broker is nothing for the next one to find. Of one that does not, nobody is told
            // before it is written down: a broker that is killed meanwhile leaves nothing that the next cannot find.
            if parent_death == ParentDeath::Survive {
                let idle_timeout = order.definition.settings().idle_timeout;
                let daemon = Box::new(DaemonProcess {
                    idle_timeout_secs: idle_timeout.and_then(|timeout| timeout.as_secs().try_into().ok()),
                    ..daemon
                });
                let (service, version) = (service.clone(), version.clone());
                shell.records().note_first(Note::Running { service, version, daemon }, WRITTEN_WITHIN).await;
            }
            shell.tell(Input::Started { slot, pid, endpoint });
            let exit = end_of(&child).await;
            let ended = Input::Exited { slot, pid, origin: Origin::Started, exit };
            shell.records().note(Note::Ended { service, version, pid });
            ended
        }
        Err(failure) => Input::StartFailed { slot, failure },
    };
    clear_away(&shell, slot, &process, ended).await;
}

/// Clears away what a process leaves, and tells of its end.
pub(super) async fn clear_away(shell: &Rc<Shell>, slot: BackendSlot, process: &Process, ended: Input) {
    // A successor could not reap it again, nor tell of its end.
    let _held_back = shell.moves().hold_back(shell);
    process.end_control(shell.control(slot)).await;
    process.remove_socket();
    shell.forget_process(slot, process);
    shell.tell(ended);
}

/// Where a process listens that has answered its probe, which has checked that.
fn endpoint_of(daemon: &DaemonProcess) -> String {
    daemon.ipc_endpoint.as_ref().map(|endpoint| endpoint.path.clone()).unwrap_or_default()
}

async fn end_of(child: &ChildProcess) -> Exit {
    match child.wait().await {
        Ok(process::Exit::Code(status)) => Exit::Status(status),
        Ok(process::Exit::Signal(signal)) => Exit::Signal(signal),
        Ok(process::Exit::Unknown) | Err(_) => Exit::Unknown,
    }
}

/// Starts the process and waits until it is ready.
async fn bring_up(
    shell: &Rc<Shell>,
    order: &StartOrder,
    process: &Rc<Process>,
    parent_death: ParentDeath,
) -> Result<(Rc<ChildProcess>, DaemonProcess), SpawnFailure> {
    let program = resolve(order).await?;
    let (endpoint, listener) = prepare_endpoint(order.definition.settings().activation)?;
    process.listens_at(PathBuf::from(&endpoint));
    let mut command = command(shell, order, program, &endpoint, listener);
    command.parent_death = parent_death;
    let control = give_control(&mut command)?;
    let child = shell.spawner().spawn(command).await;
    let child = child.map_err(|error| {
        if error.is_descriptor_shortage() {
            shell.tell(Input::DescriptorPressure);
        }
        SpawnFailure::new(SpawnStage::Exec, error.to_string())
    })?;
    let child = process.adopt(child);
    let started = control::Started {
        service: order.definition.service().clone(),
        version: order.version.clone(),
        endpoint: endpoint.clone(),
    };
    let connection = (control, Recipient::child(&child));
    let control = control::of_started(shell, order.slot, connection, control::ControlProgress::default());
    process.serve_control(shell, control, started, None);
    match order.definition.settings().activation {
        Activation::Bind => {}
        // It is told of once it is ready and written down: a broker that is killed before would leave clients with a
        // backend that the next one does not know of.
        Activation::ListenFds if parent_death == ParentDeath::Survive => {}
        // Connections wait in its listener from now on, whatever it is doing.
        Activation::ListenFds => {
            let (slot, pid, endpoint) = (order.slot, child.pid(), endpoint.clone());
            shell.tell(Input::Listening { slot, pid, endpoint });
        }
    }
    match check_ready(shell.spawner(), order, &child, &endpoint).await {
        Ok(daemon) => Ok((child, daemon)),
        Err(failure) => Err(bury(&child, failure, parent_death).await),
    }
}

async fn resolve(order: &StartOrder) -> Result<PathBuf, SpawnFailure> {
    let (definition, version) = (Arc::clone(&order.definition), order.version.clone());
    let resolved =
        tokio::task::spawn_blocking(move || definitions::resolve_binary(&definition, &version)).await;
    let failure = |cause: String| SpawnFailure::new(SpawnStage::Resolve, cause);
    resolved.map_err(|error| failure(error.to_string()))?.map_err(|error| failure(error.to_string()))
}

fn prepare_endpoint(activation: Activation) -> Result<(String, Option<OwnedDescriptor>), SpawnFailure> {
    let failure = |cause: String| SpawnFailure::new(SpawnStage::Endpoint, cause);
    let path = endpoint::new_backend_endpoint().map_err(|error| failure(error.to_string()))?;
    let listener = match activation {
        Activation::Bind => None,
        Activation::ListenFds => {
            let bound = BoundSocket::bind(&path, &BindOptions::default());
            let passed = bound.map_err(|error| failure(error.to_string()))?.into_descriptor();
            let remedy = "set the label spawn.activation to bind";
            Some(passed.map_err(|error| failure(format!("{error}; {remedy}")))?)
        }
    };
    let text = path.into_os_string().into_string();
    // The names of endpoints are checked to be UTF-8 where they are made.
    text.map(|text| (text, listener)).map_err(|path| failure(format!("{} is not UTF-8", path.display())))
}

/// Gives a process one end of a control connection; the other end.
fn give_control(command: &mut SpawnCommand) -> Result<Stream, SpawnFailure> {
    let failure = |error: io::Error| SpawnFailure::new(SpawnStage::Endpoint, error.to_string());
    let (near, far) = Stream::pair().map_err(failure)?;
    let descriptor = far.into_owned_fd();
    command.inherited.push(Inherited { variable: CONTROL_FD.into(), descriptor });
    Ok(near)
}

/// What the broker's end means to a backend that is started now.
fn parent_death(shell: &Shell) -> ParentDeath {
    if shell.settings().keep_backends.value { ParentDeath::Survive } else { ParentDeath::Terminate }
}

fn command(
    shell: &Shell,
    order: &StartOrder,
    program: PathBuf,
    endpoint: &str,
    listener: Option<OwnedDescriptor>,
) -> SpawnCommand {
    let settings = order.definition.settings();
    let mut command = SpawnCommand::new(program);
    command.args = settings.args.iter().map(OsString::from).collect();
    command.env = settings.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let namespace = endpoint::current_user_hash().map(|hash| hash.to_string()).unwrap_or_default();
    let told = [
        ("SERVICE_NAME", order.definition.service().to_string()),
        ("SERVICE_VERSION", order.version.to_string()),
        ("BACKEND_PIPE", endpoint.to_owned()),
        ("BACKEND_NAMESPACE", namespace),
        ("CONTROL_PIPE", shell.settings().socket.value.display().to_string()),
        ("INSTANCE", shell.settings().instance.value.to_string()),
        ("TRACEPARENT", order.traceparent.clone()),
        ("TRACESTATE", order.tracestate.clone()),
    ];
    for (name, value) in told {
        // A trace context may hold what no variable can; it is not worth failing a start for.
        if !value.is_empty() && !value.contains('\0') {
            command = command.env(format!("RUNNING_PROCESS_BROKER_V1_{name}"), value);
        }
    }
    command.listen_fd = listener;
    command
}

/// Waits for the answer to a probe, and checks that it comes from the process that was started.
///
/// The executable is hashed meanwhile: the very file that the process runs, whatever lies at its path.
async fn check_ready(
    spawner: &Spawner,
    order: &StartOrder,
    child: &ChildProcess,
    endpoint: &str,
) -> Result<DaemonProcess, SpawnFailure> {
    let pid = child.pid();
    let hash = tokio::task::spawn_local(executable::hash_of(spawner.clone(), pid));
    let expectation = Expectation {
        pid: Some(pid),
        boot_id: Some(identity::boot_id().map_err(|error| executable::unidentified(&error))?),
        exe_hash: None,
        endpoint: Some(endpoint.to_owned()),
    };
    let limit = order.definition.settings().spawn_timeout;
    let answer =
        probe::wait_ready(endpoint, child, &expectation, limit).await.map_err(|error| match error {
            NotReady::Mismatch(_) => SpawnFailure::new(SpawnStage::Identity, error.to_string()),
            NotReady::Died { .. } | NotReady::TimedOut { .. } | NotReady::Watch(_) => {
                SpawnFailure::new(SpawnStage::Ready, error.to_string())
            }
        })?;
    let hash = hash.await.map_err(|error| executable::unidentified(&error))?;
    if executable::is_running(&answer, hash).await.is_ok() {
        return Ok(answer);
    }
    // A script may have made way for the real program since: what counts is who has answered.
    let again = executable::hash_of(spawner.clone(), pid).await;
    match executable::is_running(&answer, again).await {
        Ok(()) => Ok(answer),
        // One that is dying executes nothing any more: that is no question of who it was.
        Err(Unlike::Unknown(_)) if tokio::time::timeout(DIES_WITHIN, child.wait()).await.is_ok() => {
            Err(SpawnFailure::new(SpawnStage::Ready, "it ended when it had just answered"))
        }
        Err(unlike) => Err(unlike.into()),
    }
}

/// Makes sure that a process which did not become ready is gone, and adds how it ended and what it said.
async fn bury(child: &ChildProcess, failure: SpawnFailure, parent_death: ParentDeath) -> SpawnFailure {
    let died_by_itself = matches!(child.try_wait(), Ok(Some(_)));
    if let Err(error) = child.signal(process::StopSignal::Kill)
        && !died_by_itself
    {
        tracing::warn!(pid = child.pid(), %error, "a backend that did not become ready was not killed");
    }
    let exit = end_of(child).await;
    let home = std::env::home_dir();
    let home = home.as_ref().and_then(|home| home.to_str());
    let stderr = match parent_death {
        ParentDeath::Survive => NOT_KEPT.to_owned(),
        ParentDeath::Terminate => redact(&child.stderr().last_lines(STDERR_LINES).join("\n"), home),
    };
    let (exit_status, signal) = match exit {
        Exit::Status(status) if died_by_itself => (Some(status), None),
        Exit::Signal(signal) if died_by_itself => (None, Some(signal)),
        Exit::Status(_) | Exit::Signal(_) | Exit::Unknown => (None, None),
    };
    SpawnFailure { exit_status, signal, stderr, ..failure }
}

/// Probes a registered endpoint, and watches the process behind it until it ends.
pub(super) async fn probe(shell: Rc<Shell>, slot: BackendSlot, endpoint: String) {
    match find(shell.watches(), Path::new(&endpoint)).await {
        Ok((pid, watch)) => {
            shell.tell(Input::Probed { slot, outcome: Ok(pid) });
            if let Err(error) = watch.died().await {
                tracing::warn!(pid, %error, "a registered backend is not watched any more");
            }
            drop(watch);
            shell.watches().forget(pid);
            shell.tell(Input::Exited { slot, pid, origin: Origin::Registered, exit: Exit::Unknown });
        }
        Err(cause) => shell.tell(Input::Probed { slot, outcome: Err(cause) }),
    }
}

/// Tells a backend to finish what is at hand, and waits until it has.
pub(super) async fn quiesce(shell: Rc<Shell>, slot: BackendSlot, pid: Option<u32>, limit: Duration) {
    if let Some(control) = shell.control(slot) {
        let deadline_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let question = ControlMessage::Quiesce(Quiesce { deadline_ms });
        if tokio::time::timeout(limit, control.ask(&question)).await.is_err() {
            tracing::debug!(?limit, "a backend does not say that it has quiesced");
        }
    }
    shell.tell(Input::Quiesced { slot, pid });
}

/// Whether a backend has connections, as it says itself: only it knows of those that were passed to it.
async fn usage(shell: &Shell, slot: BackendSlot) -> Option<bool> {
    let control = shell.control(slot)?;
    let question = ControlMessage::UsageQuery(UsageQuery {});
    match tokio::time::timeout(USAGE_LIMIT, control.ask(&question)).await.ok()?? {
        ControlMessage::Usage(usage) => Some(usage.connections > 0),
        _ => None,
    }
}

/// Looks whether a backend has connections. One of which that cannot be told counts as having none: it was
/// given an idle timeout, and it may tidy up before it ends.
pub(super) async fn look(shell: Rc<Shell>, slot: BackendSlot, endpoint: String) {
    let is_in_use = match usage(&shell, slot).await {
        Some(is_in_use) => is_in_use,
        // Nobody else knows of the connections that were passed to it.
        None if shell.has_adopted(slot) => true,
        None => is_dialled(endpoint.clone()).await,
    };
    if is_in_use {
        tracing::debug!(endpoint, "nobody asks for a backend any more, but it has connections");
    }
    shell.tell(Input::Looked { slot, endpoint, is_in_use });
}

/// Whether a backend has connections that were dialled, as the system says.
async fn is_dialled(endpoint: String) -> bool {
    let looked = {
        let endpoint = endpoint.clone();
        tokio::task::spawn_blocking(move || has_connections(endpoint)).await
    };
    looked.map_err(io::Error::other).flatten().unwrap_or_else(|error| {
        tracing::warn!(%error, endpoint, "it is not known whether an idle backend has connections");
        false
    })
}

/// The process behind an endpoint, held on to. It is asked twice: what answers while its process is
/// watched is that very process, not a later one with the same pid.
async fn find(watches: &Watches, endpoint: &Path) -> Result<(u32, Rc<ProcessWatch>), String> {
    let ask = || async {
        let process = probe_identity(endpoint).await.map_err(|error| error.to_string())?;
        let expectation = Expectation {
            boot_id: Some(identity::boot_id().map_err(|error| error.to_string())?),
            endpoint: Some(endpoint.display().to_string()),
            ..Expectation::default()
        };
        expectation.check(&process).map_err(|mismatch| mismatch.to_string())?;
        Ok::<u32, String>(process.pid)
    };
    let pid = ask().await?;
    let watch = watches.on(pid).map_err(|error| error.to_string())?;
    let fault = match ask().await {
        Ok(again) if again == pid => return Ok((pid, watch)),
        Ok(again) => format!("process {pid} answered first, then process {again}"),
        Err(fault) => fault,
    };
    drop(watch);
    watches.forget(pid);
    Err(fault)
}
