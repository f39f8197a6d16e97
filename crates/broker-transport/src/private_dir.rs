//! Directories that are the user's alone (behaviour.md, sections 3 and 6).
//!
//! Sockets, locks and definitions are only as safe as the directory they lie in. Invariant: after
//! [`ensure_private_dir`] the directory is a real one (no link), owned by this user, and writable by
//! nobody else; and below a directory that everybody may write to, such as `/tmp`, every component is, or
//! is root's. The walk goes from descriptor to descriptor, so what was checked is what is used further
//! down. On Windows the access lists say it, and the administrators count as the system, which can do
//! everything anyway.
//!
//! A directory that is too open is refused, never repaired: whoever opened it may have used it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::sys::private_dir as sys;

/// Why a directory cannot be used as a private one.
#[derive(Debug, Error)]
pub enum PrivateDirError {
    /// A relative path could mean anything.
    #[error("expected an absolute path to a directory, got {}", path.display())]
    NotAbsolute {
        /// The path.
        path: PathBuf,
    },
    /// A symbolic link, where only the directory itself will do.
    #[error("{} is a symbolic link, expected a directory; remove it or name its target", path.display())]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// Something else lies there.
    #[error("{} is not a directory; remove it or choose another place", path.display())]
    NotADirectory {
        /// What lies there.
        path: PathBuf,
    },
    /// Somebody else's.
    #[error(
        "{} belongs to user {owner}, expected user {expected}; remove it or choose another place",
        path.display()
    )]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner's user id, or SID.
        owner: String,
        /// This process's effective user id, or SID.
        expected: String,
    },
    /// Others may write to it.
    #[error("{} has mode {mode:04o}, so others may write to it; {}", path.display(), remedy(path, *mode))]
    WritableByOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Everybody may rename what lies in a directory further up.
    #[error(
        "{} has mode {mode:04o}, so anybody may replace what lies below it; choose another place, \
         or have its owner set the sticky bit",
        path.display()
    )]
    UnsafeParent {
        /// The directory further up.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others may write to it, by its access list (Windows).
    #[error(
        "{0} has an access list that lets {who} write to it; remove it, or run \
         `icacls \"{0}\" /inheritance:r /grant:r \"%USERNAME%\":(OI)(CI)F`",
        path.display()
    )]
    OpenToOthers {
        /// The directory.
        path: PathBuf,
        /// Somebody who may.
        who: String,
    },
    /// Others may rename it or what lies in it, by its access list (Windows).
    #[error(
        "{} has an access list that lets {who} replace it or what lies in it; choose another place, or have its \
         owner take that right away",
        path.display()
    )]
    ReplaceableByOthers {
        /// The directory further up.
        path: PathBuf,
        /// Somebody who may.
        who: String,
    },
    /// Locks and sockets do not work across machines.
    #[error("{} lies on the network file system {filesystem}; choose a local place", path.display())]
    Network {
        /// The path.
        path: PathBuf,
        /// The file system's name.
        filesystem: &'static str,
    },
    /// The system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl PrivateDirError {
    /// Whether the disk is at fault, which is full or read-only, and not the directory.
    pub fn is_of_the_disk(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), StorageFull | ReadOnlyFilesystem | QuotaExceeded))
    }
}

/// A directory that is everybody's by design, such as `/tmp`, must not be closed to them.
fn remedy(path: &Path, mode: u32) -> String {
    const STICKY: u32 = 0o1000;
    if mode & STICKY == 0 {
        format!("run `chmod 700 {}`", path.display())
    } else {
        format!("name a directory of your own inside it: `mkdir -m 700 {}`", path.join("private").display())
    }
}

/// Makes sure that `path` is a private directory, creating it and missing parents with mode 0700, or with an
/// access list for this user alone.
///
/// # Errors
/// [`PrivateDirError`] names the path that is not as it should be, and what to do.
///
/// ```
/// # #[cfg(any(target_os = "linux", windows))] {
/// use broker_transport::private_dir::{check_private_dir, ensure_private_dir};
///
/// let place = tempfile::tempdir()?;
/// let dir = place.path().join("running-process/broker");
/// ensure_private_dir(&dir)?;
/// check_private_dir(&dir)?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn ensure_private_dir(path: &Path) -> Result<(), PrivateDirError> {
    sys::walk(path, Missing::Create)
}

/// Checks what [`ensure_private_dir`] ensures, and changes nothing.
///
/// # Errors
/// As [`ensure_private_dir`]; [`PrivateDirError::Io`] of kind `NotFound` when it does not exist.
pub fn check_private_dir(path: &Path) -> Result<(), PrivateDirError> {
    sys::walk(path, Missing::Refuse)
}

/// Refuses a path on a file system where locks and sockets do not reach every process that sees them.
///
/// Refused are NFS, SMB/CIFS, AFS, Coda, NCP, 9P (the Windows drives of WSL among it), Ceph, Lustre,
/// GPFS, GFS2, OCFS2 and PanFS, and on Windows every network drive and share. A FUSE file system does not say
/// whether it is remote and passes. For
/// a path that does not exist, its nearest existing parent counts.
///
/// # Errors
/// [`PrivateDirError::Network`], or [`PrivateDirError::Io`] when it cannot be found out.
pub fn refuse_network_filesystem(path: &Path) -> Result<(), PrivateDirError> {
    let mut candidate = path;
    loop {
        match (sys::network_filesystem(candidate), candidate.parent()) {
            (Ok(None), _) => return Ok(()),
            (Ok(Some(filesystem)), _) => {
                return Err(PrivateDirError::Network { path: path.to_path_buf(), filesystem });
            }
            (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => candidate = parent,
            (Err(source), _) => {
                return Err(PrivateDirError::Io {
                    operation: "find out the file system of",
                    path: candidate.to_path_buf(),
                    source,
                });
            }
        }
    }
}

/// What to do where a component is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Create,
    Refuse,
}
