//! Sockets and peers by Linux's own flags and options (socket(2), unix(7)).
//!
//! Invariant: every descriptor made here is close-on-exec and, but for a peer's pidfd, non-blocking
//! from the start.

use std::ffi::OsStr;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::num::NonZeroU32;
#[cfg(feature = "tokio")]
use std::os::fd::FromRawFd;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::peer::{PeerCredentials, UserId};

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A write to a connection that is gone is an error, not a signal.
pub(crate) const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL;

/// And waits for nothing, where somebody who shares the connection has made it a blocking one.
#[cfg(feature = "tokio")]
pub(crate) const ASYNC_SEND_FLAGS: SendFlags = SEND_FLAGS.union(SendFlags::DONTWAIT);

/// Received descriptors are close-on-exec at once.
pub(crate) const RECV_FLAGS: RecvFlags = RecvFlags::CMSG_CLOEXEC;

/// One write that does not wait, whatever the socket's mode.
pub(crate) fn send_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<usize> {
    rustix::net::send(socket, bytes, SEND_FLAGS.union(SendFlags::DONTWAIT))
}

pub(crate) fn stream_socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?)
}

pub(crate) fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?)
}

#[cfg(feature = "tokio")]
pub(crate) fn accept(listener: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    rustix::net::accept_with(listener, FLAGS)
}

/// The address that a name stands for: a path, or an abstract one that begins with `@`.
pub(crate) fn address_of(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

/// Whether `listen` was called on a stream socket.
pub(crate) fn is_listening(socket: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    rustix::net::sockopt::socket_acceptconn(socket)
}

/// Linux sets the flag while receiving ([`RECV_FLAGS`]).
pub(crate) fn secure_received(_descriptor: &OwnedFd) -> io::Result<()> {
    Ok(())
}

/// Not rustix's `socket_peercred`: its pid cannot be 0, but the kernel's is, for a peer whose process
/// is not visible in this pid namespace.
pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
    // SAFETY: `ucred` is what SO_PEERCRED writes, and every bit pattern is one.
    let credentials = unsafe { socket_option::<libc::ucred>(socket, libc::SO_PEERCRED) }?;
    Ok(PeerCredentials {
        user: UserId::from_uid(credentials.uid),
        gid: Some(credentials.gid),
        pid: u32::try_from(credentials.pid).ok().and_then(NonZeroU32::new),
    })
}

/// A pidfd of the process that connected (`SO_PEERPIDFD`, Linux 6.5); `None` where the kernel has none.
#[cfg(feature = "tokio")]
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    // SAFETY: SO_PEERPIDFD writes an `int`, and every bit pattern is one.
    match unsafe { socket_option::<libc::c_int>(socket, libc::SO_PEERPIDFD) } {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(descriptor) => Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) })),
        // ENODATA and EINVAL: an anonymous pair or one whose process is gone has no pid to open.
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOPROTOOPT | libc::ENODATA | libc::EINVAL | libc::ESRCH) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Reads a socket option of level `SOL_SOCKET`.
///
/// # Safety
/// `T` is what the option writes, and every bit pattern is a valid `T`.
unsafe fn socket_option<T>(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` has room for `length` bytes, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize != size_of::<T>() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a socket option of unexpected size"));
    }
    // SAFETY: the kernel has written all of it, and the caller vouches for every bit pattern.
    Ok(unsafe { value.assume_init() })
}
