//! Passing a client's connection to the backend it asked for (protocol.md, "Conversations" 4 and 6,
//! "Extensions").
//!
//! Two ways lead to a backend: its control connection, or a connection that is dialled for this offer
//! alone. And two orders: the reply is written here and the offer follows, or it travels with the offer
//! and its new owner writes it. Invariants: before an offer has left, a failure costs the client nothing
//! but the handoff; after that, only the backend's answer lets this copy be used again.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use broker_core::handoff::{BackendSlot, OfferError, Settlement};
use broker_core::hello::{BackendHandoff, Handover, Negotiation, Reply};
use broker_protocol::bytes::Bytes;
use broker_protocol::handoff::{Acknowledgement, Offer};
use broker_protocol::prost::{DecodeError, Message};
use broker_protocol::wire::Frame;
use broker_protocol::{ConnectionId, Echo, FrameView, FramingError, HandoffToken, frame_bytes};
use broker_transport::fd_passing::FdPassError;
use broker_transport::frame_io::{FrameBuffer, ReadError};
use broker_transport::passing::{CARRIER, Carrier, Passage, Recipient};
use broker_transport::stream::{BlockingMode, ConnectError, Stream};
use thiserror::Error;

use super::connection;
use super::control::Control;
use super::ownership::{Held, Lent};
use super::shell::Shell;

/// Longest reply that travels with an offer, in bytes. A longer one, because of its trace context, is
/// written here.
const MAX_TRAVELLING_REPLY: usize = 8 * 1024;
/// Most frames on a connection for one offer that do not answer it.
const MAX_STRAYS: u32 = 64;
/// Longest body of a backend's answer to an offer, in bytes.
const MAX_ANSWER_BODY: usize = 4 * 1024;

/// What was agreed with a client whose connection is to be passed on.
pub(super) struct Terms {
    negotiation: Negotiation,
    /// The body of the Hello's frame, for what an answer echoes of it.
    request: Bytes,
}

/// A connection that was offered and not answered for yet.
pub(super) struct Parked {
    lent: Lent,
    terms: Terms,
}

/// A connection that was not offered, and is still ours.
struct Unsent {
    held: Held,
    terms: Terms,
    why: NotOffered,
}

/// Why a connection was not offered.
#[derive(Debug, Error)]
enum NotOffered {
    #[error("its token is no longer good: {0}")]
    Token(#[from] OfferError),
    #[error("the backend takes no offers any more")]
    NoWay,
    #[error("its reply of {0} bytes is too long to travel with it")]
    LongReply(usize),
    #[error("the offer cannot be framed: {0}")]
    Framing(#[from] FramingError),
    #[error(transparent)]
    Dial(#[from] ConnectError),
    #[error("the backend takes no more connections for offers at the moment")]
    Busy,
    #[error("the kernel does not say who takes the offers: {0}")]
    UnknownListener(#[source] io::Error),
    #[error("a process of user {0} takes the offers")]
    ForeignListener(u64),
    #[error("process {actual:?} takes the offers, but the backend is process {expected}")]
    OtherProcess { expected: u32, actual: Option<u32> },
    #[error("the connection cannot be made a blocking one: {0}")]
    Mode(#[source] io::Error),
    #[error("it cannot be made ready for the backend's process: {0}")]
    Prepare(#[source] io::Error),
    #[error(transparent)]
    Send(#[from] FdPassError),
}

/// Why an offer that left has no answer.
#[derive(Debug, Error)]
enum NoAnswer {
    #[error("the offer could not be sent to its end: {0}")]
    Send(#[source] io::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the answer is not a Frame: {0}")]
    NotAFrame(#[from] DecodeError),
    #[error("{MAX_STRAYS} frames came that do not answer it")]
    Strays,
}

impl Terms {
    pub(super) const fn new(negotiation: Negotiation, request: Bytes) -> Self {
        Self { negotiation, request }
    }

    fn slot(&self) -> BackendSlot {
        self.negotiation.route.slot()
    }

    const fn connection(&self) -> ConnectionId {
        self.negotiation.connection_id
    }

    /// The token, and the whole offer.
    fn offer(
        &self,
        shell: &Shell,
        passage: &Passage,
        reply: Option<Bytes>,
    ) -> Result<(HandoffToken, Bytes), NotOffered> {
        let service =
            shell.look(|broker, _| broker.backend(self.slot()).map(|backend| backend.service().clone()));
        let (Some(token), Some(service)) = (self.negotiation.token.clone(), service) else {
            return Err(NotOffered::NoWay);
        };
        let connection = self.connection();
        let offer = Offer {
            token: token.clone(),
            service,
            connection,
            request_id: connection.get(),
            reply,
            handle_value: passage.handle_value(),
        };
        Ok((token, frame_bytes(&offer.to_frame())?))
    }

    fn echo(&self) -> Echo<'_> {
        // It was read before, or nothing would have been agreed.
        FrameView::decode(&self.request).map_or_else(|_| Echo::default(), |frame| Echo::from(&frame))
    }

    /// The reply to a client that is not passed on.
    fn reply_without_handoff(self) -> Vec<u8> {
        let echo = self.echo();
        connection::encode(&echo, &Reply::Negotiated(self.negotiation.clone().without_handover()))
    }
}

/// Passes a connection on. `reply` is the encoded answer to its Hello.
pub(super) async fn pass(shell: &Rc<Shell>, mut held: Held, terms: Terms, reply: Vec<u8>) {
    match terms.negotiation.handover() {
        Handover::None => {
            connection::write(held.stream(), &reply).await;
        }
        Handover::WithReply => {
            if let Err(unsent) = offer_by_control(shell, held, terms, Some(reply.into())) {
                let Unsent { held, terms, why } = *unsent;
                not_offered(shell, &terms, &why);
                connection::write(held.stream(), &terms.reply_without_handoff()).await;
            }
        }
        Handover::AfterReply => {
            // Before the reply, which then promises nothing that cannot be kept.
            let way = match way_to(shell, &held, &terms).await {
                Ok(way) => way,
                Err(why) => {
                    not_offered(shell, &terms, &why);
                    connection::write(held.stream(), &terms.reply_without_handoff()).await;
                    return;
                }
            };
            if !connection::write(held.stream(), &reply).await {
                shell.call(|broker, _| broker.not_offered(&terms.negotiation));
                return;
            }
            held.answered();
            let offered = match way {
                Way::Control => offer_by_control(shell, held, terms, None),
                Way::Dialled(dialled) => offer_by_dialling(shell, held, terms, *dialled).await,
            };
            if let Err(unsent) = offered {
                // The client has its reply; that the connection closes tells it to dial at once.
                not_offered(shell, &unsent.terms, &unsent.why);
            }
        }
    }
}

/// How an offer gets to its backend.
enum Way {
    Control,
    Dialled(Box<Dialled>),
}

/// A connection for one offer, and what is sent on it.
struct Dialled {
    backend: Stream,
    passage: Passage,
    /// What the client's connection leaves with.
    head: Bytes,
    rest: Bytes,
}

async fn way_to(shell: &Rc<Shell>, held: &Held, terms: &Terms) -> Result<Way, NotOffered> {
    match terms.negotiation.route.handoff() {
        BackendHandoff::Control | BackendHandoff::ControlOffers => Ok(Way::Control),
        BackendHandoff::Plain | BackendHandoff::DialOnly => {
            let backend = dial(shell, terms).await?;
            let passage = Recipient::peer_of(&backend)
                .and_then(|recipient| recipient.prepare(held.stream().descriptor()))
                .map_err(NotOffered::Prepare)?;
            let (token, offer) = terms.offer(shell, &passage, None)?;
            let (head, rest) = match CARRIER {
                Carrier::Message => (Bytes::copy_from_slice(token.as_bytes()), offer),
                Carrier::Table => (offer, Bytes::new()),
            };
            Ok(Way::Dialled(Box::new(Dialled { backend, passage, head, rest })))
        }
    }
}

fn not_offered(shell: &Rc<Shell>, terms: &Terms, why: &NotOffered) {
    tracing::debug!(connection_id = %terms.connection(), %why, "a connection was not offered");
    shell.call(|broker, _| broker.not_offered(&terms.negotiation));
}

/// Sends an offer on the backend's control connection, at once or not at all.
fn offer_by_control(
    shell: &Rc<Shell>,
    held: Held,
    terms: Terms,
    reply: Option<Bytes>,
) -> Result<(), Box<Unsent>> {
    let ready = match prepare(shell, &held, &terms, reply) {
        Ok(ready) => ready,
        Err(why) => return Err(Box::new(Unsent { held, terms, why })),
    };
    let (control, passage, offer) = ready;
    let lent = held.lend(terms.connection());
    let sent = control.offer(&offer, passage, lent.descriptor());
    match sent {
        Ok(()) => {
            shell.park(terms.connection(), control, Parked { lent, terms });
            Ok(())
        }
        Err(error) => {
            let held = lent.not_sent(&error);
            Err(Box::new(Unsent { held, terms, why: error.into() }))
        }
    }
}

fn prepare(
    shell: &Rc<Shell>,
    held: &Held,
    terms: &Terms,
    reply: Option<Bytes>,
) -> Result<(Rc<Control>, Passage, Bytes), NotOffered> {
    if let Some(reply) = reply.as_ref().filter(|reply| reply.len() > MAX_TRAVELLING_REPLY) {
        return Err(NotOffered::LongReply(reply.len()));
    }
    let control = shell.control(terms.slot()).ok_or(NotOffered::NoWay)?;
    let passage = control.prepare(held.stream().descriptor()).map_err(NotOffered::Prepare)?;
    let (_, offer) = terms.offer(shell, &passage, reply)?;
    shell.call(|broker, now| broker.offering(now, &terms.negotiation))?;
    Ok((control, passage, offer))
}

/// A connection for one offer. One that is not to be had at once is not waited for, as a client is waiting.
async fn dial(shell: &Rc<Shell>, terms: &Terms) -> Result<Stream, NotOffered> {
    let taken_at = shell.look(|broker, _| {
        broker.offers_taken_at(terms.slot()).map(|(endpoint, pid)| (endpoint.to_owned(), pid))
    });
    let (endpoint, expected) = taken_at.ok_or(NotOffered::NoWay)?;
    let backend = first_look(pin!(Stream::connect(&endpoint))).await.ok_or(NotOffered::Busy)??;
    let listener = backend.peer().map_err(NotOffered::UnknownListener)?;
    if !listener.user.is_self() {
        return Err(NotOffered::ForeignListener(listener.user.key()));
    }
    let actual = listener.pid.map(std::num::NonZeroU32::get);
    match expected {
        Some(expected) if actual != Some(expected) => Err(NotOffered::OtherProcess { expected, actual }),
        Some(_) | None => Ok(backend),
    }
}

/// Offers a connection over one that was dialled, and waits for the answer (protocol.md, "Conversations" 4
/// and 5).
async fn offer_by_dialling(
    shell: &Rc<Shell>,
    held: Held,
    terms: Terms,
    dialled: Dialled,
) -> Result<(), Box<Unsent>> {
    let Dialled { backend, passage, head, rest } = dialled;
    let unsent = |held, terms, why| Err(Box::new(Unsent { held, terms, why }));
    // As `accept` would have given it to a backend that was dialled.
    let ready = held.stream().set_blocking(BlockingMode::Blocking).map_err(NotOffered::Mode);
    let ready = ready.and_then(|()| Ok(shell.call(|broker, now| broker.offering(now, &terms.negotiation))?));
    if let Err(why) = ready {
        return unsent(held, terms, why);
    }
    let lent = held.lend(terms.connection());
    let sent = match passage.send(&backend, &head, lent.descriptor()).await {
        Ok(sent) => sent,
        Err(error) => return unsent(lent.not_sent(&error), terms, error.into()),
    };
    let limit = shell.look(|broker, _| broker.config().hello.handoff.ack_deadline);
    let answer = wait_for_answer(shell, &backend, &terms, [&head[sent..], &rest]);
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok((answer, settlement))) => Parked { lent, terms }.settle(&answer, settlement),
        Ok(Err(why)) => {
            tracing::debug!(connection_id = %terms.connection(), %why, "an offer was not answered");
            shell.call(|broker, _| broker.answer_lost(&terms.negotiation));
        }
        // The broker sees to that by itself.
        Err(_) => {}
    }
    Ok(())
}

/// What a future comes to without waiting.
pub(super) async fn first_look<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Sends the rest of an offer, and reads until something answers it.
async fn wait_for_answer(
    shell: &Rc<Shell>,
    backend: &Stream,
    terms: &Terms,
    unsent: [&[u8]; 2],
) -> Result<(Acknowledgement, Settlement), NoAnswer> {
    for part in unsent {
        backend.send_all(part).await.map_err(NoAnswer::Send)?;
    }
    let mut frames = FrameBuffer::new(MAX_ANSWER_BODY);
    let mut strays = 0;
    loop {
        let frame = Frame::decode(frames.read_from(backend).await?)?;
        let is_its_own = |connection| connection == terms.connection();
        if let Some(settled) = settle_by(shell, terms.slot(), frame, is_its_own) {
            return Ok(settled);
        }
        strays += 1;
        if strays > MAX_STRAYS {
            return Err(NoAnswer::Strays);
        }
    }
}

/// What a frame from a backend settles, if it is the answer to an offer that went the same way and is still
/// waited for.
pub(super) fn settle_by(
    shell: &Rc<Shell>,
    slot: BackendSlot,
    frame: Frame,
    went_this_way: impl FnOnce(ConnectionId) -> bool,
) -> Option<(Acknowledgement, Settlement)> {
    let answer = match Acknowledgement::from_response(frame) {
        Ok(answer) => answer,
        Err(fault) => {
            tracing::debug!(%fault, "a backend's frame answers no offer");
            return None;
        }
    };
    if !went_this_way(answer.connection) {
        tracing::debug!(connection_id = %answer.connection, "an answer came another way than its offer went");
        return None;
    }
    match shell.call(|broker, now| broker.answered(now, slot, &answer)) {
        Ok(settlement) => {
            if matches!(settlement, Settlement::Accepted(_)) {
                shell.note_adopted(slot);
            }
            Some((answer, settlement))
        }
        Err(error) => {
            tracing::debug!(connection_id = %answer.connection, %error, "an answer settles nothing");
            None
        }
    }
}

impl Parked {
    /// Does what the backend's answer allows.
    pub(super) fn settle(self, answer: &Acknowledgement, settlement: Settlement) {
        let Self { lent, terms } = self;
        match (settlement, terms.negotiation.handover()) {
            (Settlement::Accepted(proof), Handover::AfterReply) => {
                let event = frame_bytes(&answer.to_event(terms.echo().request_id));
                if let (Some(farewell), Ok(event)) = (lent.accepted(&proof), event) {
                    farewell.say(&event);
                }
            }
            // The reply tells the client.
            (Settlement::Accepted(_), Handover::WithReply | Handover::None) => drop(lent),
            // The client has its reply; that the connection closes tells it to dial at once.
            (Settlement::Rejected(proof), Handover::AfterReply | Handover::None) => {
                drop(lent.rejected(&proof));
            }
            (Settlement::Rejected(proof), Handover::WithReply) => {
                let Some(held) = lent.rejected(&proof) else { return };
                tokio::task::spawn_local(async move {
                    connection::write(held.stream(), &terms.reply_without_handoff()).await;
                });
            }
        }
    }
}
