//! Says Hello, has one request answered, and prints how that went. What a connection's end or silence leaves open
//! it settles as any client does, by dialling.
//!
//! It prints `ready`, and sets out when it reads a line. Invariant: it ends, whatever becomes of its peers, with
//! exactly one word more: `served`, `refused` and the code, `closed`, `unreachable`, or what no client may see.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a client of a test may end at any surprise")]

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use broker_protocol::prost::Message;
use broker_protocol::wire::{AdminReply, AdminRequest, ErrorCode, Frame, Hello, hello_reply};
use broker_protocol::{PayloadProtocol, frame_bytes};
use broker_tests::{Wire, hello, reply_of};

const BIT_0: u64 = 1;
const BIT_32: u64 = 1 << 32;
/// How long a client waits for the event of its handoff (behaviour.md 10).
const ADOPTION: Duration = Duration::from_secs(2);

pub(crate) fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, socket, version, way] = &arguments[..] else {
        panic!("usage: by-hand SOCKET VERSION dial|offered|early|BROKERD")
    };
    println!("ready");
    io::stdin().read_line(&mut String::new()).unwrap();
    println!("{}", said(Path::new(socket), version, way));
}

fn said(socket: &Path, version: &str, way: &str) -> String {
    let Ok(mut wire) = Wire::try_connect(socket) else { return "unreachable".to_owned() };
    match talk(&mut wire, socket, version, way) {
        Ok(said) => said,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            "hung".to_owned()
        }
        Err(_) => "closed".to_owned(),
    }
}

fn talk(wire: &mut Wire, socket: &Path, version: &str, way: &str) -> io::Result<String> {
    let client_capabilities = match way {
        "dial" => 0,
        "offered" => BIT_0,
        "early" => BIT_0 | BIT_32,
        program => return upgrade(wire, socket, version, program),
    };
    let hello = Hello { client_capabilities, ..hello("cache", version) };
    wire.try_send(&Frame::request(PayloadProtocol::CONTROL, 7, hello.encode_to_vec()))?;
    if way == "early" {
        wire.try_send(&request())?;
    }
    let agreed = match reply_of(&wire.try_receive()?) {
        hello_reply::Result::Negotiated(agreed) => agreed,
        hello_reply::Result::Refused(refused) => return Ok(format!("refused {}", name(refused.code()))),
    };
    if agreed.handle_passed_token.is_empty() {
        return dial(Path::new(&agreed.backend_pipe));
    }
    if way == "offered" {
        // Without the event nothing was asked yet, so it may be asked elsewhere.
        match wire.try_receive_within(ADOPTION) {
            Ok(_) => wire.try_send(&request())?,
            Err(_) => return dial(Path::new(&agreed.backend_pipe)),
        }
    }
    Ok(judged(&wire.try_receive()?))
}

/// Has the broker go on as another program while half of a Hello is there.
fn upgrade(wire: &mut Wire, socket: &Path, version: &str, program: &str) -> io::Result<String> {
    let hello = Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", version).encode_to_vec());
    let hello = frame_bytes(&hello).map_err(io::Error::other)?;
    let (first, second) = hello.split_at(hello.len() / 2);
    wire.try_write(first)?;
    let mut asker = Wire::try_connect(socket)?;
    let request = AdminRequest { upgrade_to: Some(program.to_owned()), ..AdminRequest::default() };
    asker.try_send(&Frame::request(PayloadProtocol::ADMIN, 8, request.encode_to_vec()))?;
    let answer = AdminReply::decode(asker.try_receive()?.payload).map_err(io::Error::other)?;
    if answer.exit_code != 0 {
        return Ok(answer.body);
    }
    wire.try_write(second)?;
    match reply_of(&wire.try_receive()?) {
        hello_reply::Result::Negotiated(agreed) => dial(Path::new(&agreed.backend_pipe)),
        hello_reply::Result::Refused(refused) => Ok(format!("refused {}", name(refused.code()))),
    }
}

fn dial(endpoint: &Path) -> io::Result<String> {
    let Ok(mut backend) = Wire::try_connect(endpoint) else { return Ok("unreachable".to_owned()) };
    backend.try_send(&request())?;
    Ok(judged(&backend.try_receive()?))
}

fn request() -> Frame {
    Frame::request(PayloadProtocol::new(0xF001), 9, "good day")
}

fn judged(answer: &Frame) -> String {
    let is_right = answer.request_id == 9 && answer.payload == "good day";
    if is_right { "served".to_owned() } else { format!("wrong: {answer:?}") }
}

fn name(code: ErrorCode) -> &'static str {
    code.as_str_name()
}
