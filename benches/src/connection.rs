//! A whole connection through the broker's state machine, as the daemon drives it, without any I/O.

use std::sync::Arc;

use broker_core::admission::{ConnectionKey, RateLimit};
use broker_core::backends::Registration;
use broker_core::broker::{
    Action, Arrival, Broker, BrokerConfig, Decision, DefinitionCheck, FirstFrame, Input, PeerIdentity,
};
use broker_core::entropy::{BlockEntropy, SeededEntropy};
use broker_core::services::{FileStamp, TrustDomain};
use broker_protocol::BrokerInstance;

use crate::{ENDPOINT, definition, now, peer, version};

/// A broker with one registered backend of `build-cache` 1.4.2 that has been probed, and whose rate limit is
/// never reached.
pub struct Connections {
    broker: Broker<BlockEntropy<SeededEntropy>>,
    next: u64,
}

impl Default for Connections {
    fn default() -> Self {
        let mut config = BrokerConfig::new(BrokerInstance::Shared);
        config.hello.rate_limit = RateLimit::new(u32::MAX, 1);
        config.hello.domain = TrustDomain::Every;
        let mut broker = Broker::new(config, BlockEntropy::new(SeededEntropy::new(1)));
        let definition = Arc::new(definition("build-cache"));
        broker.register(Registration {
            service: definition.service().clone(),
            version: version(),
            endpoint: ENDPOINT.to_owned(),
            handoff_endpoint: None,
        });
        let mut connections = Self { broker, next: 0 };
        let stamp = FileStamp { modified_ns: 1, size: 1, inode: 1 };
        // It waits for the probe.
        let body = crate::request_body();
        assert!(
            connections.serve(&body, DefinitionCheck::Loaded(definition, stamp), &mut Vec::new()).is_none()
        );
        while let Some(action) = connections.broker.poll_action() {
            if let Action::Probe { slot, .. } = action {
                connections.broker.handle(now(), Input::Probed { slot, outcome: Ok(77) });
            }
        }
        connections
    }
}

impl Connections {
    /// From accepting a connection to having closed it, with the whole reply in `out`.
    ///
    /// # Panics
    /// The request has to wait.
    pub fn answer(&mut self, body: &[u8], out: &mut Vec<u8>) {
        self.serve(body, DefinitionCheck::Unchanged, out).expect("the backend runs");
        while self.broker.poll_action().is_some() {}
    }

    fn serve(&mut self, body: &[u8], definition: DefinitionCheck, out: &mut Vec<u8>) -> Option<()> {
        let key = ConnectionKey::new(self.next);
        self.next += 1;
        let (now, accepted) = (now(), now().monotonic);
        assert_eq!(self.broker.connected(now, key, PeerIdentity::Own(peer())), Arrival::Serve);
        let FirstFrame::Hello(admitted) = self.broker.first_frame(now, accepted, key, peer(), body) else {
            panic!("the fixture is a good Hello");
        };
        match self.broker.hello(now, accepted, key, &admitted, definition) {
            Decision::Reply(reply) => {
                out.clear();
                reply.encode(admitted.echo(), out);
                self.broker.disconnected(now, key);
                Some(())
            }
            Decision::Wait => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_protocol::prost::Message;
    use broker_protocol::wire::{Frame, HelloReply, hello_reply};

    use super::*;

    #[test]
    fn every_connection_comes_to_an_agreement() {
        let (mut connections, body, mut out) = (Connections::default(), crate::request_body(), Vec::new());
        for _ in 0..3 {
            connections.answer(&body, &mut out);
            let reply = HelloReply::decode(Frame::decode(&out[5..]).unwrap().payload).unwrap();
            assert!(matches!(reply.result, Some(hello_reply::Result::Negotiated(_))), "{reply:?}");
        }
    }
}
