//! Rights that a broker's threads give up, so that whoever takes one over has little to gain.
//!
//! They are given up by the calling thread, and by every thread and process that it starts from then on.
//! Backends must keep them (one of them may call sudo or open a network socket), so this is for a thread that
//! starts no process: call it once the [`Spawner`](crate::process::Spawner) runs, which starts them all, and
//! before there is any other thread. What was given up cannot be had back. Invariant: what [`enter`](Sandbox::enter)
//! has returned `Ok` for is in force.
//!
//! It is no wall around the spawner's thread: all threads share one memory, and whoever can write to it at will
//! can have that thread start a process. What is closed is the direct way.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::sys::sandbox as sys;
use crate::unsupported::Unsupported;

/// Sees to it that nothing this thread executes gains rights from its file: no set-user-ID, no file capabilities
/// (`PR_SET_NO_NEW_PRIVS`). A system without such a promise is left as it is.
///
/// # Errors
/// The system refuses.
pub fn forbid_new_privileges() -> io::Result<()> {
    sys::forbid_new_privileges()
}

/// What a thread may still do.
///
/// It may read every file that its user may. It may change files only below the given directories, and executes
/// no program, starts no process, opens no socket but Unix ones, traces no process, and touches neither mounts,
/// namespaces, keys, modules, clocks nor users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Directories below which files may be made, written, renamed and removed. They exist.
    pub writable: Vec<PathBuf>,
}

impl Sandbox {
    /// Gives up everything else, for the calling thread.
    ///
    /// # Errors
    /// [`SandboxError`]. Some of it may be in force then: a process that asked for all of it ends.
    pub fn enter(&self) -> Result<InForce, SandboxError> {
        sys::enter(self)
    }
}

/// What the kernel makes of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InForce {
    /// All of it.
    Whole,
    /// What this kernel knows of: an older one lets files be truncated, or knows no rule about TCP, which no
    /// socket is left for anyway.
    ByOlderRules,
}

/// Why a thread has no sandbox.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// This kernel has no such means, or it is turned off.
    #[error("this kernel does not offer {means}")]
    NotOffered {
        /// What is missing.
        means: &'static str,
    },
    /// One of the directories cannot be opened.
    #[error("cannot open {}: {cause}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        cause: String,
    },
    /// The kernel refuses.
    #[error("cannot {operation}: {cause}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        cause: String,
    },
    /// This platform has no implementation.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}
