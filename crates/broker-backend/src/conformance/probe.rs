//! The identity probe: which process is it, and does it say so in time? (protocol.md, "Conversations" 3;
//! behaviour.md, section 4, "Ready".)
//!
//! Invariant: what an answer says is compared with the kernel's word, never with another answer.

use std::time::{Duration, Instant};

use broker_protocol::PayloadProtocol;
use broker_protocol::probe::{EXE_HASH_ALGORITHM, PROBE_TIMEOUT};
use broker_protocol::wire::{DaemonProcess, Frame};
use broker_transport::endpoint::pipe_leaf;
use broker_transport::identity;

use super::golden::{ANSWER, first};
use super::line::Came;
use super::report::{Check, Outcome, expect_same, failed, skipped};
use super::run::Run;
use super::subject::{Aspect, Subject, nonce, probe, question, wire};

const PROBING: &str = "protocol.md, \"Conversations\" 3";
const READY: &str = "behaviour.md, section 4, \"Ready\"";
const FRAMING: &str = "protocol.md, \"Framing\"";

const NONCE: Check = Check { name: "probe/nonce", section: PROBING };
const PID: Check = Check { name: "probe/pid", section: READY };
const BOOT_ID: Check = Check { name: "probe/boot-id", section: READY };
const EXECUTABLE: Check = Check { name: "probe/executable", section: READY };
const ENDPOINT: Check = Check { name: "probe/endpoint", section: READY };
const IN_TIME: Check = Check { name: "probe/in-time", section: PROBING };
pub(super) const TWICE: Check = Check { name: "probe/twice", section: PROBING };
const SHORT: Check = Check { name: "probe/nonce-of-31-bytes", section: FRAMING };
const LONG: Check = Check { name: "probe/nonce-of-33-bytes", section: FRAMING };
pub(super) const IN_PIECES: Check = Check { name: "probe/in-pieces", section: FRAMING };
const BESIDE: Check = Check { name: "probe/beside-a-stalled-frame", section: PROBING };

/// How often a probe may be late before it counts: one that was late because the machine was busy proves
/// nothing, and a broker asks again, too.
const ATTEMPTS: usize = 5;

/// How long a service that does not answer what is no probe is listened to.
const QUIET: Duration = Duration::from_millis(500);

pub(super) async fn run(run: &mut Run, subject: &Subject) {
    run.check(subject, NONCE, &[ANSWER], async { first(subject, Aspect::Nonce) }).await;
    run.check(subject, PID, &[NONCE], async { pid(subject) }).await;
    run.check(subject, BOOT_ID, &[NONCE], async { boot_id(subject) }).await;
    run.check(subject, EXECUTABLE, &[NONCE], executable(subject)).await;
    run.check(subject, ENDPOINT, &[NONCE], async { endpoint(subject) }).await;
    run.check(subject, IN_TIME, &[ANSWER], in_time(subject)).await;
    run.check(subject, TWICE, &[ANSWER], twice(subject)).await;
    run.check(subject, SHORT, &[ANSWER], no_probe(subject, 31)).await;
    run.check(subject, LONG, &[ANSWER], no_probe(subject, 33)).await;
    run.check(subject, IN_PIECES, &[ANSWER], in_pieces(subject)).await;
    run.check(subject, BESIDE, &[ANSWER], beside_a_stalled_frame(subject)).await;
}

fn known(subject: &Subject) -> Outcome<&DaemonProcess> {
    subject.known.process.as_ref().ok_or_else(|| skipped("it did not say which process it is"))
}

fn serving_pid(subject: &Subject) -> Outcome<u32> {
    subject.pid.ok_or_else(|| skipped("the kernel does not say which process listens there"))
}

fn pid(subject: &Subject) -> Outcome {
    expect_same("pid", serving_pid(subject)?, known(subject)?.pid)
}

fn boot_id(subject: &Subject) -> Outcome {
    let expected = identity::boot_id().map_err(skipped)?;
    expect_same("boot id", &expected, &known(subject)?.boot_id)
}

async fn executable(subject: &Subject) -> Outcome {
    let (pid, process) = (serving_pid(subject)?, known(subject)?);
    expect_same("hash algorithm", EXE_HASH_ALGORITHM, &process.exe_hash_algorithm)?;
    // As large as the file is, and the service may live on the same thread.
    let hashed = tokio::task::spawn_blocking(move || identity::hash_process_executable(pid)).await;
    let expected = hashed.map_err(skipped)?.map_err(skipped)?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    expect_same("hash", hex(&expected), hex(&process.exe_hash))
}

fn endpoint(subject: &Subject) -> Outcome {
    let expected = subject.endpoint.to_string_lossy();
    let came = known(subject)?.ipc_endpoint.as_ref().map_or("", |endpoint| &endpoint.path);
    expect_same("endpoint", pipe_leaf(&expected), pipe_leaf(came))
}

async fn in_time(subject: &Subject) -> Outcome {
    let mut fastest = Duration::MAX;
    for _ in 0..ATTEMPTS {
        let begun = Instant::now();
        subject.probe_anew().await?;
        fastest = fastest.min(begun.elapsed());
        if fastest <= PROBE_TIMEOUT {
            return Ok(());
        }
    }
    Err(failed(
        format_args!("an answer within {} ms", PROBE_TIMEOUT.as_millis()),
        format_args!("the fastest of {ATTEMPTS} after {} ms", fastest.as_millis()),
    ))
}

/// One after the other, then two in one piece.
async fn twice(subject: &Subject) -> Outcome {
    let mut line = subject.dial().await?;
    subject.probe_on(&mut line).await?;
    subject.probe_on(&mut line).await?;
    let both = [probe(), probe()];
    line.send(&[wire(&both[0])?, wire(&both[1])?].concat()).await;
    for question in &both {
        subject.answered(question, line.next().await)?;
    }
    Ok(())
}

/// What comes next on the connection is its end, the answer to the good probe behind, or nothing.
async fn no_probe(subject: &Subject, length: usize) -> Outcome {
    let bad = question(PayloadProtocol::IDENTITY_PROBE, nonce(length));
    let good = probe();
    let mut line = subject.dial().await?;
    line.send(&[wire(&bad)?, wire(&good)?].concat()).await;
    match line.next_within(QUIET.min(subject.patience)).await {
        Came::End | Came::Silence { received: 0 } => {}
        Came::Frame(answer) if is_about(&good, &answer) => {}
        came @ (Came::Frame(_) | Came::Silence { .. } | Came::Broken(_)) => {
            return Err(failed("no answer, or the end of the connection", came));
        }
    }
    subject.probe_anew().await.map(drop)
}

/// Whether the answer is to this probe, by the better part of its nonce: its other flaws are another check's.
pub(super) fn is_about(question: &Frame, answer: &Frame) -> bool {
    let end = question.payload.len() / 2;
    answer.payload.starts_with(&question.payload[..end])
}

async fn in_pieces(subject: &Subject) -> Outcome {
    let question = probe();
    let mut line = subject.dial().await?;
    line.send_in_pieces(&wire(&question)?).await;
    subject.answered(&question, line.next().await).map(drop)
}

async fn beside_a_stalled_frame(subject: &Subject) -> Outcome {
    let question = probe();
    let bytes = wire(&question)?;
    let (begun, rest) = bytes.split_at(bytes.len() / 2);
    let mut stalled = subject.dial().await?;
    stalled.send(begun).await;
    subject.probe_anew().await?;
    stalled.send(rest).await;
    subject.answered(&question, stalled.next().await).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_known_by_its_nonce_even_where_that_was_cut() {
        let (asked, other) = (probe(), probe());
        let cut = Frame { payload: asked.payload.slice(..31), ..Frame::default() };
        assert!(is_about(&asked, &asked) && is_about(&asked, &cut));
        assert!(!is_about(&asked, &other));
    }
}
