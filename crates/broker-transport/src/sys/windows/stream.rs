//! Connections over named pipes: still missing.

use std::convert::Infallible;
use std::io::{self, Read, Write};
#[cfg(feature = "tokio")]
use std::net::Shutdown;
use std::path::Path;
#[cfg(feature = "tokio")]
use std::pin::Pin;
#[cfg(feature = "tokio")]
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[cfg(feature = "tokio")]
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{AsDescriptor, BorrowedDescriptor, OwnedDescriptor, unsupported};
use crate::fd_passing::{FdPassError, Received};
use crate::peer::PeerCredentials;
#[cfg(feature = "tokio")]
use crate::stream::BlockingMode;
use crate::stream::{ConnectError, ConnectErrorKind};

fn refused<T>(endpoint: &Path) -> Result<T, ConnectError> {
    unsupported("connecting to a pipe")
        .map_err(|source| ConnectError::new(endpoint, ConnectErrorKind::Unsupported, source))
}

/// A connection whose calls wait. Not on this platform yet.
#[derive(Debug)]
pub struct BlockingStream(Infallible);

impl BlockingStream {
    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Unsupported).
    pub fn connect(endpoint: impl AsRef<Path>, _timeout: Option<Duration>) -> Result<Self, ConnectError> {
        refused(endpoint.as_ref())
    }

    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Unsupported).
    pub fn pair() -> io::Result<(Self, Self)> {
        unsupported("making a pair of streams")
    }

    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Unsupported).
    pub fn from_owned_fd(_descriptor: OwnedDescriptor) -> io::Result<Self> {
        unsupported("taking over a stream")
    }

    /// Cannot be called.
    pub fn into_owned_fd(self) -> OwnedDescriptor {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn set_read_timeout(&self, _timeout: Option<Duration>) -> io::Result<()> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn set_write_timeout(&self, _timeout: Option<Duration>) -> io::Result<()> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn read_before(&self, _buffer: &mut [u8], _deadline: Option<Instant>) -> io::Result<usize> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn send_all_before(&self, _bytes: &[u8], _deadline: Option<Instant>) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn send_message(
        &self,
        _bytes: &[u8],
        _descriptors: &[BorrowedDescriptor<'_>],
    ) -> io::Result<usize> {
        match self.0 {}
    }

    pub(crate) fn receive_message(
        &self,
        _buffer: &mut [u8],
        _max_descriptors: usize,
        _deadline: Option<Instant>,
    ) -> Result<Received, FdPassError> {
        match self.0 {}
    }
}

impl Read for BlockingStream {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl Read for &BlockingStream {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl Write for BlockingStream {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}

impl Write for &BlockingStream {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}

impl AsDescriptor for BlockingStream {
    fn as_handle(&self) -> BorrowedDescriptor<'_> {
        match self.0 {}
    }
}

/// A connection on tokio. Not on this platform yet.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct Stream(Infallible);

#[cfg(feature = "tokio")]
impl Stream {
    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Unsupported).
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn connect(endpoint: impl AsRef<Path>) -> Result<Self, ConnectError> {
        refused(endpoint.as_ref())
    }

    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Unsupported).
    pub fn pair() -> io::Result<(Self, Self)> {
        unsupported("making a pair of streams")
    }

    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Unsupported).
    pub fn from_owned_fd(_descriptor: OwnedDescriptor) -> io::Result<Self> {
        unsupported("taking over a stream")
    }

    /// Cannot be called.
    pub fn into_owned_fd(self) -> OwnedDescriptor {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn into_blocking(self) -> io::Result<BlockingStream> {
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
    ///
    /// # Errors
    /// None.
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn try_read(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn try_write(&self, _bytes: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn try_write_blocking(&self, _bytes: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn descriptor(&self) -> BorrowedDescriptor<'_> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn set_blocking(&self, _mode: BlockingMode) -> io::Result<()> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn write_some(&self, _bytes: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn read_some(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn try_peek(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn peek(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn peek_beyond(&mut self, _seen: usize, _buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn send_all(&self, _bytes: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn hung_up(&self) -> io::Result<()> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn shutdown(&self, _how: Shutdown) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn try_send_message(
        &self,
        _bytes: &[u8],
        _descriptors: &[BorrowedDescriptor<'_>],
    ) -> io::Result<usize> {
        match self.0 {}
    }

    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub(crate) async fn send_message(
        &self,
        _bytes: &[u8],
        _descriptors: &[BorrowedDescriptor<'_>],
    ) -> io::Result<usize> {
        match self.0 {}
    }

    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub(crate) async fn receive_message(
        &self,
        _buffer: &mut [u8],
        _max_descriptors: usize,
    ) -> Result<Received, FdPassError> {
        match self.0 {}
    }
}

#[cfg(feature = "tokio")]
impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        _buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

#[cfg(feature = "tokio")]
impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        _bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

#[cfg(feature = "tokio")]
impl AsDescriptor for Stream {
    fn as_handle(&self) -> BorrowedDescriptor<'_> {
        match self.0 {}
    }
}
