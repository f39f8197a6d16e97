//! One endpoint, two wire formats: whoever a connection goes to gets all of it from the first byte on, and nobody else
//! a byte of it. Over real connections to a backend that serves both, with a handler for each of two lanes.

use std::io;
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arbitrary::{Arbitrary, Result, Unstructured};
use broker_backend::{
    Backend, FIRST_BYTES_LIMIT, Lanes, LegacyConnection, PayloadProtocol, Request, Stream, Verdict,
    detect_frames,
};
use broker_protocol::bytes::{Bytes, BytesMut};
use broker_protocol::limits::PROBE_NONCE;
use broker_protocol::prost::Message;
use broker_protocol::wire::Frame;
use broker_protocol::{FrameDecoder, frame_bytes};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::seed::{Seed, seed};

/// The lane whose handler gives back what it gets.
const ECHO: PayloadProtocol = PayloadProtocol::CLUD;
/// The lane whose handler says this.
const FIXED: (PayloadProtocol, &str) = (PayloadProtocol::FBUILD, "pong");

/// Takes the bytes for a way to cut, and what a client sends.
pub fn target(bytes: &[u8]) {
    let Ok(Script { cut, stream }) = Script::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let verdicts = looks(stream);
    is_never_theirs_if_it_is_served(stream);
    SERVED.with(|served| served.converses(stream, cut, &verdicts));
}

/// Who has got a connection.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    Ours,
    Theirs,
    Nobody,
}

/// How many bytes are written at once, and all of them.
struct Script<'a> {
    cut: usize,
    stream: &'a [u8],
}

impl<'a> Arbitrary<'a> for Script<'a> {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let cut = usize::from(u8::arbitrary(bytes)?).pow(2).max(1);
        Ok(Self { cut, stream: bytes.bytes(bytes.len())? })
    }
}

/// What the detector says of every beginning of a stream.
fn looks(stream: &[u8]) -> Vec<Verdict> {
    let longest = stream.len().min(FIRST_BYTES_LIMIT);
    let verdicts: Vec<_> = (1..=longest).map(|length| detect_frames(&stream[..length])).collect();
    for pair in verdicts.windows(2) {
        assert!(pair[0] != Verdict::Theirs || pair[1] == Verdict::Theirs, "what is no frame becomes none");
    }
    if longest == FIRST_BYTES_LIMIT {
        assert_ne!(verdicts.last(), Some(&Verdict::NeedMore), "at the limit it is decided");
    }
    verdicts
}

/// A frame that is served here is one to the detector too, in whatever order its fields are written.
fn is_never_theirs_if_it_is_served(stream: &[u8]) {
    let Ok(Some(body)) = FrameDecoder::new().body(&mut BytesMut::from(stream)) else { return };
    let Ok(frame) = Frame::decode(body) else { return };
    if !matches!(expected(&frame), Expected::Nothing | Expected::Answer(_) | Expected::Identity) {
        return;
    }
    let Frame { envelope_version, kind, payload_protocol, payload, request_id, deadline_unix_ms, .. } = frame;
    let mut fields = [
        Frame { envelope_version, ..Frame::default() },
        Frame { kind, ..Frame::default() },
        Frame { payload_protocol, ..Frame::default() },
        Frame { payload, ..Frame::default() },
        Frame { request_id, ..Frame::default() },
        Frame { deadline_unix_ms, ..Frame::default() },
        Frame { traceparent: frame.traceparent, ..Frame::default() },
    ]
    .map(|field| field.encode_to_vec());
    for _ in 0..fields.len() {
        fields.rotate_left(1);
        let body = fields.concat();
        let length = u32::try_from(body.len()).expect("it was in a frame");
        let wire = [&[1][..], &length.to_le_bytes(), &body].concat();
        for length in 1..=wire.len().min(FIRST_BYTES_LIMIT) {
            assert_ne!(detect_frames(&wire[..length]), Verdict::Theirs, "after {length} bytes");
        }
    }
}

/// What a backend does about a frame.
enum Expected {
    Answer(Bytes),
    Identity,
    Nothing,
    Close,
}

fn expected(frame: &Frame) -> Expected {
    if frame.envelope_version != 1 || frame.payload_encoding != 0 {
        return Expected::Close;
    }
    match (frame.kind, frame.lane()) {
        (0, ECHO) => Expected::Answer(frame.payload.clone()),
        (0, lane) if lane == FIXED.0 => Expected::Answer(FIXED.1.into()),
        (0, PayloadProtocol::IDENTITY_PROBE) if frame.payload.len() == PROBE_NONCE => Expected::Identity,
        (2 | 3, _) => Expected::Nothing,
        _ => Expected::Close,
    }
}

/// A backend that serves, in this thread, whenever somebody waits for it.
struct Served {
    /// Dropped before the directory is, in which its tasks have files.
    runtime: Runtime,
    endpoint: PathBuf,
    seen: Arc<Mutex<Seen>>,
    _place: TempDir,
}

/// What has come to the handlers.
#[derive(Debug, Default)]
struct Seen {
    theirs: Option<Vec<u8>>,
    requests: Vec<(PayloadProtocol, Bytes)>,
}

thread_local! {
    static SERVED: Served = Served::start();
}

impl Served {
    fn start() -> Self {
        let place = tempfile::tempdir().expect("a directory for the endpoint");
        let endpoint = place.path().join("be.sock");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (of_legacy, of_echo, of_fixed) = (Arc::clone(&seen), Arc::clone(&seen), Arc::clone(&seen));
        runtime.block_on(async {
            let backend = Backend::bind(&endpoint).expect("nobody has this endpoint");
            let backend = backend.with_legacy(detect_frames, move |connection| {
                let seen = Arc::clone(&of_legacy);
                async move { give_back(connection, &seen).await }
            });
            let note = |seen: &Mutex<Seen>, request: &Request| {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.requests.push((request.lane(), request.payload().clone()));
            };
            let lanes = Lanes::new()
                .on(ECHO, move |request: Request| {
                    note(&of_echo, &request);
                    async { request.into_payload() }
                })
                .on(FIXED.0, move |request: Request| {
                    note(&of_fixed, &request);
                    async { FIXED.1 }
                });
            tokio::spawn(backend.serve(lanes));
        });
        Self { runtime, endpoint, seen, _place: place }
    }

    fn converses(&self, stream: &[u8], cut: usize, verdicts: &[Verdict]) -> Side {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen::default();
        let answered = self.runtime.block_on(self.send(stream, cut));
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(theirs) = seen.theirs {
            assert!(verdicts.contains(&Verdict::Theirs), "it went to the older format");
            assert_eq!(theirs, stream, "whoever gets it gets all of it");
            assert_eq!(answered, stream, "and its answer is all that the client gets");
            assert_eq!(seen.requests, [], "nobody else gets any of it");
            return Side::Theirs;
        }
        if !verdicts.contains(&Verdict::Ours) {
            assert!(answered.is_empty() && seen.requests.is_empty());
            assert!(!verdicts.contains(&Verdict::Theirs), "it belongs to the older format");
            return Side::Nobody;
        }
        // Somebody who looks late sees more, and may find what contradicts the beginning.
        let is_certain = !verdicts.contains(&Verdict::Theirs);
        if is_certain || !answered.is_empty() || !seen.requests.is_empty() {
            is_served(stream, &answered, &seen.requests);
        }
        Side::Ours
    }

    /// All that a client gets that sends this and then has nothing more to say.
    async fn send(&self, stream: &[u8], cut: usize) -> Vec<u8> {
        let client = Stream::connect(&self.endpoint).await.expect("the backend listens");
        for piece in stream.chunks(cut) {
            // It may have seen enough, and closed.
            if client.send_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = client.shutdown(Shutdown::Write);
        let (mut answered, mut buffer) = (Vec::new(), [0; 4_096]);
        loop {
            match client.read_some(&mut buffer).await {
                Ok(0) => return answered,
                Ok(count) => answered.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return answered,
                Err(error) => panic!("the connection breaks: {error}"),
            }
        }
    }
}

async fn give_back(connection: LegacyConnection, seen: &Mutex<Seen>) {
    let (mut all, mut buffer) = (Vec::new(), [0; 4_096]);
    while let Ok(count @ 1..) = connection.stream.read_some(&mut buffer).await {
        all.extend_from_slice(&buffer[..count]);
    }
    seen.lock().unwrap_or_else(PoisonError::into_inner).theirs = Some(all.clone());
    let _ = connection.stream.send_all(&all).await;
}

/// The answers are those to the requests before the first fault, in their order, and no handler saw another one.
fn is_served(stream: &[u8], answered: &[u8], requests: &[(PayloadProtocol, Bytes)]) {
    let (mut sent, mut answers) = (BytesMut::from(stream), BytesMut::from(answered));
    let (decoder, mut handled) = (FrameDecoder::new(), requests.iter());
    while let Ok(Some(frame)) = decoder.decode(&mut sent) {
        let payload = match expected(&frame) {
            Expected::Nothing => continue,
            Expected::Close => {
                let reached = handled.next();
                assert!(reached.is_none(), "a request of no lane reached a handler: {reached:?}");
                break;
            }
            Expected::Answer(payload) => {
                assert_eq!(handled.next(), Some(&(frame.lane(), frame.payload.clone())));
                payload
            }
            Expected::Identity => {
                let answer =
                    decoder.decode(&mut answers).expect("an answer is a frame").expect("it is whole");
                assert!(answer.payload.starts_with(&frame.payload), "a probe's nonce is echoed");
                continue;
            }
        };
        let answer = frame_bytes(&Frame::response_to(&frame, payload)).expect("it is not too long");
        assert!(answers.starts_with(&answer), "the next answer is the one to the next request");
        let _ = answers.split_to(answer.len());
    }
    assert!(
        answers.is_empty() && handled.next().is_none(),
        "there is an answer for each request, and no other"
    );
}

/// Clients of both formats, and some that could be of either.
pub fn seeds() -> Vec<Seed> {
    let framed = |frame: &Frame| frame_bytes(frame).expect("a short frame").to_vec();
    let echo = |id| Frame::request(ECHO, id, "hello");
    let cut = |cut: u8, parts: &[&[u8]]| [&[cut][..], &parts.concat()].concat();
    let one = framed(&echo(1));
    let padded = [&[0x22, 0x80, 0x10][..], &[0xFF; 2_048], &[0x08, 1]].concat();
    let length = u32::try_from(padded.len()).expect("two kilobytes");
    vec![
        seed("nothing", [1]),
        seed("one-request", cut(255, &[&one])),
        seed("byte-by-byte", cut(1, &[&one])),
        seed(
            "several-requests",
            cut(3, &[&one, &framed(&Frame::request(FIXED.0, 2, "x")), &framed(&echo(3))]),
        ),
        seed(
            "probe",
            cut(9, &[&framed(&Frame::request(PayloadProtocol::IDENTITY_PROBE, 1, vec![5; 32])), &one]),
        ),
        seed(
            "short-probe",
            cut(9, &[&framed(&Frame::request(PayloadProtocol::IDENTITY_PROBE, 1, vec![5; 31]))]),
        ),
        seed(
            "lane-of-nobody",
            cut(9, &[&one, &framed(&Frame::request(PayloadProtocol::ZCCACHE, 2, "x")), &one]),
        ),
        seed(
            "cancel-and-event",
            cut(9, &[&framed(&Frame { kind: 3, ..echo(1) }), &framed(&Frame { kind: 2, ..echo(1) }), &one]),
        ),
        seed("a-response-later", cut(9, &[&one, &framed(&Frame { kind: 1, ..echo(2) })])),
        seed("another-envelope-later", cut(9, &[&one, &framed(&Frame { envelope_version: 2, ..echo(2) })])),
        seed("garbage-behind-a-request", cut(4, &[&one, b"GET / HTTP/1.1\r\n"])),
        seed("older-format", cut(2, &[b"GET / HTTP/1.1\r\n\r\n"])),
        seed("older-format-that-begins-alike", cut(1, &[&[1, 12, 0, 0, 0, 8, 2, 3]])),
        seed("undecided", cut(1, &[&one[..6]])),
        seed("empty-frame", cut(1, &[&[1, 0, 0, 0, 0]])),
        seed("envelope-behind-the-limit", cut(32, &[&[1], &length.to_le_bytes(), &padded])),
        seed("contradiction", cut(2, &[&[1, 6, 0, 0, 0, 8, 1, 8, 2, 16, 0], b"rest"])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_to(name: &str) -> (Side, usize) {
        let seed = seeds().into_iter().find(|seed| seed.name == name).unwrap();
        let Script { cut, stream } = Script::arbitrary_take_rest(Unstructured::new(&seed.bytes)).unwrap();
        let side = SERVED.with(|served| served.converses(stream, cut, &looks(stream)));
        (side, SERVED.with(|served| served.runtime.block_on(served.send(stream, cut))).len())
    }

    #[test]
    fn the_seeds_reach_both_sides_and_get_their_answers() {
        let answer = |request: &Frame| frame_bytes(&Frame::response_to(request, "hello")).unwrap().len();
        let one = answer(&Frame::request(ECHO, 1, ""));
        assert_eq!(goes_to("one-request"), (Side::Ours, one));
        assert_eq!(goes_to("byte-by-byte"), (Side::Ours, one));
        assert_eq!(goes_to("lane-of-nobody"), (Side::Ours, one));
        assert_eq!(goes_to("cancel-and-event"), (Side::Ours, one));
        assert_eq!(goes_to("older-format"), (Side::Theirs, 18));
        assert_eq!(goes_to("older-format-that-begins-alike"), (Side::Theirs, 8));
        assert_eq!(goes_to("undecided"), (Side::Nobody, 0));
    }
}
