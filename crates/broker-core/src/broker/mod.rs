//! The whole state machine of a broker.
//!
//! [`Broker`] owns every piece of state there is: connections, permits, definitions, backends, tokens,
//! the drain. What happens outside comes in as calls that carry the time; what must happen outside
//! comes out as [`Action`]s. It reads no clock, opens no file and starts no process, so a test or a
//! simulator can drive it through any order of events.
//!
//! The life of a Hello:
//!
//! 1. [`Broker::connected`] - may this peer have a connection?
//! 2. [`Broker::first_frame`] - is it a request, has the peer a permit, are the fields good? (rows 4 to 13)
//! 3. [`Broker::hello`] - given the current definition: a reply, or a wait for a backend. (rows 14 to 19)
//! 4. [`Action::Reply`] - for those who waited.
//!
//! Invariants: every Hello ends in exactly one reply or in its connection's end; one start at a time
//! per (service, version); a drain always ends.

mod adoption;
mod config;
mod handoffs;
mod lifecycle;
pub mod planted;
mod reconfiguration;
mod registration;
mod requests;
mod shutdown;
mod succession;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use broker_protocol::{BoundedEvent, Capabilities, ConnectionId, SpawnFailure, Version};
use foldhash::fast::RandomState;

pub use config::{
    BackendsOnExit, BrokerConfig, DEFAULT_DRAIN, DEFAULT_WAIT, KILL_AFTER, PENDING_STARTS_PER_PEER,
    QUIESCE_LIMIT,
};
pub use reconfiguration::Reconfiguration;
pub use registration::NotRegistered;
pub use requests::{Arrival, Decision, DefinitionCheck, FirstFrame, PeerIdentity};
use shutdown::Phase;
pub use succession::{Estate, InheritedBackend};
pub use view::Footprint;

use crate::admission::{ConnectionKey, Connections, DescriptorPressure, Quota};
use crate::backends::{BackendTable, ControlKey, Origin, Registration};
use crate::entropy::Entropy;
use crate::events::{HelloSampler, RecentEvents};
use crate::handoff::BackendSlot;
use crate::hello::{HelloHandler, Reply};
use crate::metrics::Metrics;
use crate::services::Definition;
use crate::time::{Monotonic, Now};
use crate::timers::{Timer, Timers};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody can tell: it was not our child.
    Unknown,
}

/// What happened outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// A backend that was started listens already, because it was given its listener. Clients may be sent
    /// there; `Started` or `StartFailed` tells later what came of it.
    Listening {
        /// Which.
        slot: BackendSlot,
        /// Its process id.
        pid: u32,
        /// Where it listens.
        endpoint: String,
    },
    /// A backend that was to be started answered its probe.
    Started {
        /// Which.
        slot: BackendSlot,
        /// Its process id.
        pid: u32,
        /// Where it listens.
        endpoint: String,
    },
    /// A backend could not be started; nothing of it runs any more.
    StartFailed {
        /// Which.
        slot: BackendSlot,
        /// Why.
        failure: SpawnFailure,
    },
    /// A registered endpoint was probed.
    Probed {
        /// Which.
        slot: BackendSlot,
        /// The process behind it, or why there is none.
        outcome: Result<u32, String>,
    },
    /// What a former broker may have left in this place was looked at.
    Adopted {
        /// Which.
        slot: BackendSlot,
        /// Its process id and where it listens, or why it is not used.
        outcome: Result<(u32, String), String>,
    },
    /// A backend's connections were looked for.
    Looked {
        /// Which.
        slot: BackendSlot,
        /// Where: another may have the slot by now.
        endpoint: String,
        /// Whether there are any; false where that cannot be told.
        is_in_use: bool,
    },
    /// A backend's control connection is open.
    ControlOpened {
        /// Which.
        slot: BackendSlot,
        /// The connection, unlike any other of this broker.
        control: ControlKey,
        /// What it says that it can do there.
        announced: Capabilities,
    },
    /// An offer that was out on a backend's control connection has expired.
    ControlSilent {
        /// Which.
        slot: BackendSlot,
    },
    /// A backend's control connection has ended. Whether its process has, it is told apart.
    ControlClosed {
        /// Which.
        slot: BackendSlot,
        /// The connection: the backend may have another by now.
        control: ControlKey,
    },
    /// A backend that was told to quiesce has done so, or does not say.
    Quiesced {
        /// Which.
        slot: BackendSlot,
        /// Whose: another process may have the slot by now.
        pid: Option<u32>,
    },
    /// A backend's process ended.
    Exited {
        /// Which.
        slot: BackendSlot,
        /// Whose: another may have the slot by now.
        pid: u32,
        /// What it was: another may have the number by now, too.
        origin: Origin,
        /// How.
        exit: Exit,
    },
    /// Accepting or opening failed for want of descriptors.
    DescriptorPressure,
    /// What is configured is different from now on.
    Reconfigured(Reconfiguration),
    /// The broker is to end.
    Drain {
        /// How long it may take; `None` for the configured default.
        deadline: Option<std::time::Duration>,
    },
}

/// What must happen outside.
#[derive(Clone, Debug)]
pub enum Action {
    /// Answer a Hello that had to wait.
    Reply {
        /// Whose.
        connection: ConnectionKey,
        /// With what.
        reply: Reply,
    },
    /// Close a silent connection to make room for a newcomer.
    Evict {
        /// Which.
        connection: ConnectionKey,
    },
    /// Start a backend; the outcome comes back as `Started` or `StartFailed`.
    Start(StartOrder),
    /// Probe a registered endpoint; the outcome comes back as `Probed`.
    Probe {
        /// Which backend.
        slot: BackendSlot,
        /// Where it should listen.
        endpoint: String,
    },
    /// Look whether a backend has connections; the outcome comes back as `Looked`.
    Look {
        /// Which backend.
        slot: BackendSlot,
        /// Where it listens.
        endpoint: String,
    },
    /// Tell a backend, on its control connection, to finish what is at hand and to take nothing new; the
    /// outcome comes back as `Quiesced`.
    Quiesce {
        /// Which.
        slot: BackendSlot,
        /// Its process id.
        pid: Option<u32>,
        /// How long it may take.
        limit: std::time::Duration,
    },
    /// End a control connection, once what has come on it is read: the process that it led to is gone.
    EndControl {
        /// Whose it was.
        slot: BackendSlot,
        /// Which.
        control: ControlKey,
    },
    /// Send a started backend a signal, also while it is being started.
    Signal {
        /// Which.
        slot: BackendSlot,
        /// What.
        signal: StopSignal,
    },
    /// Drop the copy of a connection that was offered: the time for the answer is over.
    Abandon {
        /// Whose.
        connection: ConnectionId,
    },
    /// Append an event to the log.
    Emit(BoundedEvent),
    /// The drain is over: end the process.
    Stop,
}

/// How a backend is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// It may tidy up.
    Terminate,
    /// It may not.
    Kill,
}

/// A backend to start.
#[derive(Clone, Debug)]
pub struct StartOrder {
    /// Its place in the table, for the outcome.
    pub slot: BackendSlot,
    /// What it is a backend of.
    pub definition: Arc<Definition>,
    /// The version to start.
    pub version: Version,
    /// `traceparent` of the Hello that caused it; empty where it had none.
    pub traceparent: String,
    /// `tracestate` of that Hello.
    pub tracestate: String,
}

/// A broker, without the world around it. See the [module's](self) text.
pub struct Broker<E> {
    config: BrokerConfig,
    instance: String,
    handler: HelloHandler<E>,
    connections: Connections,
    pressure: DescriptorPressure,
    backends: BackendTable,
    /// The starts that are under way for each peer.
    starts: Quota,
    /// The connections that wait, and for which backend.
    waiting: HashMap<ConnectionKey, BackendSlot, RandomState>,
    timers: Timers,
    phase: Phase,
    actions: VecDeque<Action>,
    sampler: HelloSampler,
    recent: RecentEvents,
    metrics: Metrics,
    #[cfg(feature = "planted-bugs")]
    planted: Option<planted::Bug>,
}

impl<E: Entropy> Broker<E> {
    /// A broker that knows no service yet and draws its tokens from `entropy`.
    pub fn new(config: BrokerConfig, entropy: E) -> Self {
        Self {
            handler: HelloHandler::new(config.hello.clone(), entropy),
            connections: Connections::new(config.connections),
            instance: config.instance.to_string(),
            pressure: DescriptorPressure::default(),
            backends: BackendTable::default(),
            starts: Quota::new(config.starts_per_peer),
            waiting: HashMap::default(),
            timers: Timers::default(),
            phase: Phase::Serving,
            actions: VecDeque::new(),
            sampler: HelloSampler::default(),
            recent: RecentEvents::default(),
            metrics: Metrics::default(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
            config,
        }
    }

    /// Sets how the endpoint of another broker is told to a client that asked the wrong one.
    #[must_use]
    pub fn with_endpoint_names(
        mut self,
        name: impl Fn(&broker_protocol::BrokerInstance) -> String + Send + Sync + 'static,
    ) -> Self {
        self.handler = self.handler.with_endpoint_names(name);
        self
    }

    /// Makes a backend known that runs already; it is probed before its first use.
    pub fn register(&mut self, registration: Registration) {
        let metrics = &mut self.metrics;
        let (service, version) = (&registration.service, &registration.version);
        let slot = self
            .backends
            .entry(service, version, || metrics.series_of(service.as_str(), &version.to_string()));
        if let Some(backend) = self.backends.get_mut(slot) {
            backend.registration = Some(registration);
            backend.is_self_registered = false;
        }
    }

    /// Takes in what happened outside.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Listening { slot, pid, endpoint } => self.listening(now, slot, pid, endpoint),
            Input::Started { slot, pid, endpoint } => self.started(now, slot, pid, endpoint),
            Input::StartFailed { slot, failure } => self.start_failed(now, slot, failure),
            Input::Probed { slot, outcome } => self.probed(now, slot, outcome),
            Input::Adopted { slot, outcome } => self.adopted(now, slot, outcome),
            Input::Looked { slot, endpoint, is_in_use } => self.looked(now, slot, &endpoint, is_in_use),
            Input::ControlOpened { slot, control, announced } => {
                self.control_opened(slot, control, announced);
            }
            Input::ControlSilent { slot } => self.fell_silent(slot),
            Input::ControlClosed { slot, control } => self.control_closed(now, slot, control),
            Input::Quiesced { slot, pid } => self.quiesced(now, slot, pid),
            Input::Exited { slot, pid, origin, exit } => self.exited(now, slot, (pid, origin), exit),
            Input::DescriptorPressure => self.descriptor_pressure(now),
            Input::Reconfigured(new) => self.reconfigure(now, new),
            Input::Drain { deadline } => self.drain(now, deadline),
        }
    }

    /// The next thing that must happen outside.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    pub fn next_timeout(&mut self) -> Option<Monotonic> {
        [self.timers.next(), self.handler.handoffs().next_expiry()].into_iter().flatten().min()
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.expire_offers(now);
        while let Some(timer) = self.timers.take_due(now.monotonic) {
            match timer {
                Timer::Wait(slot, connection) => self.wait_over(now, slot, connection),
                Timer::Idle(slot) => self.idle_check(now, slot),
                Timer::Kill(slot) => self.kill(slot),
                Timer::Forget(slot) => self.forget(now, slot),
                Timer::Drain => self.drain_over(now),
            }
        }
    }
}
