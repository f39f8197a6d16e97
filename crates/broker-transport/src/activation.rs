//! The listener that this process was started with (sd_listen_fds(3); behaviour.md, section 4, "Ready").
//!
//! Whoever starts a process may bind its endpoint first and pass the listener on, so that clients can
//! connect before the process has begun to run. Invariants: variables that name another process are
//! ignored, a listener is given out once, and a descriptor that is no listening socket is left alone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::descriptor::OwnedDescriptor;
use crate::listener::{BindError, BoundSocket};
use crate::sys::inherited;

/// The descriptor of the first passed listener.
pub const LISTEN_FD: i32 = 3;

/// The name that a backend's listener has in `LISTEN_FDNAMES`.
pub const LISTEN_NAME: &str = "backend";

/// The name that a broker's listener has there.
pub const BROKER_LISTEN_NAME: &str = "brokerd";

/// Why a passed listener cannot be used.
#[derive(Debug, Error)]
pub enum ActivationError {
    /// A variable that is meant for this process holds no number.
    #[error("expected {expected} in ${variable}, got {value:?}")]
    NotANumber {
        /// The variable.
        variable: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        value: OsString,
    },
    /// It was taken before.
    #[error("the listener or stream that this process was started with is in use by another part of it")]
    Taken,
    /// What was passed is no end of a stream whose other end the parent has made.
    #[error("expected a stream to the parent process in descriptor {descriptor}, found {found}")]
    NotTheParents {
        /// The descriptor's number.
        descriptor: i64,
        /// What it is.
        found: &'static str,
    },
    /// Several were passed, and none of them has the right name.
    #[error("expected one listener, or one that is named {name}, got {count}")]
    Nameless {
        /// The name.
        name: &'static str,
        /// How many were passed.
        count: u32,
    },
    /// What was passed listens elsewhere.
    #[error("expected a listener at {}, got one at {found}", expected.display())]
    Elsewhere {
        /// Where it should listen.
        expected: PathBuf,
        /// Where it does.
        found: String,
    },
    /// What was passed is no listener.
    #[error(transparent)]
    Listener(#[from] BindError),
}

/// Takes the listener that was passed to this process under the name `backend`; `None` when there is none.
///
/// It is the descriptor with that name in `LISTEN_FDNAMES`, or where there are no names, the only one.
/// With a path, the socket file is removed on drop like one that was bound here. The variables stay:
/// children are not misled, as they have another pid.
///
/// # Errors
/// [`ActivationError`].
pub fn take_listener(path: Option<&Path>) -> Result<Option<BoundSocket>, ActivationError> {
    match Passed::find(std::env::var_os::<&str>, std::process::id(), LISTEN_NAME)?.for_a_backend() {
        Some(passed) => inherited::take_listener(passed, path).map(Some),
        None => Ok(None),
    }
}

/// Takes the listener that a service manager has bound at `path` for this process, a broker; `None` when there
/// is none.
///
/// It is the descriptor with the name `brokerd` in `LISTEN_FDNAMES`, or whatever its name the only one. The
/// socket file stays on drop: it is the manager's.
///
/// # Errors
/// [`ActivationError`].
pub fn take_broker_listener(path: &Path) -> Result<Option<BoundSocket>, ActivationError> {
    let passed = Passed::find(std::env::var_os::<&str>, std::process::id(), BROKER_LISTEN_NAME)?;
    match passed.for_a_broker()? {
        Some(passed) => inherited::take_listener_at(passed, path).map(Some),
        None => Ok(None),
    }
}

/// Takes the end of a socket pair that the parent process has passed, whose number is in `variable`; `None`
/// where the variable is not set. It is not inherited by children from now on.
///
/// A variable that a process has inherited from its parent's parent leads to no stream of its own parent,
/// which is an error.
///
/// # Errors
/// [`ActivationError`].
pub fn take_parent_stream(variable: &'static str) -> Result<Option<OwnedDescriptor>, ActivationError> {
    let Some(value) = std::env::var_os(variable) else { return Ok(None) };
    let number = value.to_str().and_then(|text| text.parse().ok()).filter(|number| *number >= LISTEN_FD);
    match number {
        Some(number) => inherited::take_parent_stream(PassedStream(number)).map(Some),
        None => Err(ActivationError::NotANumber { variable, expected: "the number of a descriptor", value }),
    }
}

/// The number of a descriptor that the environment says is the end of a stream to the parent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PassedStream(i32);

impl PassedStream {
    pub(crate) const fn number(&self) -> i32 {
        self.0
    }
}

/// The number of a descriptor that the environment says was placed for this process. It exists only
/// read from there, which is what makes taking it sound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PassedListener(i32);

impl PassedListener {
    pub(crate) const fn number(&self) -> i32 {
        self.0
    }
}

/// What the environment says was passed.
#[derive(Debug, PartialEq, Eq)]
enum Passed {
    Nothing,
    /// One has the name.
    Named(PassedListener),
    /// There is only this one, and it has no name.
    Nameless(PassedListener),
    /// There is only this one, and it has another name.
    NamedOtherwise(PassedListener),
    /// So many, and none has the name.
    Several(u32),
}

impl Passed {
    fn find(
        variable: impl Fn(&'static str) -> Option<OsString>,
        own_pid: u32,
        name: &str,
    ) -> Result<Self, ActivationError> {
        let number = |name, expected| match variable(name) {
            None => Ok(None),
            Some(value) => match value.to_str().and_then(|text| text.parse::<u32>().ok()) {
                Some(number) => Ok(Some(number)),
                None => Err(ActivationError::NotANumber { variable: name, expected, value }),
            },
        };
        if number("LISTEN_PID", "a process id")? != Some(own_pid) {
            return Ok(Self::Nothing);
        }
        let count = number("LISTEN_FDS", "how many descriptors were passed")?.unwrap_or(0);
        let names = variable("LISTEN_FDNAMES");
        let all = names.iter().flat_map(|names| names.as_encoded_bytes().split(|byte| *byte == b':'));
        let mut named = (LISTEN_FD..).zip(all).take(count as usize).filter(|(_, of)| *of == name.as_bytes());
        Ok(match (named.next(), count, &names) {
            (Some((number, _)), ..) => Self::Named(PassedListener(number)),
            (None, 0, _) => Self::Nothing,
            (None, 1, None) => Self::Nameless(PassedListener(LISTEN_FD)),
            (None, 1, Some(_)) => Self::NamedOtherwise(PassedListener(LISTEN_FD)),
            (None, count, _) => Self::Several(count),
        })
    }

    /// It is started by a broker, which gives names.
    fn for_a_backend(self) -> Option<PassedListener> {
        match self {
            Self::Named(passed) | Self::Nameless(passed) => Some(passed),
            Self::NamedOtherwise(_) | Self::Several(_) | Self::Nothing => None,
        }
    }

    /// It is started by a service manager, which gives the name of a unit unless it is told another.
    fn for_a_broker(self) -> Result<Option<PassedListener>, ActivationError> {
        match self {
            Self::Named(passed) | Self::Nameless(passed) | Self::NamedOtherwise(passed) => Ok(Some(passed)),
            Self::Several(count) => Err(ActivationError::Nameless { name: BROKER_LISTEN_NAME, count }),
            Self::Nothing => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 42;

    fn passed(variables: &[(&str, &str)], name: &str) -> Result<Passed, ActivationError> {
        let lookup = |name: &'static str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        Passed::find(lookup, OWN, name)
    }

    fn find(variables: &[(&str, &str)]) -> Result<Option<i32>, ActivationError> {
        let passed = passed(variables, LISTEN_NAME)?.for_a_backend();
        Ok(passed.map(|passed| passed.number()))
    }

    #[test]
    fn a_broker_takes_the_one_with_its_name_or_the_only_one_whatever_its_name() {
        let find = |count: &str, names: &str| {
            let all = [("LISTEN_PID", "42"), ("LISTEN_FDS", count), ("LISTEN_FDNAMES", names)];
            let given = if names.is_empty() { &all[..2] } else { &all[..] };
            let passed = passed(given, BROKER_LISTEN_NAME).unwrap().for_a_broker();
            passed.map(|passed| passed.map(|passed| passed.number()))
        };
        for (count, names, number) in
            [("1", "brokerd.socket", 3), ("1", "", 3), ("2", "http:brokerd", 4), ("2", "brokerd:brokerd", 3)]
        {
            assert_eq!(find(count, names).unwrap(), Some(number), "{count} {names}");
        }
        assert_eq!(find("0", "").unwrap(), None);
        for names in ["http:https", ""] {
            let error = find("2", names).unwrap_err().to_string();
            assert!(error.contains("named brokerd, got 2"), "{error}");
        }
    }

    #[test]
    fn the_listener_of_this_process_is_found_by_its_name() {
        let cases: [(&[(&str, &str)], i32); 3] = [
            (&[("LISTEN_PID", "42"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "backend")], 3),
            (&[("LISTEN_PID", "42"), ("LISTEN_FDS", "3"), ("LISTEN_FDNAMES", "http::backend")], 5),
            (&[("LISTEN_PID", "42"), ("LISTEN_FDS", "1")], 3),
        ];
        for (variables, expected) in cases {
            assert_eq!(find(variables).unwrap(), Some(expected), "{variables:?}");
        }
    }

    #[test]
    fn what_is_not_for_this_process_or_not_its_listener_is_ignored() {
        let cases: [&[(&str, &str)]; 8] = [
            &[],
            &[("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "backend")],
            &[("LISTEN_PID", "41"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "backend")],
            &[("LISTEN_PID", "41"), ("LISTEN_FDS", "many")],
            &[("LISTEN_PID", "42"), ("LISTEN_FDNAMES", "backend")],
            &[("LISTEN_PID", "42"), ("LISTEN_FDS", "0"), ("LISTEN_FDNAMES", "backend")],
            &[("LISTEN_PID", "42"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "http:backend")],
            &[("LISTEN_PID", "42"), ("LISTEN_FDS", "2")],
        ];
        for variables in cases {
            assert_eq!(find(variables).unwrap(), None, "{variables:?}");
        }
    }

    #[test]
    fn a_variable_that_holds_no_number_is_named_with_its_value() {
        let error = find(&[("LISTEN_PID", "42"), ("LISTEN_FDS", "one")]).unwrap_err().to_string();
        assert!(error.contains("$LISTEN_FDS") && error.contains("one"), "{error}");
        let error = find(&[("LISTEN_PID", "-42")]).unwrap_err().to_string();
        assert!(error.contains("$LISTEN_PID") && error.contains("-42"), "{error}");
    }
}
