//! Where a live backend is, ready to be told to clients.

use broker_protocol::{Capabilities, RoutePrefix, Version};

use crate::handoff::BackendSlot;

/// Whether a backend takes connections that the broker passes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendHandoff {
    /// It has a control connection, and writes the reply itself where the client allows it.
    Control,
    /// It has a control connection, and leaves the reply to the broker.
    ControlOffers,
    /// It has an endpoint that is dialled for each offer: plain v1.
    Plain,
    /// Clients dial it.
    DialOnly,
}

impl BackendHandoff {
    /// Its stable word, as `dump` shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::ControlOffers => "control-offers",
            Self::Plain => "plain",
            Self::DialOnly => "dial-only",
        }
    }

    /// What such a backend can do, and the broker with it.
    pub const fn capabilities(self) -> Capabilities {
        match self {
            Self::Control => Capabilities::HANDLE_PASSING.union(Capabilities::EARLY_DATA),
            Self::ControlOffers | Self::Plain => Capabilities::HANDLE_PASSING,
            Self::DialOnly => Capabilities::empty(),
        }
    }

    /// Whether a client that can do this may be passed to it. One that may have written a request behind
    /// its Hello is not passed to a plain backend: that would answer it before the news of the handoff is
    /// written, and two owners would write at once (docs/decisions, 9).
    pub const fn suits(self, client: Capabilities) -> bool {
        let is_plain_client = !client.contains(Capabilities::EARLY_DATA);
        client.contains(Capabilities::HANDLE_PASSING)
            && match self {
                Self::Control => true,
                Self::ControlOffers | Self::Plain => is_plain_client,
                Self::DialOnly => false,
            }
    }
}

/// A live backend, as clients of one (service, version) see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    version: Version,
    endpoint: String,
    handoff: BackendHandoff,
    slot: BackendSlot,
    warnings: Box<[String]>,
    prefix: RoutePrefix,
}

impl Route {
    /// A route to the backend in `slot`, with the warnings its clients should see.
    pub fn new(
        version: Version,
        endpoint: impl Into<String>,
        handoff: BackendHandoff,
        slot: BackendSlot,
        warnings: &[String],
    ) -> Self {
        let endpoint = endpoint.into();
        let prefix = RoutePrefix::new(&version.to_string(), &endpoint, warnings);
        Self { version, endpoint, handoff, slot, warnings: warnings.into(), prefix }
    }

    /// The same route with other warnings.
    pub fn with_warnings(&self, warnings: &[String]) -> Self {
        Self::new(self.version.clone(), self.endpoint.clone(), self.handoff, self.slot, warnings)
    }

    /// The backend's version.
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether it takes passed connections.
    pub const fn handoff(&self) -> BackendHandoff {
        self.handoff
    }

    /// Its place in the backend table.
    pub const fn slot(&self) -> BackendSlot {
        self.slot
    }

    /// What an operator should look at.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What is the same in every reply that names it.
    pub const fn prefix(&self) -> &RoutePrefix {
        &self.prefix
    }
}
