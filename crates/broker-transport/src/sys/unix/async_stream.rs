//! The async stream: a Unix socket on tokio.
//!
//! Reads and writes try the system call before they ask tokio whether the socket is ready: on a fresh
//! connection the first request is there already more often than not, and that saves a trip through
//! the reactor. A socket that is not ready is waited for through tokio's own `async_io`, which clears
//! the readiness it finds to be stale.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::super::os;
use super::socket::{self, BlockingMode, Waiting};
use super::stream::BlockingStream;
use crate::fd_passing::{FdPassError, Received};
use crate::peer::PeerCredentials;
use crate::stream::{ConnectError, ConnectErrorKind};

/// How long [`Stream::connect`] waits for room in a listener's full queue.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// First and longest pause between two attempts.
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// A connection on tokio.
///
/// Also `AsyncRead` and `AsyncWrite`; the methods here take `&self`, so that one task may read while
/// another writes.
#[derive(Debug)]
pub struct Stream {
    inner: UnixStream,
}

impl Stream {
    /// Connects. Where the listener's queue is full, tries again for up to 2 s: a Unix socket gives no
    /// news of room in it.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(endpoint: impl AsRef<Path>) -> Result<Self, ConnectError> {
        let endpoint = endpoint.as_ref();
        let give_up = Instant::now() + BUSY_LIMIT;
        let mut pause = BUSY_PAUSE.0;
        loop {
            match socket::connect(endpoint, Waiting::No) {
                Ok(descriptor) => {
                    return Self::from_owned_fd(descriptor)
                        .map_err(|source| ConnectError::new(endpoint, ConnectErrorKind::Other, source));
                }
                Err(error) if error.kind == ConnectErrorKind::Busy && Instant::now() < give_up => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BUSY_PAUSE.1);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Two streams that are connected with each other.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (near, far) = os::socket::stream_pair()?;
        Ok((Self::from_owned_fd(near)?, Self::from_owned_fd(far)?))
    }

    /// A stream over a connected socket, which is put into non-blocking mode.
    ///
    /// # Errors
    /// The reactor does not take it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn from_owned_fd(descriptor: OwnedFd) -> io::Result<Self> {
        socket::set_blocking_mode(&descriptor, BlockingMode::NonBlocking)?;
        Self::from_nonblocking(descriptor)
    }

    pub(crate) fn from_nonblocking(descriptor: OwnedFd) -> io::Result<Self> {
        Ok(Self { inner: UnixStream::from_std(descriptor.into())? })
    }

    /// The descriptor, out of the reactor and in non-blocking mode.
    ///
    /// # Errors
    /// The reactor does not let it go.
    pub fn into_owned_fd(self) -> io::Result<OwnedFd> {
        Ok(self.inner.into_std()?.into())
    }

    /// The same connection for blocking use.
    ///
    /// # Errors
    /// As [`Stream::into_owned_fd`].
    pub fn into_blocking(self) -> io::Result<BlockingStream> {
        BlockingStream::from_owned_fd(self.into_owned_fd()?)
    }

    /// Another descriptor of the same connection, which stays open when this stream is dropped.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone_descriptor(&self) -> io::Result<OwnedFd> {
        self.inner.as_fd().try_clone_to_owned()
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        os::socket::peer_credentials(self.inner.as_fd())
    }

    /// One read that does not wait: kind `WouldBlock` when nothing is there, 0 when the stream ended.
    ///
    /// # Errors
    /// The system's.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        socket::read(self.inner.as_fd(), buffer)
    }

    /// One write that does not wait: kind `WouldBlock` when there is no room.
    ///
    /// # Errors
    /// The system's.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.inner.as_fd(), bytes, &[])
    }

    /// One read, as soon as something is there; 0 when the stream has ended. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.attempt(Interest::READABLE, || socket::read(self.inner.as_fd(), &mut *buffer)).await
    }

    /// Writes everything. Not cancel-safe: part of it may be sent.
    ///
    /// # Errors
    /// The system's.
    pub async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent =
                self.attempt(Interest::WRITABLE, || socket::send(self.inner.as_fd(), bytes, &[])).await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Returns when the peer has closed the connection for good: not when it merely ended its own
    /// direction, and without reading a byte. Cancel-safe.
    ///
    /// # Errors
    /// The runtime is going down.
    pub async fn hung_up(&self) -> io::Result<()> {
        loop {
            if self.inner.ready(Interest::WRITABLE).await?.is_write_closed() {
                return Ok(());
            }
            // Room to write is no news here: the next event is waited for.
            let _ = self
                .inner
                .try_io(Interest::WRITABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
        }
    }

    /// Ends one or both directions.
    ///
    /// # Errors
    /// The system's.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(&self.inner, how)?)
    }

    pub(crate) async fn send_message(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<usize> {
        self.attempt(Interest::WRITABLE, || socket::send(self.inner.as_fd(), bytes, descriptors)).await
    }

    pub(crate) async fn receive_message(
        &self,
        buffer: &mut [u8],
        max_descriptors: usize,
    ) -> Result<Received, FdPassError> {
        self.attempt(Interest::READABLE, || {
            match socket::receive(self.inner.as_fd(), &mut *buffer, max_descriptors) {
                Ok(received) => Ok(Ok(received)),
                Err(FdPassError::Io(error)) => Err(error),
                Err(error) => Ok(Err(error)),
            }
        })
        .await?
    }

    async fn attempt<T>(&self, interest: Interest, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        // A call that always succeeds at once would never give another task its turn.
        tokio::task::coop::consume_budget().await;
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.inner.async_io(interest, call).await
            }
            result => result,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}
