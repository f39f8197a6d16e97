//! What identifies this machine, this boot, a process and an executable.
//!
//! Facts only; comparing them is the caller's. A pid alone identifies nothing, as it is reused: pair
//! it with [`process_start_time`] and [`boot_id`]. Invariant: no function guesses; what cannot be
//! read is an error that names the file or what else holds it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::sys::identity as sys;
use crate::unsupported::Unsupported;

/// Bytes read at a time while hashing.
const HASH_CHUNK: usize = 64 * 1024;

/// Why a fact about the machine or a process is not known.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file that holds it cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not hold it.
    #[error("expected {expected} in {}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// This platform has no implementation.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

impl IdentityError {
    /// Whether there is no such process or file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. }
            if source.kind() == io::ErrorKind::NotFound || source.raw_os_error() == Some(sys::ESRCH))
    }
}

/// The id of this boot: another one after every restart of the machine.
///
/// # Errors
/// [`IdentityError`].
pub fn boot_id() -> Result<String, IdentityError> {
    sys::boot_id()
}

/// The id of this machine; `None` where it has none.
pub fn machine_id() -> Option<String> {
    sys::machine_id()
}

/// The text that this user's endpoints are named after (protocol.md, "Names and places").
///
/// # Errors
/// [`IdentityError`].
pub fn user_identity_text() -> Result<String, IdentityError> {
    sys::user_identity_text()
}

/// The effective user id; 0 on Windows, which has none.
pub fn effective_uid() -> u32 {
    sys::effective_uid()
}

/// The number of the user this process runs as: the effective user id, or on Windows one that stands for the
/// SID. The [owner](crate::files::FileFacts::owner) of a file is such a number, too.
pub fn current_user_key() -> u64 {
    sys::current_user_key()
}

/// Whether this process runs with the system's highest rights (root, `LocalSystem`).
pub fn is_privileged() -> bool {
    sys::is_privileged()
}

/// The machine's host name.
///
/// # Errors
/// [`IdentityError`].
pub fn hostname() -> Result<String, IdentityError> {
    sys::hostname()
}

/// When a process started, to tell it from another one that had the same pid.
///
/// On Linux in clock ticks since boot (`/proc/PID/stat` field 22, proc_pid_stat(5)), on macOS in microseconds since
/// 1970 (`PROC_PIDTBSDINFO`), on Windows in 100 ns since 1601 (`GetProcessTimes`).
///
/// # Errors
/// [`IdentityError`]; [`IdentityError::is_not_found`] when there is no such process.
pub fn process_start_time(pid: u32) -> Result<u64, IdentityError> {
    sys::process_start_time(pid)
}

/// The path of a process's executable. On Linux one that was deleted since ends in ` (deleted)`.
///
/// # Errors
/// [`IdentityError`].
pub fn process_executable(pid: u32) -> Result<PathBuf, IdentityError> {
    sys::process_executable(pid)
}

/// Whether a process is stopped: by a signal such as `SIGSTOP`, or by a debugger.
///
/// # Errors
/// [`IdentityError`]; [`IdentityError::Unsupported`] on Windows.
pub fn process_is_stopped(pid: u32) -> Result<bool, IdentityError> {
    sys::process_is_stopped(pid)
}

/// The control group that the system's service manager has put a process into, as `/user.slice/…/x.service`.
///
/// # Errors
/// [`IdentityError`]; [`IdentityError::Unsupported`] but on Linux.
pub fn control_group(pid: u32) -> Result<String, IdentityError> {
    sys::control_group(pid)
}

/// BLAKE3 over the content of an executable.
///
/// # Errors
/// [`IdentityError::Unreadable`].
pub fn hash_executable(path: &Path) -> Result<[u8; 32], IdentityError> {
    let unreadable = |source| IdentityError::Unreadable { path: path.to_path_buf(), source };
    File::open(path).and_then(hash_file).map_err(unreadable)
}

/// BLAKE3 over what is left to read of a file.
///
/// # Errors
/// It cannot be read.
pub fn hash_file(mut file: File) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; HASH_CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(*hasher.finalize().as_bytes()),
            Ok(length) => {
                hasher.update(&chunk[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// BLAKE3 over the very file that a process executes, whatever lies at its path by now.
///
/// On Windows it is the file at its path: one that is executed can be renamed there, but not changed.
///
/// # Errors
/// [`IdentityError`].
pub fn hash_process_executable(pid: u32) -> Result<[u8; 32], IdentityError> {
    hash_executable(&sys::process_executable_file(pid)?)
}

/// Opens the very file that a process executes.
#[cfg(feature = "tokio")]
pub(crate) fn open_process_executable(pid: u32) -> Result<File, IdentityError> {
    let path = sys::process_executable_file(pid)?;
    File::open(&path).map_err(|source| IdentityError::Unreadable { path, source })
}

/// Why the file that a process executes is not known.
#[cfg(feature = "tokio")]
pub(crate) fn unreadable_process(pid: u32, source: io::Error) -> IdentityError {
    IdentityError::Unreadable { path: PathBuf::from(format!("process {pid}")), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_and_the_own_process_are_known() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert!(!boot_id().unwrap().is_empty());
        assert!(!hostname().unwrap().is_empty());
        let own = std::process::id();
        assert!(process_start_time(own).unwrap() > 0);
        assert_eq!(process_executable(own).unwrap(), std::env::current_exe().unwrap());
        assert_eq!(
            hash_process_executable(own).unwrap(),
            hash_executable(&std::env::current_exe().unwrap()).unwrap()
        );
    }

    #[test]
    fn a_process_that_is_not_there_is_not_found() {
        // Above the kernel's largest possible pid (PID_MAX_LIMIT is 2^22).
        assert!(process_start_time(u32::MAX / 2).unwrap_err().is_not_found());
        assert!(process_executable(u32::MAX / 2).unwrap_err().is_not_found());
    }

    #[test]
    fn a_hash_covers_the_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exe");
        let mut content = vec![7; HASH_CHUNK + 1];
        std::fs::write(&path, &content).unwrap();
        assert_eq!(hash_executable(&path).unwrap(), *blake3::hash(&content).as_bytes());
        content[HASH_CHUNK] = 8;
        assert_ne!(hash_executable(&path).unwrap(), *blake3::hash(&content).as_bytes());
        let missing = hash_executable(&dir.path().join("absent")).unwrap_err();
        assert!(missing.is_not_found() && missing.to_string().contains("absent"), "{missing}");
    }
}
