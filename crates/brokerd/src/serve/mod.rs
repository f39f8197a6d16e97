//! `brokerd serve`: from the command line to a running broker, and to its end.
//!
//! It reads like a story and decides nothing: `settings` says how it runs, `place` is where it listens,
//! `shell` carries out what the state machine decides, `connection` and `backends` are its hands.

mod adoption;
mod backend_process;
mod backends;
mod clock;
mod confinement;
mod connection;
mod control;
mod diagnosis;
mod entropy;
pub(crate) mod event_log;
mod executable;
mod facts;
mod handoff;
mod leftovers;
mod logging;
mod manager;
mod ownership;
pub(crate) mod place;
mod records;
pub(crate) mod reload;
mod resolver;
pub(crate) mod settings;
mod shell;
mod succession;
mod tidying;
mod watches;

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use broker_core::broker::{Broker, BrokerConfig, Input, Reconfiguration};
use broker_core::entropy::BlockEntropy;
use broker_core::services::TrustDomain;
use broker_transport::listener::{AcceptError, DEFAULT_BACKLOG, Listener};
use broker_transport::process::Spawner;
use broker_transport::stop_requests::{self, ReloadRequests, StopRequests};
use clap::ArgMatches;
use serde_json::json;
use tokio::runtime::{Builder, LocalOptions};

use self::clock::Clock;
use self::entropy::SystemEntropy;
use self::event_log::EventLog;
use self::manager::Manager;
use self::place::Place;
use self::records::Records;
use self::reload::{Configuration, Setup};
use self::resolver::Resolver;
use self::settings::{DescriptorLimit, Settings};
use self::shell::Shell;
use self::succession::Takeover;
use crate::cli::ServeArgs;
use crate::failure::{EXIT_REFUSED, Failure};
use crate::output;

/// Connections that are accepted before anything else gets its turn.
const ACCEPTS_AT_ONCE: usize = 32;
/// What part of all connections that may be at most. Those that make room are closed when others have their
/// turn, so for as long there may be so many more.
const ACCEPTS_AT_ONCE_OF_ALL: usize = 8;
/// Pause after an accept that failed: what was missing is still missing a moment later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long answers may take to be written when the broker ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Runs a broker until it is told to end.
pub(crate) fn run(args: ServeArgs, matches: ArgMatches) -> Result<ExitCode, Failure> {
    place::refuse_privileged()?;
    // First of all: what a predecessor has left may be more than the limit allows.
    let descriptors = DescriptorLimit::raise();
    // There is no way back to a predecessor: from here on, what would keep a broker from beginning keeps one that
    // takes over from as little as can be.
    let mut takeover = args.takeover.map(Takeover::take).transpose()?;
    let trial = args.takeover_trial;
    // Whoever reads that has read it from the predecessor.
    let is_told = args.json && takeover.is_none();
    let resolver = Resolver::new(args, matches)?;
    let (mut settings, passed_over) = resolve(&resolver, takeover.as_ref())?;
    if let Some(form) = trial {
        place::require_descriptors()?;
        confinement::confine(&settings)?;
        return succession::answer_trial(form).map(|()| ExitCode::SUCCESS);
    }
    if takeover.is_none() {
        place::require_descriptors()?;
    }
    let level = logging::start(settings.log.value, &settings.log_level.value);
    for what in passed_over {
        tracing::warn!("{what}");
    }
    settings.fit_into(descriptors);
    match (settings.prepare_directories(), &takeover) {
        (Ok(()), _) => {}
        (Err(failure), None) => return Err(failure),
        // The predecessor did without it, too; there is no way back to it.
        (Err(failure), Some(_)) => tracing::warn!(%failure, "going on all the same"),
    }
    if let Some(takeover) = &takeover {
        takeover.keep_place(&mut settings);
    }
    let place = match &mut takeover {
        Some(takeover) => takeover.place()?,
        None => Place::take(&settings)?,
    };
    // This thread forks from now on, and what serves is another one: a process's first thread lives as long as it.
    let setup = Setup { settings, resolver, descriptors, level };
    let served = Spawner::serve_here(move |spawner| {
        crate::counted(|| run_loop(setup, place, takeover, is_told, spawner))
    });
    served.map_err(|error| failure("cannot start the thread that serves", error))?
}

/// How the broker is to run, and what was passed over for that: a line each.
fn resolve(resolver: &Resolver, takeover: Option<&Takeover>) -> Result<(Settings, Vec<String>), Failure> {
    let mut passed_over: Vec<_> = resolver
        .not_levels()
        .iter()
        .map(|part| format!("RUST_LOG holds {part:?}, which is no level, and is passed over"))
        .collect();
    let settings = match (resolver.resolve(), takeover) {
        (Ok(settings), _) => settings,
        (Err(wrong), None) => return Err(wrong.into()),
        (Err(wrong), Some(takeover)) => {
            let text = takeover.config_text();
            let holds = if text.is_some() { "what held before holds" } else { "the defaults hold" };
            let not_taken = |line| format!("the configuration file is not taken, and {holds}: {line}");
            passed_over.extend(wrong.lines().into_iter().map(not_taken));
            resolver.resolve_as_before(text)?
        }
    };
    Ok((settings, passed_over))
}

fn failure(what: &str, error: std::io::Error) -> Failure {
    Failure::refused(format!("{what}: {error}"))
}

fn run_loop(
    mut setup: Setup,
    place: Place,
    takeover: Option<Takeover>,
    is_told: bool,
    spawner: Spawner,
) -> Result<ExitCode, Failure> {
    // Those that follow inherit that: a signal is for this thread, which lets it through when it listens.
    stop_requests::block_here();
    // There is only the spawner's thread beside this one by now. All that follow are started by this one, or by
    // one that was.
    let manager = Manager::connect();
    match (confinement::confine(&setup.settings), &takeover) {
        (Ok(()), _) => {}
        (Err(failure), Some(takeover)) if !takeover.is_sandboxed() => {
            tracing::warn!(%failure, "going on without, as before");
            setup.settings.sandbox.value = false;
        }
        (Err(failure), _) => return Err(failure),
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_start(stop_requests::block_here)
        .build_local(LocalOptions::default())
        .map_err(|error| failure("cannot start the event loop", error))?;
    let exit = runtime.block_on(async {
        let clock = takeover.as_ref().map_or_else(Clock::start, |takeover| Clock::resume(takeover.uptime()));
        let settings = &setup.settings;
        let events = EventLog::start(settings.event_log())
            .map_err(|error| failure("cannot start the thread that writes events", error))?;
        let reload = ReloadRequests::listen().map_err(|error| failure("cannot listen for signals", error))?;
        let stop = StopRequests::listen().map_err(|error| failure("cannot listen for signals", error))?;
        let (listener, lock) = place.listen()?;
        let (listener, lock) = (Rc::new(listener), Rc::new(lock));
        let broker = broker(settings);
        let shell = Shell::new(broker, clock, Configuration::new(setup), spawner, events);
        shell.moves().set_endpoint(&listener, &lock);
        match takeover {
            Some(takeover) => takeover.carry_out(&shell).await,
            None => _ = adoption::begin(&shell).await,
        }
        tokio::task::spawn_local(reload::whenever_asked(Rc::clone(&shell), reload));
        let manager = Rc::new(manager);
        tokio::task::spawn_local(Rc::clone(&manager).keep_told(Rc::clone(&shell)));
        if is_told {
            tell_place(&shell.settings());
        }
        let exit = serve(&shell, &listener, stop).await;
        manager.stopping();
        shell.moves().forget_endpoint();
        if exit == Ended::Drained {
            finish(&shell, listener).await;
            tracing::info!("ended");
        }
        drop(lock);
        Ok(ExitCode::from(exit))
    });
    // What still runs on other threads is a hash or a read that nobody waits for any more.
    runtime.shutdown_background();
    exit
}

fn broker(settings: &Settings) -> shell::LiveBroker {
    let mut config = BrokerConfig::new(settings.instance.value.clone());
    config.hello.domain = if settings.serves_every_domain {
        TrustDomain::Every
    } else {
        TrustDomain::Only(settings.instance.value.clone())
    };
    let Reconfiguration { rate_limit, connections, drain, on_exit, registrations } =
        settings.reconfiguration();
    config.hello.rate_limit = rate_limit;
    config.connections = connections;
    config.drain = drain;
    config.on_exit = on_exit;
    let mut broker = Broker::new(config, BlockEntropy::new(SystemEntropy))
        .with_endpoint_names(output::broker_endpoint_text);
    registrations.into_iter().for_each(|registration| broker.register(registration));
    broker
}

/// How a broker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// In good order.
    Drained,
    /// Because it was told to twice.
    AtOnce,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Drained => Self::SUCCESS,
            Ended::AtOnce => Self::from(EXIT_REFUSED),
        }
    }
}

/// Says to a program where the broker listens.
fn tell_place(settings: &Settings) {
    let path = |path: &Path| path.display().to_string();
    output::json_answer(
        "serve",
        &json!({
            "broker_instance": settings.instance.value.to_string(),
            "broker_pid": std::process::id(),
            "socket": path(&settings.socket.value),
            "service_dir": path(&settings.service_dir.value),
            "state_dir": path(&settings.state_dir.value),
        }),
    );
}

async fn serve(shell: &Rc<Shell>, listener: &Listener, mut stop: StopRequests) -> Ended {
    let settings = shell.settings();
    tracing::info!(
        instance = %settings.instance.value,
        socket = %settings.socket.value.display(),
        services = %settings.service_dir.value.display(),
        pid = std::process::id(),
        "serving"
    );
    tokio::task::spawn_local(Rc::clone(shell).keep_time());
    tokio::task::spawn_local(Rc::clone(shell).keep_tidy());
    tokio::task::spawn_local(Records::keep(Rc::clone(shell)));
    tokio::task::spawn_local(leftovers::remove());
    let mut requests = 0;
    loop {
        tokio::select! {
            () = accept(shell, listener) => {}
            () = shell.stopped() => return Ended::Drained,
            signal = stop.next() => {
                requests += 1;
                if requests > 1 {
                    tracing::warn!(signal, "ending at once");
                    remove_backend_sockets(shell);
                    return Ended::AtOnce;
                }
                tracing::info!(signal, "draining; a second signal ends the broker at once");
                shell.tell(Input::Drain { deadline: None });
            }
        }
    }
}

/// Takes in every connection that waits, or a full turn of them. Cancelled only while it holds none that it
/// has not handed on.
async fn accept(shell: &Rc<Shell>, listener: &Listener) {
    let of_all = shell.settings().max_connections.value as usize / ACCEPTS_AT_ONCE_OF_ALL;
    let at_once = of_all.clamp(1, ACCEPTS_AT_ONCE);
    let mut taken = 0;
    let outcome = listener.accept_waiting(at_once, |accepted| {
        taken += 1;
        shell.take_in(accepted);
    });
    match outcome.await {
        // Most of them are answered by now, and more may wait: those with a task have their turn.
        Ok(()) if taken == at_once => tokio::task::yield_now().await,
        Ok(()) => {}
        Err(AcceptError::DescriptorPressure(error)) => {
            tracing::debug!(%error, "no descriptor is left to accept with");
            shell.tell(Input::DescriptorPressure);
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        Err(AcceptError::Other(error)) => {
            tracing::warn!(%error, "a connection was not accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Answers those who got in while it was still open, and leaves nothing behind.
async fn finish(shell: &Rc<Shell>, listener: Rc<Listener>) {
    // Those that queue right now, not whoever comes meanwhile. Where the socket stays, its owner has them served.
    let queue = if listener.bound().path().is_some() { DEFAULT_BACKLOG } else { 0 };
    for _ in 0..queue {
        match listener.try_accept() {
            Ok(Some(accepted)) => shell.take_in(accepted),
            Ok(None) | Err(_) => break,
        }
    }
    drop(listener);
    shell.finish_answers(LAST_ANSWERS).await;
    shell.records().finish(LAST_ANSWERS).await;
    remove_backend_sockets(shell);
}

/// Backends that end with the broker may have no time to do it themselves; those that stay need theirs.
fn remove_backend_sockets(shell: &Shell) {
    if !shell.settings().keep_backends.value {
        shell.remove_backend_sockets();
    }
}
