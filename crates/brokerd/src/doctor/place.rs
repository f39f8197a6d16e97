//! The directories that are looked at, and how each would be put elsewhere.
//!
//! Nothing is looked at here. Invariant: they are derived as the broker does it, from the same environment.

use std::path::{Path, PathBuf};

use broker_transport::endpoint::{self, EndpointError, Platform};
use broker_transport::private_dir::{self, PrivateDirError};

use super::mend;
use crate::cli::DoctorArgs;
use crate::config::keys;

const STICKY: u32 = 0o1000;

/// What a place is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// An option of this command.
    Option,
    /// A variable that is set.
    Variable(&'static str),
    /// Nobody; this variable would.
    Default(&'static str),
    /// Nobody; this option of `brokerd serve` would.
    OptionOfServe(&'static str),
}

/// A directory, or an endpoint.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: Result<PathBuf, EndpointError>,
    pub(super) chosen: Chosen,
}

impl Place {
    /// A command after which it is another place.
    pub(super) fn elsewhere(&self) -> String {
        match self.chosen {
            Chosen::Variable(variable) => mend::unset([variable]),
            // What was looked at was named by hand: without that it is the usual place.
            Chosen::Option => "brokerd doctor".to_owned(),
            Chosen::Default(variable) => mend::set(variable, new_directory()),
            Chosen::OptionOfServe(option) => {
                format!("brokerd serve {option} {}", mend::word(new_directory()))
            }
        }
    }

    /// Whether a path is what somebody has named, or leads there: then the name is wrong, and not what lies there.
    pub(super) fn is_named(&self, path: &Path) -> bool {
        match (self.chosen, &self.path) {
            (Chosen::Option | Chosen::OptionOfServe(_), Ok(own)) => own.starts_with(path),
            (Chosen::Variable(variable), _) => {
                std::env::var_os(variable).is_some_and(|named| Path::new(&named).starts_with(path))
            }
            (Chosen::Default(_), _) | (_, Err(_)) => false,
        }
    }

    /// The path, where there is one.
    pub(super) fn known(&self) -> Option<&Path> {
        self.path.as_deref().ok()
    }
}

/// Whether a directory is one that everybody may write to, and no one else's files remove: it is meant to be so.
pub(super) fn is_shared(path: &Path) -> bool {
    let checked = private_dir::check_private_dir(path);
    matches!(checked, Err(PrivateDirError::WritableByOthers { mode, .. }) if mode & STICKY != 0)
}

/// One that nobody has yet.
fn new_directory() -> PathBuf {
    std::env::temp_dir().join(format!("running-process-own-{}", std::process::id()))
}

/// A command that gives a variable the value which the system means it to have; `None` for one that it does not know.
pub(super) fn default_of(variable: &str) -> Option<String> {
    let command = match variable {
        "HOME" => "eval \"export HOME=~$(id -un)\"",
        "TMPDIR" => "export TMPDIR=\"$(getconf DARWIN_USER_TEMP_DIR)\"",
        "LOCALAPPDATA" => r"set LOCALAPPDATA=%USERPROFILE%\AppData\Local",
        "APPDATA" => r"set APPDATA=%USERPROFILE%\AppData\Roaming",
        _ => return None,
    };
    Some(command.to_owned())
}

/// The variable that says where sockets lie, or what belongs to them.
pub(super) const fn runtime_variable() -> &'static str {
    match Platform::CURRENT {
        Platform::Linux => "XDG_RUNTIME_DIR",
        Platform::MacOs => "TMPDIR",
        Platform::Windows => "LOCALAPPDATA",
    }
}

/// By the first of these variables that is set and not empty, or else by none.
fn by_variable(variables: &[&'static str], default: Chosen) -> Chosen {
    let is_set = |variable: &&&'static str| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
    variables.iter().find(is_set).map_or(default, |variable| Chosen::Variable(variable))
}

fn by(chosen: Chosen, path: &Path) -> Place {
    let absolute = std::path::absolute(path);
    let path = absolute.map_err(|_| EndpointError::NoDirectory { path: path.to_path_buf() });
    Place { path, chosen }
}

/// Where this user's sockets lie.
pub(super) fn runtime_dir() -> Place {
    let variable = runtime_variable();
    let chosen = by_variable(&[variable], Chosen::Default(variable));
    Place { path: endpoint::current_runtime_dir(), chosen }
}

/// Where the broker that is meant listens.
pub(super) fn socket(args: &DoctorArgs) -> Place {
    match &args.socket {
        Some(path) => {
            let absolute = endpoint::absolute(path);
            let path = absolute.map_err(|_| EndpointError::NoDirectory { path: path.clone() });
            Place { path, chosen: Chosen::Option }
        }
        None => Place { path: endpoint::broker_endpoint(&args.instance), chosen: runtime_dir().chosen },
    }
}

/// Where the definitions are.
pub(super) fn service_dir(args: &DoctorArgs) -> Place {
    match &args.service_dir {
        Some(path) => by(Chosen::Option, path),
        None => Place {
            path: endpoint::service_definition_dir(),
            chosen: by_variable(
                match Platform::CURRENT {
                    Platform::Linux => &[endpoint::SERVICE_DEF_DIR_VARIABLE, "XDG_CONFIG_HOME"],
                    Platform::MacOs | Platform::Windows => &[endpoint::SERVICE_DEF_DIR_VARIABLE],
                },
                Chosen::Default(endpoint::SERVICE_DEF_DIR_VARIABLE),
            ),
        },
    }
}

/// Where manifests are.
pub(super) fn manifest_dir() -> Place {
    let chosen = match Platform::CURRENT {
        Platform::Linux => by_variable(&["XDG_DATA_HOME"], Chosen::Default("XDG_DATA_HOME")),
        Platform::MacOs => Chosen::Default("HOME"),
        Platform::Windows => by_variable(&["LOCALAPPDATA"], Chosen::Default("LOCALAPPDATA")),
    };
    Place { path: endpoint::manifest_dir(), chosen }
}

/// Where the lifecycle events go; `configured` is what the configuration file says.
pub(super) fn state_dir(args: &DoctorArgs, configured: Option<&Path>) -> Place {
    let variable = keys::STATE_DIR.env();
    let named = std::env::var_os(variable).filter(|value| !value.is_empty());
    match (&args.state_dir, named, configured) {
        (Some(path), ..) => by(Chosen::Option, path),
        (None, Some(path), _) => by(Chosen::Variable(variable), path.as_ref()),
        (None, None, Some(path)) => by(Chosen::OptionOfServe("--state-dir"), path),
        (None, None, None) => Place {
            path: endpoint::state_dir(),
            chosen: match Platform::CURRENT {
                Platform::Linux => by_variable(&["XDG_STATE_HOME"], Chosen::Default("XDG_STATE_HOME")),
                Platform::MacOs | Platform::Windows => Chosen::OptionOfServe("--state-dir"),
            },
        },
    }
}
