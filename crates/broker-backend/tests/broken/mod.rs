//! A service written by hand, without the crate under test, that keeps every rule but the one it is told to
//! break.
//!
//! It runs on the runtime of whoever checks it, so that a byte which is sent by itself is read by itself.

mod offers;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_protocol::prost::Message;
use broker_protocol::wire::{DaemonProcess, Endpoint, Frame};
use broker_transport::descriptor::OwnedDescriptor;
use broker_transport::identity;
use broker_transport::listener::{BindOptions, BoundSocket, Listener};
use broker_transport::stream::Stream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// The service's name.
pub(crate) const SERVICE: &str = "by-hand";
/// An exchange of its older format.
pub(crate) const OLD: (&str, &str) = ("is anybody there?\n", "IS ANYBODY THERE?\n");

/// The lane of a request that it answers.
pub(crate) const OWN_LANE: u32 = 0xF001;

/// The rule that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    AnswersInAnotherFraming,
    ForgetsRequestId,
    ForgetsTraceContext,
    AnswersAsRequest,
    AnswersOnAnotherLane,
    ForgetsTheIdOfWhatIsNoProbe,
    CutsTheNonce,
    ClaimsAnotherPid,
    ClaimsAnotherBoot,
    ClaimsAnotherExecutable,
    ClaimsAnotherEndpoint,
    TakesItsTime,
    ServesOneFramePerConnection,
    AnswersNonceOf(usize),
    WantsFramesInFewPieces,
    ReadsOneFrameAtATime,
    DiesOfAnotherFramingByte,
    DiesOfWhatIsNoFrame,
    EndsEverybodyForATruncatedFrame,
    DiesOfAnUnknownLane,
    ReadsWhatIsTooLong,
    SwallowsTheFirstByteOfTheOldFormat,
    WantsTheOldFormatInFewPieces,
    RefusesFramesBesideAnOldClient,
    EndsFramesForAnOldClient,
    RefusesFramesInsideTheOldFormat,
    RefusesPiecesInsideTheOldFormat,
    AcknowledgesAnotherToken,
    DropsWhatItAccepted,
    WantsOffersInFewPieces,
    AcceptsAnotherToken,
    AcceptsNoDescriptor,
    KeepsWhatItRejected,
    DiesOfAClientThatIsGone,
    KeepsACopyOfEachConnection,
    LeavesAFileOpenPerOffer,
}

/// Most reads that "few pieces" are.
const FEW: usize = 3;

/// Connections that are served late where that is the fault: all of those that time is measured on.
const LATE: std::ops::RangeInclusive<usize> = 2..=6;

/// A service that runs.
pub(crate) struct Broken {
    pub(crate) endpoint: PathBuf,
    pub(crate) offers: PathBuf,
    _serving: JoinSet<()>,
}

struct State {
    fault: Fault,
    endpoint: PathBuf,
    connections: AtomicUsize,
    old_at_hand: AtomicUsize,
    reading: tokio::sync::Mutex<()>,
    kept: Mutex<Vec<Kept>>,
    is_doomed: watch::Sender<bool>,
    /// Ends every connection that waits for a frame.
    ends_all: Notify,
}

#[allow(dead_code, reason = "kept for being open")]
enum Kept {
    Connection(OwnedDescriptor),
    File(File),
}

/// A conversation is over.
struct Over;

impl Broken {
    pub(crate) fn start(fault: Fault, [endpoint, offers]: [PathBuf; 2]) -> Self {
        let state = Arc::new(State {
            fault,
            endpoint: endpoint.clone(),
            connections: AtomicUsize::new(0),
            old_at_hand: AtomicUsize::new(0),
            reading: tokio::sync::Mutex::default(),
            kept: Mutex::default(),
            is_doomed: watch::Sender::new(false),
            ends_all: Notify::new(),
        });
        let listener = listen(&endpoint);
        let mut serving = JoinSet::new();
        serving.spawn(accept(listen(&offers), Arc::clone(&state), offers::take));
        serving.spawn(accept(listener, state, serve));
        Self { endpoint, offers, _serving: serving }
    }
}

fn listen(path: &Path) -> Listener {
    Listener::from_bound(BoundSocket::bind(path, &BindOptions::default()).unwrap()).unwrap()
}

/// Serves until the service dies; then nobody listens any more.
async fn accept<A>(listener: Listener, state: Arc<State>, serve: impl Fn(Stream, Arc<State>) -> A)
where
    A: Future<Output = ()> + Send + 'static,
{
    let mut is_doomed = state.is_doomed.subscribe();
    loop {
        tokio::select! {
            _ = is_doomed.wait_for(|is_doomed| *is_doomed) => return,
            accepted = listener.accept() => {
                tokio::spawn(serve(accepted.unwrap().stream, Arc::clone(&state)));
            }
        }
    }
}

async fn serve(stream: Stream, state: Arc<State>) {
    let number = state.connections.fetch_add(1, Ordering::Relaxed) + 1;
    if state.fault == Fault::TakesItsTime && LATE.contains(&number) {
        tokio::time::sleep(Duration::from_millis(510)).await;
    }
    let Ok(first) = read(&stream, 1).await else { return };
    let _ = if first[0].is_ascii_lowercase() {
        serve_old(&stream, first[0], &state).await
    } else {
        serve_frames(&stream, first[0], &state).await
    };
}

/// A line in, the same line in capitals out.
async fn serve_old(stream: &Stream, first: u8, state: &State) -> Result<(), Over> {
    state.old_at_hand.fetch_add(1, Ordering::Relaxed);
    let mut line = vec![first];
    if state.fault == Fault::SwallowsTheFirstByteOfTheOldFormat {
        line.clear();
    }
    let mut reads = 1;
    while line.last() != Some(&b'\n') {
        let mut space = [0; 64];
        let count = stream.read_some(&mut space).await.unwrap_or(0);
        reads += 1;
        if count == 0 || (state.fault == Fault::WantsTheOldFormatInFewPieces && reads > FEW) {
            break;
        }
        line.extend(&space[..count]);
    }
    let is_whole = line.last() == Some(&b'\n');
    if is_whole {
        let _ = stream.send_all(&line.to_ascii_uppercase()).await;
    }
    match state.fault {
        Fault::RefusesFramesBesideAnOldClient => drop(read(stream, 1).await),
        Fault::EndsFramesForAnOldClient => state.ends_all.notify_waiters(),
        _ => {}
    }
    state.old_at_hand.fetch_sub(1, Ordering::Relaxed);
    if is_whole { Ok(()) } else { Err(Over) }
}

async fn serve_frames(stream: &Stream, first: u8, state: &State) -> Result<(), Over> {
    let mut first = first;
    loop {
        let is_refused = match state.fault {
            Fault::RefusesFramesBesideAnOldClient | Fault::RefusesFramesInsideTheOldFormat => {
                state.old_at_hand.load(Ordering::Relaxed) > 0
            }
            _ => false,
        };
        if is_refused {
            return Err(Over);
        }
        let turn = state.reading.lock().await;
        let held = (state.fault == Fault::ReadsOneFrameAtATime).then_some(turn);
        let frame = read_frame(stream, first, state).await?;
        drop(held);
        stream.send_all(&answer(&frame, state).await?).await.map_err(|_| Over)?;
        if state.fault == Fault::ServesOneFramePerConnection {
            return Err(Over);
        }
        first = tokio::select! {
            byte = read(stream, 1) => byte?[0],
            () = state.ends_all.notified() => return Err(Over),
        };
    }
}

async fn read_frame(stream: &Stream, first: u8, state: &State) -> Result<Frame, Over> {
    if first != 1 {
        return Err(dies_of(Fault::DiesOfAnotherFramingByte, state).await);
    }
    let few = state.fault == Fault::WantsFramesInFewPieces;
    let body = match read_body(stream, state, few).await {
        Ok(body) => body,
        Err(Ended::InTheMiddle) => {
            if state.fault == Fault::EndsEverybodyForATruncatedFrame {
                state.ends_all.notify_waiters();
            }
            return Err(Over);
        }
        Err(Ended::TooLong) => return Err(Over),
    };
    match Frame::decode(&body[..]) {
        Ok(frame) => Ok(frame),
        Err(_) => Err(dies_of(Fault::DiesOfWhatIsNoFrame, state).await),
    }
}

enum Ended {
    InTheMiddle,
    TooLong,
}

/// The length and the body.
async fn read_body(stream: &Stream, state: &State, few: bool) -> Result<Vec<u8>, Ended> {
    let mut reads = 0;
    let mut bytes = Vec::new();
    let mut wanted = 4;
    while bytes.len() < wanted {
        let mut space = vec![0; (wanted - bytes.len()).min(64 * 1024)];
        let count = stream.read_some(&mut space).await.unwrap_or(0);
        reads += 1;
        let few = few
            || (state.fault == Fault::RefusesPiecesInsideTheOldFormat
                && state.old_at_hand.load(Ordering::Relaxed) > 0);
        if count == 0 || (few && reads > FEW) {
            return Err(Ended::InTheMiddle);
        }
        bytes.extend(&space[..count]);
        if bytes.len() == 4 {
            let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
            if length > 16 * 1024 * 1024 && state.fault != Fault::ReadsWhatIsTooLong {
                return Err(Ended::TooLong);
            }
            wanted += length;
        }
    }
    Ok(bytes.split_off(4))
}

/// Dies, if this is what it dies of; returns when nobody listens any more.
async fn dies_of(fault: Fault, state: &State) -> Over {
    if state.fault == fault {
        state.is_doomed.send_replace(true);
        while Stream::connect(&state.endpoint).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
    Over
}

async fn answer(request: &Frame, state: &State) -> Result<Vec<u8>, Over> {
    let fault = state.fault;
    if request.payload_protocol == 0xE0E0 {
        dies_of(Fault::DiesOfAnUnknownLane, state).await;
    }
    let mut answer = Frame { kind: 1, deadline_unix_ms: 0, ..request.clone() };
    if request.payload_protocol == 0xB232 {
        let length = request.payload.len();
        if length != 32 && fault != Fault::AnswersNonceOf(length) {
            return Err(Over);
        }
        let nonce = if fault == Fault::CutsTheNonce { length - 1 } else { length };
        let process = own_process(state).encode_to_vec();
        answer.payload = [&request.payload[..nonce], &process].concat().into();
    }
    match fault {
        Fault::ForgetsRequestId => answer.request_id = 0,
        Fault::ForgetsTraceContext => answer.tracestate.clear(),
        Fault::AnswersAsRequest => answer.kind = 0,
        Fault::AnswersOnAnotherLane => answer.payload_protocol = 0xF001,
        Fault::ForgetsTheIdOfWhatIsNoProbe if request.payload_protocol == OWN_LANE => answer.request_id = 0,
        _ => {}
    }
    let mut bytes = framed(&answer.encode_to_vec());
    if fault == Fault::AnswersInAnotherFraming {
        bytes[0] = 2;
    }
    Ok(bytes)
}

fn own_process(state: &State) -> DaemonProcess {
    let own = std::process::id();
    let mut process = DaemonProcess {
        pid: own,
        boot_id: identity::boot_id().unwrap(),
        ipc_endpoint: Some(Endpoint { path: state.endpoint.to_str().unwrap().into(), ..Endpoint::default() }),
        exe_hash_algorithm: "blake3".into(),
        exe_hash: own_hash().to_vec(),
        ..DaemonProcess::default()
    };
    match state.fault {
        Fault::ClaimsAnotherPid => process.pid += 1,
        Fault::ClaimsAnotherBoot => process.boot_id.push('0'),
        Fault::ClaimsAnotherExecutable => process.exe_hash[31] ^= 1,
        Fault::ClaimsAnotherEndpoint => process.ipc_endpoint = None,
        _ => {}
    }
    process
}

fn own_hash() -> [u8; 32] {
    static HASH: std::sync::OnceLock<[u8; 32]> = std::sync::OnceLock::new();
    *HASH.get_or_init(|| identity::hash_process_executable(std::process::id()).unwrap())
}

impl State {
    fn keep(&self, kept: Kept) {
        self.kept.lock().unwrap().push(kept);
    }
}

async fn read(stream: &Stream, count: usize) -> Result<Vec<u8>, Over> {
    let mut bytes = vec![0; count];
    match stream.read_some(&mut bytes).await {
        Ok(read) if read == count => Ok(bytes),
        _ => Err(Over),
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&[1][..], &u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}
