//! Unix stream sockets: the async [`Stream`] and the [`BlockingStream`].

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::super::os;
pub(crate) use super::socket::discarded_messages;
use super::socket::{self, Waiting};
use crate::fd_passing::{FdPassError, Received};
use crate::peer::PeerCredentials;
use crate::stream::{BlockingMode, ConnectError};

#[cfg(feature = "tokio")]
pub use super::async_stream::Stream;

/// A connection whose calls wait.
///
/// ```
/// # #[cfg(unix)] {
/// use broker_transport::stream::BlockingStream;
/// use std::io::{Read, Write};
///
/// let (mut near, mut far) = BlockingStream::pair()?;
/// near.write_all(b"hello")?;
/// let mut heard = [0; 5];
/// far.read_exact(&mut heard)?;
/// assert_eq!(&heard, b"hello");
/// assert!(far.peer()?.user.is_self());
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct BlockingStream {
    socket: OwnedFd,
}

impl BlockingStream {
    /// Connects; `timeout` bounds the wait for room in the listener's queue.
    ///
    /// # Errors
    /// [`ConnectError`]; `Busy` when the time is up.
    pub fn connect(endpoint: impl AsRef<Path>, timeout: Option<Duration>) -> Result<Self, ConnectError> {
        let socket = socket::connect(endpoint.as_ref(), Waiting::UpTo(at_least_a_moment(timeout)))?;
        Ok(Self { socket })
    }

    /// Two streams that are connected with each other.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (near, far) = os::socket::stream_pair()?;
        Ok((Self::from_owned_fd(near)?, Self::from_owned_fd(far)?))
    }

    /// A stream over a connected socket, which is put into blocking mode.
    ///
    /// # Errors
    /// The mode cannot be set.
    pub fn from_owned_fd(descriptor: OwnedFd) -> io::Result<Self> {
        socket::set_blocking_mode(&descriptor, BlockingMode::Blocking)?;
        Ok(Self { socket: descriptor })
    }

    /// The descriptor, in blocking mode.
    pub fn into_owned_fd(self) -> OwnedFd {
        self.socket
    }

    /// Another descriptor of the same connection.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        os::socket::peer_credentials(self.socket.as_fd())
    }

    /// How long a read waits; `None` is for ever, and less than a microsecond counts as one.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(set_socket_timeout(&self.socket, Timeout::Recv, at_least_a_moment(timeout))?)
    }

    /// How long a write waits; `None` is for ever, and less than a microsecond counts as one.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(set_socket_timeout(&self.socket, Timeout::Send, at_least_a_moment(timeout))?)
    }

    /// One read that waits no longer than the deadline, whatever the read timeout.
    ///
    /// # Errors
    /// Kind `TimedOut` after the deadline.
    pub fn read_before(&self, buffer: &mut [u8], deadline: Option<Instant>) -> io::Result<usize> {
        let socket = self.socket.as_fd();
        socket::before(deadline, socket, PollFlags::IN, || socket::read_now(socket, buffer))
    }

    /// Writes everything, and waits no longer than the deadline, however slowly the peer reads and
    /// whatever the write timeout.
    ///
    /// # Errors
    /// Kind `TimedOut` after the deadline; part of the bytes may be sent.
    pub fn send_all_before(&self, mut bytes: &[u8], deadline: Option<Instant>) -> io::Result<()> {
        let socket = self.socket.as_fd();
        while !bytes.is_empty() {
            let sent = socket::before(deadline, socket, PollFlags::OUT, || socket::send_now(socket, bytes))?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    pub(crate) fn send_message(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        socket::send(self.socket.as_fd(), bytes, descriptors).map_err(timed_out)
    }

    pub(crate) fn receive_message(
        &self,
        buffer: &mut [u8],
        max_descriptors: usize,
        deadline: Option<Instant>,
    ) -> Result<Received, FdPassError> {
        let socket = self.socket.as_fd();
        socket::before(deadline, socket, PollFlags::IN, || socket::receive(socket, buffer, max_descriptors))?
    }
}

/// The kernel takes a timeout of 0 for none at all.
fn at_least_a_moment(timeout: Option<Duration>) -> Option<Duration> {
    timeout.map(|timeout| timeout.max(Duration::from_micros(1)))
}

/// A socket timeout shows as `EAGAIN`.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, error),
        _ => error,
    }
}

impl Read for BlockingStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Read for &BlockingStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        socket::read(self.socket.as_fd(), buffer).map_err(timed_out)
    }
}

impl Write for BlockingStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &BlockingStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.socket.as_fd(), bytes, &[]).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for BlockingStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
