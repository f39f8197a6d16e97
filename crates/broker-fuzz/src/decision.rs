//! The decision table (behaviour.md 2) over any first frame: the row that applies is the one that a plain reading of
//! the table says, and the reply is whole and echoes who asked.

use broker_core::admission::{PeerKey, RateLimit};
use broker_core::entropy::SeededEntropy;
use broker_core::handoff::HandoffLimits;
use broker_core::hello::{BackendHandoff, HandoffPlatform, HelloConfig, HelloHandler};
use broker_core::services::{Definition, TrustDomain};
use broker_core::time::{Monotonic, Now, UnixMillis};
use broker_protocol::prost::Message;
use broker_protocol::wire::{
    ErrorCode, Frame, FrameKind, Hello, HelloReply, Negotiated, Refused, ServiceDefinition, hello_reply,
};
use broker_protocol::{BrokerInstance, HEADER_LEN, PayloadProtocol, Version};

use crate::seed::{Seed, seed};
use crate::{definition, hello};

const PID: u32 = 4242;
/// The version of which a backend lives.
const LIVE: &str = "1.2.3";

/// Takes the first byte for a broker's configuration, the rest for the body of a first frame.
pub fn target(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    let setting = Setting::new(*choice);
    let mut handler = setting.handler();
    let first = setting.asks(&mut handler, body, Permits::Left);
    let left = if setting.is_tight() { Permits::Spent } else { Permits::Left };
    let second = setting.asks(&mut handler, body, left);
    if let (Some(first), Some(second)) = (first, second) {
        assert_ne!(first.connection_id, second.connection_id);
        let tokens = (&first.handle_passed_token, &second.handle_passed_token);
        assert!(tokens.0.is_empty() || tokens.0 != tokens.1, "no token is given twice");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Permits {
    Left,
    Spent,
}

/// A broker's configuration.
struct Setting {
    choice: u8,
    handoff: BackendHandoff,
    definition: ServiceDefinition,
}

impl Setting {
    fn new(choice: u8) -> Self {
        let handoff = match choice & 3 {
            0 => BackendHandoff::Control,
            1 => BackendHandoff::ControlOffers,
            2 => BackendHandoff::Plain,
            _ => BackendHandoff::DialOnly,
        };
        let (min_version, version_allow_list) = match (choice >> 4) & 3 {
            0 => ("", vec![]),
            1 => ("1.2.0", vec![]),
            2 => ("", vec!["1.2.3".into(), "2.0.0".into()]),
            _ => ("1.2.3", vec!["1.2.3-rc.1".into(), "1.2.3".into(), "3.0.0".into()]),
        };
        let mut definition = ServiceDefinition {
            isolation: 1,
            min_version: min_version.into(),
            version_allow_list,
            ..definition::good()
        };
        if choice & (1 << 6) != 0 {
            definition.labels.insert("handoff.enabled".into(), "false".into());
        }
        Self { choice, handoff, definition }
    }

    const fn platform(&self) -> HandoffPlatform {
        if self.choice & (1 << 2) == 0 { HandoffPlatform::Supported } else { HandoffPlatform::Unsupported }
    }

    const fn pid(&self) -> Option<u32> {
        if self.choice & (1 << 3) == 0 { Some(PID) } else { None }
    }

    /// Whether there is one permit and no more.
    const fn is_tight(&self) -> bool {
        self.choice & (1 << 7) != 0
    }

    fn handler(&self) -> HelloHandler<SeededEntropy> {
        let config = HelloConfig {
            rate_limit: if self.is_tight() { RateLimit::new(1, 1) } else { RateLimit::default() },
            domain: TrustDomain::Only(BrokerInstance::Shared),
            platform: self.platform(),
            // Places are reserved at the start; two are taken.
            handoff: HandoffLimits { capacity: 4, ..HandoffLimits::default() },
            ..HelloConfig::default()
        };
        let mut handler = HelloHandler::new(config, SeededEntropy::new(7));
        let live = Version::parse(LIVE).expect("a version");
        let of = |wire: &ServiceDefinition| Definition::new(wire).expect("the definition keeps the rules");
        handler.register(of(&self.definition), live.clone(), "/run/cached.sock", self.handoff);
        let elsewhere =
            ServiceDefinition { service_name: "elsewhere".into(), isolation: 0, ..definition::good() };
        handler.register(of(&elsewhere), live, "/run/elsewhere.sock", BackendHandoff::DialOnly);
        handler
    }

    /// Asks, and holds the answer against the table.
    fn asks(
        &self,
        handler: &mut HelloHandler<SeededEntropy>,
        body: &[u8],
        permits: Permits,
    ) -> Option<Negotiated> {
        let now = Now::new(Monotonic::from_nanos(1_000_000_000), UnixMillis::new(1_700_000_000_000));
        let mut out = Vec::new();
        handler.handle_frame(now, PeerKey::new(1000, self.pid()), body, &mut out);
        let asked = Frame::decode(body).ok();
        match (answer(&out, asked.as_ref()), self.row(asked.as_ref(), permits)) {
            (hello_reply::Result::Refused(refused), Err(code)) => {
                is_complete(&refused, code);
                None
            }
            (hello_reply::Result::Negotiated(negotiated), Ok(hello)) => {
                self.is_the_agreement(&hello, &negotiated);
                Some(negotiated)
            }
            (answer, expected) => panic!("answered {answer:?}, expected {expected:?}"),
        }
    }

    /// What the table says: the code of the first row that applies, or the Hello that is agreed with.
    fn row(&self, asked: Option<&Frame>, permits: Permits) -> Result<Hello, ErrorCode> {
        let frame = asked.ok_or(ErrorCode::ErrorPeerRejected)?;
        if frame.envelope_version != 1 {
            return Err(ErrorCode::ErrorVersionUnsupported);
        }
        // Neither an admin request nor an announcement is for the negotiation alone.
        if frame.kind != 0 || frame.payload_protocol != 0 || frame.payload_encoding != 0 {
            return Err(ErrorCode::ErrorPeerRejected);
        }
        let hello = Hello::decode(&frame.payload[..]).map_err(|_| ErrorCode::ErrorPeerRejected)?;
        if permits == Permits::Spent {
            return Err(ErrorCode::ErrorRateLimited);
        }
        if hello.client_min_protocol > 1 || hello.client_max_protocol < 1 {
            return Err(ErrorCode::ErrorVersionUnsupported);
        }
        if !hello::keeps_the_rules(&hello, self.pid()) {
            return Err(ErrorCode::ErrorPeerRejected);
        }
        if hello.service_name != "cache" {
            return Err(ErrorCode::ErrorServiceUnknown);
        }
        let wanted = Version::parse(&hello.wanted_version).expect("the rules are kept");
        let is = |text: &String| Version::parse(text).is_ok_and(|version| version == wanted);
        let definition = &self.definition;
        let is_old = Version::parse(&definition.min_version).is_ok_and(|minimum| wanted < minimum);
        let allowed = &definition.version_allow_list;
        if is_old || !allowed.is_empty() && !allowed.iter().any(is) {
            return Err(ErrorCode::ErrorVersionBlocked);
        }
        if is(&LIVE.to_owned()) { Ok(hello) } else { Err(ErrorCode::ErrorBackendSpawnFailed) }
    }

    fn is_the_agreement(&self, hello: &Hello, negotiated: &Negotiated) {
        const PASSING: u64 = 1;
        const EARLY: u64 = 1 << 32;
        assert_eq!((negotiated.negotiated_protocol, &negotiated.daemon_version[..]), (1, LIVE));
        assert_eq!(negotiated.backend_pipe, "/run/cached.sock");
        assert_ne!(negotiated.connection_id, 0);
        let wish = hello.client_keepalive_secs;
        assert_eq!(negotiated.keepalive_interval_secs, if wish == 0 { 1_800 } else { wish });
        assert_eq!(negotiated.warnings.len(), 1, "the definition has one label that is not known");
        let client = hello.client_capabilities;
        let backend = match self.handoff {
            BackendHandoff::Control => PASSING | EARLY,
            // A client that may write early is not passed to a backend that leaves the reply to the broker.
            BackendHandoff::ControlOffers | BackendHandoff::Plain if client & EARLY == 0 => PASSING,
            BackendHandoff::ControlOffers | BackendHandoff::Plain | BackendHandoff::DialOnly => 0,
        };
        let is_allowed = self.platform() == HandoffPlatform::Supported && self.choice & (1 << 6) == 0;
        let is_passed = is_allowed && client & backend & PASSING != 0;
        let in_force = if is_passed { client & backend } else { 0 };
        assert_eq!(negotiated.server_capabilities, in_force);
        assert_eq!(negotiated.handle_passed_token.len(), if is_passed { 16 } else { 0 });
    }
}

/// The reply in the one whole frame that was written.
fn answer(written: &[u8], asked: Option<&Frame>) -> hello_reply::Result {
    let (header, body) = written.split_first_chunk::<HEADER_LEN>().expect("a frame has a header");
    let [version, length @ ..] = *header;
    assert_eq!((version, u32::from_le_bytes(length) as usize), (1, body.len()), "one frame, and all of it");
    let frame = Frame::decode(body).expect("it is a frame");
    assert_eq!((frame.envelope_version, frame.kind()), (1, FrameKind::Response));
    assert_eq!(frame.lane(), PayloadProtocol::CONTROL);
    if let Some(asked) = asked {
        assert_eq!(frame.request_id, asked.request_id);
        assert_eq!((&frame.traceparent, &frame.tracestate), (&asked.traceparent, &asked.tracestate));
    }
    let reply = HelloReply::decode(frame.payload).expect("it is a reply");
    reply.result.expect("it agrees or refuses")
}

fn is_complete(refused: &Refused, code: ErrorCode) {
    assert_eq!(refused.code(), code, "{}", refused.reason);
    assert_eq!((refused.daemon_min_protocol, refused.daemon_max_protocol), (1, 1));
    assert!(!refused.reason.is_empty() && refused.encoded_len() < 8_192);
    let waits = match code {
        ErrorCode::ErrorRateLimited => 1..=1_000,
        ErrorCode::ErrorVersionBlocked => 30_000..=30_000,
        ErrorCode::ErrorBackendSpawnFailed => 1_000..=1_000,
        _ => 0..=0,
    };
    assert!(waits.contains(&refused.retry_after_ms), "{} ms", refused.retry_after_ms);
    assert_eq!(refused.details.is_empty(), code == ErrorCode::ErrorRateLimited, "{:?}", refused.details);
}

/// A first frame for each row, to brokers of several configurations.
pub fn seeds() -> Vec<Seed> {
    let frame = |hello: &Hello| Frame {
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        tracestate: "rp=1".into(),
        ..Frame::request(PayloadProtocol::CONTROL, 77, hello.encode_to_vec())
    };
    let to = |choice: u8, frame: &Frame| [&[choice][..], &frame.encode_to_vec()].concat();
    let good = hello::good();
    let wants = |version: &str| frame(&Hello { wanted_version: version.into(), ..good.clone() });
    let asks_for = |service: &str| frame(&Hello { service_name: service.into(), ..good.clone() });
    let plain = Hello { client_capabilities: 1, ..good.clone() };
    vec![
        seed("no-frame", [0, 0xFF, 0xFF]),
        seed("empty-frame", [0]),
        seed("another-envelope", to(0, &Frame { envelope_version: 2, ..frame(&good) })),
        seed("a-response", to(0, &Frame { kind: 1, ..frame(&good) })),
        seed("another-lane", to(0, &Frame { payload_protocol: 0xD0FF, ..frame(&good) })),
        seed("admin-lane", to(0, &Frame { payload_protocol: 0xAD01, ..frame(&good) })),
        seed("control-lane", to(0, &Frame { payload_protocol: 0xFBC0, ..frame(&good) })),
        seed("compressed", to(0, &Frame { payload_encoding: 1, ..frame(&good) })),
        seed("no-hello", to(0, &Frame { payload: vec![0x0A].into(), ..frame(&good) })),
        seed("another-protocol", to(0, &frame(&Hello { client_min_protocol: 2, ..good.clone() }))),
        seed("bad-service", to(0, &asks_for("Cache"))),
        seed("another-process", to(0, &frame(&Hello { peer_pid: 1, ..good.clone() }))),
        seed(
            "process-that-the-kernel-does-not-name",
            to(0x08, &frame(&Hello { peer_pid: 1, ..good.clone() })),
        ),
        seed("unknown-service", to(0, &asks_for("unknown"))),
        seed("service-of-another-broker", to(0, &asks_for("elsewhere"))),
        seed("below-the-minimum", to(0x10, &wants("1.2.0-rc.1"))),
        seed("not-in-the-list", to(0x20, &wants("1.2.4"))),
        seed("allowed-and-too-old", to(0x30, &wants("1.2.3-rc.1"))),
        seed("no-backend", to(0, &wants("2.0.0"))),
        seed("passed-with-the-reply", to(0, &frame(&good))),
        seed("passed-after-the-reply", to(1, &frame(&plain))),
        seed("passed-to-a-plain-backend", to(2, &frame(&plain))),
        seed("early-data-to-a-plain-backend", to(2, &frame(&good))),
        seed("dialled", to(3, &frame(&good))),
        seed("handoff-is-not-there", to(0x04, &frame(&good))),
        seed("handoff-is-switched-off", to(0x40, &frame(&good))),
        seed("one-permit", to(0x80, &frame(&good))),
    ]
}
