//! The async stream: a Unix socket that meets tokio's reactor only when it has to wait.
//!
//! A read or write is tried first. On a fresh connection the request is there already more often than
//! not and the answer always fits, so a whole exchange may pass without the socket ever being registered:
//! that saves two system calls and a trip through the reactor (docs/decisions, 4). Once a call would
//! block, the socket is registered for the rest of its life.
//!
//! Invariant: the registration goes before the descriptor is closed or handed on.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::time::Instant;

use super::super::os;
use super::socket::{self, Waiting};
use super::stream::BlockingStream;
use crate::fd_passing::{FdPassError, Received};
use crate::peer::PeerCredentials;
use crate::stream::{BlockingMode, ConnectError, ConnectErrorKind};

/// How long [`Stream::connect`] waits for room in a listener's full queue.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// First and longest pause between two attempts.
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// A connection on tokio.
///
/// Also `AsyncRead` and `AsyncWrite`; the methods here take `&self`, so that one task may read while
/// another writes.
///
/// # Panics
/// Whatever has to wait panics outside of a tokio runtime with I/O enabled.
#[derive(Debug)]
pub struct Stream {
    /// Before the socket, so that it is dropped first. An error is remembered: a socket that cannot be
    /// registered once never will be.
    registration: OnceLock<io::Result<AsyncFd<RawFd>>>,
    socket: OwnedFd,
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
                    return Ok(Self::from_nonblocking(descriptor));
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
        Ok((Self::from_nonblocking(near), Self::from_nonblocking(far)))
    }

    /// A stream over a connected socket, which is put into non-blocking mode.
    ///
    /// # Errors
    /// The mode cannot be set.
    pub fn from_owned_fd(descriptor: OwnedFd) -> io::Result<Self> {
        socket::set_blocking_mode(&descriptor, BlockingMode::NonBlocking)?;
        Ok(Self::from_nonblocking(descriptor))
    }

    pub(crate) const fn from_nonblocking(socket: OwnedFd) -> Self {
        Self { registration: OnceLock::new(), socket }
    }

    /// The descriptor, out of the reactor and in non-blocking mode.
    pub fn into_owned_fd(self) -> OwnedFd {
        let Self { registration, socket } = self;
        drop(registration);
        socket
    }

    /// The same connection for blocking use.
    ///
    /// # Errors
    /// The mode cannot be set.
    pub fn into_blocking(self) -> io::Result<BlockingStream> {
        BlockingStream::from_owned_fd(self.into_owned_fd())
    }

    /// Another descriptor of the same connection, which stays open when this stream is dropped.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone_descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        os::socket::peer_credentials(self.socket.as_fd())
    }

    /// One read that does not wait: kind `WouldBlock` when nothing is there, 0 when the stream ended.
    ///
    /// # Errors
    /// The system's.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        socket::read_now(self.socket.as_fd(), buffer)
    }

    /// One write that does not wait: kind `WouldBlock` when there is no room.
    ///
    /// # Errors
    /// The system's.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        socket::send_async(self.socket.as_fd(), bytes, &[])
    }

    /// [`try_write`](Self::try_write) on a connection that was made a
    /// [blocking one](Self::set_blocking).
    ///
    /// # Errors
    /// The system's.
    pub fn try_write_blocking(&self, bytes: &[u8]) -> io::Result<usize> {
        socket::send_now(self.socket.as_fd(), bytes)
    }

    /// The descriptor, to be lent to somebody.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Makes the connection a blocking or a non-blocking one for everybody who shares it. A fresh one of
    /// this type is non-blocking, while what `accept` gives to others is not.
    ///
    /// While it is a blocking one, nothing here may be called that can wait: it would stop the runtime.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_blocking(&self, mode: BlockingMode) -> io::Result<()> {
        socket::set_blocking_mode(&self.socket, mode)
    }

    /// One read, as soon as something is there; 0 when the stream has ended. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.attempt(Interest::READABLE, || socket::read_now(self.socket.as_fd(), &mut *buffer)).await
    }

    /// One write, as soon as there is room for a byte. Cancel-safe: when it did not return, nothing was
    /// sent.
    ///
    /// # Errors
    /// The system's.
    pub async fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(Interest::WRITABLE, || socket::send_async(self.socket.as_fd(), bytes, &[])).await
    }

    /// One look that does not wait at what a read would bring: kind `WouldBlock` when nothing is there, 0
    /// when the stream has ended. The bytes stay in the socket.
    ///
    /// A look ends behind the bytes that descriptors ride on, whatever follows; they stay, too.
    ///
    /// # Errors
    /// The system's.
    pub fn try_peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        socket::peek_now(self.socket.as_fd(), buffer)
    }

    /// As [`Stream::try_peek`], as soon as something is there. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.attempt(Interest::READABLE, || self.try_peek(&mut *buffer)).await
    }

    /// As [`Stream::peek`], as soon as there are more than the `seen` bytes of an earlier look. It comes to
    /// no more than `seen` when the stream has ended without more, or `buffer` has no room for more.
    /// Cancel-safe.
    ///
    /// A socket with bytes in it is readable for as long as nobody takes them, so that is no news. News is
    /// the event of an arrival, which the kernel tells once for each (epoll(7), `EPOLLET`; kqueue(2),
    /// `EV_CLEAR`): this sleeps from one to the next. To have them to itself it takes the stream alone, and
    /// leaves it out of the reactor, so that the next read asks the kernel anew instead of waiting for an
    /// event that was taken for a look.
    ///
    /// # Errors
    /// The system's.
    pub async fn peek_beyond(&mut self, seen: usize, buffer: &mut [u8]) -> io::Result<usize> {
        tokio::task::coop::consume_budget().await;
        let room = buffer.len();
        let is_all = |count| count == 0 || count > seen || count == room;
        match self.try_peek(buffer) {
            Ok(count) if !is_all(count) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
        let stream = &*LeavesReactor(self).0;
        let reactor = stream.reactor()?;
        loop {
            let mut guard = reactor.ready(Interest::READABLE).await?;
            // Before the look: what came ahead of the end is there once the end is known.
            let is_ended = guard.ready().is_read_closed();
            match stream.try_peek(buffer) {
                Ok(count) if !is_ended && !is_all(count) => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                outcome => return outcome,
            }
        }
    }

    /// Writes everything. Not cancel-safe: part of it may be sent.
    ///
    /// # Errors
    /// The system's.
    pub async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = self
                .attempt(Interest::WRITABLE, || socket::send_async(self.socket.as_fd(), bytes, &[]))
                .await?;
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
        let reactor = self.reactor()?;
        loop {
            let mut guard = reactor.ready(Interest::WRITABLE).await?;
            if guard.ready().is_write_closed() {
                return Ok(());
            }
            // Room to write is no news here: the next event is waited for.
            guard.clear_ready();
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
        Ok(rustix::net::shutdown(&self.socket, how)?)
    }

    pub(crate) async fn send_message(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<usize> {
        self.attempt(Interest::WRITABLE, || socket::send_async(self.socket.as_fd(), bytes, descriptors)).await
    }

    pub(crate) fn try_send_message(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        socket::send_async(self.socket.as_fd(), bytes, descriptors)
    }

    pub(crate) async fn receive_message(
        &self,
        buffer: &mut [u8],
        max_descriptors: usize,
    ) -> Result<Received, FdPassError> {
        let socket = self.socket.as_fd();
        self.attempt(Interest::READABLE, || socket::receive(socket, &mut *buffer, max_descriptors)).await?
    }

    async fn attempt<T>(&self, interest: Interest, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        // A call that always succeeds at once would never give another task its turn.
        tokio::task::coop::consume_budget().await;
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.reactor()?.async_io(interest, |_| call()).await
            }
            result => result,
        }
    }

    /// The socket in the reactor, registered now if it was not before.
    fn reactor(&self) -> io::Result<&AsyncFd<RawFd>> {
        let register = || {
            let both = Interest::READABLE | Interest::WRITABLE;
            // SAFETY: the number is that of `socket`, which is open and stays the same for as long as
            // `self` lives, and the registration is dropped before it.
            let registered = unsafe { AsyncFd::register_with_interest(self.socket.as_raw_fd(), both) };
            registered.map_err(|error| error.into_parts().1)
        };
        match self.registration.get_or_init(register) {
            Ok(reactor) => Ok(reactor),
            Err(error) => {
                Err(error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error))
            }
        }
    }
}

/// Takes a stream out of the reactor on drop.
struct LeavesReactor<'a>(&'a mut Stream);

impl Drop for LeavesReactor<'_> {
    fn drop(&mut self) {
        self.0.registration.take();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let reactor = self.reactor()?;
        loop {
            let mut guard = ready!(reactor.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            if let Ok(count) = guard.try_io(|_| socket::read_now(self.socket.as_fd(), unfilled)) {
                buffer.advance(count?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let reactor = self.reactor()?;
        loop {
            let mut guard = ready!(reactor.poll_write_ready(context))?;
            if let Ok(sent) = guard.try_io(|_| socket::send_async(self.socket.as_fd(), bytes, &[])) {
                return Poll::Ready(sent);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown(Shutdown::Write))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
