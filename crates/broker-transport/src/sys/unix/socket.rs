//! Addresses, connecting, and single reads and writes on Unix sockets.
//!
//! Invariant: an address is checked against the platform's limit here, so it is never cut.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix,
};

use super::super::os;
use crate::endpoint::Platform;
use crate::fd_passing::{FdPassError, MAX_DESCRIPTORS, Received};
use crate::stream::{BlockingMode, ConnectError, ConnectErrorKind};

/// Messages whose descriptors nobody had asked for.
static DISCARDED: AtomicU64 = AtomicU64::new(0);

pub(crate) fn discarded_messages() -> u64 {
    DISCARDED.load(Ordering::Relaxed)
}

/// The address of a path; `None` when it does not fit.
pub(crate) fn address(path: &Path) -> io::Result<Option<SocketAddrUnix>> {
    if path.as_os_str().is_empty() {
        // The empty address would mean "any free abstract name".
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty path names no socket"));
    }
    if path.as_os_str().as_bytes().len() > Platform::CURRENT.max_endpoint_len() {
        return Ok(None);
    }
    Ok(Some(SocketAddrUnix::new(path)?))
}

/// Connects a fresh socket. Without a timeout it does not wait: a full queue is `Busy`.
pub(crate) fn connect(path: &Path, waiting: Waiting) -> Result<OwnedFd, ConnectError> {
    let other = |source| ConnectError::new(path, ConnectErrorKind::Other, source);
    let too_long = || ConnectError::new(path, ConnectErrorKind::TooLong, Errno::NAMETOOLONG.into());
    let address = address(path).map_err(other)?.ok_or_else(too_long)?;
    let socket = os::socket::stream_socket().map_err(other)?;
    if let Waiting::UpTo(timeout) = waiting {
        rustix::io::ioctl_fionbio(&socket, false).map_err(|errno| other(errno.into()))?;
        // The send timeout bounds a blocking connect, too (socket(7), SO_SNDTIMEO).
        set_socket_timeout(&socket, Timeout::Send, timeout).map_err(|errno| other(errno.into()))?;
    }
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(ConnectError::new(path, kind(errno), errno.into())),
        }
    }
    if let Waiting::UpTo(_) = waiting {
        set_socket_timeout(&socket, Timeout::Send, None).map_err(|errno| other(errno.into()))?;
    }
    Ok(socket)
}

/// Whether a connect waits for room in the listener's queue.
#[derive(Clone, Copy)]
pub(crate) enum Waiting {
    /// It does not; the socket is non-blocking.
    No,
    /// It does, without end where there is no time; the socket is blocking.
    UpTo(Option<Duration>),
}

fn kind(errno: Errno) -> ConnectErrorKind {
    match errno {
        Errno::NOENT | Errno::NOTDIR => ConnectErrorKind::NotFound,
        Errno::CONNREFUSED => ConnectErrorKind::Refused,
        Errno::ACCESS | Errno::PERM => ConnectErrorKind::PermissionDenied,
        Errno::NAMETOOLONG => ConnectErrorKind::TooLong,
        Errno::AGAIN | Errno::TIMEDOUT => ConnectErrorKind::Busy,
        _ => ConnectErrorKind::Other,
    }
}

/// One read; waits where the socket's mode says so.
pub(crate) fn read(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| rustix::io::read(socket, &mut *buffer))
}

/// One read that does not wait, whatever the socket's mode.
///
/// By recvmsg(2) without room for anything but bytes: as with recv(2) the kernel closes descriptors that ride on
/// them, but here it says so (`MSG_CTRUNC`). It is one call either way.
pub(crate) fn read_now(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut no_control = RecvAncillaryBuffer::default();
    let message = uninterrupted(|| {
        let mut bytes = [IoSliceMut::new(buffer)];
        rustix::net::recvmsg(socket, &mut bytes, &mut no_control, RecvFlags::DONTWAIT)
    })?;
    if message.flags.contains(ReturnFlags::CTRUNC) {
        DISCARDED.fetch_add(1, Ordering::Relaxed);
    }
    Ok(message.bytes)
}

/// One look at what a read would bring, which takes nothing and does not wait, whatever the socket's mode.
#[cfg(feature = "tokio")]
pub(crate) fn peek_now(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| {
        Ok(rustix::net::recv(socket, &mut *buffer, RecvFlags::PEEK.union(RecvFlags::DONTWAIT))?.0)
    })
}

/// One write, with descriptors on its first byte; waits where the socket's mode says so.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    send_flagged(socket, bytes, descriptors, os::socket::SEND_FLAGS)
}

/// [`send`] on a socket that is non-blocking, or was until somebody who shares it changed that.
#[cfg(feature = "tokio")]
pub(crate) fn send_async(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    send_flagged(socket, bytes, descriptors, os::socket::ASYNC_SEND_FLAGS)
}

fn send_flagged(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    if descriptors.is_empty() {
        return uninterrupted(|| rustix::net::send(socket, bytes, flags));
    }
    uninterrupted(|| {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::TOOMANYREFS);
        }
        rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)
    })
}

/// One write that does not wait, whatever the socket's mode.
pub(crate) fn send_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    uninterrupted(|| os::socket::send_now(socket, bytes))
}

/// One read that does not wait, with the descriptors that ride on it. The outer error is the system's
/// own, such as that nothing is there.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    max_descriptors: usize,
) -> io::Result<Result<Received, FdPassError>> {
    match receive_message(socket, buffer, max_descriptors) {
        Err(FdPassError::Io(error)) => Err(error),
        outcome => Ok(outcome),
    }
}

fn receive_message(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    max_descriptors: usize,
) -> Result<Received, FdPassError> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = os::socket::RECV_FLAGS.union(RecvFlags::DONTWAIT);
    let message =
        uninterrupted(|| rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags))?;
    let mut descriptors = Vec::new();
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = ancillary {
            descriptors.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(FdPassError::Cut { len: message.bytes });
    }
    if descriptors.len() > max_descriptors {
        return Err(FdPassError::Surplus { expected: max_descriptors, actual: descriptors.len() });
    }
    for descriptor in &descriptors {
        os::socket::secure_received(descriptor)?;
    }
    Ok(Received { len: message.bytes, descriptors })
}

/// What `call` comes to, which does not wait itself: this waits for it, until the deadline.
///
/// Not by the socket's own timeouts: they start anew with each part of a write that finds room, and end
/// late by what the kernel's coarse timers allow themselves.
pub(crate) fn before<T>(
    deadline: Option<Instant>,
    socket: BorrowedFd<'_>,
    events: PollFlags,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        let left = time_left(deadline)?;
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(socket, events, left)?,
            result => return result,
        }
    }
}

fn time_left(deadline: Option<Instant>) -> io::Result<Option<Duration>> {
    match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
        Some(Duration::ZERO) => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Waits for one of the events, the peer's end, or a signal; at most for as long as is left.
fn wait(socket: BorrowedFd<'_>, events: PollFlags, left: Option<Duration>) -> io::Result<()> {
    // A time that is too long for the kernel is as good as none.
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    match rustix::event::poll(&mut [PollFd::new(&socket, events)], left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Sets whether calls on a socket wait.
pub(crate) fn set_blocking_mode(socket: impl AsFd, mode: BlockingMode) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(socket, matches!(mode, BlockingMode::NonBlocking))?)
}
