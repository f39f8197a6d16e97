//! Who is at the other end of a pipe.
//!
//! The system names the process that opened the other end. But an end can be passed on, and the number of a process
//! that has ended goes to another. A client's end can be opened by this user alone, as the pipe's access list says, so
//! its process's token names the user. A server's cannot be trusted so far: whoever takes a name first may let its
//! process end, and wait until the number is a victim's. What cannot be forged is the owner of the pipe, which is also
//! known when its server has said all it has to say and is gone.
//! Invariant: a server's user is the one that owns the pipe.

use std::io;
use std::num::NonZeroU32;
use std::os::windows::io::{AsHandle, BorrowedHandle, OwnedHandle};

use windows_sys::Win32::System::Threading::PROCESS_QUERY_LIMITED_INFORMATION;

use super::identity;
use super::pipe::{self, End};
use super::security::owner;
use crate::peer::{PeerCredentials, UserId};

pub(super) fn credentials(pipe: BorrowedHandle<'_>, end: End) -> io::Result<PeerCredentials> {
    let owner = match end {
        End::Server => None,
        // What an administrator makes may belong to all of them; then the token tells who it was.
        End::Client => Some(owner(pipe)?).filter(|owner| !SHARED_OWNERS.contains(&owner.as_str())),
    };
    let (pid, sid) = match owner {
        Some(owner) => (pid(pipe, end)?, owner),
        None => {
            let (pid, process) = process(pipe, end, PROCESS_QUERY_LIMITED_INFORMATION)?;
            (pid, identity::token_user_sid(process.as_handle())?)
        }
    };
    Ok(PeerCredentials { user: UserId::from_key(identity::user_key(&sid)), gid: None, pid: Some(pid) })
}

/// Owners that are no single user: the administrators.
const SHARED_OWNERS: [&str; 1] = ["S-1-5-32-544"];

/// The peer's process, opened with these access rights.
pub(super) fn process(
    pipe: BorrowedHandle<'_>,
    end: End,
    access: u32,
) -> io::Result<(NonZeroU32, OwnedHandle)> {
    let pid = pid(pipe, end)?;
    let process = identity::open_process(pid.get(), access | PROCESS_QUERY_LIMITED_INFORMATION);
    // Whether it could be opened or not: one that has gone is no stranger.
    if pipe::is_closing(pipe)? {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "the peer has gone before it was known"));
    }
    Ok((pid, process?))
}

/// The number of the peer's process.
pub(super) fn pid(pipe: BorrowedHandle<'_>, end: End) -> io::Result<NonZeroU32> {
    let other = match end {
        End::Server => End::Client,
        End::Client => End::Server,
    };
    let unknown = || io::Error::new(io::ErrorKind::NotFound, "the system does not name the peer's process");
    pipe::process_of(pipe, other)?.ok_or_else(unknown)
}
