//! The labels that the broker reads from a definition (behaviour.md 3).
//!
//! A label under one of the broker's prefixes that it does not know is a warning to every client; a
//! known label with a value it cannot take makes the definition invalid, because guessing what the
//! operator meant would be worse. Labels outside the prefixes are the operator's own.

use std::collections::BTreeMap;
use std::time::Duration;

use super::definition::DefinitionError;

/// Default of `spawn.timeout_ms`.
const DEFAULT_SPAWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest `spawn.timeout_ms`: an hour.
const MAX_SPAWN_TIMEOUT_MS: u64 = 3_600_000;
/// Longest `idle.timeout_secs`: a year.
const MAX_IDLE_TIMEOUT_SECS: u64 = 31_536_000;
/// Label prefixes that belong to the broker.
const PREFIXES: [&str; 4] = ["handoff.", "spawn.", "idle.", "env."];
/// Variables that the broker itself gives a backend.
const RESERVED_ENV: [&str; 3] = ["RUNNING_PROCESS_BROKER_V1_", "LISTEN_", "NOTIFY_SOCKET"];

/// How a backend gets its endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// It binds the endpoint itself.
    #[default]
    Bind,
    /// The broker binds and passes the listener (`LISTEN_FDS`).
    ListenFds,
}

/// What a definition's labels say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `handoff.enabled`.
    pub handoff_enabled: bool,
    /// `handoff.endpoint`: where a plain v1 backend takes offers.
    pub handoff_endpoint: Option<String>,
    /// `spawn.timeout_ms`.
    pub spawn_timeout: Duration,
    /// `spawn.activation`.
    pub activation: Activation,
    /// `spawn.args`, split as a shell splits words.
    pub args: Vec<String>,
    /// `idle.timeout_secs`; `None` means never.
    pub idle_timeout: Option<Duration>,
    /// `env.NAME`.
    pub env: BTreeMap<String, String>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            handoff_enabled: true,
            handoff_endpoint: None,
            spawn_timeout: DEFAULT_SPAWN_TIMEOUT,
            activation: Activation::default(),
            args: Vec::new(),
            idle_timeout: None,
            env: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads the labels of a definition.
    ///
    /// # Errors
    /// [`DefinitionError::Label`] for a known label with a value it cannot take.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Result<Self, DefinitionError> {
        let mut settings = Self::default();
        for (label, value) in labels {
            let bad = |expected: &'static str| DefinitionError::Label {
                label: label.clone(),
                expected,
                actual: value.clone(),
            };
            if value.contains('\0') || label.contains('\0') {
                return Err(bad("a text without NUL bytes"));
            }
            match label.as_str() {
                "handoff.enabled" => {
                    settings.handoff_enabled = value.parse().map_err(|_| bad("true or false"))?;
                }
                "handoff.endpoint" if value.is_empty() => return Err(bad("an endpoint")),
                "handoff.endpoint" => settings.handoff_endpoint = Some(value.clone()),
                "spawn.timeout_ms" => {
                    let expected = "milliseconds from 1 to 3600000";
                    settings.spawn_timeout = Duration::from_millis(
                        number(value, 1, MAX_SPAWN_TIMEOUT_MS).ok_or_else(|| bad(expected))?,
                    );
                }
                "spawn.activation" => {
                    settings.activation = match value.as_str() {
                        "bind" => Activation::Bind,
                        "listen-fds" => Activation::ListenFds,
                        _ => return Err(bad("bind or listen-fds")),
                    };
                }
                "spawn.args" => {
                    settings.args =
                        shell_words::split(value).map_err(|_| bad("words with balanced quotes"))?;
                }
                "idle.timeout_secs" => {
                    let expected = "seconds from 0 (never) to 31536000";
                    let seconds = number(value, 0, MAX_IDLE_TIMEOUT_SECS).ok_or_else(|| bad(expected))?;
                    settings.idle_timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
                }
                _ => match label.strip_prefix("env.") {
                    Some(name) if is_variable(name) => {
                        settings.env.insert(name.to_owned(), value.clone());
                    }
                    Some(_) => {
                        return Err(bad(
                            "env.NAME with a variable's name that the broker does not set itself",
                        ));
                    }
                    None => settings.warn_if_ours(label),
                },
            }
        }
        Ok(settings)
    }

    fn warn_if_ours(&mut self, label: &str) {
        if PREFIXES.iter().any(|prefix| label.starts_with(prefix)) {
            self.warnings
                .push(format!("label '{label}' of the service definition is not known and has no effect"));
        }
    }
}

fn number(value: &str, least: u64, most: u64) -> Option<u64> {
    value.parse().ok().filter(|number| (least..=most).contains(number))
}

fn is_variable(name: &str) -> bool {
    let well_formed = name.bytes().enumerate().all(|(at, byte)| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'_' => true,
        b'0'..=b'9' => at > 0,
        _ => false,
    });
    !name.is_empty() && well_formed && !RESERVED_ENV.iter().any(|reserved| name.starts_with(reserved))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &[(&str, &str)]) -> Result<Settings, DefinitionError> {
        Settings::from_labels(
            &labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        )
    }

    #[test]
    fn no_labels_mean_the_documented_defaults() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings, Settings::default());
        assert!(settings.handoff_enabled);
        assert_eq!(settings.spawn_timeout, Duration::from_millis(10_000));
        assert_eq!((settings.activation, settings.idle_timeout), (Activation::Bind, None));
    }

    #[test]
    fn every_known_label_is_read() {
        let settings = read(&[
            ("handoff.enabled", "false"),
            ("handoff.endpoint", "/run/x.sock"),
            ("spawn.timeout_ms", "250"),
            ("spawn.activation", "listen-fds"),
            ("spawn.args", "--root '/my cache' -v"),
            ("idle.timeout_secs", "90"),
            ("env.RUST_LOG", "debug"),
            ("team", "build"),
        ])
        .unwrap();
        assert!(!settings.handoff_enabled);
        assert_eq!(settings.handoff_endpoint.as_deref(), Some("/run/x.sock"));
        assert_eq!(settings.spawn_timeout, Duration::from_millis(250));
        assert_eq!(settings.activation, Activation::ListenFds);
        assert_eq!(settings.args, ["--root", "/my cache", "-v"]);
        assert_eq!(settings.idle_timeout, Some(Duration::from_secs(90)));
        assert_eq!(settings.env["RUST_LOG"], "debug");
        assert_eq!(settings.warnings, [""; 0]);
    }

    #[test]
    fn an_unknown_label_under_our_prefixes_is_a_warning_and_others_are_the_operator_s() {
        let settings =
            read(&[("spawn.nice", "5"), ("idle.x", ""), ("handoff.y", ""), ("owner", "me")]).unwrap();
        assert_eq!(settings.warnings.len(), 3);
        assert!(settings.warnings.iter().any(|warning| warning.contains("'spawn.nice'")));
    }

    #[test]
    fn a_value_that_a_label_cannot_take_is_an_error() {
        let cases = [
            ("handoff.enabled", "yes"),
            ("handoff.endpoint", ""),
            ("spawn.timeout_ms", "0"),
            ("spawn.timeout_ms", "3600001"),
            ("spawn.timeout_ms", "1s"),
            ("spawn.activation", "fork"),
            ("spawn.args", "'open"),
            ("idle.timeout_secs", "-1"),
            ("idle.timeout_secs", "31536001"),
            ("env.", "x"),
            ("env.1A", "x"),
            ("env.A=B", "x"),
            ("env.A", "nul\0"),
            ("env.RUNNING_PROCESS_BROKER_V1_SERVICE_NAME", "x"),
            ("env.LISTEN_FDS", "1"),
        ];
        for (label, value) in cases {
            let error = read(&[(label, value)]).unwrap_err();
            assert!(matches!(&error, DefinitionError::Label { .. }), "{label}={value}: {error:?}");
        }
    }

    #[test]
    fn the_bounds_of_the_times_are_inclusive() {
        assert!(read(&[("spawn.timeout_ms", "1")]).is_ok());
        assert!(read(&[("spawn.timeout_ms", "3600000")]).is_ok());
        assert_eq!(read(&[("idle.timeout_secs", "0")]).unwrap().idle_timeout, None);
        assert!(read(&[("idle.timeout_secs", "31536000")]).is_ok());
    }
}
