//! One broker per endpoint: a lock file, held for life, decides (behaviour.md, section 6).
//!
//! The lock is the kernel's (`flock`, or the sharing mode of an open file on Windows), so it ends with its
//! holder however that ends; the content is only for people and error messages. Invariant: at most one
//! [`InstanceLock`] per path exists on the machine, because the path is sure to name the locked file.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::files::{self, FileKind};
use crate::identity;
pub use crate::sys::lock::InstanceLock;

/// Longest entry that a look reads: two numbers and an endpoint fit with room to spare.
const MAX_ENTRY: u64 = 1024;

/// Why the lock was not acquired.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{} is held by {}", path.display(), HolderText(*pid))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The holder's process id, where its entry could be read.
        pid: Option<u32>,
    },
    /// Not a file that this crate made.
    #[error("expected a regular file at {}, found {found}; remove it", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What lies there.
        found: &'static str,
    },
    /// The system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The lock file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

struct HolderText(Option<u32>);

impl std::fmt::Display for HolderText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("a process that has not said which"),
        }
    }
}

/// What a holder writes into its lock file: three lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockEntry {
    /// The holder's process id.
    pub pid: u32,
    /// When it [started](crate::identity::process_start_time); 0 where that is unknown.
    pub start_time: u64,
    /// The endpoint it serves.
    pub endpoint: String,
}

impl LockEntry {
    /// The entry of this process.
    pub(crate) fn of_this_process(endpoint: &str) -> Self {
        let pid = std::process::id();
        let start_time = identity::process_start_time(pid).unwrap_or(0);
        Self { pid, start_time, endpoint: endpoint.to_owned() }
    }

    pub(crate) fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.pid, self.start_time, self.endpoint)
    }

    /// Reads an entry; `None` when it is not whole.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split_terminator('\n');
        let (pid, start_time, endpoint) = (lines.next()?, lines.next()?, lines.next()?);
        let entry =
            Self { pid: pid.parse().ok()?, start_time: start_time.parse().ok()?, endpoint: endpoint.into() };
        (text.ends_with('\n') && lines.next().is_none()).then_some(entry)
    }
}

impl LockEntry {
    /// Whether the process that wrote it still runs.
    pub fn is_alive(&self) -> bool {
        identity::process_start_time(self.pid).is_ok_and(|start_time| start_time == self.start_time)
    }
}

/// What a look at a lock finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockStanding {
    /// There is no lock file.
    Absent,
    /// There is one, and nobody holds it.
    Left {
        /// Who wrote it, where that can be read.
        entry: Option<LockEntry>,
    },
    /// Somebody holds it.
    Held {
        /// Who says to, where that can be read.
        entry: Option<LockEntry>,
    },
}

/// Looks at a lock without touching it: nobody who acquires it meanwhile is in the least disturbed.
///
/// On Linux the kernel's list of locks says whether it is held; elsewhere, whether the process that wrote it runs.
///
/// # Errors
/// [`LockError::NotAFile`] for what [`InstanceLock::acquire`] would refuse; [`LockError::Io`].
pub fn standing(path: &Path) -> Result<LockStanding, LockError> {
    let not_a_file = |found| LockError::NotAFile { path: path.to_path_buf(), found };
    let failure = |source| LockError::Io { operation: "look at", path: path.to_path_buf(), source };
    let facts = match files::facts(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LockStanding::Absent),
        Err(source) => return Err(failure(source)),
    };
    match facts.kind {
        FileKind::Regular if facts.names > 1 => return Err(not_a_file("a file that has another name, too")),
        FileKind::Regular if facts.owner != identity::current_user_key() => {
            return Err(not_a_file("a file of another user"));
        }
        FileKind::Regular => {}
        FileKind::Symlink => return Err(not_a_file("a symbolic link")),
        FileKind::Directory => return Err(not_a_file("a directory")),
        FileKind::Socket | FileKind::Other => return Err(not_a_file("a socket or FIFO")),
    }
    let (file, facts) = match files::open_no_follow(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LockStanding::Absent),
        Err(source) => return Err(failure(source)),
    };
    let mut text = String::new();
    let is_text = file.take(MAX_ENTRY).read_to_string(&mut text).is_ok();
    let entry = LockEntry::parse(&text).filter(|_| is_text);
    let is_held = crate::sys::held_locks::is_held(&facts, entry.as_ref()).map_err(failure)?;
    Ok(if is_held { LockStanding::Held { entry } } else { LockStanding::Left { entry } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_round_trips_and_a_part_of_it_is_none() {
        let entry = LockEntry { pid: 7, start_time: 9, endpoint: "/run/x.sock".into() };
        let text = entry.to_text();
        assert_eq!(text, "7\n9\n/run/x.sock\n");
        assert_eq!(LockEntry::parse(&text), Some(entry));
        for end in 0..text.len() {
            assert_eq!(LockEntry::parse(&text[..end]), None, "{end}");
        }
        assert_eq!(LockEntry::parse("7\n9\n/run/x.sock\nmore\n"), None);
        assert_eq!(LockEntry::parse("x\n9\n/run/x.sock\n"), None);
    }
}
