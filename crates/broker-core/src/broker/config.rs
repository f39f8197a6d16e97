//! What can be set about a broker.

use std::time::Duration;

use broker_protocol::BrokerInstance;

use crate::admission::ConnectionLimits;
use crate::hello::HelloConfig;

/// How long a client waits for a start where its frame names no deadline.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// How long a drain may take where nobody says otherwise.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(10);
/// How long a backend has between being asked to end and being killed.
pub const KILL_AFTER: Duration = Duration::from_secs(5);

/// How long a backend has to finish what is at hand, where it can be told so, before it is asked to end.
pub const QUIESCE_LIMIT: Duration = Duration::from_secs(2);

/// Starts that one peer may have under way at once by default: a build that needs a dozen daemons is served,
/// one that makes up versions waits for what it has asked for.
pub const PENDING_STARTS_PER_PEER: usize = 32;

/// What becomes of the backends when the broker ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendsOnExit {
    /// They end with it.
    #[default]
    Stop,
    /// They go on.
    Keep,
}

/// What can be set about a [`Broker`](super::Broker).
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Which broker it is.
    pub instance: BrokerInstance,
    /// The negotiation.
    pub hello: HelloConfig,
    /// Connections, in all and per peer.
    pub connections: ConnectionLimits,
    /// Starts that one peer may have under way at once.
    pub starts_per_peer: usize,
    /// How long a client waits for a start where its frame names no deadline.
    pub wait: Duration,
    /// How long a drain may take where nobody says otherwise.
    pub drain: Duration,
    /// What becomes of the backends when the broker ends.
    pub on_exit: BackendsOnExit,
}

impl BrokerConfig {
    /// The defaults, for this instance.
    pub fn new(instance: BrokerInstance) -> Self {
        Self {
            instance,
            hello: HelloConfig::default(),
            connections: ConnectionLimits::default(),
            starts_per_peer: PENDING_STARTS_PER_PEER,
            wait: DEFAULT_WAIT,
            drain: DEFAULT_DRAIN,
            on_exit: BackendsOnExit::default(),
        }
    }
}
