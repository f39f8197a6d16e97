//! Listening on a named pipe.
//!
//! A pipe has no queue of its own: each client takes an instance that somebody has made before. Invariants:
//! nobody but the owner of a name's first instance makes another one, as its access list says, and a name that is
//! another user's is not listened on; of one user's processes the caller's instance lock lets one listen; and
//! there is an instance for as long as the endpoint is listened on.

use std::io;
use std::os::windows::io::{AsHandle, OwnedHandle};
use std::path::{Path, PathBuf};

use windows_sys::Win32::Foundation::{ERROR_ACCESS_DENIED, ERROR_PIPE_BUSY};
use windows_sys::Win32::System::Pipes::WaitNamedPipeW;

use super::error::is;
use super::identity::own_sid;
use super::pipe::{self, Instance};
use super::security::{OwnerOnly, owner};
use crate::endpoint::{EndpointError, Platform, check_length, pipe_leaf};
use crate::listener::{BindError, BindOptions};
use crate::unsupported::Unsupported;

#[cfg(feature = "tokio")]
pub use super::async_listener::{Accepted, Listener};

/// A pipe that clients may connect to. On drop it is gone: there is no file to remove.
#[derive(Debug)]
pub struct BoundSocket {
    pub(super) name: PipeName,
    /// Free, or taken by a client that came early. A [`Listener`] has it among its own.
    pub(super) first: Option<OwnedHandle>,
    pub(super) backlog: u32,
}

/// A pipe's name, and who may use what has it.
#[derive(Debug)]
pub(super) struct PipeName {
    path: PathBuf,
    wide: Vec<u16>,
    security: OwnerOnly,
}

impl PipeName {
    pub(super) fn instance(&self, instance: Instance) -> io::Result<OwnedHandle> {
        pipe::create(&self.wide, instance, &self.security)
    }

    /// Whether an instance waits for a client.
    fn is_listened_on(&self) -> bool {
        // SAFETY: the name ends with a NUL and outlives the call. It waits for a millisecond at most.
        unsafe { WaitNamedPipeW(self.wide.as_ptr(), 1) != 0 }
    }

    /// An instance beside others that nobody listens with. A connection that was passed on is one of them, and
    /// outlives the broker that made it. Who may make one beside them is decided by the first one's access list,
    /// and whose that was, the pipe tells.
    fn instance_beside_connections(&self) -> io::Result<OwnedHandle> {
        let instance = self.instance(Instance::Further)?;
        if owner(instance.as_handle())? == own_sid()? {
            Ok(instance)
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

impl BoundSocket {
    /// Makes the pipe, open to this user alone, and to nobody on another machine. The mode in `options` says
    /// nothing here, and of the backlog only a part is made.
    ///
    /// # Errors
    /// [`BindError`]; whoever has the name keeps it.
    pub fn bind(path: impl AsRef<Path>, options: &BindOptions) -> Result<Self, BindError> {
        let path = path.as_ref();
        let failure = |operation| move |source| failure(operation, path, source);
        match check_length(Platform::Windows, path) {
            Ok(()) => {}
            Err(EndpointError::TooLong { actual, limit, .. }) => {
                return Err(BindError::TooLong { path: path.to_path_buf(), actual, limit });
            }
            Err(error) => {
                let source = io::Error::new(io::ErrorKind::InvalidInput, error);
                return Err(self::failure("listen on", path, source));
            }
        }
        let security = OwnerOnly::pipe().map_err(failure("make a security descriptor for"))?;
        let leaf = PathBuf::from(pipe_leaf(&path.to_string_lossy()));
        let wide = pipe::wide_name(path).map_err(failure("listen on"))?;
        let name = PipeName { path: leaf, wide, security };
        let in_use = || BindError::InUse { path: path.to_path_buf() };
        if name.is_listened_on() {
            return Err(in_use());
        }
        let first = match name.instance(Instance::First) {
            Err(error) if is(&error, ERROR_ACCESS_DENIED) || is(&error, ERROR_PIPE_BUSY) => {
                name.instance_beside_connections().map_err(|_| in_use())?
            }
            made => made.map_err(failure("listen on"))?,
        };
        Ok(Self { name, first: Some(first), backlog: options.backlog })
    }

    /// Fails: whoever is given one instance of a pipe cannot make the next.
    ///
    /// # Errors
    /// [`Unsupported`].
    pub fn from_listen_fd(_descriptor: OwnedHandle, path: Option<&Path>) -> Result<Self, BindError> {
        let path = path.unwrap_or(Path::new("an inherited handle"));
        Err(failure("listen on", path, passes_no_listeners().into()))
    }

    /// Whether it is still what its name leads to: a name is its listener's.
    pub const fn is_in_place(&self) -> bool {
        true
    }

    /// The pipe's leaf.
    pub fn path(&self) -> Option<&Path> {
        Some(&self.name.path)
    }

    /// Fails: whoever is given one instance of a pipe cannot make the next.
    ///
    /// # Errors
    /// [`Unsupported`].
    pub fn into_descriptor(self) -> io::Result<OwnedHandle> {
        Err(passes_no_listeners().into())
    }

    /// Fails: whoever is given one instance of a pipe cannot make the next.
    ///
    /// # Errors
    /// [`Unsupported`].
    pub fn try_clone_descriptor(&self) -> io::Result<OwnedHandle> {
        Err(passes_no_listeners().into())
    }

    /// Nothing: there is no file.
    pub fn keep_file(&mut self) {}
}

pub(super) const fn passes_no_listeners() -> Unsupported {
    Unsupported { operation: "passing a listener to another process", platform: std::env::consts::OS }
}

fn failure(operation: &'static str, path: &Path, source: io::Error) -> BindError {
    BindError::Io { operation, path: path.to_path_buf(), source }
}
