//! Who is at the other end of a pipe.
//!
//! The system names the process that opened the other end, and that process's token names its user. A number
//! may pass on to another process, but not while the first one lives. Invariant: the process that is looked
//! at is the one that opened the other end, because after it was opened that end is still there.

use std::io;
use std::num::NonZeroU32;
use std::os::windows::io::{AsHandle, BorrowedHandle, OwnedHandle};

use windows_sys::Win32::System::Threading::PROCESS_QUERY_LIMITED_INFORMATION;

use super::identity;
use super::pipe::{self, End};
use crate::peer::{PeerCredentials, UserId};

pub(super) fn credentials(pipe: BorrowedHandle<'_>, end: End) -> io::Result<PeerCredentials> {
    let (pid, process) = process(pipe, end, PROCESS_QUERY_LIMITED_INFORMATION)?;
    let sid = identity::token_user_sid(process.as_handle())?;
    Ok(PeerCredentials { user: UserId::from_key(identity::user_key(&sid)), gid: None, pid: Some(pid) })
}

/// The peer's process, opened with these access rights.
pub(super) fn process(
    pipe: BorrowedHandle<'_>,
    end: End,
    access: u32,
) -> io::Result<(NonZeroU32, OwnedHandle)> {
    let pid = pid(pipe, end)?;
    let process = identity::open_process(pid.get(), access | PROCESS_QUERY_LIMITED_INFORMATION)?;
    if pipe::is_closing(pipe)? {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "the peer has gone before it was known"));
    }
    Ok((pid, process))
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
