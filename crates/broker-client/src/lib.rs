#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod admin;
mod agreement;
pub mod blocking;
mod config;
mod discovery;
mod exchange;
mod hello;
mod negotiation;
mod refused;
mod reply;

pub use admin::AdminError;
#[cfg(feature = "tokio")]
pub use admin::admin;
pub use agreement::Agreement;
pub use config::{
    ConfigError, DEFAULT_ROUND_TRIP_TIMEOUT, DISABLE_VARIABLE, TIMEOUT_VARIABLE, broker_is_enabled,
    round_trip_timeout,
};
pub use discovery::{DefinitionFault, DiscoveryError, ServiceBroker, broker_of};
pub use exchange::ExchangeError;
pub use hello::Hello;
pub use negotiation::HelloError;
#[cfg(feature = "tokio")]
pub use negotiation::say_hello;
pub use refused::{Refused, RefusedKind};
pub use reply::{ProtocolError, ReplyFault};

pub use broker_protocol::wire::{AdminReply, AdminReplyKind, AdminRequest, AdminVerb};
pub use broker_protocol::{
    BrokerInstance, Capabilities, ConnectionId, HandoffToken, InstanceName, ServiceName, Version,
};
