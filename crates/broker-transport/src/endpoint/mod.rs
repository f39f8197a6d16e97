//! Names and places of endpoints and directories (protocol.md, "Names and places").
//!
//! The rules are pure functions over explicit inputs, for all three platforms (`names`, `places`,
//! `dirs`); this file adds the ones that read the real environment. Nothing is created or opened
//! here: [`private_dir`](crate::private_dir) and [`listener`](crate::listener) do that.
//!
//! Invariant: broker, client and backend of one user derive the same path from the same environment.

mod dirs;
mod names;
mod places;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use broker_protocol::BrokerInstance;
use thiserror::Error;

pub use self::dirs::{
    SERVICE_DEF_DIR_VARIABLE, config_file_in, manifest_dir_in, service_definition_dir_in, state_dir_in,
};
pub use self::names::{
    UserHash, backend_leaf, identity_text_linux, identity_text_macos, instance_of_leaf, is_backend_leaf, leaf,
};
pub use self::places::{
    MAX_PIPE_NAME_WINDOWS, MAX_SOCKET_PATH_LINUX, MAX_SOCKET_PATH_MACOS, PIPE_PREFIX, Platform,
    RuntimePlaces, check_length, directory_of, file_of, pipe_leaf, pipe_name, runtime_dir, socket_path,
};
use crate::identity::{self, IdentityError};

/// Why an endpoint or a directory cannot be named.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// A variable that the place depends on is not set.
    #[error("expected an absolute path in ${variable}, but it is not set")]
    Unset {
        /// The variable.
        variable: &'static str,
    },
    /// A variable holds a relative path.
    #[error("expected an absolute path in ${variable}, got {value:?}")]
    NotAbsolute {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        value: OsString,
    },
    /// The path of a socket is that of the root directory.
    #[error("expected an endpoint in a directory, got {}", path.display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The path does not fit a socket address or pipe name.
    #[error("an endpoint has at most {limit} bytes, {} has {actual}", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        actual: usize,
        /// The longest that fits, in bytes.
        limit: usize,
    },
    /// The path cannot be written into a message.
    #[error("expected an endpoint in UTF-8, got {path:?}")]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// Who the user is could not be found out.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The system gave no random bytes.
    #[error("no random bytes for an endpoint's name: {0}")]
    Randomness(getrandom::Error),
}

fn real_env(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn real_places() -> RuntimePlaces {
    RuntimePlaces {
        uid: identity::effective_uid(),
        xdg_runtime_dir: real_env("XDG_RUNTIME_DIR"),
        tmpdir: real_env("TMPDIR"),
        local_app_data: real_env("LOCALAPPDATA"),
    }
}

/// The hash of the user this process runs as.
///
/// # Errors
/// [`EndpointError::Identity`].
pub fn current_user_hash() -> Result<UserHash, EndpointError> {
    Ok(UserHash::from_identity(&identity::user_identity_text()?))
}

/// The endpoint of a broker of this user.
///
/// # Errors
/// [`EndpointError`].
pub fn broker_endpoint(instance: &BrokerInstance) -> Result<PathBuf, EndpointError> {
    socket_path(Platform::CURRENT, &leaf(&current_user_hash()?, instance), &real_places())
}

/// A fresh endpoint for a backend: nobody has guessed it or ever used it.
///
/// # Errors
/// [`EndpointError`].
pub fn new_backend_endpoint() -> Result<PathBuf, EndpointError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(EndpointError::Randomness)?;
    socket_path(Platform::CURRENT, &backend_leaf(&current_user_hash()?, random), &real_places())
}

/// An endpoint as every process of this user understands it, in whatever directory it is. On Windows the bare
/// leaf, as the protocol wants it written.
///
/// # Errors
/// The current directory is not known; an empty path; on Windows the path of a file.
pub fn absolute(endpoint: &Path) -> std::io::Result<PathBuf> {
    match Platform::CURRENT {
        Platform::Linux | Platform::MacOs => std::path::absolute(endpoint),
        Platform::Windows => match pipe_leaf(&endpoint.to_string_lossy()) {
            path if path.contains('\\') => {
                let what = "expected the name of a pipe, which is no path: it lies in no directory";
                Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, what))
            }
            leaf => Ok(PathBuf::from(leaf)),
        },
    }
}

/// What the name of an endpoint's lock file ends with.
const LOCK_SUFFIX: &str = ".lock";

/// The lock file of an endpoint, on Unix beside its socket (behaviour.md, section 6).
///
/// # Errors
/// As [`file_of`].
pub fn lock_path(endpoint: &Path) -> Result<PathBuf, EndpointError> {
    path_beside(endpoint, LOCK_SUFFIX)
}

/// Where a file that belongs to an endpoint lies, see [`file_of`].
///
/// # Errors
/// As there.
pub fn path_beside(endpoint: &Path, suffix: &str) -> Result<PathBuf, EndpointError> {
    file_of(Platform::CURRENT, endpoint, suffix, &real_places())
}

/// The directory that these files lie in, see [`directory_of`].
///
/// # Errors
/// As there.
pub fn dir_beside(endpoint: &Path) -> Result<PathBuf, EndpointError> {
    directory_of(Platform::CURRENT, endpoint, &real_places())
}

/// The directory that holds this user's sockets, and what belongs to them.
///
/// # Errors
/// As [`runtime_dir`].
pub fn current_runtime_dir() -> Result<PathBuf, EndpointError> {
    runtime_dir(Platform::CURRENT, &real_places())
}

/// The directory of this user's service definitions.
///
/// # Errors
/// As [`service_definition_dir_in`].
pub fn service_definition_dir() -> Result<PathBuf, EndpointError> {
    service_definition_dir_in(Platform::CURRENT, real_env)
}

/// Where this user's configuration of brokers lies, if there is one.
///
/// # Errors
/// As [`service_definition_dir_in`].
pub fn config_file() -> Result<PathBuf, EndpointError> {
    config_file_in(Platform::CURRENT, real_env)
}

/// The directory of this user's manifests.
///
/// # Errors
/// As [`manifest_dir_in`].
pub fn manifest_dir() -> Result<PathBuf, EndpointError> {
    manifest_dir_in(Platform::CURRENT, real_env)
}

/// The directory of this user's broker state.
///
/// # Errors
/// As [`state_dir_in`].
pub fn state_dir() -> Result<PathBuf, EndpointError> {
    state_dir_in(Platform::CURRENT, real_env)
}

/// Every broker endpoint of this user that exists, live or stale, sorted by instance.
///
/// The text is the instance as [`BrokerInstance`] writes it. macOS paths hold only a hash of the
/// instance, so there only the shared broker is found. What cannot be read is left out.
pub fn find_brokers() -> Vec<(String, PathBuf)> {
    let (Ok(user), Ok(dir)) = (current_user_hash(), current_runtime_dir()) else { return Vec::new() };
    match Platform::CURRENT {
        Platform::Linux => find_brokers_in(&dir, &user, ".sock"),
        // A pipe leaves nothing behind, and a broker its lock file, for as long as it lives.
        Platform::Windows => find_brokers_in(&dir, &user, LOCK_SUFFIX)
            .into_iter()
            .map(|(instance, lock)| {
                (instance, lock.with_extension("").file_name().unwrap_or_default().into())
            })
            .collect(),
        Platform::MacOs => broker_endpoint(&BrokerInstance::Shared)
            .ok()
            .filter(|path| path.exists())
            .map(|path| (BrokerInstance::Shared.to_string(), path))
            .into_iter()
            .collect(),
    }
}

/// Every endpoint of a backend of this user that exists, live or stale.
///
/// Only on Linux: macOS paths do not tell whose they are, and a pipe leaves nothing behind. What cannot be read is
/// left out.
pub fn find_backends() -> Vec<PathBuf> {
    let (Ok(user), Ok(dir)) = (current_user_hash(), current_runtime_dir()) else { return Vec::new() };
    match Platform::CURRENT {
        Platform::Linux => find_backends_in(&dir, &user),
        Platform::MacOs | Platform::Windows => Vec::new(),
    }
}

fn find_backends_in(dir: &Path, user: &UserHash) -> Vec<PathBuf> {
    let is_backend = |path: &PathBuf| {
        let leaf = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".sock"));
        leaf.is_some_and(|leaf| is_backend_leaf(user, leaf))
    };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(is_backend).collect()
}

fn find_brokers_in(dir: &Path, user: &UserHash, suffix: &str) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let instance = instance_of_leaf(user, name.to_str()?.strip_suffix(suffix)?)?;
            Some((instance, dir.join(name)))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(instance, path)| (instance.to_string(), path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_backends_never_share_an_endpoint() {
        let (first, second) = (new_backend_endpoint().unwrap(), new_backend_endpoint().unwrap());
        assert_ne!(first, second);
        assert_eq!(first.parent(), second.parent());
    }

    #[test]
    fn brokers_and_backends_are_found_by_their_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let user = UserHash::from_identity("x");
        let instances: Vec<BrokerInstance> =
            ["inst:a", "shared", "svc:b"].iter().map(|text| text.parse().unwrap()).collect();
        for instance in &instances {
            std::fs::write(dir.path().join(format!("{}.sock", leaf(&user, instance))), "").unwrap();
        }
        let backend = dir.path().join(format!("{}.sock", backend_leaf(&user, [0xA0; 16])));
        std::fs::write(&backend, "").unwrap();
        std::fs::write(dir.path().join(format!("{}.sock.lock", leaf(&user, &instances[0]))), "").unwrap();
        let found: Vec<String> =
            find_brokers_in(dir.path(), &user, ".sock").into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["shared", "svc:b", "inst:a"]);
        assert!(find_brokers_in(&dir.path().join("absent"), &user, ".sock").is_empty());
        assert_eq!(find_backends_in(dir.path(), &user), [backend]);
        assert!(find_backends_in(dir.path(), &UserHash::from_identity("y")).is_empty());
    }
}
