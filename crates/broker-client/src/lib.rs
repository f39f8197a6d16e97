#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod admin;
mod agreement;
mod attempt;
mod autostart;
pub mod blocking;
mod config;
mod connector;
mod conversation;
mod discovery;
mod disk_cache;
mod exchange;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handover;
mod hello;
mod link;
mod memory;
mod negotiation;
mod refused;
mod reply;
#[cfg(feature = "tokio")]
mod session;
mod start_error;
mod started;

pub use admin::AdminError;
#[cfg(feature = "tokio")]
pub use admin::admin;
pub use agreement::Agreement;
pub use config::{
    ConfigError, DEFAULT_ROUND_TRIP_TIMEOUT, DISABLE_VARIABLE, TIMEOUT_VARIABLE, broker_is_enabled,
    round_trip_timeout,
};
pub use connector::{Connector, SessionError};
pub use conversation::{FirstRequestError, Origin, RequestError};
pub use discovery::{DefinitionFault, DiscoveryError, ServiceBroker, broker_of};
pub use hello::Hello;
pub use link::{ExchangeError, Party};
pub use negotiation::HelloError;
#[cfg(feature = "tokio")]
pub use negotiation::say_hello;
pub use refused::{Refused, RefusedKind};
pub use reply::{ProtocolError, ReplyFault};
#[cfg(feature = "tokio")]
pub use session::Session;
pub use start_error::{KnownEnd, StartError, StartFault};

pub use broker_protocol::wire::{AdminReply, AdminReplyKind, AdminRequest, AdminVerb};
pub use broker_protocol::{
    BrokerInstance, Capabilities, ConnectionId, HandoffToken, InstanceName, PayloadProtocol, ServiceName,
    TokenLengthError, Version, VersionError, bytes,
};
pub use broker_transport::endpoint::EndpointError;
pub use broker_transport::frame_io::FrameFault;
#[cfg(feature = "tokio")]
pub use broker_transport::stream::Stream;
pub use broker_transport::stream::{BlockingStream, ConnectError, ConnectErrorKind};
