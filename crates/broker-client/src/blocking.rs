//! The same conversations for programs without an async runtime.
//!
//! Each call waits in the thread that makes it, never beyond its time; none needs the feature `tokio`.

use std::path::Path;
use std::time::Duration;

use broker_protocol::wire::{AdminReply, AdminRequest};

use crate::admin::{AdminError, Inquiry};
use crate::agreement::Agreement;
use crate::hello::Hello;
use crate::negotiation::{HelloError, Negotiation};

/// Says Hello to the broker at `endpoint`; takes at most `timeout` from connecting to the whole reply.
///
/// [`broker_of`](crate::broker_of) finds the endpoint, [`round_trip_timeout`](crate::round_trip_timeout)
/// the usual time. The connection is closed when this returns, so there is no use in offering
/// [`Capabilities::HANDLE_PASSING`](crate::Capabilities::HANDLE_PASSING) here.
///
/// # Errors
/// [`HelloError`].
pub fn say_hello(endpoint: &Path, hello: &Hello, timeout: Duration) -> Result<Agreement, HelloError> {
    Negotiation::new(endpoint, hello, timeout)?.run_blocking()
}

/// Asks the broker at `endpoint`; takes at most [`round_trip_timeout`](crate::round_trip_timeout).
///
/// A verb that the broker carries out but not with success is an answer, with an exit code.
///
/// # Errors
/// [`AdminError`].
pub fn admin(endpoint: &Path, request: &AdminRequest) -> Result<AdminReply, AdminError> {
    Inquiry::new(endpoint, request)?.run_blocking()
}
