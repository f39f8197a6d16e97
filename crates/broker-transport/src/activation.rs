//! The listener that this process was started with (sd_listen_fds(3); behaviour.md, section 4, "Ready").
//!
//! Whoever starts a process may bind its endpoint first and pass the listener on, so that clients can
//! connect before the process has begun to run. Invariants: variables that name another process are
//! ignored, a listener is given out once, and a descriptor that is no listening socket is left alone.

use std::ffi::OsString;
use std::path::Path;

use thiserror::Error;

use crate::descriptor::OwnedDescriptor;
use crate::listener::{BindError, BoundSocket};
use crate::sys::inherited;

/// The descriptor of the first passed listener.
pub const LISTEN_FD: i32 = 3;

/// The name that a backend's listener has in `LISTEN_FDNAMES`.
pub const LISTEN_NAME: &str = "backend";

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
    match PassedListener::find(std::env::var_os::<&str>, std::process::id())? {
        Some(passed) => inherited::take_listener(passed, path).map(Some),
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
    fn find(
        variable: impl Fn(&'static str) -> Option<OsString>,
        own_pid: u32,
    ) -> Result<Option<Self>, ActivationError> {
        let number = |name, expected| match variable(name) {
            None => Ok(None),
            Some(value) => match value.to_str().and_then(|text| text.parse::<u32>().ok()) {
                Some(number) => Ok(Some(number)),
                None => Err(ActivationError::NotANumber { variable: name, expected, value }),
            },
        };
        if number("LISTEN_PID", "a process id")? != Some(own_pid) {
            return Ok(None);
        }
        let count = number("LISTEN_FDS", "how many descriptors were passed")?.unwrap_or(0);
        let Some(names) = variable("LISTEN_FDNAMES") else {
            return Ok((count == 1).then_some(Self(LISTEN_FD)));
        };
        let names = names.as_encoded_bytes().split(|byte| *byte == b':');
        let named = (LISTEN_FD..).zip(names).take(count as usize);
        let mut backends = named.filter(|(_, name)| *name == LISTEN_NAME.as_bytes());
        Ok(backends.next().map(|(number, _)| Self(number)))
    }

    pub(crate) const fn number(&self) -> i32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 42;

    fn find(variables: &[(&str, &str)]) -> Result<Option<i32>, ActivationError> {
        let lookup = |name: &'static str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        PassedListener::find(lookup, OWN).map(|passed| passed.map(|passed| passed.number()))
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
