//! Which broker: the user's shared one, a service's own, or a named one (protocol.md, "Names and places").

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use thiserror::Error;

use crate::name::{InstanceName, NameError, ServiceName};

/// A broker, and thereby a trust domain: each serves only the services that belong to it.
///
/// ```
/// use broker_protocol::BrokerInstance;
///
/// let instance: BrokerInstance = "svc:zccache".parse()?;
/// assert_eq!(instance.to_string(), "svc:zccache");
/// # Ok::<(), broker_protocol::InstanceParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BrokerInstance {
    /// The user's shared broker.
    Shared,
    /// The private broker of one service.
    Service(ServiceName),
    /// A broker with a name of its own.
    Named(InstanceName),
}

impl Display for BrokerInstance {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => f.write_str("shared"),
            Self::Service(name) => write!(f, "svc:{name}"),
            Self::Named(name) => write!(f, "inst:{name}"),
        }
    }
}

/// Why a text names no broker.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InstanceParseError {
    /// Neither `shared` nor one of the two prefixes.
    #[error("expected 'shared', 'svc:NAME' or 'inst:NAME', got {actual:?}")]
    Form {
        /// What came.
        actual: String,
    },
    /// The part behind the prefix is no name.
    #[error("in {actual:?}: {source}")]
    Name {
        /// What came.
        actual: String,
        /// Which rule it breaks.
        source: NameError,
    },
}

impl FromStr for BrokerInstance {
    type Err = InstanceParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad_name = |source| InstanceParseError::Name { actual: text.to_owned(), source };
        match text.split_once(':') {
            None if text == "shared" => Ok(Self::Shared),
            Some(("svc", name)) => ServiceName::parse(name).map(Self::Service).map_err(bad_name),
            Some(("inst", name)) => InstanceName::parse(name).map(Self::Named).map_err(bad_name),
            _ => Err(InstanceParseError::Form { actual: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_round_trips() {
        for text in ["shared", "svc:build-cache", "inst:ci-1"] {
            assert_eq!(
                text.parse::<BrokerInstance>().map(|instance| instance.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_expected_forms() {
        for text in ["", "Shared", "svc", "service:x", "shared:"] {
            assert!(matches!(text.parse::<BrokerInstance>(), Err(InstanceParseError::Form { .. })), "{text}");
        }
        assert!(matches!("svc:".parse::<BrokerInstance>(), Err(InstanceParseError::Name { .. })));
        assert!(matches!("inst:a b".parse::<BrokerInstance>(), Err(InstanceParseError::Name { .. })));
    }
}
