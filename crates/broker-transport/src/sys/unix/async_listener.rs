//! Accepting on tokio.
//!
//! Invariant: a connection's credentials are read right after it was accepted, before a byte of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::super::os;
use super::async_stream::Stream;
use super::listener::BoundSocket;
use crate::listener::{AcceptError, BindError, BindOptions};
use crate::peer::PeerCredentials;

/// A connection that was just accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection; not a byte of it was read.
    pub stream: Stream,
    /// Who is at the other end, or why the kernel does not say.
    pub peer: io::Result<PeerCredentials>,
}

/// A listening endpoint on tokio. On drop the socket file is removed if it is still ours.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<BoundSocket>,
}

// AsyncFd asks for the raw descriptor.
impl std::os::fd::AsRawFd for BoundSocket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.as_fd())
    }
}

impl Listener {
    /// Binds and listens, see [`BoundSocket::bind`].
    ///
    /// # Errors
    /// [`BindError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn bind(path: impl AsRef<Path>, options: &BindOptions) -> Result<Self, BindError> {
        let path = path.as_ref();
        Self::from_bound(BoundSocket::bind(path, options)?).map_err(|source| BindError::Io {
            operation: "watch",
            path: path.to_path_buf(),
            source,
        })
    }

    /// Accepts on a socket that is bound already.
    ///
    /// # Errors
    /// The reactor does not take it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn from_bound(socket: BoundSocket) -> io::Result<Self> {
        // SAFETY: a BoundSocket returns the same open descriptor for as long as it lives, and no
        // method here gives it out mutably.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket })
    }

    /// The bound socket, out of the reactor.
    pub fn into_bound(self) -> BoundSocket {
        self.socket.into_inner()
    }

    /// The bound socket.
    pub fn bound(&self) -> &BoundSocket {
        self.socket.get_ref()
    }

    /// Leaves the socket file where it is when this is dropped: a successor serves it.
    pub fn keep_file(&mut self) {
        self.socket.get_mut().keep_file();
    }

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// [`AcceptError`]; the listener stays usable.
    pub async fn accept(&self) -> Result<Accepted, AcceptError> {
        loop {
            let accepted =
                self.socket.async_io(Interest::READABLE, |socket| Ok(accept_once(socket.as_fd())?)).await;
            match accepted {
                Ok(descriptor) => return Ok(admit(descriptor)),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(classify(error)),
            }
        }
    }

    /// Waits for connections and takes in all that wait, but no more than `most`; each goes to `take`.
    /// Cancel-safe: nothing is accepted that is not taken.
    ///
    /// One look at an empty queue tells that there are no more, so this costs a call less for each
    /// connection than [`accept`](Self::accept) in a loop.
    ///
    /// # Errors
    /// [`AcceptError`], after those that were taken before; the listener stays usable.
    pub async fn accept_waiting(
        &self,
        most: usize,
        mut take: impl FnMut(Accepted),
    ) -> Result<(), AcceptError> {
        let mut guard = self.socket.readable().await.map_err(AcceptError::Other)?;
        for _ in 0..most {
            match accept_once(self.bound().as_fd()) {
                Ok(descriptor) => take(admit(descriptor)),
                Err(Errno::WOULDBLOCK) => {
                    guard.clear_ready();
                    break;
                }
                Err(errno) => {
                    let error = io::Error::from(errno);
                    if !is_transient(&error) {
                        return Err(classify(error));
                    }
                }
            }
        }
        Ok(())
    }

    /// The next connection that waits already; `None` when there is none.
    ///
    /// # Errors
    /// [`AcceptError`]; the listener stays usable.
    pub fn try_accept(&self) -> Result<Option<Accepted>, AcceptError> {
        loop {
            match accept_once(self.bound().as_fd()) {
                Ok(descriptor) => return Ok(Some(admit(descriptor))),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => {
                    let error = io::Error::from(errno);
                    if !is_transient(&error) {
                        return Err(classify(error));
                    }
                }
            }
        }
    }
}

fn accept_once(listener: BorrowedFd<'_>) -> rustix::io::Result<std::os::fd::OwnedFd> {
    os::socket::accept(listener)
}

fn admit(descriptor: std::os::fd::OwnedFd) -> Accepted {
    let peer = os::socket::peer_credentials(descriptor.as_fd());
    Accepted { stream: Stream::from_nonblocking(descriptor), peer }
}

/// The connection was gone again, or a signal came: there may be another.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

fn classify(error: io::Error) -> AcceptError {
    match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE) => AcceptError::DescriptorPressure(error),
        _ => AcceptError::Other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_want_of_descriptors_is_pressure() {
        for errno in [Errno::MFILE, Errno::NFILE] {
            assert!(matches!(classify(errno.into()), AcceptError::DescriptorPressure(_)));
        }
        for errno in [Errno::NOMEM, Errno::NOBUFS, Errno::INVAL] {
            assert!(matches!(classify(errno.into()), AcceptError::Other(_)));
        }
        assert!(is_transient(&Errno::CONNABORTED.into()) && is_transient(&Errno::INTR.into()));
        assert!(!is_transient(&Errno::MFILE.into()));
    }
}
