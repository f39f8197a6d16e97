#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod capability;
mod connection_id;
pub mod control;
mod event;
mod frame;
mod framing;
pub mod handoff;
mod hello;
mod instance;
pub mod limits;
pub mod local;
pub mod manifest;
mod name;
mod payload_protocol;
pub mod probe;
mod redacted;
mod refusal;
mod token;
mod version;
mod view;
pub mod wire;

pub use capability::Capabilities;
pub use connection_id::{ConnectionId, ConnectionIds};
pub use event::{BoundedEvent, Severity};
pub use frame::{ENVELOPE_VERSION, PROTOCOL_VERSION};
pub use framing::{
    FRAMING_VERSION, FrameDecoder, FramingError, HEADER_LEN, Header, encode_frame, frame_bytes,
};
pub use hello::{Echo, NegotiatedParts, RoutePrefix, encode_negotiated, encode_refused};
pub use instance::{BrokerInstance, InstanceParseError};
pub use name::{InstanceName, NameError, ServiceName};
pub use payload_protocol::PayloadProtocol;
pub use refusal::{PolicyBlock, Refusal, SpawnFailure, SpawnStage};
pub use token::{HANDOFF_TOKEN_LEN, HandoffToken, TokenLengthError};
pub use version::{Version, VersionError};
pub use view::{FrameView, HelloView, ViewError, WireFault};

pub use bytes;
pub use prost;
