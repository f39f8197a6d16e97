//! Descriptors that this process was started with.
//!
//! Invariant: a number becomes an owned descriptor only after it was seen to be what it should be, so
//! a false promise in the environment never closes a descriptor that is somebody else's.

use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;
use rustix::net::{SocketAddrUnix, SocketType, sockopt};

use super::super::os;
use super::listener::check_listens;
use crate::activation::{ActivationError, PassedListener, PassedStream};
use crate::listener::{BindError, BoundSocket};

/// Whether the listener has an owner in this process.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
/// Whether the parent's end of a socket pair has one.
static IS_STREAM_TAKEN: AtomicBool = AtomicBool::new(false);

pub(crate) fn take_listener(
    passed: PassedListener,
    path: Option<&Path>,
) -> Result<BoundSocket, ActivationError> {
    if IS_TAKEN.swap(true, Ordering::Relaxed) {
        return Err(ActivationError::Taken);
    }
    match claim(passed.number()) {
        Ok(descriptor) => Ok(BoundSocket::from_listen_fd(descriptor, path)?),
        Err(error) => {
            IS_TAKEN.store(false, Ordering::Relaxed);
            Err(error.into())
        }
    }
}

/// The socket file is nobody's here.
pub(crate) fn take_listener_at(passed: PassedListener, path: &Path) -> Result<BoundSocket, ActivationError> {
    let socket = take_listener(passed, None)?;
    let address = rustix::net::getsockname(&socket).map_err(|errno| BindError::Io {
        operation: "find out the address of",
        path: path.to_path_buf(),
        source: errno.into(),
    })?;
    let address = SocketAddrUnix::try_from(address).ok();
    let found = address
        .as_ref()
        .and_then(SocketAddrUnix::path_bytes)
        .map(|bytes| Path::new(OsStr::from_bytes(bytes)));
    match found {
        Some(found) if is_same(found, path) => Ok(socket),
        found => {
            let found = found.map_or_else(|| "no path".to_owned(), |found| found.display().to_string());
            Err(ActivationError::Elsewhere { expected: path.to_path_buf(), found })
        }
    }
}

/// Whether these lead to one file, though one of them goes through a link.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn claim(number: i32) -> Result<OwnedFd, BindError> {
    // SAFETY: F_GETFD takes any number and answers EBADF where nothing is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(BindError::NotAListener { descriptor: number.into(), found: "nothing that is open" });
    }
    // SAFETY: the descriptor is open, as was just seen, and borrowed for this call only.
    check_listens(unsafe { BorrowedFd::borrow_raw(number) })?;
    // SAFETY: whoever started this process placed the descriptor for it: `PassedListener` is read from
    // variables that name this pid. A number that was open from the start is not handed out again by
    // the kernel, so no other part of the process got it from there, and `IS_TAKEN` sees to it that it
    // is taken here once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

pub(crate) fn take_parent_stream(passed: PassedStream) -> Result<OwnedFd, ActivationError> {
    if IS_STREAM_TAKEN.swap(true, Ordering::Relaxed) {
        return Err(ActivationError::Taken);
    }
    let taken = claim_parent_stream(passed.number());
    if taken.is_err() {
        IS_STREAM_TAKEN.store(false, Ordering::Relaxed);
    }
    taken
}

fn claim_parent_stream(number: i32) -> Result<OwnedFd, ActivationError> {
    let refused = |found| ActivationError::NotTheParents { descriptor: number.into(), found };
    // SAFETY: F_GETFD takes any number and answers EBADF where nothing is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(refused("nothing that is open"));
    }
    // SAFETY: the descriptor is open, as was just seen, and borrowed for this function only.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    if sockopt::socket_type(descriptor).ok() != Some(SocketType::STREAM) {
        return Err(refused("no stream"));
    }
    let parent = rustix::process::getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
    let peer = os::socket::peer_credentials(descriptor).map_err(|_| refused("a stream of nobody known"))?;
    if !peer.user.is_self() || peer.pid.map(NonZeroU32::get) != parent {
        return Err(refused("a stream of another process"));
    }
    rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC).map_err(|_| refused("a stream that is stuck"))?;
    // SAFETY: the other end was made by the parent, which placed this one for its child and named its
    // number; a number that was open from the start is not handed out again by the kernel, so no other
    // part of the process got it from there, and `IS_STREAM_TAKEN` sees to it that it is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
