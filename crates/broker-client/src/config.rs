//! What the environment says to a client (behaviour.md, section 10).
//!
//! The rules are pure functions over a variable's value; the public ones read the real environment.
//! Invariant: a value that is not understood is an error that shows it, never a default.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use thiserror::Error;

/// Switches the broker off for the clients that see it: `1`.
pub const DISABLE_VARIABLE: &str = "RUNNING_PROCESS_DISABLE";

/// How long a round trip may take, in milliseconds.
pub const TIMEOUT_VARIABLE: &str = "RUNNING_PROCESS_BROKER_CLIENT_TIMEOUT_MS";

/// How long a round trip may take where the environment says nothing.
pub const DEFAULT_ROUND_TRIP_TIMEOUT: Duration = Duration::from_secs(30);

/// A variable whose value is not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {expected} in ${variable}, got {value:?}; correct it or unset it")]
pub struct ConfigError {
    /// The variable.
    pub variable: &'static str,
    /// What it can hold.
    pub expected: &'static str,
    /// What it holds.
    pub value: OsString,
}

/// Whether services are to be reached through the broker: yes, unless [`DISABLE_VARIABLE`] is `1`.
///
/// A [`Connector`](crate::Connector) asks this before anything else; nothing else in this crate does.
///
/// # Errors
/// [`ConfigError`] for any value but `1`.
pub fn broker_is_enabled() -> Result<bool, ConfigError> {
    is_enabled(std::env::var_os(DISABLE_VARIABLE))
}

pub(crate) fn is_enabled(disable: Option<OsString>) -> Result<bool, ConfigError> {
    match disable {
        None => Ok(true),
        Some(value) if value == "1" => Ok(false),
        Some(value) => Err(ConfigError { variable: DISABLE_VARIABLE, expected: "1", value }),
    }
}

/// How long a round trip to the broker may take: [`TIMEOUT_VARIABLE`], or else
/// [`DEFAULT_ROUND_TRIP_TIMEOUT`].
///
/// # Errors
/// [`ConfigError`] for anything but a whole number of at least 1.
pub fn round_trip_timeout() -> Result<Duration, ConfigError> {
    timeout(std::env::var_os(TIMEOUT_VARIABLE))
}

pub(crate) fn timeout(value: Option<OsString>) -> Result<Duration, ConfigError> {
    let Some(value) = value else { return Ok(DEFAULT_ROUND_TRIP_TIMEOUT) };
    match millis(&value) {
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err(ConfigError {
            variable: TIMEOUT_VARIABLE,
            expected: "a whole number of milliseconds, at least 1,",
            value,
        }),
    }
}

/// Digits only: `parse` alone would take a sign, too.
fn millis(value: &OsStr) -> Option<u64> {
    let text = value.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok().filter(|millis| *millis > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(text: &str) -> Option<OsString> {
        Some(OsString::from(text))
    }

    #[test]
    fn only_a_one_switches_the_broker_off() {
        assert_eq!(is_enabled(None), Ok(true));
        assert_eq!(is_enabled(os("1")), Ok(false));
    }

    #[test]
    fn any_other_switch_is_an_error_that_names_the_value() {
        for value in ["", "0", "true", "01", " 1", "no"] {
            let error = is_enabled(os(value)).unwrap_err();
            assert_eq!(error.value, value);
            let message = error.to_string();
            assert!(
                message.contains(DISABLE_VARIABLE) && message.contains(&format!("{value:?}")),
                "{message}"
            );
        }
    }

    #[test]
    fn the_timeout_is_thirty_seconds_unless_the_environment_says_otherwise() {
        assert_eq!(timeout(None), Ok(Duration::from_secs(30)));
        assert_eq!(timeout(os("1")), Ok(Duration::from_millis(1)));
        assert_eq!(timeout(os("2500")), Ok(Duration::from_millis(2500)));
        assert_eq!(timeout(os("18446744073709551615")), Ok(Duration::from_millis(u64::MAX)));
    }

    #[test]
    fn a_timeout_that_is_none_is_an_error_that_names_the_value() {
        for value in ["", "0", "-1", "+5", "1.5", "5s", "ten", "18446744073709551616"] {
            let message = timeout(os(value)).unwrap_err().to_string();
            assert!(
                message.contains(TIMEOUT_VARIABLE) && message.contains(&format!("{value:?}")),
                "{message}"
            );
        }
    }
}
