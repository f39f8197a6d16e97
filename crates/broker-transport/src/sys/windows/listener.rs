//! Listening on named pipes: still missing.

use std::convert::Infallible;
use std::io;
use std::path::Path;

#[cfg(feature = "tokio")]
use super::stream::Stream;
use super::{OwnedDescriptor, unsupported};
#[cfg(feature = "tokio")]
use crate::listener::AcceptError;
use crate::listener::{BindError, BindOptions};
#[cfg(feature = "tokio")]
use crate::peer::PeerCredentials;

fn refused<T>(path: &Path) -> Result<T, BindError> {
    let path = path.to_path_buf();
    unsupported("listening on a pipe").map_err(|source| BindError::Io {
        operation: "listen on",
        path,
        source,
    })
}

/// A listening endpoint. Not on this platform yet.
#[derive(Debug)]
pub struct BoundSocket(Infallible);

impl BoundSocket {
    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Unsupported).
    pub fn bind(path: impl AsRef<Path>, _options: &BindOptions) -> Result<Self, BindError> {
        refused(path.as_ref())
    }

    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Unsupported).
    pub fn from_listen_fd(_descriptor: OwnedDescriptor, path: Option<&Path>) -> Result<Self, BindError> {
        refused(path.unwrap_or(Path::new("an inherited handle")))
    }

    /// Cannot be called.
    pub fn path(&self) -> Option<&Path> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn into_descriptor(self) -> OwnedDescriptor {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn try_clone_descriptor(&self) -> io::Result<OwnedDescriptor> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn keep_file(&mut self) {
        match self.0 {}
    }
}

/// A connection that was just accepted.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct Accepted {
    /// The connection; not a byte of it was read.
    pub stream: Stream,
    /// Who is at the other end, or why the kernel does not say.
    pub peer: io::Result<PeerCredentials>,
}

/// A listening endpoint on tokio. Not on this platform yet.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct Listener(Infallible);

#[cfg(feature = "tokio")]
impl Listener {
    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Unsupported).
    pub fn bind(path: impl AsRef<Path>, _options: &BindOptions) -> Result<Self, BindError> {
        refused(path.as_ref())
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn from_bound(socket: BoundSocket) -> io::Result<Self> {
        match socket.0 {}
    }

    /// Cannot be called.
    pub fn into_bound(self) -> BoundSocket {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn bound(&self) -> &BoundSocket {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn keep_file(&mut self) {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn accept(&self) -> Result<Accepted, AcceptError> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn accept_waiting(&self, _most: usize, _take: impl FnMut(Accepted)) -> Result<(), AcceptError> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn try_accept(&self) -> Result<Option<Accepted>, AcceptError> {
        match self.0 {}
    }
}
