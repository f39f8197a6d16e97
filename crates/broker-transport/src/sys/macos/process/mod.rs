//! What macOS has for processes: kqueues that tell of an end, and a supervisor for each child that is to
//! end with this process (kqueue(2), behaviour.md, section 4).
//!
//! Invariant: nothing here is polled; the kernel tells.

mod bond;
mod handle;
mod rules;
mod supervisor;
mod wake;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::io::{Errno, FdFlags, fcntl_setfd};

pub(crate) use self::bond::Bond;
pub(crate) use self::handle::Handle;
use self::rules::{ExecRefusal, exec_refusal};
pub(crate) use self::wake::Wake;
pub use super::super::unix::process::{ChildProcess, ProcessWatch, Spawner};
use crate::process::ExecFailure;

/// A pipe, reading end first, both close-on-exec.
///
/// macOS cannot make one in one call. A program that another thread starts in between keeps an end, and a
/// start here then waits for that program; the spawner's own children close what is not theirs.
pub(crate) fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (reading, writing) = rustix::pipe::pipe()?;
    fcntl_setfd(&reading, FdFlags::CLOEXEC)?;
    fcntl_setfd(&writing, FdFlags::CLOEXEC)?;
    Ok((reading, writing))
}

/// An empty file without a name, close-on-exec. It has one for a moment, that nobody can guess.
pub(crate) fn anonymous_file() -> io::Result<File> {
    let name = format!("broker-inheritance-{:016x}", getrandom::u64().map_err(io::Error::other)?);
    let path = std::env::temp_dir().join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// What only this system refuses to execute a program for.
pub(crate) fn own_exec_failure(program: &Path, errno: Errno) -> Option<ExecFailure> {
    match exec_refusal(errno.raw_os_error())? {
        ExecRefusal::Forbidden if super::quarantine::is_quarantined(program) => {
            Some(ExecFailure::Quarantined)
        }
        ExecRefusal::Forbidden => None,
        ExecRefusal::Format => Some(ExecFailure::WrongFormat),
    }
}
