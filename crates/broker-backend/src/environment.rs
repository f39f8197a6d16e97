//! What a broker tells a process that it starts (protocol.md, end of "Conversations").
//!
//! Parsed once, where it enters. Invariant: an [`Environment`] holds only values that keep the
//! protocol's rules, and an error names the variable and what it holds.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use broker_protocol::{BrokerInstance, InstanceParseError, NameError, ServiceName, Version, VersionError};
use broker_transport::endpoint::{Platform, pipe_leaf};
use thiserror::Error;

/// The service's name.
pub const SERVICE_NAME: &str = "RUNNING_PROCESS_BROKER_V1_SERVICE_NAME";
/// The service's version.
pub const SERVICE_VERSION: &str = "RUNNING_PROCESS_BROKER_V1_SERVICE_VERSION";
/// The endpoint to listen on.
pub const BACKEND_PIPE: &str = "RUNNING_PROCESS_BROKER_V1_BACKEND_PIPE";
/// The namespace that the endpoint lies in.
pub const BACKEND_NAMESPACE: &str = "RUNNING_PROCESS_BROKER_V1_BACKEND_NAMESPACE";
/// The broker that started the process.
pub const INSTANCE: &str = "RUNNING_PROCESS_BROKER_V1_INSTANCE";
/// The broker's own endpoint, where a backend that outlives it announces itself to the next one. An
/// extension.
pub const CONTROL_PIPE: &str = "RUNNING_PROCESS_BROKER_V1_CONTROL_PIPE";
/// `traceparent` of the Hello that caused the start.
pub const TRACEPARENT: &str = "RUNNING_PROCESS_BROKER_V1_TRACEPARENT";
/// `tracestate` of the Hello that caused the start.
pub const TRACESTATE: &str = "RUNNING_PROCESS_BROKER_V1_TRACESTATE";

const ALL: [&str; 7] =
    [SERVICE_NAME, SERVICE_VERSION, BACKEND_PIPE, BACKEND_NAMESPACE, INSTANCE, TRACEPARENT, TRACESTATE];

/// What the broker that started this process told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The service that this process is a backend of.
    pub service: ServiceName,
    /// The version of the service that was asked for.
    pub version: Version,
    /// Where to listen.
    pub endpoint: PathBuf,
    /// The namespace that the endpoint lies in; part of what a probe is answered with.
    pub namespace: String,
    /// The broker.
    pub instance: BrokerInstance,
    /// The broker's own endpoint, where the broker tells it.
    pub control_pipe: Option<PathBuf>,
    /// W3C `traceparent` of the Hello that caused the start, as the client wrote it.
    pub traceparent: Option<String>,
    /// W3C `tracestate` of the Hello that caused the start, as the client wrote it.
    pub tracestate: Option<String>,
}

/// Why the environment does not say what to serve.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvironmentError {
    /// None of the variables is set.
    #[error(
        "expected to be started by a broker, but no variable RUNNING_PROCESS_BROKER_V1_* is set; \
         start this program through its service, or give it an endpoint of its own"
    )]
    NoBroker,
    /// Some are set, but not this one.
    #[error("expected {expected} in ${variable}, but it is not set")]
    Missing {
        /// The variable.
        variable: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A value that no message could carry.
    #[error("expected UTF-8 in ${variable}, got {value:?}")]
    NotUtf8 {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        value: OsString,
    },
    /// A value that breaks a rule.
    #[error("${variable} holds {value:?}: {rule}")]
    Invalid {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// The rule.
        #[source]
        rule: BrokenRule,
    },
}

/// The rule that a variable's value breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BrokenRule {
    /// The one for names.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The one for versions.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The one for brokers.
    #[error(transparent)]
    Instance(#[from] InstanceParseError),
    /// The one for endpoints.
    #[error("an endpoint is an absolute path, or on Windows the name of a pipe")]
    Endpoint,
}

impl Environment {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// [`EnvironmentError`]; [`EnvironmentError::NoBroker`] where no broker had a part in the start.
    pub fn from_env() -> Result<Self, EnvironmentError> {
        Self::parse(std::env::var_os::<&str>)
    }

    /// Reads the variables that `lookup` finds.
    ///
    /// # Errors
    /// As [`Environment::from_env`].
    pub fn parse(lookup: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, EnvironmentError> {
        if ALL.iter().all(|variable| lookup(variable).is_none()) {
            return Err(EnvironmentError::NoBroker);
        }
        let optional = |variable| match lookup(variable).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(value)) => Err(EnvironmentError::NotUtf8 { variable, value }),
        };
        let required =
            |variable, expected| optional(variable)?.ok_or(EnvironmentError::Missing { variable, expected });
        Ok(Self {
            service: checked(SERVICE_NAME, required(SERVICE_NAME, "the service's name")?, str::parse)?,
            version: checked(SERVICE_VERSION, required(SERVICE_VERSION, "its version")?, str::parse)?,
            endpoint: checked(BACKEND_PIPE, required(BACKEND_PIPE, "the endpoint to listen on")?, endpoint)?,
            namespace: required(BACKEND_NAMESPACE, "the endpoint's namespace")?,
            instance: checked(INSTANCE, required(INSTANCE, "the broker's instance")?, str::parse)?,
            control_pipe: match optional(CONTROL_PIPE)? {
                Some(value) => Some(checked(CONTROL_PIPE, value, endpoint)?),
                None => None,
            },
            traceparent: optional(TRACEPARENT)?,
            tracestate: optional(TRACESTATE)?,
        })
    }
}

fn checked<T, E: Into<BrokenRule>>(
    variable: &'static str,
    value: String,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, EnvironmentError> {
    parse(&value).map_err(|rule| EnvironmentError::Invalid { variable, value, rule: rule.into() })
}

fn endpoint(text: &str) -> Result<PathBuf, BrokenRule> {
    let is_endpoint = match Platform::CURRENT {
        Platform::Linux | Platform::MacOs => Path::new(text).is_absolute(),
        Platform::Windows => !pipe_leaf(text).is_empty(),
    };
    if is_endpoint { Ok(PathBuf::from(text)) } else { Err(BrokenRule::Endpoint) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [(&str, &str); 7] = [
        (SERVICE_NAME, "build-cache"),
        (SERVICE_VERSION, "1.2.3-rc.1"),
        (BACKEND_PIPE, "/run/be.sock"),
        (BACKEND_NAMESPACE, "0123456789abcdef"),
        (INSTANCE, "svc:build-cache"),
        (TRACEPARENT, "00-trace"),
        (TRACESTATE, "rp=1"),
    ];

    /// The whole environment, but for one variable.
    fn parse(variable: &str, value: Option<&str>) -> Result<Environment, EnvironmentError> {
        Environment::parse(|name| {
            let told = WHOLE.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            let value = if name == variable { value } else { told };
            value.map(OsString::from)
        })
    }

    #[test]
    fn a_whole_environment_is_read() {
        let environment = parse("", None).unwrap();
        let expected = Environment {
            service: "build-cache".parse().unwrap(),
            version: "1.2.3-rc.1".parse().unwrap(),
            endpoint: "/run/be.sock".into(),
            namespace: "0123456789abcdef".into(),
            instance: "svc:build-cache".parse().unwrap(),
            control_pipe: None,
            traceparent: Some("00-trace".into()),
            tracestate: Some("rp=1".into()),
        };
        assert_eq!(environment, expected);
    }

    #[test]
    fn only_the_trace_context_may_be_missing() {
        for (variable, _) in WHOLE {
            match parse(variable, None) {
                Ok(_) => assert!(variable == TRACEPARENT || variable == TRACESTATE, "{variable}"),
                Err(error) => {
                    let names_it = matches!(error, EnvironmentError::Missing { variable: named, .. } if named == variable);
                    assert!(names_it && error.to_string().contains(variable), "{error}");
                }
            }
        }
        assert_eq!(Environment::parse(|_| None), Err(EnvironmentError::NoBroker));
    }

    #[test]
    fn a_bad_value_is_named_with_its_variable_and_its_rule() {
        let cases = [
            (SERVICE_NAME, "Build Cache", BrokenRule::Name(NameError::Character { offset: 0, byte: b'B' })),
            (SERVICE_NAME, "", BrokenRule::Name(NameError::Empty)),
            (SERVICE_VERSION, "1.2", BrokenRule::Version(VersionError::Form)),
            (BACKEND_PIPE, "", BrokenRule::Endpoint),
            (INSTANCE, "mine", BrokenRule::Instance(InstanceParseError::Form { actual: "mine".into() })),
        ];
        for (variable, value, rule) in cases {
            let error = parse(variable, Some(value)).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(variable) && text.contains(&format!("{value:?}")), "{text}");
            assert_eq!(error, EnvironmentError::Invalid { variable, value: value.into(), rule });
        }
    }

    #[test]
    fn an_empty_namespace_is_a_namespace() {
        assert_eq!(parse(BACKEND_NAMESPACE, Some("")).unwrap().namespace, "");
    }
}
