//! Who is connected to a socket, by the descriptors of this user's processes (libproc.h).
//!
//! The kernel has no list of Unix sockets for everybody, but tells a user about the descriptors of their own
//! processes, and backends are just these. Invariant: there is no answer for a path on which none of them
//! listens: whoever does then could have connections that are not seen. A connection that waits to be
//! accepted is nobody's descriptor yet, and does not count: who does not accept it does not serve it.

use std::io;
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;

use libc::{c_int, pid_t, proc_fdinfo};

use super::identity::effective_uid;
use super::raw::{PROC_PIDFDSOCKETINFO, PROC_UID_ONLY};
use super::socket_info::{Role, SOCKET_INFO_LEN, parse};

/// Room for what comes up between asking for a list's length and asking for the list.
const SLACK: usize = 32;

/// Not known here, so it is taken to be.
pub(crate) fn is_bound(_endpoint: &Path) -> io::Result<bool> {
    Ok(true)
}

pub(crate) fn has_connections(endpoint: &Path) -> io::Result<bool> {
    // Who binds a path may have followed its links first.
    let resolved = std::fs::canonicalize(endpoint)?;
    let mut is_known = false;
    let mut info = [0; SOCKET_INFO_LEN];
    for pid in processes()? {
        for descriptor in sockets(pid) {
            if !look(pid, descriptor, &mut info)? {
                continue;
            }
            let Some((role, path)) = parse(&info) else { continue };
            if path == endpoint.as_os_str().as_bytes() || path == resolved.as_os_str().as_bytes() {
                if role == Role::Accepted {
                    return Ok(true);
                }
                is_known = true;
            }
        }
    }
    if is_known {
        Ok(false)
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "no process of this user listens by this path"))
    }
}

fn processes() -> io::Result<Vec<pid_t>> {
    let list = |buffer: *mut pid_t, bytes: c_int| {
        // SAFETY: `buffer` has room for `bytes`, or is null and there are none.
        unsafe { libc::proc_listpids(PROC_UID_ONLY, effective_uid(), buffer.cast(), bytes) }
    };
    // SAFETY: that is what proc_listpids does.
    let pids = unsafe { whole_list(list) };
    if pids.is_empty() { Err(io::Error::last_os_error()) } else { Ok(pids) }
}

/// A process's sockets; none of one that is gone, or that this process may not look into.
fn sockets(pid: pid_t) -> impl Iterator<Item = c_int> {
    let list = |buffer: *mut proc_fdinfo, bytes: c_int| {
        // SAFETY: `buffer` has room for `bytes`, or is null and there are none.
        unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDLISTFDS, 0, buffer.cast(), bytes) }
    };
    let is_socket = |found: &proc_fdinfo| c_int::try_from(found.proc_fdtype) == Ok(libc::PROX_FDTYPE_SOCKET);
    // SAFETY: that is what proc_pidinfo does for this flavor.
    unsafe { whole_list(list) }.into_iter().filter(is_socket).map(|found| found.proc_fd)
}

/// What `list` writes.
///
/// # Safety
/// `list` writes whole values and returns their length in bytes; given null, that of all there are.
unsafe fn whole_list<T: Copy>(list: impl Fn(*mut T, c_int) -> c_int) -> Vec<T> {
    let count = |bytes: c_int| usize::try_from(bytes).unwrap_or(0) / size_of::<T>();
    let mut room = count(list(null_mut(), 0));
    if room == 0 {
        return Vec::new();
    }
    loop {
        room += SLACK;
        let mut found: Vec<T> = Vec::with_capacity(room);
        let Ok(bytes) = c_int::try_from(room * size_of::<T>()) else { return Vec::new() };
        let length = count(list(found.as_mut_ptr(), bytes));
        // A list that fills all of its room may go on.
        if length < room {
            // SAFETY: so many were written, as the caller promises, and they fit.
            unsafe { found.set_len(length) };
            return found;
        }
        room *= 2;
    }
}

/// Fills in what the kernel says about a socket; whether it still is one.
fn look(pid: pid_t, descriptor: c_int, info: &mut [u8; SOCKET_INFO_LEN]) -> io::Result<bool> {
    // SAFETY: `info` has room for its length, and the kernel writes whole structures only.
    let written = unsafe {
        let room = SOCKET_INFO_LEN as c_int;
        libc::proc_pidfdinfo(pid, descriptor, PROC_PIDFDSOCKETINFO, info.as_mut_ptr().cast(), room)
    };
    match usize::try_from(written) {
        Ok(SOCKET_INFO_LEN) => Ok(true),
        // Too little room is a layout that is not the one known here, and so is another length.
        Ok(0) | Err(_) if io::Error::last_os_error().raw_os_error() != Some(libc::ENOMEM) => Ok(false),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel describes sockets in another way")),
    }
}
