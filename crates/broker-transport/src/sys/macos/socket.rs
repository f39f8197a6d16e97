//! Sockets and peers by macOS's own options (unix(4), getpeereid(3)).
//!
//! Invariant: every descriptor made here is close-on-exec and non-blocking when it is handed out. macOS
//! cannot do that in one call, so a fork in between could leak one: children close what is not theirs.

use std::ffi::OsStr;
use std::io;
use std::mem::size_of;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;

use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::peer::{PeerCredentials, UserId};

/// `SO_NOSIGPIPE` on the socket does what a flag does elsewhere.
pub(crate) const SEND_FLAGS: SendFlags = SendFlags::empty();

/// Only the socket's own mode counts here, so whoever shares a connection can make its writes wait.
#[cfg(feature = "tokio")]
pub(crate) const ASYNC_SEND_FLAGS: SendFlags = SendFlags::empty();

pub(crate) const RECV_FLAGS: RecvFlags = RecvFlags::empty();

/// One write that does not wait, to a socket in blocking mode. A write with `MSG_DONTWAIT` waits for room
/// here all the same; only the socket's own mode counts.
pub(crate) fn send_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<usize> {
    rustix::io::ioctl_fionbio(socket, true)?;
    let sent = rustix::net::send(socket, bytes, SEND_FLAGS);
    rustix::io::ioctl_fionbio(socket, false)?;
    sent
}

pub(crate) fn stream_socket() -> io::Result<OwnedFd> {
    prepared(rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?)
}

pub(crate) fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (near, far) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)?;
    Ok((prepared(near)?, prepared(far)?))
}

#[cfg(feature = "tokio")]
pub(crate) fn accept(listener: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::accept(listener)?;
    prepare(&socket)?;
    Ok(socket)
}

/// The address that a name stands for: a path, as there are no others.
pub(crate) fn address_of(name: &OsStr) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(name)
}

/// Whether `listen` was called on a stream socket, as far as can be told: macOS declares `SO_ACCEPTCONN`
/// without implementing it, so one that is connected with nobody is taken to listen.
pub(crate) fn is_listening(socket: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    match rustix::net::getpeername(socket) {
        Ok(_) => Ok(false),
        Err(Errno::NOTCONN) => Ok(true),
        Err(errno) => Err(errno),
    }
}

pub(crate) fn secure_received(descriptor: &OwnedFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC)?)
}

pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
    let (mut uid, mut gid): (libc::uid_t, libc::gid_t) = (0, 0);
    // SAFETY: both pointers are to live values of the right types.
    if unsafe { libc::getpeereid(socket.as_raw_fd(), &raw mut uid, &raw mut gid) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(PeerCredentials { user: UserId::from_uid(uid), gid: Some(gid), pid: peer_pid(socket) })
}

/// The process that used the peer's end last, which is the one that connected until another one, to which
/// the end was passed, reads or writes; `None` once the end is closed.
///
/// Not `LOCAL_PEEREPID`: that names whom the holder acts for, where a daemon of Apple's with an entitlement
/// for it does so. What is watched, limited and compared is the process that holds the connection.
pub(crate) fn peer_pid(socket: BorrowedFd<'_>) -> Option<NonZeroU32> {
    let mut pid: libc::pid_t = 0;
    let mut length = size_of::<libc::pid_t>() as libc::socklen_t;
    // SAFETY: `pid` has room for `length` bytes, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_LOCAL,
            libc::LOCAL_PEERPID,
            (&raw mut pid).cast(),
            &raw mut length,
        )
    };
    if result == 0 { u32::try_from(pid).ok().and_then(NonZeroU32::new) } else { None }
}

fn prepared(socket: OwnedFd) -> io::Result<OwnedFd> {
    prepare(&socket)?;
    Ok(socket)
}

fn prepare(socket: &OwnedFd) -> rustix::io::Result<()> {
    rustix::io::fcntl_setfd(socket, FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(socket, true)?;
    rustix::net::sockopt::set_socket_nosigpipe(socket, true)
}
