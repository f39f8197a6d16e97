//! A sandbox by Landlock for files and by seccomp for system calls (landlock(7), seccomp(2)).
//!
//! Both bind the calling thread and what it starts. Invariant: Landlock comes first, as a filter that refuses
//! its calls would be in force already; and neither is taken for granted: a kernel without one is an error.

mod calls;
mod files;

use std::io;

use crate::sandbox::{InForce, Sandbox, SandboxError};

pub(crate) fn forbid_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Cold, like what it calls: it lies where it takes no memory from those that never ask for it.
#[cold]
#[inline(never)]
pub(crate) fn enter(sandbox: &Sandbox) -> Result<InForce, SandboxError> {
    let in_force = files::restrict(&sandbox.writable)?;
    calls::restrict()?;
    Ok(in_force)
}
