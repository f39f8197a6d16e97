//! An older wire format on the same endpoint: neither may disturb the other.
//!
//! What the older format says is its author's to know; here it is an exchange of bytes. Invariant: whatever
//! the order in which the bytes of the two come, each side gets what it would get alone.

use std::fmt::{self, Debug, Formatter};

use broker_protocol::bytes::Bytes;
use broker_protocol::wire::Frame;

use super::golden::ANSWER;
use super::line::Line;
use super::probe::{IN_PIECES, TWICE};
use super::report::{Check, Outcome, failed, skipped};
use super::run::Run;
use super::subject::{Subject, probe, wire};

const SHARED: &str = "protocol.md, \"Framing\"";

const OLDER_FORMAT: Check = Check { name: "mixed/older-format", section: SHARED };
const OLD_FIRST: Check = Check { name: "mixed/old-first", section: SHARED };
const NEW_FIRST: Check = Check { name: "mixed/new-first", section: SHARED };
const INTERLEAVED: Check = Check { name: "mixed/interleaved", section: SHARED };
const OLD_IN_PIECES: Check = Check { name: "mixed/old-in-pieces", section: SHARED };
const BOTH_IN_PIECES: Check = Check { name: "mixed/both-in-pieces", section: SHARED };

/// Longest answer of the older format, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// One exchange of the older format, on a connection of its own.
pub struct OlderFormat {
    request: Bytes,
    answer: Answer,
}

enum Answer {
    Bytes(Bytes),
    Recognised(Box<IsAnswer>),
}

type IsAnswer = dyn Fn(&[u8]) -> bool + Send + Sync;

impl OlderFormat {
    /// A client of it sends `request` and gets exactly `answer`.
    pub fn exchange(request: impl Into<Bytes>, answer: impl Into<Bytes>) -> Self {
        Self { request: request.into(), answer: Answer::Bytes(answer.into()) }
    }

    /// A client of it sends `request` and gets what `is_answer` recognises: it is called with all that has
    /// come so far, each time more has.
    pub fn recognised(
        request: impl Into<Bytes>,
        is_answer: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { request: request.into(), answer: Answer::Recognised(Box::new(is_answer)) }
    }

    async fn answered(&self, line: &Line) -> Outcome {
        match &self.answer {
            Answer::Bytes(expected) => {
                let came = line.bytes(expected.len()).await;
                if came == *expected { Ok(()) } else { Err(failed(text(expected), text(&came))) }
            }
            Answer::Recognised(is_answer) => {
                let mut came = Vec::new();
                while came.is_empty() || !is_answer(&came) {
                    match line.bytes(1).await[..] {
                        [byte] if came.len() < MAX_ANSWER => came.push(byte),
                        _ => return Err(failed("an answer of the older format", text(&came))),
                    }
                }
                Ok(())
            }
        }
    }
}

impl Debug for OlderFormat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "OlderFormat({} bytes)", self.request.len())
    }
}

pub(super) async fn run(run: &mut Run, subject: &Subject) {
    run.check(subject, OLDER_FORMAT, &[ANSWER], alone(subject)).await;
    run.check(subject, OLD_FIRST, &[OLDER_FORMAT], old_first(subject)).await;
    run.check(subject, NEW_FIRST, &[OLDER_FORMAT, TWICE], new_first(subject)).await;
    run.check(subject, INTERLEAVED, &[OLD_FIRST, NEW_FIRST], interleaved(subject)).await;
    run.check(subject, OLD_IN_PIECES, &[OLD_FIRST], old_in_pieces(subject)).await;
    let needs = [INTERLEAVED, OLD_IN_PIECES, IN_PIECES];
    run.check(subject, BOTH_IN_PIECES, &needs, both_in_pieces(subject)).await;
}

fn older(subject: &Subject) -> Outcome<&OlderFormat> {
    subject.older.as_ref().ok_or_else(|| skipped("no older format was named"))
}

async fn alone(subject: &Subject) -> Outcome {
    let older = older(subject)?;
    exchange(older, &subject.dial().await?).await
}

async fn exchange(older: &OlderFormat, line: &Line) -> Outcome {
    line.send(&older.request).await;
    older.answered(line).await
}

/// The old client is served, and still connected, when the new one comes.
async fn old_first(subject: &Subject) -> Outcome {
    let older = older(subject)?;
    let old = subject.dial().await?;
    exchange(older, &old).await?;
    subject.probe_anew().await.map(drop)
}

/// The new client is served, and still connected, when the old one comes; and goes on behind it.
async fn new_first(subject: &Subject) -> Outcome {
    let older = older(subject)?;
    let mut new = subject.dial().await?;
    subject.probe_on(&mut new).await?;
    exchange(older, &subject.dial().await?).await?;
    subject.probe_on(&mut new).await.map(drop)
}

/// Both are in the middle of what they say.
async fn interleaved(subject: &Subject) -> Outcome {
    let older = older(subject)?;
    let mut pair = Pair::dial(subject).await?;
    let (old_half, new_half) = (older.request.len() / 2, pair.bytes.len() / 2);
    pair.old.send_piece(&older.request[..old_half]).await;
    pair.new.send_piece(&pair.bytes[..new_half]).await;
    pair.old.send_piece(&older.request[old_half..]).await;
    pair.new.send_piece(&pair.bytes[new_half..]).await;
    pair.answered(subject, older).await
}

async fn old_in_pieces(subject: &Subject) -> Outcome {
    let older = older(subject)?;
    let old = subject.dial().await?;
    old.send_in_pieces(&older.request).await;
    older.answered(&old).await?;
    subject.probe_anew().await.map(drop)
}

/// A byte of the one, a byte of the other.
async fn both_in_pieces(subject: &Subject) -> Outcome {
    let older = older(subject)?;
    let mut pair = Pair::dial(subject).await?;
    for index in 0..older.request.len().max(pair.bytes.len()) {
        for (line, bytes) in [(&pair.old, &older.request), (&pair.new, &pair.bytes)] {
            line.send_in_pieces(bytes.get(index..=index).unwrap_or_default()).await;
        }
    }
    pair.answered(subject, older).await
}

/// A client of each, at the same time.
struct Pair {
    old: Line,
    new: Line,
    question: Frame,
    bytes: Bytes,
}

impl Pair {
    async fn dial(subject: &Subject) -> Outcome<Self> {
        let question = probe();
        let bytes = wire(&question)?;
        Ok(Self { old: subject.dial().await?, new: subject.dial().await?, question, bytes })
    }

    async fn answered(&mut self, subject: &Subject, older: &OlderFormat) -> Outcome {
        older.answered(&self.old).await?;
        subject.answered(&self.question, self.new.next().await).map(drop)
    }
}

/// Bytes for people, who may know the format; not more of them than fit a line.
fn text(bytes: &[u8]) -> String {
    const SHOWN: usize = 64;
    let shown = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    match bytes.len() {
        0 => "nothing".to_owned(),
        length if length > SHOWN => format!("\"{shown}\"… ({length} bytes)"),
        _ => format!("\"{shown}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_one_line() {
        assert_eq!(text(b""), "nothing");
        assert_eq!(text(b"PONG\n\xFF"), "\"PONG\\n\\xff\"");
        assert_eq!(text(&[b'x'; 64]).len(), 66);
        assert!(text(&[b'x'; 65]).ends_with("… (65 bytes)"));
    }

    #[test]
    fn debug_does_not_tell_what_is_said() {
        assert_eq!(format!("{:?}", OlderFormat::exchange("secret", "word")), "OlderFormat(6 bytes)");
    }
}
