//! A backend's side of a control connection, with a broker that the test plays.

use std::sync::atomic::{AtomicUsize, Ordering};

use broker_protocol::control::{
    Admittance, Announcement, MAX_CONTROL_BODY, Quiesce, ReleaseHandles, UsageQuery,
};
use broker_protocol::handoff::Verdict;
use broker_protocol::prost::Message;
use broker_protocol::wire::{DaemonProcess, Frame};
use broker_protocol::{ConnectionId, HandoffToken, PayloadProtocol, frame_bytes};
use broker_transport::frame_io::read_frame_body;
use broker_transport::passing::Recipient;
use tokio::sync::watch;

use super::*;
use crate::handler::{Request, Response};
use crate::identity::Identity;

/// Counts how often it is told to quiesce, and lets nothing go but one path.
#[derive(Default)]
struct Counter {
    quiesced: AtomicUsize,
    idle: AtomicUsize,
}

impl Handler for Arc<Counter> {
    async fn handle(&self, request: Request) -> Response {
        if request.payload().as_ref() == b"panic" {
            panic!("as the test asks for");
        }
        request.into_payload().into()
    }

    async fn idle(&self) {
        self.idle.fetch_add(1, Ordering::Relaxed);
    }

    async fn quiesce(&self, limit: Duration) {
        assert_eq!(limit, Duration::from_millis(70));
        self.quiesced.fetch_add(1, Ordering::Relaxed);
    }

    async fn release_handles(&self, path: &Path) -> Result<(), String> {
        if path == Path::new("/free") { Ok(()) } else { Err("in use".to_owned()) }
    }
}

/// A backend's side, and the broker's end of its control connection.
struct Scene {
    counter: Arc<Counter>,
    near: Stream,
    broker: Broker<Arc<Counter>>,
    connections: Connections<Arc<Counter>>,
    _stop: watch::Sender<bool>,
}

impl Scene {
    async fn new() -> Self {
        let counter = Arc::new(Counter::default());
        let identity = Identity::fixed(DaemonProcess::default());
        let service = Arc::new(Service::new(Arc::clone(&counter), identity));
        let (near, far) = Stream::pair().unwrap();
        let announcement = Announcement { service_name: "cache".into(), ..Announcement::default() };
        let link = Link { announcement: Some(announcement), inherited: Some(far), broker: None };
        let broker = Broker::begin(link, &service);
        let (stop, is_stopping) = watch::channel(false);
        let connections = Connections::new(service, is_stopping);
        let scene = Self { counter, near, broker, connections, _stop: stop };
        scene.receive().await;
        scene
    }

    /// Lets the backend do what it does, until `wanted` has happened.
    async fn until<T>(&mut self, wanted: impl Future<Output = T>) -> T {
        let mut wanted = std::pin::pin!(wanted);
        loop {
            tokio::select! {
                biased;
                outcome = &mut wanted => return outcome,
                ended_by = self.connections.ended() => self.broker.connection_ended(ended_by),
                news = self.broker.next() => self.broker.take(news, &mut self.connections),
            }
        }
    }

    async fn receive(&self) -> Frame {
        receive(&self.near).await
    }

    async fn ask(&mut self, question: ControlMessage) -> ControlMessage {
        self.near.send_all(&frame_bytes(&question.to_frame(8)).unwrap()).await.unwrap();
        let near = Stream::from_owned_fd(self.near.try_clone_descriptor().unwrap()).unwrap();
        let answer = self.until(receive(&near)).await;
        assert_eq!(answer.request_id, 8);
        ControlMessage::from_frame(answer).unwrap()
    }

    /// Offers one end of a connection; the other end.
    async fn offer(&mut self, service: &str, reply: &'static str) -> Stream {
        let (passed, client) = Stream::pair().unwrap();
        let passage = Recipient::peer_of(&self.near).unwrap().prepare(passed.descriptor()).unwrap();
        let offer = Offer {
            token: HandoffToken::from_bytes([7; 16]),
            service: service.parse().unwrap(),
            connection: ConnectionId::new(9).unwrap(),
            request_id: 1,
            reply: (!reply.is_empty()).then(|| reply.into()),
            handle_value: passage.handle_value(),
        };
        let bytes = frame_bytes(&offer.to_frame()).unwrap();
        let sent = passage.send(&self.near, &bytes, passed.descriptor()).await.unwrap();
        assert_eq!(sent, bytes.len());
        client
    }

    async fn verdict(&mut self) -> Acknowledgement {
        let near = Stream::from_owned_fd(self.near.try_clone_descriptor().unwrap()).unwrap();
        let answer = self.until(receive(&near)).await;
        Acknowledgement::from_response(answer).unwrap()
    }
}

async fn receive(stream: &Stream) -> Frame {
    Frame::decode(read_frame_body(stream, MAX_CONTROL_BODY).await.unwrap()).unwrap()
}

fn request(payload: &'static str) -> Vec<u8> {
    frame_bytes(&Frame::request(PayloadProtocol::CLUD, 3, payload)).unwrap().to_vec()
}

#[tokio::test]
async fn the_broker_s_questions_are_answered() {
    let mut scene = Scene::new().await;
    let usage = |connections| ControlMessage::Usage(Usage { connections });
    assert_eq!(scene.ask(ControlMessage::UsageQuery(UsageQuery {})).await, usage(0));
    let _client = scene.offer("cache", "").await;
    assert_eq!(scene.verdict().await.verdict, Verdict::Accepted);
    assert_eq!(scene.ask(ControlMessage::UsageQuery(UsageQuery {})).await, usage(1));
    for (path, released, detail) in [("/free", true, ""), ("/held", false, "in use")] {
        let question = ControlMessage::ReleaseHandles(ReleaseHandles { path: path.into() });
        let answer = HandlesReleased { released, detail: detail.into() };
        assert_eq!(scene.ask(question).await, ControlMessage::HandlesReleased(answer));
    }
}

#[tokio::test]
async fn who_has_quiesced_takes_nothing_new_and_ends_what_it_has() {
    let mut scene = Scene::new().await;
    let client = scene.offer("cache", "").await;
    assert_eq!(scene.verdict().await.verdict, Verdict::Accepted);
    let quiesce = ControlMessage::Quiesce(Quiesce { deadline_ms: 70 });
    assert_eq!(scene.ask(quiesce).await, ControlMessage::Quiesced(Quiesced {}));
    assert!(scene.broker.has_quiesced() && scene.counter.quiesced.load(Ordering::Relaxed) == 1);
    client.send_all(&request("good day")).await.unwrap();
    assert_eq!(scene.until(receive(&client)).await.payload, "good day");
    let late = scene.offer("cache", "").await;
    assert!(matches!(scene.verdict().await.verdict, Verdict::Rejected { .. }));
    let mut byte = [0];
    assert_eq!(late.read_some(&mut byte).await.unwrap(), 0, "its copy is closed");

    drop(std::mem::replace(&mut scene.near, Stream::pair().unwrap().0));
    while scene.broker.has_quiesced() {
        let news = scene.broker.next().await;
        scene.broker.take(news, &mut scene.connections);
    }
}

#[tokio::test]
async fn an_offer_for_another_service_is_closed_and_rejected() {
    let mut scene = Scene::new().await;
    let client = scene.offer("other", "reply").await;
    let verdict = scene.verdict().await;
    assert!(matches!(&verdict.verdict, Verdict::Rejected { detail } if detail.contains("cache")));
    let mut byte = [0];
    assert_eq!(client.read_some(&mut byte).await.unwrap(), 0, "without a byte of the reply");
}

#[tokio::test]
async fn the_reply_comes_first_whatever_the_client_has_sent() {
    for early in ["", "good day"] {
        let mut scene = Scene::new().await;
        let client = scene.offer("cache", "the reply").await;
        if !early.is_empty() {
            client.send_all(&request(early)).await.unwrap();
        }
        let mut reply = [0; 9];
        let read = async {
            let mut filled = 0;
            while filled < reply.len() {
                filled += client.read_some(&mut reply[filled..]).await.unwrap();
            }
        };
        scene.until(read).await;
        assert_eq!(&reply, b"the reply");
        if early.is_empty() {
            client.send_all(&request("good day")).await.unwrap();
        }
        assert_eq!(scene.until(receive(&client)).await.payload, "good day");
        assert_eq!(scene.verdict().await.verdict, Verdict::Accepted, "within its time");
    }
}

#[tokio::test]
async fn a_panic_at_the_first_look_closes_its_connection_alone() {
    let mut scene = Scene::new().await;
    let client = scene.offer("cache", "the reply").await;
    client.send_all(&request("panic")).await.unwrap();
    let mut said = Vec::new();
    let end = async {
        let mut part = [0; 64];
        loop {
            match client.read_some(&mut part).await.unwrap_or(0) {
                0 => break,
                count => said.extend_from_slice(&part[..count]),
            }
        }
    };
    scene.until(end).await;
    assert_eq!(said, b"the reply", "so the client knows that its request was begun");
    assert_eq!(scene.verdict().await.verdict, Verdict::Accepted);
    let usage = scene.ask(ControlMessage::UsageQuery(UsageQuery {})).await;
    assert_eq!(usage, ControlMessage::Usage(Usage { connections: 0 }));
}

#[tokio::test]
async fn the_idle_hook_runs_when_the_last_connection_has_ended() {
    let mut scene = Scene::new().await;
    let clients = [scene.offer("cache", "").await, scene.offer("cache", "").await];
    for _ in &clients {
        assert_eq!(scene.verdict().await.verdict, Verdict::Accepted);
    }
    assert_eq!(scene.counter.idle.load(Ordering::Relaxed), 0);
    drop(clients);
    let counter = Arc::clone(&scene.counter);
    scene
        .until(async {
            while counter.idle.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    assert_eq!(scene.counter.idle.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_broker_that_has_admitted_this_process_is_dialled_soon_when_it_comes_back() {
    let mut scene = Scene::new().await;
    scene.broker.pause = PAUSE.1;
    let admitted = ControlMessage::Admittance(Admittance { admitted: true, reason: String::new() });
    scene.near.send_all(&frame_bytes(&admitted.to_frame(1)).unwrap()).await.unwrap();
    let news = scene.broker.next().await;
    scene.broker.take(news, &mut scene.connections);
    scene.near = Stream::pair().unwrap().0;
    let news = scene.broker.next().await;
    scene.broker.take(news, &mut scene.connections);
    assert!(scene.broker.dial_at <= Instant::now() + PAUSE.0);
}

#[tokio::test]
async fn an_answer_does_not_go_to_the_next_broker() {
    let mut scene = Scene::new().await;
    let question = ControlMessage::Quiesce(Quiesce { deadline_ms: 70 });
    scene.broker.take(News::Event(Event::Asked(1, question)), &mut scene.connections);
    while scene.counter.quiesced.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    scene.broker.take(News::End(ControlEnd::Closed), &mut scene.connections);
    let (near, far) = Stream::pair().unwrap();
    scene.broker.announce(far);
    assert_eq!(receive(&near).await.request_id, 1, "the announcement");
    scene.near = near;
    let usage = scene.ask(ControlMessage::UsageQuery(UsageQuery {})).await;
    assert_eq!(usage, ControlMessage::Usage(Usage { connections: 0 }), "and then what this one asks for");
}
