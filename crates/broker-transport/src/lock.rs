//! One broker per endpoint: a lock file, held for life, decides (behaviour.md, section 6).
//!
//! The lock is the kernel's (`flock`, or the sharing mode of an open file on Windows), so it ends with its
//! holder however that ends; the content is only for people and error messages. Invariant: at most one
//! [`InstanceLock`] per path exists on the machine, because the path is sure to name the locked file.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use crate::sys::lock::InstanceLock;

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
        let start_time = crate::identity::process_start_time(pid).unwrap_or(0);
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
