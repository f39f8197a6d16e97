//! The processes of one world, by their environment: whoever was started in it, or by somebody who was, has the
//! path of its home there. Invariant: what has died is in no list but that of the zombies.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::PATIENCE;

/// A process that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// The name of its program, as far as the kernel keeps it.
    pub name: String,
}

/// The processes that live in this home.
pub fn processes_of(home: &Path) -> Vec<Process> {
    let home = home.as_os_str().as_encoded_bytes();
    let lives_there = |process: &Process| {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        environment.windows(home.len()).any(|part| part == home)
    };
    all()
        .filter(|(process, state)| *state != 'Z' && lives_there(process))
        .map(|(process, _)| process)
        .collect()
}

/// The children of a process that are dead and that it has not waited for.
pub fn zombies_of(pid: u32) -> Vec<Process> {
    all()
        .filter(|(process, state)| *state == 'Z' && process.parent == pid)
        .map(|(process, _)| process)
        .collect()
}

/// How many descriptors a process has open; none once it is gone.
pub fn open_descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The sockets in a directory.
pub fn sockets_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|is| is == "sock")).collect()
}

/// Waits until nothing is told any more.
pub fn wait_until(what: &str, mut left: impl FnMut() -> Option<String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(left) = left() {
        assert!(Instant::now() < deadline, "{what}: {left}");
        std::thread::yield_now();
    }
}

/// Every process with its state.
fn all() -> impl Iterator<Item = (Process, char)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        // The name stands in parentheses and may hold any of its own.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        Some((Process { pid, parent, name: name.to_owned() }, state))
    })
}
