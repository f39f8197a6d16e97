//! Who is at the other end of a pipe.
//!
//! The system names the process that opened the other end, and that process's token names its user. But an end can
//! be passed on, and the number of a process that has ended goes to another. A client's end can be opened by this
//! user alone, as the pipe's access list says. A server's cannot be trusted so far: whoever takes a name first may
//! let its process end, and wait until the number is a victim's. What cannot be forged is the owner of the pipe.
//! Invariant: a server's user is also the one that owns the pipe.

use std::io;
use std::num::NonZeroU32;
use std::os::windows::io::{AsHandle, BorrowedHandle, OwnedHandle};

use windows_sys::Win32::System::Threading::PROCESS_QUERY_LIMITED_INFORMATION;

use super::identity::{self, LOCAL_SYSTEM};
use super::pipe::{self, End};
use super::security::owner;
use crate::peer::{PeerCredentials, UserId};

pub(super) fn credentials(pipe: BorrowedHandle<'_>, end: End) -> io::Result<PeerCredentials> {
    let (pid, process) = process(pipe, end, PROCESS_QUERY_LIMITED_INFORMATION)?;
    let sid = identity::token_user_sid(process.as_handle())?;
    if end == End::Client {
        check_owner(&owner(pipe)?, &sid)?;
    }
    Ok(PeerCredentials { user: UserId::from_key(identity::user_key(&sid)), gid: None, pid: Some(pid) })
}

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

/// What an administrator makes belongs to all of them, or to the system.
const SYSTEMS: [&str; 2] = [LOCAL_SYSTEM, "S-1-5-32-544"];

fn check_owner(owner: &str, user: &str) -> io::Result<()> {
    if owner == user || SYSTEMS.contains(&owner) {
        return Ok(());
    }
    let what = format!("the pipe belongs to {owner}, but its server says that it runs as {user}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_whose_the_pipe_is() {
        assert!(check_owner("S-1-5-21-7", "S-1-5-21-7").is_ok());
        assert!(check_owner("S-1-5-32-544", "S-1-5-21-7").is_ok());
        assert!(check_owner("S-1-5-18", "S-1-5-21-7").is_ok());
        let error = check_owner("S-1-5-21-8", "S-1-5-21-7").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
