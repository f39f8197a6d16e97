//! A connection to a local endpoint, async ([`Stream`]) and blocking ([`BlockingStream`]).
//!
//! Bytes, credentials and the descriptor itself; what the bytes mean is [`frame_io`](crate::frame_io)'s
//! business. Invariant: a stream reads no byte that its caller did not ask for, so what is left in the
//! socket belongs to whoever gets the descriptor next.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use crate::sys::stream::BlockingStream;
#[cfg(feature = "tokio")]
pub use crate::sys::stream::Stream;

/// Whether calls on a connection wait, for everybody who shares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockingMode {
    /// They do.
    Blocking,
    /// They fail where they would have to.
    NonBlocking,
}

/// Why there is no connection.
#[derive(Debug, Error)]
#[error("cannot connect to {}: {kind}", endpoint.display())]
pub struct ConnectError {
    /// The endpoint.
    pub endpoint: PathBuf,
    /// What is wrong, as far as a caller can act on it.
    pub kind: ConnectErrorKind,
    /// The system's word.
    #[source]
    pub source: io::Error,
}

/// What a caller can tell about a failed connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConnectErrorKind {
    /// There is no such endpoint.
    #[error("there is no such endpoint")]
    NotFound,
    /// There is a socket, but nobody listens.
    #[error("nobody listens there")]
    Refused,
    /// This user may not.
    #[error("permission denied")]
    PermissionDenied,
    /// The path does not fit an address.
    #[error("its name is too long for a socket address")]
    TooLong,
    /// The listener's queue stayed full for as long as the caller would wait.
    #[error("it is too busy to take another connection")]
    Busy,
    /// This platform has no implementation.
    #[error("not implemented on this platform")]
    Unsupported,
    /// Anything else; see the source.
    #[error("the system refuses")]
    Other,
}

impl ConnectError {
    pub(crate) fn new(endpoint: &Path, kind: ConnectErrorKind, source: io::Error) -> Self {
        Self { endpoint: endpoint.to_path_buf(), kind, source }
    }
}
