//! The control connection to the broker: offers come in on it, and answers go out (protocol.md,
//! "Extensions").
//!
//! It carries; whether an offer is taken is decided by the server. Invariants: every offer has exactly one
//! descriptor, in the order in which they came where they ride on messages; an offer that is not answered here is closed, never kept;
//! an answer leaves at once where there is room for it, and nothing waits for a broker that does not read.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::pin::pin;

use broker_protocol::bytes::{Buf, BytesMut};
use broker_protocol::control::{Announcement, ControlFault, ControlMessage, MAX_CONTROL_BODY};
use broker_protocol::handoff::{Acknowledgement, HandoffFault, Offer};
use broker_protocol::wire::Frame;
use broker_protocol::{FrameDecoder, FramingError, PayloadProtocol, frame_bytes};
use broker_transport::descriptor::OwnedDescriptor;
use broker_transport::fd_passing::{FdPassError, Received, recv_with_fds};
use broker_transport::passing::{CARRIER, Carrier, ClaimError, claim};
use broker_transport::stream::{ConnectError, Stream};
use thiserror::Error;
use tokio::time::{Duration, Instant, sleep_until};

use crate::look::first_look;

/// Bytes read at once: several offers, or one with a long reply.
const READ_STEP: usize = 4 * 1024;
/// Longest time that an answer is held back which nobody waits for.
const HOLD_LIMIT: Duration = Duration::from_millis(1);
/// Most answers that are held back. A broker has 64 offers out at most.
const MAX_HELD: usize = 16;
/// The id of the first request.
const ANNOUNCEMENT_ID: u64 = 1;

/// What comes from the broker.
pub(crate) enum Event {
    /// A client's connection, to be taken or not.
    Offered(Offer, Result<OwnedDescriptor, ClaimError>),
    /// The broker has taken this process in.
    Admitted,
    /// A request, and the id that its answer echoes.
    Asked(u64, ControlMessage),
}

/// Why a control connection is over.
#[derive(Debug, Error)]
pub(crate) enum ControlEnd {
    #[error("the broker closed it")]
    Closed,
    #[error("cannot use it: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Descriptor(#[from] FdPassError),
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error(transparent)]
    Message(#[from] ControlFault),
    #[error(transparent)]
    Offer(#[from] HandoffFault),
    #[error("an offer came without a descriptor")]
    NoDescriptor,
    #[error("the broker does not want it: {0}")]
    NotAdmitted(String),
    #[error(transparent)]
    Dial(ConnectError),
    #[error("a process of user {0} listens where the broker should")]
    ForeignBroker(u64),
}

/// How to get a control connection.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// What the broker is told; where there is none, there is no connection.
    pub(crate) announcement: Option<Announcement>,
    /// The end that the broker has made when it started this process.
    pub(crate) inherited: Option<Stream>,
    /// Where to dial.
    pub(crate) broker: Option<PathBuf>,
}

/// One end of a control connection.
#[derive(Debug)]
pub(crate) struct Control {
    stream: Stream,
    decoder: FrameDecoder,
    received: BytesMut,
    /// One for each offer that has begun to come.
    descriptors: VecDeque<Option<OwnedDescriptor>>,
    unsent: BytesMut,
    /// Answers that nobody waits for, and when they leave at the latest.
    held: BytesMut,
    held_count: usize,
    release_at: Option<Instant>,
}

impl Control {
    /// Takes a connection into use, which begins with an announcement.
    ///
    /// # Errors
    /// It is not open any more.
    pub(crate) fn begin(stream: Stream, announcement: Announcement) -> Result<Self, ControlEnd> {
        let mut control = Self {
            stream,
            decoder: FrameDecoder::with_limit(MAX_CONTROL_BODY),
            received: BytesMut::new(),
            descriptors: VecDeque::new(),
            unsent: BytesMut::new(),
            held: BytesMut::new(),
            held_count: 0,
            release_at: None,
        };
        control.send(&ControlMessage::Announcement(announcement).to_frame(ANNOUNCEMENT_ID))?;
        Ok(control)
    }

    /// What comes next. Cancel-safe.
    ///
    /// # Errors
    /// It is over.
    pub(crate) async fn next(&mut self) -> Result<Event, ControlEnd> {
        loop {
            if let Some(event) = self.take_event()? {
                return Ok(event);
            }
            let mut space = [0; READ_STEP];
            let received = tokio::select! {
                biased;
                received = recv_with_fds(&self.stream, &mut space, 1) => match received {
                    // The bytes are all there, and so is what comes next.
                    Err(FdPassError::Cut { len }) => {
                        self.descriptors.push_back(None);
                        Received { len, descriptors: Vec::new() }
                    }
                    received => received?,
                },
                sent = self.stream.write_some(&self.unsent), if !self.unsent.is_empty() => {
                    self.unsent.advance(sent?);
                    continue;
                }
                () = due(self.release_at) => {
                    self.release()?;
                    continue;
                }
            };
            self.take_bytes(&space[..received.len], received.descriptors)?;
        }
    }

    /// The next thing that is there already; none where something would have to be waited for.
    pub(crate) async fn next_waiting(&mut self) -> Option<Event> {
        first_look(pin!(self.next())).await?.ok()
    }

    /// Answers an offer whose client waits for the broker to hear of it.
    ///
    /// # Errors
    /// It is over.
    pub(crate) fn settle(&mut self, answer: &Acknowledgement) -> Result<(), ControlEnd> {
        self.send(&answer.to_response())
    }

    /// Answers an offer soon: together with those that follow within [`HOLD_LIMIT`], as each answer that
    /// leaves by itself wakes the broker, which has nothing to do but drop its copy of the connection.
    ///
    /// # Errors
    /// It is over.
    pub(crate) fn settle_soon(&mut self, answer: &Acknowledgement) -> Result<(), ControlEnd> {
        self.held.extend_from_slice(&frame_bytes(&answer.to_response())?);
        self.held_count += 1;
        if self.held_count >= MAX_HELD {
            return self.release();
        }
        if self.release_at.is_none() {
            self.release_at = Some(Instant::now() + HOLD_LIMIT);
        }
        Ok(())
    }

    /// Sends the answers that were held back.
    ///
    /// # Errors
    /// It is over.
    pub(crate) fn release(&mut self) -> Result<(), ControlEnd> {
        self.release_at = None;
        self.held_count = 0;
        let held = self.held.split();
        if held.is_empty() { Ok(()) } else { self.send_bytes(&held) }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// It is over.
    pub(crate) fn answer(&mut self, id: u64, answer: &ControlMessage) -> Result<(), ControlEnd> {
        self.send(&answer.to_frame(id))
    }

    fn send(&mut self, frame: &Frame) -> Result<(), ControlEnd> {
        self.send_bytes(&frame_bytes(frame)?)
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), ControlEnd> {
        let sent = if self.unsent.is_empty() {
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                sent => sent?,
            }
        } else {
            0
        };
        // Bounded by what was asked: a broker has 64 offers out at most.
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    fn take_bytes(&mut self, bytes: &[u8], descriptors: Vec<OwnedDescriptor>) -> Result<(), ControlEnd> {
        if bytes.is_empty() {
            return Err(ControlEnd::Closed);
        }
        self.received.extend_from_slice(bytes);
        self.descriptors.extend(descriptors.into_iter().map(Some));
        Ok(())
    }

    fn take_event(&mut self) -> Result<Option<Event>, ControlEnd> {
        while let Some(frame) = self.decoder.decode(&mut self.received)? {
            if frame.lane() == PayloadProtocol::HANDOFF {
                let carried = match CARRIER {
                    // One that is there, or for which no descriptor was free.
                    Carrier::Message => self.descriptors.pop_front().ok_or(ControlEnd::NoDescriptor)?,
                    Carrier::Table => None,
                };
                let offer = Offer::from_frame(frame)?;
                let claimed = claim(carried, offer.handle_value, &self.stream);
                return Ok(Some(Event::Offered(offer, claimed)));
            }
            let id = frame.request_id;
            match ControlMessage::from_frame(frame) {
                Ok(ControlMessage::Admittance(answer)) if !answer.admitted => {
                    return Err(ControlEnd::NotAdmitted(answer.reason));
                }
                Ok(ControlMessage::Admittance(_)) => return Ok(Some(Event::Admitted)),
                Ok(message) => return Ok(Some(Event::Asked(id, message))),
                // A broker of a later version may say more.
                Err(ControlFault::Empty) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(None)
    }
}

/// Returns at this time, if at all.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use broker_protocol::bytes::Bytes;
    use broker_protocol::control::{Admittance, UsageQuery};
    use broker_protocol::{ConnectionId, HandoffToken};
    use broker_transport::frame_io::read_frame_body;
    use broker_transport::passing::Recipient;

    use super::*;

    fn offer(number: u64, reply: usize) -> Offer {
        Offer {
            token: HandoffToken::from_bytes([7; 16]),
            service: "cache".parse().unwrap(),
            connection: ConnectionId::new(number).unwrap(),
            request_id: number,
            reply: (reply > 0).then(|| Bytes::from(vec![0; reply])),
            handle_value: 0,
        }
    }

    async fn pair() -> (Stream, Control) {
        let (broker, backend) = Stream::pair().unwrap();
        let announcement = Announcement { service_name: "cache".into(), ..Announcement::default() };
        let control = Control::begin(backend, announcement.clone()).unwrap();
        let frame = <Frame as broker_protocol::prost::Message>::decode(
            read_frame_body(&broker, MAX_CONTROL_BODY).await.unwrap(),
        );
        let announced = ControlMessage::from_frame(frame.unwrap()).unwrap();
        assert_eq!(announced, ControlMessage::Announcement(announcement));
        (broker, control)
    }

    #[tokio::test]
    async fn each_offer_has_the_descriptor_that_it_came_with() {
        let (broker, mut control) = pair().await;
        let mut clients = Vec::new();
        for number in 1..=3 {
            let (passed, client) = Stream::pair().unwrap();
            let passage = Recipient::peer_of(&broker).unwrap().prepare(passed.descriptor()).unwrap();
            let offer =
                Offer { handle_value: passage.handle_value(), ..offer(number, 3_000 * number as usize) };
            let bytes = frame_bytes(&offer.to_frame()).unwrap();
            let sent = passage.send(&broker, &bytes, passed.descriptor()).await.unwrap();
            broker.send_all(&bytes[sent..]).await.unwrap();
            let question = ControlMessage::UsageQuery(UsageQuery {}).to_frame(40 + number);
            broker.send_all(&frame_bytes(&question).unwrap()).await.unwrap();
            client.send_all(&[number as u8]).await.unwrap();
            clients.push(client);
        }
        for number in 1..=3 {
            let Event::Offered(offered, descriptor) = control.next().await.unwrap() else {
                panic!("expected an offer")
            };
            assert_eq!(offered.connection.get(), number);
            let mut byte = [0];
            Stream::from_owned_fd(descriptor.unwrap()).unwrap().read_some(&mut byte).await.unwrap();
            assert_eq!(u64::from(byte[0]), number);
            let Event::Asked(id, _) = control.next().await.unwrap() else { panic!("expected a question") };
            assert_eq!(id, 40 + number);
        }
        assert!(control.next_waiting().await.is_none());
    }

    #[tokio::test]
    async fn an_offer_without_a_descriptor_ends_it_or_is_one_of_nothing() {
        let (broker, mut control) = pair().await;
        broker.send_all(&frame_bytes(&offer(1, 0).to_frame()).unwrap()).await.unwrap();
        match CARRIER {
            // Which one belongs to which offer would not be known any more.
            Carrier::Message => assert!(matches!(control.next().await, Err(ControlEnd::NoDescriptor))),
            Carrier::Table => {
                assert!(matches!(control.next().await, Ok(Event::Offered(_, Err(ClaimError::Missing)))));
            }
        }
    }

    #[tokio::test]
    async fn a_refusal_and_the_broker_s_end_end_it_and_an_admittance_does_not() {
        let (broker, mut control) = pair().await;
        let admit = |admitted| ControlMessage::Admittance(Admittance { admitted, reason: "why".into() });
        for admitted in [true, false] {
            broker.send_all(&frame_bytes(&admit(admitted).to_frame(1)).unwrap()).await.unwrap();
        }
        assert!(matches!(control.next().await, Ok(Event::Admitted)));
        assert!(matches!(control.next().await, Err(ControlEnd::NotAdmitted(reason)) if reason == "why"));
        drop(broker);
        assert!(matches!(control.next().await, Err(ControlEnd::Closed)));
    }

    #[tokio::test]
    async fn answers_wait_for_room_and_leave_in_order() {
        let (broker, mut control) = pair().await;
        let answers: u64 = 20_000;
        for number in 1..=answers {
            control.settle(&Acknowledgement::accept(&offer(number, 0))).unwrap();
        }
        assert!(!control.unsent.is_empty(), "more than a socket holds");
        let read = async {
            for number in 1..=answers {
                let body = read_frame_body(&broker, MAX_CONTROL_BODY).await.unwrap();
                let frame = <Frame as broker_protocol::prost::Message>::decode(body).unwrap();
                assert_eq!(Acknowledgement::from_response(frame).unwrap().connection.get(), number);
            }
        };
        tokio::select! {
            () = read => {}
            _ = control.next() => panic!("nothing was sent to it"),
        }
    }
}
