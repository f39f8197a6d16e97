//! What becomes of the connection to the broker once its reply is there (protocol.md, "Conversations" 4 and
//! "Extensions"; behaviour.md, section 10).
//!
//! It reads; who waits and who dials is decided by the sessions. Invariant: a connection counts as the
//! backend's only where its owner has written the reply, or where the event that says so shows the
//! agreement's own token.

use std::time::Duration;

use broker_protocol::Capabilities;
use broker_protocol::bytes::Bytes;
use broker_protocol::handoff::{Acknowledgement, Verdict};
use broker_protocol::prost::Message;
use broker_protocol::wire::Frame;

use crate::agreement::Agreement;

/// How long the news of a handoff is waited for before the backend is dialled.
pub(crate) const ADOPTION_LIMIT: Duration = Duration::from_secs(2);

/// Longest body of the event that brings the news, in bytes.
pub(crate) const MAX_EVENT_BODY: usize = 4 * 1024;

/// Whose the connection is after the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    /// The broker's, which closes it: the backend is dialled.
    None,
    /// The backend's, if the event comes that says so.
    ToBeTold,
    /// The backend's: it has written the reply.
    Done,
}

impl Agreement {
    pub(crate) const fn handover(&self) -> Handover {
        match &self.token {
            None => Handover::None,
            Some(_) if self.capabilities.contains(Capabilities::EARLY_DATA) => Handover::Done,
            Some(_) => Handover::ToBeTold,
        }
    }

    /// Whether a frame's body is the news that the backend has this connection.
    pub(crate) fn is_adopted_by(&self, body: Bytes) -> bool {
        let event = Frame::decode(body).ok().and_then(|frame| Acknowledgement::from_event(frame).ok());
        event.is_some_and(|event| {
            event.verdict == Verdict::Accepted
                && Some(&event.token) == self.token.as_ref()
                && event.connection == self.connection_id
        })
    }
}

#[cfg(test)]
mod tests {
    use broker_protocol::handoff::Offer;
    use broker_protocol::{ConnectionId, HandoffToken};

    use super::*;

    fn agreement(capabilities: Capabilities, token: Option<[u8; 16]>) -> Agreement {
        Agreement {
            daemon_version: "1.2.3".parse().unwrap(),
            backend_pipe: "/run/backend.sock".into(),
            warnings: Vec::new(),
            capabilities,
            keepalive: Duration::ZERO,
            token: token.map(HandoffToken::from_bytes),
            connection_id: ConnectionId::new(9).unwrap(),
        }
    }

    fn offer(token: u8, connection: u64) -> Offer {
        Offer {
            token: HandoffToken::from_bytes([token; 16]),
            service: "cache".parse().unwrap(),
            connection: ConnectionId::new(connection).unwrap(),
            request_id: 1,
            reply: None,
            handle_value: 0,
        }
    }

    #[test]
    fn an_owner_that_has_written_the_reply_needs_no_event() {
        let both = Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA;
        assert_eq!(agreement(both, Some([7; 16])).handover(), Handover::Done);
        assert_eq!(agreement(Capabilities::HANDLE_PASSING, Some([7; 16])).handover(), Handover::ToBeTold);
        for capabilities in [Capabilities::empty(), Capabilities::EARLY_DATA] {
            assert_eq!(agreement(capabilities, None).handover(), Handover::None);
        }
    }

    #[test]
    fn only_the_acceptance_of_this_very_handoff_is_news() {
        let agreement = agreement(Capabilities::HANDLE_PASSING, Some([7; 16]));
        let is_news = |frame: Frame| agreement.is_adopted_by(frame.encode_to_vec().into());
        assert!(is_news(Acknowledgement::accept(&offer(7, 9)).to_event(1)));
        assert!(!is_news(Acknowledgement::reject(&offer(7, 9), "full").to_event(1)));
        assert!(!is_news(Acknowledgement::accept(&offer(8, 9)).to_event(1)));
        assert!(!is_news(Acknowledgement::accept(&offer(7, 8)).to_event(1)));
        assert!(!is_news(Acknowledgement::accept(&offer(7, 9)).to_response()));
        assert!(!agreement.is_adopted_by(Bytes::from_static(b"\xFF")));
    }
}
