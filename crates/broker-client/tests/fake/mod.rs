//! Brokers and backends that say whatever a test wants, and both halves of the client asking them.

pub(crate) mod bytes;
mod place;
pub(crate) mod session;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use broker_client::{
    AdminError, AdminReply, AdminRequest, AdminVerb, Agreement, Hello, HelloError, blocking,
};
use broker_transport::frame_io::read_frame_body;
use broker_transport::listener::{BindOptions, BoundSocket, Listener};
use broker_transport::stream::Stream;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use bytes::Fields;
pub(crate) use place::Place;

/// Far beyond what anything here takes: reaching it is a failure, not a matter of speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) frame: Fields,
}

impl Request {
    /// The payload, where it is a message.
    pub(crate) fn payload(&self) -> Fields {
        Fields::parse(self.frame.text(4))
    }

    pub(crate) fn id(&self) -> u64 {
        self.frame.number(5)
    }
}

/// What came, in order.
type Heard = Arc<Mutex<Vec<Request>>>;

type Script = Box<dyn Fn(&Request) -> Vec<u8> + Send + Sync>;

/// What happens to a connection.
enum Manner {
    /// A request is read, the script's bytes are sent, the connection is closed.
    Reply(Script),
    /// The same, but the connection stays open.
    Stall(Script),
    /// A request is read, and the script's bytes are sent over and over until the client has left.
    Flood(Script),
    /// The bytes are sent and the connection is closed, without a byte being read.
    Unread(Vec<u8>),
    /// Requests are read and the script's bytes are sent until the client has enough.
    Converse(Arc<Script>),
}

/// A broker or a backend in a thread of its own; ends when it is dropped.
pub(crate) struct FakeServer {
    place: Place,
    requests: Heard,
    connections: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    /// Answers each request with what `script` makes of it, and closes.
    pub(crate) fn replying(script: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(Manner::Reply(Box::new(script)))
    }

    /// Answers each request with what `script` makes of it, and leaves the connection open.
    pub(crate) fn stalling(script: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(Manner::Stall(Box::new(script)))
    }

    /// Sends what `script` makes of a request again and again.
    pub(crate) fn flooding(script: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(Manner::Flood(Box::new(script)))
    }

    /// Sends `bytes` on each connection without reading from it, and closes.
    pub(crate) fn unread(bytes: Vec<u8>) -> Self {
        Self::start(Manner::Unread(bytes))
    }

    /// Answers request after request on each connection with what `script` makes of it.
    pub(crate) fn conversing(script: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(Manner::Converse(Arc::new(Box::new(script))))
    }

    fn start(manner: Manner) -> Self {
        let place = Place::new();
        let socket = BoundSocket::bind(place.endpoint("fake.sock"), &BindOptions::default()).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&requests);
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&connections);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                tokio::select! {
                    () = serve(socket, manner, &heard, &accepted) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { place, requests, connections, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn endpoint(&self) -> PathBuf {
        self.place.endpoint("fake.sock")
    }

    /// Every request that came, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// How many connections came.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Says Hello, blocking and async.
    pub(crate) fn greet(&self) -> Vec<Result<Agreement, HelloError>> {
        self.greet_with(&hello(), PATIENCE)
    }

    pub(crate) fn greet_with(&self, hello: &Hello, timeout: Duration) -> Vec<Result<Agreement, HelloError>> {
        let endpoint = self.endpoint();
        vec![
            blocking::say_hello(&endpoint, hello, timeout),
            #[cfg(feature = "tokio")]
            runtime().block_on(broker_client::say_hello(&endpoint, hello, timeout)),
        ]
    }

    /// Asks for the status, blocking and async.
    pub(crate) fn inquire(&self) -> Vec<Result<AdminReply, AdminError>> {
        let endpoint = self.endpoint();
        let request = AdminRequest { verb: AdminVerb::Status.into(), json: true, ..AdminRequest::default() };
        vec![
            blocking::admin(&endpoint, &request),
            #[cfg(feature = "tokio")]
            runtime().block_on(broker_client::admin(&endpoint, &request)),
        ]
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the fake panicked");
    }
}

async fn serve(socket: BoundSocket, manner: Manner, heard: &Heard, accepted: &AtomicUsize) {
    let listener = Listener::from_bound(socket).unwrap();
    let mut open = Vec::new();
    let mut conversations = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().stream,
            Some(ended) = conversations.join_next() => {
                // A script that panicked is the test's failure.
                ended.unwrap();
                continue;
            }
        };
        accepted.fetch_add(1, Ordering::Relaxed);
        match &manner {
            Manner::Reply(script) => drop(reply(&stream, script, heard).await),
            Manner::Stall(script) => {
                reply(&stream, script, heard).await;
                open.push(stream);
            }
            Manner::Flood(script) => {
                if let Some(bytes) = reply(&stream, script, heard).await {
                    while stream.send_all(&bytes).await.is_ok() {}
                }
            }
            Manner::Converse(script) => {
                let (script, heard) = (Arc::clone(script), Arc::clone(heard));
                conversations.spawn(async move { while reply(&stream, &script, &heard).await.is_some() {} });
            }
            // Whoever sent a request meanwhile need not be there any more.
            Manner::Unread(bytes) => {
                drop(stream.send_all(bytes).await);
                if cfg!(windows) {
                    // Who is gone before the client has looked is nobody there, and what it said is not read.
                    drop(stream.peek(&mut [0]).await);
                }
            }
        }
    }
}

/// Answers the next request, and gives the answer; none where the client has left.
async fn reply(stream: &Stream, script: &Script, heard: &Heard) -> Option<Vec<u8>> {
    let body = read_frame_body(stream, 65_536).await.ok()?;
    let request = Request { frame: Fields::parse(&body) };
    let bytes = script(&request);
    heard.lock().unwrap().push(request);
    // A client that has seen enough may be gone.
    stream.send_all(&bytes).await.ok()?;
    Some(bytes)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A Hello that is as good as another.
pub(crate) fn hello() -> Hello {
    Hello::new("cache".parse().unwrap(), "1.2.3".parse().unwrap())
}
