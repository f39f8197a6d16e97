//! What a client says first: the two decoders agree, and a Hello that is admitted keeps every rule.

use broker_core::admission::PeerKey;
use broker_core::hello::{Admitted, HelloRequest};
use broker_protocol::prost::Message;
use broker_protocol::wire::Hello;
use broker_protocol::{Echo, HelloView};

use crate::names::{is_name, is_version};
use crate::seed::{Seed, encoded, seed, vector};

/// The process that the kernel names; the seeds know it.
const PID: u32 = 4242;

/// Takes the bytes for the payload of a control request.
pub fn target(bytes: &[u8]) {
    let decoded = Hello::decode(bytes);
    let view = HelloView::decode(bytes);
    let (hello, view) = match (decoded, view) {
        (Ok(hello), Ok(view)) => (hello, view),
        (Err(_), Err(error)) => {
            assert!(error.offset <= bytes.len(), "the fault lies in the bytes");
            return;
        }
        (decoded, view) => panic!("one decoder takes what the other does not: {decoded:?}, {view:?}"),
    };
    assert_same(&hello, &view);
    let encoded = hello.encode_to_vec();
    assert!(Hello::decode(&encoded[..]).is_ok_and(|again| again == hello), "what is written is read again");
    assert_same(&hello, &HelloView::decode(&encoded).expect("the view reads what is written"));
    let request = HelloRequest { echo: Echo::default(), deadline: None, hello: view };
    for pid in [None, Some(PID)] {
        is_admitted_by_the_rules(&hello, &request, pid);
    }
}

fn assert_same(hello: &Hello, view: &HelloView<'_>) {
    assert_eq!(view.client_min_protocol, hello.client_min_protocol);
    assert_eq!(view.client_max_protocol, hello.client_max_protocol);
    assert_eq!(view.service_name, hello.service_name);
    assert_eq!(view.wanted_version, hello.wanted_version);
    assert_eq!(view.client_version, hello.client_version);
    assert_eq!(view.client_capabilities, hello.client_capabilities);
    assert_eq!(view.request_id, hello.request_id);
    assert_eq!(view.connection_id, hello.connection_id);
    assert_eq!(view.peer_pid, hello.peer_pid);
    assert_eq!(view.client_lib_name, hello.client_lib_name);
    assert_eq!(view.client_lib_version, hello.client_lib_version);
    assert_eq!(view.client_keepalive_secs, hello.client_keepalive_secs);
}

/// Rows 11 to 13, said once more in the plainest words.
pub(crate) fn keeps_the_rules(hello: &Hello, pid: Option<u32>) -> bool {
    hello.client_min_protocol <= 1
        && hello.client_max_protocol >= 1
        && is_name(&hello.service_name)
        && is_version(&hello.wanted_version)
        && hello.client_version.len() <= 128
        && hello.client_lib_name.len() <= 64
        && hello.client_lib_version.len() <= 64
        && (hello.peer_pid == 0 || pid.is_none_or(|pid| pid == hello.peer_pid))
}

fn is_admitted_by_the_rules(hello: &Hello, request: &HelloRequest<'_>, pid: Option<u32>) {
    match Admitted::check(PeerKey::new(1000, pid), request) {
        Ok(admitted) => {
            assert!(keeps_the_rules(hello, pid), "{hello:?} is admitted");
            assert_eq!(admitted.service(), hello.service_name);
            assert_eq!(admitted.capabilities().bits(), hello.client_capabilities);
            assert_eq!(admitted.keepalive_secs(), hello.client_keepalive_secs);
            assert_eq!(admitted.request_id(), hello.request_id);
        }
        Err(refusal) => {
            assert!(!keeps_the_rules(hello, pid), "{hello:?} is refused: {refusal}");
            let refused = refusal.to_wire();
            assert!(refused.reason.len() < 4_096, "a refusal repeats no long text");
            assert_eq!((refused.daemon_min_protocol, refused.daemon_max_protocol), (1, 1));
        }
    }
}

/// A Hello that is admitted.
pub(crate) fn good() -> Hello {
    Hello {
        client_min_protocol: 1,
        client_max_protocol: 1,
        service_name: "cache".into(),
        wanted_version: "1.2.3".into(),
        client_version: "0.9.0".into(),
        client_capabilities: 1 | (1 << 32),
        request_id: "req-1".into(),
        peer_pid: PID,
        client_lib_name: "lib".into(),
        client_lib_version: "2.0.0".into(),
        client_keepalive_secs: 60,
        ..Hello::default()
    }
}

/// Good ones, and one for each rule that can be broken.
pub fn seeds() -> Vec<Seed> {
    vec![
        vector("Hello"),
        seed("empty", []),
        encoded("good", &good()),
        encoded("pre-release", &Hello { wanted_version: "01.2.3-rc.007".into(), ..good() }),
        encoded("another-protocol", &Hello { client_min_protocol: 2, client_max_protocol: 3, ..good() }),
        encoded("protocols-in-the-wrong-order", &Hello { client_min_protocol: 2, ..good() }),
        encoded("bad-name", &Hello { service_name: "Build Cache".into(), ..good() }),
        encoded("longest-name", &Hello { service_name: "n".repeat(64), ..good() }),
        encoded("bad-version", &Hello { wanted_version: "1.2".into(), ..good() }),
        encoded(
            "overflowing-version",
            &Hello { wanted_version: "18446744073709551616.0.0".into(), ..good() },
        ),
        encoded("long-client-version", &Hello { client_version: "v".repeat(129), ..good() }),
        encoded("long-library", &Hello { client_lib_name: "ü".repeat(33), ..good() }),
        encoded("another-process", &Hello { peer_pid: 7, ..good() }),
        seed("twice", [good().encode_to_vec(), good().encode_to_vec()].concat()),
        seed("cut", &good().encode_to_vec()[..9]),
    ]
}
