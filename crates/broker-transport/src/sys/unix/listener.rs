//! Binding and accepting on Unix sockets.
//!
//! Invariant: between a check and what is done upon it stands the caller's instance lock; without it
//! two brokers could both find a stale socket and remove each other's new one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode};
use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use super::super::os;
use super::socket::{self, Waiting};
use crate::endpoint::Platform;
use crate::listener::{BindError, BindOptions};
use crate::stream::BlockingMode;
use crate::stream::ConnectErrorKind;

#[cfg(feature = "tokio")]
pub use super::async_listener::{Accepted, Listener};

/// A listening socket and the file it is bound to. On drop the file is removed if it is still ours.
#[derive(Debug)]
pub struct BoundSocket {
    descriptor: OwnedFd,
    file: Option<SocketFile>,
}

impl BoundSocket {
    /// Binds and listens. The caller holds the endpoint's instance lock; the directory is private.
    ///
    /// A stale socket file, on which nobody listens, is replaced.
    ///
    /// # Errors
    /// [`BindError`]; whatever lies at `path` is untouched then.
    pub fn bind(path: impl AsRef<Path>, options: &BindOptions) -> Result<Self, BindError> {
        let path = path.as_ref();
        let failure = |operation| move |source| failure(operation, path, source);
        let Some(address) = socket::address(path).map_err(failure("bind"))? else {
            return Err(BindError::TooLong {
                path: path.to_path_buf(),
                actual: path.as_os_str().len(),
                limit: Platform::CURRENT.max_endpoint_len(),
            });
        };
        make_room(path)?;
        let descriptor = os::socket::stream_socket().map_err(failure("make a socket for"))?;
        let mode = Mode::from_raw_mode(options.mode as rustix::fs::RawMode);
        // On Linux the file gets the mode of the socket less the umask, so it is never wider than
        // this, not even for a moment. Elsewhere this fails, and the private directory has to do.
        let _ = rustix::fs::fchmod(&descriptor, mode);
        rustix::net::bind(&descriptor, &address).map_err(|errno| match errno {
            Errno::ADDRINUSE => BindError::InUse { path: path.to_path_buf() },
            errno => self::failure("bind", path, errno.into()),
        })?;
        let file = SocketFile::of(path).map_err(failure("look at"))?;
        let bound = Self { descriptor, file: Some(file) };
        // Now the bits that the umask took away. Nobody gets in before `listen`.
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty())
            .map_err(|errno| self::failure("set the mode of", path, errno.into()))?;
        let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
        rustix::net::listen(&bound.descriptor, backlog)
            .map_err(|errno| self::failure("listen on", path, errno.into()))?;
        Ok(bound)
    }

    /// A listening socket that was handed to this process: by socket activation, or by a predecessor.
    ///
    /// With a path, the socket file is removed on drop like one that was bound here.
    ///
    /// # Errors
    /// [`BindError::NotAListener`].
    pub fn from_listen_fd(descriptor: OwnedFd, path: Option<&Path>) -> Result<Self, BindError> {
        check_listens(descriptor.as_fd())?;
        let shown = path.unwrap_or(Path::new("an inherited socket"));
        socket::set_blocking_mode(&descriptor, BlockingMode::NonBlocking)
            .map_err(|source| failure("prepare", shown, source))?;
        rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)
            .map_err(|errno| failure("prepare", shown, errno.into()))?;
        let file = match path {
            Some(path) => Some(SocketFile::of(path).map_err(|source| failure("look at", path, source))?),
            None => None,
        };
        Ok(Self { descriptor, file })
    }

    /// Whether the socket file, where it is known, is still the one that was bound.
    pub fn is_in_place(&self) -> bool {
        self.file.as_ref().is_none_or(SocketFile::is_in_place)
    }

    /// The socket file, where it is known.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// The listening descriptor alone. The socket file stays: whoever gets the descriptor serves it.
    ///
    /// # Errors
    /// None on Unix; on Windows a listener cannot be handed on.
    pub fn into_descriptor(self) -> io::Result<OwnedFd> {
        let Self { descriptor, file } = self;
        if let Some(file) = file {
            file.keep();
        }
        Ok(descriptor)
    }

    /// Another descriptor of the same socket, for a child or a successor.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone_descriptor(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }

    /// Leaves the socket file where it is when this is dropped.
    pub fn keep_file(&mut self) {
        if let Some(file) = self.file.take() {
            file.keep();
        }
    }
}

impl AsFd for BoundSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A socket file, removed on drop if the same file is still there.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = path.symlink_metadata()?;
        Ok(Self { path: path.to_path_buf(), identity: (metadata.dev(), metadata.ino()) })
    }

    fn is_in_place(&self) -> bool {
        Self::of(&self.path).is_ok_and(|found| {
            let same = found.identity == self.identity;
            found.keep();
            same
        })
    }

    fn keep(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        if self.is_in_place()
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket file stays behind");
        }
    }
}

/// Checks that a descriptor is a stream socket that listens.
pub(super) fn check_listens(descriptor: BorrowedFd<'_>) -> Result<(), BindError> {
    let number = i64::from(descriptor.as_raw_fd());
    let not_a_listener = |found| Err(BindError::NotAListener { descriptor: number, found });
    match (socket_type(descriptor), os::socket::is_listening(descriptor)) {
        (Err(_), _) => not_a_listener("no socket"),
        (Ok(SocketType::STREAM), Ok(true)) => Ok(()),
        (Ok(SocketType::STREAM), _) => not_a_listener("a socket that does not listen"),
        (Ok(_), _) => not_a_listener("a socket of another type"),
    }
}

/// Removes a stale socket, and nothing else.
fn make_room(path: &Path) -> Result<(), BindError> {
    let file_type = match path.symlink_metadata() {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failure("look at", path, source)),
    };
    let not_a_socket = |found| Err(BindError::NotASocket { path: path.to_path_buf(), found });
    match file_type {
        _ if file_type.is_socket() => {}
        _ if file_type.is_symlink() => return not_a_socket("a symbolic link"),
        _ if file_type.is_dir() => return not_a_socket("a directory"),
        _ if file_type.is_file() => return not_a_socket("a regular file"),
        _ => return not_a_socket("a device or FIFO"),
    }
    match socket::connect(path, Waiting::No) {
        Ok(_) => Err(BindError::InUse { path: path.to_path_buf() }),
        Err(error) => match error.kind {
            ConnectErrorKind::Refused => {
                std::fs::remove_file(path).map_err(|source| failure("remove the stale socket", path, source))
            }
            ConnectErrorKind::NotFound => Ok(()),
            ConnectErrorKind::Busy => Err(BindError::InUse { path: path.to_path_buf() }),
            ConnectErrorKind::PermissionDenied
            | ConnectErrorKind::TooLong
            | ConnectErrorKind::Unsupported
            | ConnectErrorKind::Other => {
                Err(failure("find out whether anybody listens on", path, error.source))
            }
        },
    }
}

fn failure(operation: &'static str, path: &Path, source: io::Error) -> BindError {
    BindError::Io { operation, path: path.to_path_buf(), source }
}
