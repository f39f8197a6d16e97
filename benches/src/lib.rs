//! What the benches share: a negotiation that is ready to be asked, and load on servers.

#![allow(clippy::expect_used, clippy::panic, reason = "the fixtures are constants")]

pub mod connection;
pub mod load;

use std::process::ExitCode;

use broker_core::admission::{PeerKey, RateLimit};
use broker_core::entropy::{BlockEntropy, SeededEntropy};
use broker_core::handoff::HandoffLimits;
use broker_core::hello::{BackendHandoff, HelloConfig, HelloHandler, HelloRequest, Reply, Request};
use broker_core::services::Definition;
use broker_core::time::{Monotonic, Now, UnixMillis};
use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, Hello, ServiceDefinition};
use broker_protocol::{Capabilities, PayloadProtocol, Version};

/// A handler with one live backend of `build-cache` 1.4.2.
pub type Handler = HelloHandler<BlockEntropy<SeededEntropy>>;

/// How much a handler knows beside the service that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Services, the one that is asked for among them; each has a live backend.
    pub services: usize,
    /// Peers that have said Hello before.
    pub peers: u32,
}

impl Scale {
    /// One service, and nobody else who asks.
    pub const SMALL: Self = Self { services: 1, peers: 1 };
}

/// A handler whose rate limit is never reached, whose clients are all `peer()`.
pub fn handler(handoff: BackendHandoff, scale: Scale) -> Handler {
    let config = HelloConfig {
        rate_limit: RateLimit::new(u32::MAX, 1),
        handoff: HandoffLimits { capacity: 1_024, per_backend: 1_024, ..HandoffLimits::default() },
        ..HelloConfig::default()
    };
    let mut handler = HelloHandler::new(config, BlockEntropy::new(SeededEntropy::new(1)));
    for number in 1..scale.services {
        register(&mut handler, &format!("other-{number}"), handoff);
    }
    register(&mut handler, "build-cache", handoff);
    for pid in 1..scale.peers {
        // Whether it is granted does not matter here: now the peer is known.
        let _ = handler.spend_permit(Now::default(), PeerKey::new(1000, Some(5_000 + pid)));
    }
    handler
}

/// An endpoint of the usual length.
const ENDPOINT: &str =
    "/run/user/1000/running-process/broker/rpb-v1-9bfab56ad37b16cc-be-000102030405060708090a0b0c0d0e0f.sock";

fn register(handler: &mut Handler, service: &str, handoff: BackendHandoff) {
    handler.register(definition(service), version(), ENDPOINT, handoff);
}

fn version() -> Version {
    Version::parse("1.4.2").expect("a version")
}

/// An executable that need not be there.
const BINARY: &str = if cfg!(windows) { r"C:\bin\build-cached.exe" } else { "/usr/bin/build-cached" };

fn definition(service: &str) -> Definition {
    let definition = Definition::new(&ServiceDefinition {
        service_name: service.into(),
        binary_path: BINARY.into(),
        min_version: "1.2.0".into(),
        ..ServiceDefinition::default()
    });
    definition.expect("a definition")
}

/// The client that asks.
pub const fn peer() -> PeerKey {
    PeerKey::new(1000, Some(4_242))
}

/// The body of its request.
pub fn request_body() -> Vec<u8> {
    request_body_for("build-cache")
}

/// The body of its request for a service; those that are not asked for otherwise are `other-1`, `other-2`, …
pub fn request_body_for(service: &str) -> Vec<u8> {
    let hello = Hello {
        client_min_protocol: 1,
        client_max_protocol: 1,
        service_name: service.into(),
        wanted_version: "1.4.2".into(),
        client_version: "3.0.15".into(),
        client_capabilities: Capabilities::HANDLE_PASSING.bits(),
        peer_pid: 4_242,
        client_lib_name: "running-process".into(),
        client_lib_version: "3.0.15".into(),
        ..Hello::default()
    };
    let mut frame = Frame::request(PayloadProtocol::CONTROL, 7, hello.encode_to_vec());
    frame.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
    frame.encode_to_vec()
}

/// The moment at which everything here is asked.
pub const fn now() -> Now {
    Now::new(Monotonic::from_nanos(1), UnixMillis::new(1_700_000_000_000))
}

/// The Hello in a request's body.
///
/// # Panics
/// There is none.
pub fn request(body: &[u8]) -> HelloRequest<'_> {
    match Request::decode(body) {
        Ok(Request::Hello(request)) => request,
        other => panic!("the fixture is a Hello, not {other:?}"),
    }
}

/// Gives a token's place back, as an acknowledgement would.
///
/// # Panics
/// The reply is no agreement.
pub fn settle(handler: &mut Handler, reply: Reply) {
    match reply {
        Reply::Negotiated(negotiation) => {
            if negotiation.token.is_some() {
                handler.handoffs().revoke(negotiation.connection_id);
            }
        }
        other => panic!("expected an agreement, got {other:?}"),
    }
}

/// From a request's body to the whole reply in `out`, and the place of its token given back.
pub fn answer(handler: &mut Handler, body: &[u8], out: &mut Vec<u8>) {
    let request = request(body);
    let reply = handler.handle_request(now(), peer(), &request);
    out.clear();
    reply.encode(&request.echo, out);
    settle(handler, reply);
}

/// How a program ends on a system that has not what it measures or measures with.
pub fn needs(program: &str, system: &str) -> ExitCode {
    eprintln!("{program}: this load needs {system}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixture_comes_to_an_agreement() {
        for (handoff, length) in [(BackendHandoff::DialOnly, 5), (BackendHandoff::Plain, 5 + 18)] {
            let mut answer = Vec::new();
            handler(handoff, Scale::SMALL).handle_frame(Now::default(), peer(), &request_body(), &mut answer);
            let frame = Frame::decode(&answer[5..]).unwrap();
            assert_eq!(frame.request_id, 7);
            assert!(answer.len() > 100 + length, "an agreement names the endpoint");
        }
    }

    #[test]
    fn a_hello_allocates_nothing_once_there_is_a_buffer_for_the_reply() {
        for handoff in [BackendHandoff::DialOnly, BackendHandoff::Plain] {
            let (mut handler, body) = (handler(handoff, Scale::SMALL), request_body());
            let mut out = Vec::with_capacity(1_024);
            // The first one makes its peer known.
            answer(&mut handler, &body, &mut out);
            let counted = allocation_counter::measure(|| {
                (0..10_000).for_each(|_| answer(&mut handler, &body, &mut out));
            });
            assert_eq!(counted.count_total, 0, "{handoff:?}");
        }
    }
}
