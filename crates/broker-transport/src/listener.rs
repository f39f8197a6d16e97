//! An endpoint that is listened on: binding, accepting, handing on (behaviour.md, sections 1 and 6).
//!
//! [`BoundSocket`] needs no async runtime; [`Listener`] accepts on tokio. Who may connect is decided
//! elsewhere: every connection comes with what the kernel says about its peer. Invariants: a live
//! socket is never taken over, nothing but a socket is ever removed, and on drop the socket file is
//! removed only if it is still the one that was bound here.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::files::{self, FileKind};
use crate::stream::{BlockingStream, ConnectErrorKind};
pub use crate::sys::listener::BoundSocket;
#[cfg(feature = "tokio")]
pub use crate::sys::listener::{Accepted, Listener};

/// Connections that may wait to be accepted; the kernel takes less where `net.core.somaxconn` says so.
pub const DEFAULT_BACKLOG: u32 = 4096;

/// How long a look may wait for room in a listener's queue.
const CONNECT_LIMIT: Duration = Duration::from_millis(100);

/// Permission bits of a socket file: its owner may connect.
pub const SOCKET_MODE: u32 = 0o600;

/// How an endpoint is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindOptions {
    /// Connections that may wait to be accepted.
    pub backlog: u32,
    /// Permission bits of the socket file, whatever the umask.
    pub mode: u32,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self { backlog: DEFAULT_BACKLOG, mode: SOCKET_MODE }
    }
}

/// Whether whoever listens at an endpoint has accepted a connection that is open still.
///
/// On Linux it reads the kernel's list of all Unix sockets, on macOS the descriptors of this user's processes: a
/// matter of milliseconds where there are ten thousand, so not for an event loop. Not on the list, and so not
/// seen, are clients in another network namespace. Windows does not tell.
///
/// # Errors
/// The list cannot be read, or nobody on it listens by this path, its links followed or not.
pub fn has_connections(endpoint: impl AsRef<Path>) -> io::Result<bool> {
    crate::sys::connections::has_connections(endpoint.as_ref())
}

/// Whether a socket file is only that: no socket is bound to it any more, and a connection is refused.
///
/// A socket that is bound and does not listen yet refuses connections, too; so it takes the kernel's list of sockets
/// to know. Where there is none, which is everywhere but on Linux, no file is ever called abandoned.
///
/// # Errors
/// The file or the list cannot be read.
pub fn is_abandoned(endpoint: impl AsRef<Path>) -> io::Result<bool> {
    let endpoint = endpoint.as_ref();
    if files::facts(endpoint)?.kind != FileKind::Socket || crate::sys::connections::is_bound(endpoint)? {
        return Ok(false);
    }
    // A connection finds a socket by its file: also one that is on the list of another network namespace, or whose
    // path is written in another way.
    let connected = BlockingStream::connect(endpoint, Some(CONNECT_LIMIT));
    Ok(connected.is_err_and(|error| error.kind == ConnectErrorKind::Refused))
}

/// Why an endpoint cannot be listened on.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody listens there already.
    #[error("{} is in use: a process listens there", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket lies there. It is never removed.
    #[error("expected nothing or a socket at {}, found {found}; remove it or choose another place", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// What lies there.
        found: &'static str,
    },
    /// The path does not fit a socket address.
    #[error("a socket path has at most {limit} bytes, {} has {actual}", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        actual: usize,
        /// The longest that fits, in bytes.
        limit: usize,
    },
    /// A descriptor that was handed to this process is not a listening socket.
    #[error("expected a listening stream socket as descriptor {descriptor}, got {found}")]
    NotAListener {
        /// The descriptor's number.
        descriptor: i64,
        /// What it is.
        found: &'static str,
    },
    /// The system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Why a connection was not accepted. The listener stays usable.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// The process (`EMFILE`) or the system (`ENFILE`) is out of descriptors. The connection stays
    /// queued, and the next accept fails at once too: wait before trying again.
    #[error("no descriptor is left to accept a connection with: {0}")]
    DescriptorPressure(#[source] io::Error),
    /// Anything else.
    #[error("cannot accept a connection: {0}")]
    Other(#[source] io::Error),
}
