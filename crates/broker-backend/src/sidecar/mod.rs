//! A file beside an endpoint that tells which process serves it: the bytes of a `DaemonProcess`
//! (protocol.md, "Manifest file").
//!
//! For tools and people who would rather not connect. It proves nothing: whoever has to be sure probes the
//! endpoint (protocol.md, "Conversations" 3). Invariants: who reads it sees a whole file or none; no
//! content makes a reader panic or take more than [`MAX_SIDECAR`] bytes; and nothing of somebody else's
//! is believed or removed.

mod kept;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use broker_protocol::prost::{DecodeError, Message};
use broker_protocol::wire::DaemonProcess;
use broker_transport::endpoint::{EndpointError, path_beside};
use broker_transport::files::{self, FileFacts, FileKind};
use broker_transport::identity::{self, IdentityError};
use broker_transport::probe::{Expectation, Mismatch};
use thiserror::Error;

pub(crate) use self::kept::Kept;

/// Longest content of a sidecar, in bytes.
pub const MAX_SIDECAR: usize = 64 * 1024;

/// What the file's name adds to the endpoint's.
const EXTENSION: &str = ".identity";

/// What an endpoint's sidecar tells.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use broker_backend::{Backend, IdentitySidecar, Standing};
///
/// # let place = tempfile::tempdir()?;
/// let backend = Backend::bind(place.path().join("be.sock"))?;
/// let path = IdentitySidecar::path_for(backend.endpoint())?;
/// assert!(IdentitySidecar::read(&path)?.is_none());
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// // What `Backend::with_identity_sidecar` does while it serves.
/// IdentitySidecar::write(&path, &*backend.identity().known().await?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
///
/// let sidecar = IdentitySidecar::read(&path)?.expect("it was written");
/// assert_eq!(sidecar.process.pid, std::process::id());
/// assert_eq!(sidecar.standing(backend.endpoint())?, Standing::Current);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct IdentitySidecar {
    /// The process that wrote it, in its own words.
    pub process: DaemonProcess,
    /// Whether that is all it wrote.
    pub extent: Extent,
}

/// Whether a sidecar was understood to the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It was.
    Whole,
    /// It has fields that this version does not know. What it does know holds all the same.
    UnknownFields,
}

/// What a sidecar is worth by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The process lives, in this boot, and runs the executable that it said.
    Current,
    /// There is no such process any more.
    Gone,
    /// It is about another endpoint or another boot, or its process id is another program's by now.
    Other(Mismatch),
}

/// Why a sidecar was not written. An old one stays.
#[derive(Debug, Error)]
pub enum SidecarWriteError {
    /// The process has too much to say.
    #[error("a sidecar has at most {MAX_SIDECAR} bytes, {} would have {actual}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        actual: usize,
    },
    /// The system refused.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Why what lies at a sidecar's place tells nothing.
#[derive(Debug, Error)]
pub enum SidecarReadError {
    /// Not a file that this crate made. A link is not followed.
    #[error("expected a regular file at {}, found {found}; remove it", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What lies there.
        found: FileKind,
    },
    /// Others may have written it.
    #[error(
        "expected a file at {} that is user {expected}'s and that nobody else may write to, found one of \
         user {owner}, or one that others may write to; remove it",
        path.display()
    )]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its [owner](files::FileFacts::owner).
        owner: u64,
        /// This process's [user](identity::current_user_key).
        expected: u64,
    },
    /// Too long to be one.
    #[error("a sidecar has at most {MAX_SIDECAR} bytes, {} has {actual} or more", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length, in bytes, as far as it was looked at.
        actual: u64,
    },
    /// Another content.
    #[error("{} holds no DaemonProcess: {source}", path.display())]
    NotAProcess {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// It says too little to identify a process.
    #[error("expected {missing} in {}", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// What is not in it.
        missing: &'static str,
    },
    /// The system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl IdentitySidecar {
    /// Where the sidecar of an endpoint lies: on Unix beside it, under its name with `.identity` behind it.
    ///
    /// # Errors
    /// [`EndpointError`] where the directory of an endpoint's files is not known.
    pub fn path_for(endpoint: impl AsRef<Path>) -> Result<PathBuf, EndpointError> {
        path_beside(endpoint.as_ref(), EXTENSION)
    }

    /// Writes a sidecar, mode 0600, in the place of the old one if there is one. Blocks until it is on the
    /// disk.
    ///
    /// # Errors
    /// [`SidecarWriteError`].
    pub fn write(path: impl AsRef<Path>, process: &DaemonProcess) -> Result<(), SidecarWriteError> {
        let path = path.as_ref();
        let content = process.encode_to_vec();
        if content.len() > MAX_SIDECAR {
            return Err(SidecarWriteError::TooLong { path: path.to_path_buf(), actual: content.len() });
        }
        files::write_atomically(path, &content)
            .map_err(|source| SidecarWriteError::Io { path: path.to_path_buf(), source })
    }

    /// Reads a sidecar; `None` when there is none. A symbolic link is not followed.
    ///
    /// # Errors
    /// [`SidecarReadError`] says what lies there instead.
    pub fn read(path: impl AsRef<Path>) -> Result<Option<Self>, SidecarReadError> {
        let path = path.as_ref();
        let Some((file, facts)) = open(path)? else { return Ok(None) };
        let expected = identity::current_user_key();
        if facts.owner != expected || facts.writable_by_others {
            let owner = facts.owner;
            return Err(SidecarReadError::NotPrivate { path: path.to_path_buf(), owner, expected });
        }
        let content = content(file, path)?;
        let process = DaemonProcess::decode(&content[..])
            .map_err(|source| SidecarReadError::NotAProcess { path: path.to_path_buf(), source })?;
        let incomplete = |missing| SidecarReadError::Incomplete { path: path.to_path_buf(), missing };
        if process.pid == 0 {
            return Err(incomplete("a process id"));
        }
        if process.boot_id.is_empty() {
            return Err(incomplete("a boot id"));
        }
        // What it would be written as: shorter by what was passed over.
        let extent =
            if process.encoded_len() < content.len() { Extent::UnknownFields } else { Extent::Whole };
        Ok(Some(Self { process, extent }))
    }

    /// Compares what it says with the system as it is now: the boot, the endpoint it was found at, and the
    /// executable that a process with its id runs.
    ///
    /// Reads that executable from beginning to end, so not for an event loop. A second process of the same
    /// program that got the first one's id is taken for it; only a probe tells them apart.
    ///
    /// # Errors
    /// [`IdentityError`] when the boot is not known or the process, such as another user's, may not be
    /// looked at.
    pub fn standing(&self, endpoint: impl AsRef<Path>) -> Result<Standing, IdentityError> {
        let mut now = Expectation {
            boot_id: Some(identity::boot_id()?),
            endpoint: Some(endpoint.as_ref().to_string_lossy().into_owned()),
            ..Expectation::default()
        };
        // First, as the process id of another boot or another endpoint's means nothing.
        if let Err(mismatch) = now.check(&self.process) {
            return Ok(Standing::Other(mismatch));
        }
        now.exe_hash = match identity::hash_process_executable(self.process.pid) {
            Ok(hash) => Some(hash),
            Err(error) if error.is_not_found() => return Ok(Standing::Gone),
            Err(error) => return Err(error),
        };
        Ok(now.check(&self.process).map_or_else(Standing::Other, |()| Standing::Current))
    }
}

fn open(path: &Path) -> Result<Option<(File, FileFacts)>, SidecarReadError> {
    let not_a_file = |found| SidecarReadError::NotAFile { path: path.to_path_buf(), found };
    match files::open_no_follow(path) {
        Ok((_, facts)) if facts.kind != FileKind::Regular => Err(not_a_file(facts.kind)),
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A link or a socket cannot be opened, and the system's reason does not say so.
        Err(source) => match files::facts(path) {
            Ok(facts) if facts.kind != FileKind::Regular => Err(not_a_file(facts.kind)),
            Ok(_) | Err(_) => Err(SidecarReadError::Io { path: path.to_path_buf(), source }),
        },
    }
}

/// Reads one byte more than there may be, to know whether there are more.
fn content(file: File, path: &Path) -> Result<Vec<u8>, SidecarReadError> {
    let mut content = Vec::new();
    file.take(MAX_SIDECAR as u64 + 1)
        .read_to_end(&mut content)
        .map_err(|source| SidecarReadError::Io { path: path.to_path_buf(), source })?;
    if content.len() > MAX_SIDECAR {
        let actual = content.len() as u64;
        return Err(SidecarReadError::TooLong { path: path.to_path_buf(), actual });
    }
    Ok(content)
}
