//! Going on as another program: the process stays what it is to everybody else, with its id, its children and
//! its connections, and executes a new file (execve(2)).
//!
//! What goes along is a list of descriptors and a document that says what they are; what is in the document is
//! decided elsewhere. Invariants: the successor owns each descriptor exactly once; where the new program cannot
//! be executed, everything is as it was; what a parent's death means to children is not touched by it.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::descriptor::OwnedDescriptor;
use crate::process::Spawner;
use crate::sys::succession;

/// Whether a process can go on as another program on this platform.
pub const IS_OFFERED: bool = succession::IS_OFFERED;

/// What a process goes on as.
#[derive(Debug, Default)]
pub struct Succession {
    /// The absolute path of the program.
    pub program: PathBuf,
    /// Its arguments, without the program's name. One more is added, as the last: the number that the successor
    /// has to [take](Inheritance::take).
    pub args: Vec<OsString>,
    /// What goes along, in the order in which the successor gets it.
    pub descriptors: Vec<OwnedDescriptor>,
    /// What the successor has to know.
    pub document: Vec<u8>,
}

/// The new program was not executed; this one goes on.
#[derive(Debug, Error)]
#[error("cannot go on as {}: {source}", succession.program.display())]
pub struct NotSucceeded {
    /// What should have gone along.
    pub succession: Box<Succession>,
    /// Why not.
    pub source: io::Error,
}

/// What a predecessor in this very process has left.
#[derive(Debug)]
pub struct Inheritance {
    /// What went along, in the predecessor's order.
    pub descriptors: Vec<OwnedDescriptor>,
    /// What it had to say.
    pub document: Vec<u8>,
    /// Its children that nobody waits for any more.
    pub(crate) orphans: Vec<u32>,
}

impl Inheritance {
    /// Takes what the predecessor has left under `number`, once.
    ///
    /// # Errors
    /// There is nothing under that number, or it is none of a predecessor's, or it was taken before. On Windows
    /// there is no succession.
    pub fn take(number: i32) -> io::Result<Self> {
        succession::take(number)
    }

    /// Has the spawner of this process reap what the predecessor no longer waited for.
    ///
    /// # Errors
    /// No descriptor is left; they are reaped when this process ends.
    pub fn reap_orphans(&mut self, spawner: &Spawner) -> io::Result<()> {
        succession::reap(std::mem::take(&mut self.orphans), spawner)
    }
}

/// What of a child goes along.
#[derive(Debug)]
pub struct ChildBequest {
    /// Its process id, which stays its own as long as it is not reaped.
    pub pid: u32,
    /// The reading end of its standard error.
    pub stderr: OwnedDescriptor,
    /// The last that it has written there.
    pub said: String,
}
