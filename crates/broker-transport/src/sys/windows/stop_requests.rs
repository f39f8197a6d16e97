//! Console control events: still missing.

use std::convert::Infallible;
use std::io;

use super::unsupported;

/// Tells when this process is asked to end. Not on this platform yet.
#[derive(Debug)]
pub struct StopRequests(Infallible);

impl StopRequests {
    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Unsupported).
    pub fn listen() -> io::Result<Self> {
        unsupported("listening for console events")
    }

    /// Cannot be called.
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn next(&mut self) -> &'static str {
        match self.0 {}
    }
}
