#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backend;
mod broker;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connection;
mod connections;
mod control;
pub mod environment;
mod handler;
mod identity;
mod lanes;
mod look;
mod mux;
mod offers;
mod serve;
mod sidecar;

pub use backend::{Backend, StartError};
pub use environment::{Environment, EnvironmentError};
pub use handler::{Handler, Request, Response};
pub use identity::{Identity, Unidentified};
pub use lanes::Lanes;
pub use mux::{FIRST_BYTES_LIMIT, FIRST_BYTES_TIMEOUT, LegacyConnection, StopNotice, Verdict, detect_frames};
pub use offers::{MAX_DIALLED, OFFER_LIMIT};
pub use serve::{DRAIN_LIMIT, ServeError};
pub use sidecar::{Extent, IdentitySidecar, MAX_SIDECAR, SidecarReadError, SidecarWriteError, Standing};

pub use broker_protocol::wire::DaemonProcess;
pub use broker_protocol::{BrokerInstance, PayloadProtocol, ServiceName, Version, bytes};
pub use broker_transport::peer::PeerCredentials;
pub use broker_transport::stop_requests::StopRequests;
pub use broker_transport::stream::Stream;
