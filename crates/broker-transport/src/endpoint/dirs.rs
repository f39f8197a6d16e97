//! Where definitions, the configuration, manifests and state lie (protocol.md, "Names and places").
//!
//! Pure: the environment comes in as a function from a variable's name to its value. Nothing is
//! created. Invariant: every directory is absolute, and a variable that is set but empty counts as unset.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::EndpointError;
use super::places::{Platform, absolute, below, starts_at_root};

/// Names the directory of service definitions, before any default.
pub const SERVICE_DEF_DIR_VARIABLE: &str = "RUNNING_PROCESS_SERVICE_DEF_DIR";

/// The directory of service definitions.
///
/// # Errors
/// [`EndpointError::Unset`] or [`EndpointError::NotAbsolute`], naming the variable.
pub fn service_definition_dir_in(
    platform: Platform,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, EndpointError> {
    if let Some(chosen) = env(SERVICE_DEF_DIR_VARIABLE).filter(|value| !value.is_empty()) {
        // Not judged by `starts_at_root`: this one is in the host's own form.
        return match Path::new(&chosen).is_absolute() {
            true => Ok(PathBuf::from(chosen)),
            false => Err(EndpointError::NotAbsolute { variable: SERVICE_DEF_DIR_VARIABLE, value: chosen }),
        };
    }
    Ok(below(platform, &config_base(platform, &env)?, &["running-process", "services"]))
}

/// The broker's configuration file, beside the directory of service definitions where no variable names that.
///
/// # Errors
/// As [`service_definition_dir_in`].
pub fn config_file_in(
    platform: Platform,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, EndpointError> {
    Ok(below(platform, &config_base(platform, &env)?, &["running-process", "brokerd.toml"]))
}

fn config_base(
    platform: Platform,
    env: &impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, EndpointError> {
    match platform {
        Platform::Linux => xdg_or_home(platform, env, "XDG_CONFIG_HOME", ".config"),
        Platform::MacOs => Ok(below(platform, &home(env)?, &["Library/Application Support"])),
        Platform::Windows => windows_dir(env, "APPDATA"),
    }
}

/// The directory of the manifests that every broker of this user sees.
///
/// # Errors
/// As [`service_definition_dir_in`].
pub fn manifest_dir_in(
    platform: Platform,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, EndpointError> {
    let base = match platform {
        Platform::Linux => xdg_or_home(platform, &env, "XDG_DATA_HOME", ".local/share")?,
        Platform::MacOs => below(platform, &home(&env)?, &["Library/Application Support"]),
        Platform::Windows => windows_dir(&env, "LOCALAPPDATA")?,
    };
    Ok(below(platform, &base, &["running-process", "manifests"]))
}

/// The directory of a broker's own state: events, archives.
///
/// # Errors
/// As [`service_definition_dir_in`].
pub fn state_dir_in(
    platform: Platform,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, EndpointError> {
    let base = match platform {
        Platform::Linux => xdg_or_home(platform, &env, "XDG_STATE_HOME", ".local/state")?,
        Platform::MacOs => below(platform, &home(&env)?, &["Library/Application Support"]),
        Platform::Windows => windows_dir(&env, "LOCALAPPDATA")?,
    };
    Ok(below(platform, &base, &["running-process", "broker"]))
}

fn xdg_or_home(
    platform: Platform,
    env: &impl Fn(&str) -> Option<OsString>,
    variable: &'static str,
    default: &str,
) -> Result<PathBuf, EndpointError> {
    match absolute(env(variable).as_ref()) {
        Some(chosen) => Ok(chosen.to_path_buf()),
        None => Ok(below(platform, &home(env)?, &[default])),
    }
}

fn home(env: &impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, EndpointError> {
    match env("HOME").filter(|value| !value.is_empty()) {
        None => Err(EndpointError::Unset { variable: "HOME" }),
        Some(home) if starts_at_root(&home) => Ok(PathBuf::from(home)),
        Some(value) => Err(EndpointError::NotAbsolute { variable: "HOME", value }),
    }
}

fn windows_dir(
    env: &impl Fn(&str) -> Option<OsString>,
    variable: &'static str,
) -> Result<PathBuf, EndpointError> {
    match env(variable).filter(|value| !value.is_empty()) {
        Some(value) => Ok(PathBuf::from(value)),
        None => Err(EndpointError::Unset { variable }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    }

    fn text(path: Result<PathBuf, EndpointError>) -> String {
        path.unwrap().into_os_string().into_string().unwrap()
    }

    #[test]
    fn linux_follows_the_xdg_variables_and_else_the_home_directory() {
        let set = [
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_DATA_HOME", "/d"),
            ("XDG_STATE_HOME", "/s/"),
            ("HOME", "/home/u"),
        ];
        assert_eq!(
            text(service_definition_dir_in(Platform::Linux, env(&set))),
            "/c/running-process/services"
        );
        assert_eq!(text(config_file_in(Platform::Linux, env(&set))), "/c/running-process/brokerd.toml");
        assert_eq!(text(manifest_dir_in(Platform::Linux, env(&set))), "/d/running-process/manifests");
        assert_eq!(text(state_dir_in(Platform::Linux, env(&set))), "/s/running-process/broker");
        let unusable = [("XDG_CONFIG_HOME", "relative"), ("XDG_STATE_HOME", ""), ("HOME", "/home/u")];
        assert_eq!(
            text(service_definition_dir_in(Platform::Linux, env(&unusable))),
            "/home/u/.config/running-process/services"
        );
        assert_eq!(
            text(manifest_dir_in(Platform::Linux, env(&unusable))),
            "/home/u/.local/share/running-process/manifests"
        );
        assert_eq!(
            text(state_dir_in(Platform::Linux, env(&unusable))),
            "/home/u/.local/state/running-process/broker"
        );
    }

    #[test]
    fn macos_and_windows_have_their_own_places() {
        let mac = [("HOME", "/Users/u"), ("XDG_CONFIG_HOME", "/ignored")];
        let support = "/Users/u/Library/Application Support/running-process";
        assert_eq!(
            text(service_definition_dir_in(Platform::MacOs, env(&mac))),
            format!("{support}/services")
        );
        assert_eq!(text(config_file_in(Platform::MacOs, env(&mac))), format!("{support}/brokerd.toml"));
        assert_eq!(text(manifest_dir_in(Platform::MacOs, env(&mac))), format!("{support}/manifests"));
        assert_eq!(text(state_dir_in(Platform::MacOs, env(&mac))), format!("{support}/broker"));
        let windows = [("APPDATA", r"C:\U\Roaming"), ("LOCALAPPDATA", r"C:\U\Local\")];
        assert_eq!(
            text(service_definition_dir_in(Platform::Windows, env(&windows))),
            r"C:\U\Roaming\running-process\services"
        );
        assert_eq!(
            text(config_file_in(Platform::Windows, env(&windows))),
            r"C:\U\Roaming\running-process\brokerd.toml"
        );
        assert_eq!(
            text(manifest_dir_in(Platform::Windows, env(&windows))),
            r"C:\U\Local\running-process\manifests"
        );
        assert_eq!(
            text(state_dir_in(Platform::Windows, env(&windows))),
            r"C:\U\Local\running-process\broker"
        );
    }

    #[test]
    fn the_own_variable_wins_and_must_be_absolute() {
        // In the host's own form.
        let dir = std::env::temp_dir().into_os_string().into_string().unwrap();
        let chosen = [(SERVICE_DEF_DIR_VARIABLE, dir.as_str()), ("HOME", "/home/u")];
        assert_eq!(text(service_definition_dir_in(Platform::Linux, env(&chosen))), dir);
        let relative = service_definition_dir_in(Platform::Linux, env(&[(SERVICE_DEF_DIR_VARIABLE, "defs")]));
        let message = relative.unwrap_err().to_string();
        assert!(message.contains(SERVICE_DEF_DIR_VARIABLE) && message.contains("defs"), "{message}");
    }

    #[test]
    fn without_a_home_the_error_names_the_variable() {
        for platform in [Platform::Linux, Platform::MacOs, Platform::Windows] {
            assert!(matches!(state_dir_in(platform, env(&[])), Err(EndpointError::Unset { .. })));
        }
        let relative = state_dir_in(Platform::Linux, env(&[("HOME", "u")]));
        assert!(matches!(relative, Err(EndpointError::NotAbsolute { variable: "HOME", .. })));
    }
}
