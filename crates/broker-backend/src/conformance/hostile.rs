//! Bytes that no well-meaning client sends: they end at most the connection that they came on (protocol.md,
//! "Framing").
//!
//! Whether such a connection is ended is the service's own affair, but for one that declares too much.
//! Invariant: each check looks at a connection that was open before, and at one that was opened after.

use std::time::Duration;

use broker_protocol::limits::MAX_FRAME_BODY;
use broker_protocol::{FRAMING_VERSION, PayloadProtocol};
use tokio::time::sleep;

use super::line::{Came, Ending, Line};
use super::probe::{TWICE, is_about};
use super::report::{Check, Outcome, Stop, failed};
use super::run::Run;
use super::subject::{Subject, probe, question, wire};

const FRAMING: &str = "protocol.md, \"Framing\"";

const FRAMING_BYTE: Check = Check { name: "hostile/framing-byte", section: FRAMING };
const TOO_LONG: Check = Check { name: "hostile/too-long", section: FRAMING };
const NOT_A_FRAME: Check = Check { name: "hostile/not-a-frame", section: FRAMING };
const TRUNCATED: Check = Check { name: "hostile/truncated", section: FRAMING };
const UNKNOWN_LANE: Check =
    Check { name: "hostile/unknown-lane", section: "protocol.md, \"Payload protocols\"" };

/// In the range that is reserved and given to nobody.
const NOBODYS_LANE: PayloadProtocol = PayloadProtocol::new(0xE0E0);

/// How long the attacker's connection is kept for the service to act on it.
const KEPT: Duration = Duration::from_millis(500);

/// Bytes of an over-long body that are sent at once.
const CHUNK: usize = 64 * 1024;

pub(super) async fn run(run: &mut Run, subject: &Subject) {
    let other_framing = [&[FRAMING_VERSION + 1][..], &2u32.to_le_bytes(), &[0x08, 1]].concat();
    run.check(subject, FRAMING_BYTE, &[TWICE], beside(subject, &other_framing)).await;
    run.check(subject, TOO_LONG, &[TWICE], too_long(subject)).await;
    let no_frame = [&[FRAMING_VERSION][..], &40u32.to_le_bytes(), &[0xFF; 40]].concat();
    run.check(subject, NOT_A_FRAME, &[TWICE], beside(subject, &no_frame)).await;
    run.check(subject, TRUNCATED, &[TWICE], truncated(subject)).await;
    run.check(subject, UNKNOWN_LANE, &[TWICE], unknown_lane(subject)).await;
}

/// Sends it first of all, and behind a frame; ends, and sees how the others are.
async fn beside(subject: &Subject, bytes: &[u8]) -> Outcome {
    let mut witness = Witness::begin(subject).await?;
    for attacker in [subject.dial().await?, introduced(subject).await?] {
        attacker.send(bytes).await;
        let kept = KEPT.min(subject.patience);
        // An older format may have an answer to it; a service that falls over has the time to.
        if attacker.finish().is_ok() {
            let _ = attacker.ending_within(kept).await;
            drop(attacker);
        } else {
            // Where nothing else says that it was all, the end does.
            drop(attacker);
            sleep(kept).await;
        }
        witness.is_well(subject).await?;
    }
    Ok(())
}

/// A connection that nobody can take for an older format's any more.
async fn introduced(subject: &Subject) -> Outcome<Line> {
    let mut line = subject.dial().await?;
    subject.probe_on(&mut line).await?;
    Ok(line)
}

async fn truncated(subject: &Subject) -> Outcome {
    let whole = wire(&probe())?;
    beside(subject, &whole[..whole.len() / 2]).await
}

/// The service has to end it before the body that is too long has been sent.
async fn too_long(subject: &Subject) -> Outcome {
    let mut witness = Witness::begin(subject).await?;
    let attacker = introduced(subject).await?;
    attacker.send(&[&[FRAMING_VERSION][..], &(MAX_FRAME_BODY as u32 + 1).to_le_bytes()].concat()).await;
    let came = tokio::select! {
        ending = attacker.ending() => match ending {
            Ending::Ended => None,
            ending @ (Ending::Bytes(_) | Ending::Silence) => Some(ending.to_string()),
        },
        taken = pour(&attacker, MAX_FRAME_BODY + 1) => match taken {
            Poured::All => Some("it read the whole body".to_owned()),
            Poured::Refused => None,
        },
    };
    if let Some(came) = came {
        return Err(failed(
            format_args!("the end, once more than {MAX_FRAME_BODY} bytes were declared"),
            came,
        ));
    }
    witness.is_well(subject).await
}

/// How much of it the other side took.
enum Poured {
    All,
    Refused,
}

async fn pour(line: &Line, count: usize) -> Poured {
    let chunk = vec![0; CHUNK];
    let mut left = count;
    while left > 0 {
        match line.stream.write_some(&chunk[..left.min(CHUNK)]).await {
            Ok(sent) => left -= sent,
            Err(_) => return Poured::Refused,
        }
    }
    Poured::All
}

/// It may be answered, passed over or the end; a probe behind it shows which.
async fn unknown_lane(subject: &Subject) -> Outcome {
    let mut witness = Witness::begin(subject).await?;
    let (strange, behind) = (question(NOBODYS_LANE, "?"), probe());
    let mut line = subject.dial().await?;
    line.send(&[wire(&strange)?, wire(&behind)?].concat()).await;
    match line.next().await {
        Came::End => {}
        Came::Frame(answer) if !is_about(&behind, &answer) => {
            subject.answered(&strange, Came::Frame(answer))?;
            match line.next().await {
                Came::End => {}
                came => subject.answered(&behind, came).map(drop)?,
            }
        }
        came => subject.answered(&behind, came).map(drop)?,
    }
    witness.is_well(subject).await
}

/// A client that does nothing wrong.
struct Witness(Line);

impl Witness {
    async fn begin(subject: &Subject) -> Outcome<Self> {
        introduced(subject).await.map(Self)
    }

    async fn is_well(&mut self, subject: &Subject) -> Outcome {
        let about = |whom: &'static str| {
            move |stop| match stop {
                Stop::Failed { expected, came } => failed(format_args!("{expected} {whom}"), came),
                Stop::Skipped { .. } => stop,
            }
        };
        subject.probe_on(&mut self.0).await.map_err(about("on a connection that was open before"))?;
        subject.probe_anew().await.map_err(about("on a new connection")).map(drop)
    }
}
