//! What Linux has for processes: pidfds, `PR_SET_PDEATHSIG`, eventfds (pidfd_open(2),
//! PR_SET_PDEATHSIG(2const), eventfd(2)).
//!
//! Linux 5.4 is enough. Invariant: nothing here is polled; the kernel tells.

mod bond;
mod handle;
mod wake;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

pub(crate) use self::bond::Bond;
pub(crate) use self::handle::Handle;
pub(crate) use self::wake::Wake;
pub use super::super::unix::process::{ChildProcess, ProcessWatch, Spawner};
use crate::process::ExecFailure;

/// A pipe, reading end first, both close-on-exec.
pub(crate) fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC)
}

/// An empty file without a name, close-on-exec (memfd_create(2)).
pub(crate) fn anonymous_file() -> io::Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(rustix::fs::memfd_create(c"broker-inheritance", flags)?.into())
}

/// What only this system refuses to execute a program for.
pub(crate) fn own_exec_failure(_program: &Path, _errno: Errno) -> Option<ExecFailure> {
    None
}
