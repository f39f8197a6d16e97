//! Names of services and broker instances: `[a-z0-9-]{1,64}` (protocol.md, "Name rules").
//!
//! Invariant: a value of one of these types satisfies the rule, so it is safe in a file name, a
//! socket path, an environment variable and a metric label.

use std::borrow::Borrow;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use thiserror::Error;

use crate::limits::MAX_NAME;

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a name has at least 1 byte")]
    Empty,
    /// More than 64 bytes.
    #[error("a name has at most {MAX_NAME} bytes, this one has {actual}")]
    TooLong {
        /// Its length in bytes.
        actual: usize,
    },
    /// A byte outside `[a-z0-9-]`.
    #[error("a name consists of a-z, 0-9 and '-'; the byte at offset {offset} is {byte:#04x}")]
    Character {
        /// Where, counted in bytes from 0.
        offset: usize,
        /// Which.
        byte: u8,
    },
}

impl NameError {
    /// The rule that was broken, as one stable word for `Refused.details`.
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLong { .. } => "length",
            Self::Character { .. } => "charset",
        }
    }
}

const fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME {
        return Err(NameError::TooLong { actual: text.len() });
    }
    match text.bytes().position(|byte| !is_name_byte(byte)) {
        Some(offset) => Err(NameError::Character { offset, byte: text.as_bytes()[offset] }),
        None => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Parses the name.
            ///
            /// # Errors
            /// [`NameError`] says which rule `text` breaks.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text).map(|()| Self(text.into()))
            }

            /// Checks the rule without keeping the name.
            ///
            /// # Errors
            /// [`NameError`] says which rule `text` breaks.
            pub fn check(text: &str) -> Result<(), NameError> {
                check(text)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// The name of a service.
    ///
    /// ```
    /// use broker_protocol::{NameError, ServiceName};
    ///
    /// assert_eq!(ServiceName::parse("build-cache")?.as_str(), "build-cache");
    /// assert_eq!(ServiceName::parse("Build"), Err(NameError::Character { offset: 0, byte: b'B' }));
    /// # Ok::<(), NameError>(())
    /// ```
    ServiceName
}

name_type! {
    /// The name of an explicit broker instance.
    InstanceName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_to_sixty_four_bytes() {
        assert_eq!(ServiceName::parse(""), Err(NameError::Empty));
        assert!(ServiceName::parse("a").is_ok());
        assert!(ServiceName::parse(&"a".repeat(64)).is_ok());
        assert_eq!(ServiceName::parse(&"a".repeat(65)), Err(NameError::TooLong { actual: 65 }));
    }

    #[test]
    fn every_byte_outside_the_set_is_refused() {
        for byte in 0..=127u8 {
            let text = format!("a{}", byte as char);
            let expected = byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert_eq!(ServiceName::parse(&text).is_ok(), expected, "{byte:#04x}");
            assert_eq!(InstanceName::parse(&text).is_ok(), expected, "{byte:#04x}");
        }
        assert_eq!(ServiceName::parse("aé"), Err(NameError::Character { offset: 1, byte: 0xC3 }));
    }
}
