//! The answer to a Hello.

use std::sync::Arc;

use broker_protocol::wire::{HelloReply, Negotiated, hello_reply};
use broker_protocol::{
    Capabilities, ConnectionId, Echo, HandoffToken, NegotiatedParts, PROTOCOL_VERSION, Refusal,
    encode_negotiated, encode_refused,
};

use super::route::Route;

/// An agreement with one client.
#[derive(Clone, Debug)]
pub struct Negotiation {
    /// Where the backend is.
    pub route: Arc<Route>,
    /// What this broker and that backend can do.
    pub capabilities: Capabilities,
    /// Keepalive interval, in seconds.
    pub keepalive_secs: u64,
    /// The handoff token, where one was issued.
    pub token: Option<HandoffToken>,
    /// The negotiation's id.
    pub connection_id: ConnectionId,
}

/// Whether the client's connection goes to the backend, and who writes the reply then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// It stays here; the client dials.
    None,
    /// It is offered once the broker has written the reply, and the client is told of the outcome.
    AfterReply,
    /// It is offered together with the reply, which its new owner writes.
    WithReply,
}

impl Negotiation {
    /// What is to become of the client's connection.
    pub const fn handover(&self) -> Handover {
        match &self.token {
            None => Handover::None,
            Some(_) if self.capabilities.contains(Capabilities::EARLY_DATA) => Handover::WithReply,
            Some(_) => Handover::AfterReply,
        }
    }

    /// The same agreement for a connection that is not passed: the client dials.
    #[must_use]
    pub fn without_handover(self) -> Self {
        Self { token: None, capabilities: Capabilities::empty(), ..self }
    }
}

/// The answer to a Hello.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The backend is there.
    Negotiated(Negotiation),
    /// It is not, and why.
    Refused(Refusal),
}

impl Reply {
    /// Appends the whole response frame, framing header included, to `out`.
    pub fn encode(&self, echo: &Echo<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Negotiated(negotiation) => {
                let parts = NegotiatedParts {
                    prefix: negotiation.route.prefix(),
                    server_capabilities: negotiation.capabilities,
                    keepalive_secs: negotiation.keepalive_secs,
                    token: negotiation.token.as_ref(),
                    connection_id: negotiation.connection_id,
                };
                encode_negotiated(echo, &parts, out);
            }
            Self::Refused(refusal) => encode_refused(echo, refusal.to_wire(), out),
        }
    }

    /// The message on the wire.
    pub fn to_wire(&self) -> HelloReply {
        let result = match self {
            Self::Negotiated(negotiation) => hello_reply::Result::Negotiated(Negotiated {
                negotiated_protocol: PROTOCOL_VERSION,
                daemon_version: negotiation.route.version().to_string(),
                backend_pipe: negotiation.route.endpoint().to_owned(),
                warnings: negotiation.route.warnings().to_vec(),
                server_capabilities: negotiation.capabilities.bits(),
                keepalive_interval_secs: negotiation.keepalive_secs,
                handle_passed_token: negotiation
                    .token
                    .as_ref()
                    .map(|token| token.as_bytes().to_vec())
                    .unwrap_or_default(),
                connection_id: negotiation.connection_id.get(),
            }),
            Self::Refused(refusal) => hello_reply::Result::Refused(refusal.to_wire()),
        };
        HelloReply { result: Some(result) }
    }
}
