//! What this crate reads that others wrote, without a socket or a file in between: for `broker-fuzz` alone.
//!
//! Nothing here is promised to anybody, and without the feature `fuzzing` it is not there.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use broker_protocol::bytes::Bytes;
use broker_protocol::{Capabilities, PayloadProtocol};
use broker_transport::peer::PeerCredentials;

use crate::agreement::Agreement;
use crate::refused::Refused;
use crate::reply::{self, ReplyFault};
use crate::{AdminReply, ConfigError, config};

pub use crate::disk_cache::fuzzing::DiskEntries;

/// Reads the reply to the Hello with this id, which offered these capabilities.
///
/// # Errors
/// What is wrong with it.
pub fn hello_reply(
    body: Bytes,
    request_id: u64,
    offered: Capabilities,
) -> Result<Result<Agreement, Box<Refused>>, ReplyFault> {
    match reply::to_hello(body, request_id)? {
        Ok(negotiated) => Agreement::new(negotiated, offered).map(Ok),
        Err(refused) => Ok(Err(refused)),
    }
}

/// Reads the reply to the admin request with this id.
///
/// # Errors
/// What is wrong with it.
pub fn admin_reply(body: Bytes, request_id: u64) -> Result<Result<AdminReply, Box<Refused>>, ReplyFault> {
    reply::to_admin(body, request_id)
}

/// Reads what a backend sends to the request with this id on `lane`.
///
/// # Errors
/// What is wrong with it.
pub fn service_reply(
    body: Bytes,
    lane: PayloadProtocol,
    request_id: u64,
) -> Result<Option<Bytes>, ReplyFault> {
    reply::to_service(body, lane, request_id)
}

/// What [`DISABLE_VARIABLE`](crate::DISABLE_VARIABLE) says with this value.
///
/// # Errors
/// The value is not understood.
pub fn is_enabled(value: Option<OsString>) -> Result<bool, ConfigError> {
    config::is_enabled(value)
}

/// What [`TIMEOUT_VARIABLE`](crate::TIMEOUT_VARIABLE) says with this value.
///
/// # Errors
/// The value is not understood.
pub fn timeout(value: Option<OsString>) -> Result<Duration, ConfigError> {
    config::timeout(value)
}

/// A backend that an entry on disk tells of.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// What was agreed upon.
    pub agreement: Agreement,
    /// Who listened then.
    pub listener: PeerCredentials,
    /// Until when it is tried.
    pub until: Instant,
}
