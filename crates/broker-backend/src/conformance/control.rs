//! Offers over the connection that a started service has inherited, and what else a broker says on it
//! (protocol.md, "Extensions", "Control connection").
//!
//! Only a service that the kit has started has one. Invariant: one thing is asked at a time, so what comes
//! next is the answer to it.

use broker_protocol::bytes::Bytes;
use broker_protocol::control::{Admittance, CONTROL_FD, ControlMessage, Quiesce, UsageQuery};
use broker_protocol::handoff::Offer;
use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, FrameKind, HelloReply, Negotiated, hello_reply};
use broker_protocol::{Capabilities, PROTOCOL_VERSION, PayloadProtocol};
use broker_transport::passing::Recipient;
use broker_transport::stream::Stream;

use super::golden::ANSWER;
use super::handoff::{ACKNOWLEDGED_WITHIN, Said, client, make_offer, must_accept, prepare, said};
use super::line::{Came, Line};
use super::program::Program;
use super::report::{Check, Outcome, expect_same, failed, skipped};
use super::run::Run;
use super::subject::{Subject, wire};

const CONTROL: &str = "protocol.md, \"Extensions\", \"Control connection\"";
const REPLY: &str = "protocol.md, \"Extensions\", HandoffOffer 1000";

const ANNOUNCEMENT: Check = Check { name: "control/announcement", section: CONTROL };
const OFFER: Check = Check { name: "control/offer", section: CONTROL };
const REPLY_FIRST: Check = Check { name: "control/reply-first", section: REPLY };
const USAGE: Check = Check { name: "control/usage", section: CONTROL };
const QUIESCE: Check = Check { name: "control/quiesce", section: CONTROL };
const AFTER_QUIESCE: Check = Check { name: "control/offer-after-quiesce", section: CONTROL };

/// What a service is told that it has for a quiesce.
const QUIESCE_LIMIT_MS: u64 = 1_000;

/// The broker's side of a control connection.
struct Control<'a> {
    subject: &'a Subject,
    service: String,
    line: Line,
    recipient: Recipient,
    capabilities: Capabilities,
    last_id: u64,
}

/// Checks a control connection; every check is skipped where there is none.
pub(super) async fn run(run: &mut Run, subject: &Subject, started: Option<(&Program, (Stream, Recipient))>) {
    let Some((program, (stream, recipient))) = started else {
        for check in [ANNOUNCEMENT, OFFER, REPLY_FIRST, USAGE, QUIESCE, AFTER_QUIESCE] {
            run.note(check, Err(skipped("only a service that the kit starts has a control connection")));
        }
        return;
    };
    let mut control = Control {
        subject,
        service: program.service().to_string(),
        line: Line::over(stream, subject.patience),
        recipient,
        capabilities: Capabilities::empty(),
        last_id: 1 << 33,
    };
    run.check(subject, ANNOUNCEMENT, &[ANSWER], control.announcement(program)).await;
    run.check(subject, OFFER, &[ANNOUNCEMENT], control.offer()).await;
    run.check(subject, REPLY_FIRST, &[ANNOUNCEMENT], control.reply_first()).await;
    run.check(subject, USAGE, &[ANNOUNCEMENT], control.usage()).await;
    run.check(subject, QUIESCE, &[ANNOUNCEMENT], control.quiesce()).await;
    run.check(subject, AFTER_QUIESCE, &[ANNOUNCEMENT, QUIESCE], control.offer_after_quiesce()).await;
}

impl Control<'_> {
    /// The first thing that it says is who it is.
    async fn announcement(&mut self, program: &Program) -> Outcome {
        let frame = match self.line.next().await {
            Came::Frame(frame) => *frame,
            Came::End | Came::Silence { received: 0 } => {
                return Err(skipped(format_args!("it makes no use of ${CONTROL_FD}, which is plain v1")));
            }
            came @ (Came::Silence { .. } | Came::Broken(_)) => return Err(failed("an Announcement", came)),
        };
        let id = frame.request_id;
        let announcement = match ControlMessage::from_frame(frame) {
            Ok(ControlMessage::Announcement(announcement)) => announcement,
            Ok(other) => return Err(failed("an Announcement", format_args!("{other:?}"))),
            Err(fault) => return Err(failed("an Announcement", fault)),
        };
        expect_same("service_name", self.service.as_str(), &announcement.service_name)?;
        expect_same("service_version", program.version().to_string(), announcement.service_version)?;
        expect_same("endpoint", self.subject.endpoint.to_string_lossy().into_owned(), announcement.endpoint)?;
        self.capabilities = Capabilities::from_bits_retain(announcement.capabilities);
        let admittance = ControlMessage::Admittance(Admittance { admitted: true, reason: String::new() });
        self.line.send(&wire(&admittance.to_frame(id))?).await;
        Ok(())
    }

    /// The broker has written the reply itself.
    async fn offer(&mut self) -> Outcome {
        self.must_have(Capabilities::HANDLE_PASSING)?;
        let (mut client, said) = self.pass(None, &[]).await?;
        must_accept(&said)?;
        self.subject.ask(&mut client, &self.subject.question()).await.map(drop)
    }

    /// The service writes the reply, before the answer to what the client has sent already.
    async fn reply_first(&mut self) -> Outcome {
        self.must_have(Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA)?;
        let reply = reply(self.subject)?;
        let early = self.subject.question();
        let (mut client, said) = self.pass(Some(reply.clone()), &wire(&early)?).await?;
        must_accept(&said)?;
        let came = client.bytes(reply.len()).await;
        if came != reply {
            return Err(failed(
                format_args!("the {} bytes of hello_reply_frame first", reply.len()),
                format_args!("{} other bytes: {}", came.len(), came.escape_ascii()),
            ));
        }
        self.subject.answered(&early, client.next().await)?;
        self.subject.ask(&mut client, &self.subject.question()).await.map(drop)
    }

    async fn usage(&mut self) -> Outcome {
        let mut open = self.subject.dial().await?;
        // Answered once, it is open on the service's side, too.
        self.subject.probe_on(&mut open).await?;
        match self.ask(&ControlMessage::UsageQuery(UsageQuery {})).await? {
            ControlMessage::Usage(usage) if usage.connections > 0 => Ok(()),
            ControlMessage::Usage(_) => Err(failed("at least the connection that is open", "0 connections")),
            other => Err(failed("a Usage", format_args!("{other:?}"))),
        }
    }

    async fn quiesce(&mut self) -> Outcome {
        match self.ask(&ControlMessage::Quiesce(Quiesce { deadline_ms: QUIESCE_LIMIT_MS })).await? {
            ControlMessage::Quiesced(_) => Ok(()),
            other => Err(failed("a Quiesced", format_args!("{other:?}"))),
        }
    }

    async fn offer_after_quiesce(&mut self) -> Outcome {
        self.must_have(Capabilities::HANDLE_PASSING)?;
        let (client, said) = self.pass(None, &[]).await?;
        match said {
            Said::Rejected => client.must_end("the service's copy closed, and not a byte sent on it").await,
            Said::Accepted => Err(failed("a rejection", "the offer was accepted")),
            Said::Closed => Err(failed("a rejection", "the end of the control connection")),
        }
    }

    fn must_have(&self, needed: Capabilities) -> Outcome {
        if self.capabilities.contains(needed) {
            return Ok(());
        }
        Err(skipped(format_args!("it announced capabilities {:#x} only", self.capabilities.bits())))
    }

    /// Passes on a connection whose client has said `early`; the client, and what was said to the offer.
    async fn pass(&mut self, reply: Option<Bytes>, early: &[u8]) -> Outcome<(Line, Said)> {
        let offer = make_offer(&self.service, reply)?;
        let (client, accepted) = client(self.subject)?;
        client.send(early).await;
        let passage = prepare(&self.recipient, &accepted)?;
        let offer = Offer { handle_value: passage.handle_value(), ..offer };
        self.line.send_with(&wire(&offer.to_frame())?, (passage, accepted)).await?;
        let said = said(&offer, self.line.next_within(ACKNOWLEDGED_WITHIN).await)?;
        Ok((client, said))
    }

    async fn ask(&mut self, question: &ControlMessage) -> Outcome<ControlMessage> {
        self.last_id += 1;
        self.line.send(&wire(&question.to_frame(self.last_id))?).await;
        match self.line.next().await {
            Came::Frame(frame) => {
                expect_same("request_id", self.last_id, frame.request_id)?;
                ControlMessage::from_frame(*frame).map_err(|fault| failed("an answer", fault))
            }
            came @ (Came::End | Came::Silence { .. } | Came::Broken(_)) => Err(failed("an answer", came)),
        }
    }
}

/// A reply frame as a broker makes it.
fn reply(subject: &Subject) -> Outcome<Bytes> {
    let negotiated = Negotiated {
        negotiated_protocol: PROTOCOL_VERSION,
        backend_pipe: subject.endpoint.to_string_lossy().into_owned(),
        server_capabilities: (Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA).bits(),
        ..Negotiated::default()
    };
    let reply = HelloReply { result: Some(hello_reply::Result::Negotiated(negotiated)) };
    let frame = Frame::request(PayloadProtocol::CONTROL, 7, reply.encode_to_vec());
    wire(&Frame { kind: FrameKind::Response.into(), ..frame })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker_protocol::control::{Announcement, Quiesced, Usage};
    use broker_protocol::handoff::Acknowledgement;
    use broker_transport::descriptor::OwnedDescriptor;
    use broker_transport::fd_passing::recv_with_fds;
    use broker_transport::passing::claim;

    use super::super::report::Stop;
    use super::super::subject::Known;
    use super::*;

    /// Longest message here, in bytes.
    const SPACE: usize = 16 * 1024;

    fn subject() -> Subject {
        Subject {
            endpoint: "/run/be.sock".into(),
            patience: Duration::from_secs(10),
            older: None,
            offers: None,
            request: None,
            pid: None,
            known: Known::default(),
        }
    }

    fn program() -> Program {
        Program::new("/bin/cache", "cache".parse().unwrap(), "1.2.3".parse().unwrap())
    }

    /// The kit's side, and the service's, which is the test's to play.
    fn pair(subject: &Subject) -> (Control<'_>, Stream) {
        let (near, far) = Stream::pair().unwrap();
        let control = Control {
            subject,
            service: "cache".into(),
            recipient: Recipient::peer_of(&near).unwrap(),
            line: Line::over(near, subject.patience),
            capabilities: Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA,
            last_id: 7,
        };
        (control, far)
    }

    async fn send(service: &Stream, frame: &Frame) {
        service.send_all(&wire(frame).unwrap()).await.unwrap();
    }

    async fn receive(service: &Stream) -> (Frame, Option<OwnedDescriptor>) {
        let mut space = vec![0; SPACE];
        let received = recv_with_fds(service, &mut space, 1).await.unwrap();
        let frame = Frame::decode(&space[5..received.len]).unwrap();
        let value = Offer::from_frame(frame.clone()).map_or(0, |offer| offer.handle_value);
        (frame, claim(received.descriptors.into_iter().next(), value, service).ok())
    }

    fn came(outcome: Outcome) -> String {
        match outcome.unwrap_err() {
            Stop::Failed { came, .. } => came,
            Stop::Skipped { why } => format!("skipped: {why}"),
        }
    }

    #[tokio::test]
    async fn an_announcement_comes_first_and_names_what_was_started() {
        let subject = subject();
        let good = Announcement {
            service_name: "cache".into(),
            service_version: "1.2.3".into(),
            endpoint: "/run/be.sock".into(),
            capabilities: 1,
        };
        let outcome = async |message: ControlMessage| {
            let (mut control, service) = pair(&subject);
            send(&service, &message.to_frame(1)).await;
            control.announcement(&program()).await
        };
        let announce = async |announcement| outcome(ControlMessage::Announcement(announcement)).await;
        assert_eq!(announce(good.clone()).await, Ok(()));
        assert_eq!(
            came(announce(Announcement { service_name: "other".into(), ..good.clone() }).await),
            "other"
        );
        assert_eq!(
            came(announce(Announcement { service_version: "1.2.4".into(), ..good.clone() }).await),
            "1.2.4"
        );
        assert_eq!(came(announce(Announcement { endpoint: "/x".into(), ..good }).await), "/x");
        assert!(came(outcome(ControlMessage::Quiesced(Quiesced {})).await).contains("Quiesced"));
        // Whoever says nothing is plain v1.
        let (mut control, service) = pair(&subject);
        drop(service);
        assert!(came(control.announcement(&program()).await).starts_with("skipped: it makes no use of"));
    }

    #[tokio::test]
    async fn an_answer_has_its_question_s_id_and_is_the_right_one() {
        let subject = subject();
        let quiesced = async |answer: ControlMessage, id| {
            let (mut control, service) = pair(&subject);
            let answering = async {
                let (question, _) = receive(&service).await;
                send(&service, &answer.to_frame(question.request_id + id)).await;
            };
            tokio::join!(control.quiesce(), answering).0
        };
        assert_eq!(quiesced(ControlMessage::Quiesced(Quiesced {}), 0).await, Ok(()));
        assert_eq!(came(quiesced(ControlMessage::Quiesced(Quiesced {}), 1).await), "9");
        assert!(came(quiesced(ControlMessage::Usage(Usage::default()), 0).await).contains("Usage"));
    }

    /// What a service does with an offer.
    #[derive(Clone, Copy, PartialEq)]
    enum Plays {
        Well,
        AnswerFirst,
        NoReply,
    }

    #[tokio::test]
    async fn the_reply_comes_before_the_answer_to_early_data() {
        let subject = subject();
        let outcome = async |plays| {
            let (mut control, service) = pair(&subject);
            tokio::join!(control.reply_first(), adopt(&service, plays)).0
        };
        assert_eq!(outcome(Plays::Well).await, Ok(()));
        assert!(came(outcome(Plays::AnswerFirst).await).contains("other bytes"));
        assert!(came(outcome(Plays::NoReply).await).contains("other bytes"));
    }

    async fn adopt(service: &Stream, plays: Plays) {
        let (frame, descriptor) = receive(service).await;
        let offer = Offer::from_frame(frame).unwrap();
        let client = Stream::from_owned_fd(descriptor.unwrap()).unwrap();
        let reply = offer.reply.clone().unwrap();
        let answer = answer_to(&receive(&client).await.0);
        send(service, &Acknowledgement::accept(&offer).to_response()).await;
        match plays {
            Plays::Well => client.send_all(&[&reply[..], &answer].concat()).await.unwrap(),
            Plays::AnswerFirst => client.send_all(&[&answer[..], &reply].concat()).await.unwrap(),
            Plays::NoReply => client.send_all(&answer).await.unwrap(),
        }
        if plays == Plays::Well {
            let answer = answer_to(&receive(&client).await.0);
            client.send_all(&answer).await.unwrap();
        }
    }

    fn answer_to(question: &Frame) -> Bytes {
        wire(&broker_protocol::probe::answer(question, &Default::default()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn an_offer_after_a_quiesce_is_rejected_and_its_connection_closed() {
        let subject = subject();
        let outcome = async |verdict: fn(&Offer) -> Acknowledgement| {
            let (mut control, service) = pair(&subject);
            let answering = async {
                let (frame, _) = receive(&service).await;
                let offer = Offer::from_frame(frame).unwrap();
                send(&service, &verdict(&offer).to_response()).await;
            };
            tokio::join!(control.offer_after_quiesce(), answering).0
        };
        assert_eq!(outcome(|offer| Acknowledgement::reject(offer, "ending")).await, Ok(()));
        assert_eq!(came(outcome(Acknowledgement::accept).await), "the offer was accepted");
    }
}
