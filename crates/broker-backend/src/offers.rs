//! Offers of plain v1: a broker dials, sends a connection with its token, then the offer (protocol.md,
//! "Conversations" 4).
//!
//! It receives; whether an offer is taken is decided by the server. Invariants: at most [`MAX_DIALLED`]
//! connections of brokers are open; one that does not make its offer within [`OFFER_LIMIT`] is closed; a
//! connection that is not taken is closed before its offer is rejected.

use std::io;

use broker_protocol::handoff::{Acknowledgement, HandoffFault, Offer};
use broker_protocol::prost::{DecodeError, Message};
use broker_protocol::wire::Frame;
use broker_protocol::{FramingError, HANDOFF_TOKEN_LEN, HandoffToken, frame_bytes};
use broker_transport::descriptor::OwnedDescriptor;
use broker_transport::fd_passing::{FdPassError, recv_with_fds};
use broker_transport::frame_io::{FrameBuffer, ReadError};
use broker_transport::listener::{Accepted, Listener};
use broker_transport::passing::{CARRIER, Carrier, ClaimError, claim};
use broker_transport::stream::Stream;
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};

use crate::connections::Connections;
use crate::handler::Handler;
use crate::look::first_look;
use crate::serve::admissible;

/// How many brokers, or offers of one, may be on their way in at once. A broker has as many offers out.
pub const MAX_DIALLED: usize = 64;
/// How long a broker may take to make the offer that it has dialled for.
pub const OFFER_LIMIT: Duration = Duration::from_secs(5);
/// Longest body of an offer, in bytes.
const MAX_OFFER_BODY: usize = 64 * 1024;

/// An offer that has come in.
pub(crate) struct DialledOffer {
    broker: Stream,
    offer: Offer,
    descriptor: OwnedDescriptor,
}

/// Why no offer came of a connection.
#[derive(Debug, Error)]
enum NoOffer {
    #[error("the broker made none within {} s", OFFER_LIMIT.as_secs())]
    Late,
    #[error("the broker has closed the connection")]
    Closed,
    #[error(transparent)]
    Descriptor(#[from] FdPassError),
    #[error("expected a descriptor with the first of {HANDOFF_TOKEN_LEN} bytes, got none")]
    NoDescriptor,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("its body is not a Frame: {0}")]
    NotAFrame(#[from] DecodeError),
    #[error(transparent)]
    Fault(#[from] HandoffFault),
    #[error("the token that came with the descriptor is not the offer's")]
    Token,
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

/// Why an answer was not sent.
#[derive(Debug, Error)]
enum NotAnswered {
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where brokers dial, if anywhere.
pub(crate) struct Offers {
    listener: Option<Listener>,
    service: Option<String>,
    coming: JoinSet<Result<DialledOffer, NoOffer>>,
}

impl Offers {
    /// Takes offers on `listener`; those for another service than this are rejected.
    pub(crate) fn new(listener: Option<Listener>, service: Option<String>) -> Self {
        Self { listener, service, coming: JoinSet::new() }
    }

    /// The next offer that is whole. Cancel-safe.
    pub(crate) async fn next(&mut self) -> DialledOffer {
        let Some(listener) = &self.listener else { return std::future::pending().await };
        loop {
            tokio::select! {
                biased;
                Some(came) = self.coming.join_next() => match came {
                    Ok(Ok(offer)) => return offer,
                    Ok(Err(NoOffer::Closed)) => {}
                    Ok(Err(why)) => tracing::debug!(%why, "no offer came of a broker's connection"),
                    Err(error) => tracing::error!(%error, "an offer was not received"),
                },
                accepted = listener.accept(), if self.coming.len() < MAX_DIALLED => match accepted {
                    Ok(Accepted { stream, peer }) => match admissible(peer) {
                        Ok(_) => {
                            let mut coming = Box::pin(receive(stream));
                            match first_look(coming.as_mut()).await {
                                Some(Ok(offer)) => return offer,
                                Some(Err(why)) => tracing::debug!(%why, "no offer came of a broker's connection"),
                                None => drop(self.coming.spawn(coming)),
                            }
                        }
                        Err(why) => tracing::warn!(%why, "a connection for offers was closed unread"),
                    },
                    Err(error) => {
                        tracing::warn!(%error, "a broker's connection was not accepted");
                        // Whoever dialled gives up by itself; this must not become a busy loop.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
    }

    /// Takes or rejects an offer.
    pub(crate) fn take<H: Handler>(&mut self, offered: DialledOffer, connections: &mut Connections<H>) {
        let DialledOffer { broker, offer, descriptor } = offered;
        let is_another = self.service.as_ref().is_some_and(|own| *own != offer.service.as_str());
        let admitted = if is_another {
            drop(descriptor);
            Err("this process serves another service".to_owned())
        } else {
            connections.admit_passed(descriptor).map_err(|why| why.to_string())
        };
        let answer = match &admitted {
            Ok(_) => Acknowledgement::accept(&offer),
            Err(detail) => Acknowledgement::reject(&offer, detail.as_str()),
        };
        // Before anything else, as a client waits for it.
        if let Err(error) = answer_now(&broker, &answer) {
            tracing::debug!(%error, "a broker was not answered");
        }
        // It dials for each offer.
        drop(broker);
        if let Ok(admitted) = admitted {
            connections.adopt(admitted, offer.reply);
        }
    }
}

/// An answer is a few bytes on a connection that carries nothing else: there is room, or the broker is gone.
fn answer_now(broker: &Stream, answer: &Acknowledgement) -> Result<(), NotAnswered> {
    let bytes = frame_bytes(&answer.to_response())?;
    match broker.try_write(&bytes)? {
        sent if sent == bytes.len() => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::WriteZero).into()),
    }
}

async fn receive(broker: Stream) -> Result<DialledOffer, NoOffer> {
    timeout(OFFER_LIMIT, receive_whole(broker)).await.map_err(|_| NoOffer::Late)?
}

async fn receive_whole(broker: Stream) -> Result<DialledOffer, NoOffer> {
    let (token, carried) = match CARRIER {
        Carrier::Message => {
            receive_token(&broker).await.map(|(token, carried)| (Some(token), Some(carried)))?
        }
        Carrier::Table => (None, None),
    };
    let mut frames = FrameBuffer::new(MAX_OFFER_BODY);
    let offer = Offer::from_frame(Frame::decode(frames.read_from(&broker).await?)?)?;
    let descriptor = claim(carried, offer.handle_value, &broker)?;
    match token {
        Some(token) if token != offer.token => Err(NoOffer::Token),
        Some(_) | None => Ok(DialledOffer { broker, offer, descriptor }),
    }
}

/// The bytes of the token, with a descriptor on the first of them.
async fn receive_token(broker: &Stream) -> Result<(HandoffToken, OwnedDescriptor), NoOffer> {
    let mut token = [0; HANDOFF_TOKEN_LEN];
    let first = recv_with_fds(broker, &mut token, 1).await?;
    if first.len == 0 {
        return Err(NoOffer::Closed);
    }
    let descriptor = first.descriptors.into_iter().next().ok_or(NoOffer::NoDescriptor)?;
    let mut filled = first.len;
    while filled < token.len() {
        match recv_with_fds(broker, &mut token[filled..], 0).await?.len {
            0 => return Err(NoOffer::Closed),
            count => filled += count,
        }
    }
    Ok((HandoffToken::from_bytes(token), descriptor))
}
