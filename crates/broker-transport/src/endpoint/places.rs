//! Where an endpoint lies on each platform, and how long its name may be (protocol.md, "Names and places").
//!
//! Pure: the environment comes in as [`RuntimePlaces`], so every platform's rule is tested on any of
//! them. Nothing is created here. Invariant: a path from [`socket_path`] fits the platform's address.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::EndpointError;
use super::names::{hex, leading_hash};

/// A family of operating systems with rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Platform {
    /// Linux.
    Linux,
    /// macOS.
    MacOs,
    /// Windows.
    Windows,
}

impl Platform {
    /// The one this program was built for.
    pub const CURRENT: Self = crate::sys::PLATFORM;

    /// The longest endpoint, in bytes without a terminating NUL.
    pub const fn max_endpoint_len(self) -> usize {
        match self {
            Self::Linux => MAX_SOCKET_PATH_LINUX,
            Self::MacOs => MAX_SOCKET_PATH_MACOS,
            Self::Windows => MAX_PIPE_NAME_WINDOWS,
        }
    }
}

/// Longest socket path on Linux in bytes: `sun_path` has 108, one of them is the NUL (unix(7)).
pub const MAX_SOCKET_PATH_LINUX: usize = 107;

/// Longest socket path on macOS in bytes: `sun_path` has 104, one of them is the NUL (unix(4)).
pub const MAX_SOCKET_PATH_MACOS: usize = 103;

/// Longest pipe name on Windows in bytes, with its prefix.
pub const MAX_PIPE_NAME_WINDOWS: usize = 260;

/// Longest name of a pipe that the files which belong to it have, too, in bytes: with a suffix it is still
/// that of a file, which has 255 at most.
const MAX_PLAIN_NAME: usize = 200;

/// What Windows puts before a pipe's leaf.
pub const PIPE_PREFIX: &str = r"\\.\pipe\";

/// What the place of an endpoint depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimePlaces {
    /// The effective user id; not used on Windows.
    pub uid: u32,
    /// `$XDG_RUNTIME_DIR`; Linux only. A relative path is ignored, as the XDG specification demands.
    pub xdg_runtime_dir: Option<OsString>,
    /// `$TMPDIR`; macOS only.
    pub tmpdir: Option<OsString>,
    /// `%LOCALAPPDATA%`; Windows only.
    pub local_app_data: Option<OsString>,
}

/// The directory that holds a user's sockets, and what belongs to them. On Windows only that: pipes have a
/// name space of their own, `\\.\pipe\`, and no files.
///
/// # Errors
/// [`EndpointError::Unset`] or [`EndpointError::NotAbsolute`] where macOS has no usable `$TMPDIR`, or Windows
/// no `%LOCALAPPDATA%`.
pub fn runtime_dir(platform: Platform, places: &RuntimePlaces) -> Result<PathBuf, EndpointError> {
    let uid = places.uid;
    match platform {
        Platform::Linux => Ok(match absolute(places.xdg_runtime_dir.as_ref()) {
            Some(runtime) => below(platform, runtime, &["running-process/broker"]),
            None => PathBuf::from(format!("/tmp/running-process-{uid}/broker")),
        }),
        Platform::MacOs => match &places.tmpdir {
            Some(tmpdir) if tmpdir.is_empty() => Err(EndpointError::Unset { variable: "TMPDIR" }),
            Some(tmpdir) if !starts_at_root(tmpdir) => {
                Err(EndpointError::NotAbsolute { variable: "TMPDIR", value: tmpdir.clone() })
            }
            Some(tmpdir) => Ok(below(platform, Path::new(tmpdir), &[&format!(".rp-{uid}")])),
            None => Err(EndpointError::Unset { variable: "TMPDIR" }),
        },
        Platform::Windows => {
            let variable = "LOCALAPPDATA";
            match places.local_app_data.as_ref().filter(|value| !value.is_empty()) {
                Some(base) => Ok(below(platform, Path::new(base), &["running-process", "run"])),
                None => Err(EndpointError::Unset { variable }),
            }
        }
    }
}

/// The directory of the files that belong to an endpoint: on Unix the one that it lies in itself.
///
/// # Errors
/// [`EndpointError::NoDirectory`]; on Windows as [`runtime_dir`].
pub fn directory_of(
    platform: Platform,
    endpoint: &Path,
    places: &RuntimePlaces,
) -> Result<PathBuf, EndpointError> {
    match platform {
        Platform::Linux | Platform::MacOs => match endpoint.parent() {
            Some(directory) => Ok(directory.to_path_buf()),
            None => Err(EndpointError::NoDirectory { path: endpoint.to_path_buf() }),
        },
        Platform::Windows => runtime_dir(platform, places),
    }
}

/// A file that belongs to an endpoint, by its suffix. On Unix it lies beside the socket, under the same name
/// and the suffix.
///
/// # Errors
/// On Windows as [`runtime_dir`].
///
/// ```
/// use broker_transport::endpoint::{Platform, RuntimePlaces, file_of};
///
/// let places = RuntimePlaces::default();
/// let path = file_of(Platform::Linux, "/run/x/leaf.sock".as_ref(), ".lock", &places)?;
/// assert_eq!(path.to_str(), Some("/run/x/leaf.sock.lock"));
/// # Ok::<(), broker_transport::endpoint::EndpointError>(())
/// ```
pub fn file_of(
    platform: Platform,
    endpoint: &Path,
    suffix: &str,
    places: &RuntimePlaces,
) -> Result<PathBuf, EndpointError> {
    match platform {
        Platform::Linux | Platform::MacOs => {
            let mut path = endpoint.as_os_str().to_owned();
            path.push(suffix);
            Ok(PathBuf::from(path))
        }
        Platform::Windows => {
            let name = file_name_of_pipe(&endpoint.to_string_lossy());
            Ok(below(platform, &runtime_dir(platform, places)?, &[&format!("{name}{suffix}")]))
        }
    }
}

/// A pipe's name as that of a file. One that a file cannot have is hashed.
fn file_name_of_pipe(name: &str) -> String {
    // The system does not tell upper from lower case in them.
    let leaf = pipe_leaf(name).to_lowercase();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if leaf.len() <= MAX_PLAIN_NAME && leaf.bytes().all(is_plain) { leaf } else { hex(&leading_hash(&leaf)) }
}

/// Where the endpoint with this leaf lies. On Windows the bare leaf, as the protocol wants it written.
///
/// # Errors
/// As [`runtime_dir`]; [`EndpointError::NotUtf8`] and [`EndpointError::TooLong`] where the path cannot
/// be written into a message or an address.
///
/// ```
/// use broker_transport::endpoint::{Platform, RuntimePlaces, socket_path};
///
/// let places = RuntimePlaces { uid: 1000, ..RuntimePlaces::default() };
/// let path = socket_path(Platform::Linux, "rpb-v1-af1349b9f5f9a1a6-shared", &places)?;
/// assert_eq!(path.to_str(), Some("/tmp/running-process-1000/broker/rpb-v1-af1349b9f5f9a1a6-shared.sock"));
/// # Ok::<(), broker_transport::endpoint::EndpointError>(())
/// ```
pub fn socket_path(platform: Platform, leaf: &str, places: &RuntimePlaces) -> Result<PathBuf, EndpointError> {
    let path = match platform {
        Platform::Linux => below(platform, &runtime_dir(platform, places)?, &[&format!("{leaf}.sock")]),
        Platform::MacOs => {
            let name = format!("{}.sock", hex(&leading_hash(leaf)));
            below(platform, &runtime_dir(platform, places)?, &[&name])
        }
        Platform::Windows => PathBuf::from(pipe_leaf(leaf)),
    };
    check_length(platform, &path)?;
    Ok(path)
}

/// `base` with further components, separated as the platform does it (not as the host does).
pub(super) fn below(platform: Platform, base: &Path, components: &[&str]) -> PathBuf {
    let separator = match platform {
        Platform::Linux | Platform::MacOs => "/",
        Platform::Windows => r"\",
    };
    let mut path = base.as_os_str().to_owned();
    for component in components {
        if !path.as_encoded_bytes().ends_with(separator.as_bytes()) {
            path.push(separator);
        }
        path.push(component);
    }
    PathBuf::from(path)
}

/// Checks that an endpoint from elsewhere fits the platform's address.
///
/// # Errors
/// [`EndpointError::TooLong`] with both lengths, [`EndpointError::NotUtf8`].
pub fn check_length(platform: Platform, endpoint: &Path) -> Result<(), EndpointError> {
    let Some(text) = endpoint.to_str() else {
        return Err(EndpointError::NotUtf8 { path: endpoint.to_path_buf() });
    };
    let actual = match platform {
        Platform::Linux | Platform::MacOs => text.len(),
        Platform::Windows => PIPE_PREFIX.len() + pipe_leaf(text).len(),
    };
    let limit = platform.max_endpoint_len();
    if actual > limit {
        return Err(EndpointError::TooLong { path: endpoint.to_path_buf(), actual, limit });
    }
    Ok(())
}

/// A pipe's leaf, whether its name came with the prefix or without.
///
/// ```
/// use broker_transport::endpoint::pipe_leaf;
///
/// assert_eq!(pipe_leaf(r"\\.\pipe\rpb-v1-x"), "rpb-v1-x");
/// assert_eq!(pipe_leaf("rpb-v1-x"), "rpb-v1-x");
/// ```
pub fn pipe_leaf(name: &str) -> &str {
    match name.get(..PIPE_PREFIX.len()) {
        Some(head) if head.eq_ignore_ascii_case(PIPE_PREFIX) => &name[PIPE_PREFIX.len()..],
        _ => name,
    }
}

/// A pipe's full name, as the system wants it.
pub fn pipe_name(name: &str) -> String {
    format!("{PIPE_PREFIX}{}", pipe_leaf(name))
}

/// An absolute Unix path out of a variable; unset, empty and relative are all `None`.
pub(super) fn absolute(value: Option<&OsString>) -> Option<&Path> {
    value.filter(|value| starts_at_root(value)).map(Path::new)
}

/// Whether a Unix path is absolute. Not `Path::is_absolute`, whose answer depends on the host.
pub(super) fn starts_at_root(value: &OsString) -> bool {
    value.as_encoded_bytes().first() == Some(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(xdg: Option<&str>, tmpdir: Option<&str>) -> RuntimePlaces {
        RuntimePlaces {
            uid: 1000,
            xdg_runtime_dir: xdg.map(OsString::from),
            tmpdir: tmpdir.map(OsString::from),
            local_app_data: Some(r"C:\U\Local".into()),
        }
    }

    fn of_length(length: usize) -> PathBuf {
        PathBuf::from(format!("/{}", "x".repeat(length - 1)))
    }

    #[test]
    fn linux_uses_the_runtime_directory_and_else_tmp() {
        let path = |xdg| socket_path(Platform::Linux, "leaf", &places(xdg, None)).unwrap();
        assert_eq!(
            path(Some("/run/user/1000")),
            Path::new("/run/user/1000/running-process/broker/leaf.sock")
        );
        for unusable in [None, Some(""), Some("run/user/1000")] {
            assert_eq!(path(unusable), Path::new("/tmp/running-process-1000/broker/leaf.sock"));
        }
    }

    #[test]
    fn macos_hashes_the_leaf_below_tmpdir() {
        // The hash of the leaf by a second implementation, written for this check alone.
        let leaf = "rpb-v1-af1349b9f5f9a1a6-shared";
        let path = socket_path(Platform::MacOs, leaf, &places(None, Some("/var/folders/ab/T/"))).unwrap();
        assert_eq!(path, Path::new("/var/folders/ab/T/.rp-1000/54739d145d836f34.sock"));
        for missing in [None, Some("")] {
            let error = socket_path(Platform::MacOs, "leaf", &places(None, missing));
            assert!(matches!(error, Err(EndpointError::Unset { variable: "TMPDIR" })));
        }
        let error = socket_path(Platform::MacOs, "leaf", &places(None, Some("tmp")));
        assert!(matches!(error, Err(EndpointError::NotAbsolute { variable: "TMPDIR", .. })));
    }

    #[test]
    fn windows_writes_the_bare_leaf_and_takes_either_form() {
        for form in ["leaf", r"\\.\pipe\leaf", r"\\.\PIPE\leaf"] {
            let path = socket_path(Platform::Windows, form, &RuntimePlaces::default()).unwrap();
            assert_eq!(path, Path::new("leaf"));
            assert_eq!(pipe_name(form), r"\\.\pipe\leaf");
        }
    }

    #[test]
    fn what_belongs_to_a_pipe_is_a_file_below_the_users_own_data() {
        let file = |name: &str| {
            let path = file_of(Platform::Windows, Path::new(name), ".lock", &places(None, None)).unwrap();
            path.into_os_string().into_string().unwrap()
        };
        let run = r"C:\U\Local\running-process\run\";
        for form in ["rpb-v1-x", r"\\.\pipe\rpb-v1-x", r"\\.\PIPE\RPB-V1-X"] {
            assert_eq!(file(form), format!("{run}rpb-v1-x.lock"));
        }
        assert_eq!(file(&"x".repeat(MAX_PLAIN_NAME)), format!("{run}{}.lock", "x".repeat(MAX_PLAIN_NAME)));
        for name in [&"x".repeat(MAX_PLAIN_NAME + 1), "a:b", r"a\..\b", "a/b", "\u{e4}"] {
            assert_eq!(file(name).len(), run.len() + 16 + ".lock".len(), "{name}");
        }
        let directory = directory_of(Platform::Windows, Path::new("x"), &places(None, None)).unwrap();
        assert_eq!(format!("{}\\", directory.display()), run);
        let nowhere = file_of(Platform::Windows, Path::new("x"), "", &RuntimePlaces::default());
        assert!(matches!(nowhere, Err(EndpointError::Unset { variable: "LOCALAPPDATA" })));
    }

    #[test]
    fn what_belongs_to_a_socket_lies_beside_it() {
        let (socket, none) = (Path::new("/run/x/s.sock"), RuntimePlaces::default());
        assert_eq!(
            file_of(Platform::Linux, socket, ".lock", &none).unwrap(),
            Path::new("/run/x/s.sock.lock")
        );
        assert_eq!(directory_of(Platform::MacOs, socket, &none).unwrap(), Path::new("/run/x"));
        let nowhere = directory_of(Platform::Linux, Path::new("/"), &none);
        assert!(matches!(nowhere, Err(EndpointError::NoDirectory { .. })));
    }

    #[test]
    fn the_longest_path_fits_and_one_more_byte_does_not() {
        for (platform, limit) in [(Platform::Linux, 107), (Platform::MacOs, 103)] {
            assert!(check_length(platform, &of_length(limit)).is_ok());
            let error = check_length(platform, &of_length(limit + 1)).unwrap_err();
            assert!(matches!(error, EndpointError::TooLong { actual, limit: l, .. }
                if actual == limit + 1 && l == limit));
        }
    }

    #[test]
    fn the_longest_pipe_name_counts_its_prefix_in_either_form() {
        let leaf = "x".repeat(260 - 9);
        for form in [leaf.clone(), pipe_name(&leaf)] {
            assert!(check_length(Platform::Windows, Path::new(&form)).is_ok());
            assert!(check_length(Platform::Windows, Path::new(&format!("{form}x"))).is_err());
        }
    }
}
