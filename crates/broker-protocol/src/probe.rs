//! The identity probe: is the process behind an endpoint the one it should be? (protocol.md,
//! "Conversations" 3)
//!
//! A 32-byte nonce goes out, the same nonce followed by an encoded `DaemonProcess` comes back. This
//! module makes and checks the frames; reading and writing them is the transport's.

use bytes::{BufMut, BytesMut};
use prost::Message;
use thiserror::Error;

use crate::limits::PROBE_NONCE;
use crate::payload_protocol::PayloadProtocol;
use crate::wire::{DaemonProcess, Frame, FrameKind};

/// How long a probe may take from connecting to the whole answer.
pub const PROBE_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(500);

/// `DaemonProcess.exe_hash_algorithm` of this protocol.
pub const EXE_HASH_ALGORITHM: &str = "blake3";

/// A probe's nonce.
pub type Nonce = [u8; PROBE_NONCE];

/// Why an answer to a probe is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProbeFault {
    /// The payload of the request is not a nonce.
    #[error("a probe's nonce has {PROBE_NONCE} bytes, this one has {actual}")]
    NonceLength {
        /// Bytes that came.
        actual: usize,
    },
    /// Another kind of frame, another lane or another id.
    #[error("the answer is not the response to the probe")]
    NotTheResponse,
    /// The nonce was not echoed.
    #[error("the answer does not echo the probe's nonce")]
    Nonce,
    /// What follows the nonce is no `DaemonProcess`.
    #[error("the answer holds no DaemonProcess: {0}")]
    Process(prost::DecodeError),
}

/// The request frame of a probe.
pub fn request(nonce: &Nonce, request_id: u64) -> Frame {
    Frame::request(PayloadProtocol::IDENTITY_PROBE, request_id, nonce.to_vec())
}

/// The response frame of the process that is `identity`.
///
/// # Errors
/// [`ProbeFault::NonceLength`] when the request carries no nonce.
pub fn answer(request: &Frame, identity: &DaemonProcess) -> Result<Frame, ProbeFault> {
    if request.payload.len() != PROBE_NONCE {
        return Err(ProbeFault::NonceLength { actual: request.payload.len() });
    }
    let mut payload = BytesMut::with_capacity(PROBE_NONCE + identity.encoded_len());
    payload.put_slice(&request.payload);
    identity.encode_raw(&mut payload);
    Ok(Frame::response_to(request, payload))
}

/// Takes the identity out of an answer.
///
/// ```
/// use broker_protocol::probe;
/// use broker_protocol::wire::DaemonProcess;
///
/// let identity = DaemonProcess { pid: 7, ..DaemonProcess::default() };
/// let request = probe::request(&[5; 32], 1);
/// let answer = probe::answer(&request, &identity)?;
/// assert_eq!(probe::identity(&request, &answer)?, identity);
/// # Ok::<(), probe::ProbeFault>(())
/// ```
///
/// # Errors
/// [`ProbeFault`] says what is wrong with it.
pub fn identity(request: &Frame, answer: &Frame) -> Result<DaemonProcess, ProbeFault> {
    let expected = (FrameKind::Response as i32, request.payload_protocol, request.request_id);
    if (answer.kind, answer.payload_protocol, answer.request_id) != expected {
        return Err(ProbeFault::NotTheResponse);
    }
    match answer.payload.strip_prefix(&request.payload[..]) {
        Some(process) => DaemonProcess::decode(process).map_err(ProbeFault::Process),
        None => Err(ProbeFault::Nonce),
    }
}

/// What the broker knows of a process before it asks. `None` is not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// Its process id.
    pub pid: Option<u32>,
    /// The boot it runs in.
    pub boot_id: Option<String>,
    /// BLAKE3 of its executable.
    pub exe_hash: Option<[u8; 32]>,
    /// The endpoint it listens on.
    pub endpoint: Option<String>,
}

/// The first thing in which a process is not the expected one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// Another process.
    #[error("process {actual} answered, expected {expected}")]
    Pid {
        /// Expected.
        expected: u32,
        /// Answered.
        actual: u32,
    },
    /// Another boot.
    #[error("it says it runs in boot {actual:?}, this is boot {expected:?}")]
    BootId {
        /// Expected.
        expected: String,
        /// Answered.
        actual: String,
    },
    /// Another executable, or another hash algorithm.
    #[error("its executable is not the one that was started (hash algorithm {algorithm:?})")]
    Executable {
        /// The algorithm that the answer names.
        algorithm: String,
    },
    /// Another endpoint.
    #[error("it says it listens on {actual:?}, expected {expected:?}")]
    Endpoint {
        /// Expected.
        expected: String,
        /// Answered.
        actual: String,
    },
}

impl Expectation {
    /// Compares what a process says of itself with what is known.
    ///
    /// # Errors
    /// The first [`Mismatch`].
    pub fn check(&self, process: &DaemonProcess) -> Result<(), Mismatch> {
        if let Some(expected) = self.pid.filter(|pid| *pid != process.pid) {
            return Err(Mismatch::Pid { expected, actual: process.pid });
        }
        if let Some(expected) = self.boot_id.as_ref().filter(|boot_id| **boot_id != process.boot_id) {
            return Err(Mismatch::BootId { expected: expected.clone(), actual: process.boot_id.clone() });
        }
        if let Some(expected) = &self.exe_hash
            && (process.exe_hash_algorithm != EXE_HASH_ALGORITHM || process.exe_hash != expected)
        {
            return Err(Mismatch::Executable { algorithm: process.exe_hash_algorithm.clone() });
        }
        let actual = process.ipc_endpoint.as_ref().map_or("", |endpoint| endpoint.path.as_str());
        match &self.endpoint {
            Some(expected) if pipe_leaf(expected) != pipe_leaf(actual) => {
                Err(Mismatch::Endpoint { expected: expected.clone(), actual: actual.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// A pipe name without its prefix: on Windows both forms are the same endpoint.
fn pipe_leaf(endpoint: &str) -> &str {
    endpoint.strip_prefix(r"\\.\pipe\").unwrap_or(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Endpoint;

    fn process() -> DaemonProcess {
        DaemonProcess {
            pid: 42,
            boot_id: "boot".into(),
            exe_hash_algorithm: "blake3".into(),
            exe_hash: vec![1; 32],
            ipc_endpoint: Some(Endpoint { namespace_id: String::new(), path: "/run/x.sock".into() }),
            ..DaemonProcess::default()
        }
    }

    fn expectation() -> Expectation {
        Expectation {
            pid: Some(42),
            boot_id: Some("boot".into()),
            exe_hash: Some([1; 32]),
            endpoint: Some("/run/x.sock".into()),
        }
    }

    #[test]
    fn the_expected_process_passes_and_each_difference_is_named() {
        assert_eq!(expectation().check(&process()), Ok(()));
        assert_eq!(Expectation::default().check(&process()), Ok(()));
        let other = |change: fn(&mut DaemonProcess)| {
            let mut process = process();
            change(&mut process);
            expectation().check(&process)
        };
        assert!(matches!(other(|p| p.pid = 43), Err(Mismatch::Pid { expected: 42, actual: 43 })));
        assert!(matches!(other(|p| p.boot_id.clear()), Err(Mismatch::BootId { .. })));
        assert!(matches!(other(|p| p.exe_hash[31] = 2), Err(Mismatch::Executable { .. })));
        assert!(matches!(other(|p| p.exe_hash_algorithm = "md5".into()), Err(Mismatch::Executable { .. })));
        assert!(matches!(other(|p| p.ipc_endpoint = None), Err(Mismatch::Endpoint { .. })));
    }

    #[test]
    fn a_pipe_is_the_same_with_and_without_its_prefix() {
        let expectation = Expectation { endpoint: Some("rpb-v1-x".into()), ..Expectation::default() };
        let mut process = process();
        process.ipc_endpoint =
            Some(Endpoint { namespace_id: String::new(), path: r"\\.\pipe\rpb-v1-x".into() });
        assert_eq!(expectation.check(&process), Ok(()));
    }

    #[test]
    fn a_nonce_has_exactly_thirty_two_bytes() {
        for length in [0, 31, 33] {
            let request = Frame::request(PayloadProtocol::IDENTITY_PROBE, 1, vec![0; length]);
            assert_eq!(answer(&request, &process()), Err(ProbeFault::NonceLength { actual: length }));
        }
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let question = request(&[1; 32], 7);
        let good = answer(&question, &process()).unwrap();
        assert_eq!(identity(&question, &good), Ok(process()));
        let other_id = Frame { request_id: 8, ..good.clone() };
        assert_eq!(identity(&question, &other_id), Err(ProbeFault::NotTheResponse));
        let other_nonce = answer(&request(&[2; 32], 7), &process()).unwrap();
        assert_eq!(identity(&question, &other_nonce), Err(ProbeFault::Nonce));
        let no_process = Frame { payload: [&[1u8; 32][..], &[0xFF]].concat().into(), ..good };
        assert!(matches!(identity(&question, &no_process), Err(ProbeFault::Process(_))));
    }
}
