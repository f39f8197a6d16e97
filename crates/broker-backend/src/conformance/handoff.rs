//! Offers of plain v1: a connection comes with its token, then the offer, and is the service's or is not
//! (protocol.md, "Conversations" 4 and 6).
//!
//! Invariant: the kit drops its own copy of a passed connection as soon as it is sent, so what the client's
//! end sees from then on is the service's doing alone.

use std::time::Duration;

use broker_protocol::bytes::Bytes;
use broker_protocol::handoff::{Acknowledgement, Offer, Verdict};
use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, HandoffAck};
use broker_protocol::{ConnectionId, HANDOFF_TOKEN_LEN, HandoffToken};
use broker_transport::passing::{CARRIER, Carrier, Passage, Recipient};
use broker_transport::stream::{BlockingMode, Stream};

use super::descriptors;
use super::golden::ANSWER;
use super::line::{Came, Line};
use super::probe::TWICE;
use super::report::{Check, Outcome, Stop, failed, skipped};
use super::run::Run;
use super::subject::{OffersAt, Subject, nonce, wire};

const HANDING_OFF: &str = "protocol.md, \"Conversations\" 4";
const OWNERSHIP: &str = "protocol.md, \"Conversations\" 6";
const TOKENS: &str = "behaviour.md, section 2, \"Handoff tokens\"";

const ACCEPTED: Check = Check { name: "handoff/accepted", section: HANDING_OFF };
const SERVED: Check = Check { name: "handoff/served", section: HANDING_OFF };
const IN_PIECES: Check = Check { name: "handoff/in-pieces", section: HANDING_OFF };
const WRONG_TOKEN: Check = Check { name: "handoff/wrong-token", section: TOKENS };
const NO_DESCRIPTOR: Check = Check { name: "handoff/no-descriptor", section: HANDING_OFF };
const REJECTED: Check = Check { name: "handoff/rejected", section: OWNERSHIP };
const CLIENT_GONE: Check = Check { name: "handoff/client-gone", section: HANDING_OFF };
const CLOSED_AFTER_USE: Check = Check { name: "handoff/closed-after-use", section: OWNERSHIP };
const DESCRIPTORS: Check = Check { name: "handoff/descriptors", section: OWNERSHIP };

/// How long a broker waits for an acknowledgement.
pub(super) const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);

/// A valid name that no sensible service has.
const ANOTHER_SERVICE: &str = "another-service-of-the-conformance-kit";

/// How many offers a service must survive without a descriptor more than before.
const OFFERS: usize = 100;

pub(super) async fn run(run: &mut Run, subject: &Subject) {
    run.check(subject, ACCEPTED, &[ANSWER], accepted(subject)).await;
    run.check(subject, SERVED, &[ACCEPTED, TWICE], served(subject)).await;
    run.check(subject, IN_PIECES, &[SERVED], in_pieces(subject)).await;
    run.check(subject, WRONG_TOKEN, &[ACCEPTED], wrong_token(subject)).await;
    run.check(subject, NO_DESCRIPTOR, &[ACCEPTED], no_descriptor(subject)).await;
    run.check(subject, REJECTED, &[ACCEPTED], rejected(subject)).await;
    run.check(subject, CLIENT_GONE, &[SERVED], client_gone(subject)).await;
    run.check(subject, CLOSED_AFTER_USE, &[SERVED], closed_after_use(subject)).await;
    run.check(subject, DESCRIPTORS, &[SERVED], no_descriptor_stays(subject)).await;
}

fn offers(subject: &Subject) -> Outcome<&OffersAt> {
    subject.offers.as_ref().ok_or_else(|| skipped("no endpoint for offers was named"))
}

/// What a service says to an offer.
pub(super) enum Said {
    Accepted,
    Rejected,
    Closed,
}

/// An offer, and the service's answer to it as it has to be.
pub(super) fn make_offer(service: &str, reply: Option<Bytes>) -> Outcome<Offer> {
    let mut token = [0; HANDOFF_TOKEN_LEN];
    token.copy_from_slice(&nonce(HANDOFF_TOKEN_LEN));
    // Above 32 bits, so that an id that is cut shows.
    let id = 1 << 40 | u64::from(token[0]) << 8 | 1;
    Ok(Offer {
        token: HandoffToken::from_bytes(token),
        service: service.parse().map_err(|error| skipped(format_args!("service {service:?}: {error}")))?,
        connection: ConnectionId::new(id).ok_or_else(|| skipped("no id for a connection"))?,
        // Unlike the connection's, so that a response which does not echo it shows.
        request_id: id + 1,
        reply,
        handle_value: 0,
    })
}

/// That an answer belongs to this offer.
pub(super) fn said(offer: &Offer, came: Came) -> Outcome<Said> {
    const EXPECTED: &str = "a HandoffAck";
    let frame = match came {
        Came::Frame(frame) => *frame,
        Came::End => return Ok(Said::Closed),
        came @ (Came::Silence { .. } | Came::Broken(_)) => return Err(failed(EXPECTED, came)),
    };
    let answer = Acknowledgement::from_response(frame).map_err(|fault| failed(EXPECTED, fault))?;
    if answer.token != offer.token {
        return Err(failed("the offer's token in the HandoffAck", "another one"));
    }
    if answer.connection != offer.connection {
        return Err(failed(format_args!("correlation_id {}", offer.connection), answer.connection));
    }
    Ok(match answer.verdict {
        Verdict::Accepted => Said::Accepted,
        Verdict::Rejected { .. } => Said::Rejected,
    })
}

pub(super) fn must_accept(said: &Said) -> Outcome {
    match said {
        Said::Accepted => Ok(()),
        Said::Rejected => Err(failed("an accepted offer", "a rejection")),
        Said::Closed => Err(failed("an accepted offer", "the end of the connection")),
    }
}

/// A connection as a broker has it: the client's end, and the end that is passed on, in the mode in which
/// `accept` gives it out.
pub(super) fn client(subject: &Subject) -> Outcome<(Line, Stream)> {
    let pair = Stream::pair().and_then(|(accepted, client)| {
        accepted.set_blocking(BlockingMode::Blocking).map(|()| (accepted, client))
    });
    let (accepted, client) =
        pair.map_err(|error| skipped(format_args!("no connection to pass on: {error}")))?;
    Ok((Line::over(client, subject.patience), accepted))
}

/// Makes a connection ready for the process of a service.
pub(super) fn prepare(recipient: &Recipient, passed: &Stream) -> Outcome<Passage> {
    recipient
        .prepare(passed.descriptor())
        .map_err(|error| failed("a process that a connection can be passed to", error))
}

/// A broker that passes a connection on, and waits for the answer.
struct Passing {
    broker: Line,
    /// What leaves with the offer, where it has not left with the token.
    leaving: Option<(Passage, Stream)>,
}

/// Begins to pass a connection on: with this token, where one goes ahead of the offer.
async fn pass(subject: &Subject, accepted: Stream, token: &HandoffToken) -> Outcome<Passing> {
    let broker = Line::dial(&offers(subject)?.endpoint, subject.patience).await?;
    let recipient = Recipient::peer_of(&broker.stream)
        .map_err(|error| failed("a process that a connection can be passed to", error))?;
    let ready = (prepare(&recipient, &accepted)?, accepted);
    let leaving = match CARRIER {
        Carrier::Message => {
            broker.send_with(token.as_bytes(), ready).await?;
            None
        }
        Carrier::Table => Some(ready),
    };
    Ok(Passing { broker, leaving })
}

impl Passing {
    /// Sends the offer, in one piece.
    async fn send(&mut self, offer: Offer) -> Outcome {
        let Some((passage, accepted)) = self.leaving.take() else {
            self.broker.send(&wire(&offer.to_frame())?).await;
            return Ok(());
        };
        let offer = Offer { handle_value: passage.handle_value(), ..offer };
        self.broker.send_with(&wire(&offer.to_frame())?, (passage, accepted)).await
    }

    /// Sends the offer, byte by byte.
    async fn send_in_pieces(&mut self, offer: Offer) -> Outcome {
        let Some((passage, accepted)) = self.leaving.take() else {
            self.broker.send_in_pieces(&wire(&offer.to_frame())?).await;
            return Ok(());
        };
        let offer = Offer { handle_value: passage.handle_value(), ..offer };
        let bytes = wire(&offer.to_frame())?;
        self.broker.send_with(&bytes[..1], (passage, accepted)).await?;
        self.broker.send_in_pieces(&bytes[1..]).await;
        Ok(())
    }
}

/// A whole offer, and what was said to it.
async fn offer(subject: &Subject) -> Outcome<(Line, Said)> {
    let offer = make_offer(&offers(subject)?.service, None)?;
    let (client, accepted) = client(subject)?;
    let mut passing = pass(subject, accepted, &offer.token).await?;
    passing.send(offer.clone()).await?;
    let said = said(&offer, acknowledgement(&mut passing.broker).await)?;
    Ok((client, said))
}

async fn acknowledgement(broker: &mut Line) -> Came {
    broker.next_within(ACKNOWLEDGED_WITHIN).await
}

/// The client's end of an offer that has to be accepted.
async fn accept(subject: &Subject) -> Outcome<Line> {
    let (client, said) = offer(subject).await?;
    must_accept(&said)?;
    Ok(client)
}

async fn accepted(subject: &Subject) -> Outcome {
    accept(subject).await.map(drop)
}

async fn serve(subject: &Subject, client: &mut Line) -> Outcome {
    subject.ask(client, &subject.question()).await.map(drop)
}

async fn served(subject: &Subject) -> Outcome {
    let mut client = accept(subject).await?;
    serve(subject, &mut client).await?;
    serve(subject, &mut client).await
}

async fn in_pieces(subject: &Subject) -> Outcome {
    let offer = make_offer(&offers(subject)?.service, None)?;
    let (mut client, accepted) = client(subject)?;
    let mut passing = pass(subject, accepted, &offer.token).await?;
    passing.send_in_pieces(offer.clone()).await?;
    must_accept(&said(&offer, acknowledgement(&mut passing.broker).await)?)?;
    serve(subject, &mut client).await
}

async fn wrong_token(subject: &Subject) -> Outcome {
    if CARRIER == Carrier::Table {
        return Err(skipped("here a token comes in the offer alone, so there is no second one to differ"));
    }
    let service = &offers(subject)?.service;
    let (came_with, offered) = (make_offer(service, None)?, make_offer(service, None)?);
    let (client, accepted) = client(subject)?;
    let mut passing = pass(subject, accepted, &came_with.token).await?;
    passing.send(offered).await?;
    must_not_accept(acknowledgement(&mut passing.broker).await)?;
    client.must_end("the passed connection closed by the service").await
}

async fn no_descriptor(subject: &Subject) -> Outcome {
    let offers = offers(subject)?;
    let offer = make_offer(&offers.service, None)?;
    let mut broker = Line::dial(&offers.endpoint, subject.patience).await?;
    let token = match CARRIER {
        Carrier::Message => &offer.token.as_bytes()[..],
        Carrier::Table => &[],
    };
    broker.send(&[token, &wire(&offer.to_frame())?].concat()).await;
    match must_not_accept(acknowledgement(&mut broker).await)? {
        Said::Closed => Ok(()),
        Said::Accepted | Said::Rejected => broker.must_end("a connection without a descriptor closed").await,
    }
}

/// That an offer that is none was not taken. Which token such an answer echoes is left open.
fn must_not_accept(came: Came) -> Outcome<Said> {
    const EXPECTED: &str = "a rejection, or the end of the connection";
    let is_accepted = |frame: &Frame| HandoffAck::decode(frame.payload.clone()).is_ok_and(|ack| ack.accepted);
    match came {
        Came::End => Ok(Said::Closed),
        Came::Frame(frame) if is_accepted(&frame) => Err(failed(EXPECTED, "the offer was accepted")),
        Came::Frame(_) => Ok(Said::Rejected),
        came @ (Came::Silence { .. } | Came::Broken(_)) => Err(failed(EXPECTED, came)),
    }
}

/// The broker has the connection for itself again, and will answer the client on it.
async fn rejected(subject: &Subject) -> Outcome {
    offers(subject)?;
    let offer = make_offer(ANOTHER_SERVICE, None)?;
    let (client, accepted) = client(subject)?;
    let mut passing = pass(subject, accepted, &offer.token).await?;
    passing.send(offer.clone()).await?;
    match said(&offer, acknowledgement(&mut passing.broker).await)? {
        Said::Accepted => Err(skipped("it takes offers for other services, so it had nothing to reject")),
        Said::Rejected | Said::Closed => {
            client.must_end("the service's copy closed, and not a byte sent on it").await
        }
    }
}

async fn client_gone(subject: &Subject) -> Outcome {
    let offers = offers(subject)?;
    let offer = make_offer(&offers.service, None)?;
    let (client, accepted) = client(subject)?;
    drop(client);
    let mut passing = pass(subject, accepted, &offer.token).await?;
    passing.send(offer.clone()).await?;
    // Whatever it makes of it, the next one has a client.
    said(&offer, acknowledgement(&mut passing.broker).await)?;
    let behind = |stop| match stop {
        Stop::Failed { expected, came } => {
            failed(format_args!("{expected}, after an offer whose client was gone"), came)
        }
        Stop::Skipped { .. } => stop,
    };
    let mut next = accept(subject).await.map_err(behind)?;
    serve(subject, &mut next).await.map_err(behind)
}

/// A copy of the connection that somebody has kept would keep the client from seeing the end.
async fn closed_after_use(subject: &Subject) -> Outcome {
    let mut client = accept(subject).await?;
    serve(subject, &mut client).await?;
    client.finish()?;
    client.must_end("the passed connection closed once its client has ended").await
}

async fn no_descriptor_stays(subject: &Subject) -> Outcome {
    offers(subject)?;
    let count = descriptors::Count::of(subject)?;
    for _ in 0..OFFERS {
        let mut client = accept(subject).await?;
        serve(subject, &mut client).await?;
    }
    count.settles(subject.patience, OFFERS).await
}
