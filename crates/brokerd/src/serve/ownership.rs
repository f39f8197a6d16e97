//! Who owns a client's connection (protocol.md, "Conversations" 6).
//!
//! A connection is [`Held`] until it is offered to a backend. From then on it is [`Lent`]: the backend may
//! have it, and this copy of it can only be lent to the offer, or dropped. Only a proof gives it back: that
//! nothing was sent, or the backend's definite answer. Invariant: no method of [`Lent`] reads, writes or
//! shuts down.

use broker_core::handoff::{Acceptance, Rejection};
use broker_protocol::ConnectionId;
use broker_transport::descriptor::BorrowedDescriptor;
use broker_transport::fd_passing::FdPassError;
use broker_transport::stream::{BlockingMode, Stream};

use super::connection::Open;
use super::shell::InFlight;
use super::succession::HeldBack;

/// A client's connection and its place in the accounts: it counts as open, and as being answered, for as
/// long as there is a copy of it here.
struct Client {
    stream: Stream,
    _open: Open,
    in_flight: Option<InFlight>,
    /// Nobody goes on as another program while it is not settled who has it.
    _held_back: HeldBack,
}

/// A connection that is the broker's.
pub(super) struct Held(Client);

impl Held {
    pub(super) const fn new(stream: Stream, open: Open, in_flight: InFlight, held_back: HeldBack) -> Self {
        Self(Client { stream, _open: open, in_flight: Some(in_flight), _held_back: held_back })
    }

    pub(super) const fn stream(&self) -> &Stream {
        &self.0.stream
    }

    /// Its client has its answer; what comes now is not waited for where the broker ends.
    pub(super) fn answered(&mut self) {
        self.0.in_flight = None;
    }

    /// Begins to offer it, under the negotiation's id.
    pub(super) fn lend(self, connection: ConnectionId) -> Lent {
        Lent { client: self.0, connection }
    }
}

/// A connection that is on offer.
pub(super) struct Lent {
    client: Client,
    connection: ConnectionId,
}

impl Lent {
    /// What is sent with the offer.
    pub(super) fn descriptor(&self) -> BorrowedDescriptor<'_> {
        self.client.stream.descriptor()
    }

    /// The offer did not leave: an error of sending a descriptor means that nothing was sent.
    pub(super) fn not_sent(self, _proof: &FdPassError) -> Held {
        Held(self.client)
    }

    /// The backend does not want it, and has closed its copy. A proof for another connection drops this one.
    pub(super) fn rejected(self, proof: &Rejection) -> Option<Held> {
        if proof.connection() != self.connection {
            return None;
        }
        // Whoever had it may have changed that for both.
        if let Err(error) = self.client.stream.set_blocking(BlockingMode::NonBlocking) {
            tracing::debug!(%error, "a connection that came back is not as it was");
        }
        Some(Held(self.client))
    }

    /// The backend has taken it. A proof for another connection drops this one.
    pub(super) fn accepted(self, proof: &Acceptance) -> Option<Farewell> {
        (proof.connection() == self.connection).then_some(Farewell(self.client))
    }
}

/// A connection that has become a backend's, with a last word to its client.
pub(super) struct Farewell(Client);

impl Farewell {
    /// Tells the client; it is not waited for. One that has no room for the event gives up by itself.
    pub(super) fn say(self, event: &[u8]) {
        match self.0.stream.try_write_blocking(event) {
            Ok(sent) if sent == event.len() => {}
            Ok(_) => tracing::debug!("a client has no room for the news of its handoff"),
            Err(error) => tracing::debug!(%error, "a client was not told of its handoff"),
        }
    }
}
