//! Connections that a broker passes to a backend of plain v1, with peers on both sides that know only
//! bytes (protocol.md, "Conversations" 4 and 6).
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::io::{ErrorKind, Write};

use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, HandoffAck, Hello, Negotiated};
use broker_tests::{Daemon, PATIENCE, PlainBackend, Signal, Wire, World, agreed, hello, is_listening};

const BIT_0: u64 = 1;
const BIT_32: u64 = 1 << 32;

/// A broker with one registered backend.
struct Scene {
    world: World,
    backend: PlainBackend,
    broker: Daemon,
    /// Descriptors of a broker that has probed its backend and has nothing else to do.
    at_rest: usize,
}

impl Scene {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(definition: &[&str]) -> Self {
        let world = World::new();
        world.define("cache", definition);
        let backend = PlainBackend::bind(&world);
        let broker = world.serve(&["--backend", &backend.option("1.2.3")]);
        agreed(world.connect().say(&hello("cache", "1.2.3")));
        let at_rest = broker.descriptors_at_rest();
        Self { world, backend, broker, at_rest }
    }

    /// A client that has said Hello and has its reply.
    fn client(&self) -> (Wire, Negotiated) {
        let mut client = self.world.connect();
        let negotiated = agreed(client.say(&hello_with(BIT_0)));
        assert_eq!((negotiated.handle_passed_token.len(), negotiated.server_capabilities), (16, BIT_0));
        (client, negotiated)
    }

    /// A client that could be passed on gets a reply that promises nothing.
    fn is_sent_to_dial(&self) {
        let mut client = self.world.connect();
        let negotiated = agreed(client.say(&hello_with(BIT_0)));
        assert_eq!((negotiated.handle_passed_token.len(), negotiated.server_capabilities), (0, 0));
        assert_eq!(client.rest(), [0; 0]);
        assert_eq!(self.world.handoffs("unsent"), 1);
    }

    /// The client dials, as it does where nothing came of the handoff.
    fn dial(&self) {
        assert_eq!(Wire::connect(self.backend.endpoint()).tell("dialled"), "dialled");
    }

    /// Nothing is left of any handoff, and the broker serves as before.
    fn is_at_rest(&self) {
        self.broker.wait_for_descriptors(self.at_rest);
        agreed(self.world.connect().say(&hello("cache", "1.2.3")));
    }
}

fn hello_with(capabilities: u64) -> Hello {
    Hello { client_capabilities: capabilities, ..hello("cache", "1.2.3") }
}

/// The acknowledgement in the event that tells a client of its handoff.
fn event(client: &mut Wire) -> HandoffAck {
    let frame = client.receive();
    assert_eq!((frame.envelope_version, frame.kind, frame.payload_protocol), (1, 2, 0xD0FF));
    assert_eq!(frame.request_id, 7, "the id of the Hello");
    HandoffAck::decode(frame.payload).unwrap()
}

#[test]
fn an_accepted_connection_is_the_backend_s_and_its_client_is_told() {
    let scene = Scene::new();
    let (mut client, negotiated) = scene.client();
    let mut offer = scene.backend.next_offer();
    assert_eq!(offer.token, negotiated.handle_passed_token, "the descriptor came with the token alone");
    assert_eq!(offer.offer.token, negotiated.handle_passed_token);
    assert_eq!(offer.offer.correlation_id, negotiated.connection_id);
    assert_eq!(offer.offer.service_name, "cache");
    assert_eq!(offer.offer.handle_value == 0, cfg!(unix), "a descriptor comes with its message");
    assert!(offer.offer.hello_reply_frame.is_empty(), "that is an extension");
    offer.accept();
    let ack = event(&mut client);
    assert!(ack.accepted);
    assert_eq!((ack.token, ack.correlation_id), (offer.token.clone(), negotiated.connection_id));
    offer.broker.wait_for_end();
    scene.broker.wait_for_descriptors(scene.at_rest);

    client.send(&Frame { payload_protocol: 0xF001, request_id: 3, payload: "hi".into(), ..plain() });
    let mut backend = offer.client();
    assert_eq!(backend.receive().payload, "hi");
    backend.send(&Frame { kind: 1, request_id: 3, payload: "ho".into(), ..plain() });
    assert_eq!(client.receive().payload, "ho");
    assert_eq!(scene.world.handoffs("accepted"), 1);
    scene.is_at_rest();
}

fn plain() -> Frame {
    Frame { envelope_version: 1, ..Frame::default() }
}

#[test]
fn a_rejected_connection_ends_and_its_client_dials() {
    let scene = Scene::new();
    let (mut client, _) = scene.client();
    let mut broker = scene.backend.next_offer().reject();
    assert_eq!(client.rest(), [0; 0], "no event, and the end at once");
    broker.wait_for_end();
    scene.dial();
    assert_eq!(scene.world.handoffs("rejected"), 1);
    scene.is_at_rest();
}

#[test]
fn an_answer_with_another_token_or_id_settles_nothing() {
    let scene = Scene::new();
    let (mut client, negotiated) = scene.client();
    let mut offer = scene.backend.next_offer();
    let (token, id) = (offer.token.clone(), negotiated.connection_id);
    let mut almost = token.clone();
    almost[15] ^= 1;
    for accepted in [true, false] {
        offer.answer(&almost, accepted, id);
        offer.answer(&token, accepted, id + 1);
        offer.answer(&token[..15], accepted, id);
        offer.answer(&token, accepted, 0);
    }
    offer.accept();
    assert!(event(&mut client).accepted);
    offer.broker.wait_for_end();
    assert_eq!((scene.world.handoffs("accepted"), scene.world.handoffs("rejected")), (1, 0));
    scene.is_at_rest();
}

#[test]
fn the_second_answer_to_an_offer_means_nothing() {
    let scene = Scene::new();
    let (mut client, negotiated) = scene.client();
    let mut offer = scene.backend.next_offer();
    let (token, id) = (offer.token.clone(), negotiated.connection_id);
    let twice =
        [broker_tests::acknowledgement(&token, true, id), broker_tests::acknowledgement(&token, false, id)];
    offer.broker.write(&twice.concat());
    assert!(event(&mut client).accepted);
    offer.broker.wait_for_end();
    let mut backend = offer.client();
    backend.write(b"mine");
    drop((backend, offer));
    assert_eq!(client.rest(), b"mine", "one event, then the backend's bytes alone");
    assert_eq!((scene.world.handoffs("accepted"), scene.world.handoffs("rejected")), (1, 0));
    scene.is_at_rest();
}

#[test]
fn a_late_answer_is_no_answer() {
    let scene = Scene::new();
    let (mut client, negotiated) = scene.client();
    let mut offer = scene.backend.next_offer();
    // The broker's deadline of 5 s.
    offer.broker.wait_for_end();
    scene.broker.wait_for_descriptors(scene.at_rest);
    assert_eq!(scene.world.handoffs("expired"), 1);
    let answer = broker_tests::acknowledgement(&offer.token, true, negotiated.connection_id);
    let error = offer.broker.try_write(&answer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    // The backend has its copy still, and nobody else.
    offer.client.write_all(b"late").unwrap();
    drop(offer);
    assert_eq!(client.rest(), b"late");
    scene.dial();
    scene.is_at_rest();
}

#[test]
fn a_backend_that_leaves_at_any_step_costs_its_client_no_more_than_the_handoff() {
    let scene = Scene::new();
    let steps: [fn(&PlainBackend); 4] = [
        |backend| drop(backend.accept()),
        |backend| {
            let connection = backend.accept();
            drop(connection.receive_carried());
        },
        |backend| drop(backend.next_offer()),
        |backend| {
            let mut offer = backend.next_offer();
            let answer = broker_tests::acknowledgement(&offer.token, true, offer.offer.correlation_id);
            offer.broker.write(&answer[..answer.len() / 2]);
        },
    ];
    // On Windows the handle is in the backend's table before it is told of it, and stays there until its process
    // ends: here, that of the test. So what shows is who leaves once it has taken the handle.
    let steps = if cfg!(windows) { &steps[2..] } else { &steps[..] };
    for step in steps {
        let (mut client, _) = scene.client();
        step(&scene.backend);
        assert_eq!(client.rest(), [0; 0]);
        scene.dial();
        scene.is_at_rest();
    }
    assert_eq!(scene.world.handoffs("accepted") + scene.world.handoffs("expired"), 0);
}

#[test]
fn an_answer_that_is_no_frame_ends_the_wait() {
    let scene = Scene::new();
    for answer in [&b"HTTP/1.1 200 OK"[..], &[1, 1, 0, 0, 0, 0xFF], &[1, 0xFF, 0xFF, 0xFF, 0x7F]] {
        let (mut client, _) = scene.client();
        let mut offer = scene.backend.next_offer();
        offer.broker.write(answer);
        offer.broker.wait_for_end();
        drop(offer);
        assert_eq!(client.rest(), [0; 0]);
        scene.is_at_rest();
    }
    assert_eq!(scene.world.handoffs("lost"), 3);
}

#[test]
fn where_nobody_takes_offers_none_is_promised() {
    let scene = Scene::new();
    scene.backend.take_no_more_offers();
    scene.is_sent_to_dial();
    scene.dial();
    scene.is_at_rest();
}

#[test]
fn a_connection_is_given_to_no_other_process_than_the_backend() {
    let scene = Scene::new();
    scene.backend.take_no_more_offers();
    let mut other = scene.world.command(&World::program("echo-backend"));
    let _other = Daemon::spawn(other.args(["--endpoint", scene.backend.offers_at().to_str().unwrap()]));
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_listening(scene.backend.offers_at()) {
        assert!(std::time::Instant::now() < deadline, "it does not listen");
        std::thread::yield_now();
    }
    scene.is_sent_to_dial();
    scene.is_at_rest();
}

#[test]
fn a_client_that_leaves_at_any_step_leaves_nothing_behind() {
    let scene = Scene::new();
    // Before its reply is read: whether an offer comes depends on who is faster.
    for _ in 0..20 {
        let mut client = scene.world.connect();
        client.send(&Frame { request_id: 7, payload: hello_with(BIT_0).encode_to_vec().into(), ..plain() });
    }
    // With its reply, and before the backend has answered.
    let (client, negotiated) = scene.client();
    drop(client);
    loop {
        let mut offer = scene.backend.next_offer();
        offer.accept();
        offer.broker.wait_for_end();
        if offer.offer.correlation_id == negotiated.connection_id {
            break;
        }
    }
    scene.is_at_rest();
}

#[test]
fn only_a_client_that_offers_bit_0_and_no_early_data_is_passed_to_a_plain_backend() {
    let scene = Scene::new();
    for capabilities in [0, !BIT_0, BIT_32, BIT_0 | BIT_32, u64::MAX] {
        let mut client = scene.world.connect();
        let negotiated = agreed(client.say(&hello_with(capabilities)));
        assert_eq!((negotiated.handle_passed_token.len(), negotiated.server_capabilities), (0, 0));
        assert_eq!(client.rest(), [0; 0]);
    }
    assert!(scene.backend.is_left_alone());
}

#[test]
fn a_service_can_forbid_it() {
    let scene = Scene::with(&["--label", "handoff.enabled=false"]);
    let mut client = scene.world.connect();
    let negotiated = agreed(client.say(&hello_with(BIT_0)));
    assert_eq!((negotiated.handle_passed_token.len(), negotiated.server_capabilities), (0, 0));
    assert!(scene.backend.is_left_alone());
}

#[test]
fn a_stalled_backend_has_at_most_64_offers_and_delays_nobody() {
    let scene = Scene::new();
    let waiting: Vec<_> = (0..64).map(|_| scene.client()).collect();
    // Nothing was accepted yet: the backend is as good as stopped.
    let mut client = scene.world.connect();
    let negotiated = agreed(client.say(&hello_with(BIT_0)));
    assert_eq!((negotiated.handle_passed_token.len(), negotiated.server_capabilities), (0, 0));
    let mut offers: Vec<_> = waiting.iter().map(|_| scene.backend.next_offer()).collect();
    assert!(scene.backend.is_left_alone());
    offers.iter_mut().for_each(broker_tests::ReceivedOffer::accept);
    for (mut client, negotiated) in waiting {
        assert_eq!(event(&mut client).correlation_id, negotiated.connection_id);
    }
    offers.iter_mut().for_each(|offer| offer.broker.wait_for_end());
    scene.client();
    scene.backend.next_offer().accept();
    scene.is_at_rest();
}

#[test]
fn what_a_client_sends_too_early_is_the_backend_s_to_read() {
    let scene = Scene::new();
    let mut client = scene.world.connect();
    let hello = Frame { request_id: 7, payload: hello_with(BIT_0).encode_to_vec().into(), ..plain() };
    let early = Frame { payload_protocol: 0xF001, payload: "early".into(), ..plain() };
    let wire = |frame: &Frame| broker_tests::frame_of(&frame.encode_to_vec());
    client.write(&[wire(&hello), wire(&early)].concat());
    let mut offer = scene.backend.next_offer();
    offer.accept();
    assert_eq!(offer.client().receive().payload, "early", "not a byte of it was read by the broker");
    agreed(broker_tests::reply_of(&client.receive()));
    assert!(event(&mut client).accepted);
}

#[test]
fn a_broker_that_ends_with_offers_out_ends_in_time() {
    let mut scene = Scene::new();
    let (mut client, _) = scene.client();
    let offer = scene.backend.next_offer();
    scene.broker.signal(Signal::TERM);
    assert_eq!(scene.broker.wait(), Some(0));
    drop(offer);
    assert_eq!(client.rest(), [0; 0]);
}

#[test]
fn an_answer_on_another_offer_s_connection_settles_nothing() {
    let scene = Scene::new();
    let (mut one, _) = scene.client();
    let mut first = scene.backend.next_offer();
    let (mut two, _) = scene.client();
    let mut second = scene.backend.next_offer();
    let answer = broker_tests::acknowledgement(&second.token, true, second.offer.correlation_id);
    first.broker.write(&answer);
    second.accept();
    assert!(event(&mut two).accepted, "where it belongs it counts");
    first.accept();
    assert!(event(&mut one).accepted, "and this one waits for its own");
    assert_eq!(scene.world.handoffs("accepted"), 2);
}

#[test]
fn answers_that_settle_nothing_are_not_taken_for_ever() {
    let scene = Scene::new();
    let answers = |offer: &mut broker_tests::ReceivedOffer, count: usize| {
        let stray = broker_tests::acknowledgement(&offer.token, true, u64::MAX);
        offer.broker.write(&stray.repeat(count));
    };
    let (mut client, _) = scene.client();
    let mut offer = scene.backend.next_offer();
    answers(&mut offer, 64);
    offer.accept();
    assert!(event(&mut client).accepted);
    let (mut client, _) = scene.client();
    let mut offer = scene.backend.next_offer();
    answers(&mut offer, 65);
    offer.broker.wait_for_end();
    drop(offer);
    assert_eq!(client.rest(), [0; 0]);
    scene.is_at_rest();
}
