//! What the broker wants of this process, and what it is told in return.
//!
//! Offers are answered at once; what a handler has to do something for runs beside the connections.
//! Invariants: an offer that is not taken is closed before it is rejected, so that its connection is the
//! broker's alone again; a broker that is gone costs nothing but its control connection.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_protocol::control::{ControlMessage, HandlesReleased, Quiesced, Usage};
use broker_protocol::handoff::{Acknowledgement, Offer};
use broker_transport::descriptor::OwnedDescriptor;
use broker_transport::passing::ClaimError;
use broker_transport::stream::Stream;
use tokio::task::{JoinSet, unconstrained};
use tokio::time::{Instant, sleep_until};

use crate::connection::{EndedBy, Service};
use crate::connections::Connections;
use crate::control::{Control, ControlEnd, Event, Link};
use crate::handler::Handler;

/// First and longest pause before the broker is dialled again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The broker, where there is a control connection to it, or may be one.
pub(crate) struct Broker<H> {
    service: Arc<Service<H>>,
    link: Link,
    control: Option<Control>,
    /// When to dial next, where there is no connection.
    dial_at: Instant,
    pause: Duration,
    /// What handlers do about its requests; each ends with the answer.
    at_work: JoinSet<(u64, ControlMessage)>,
    has_quiesced: bool,
}

/// What has happened.
pub(crate) enum News {
    /// The broker wants something.
    Event(Event),
    /// A handler is done.
    Done(u64, ControlMessage),
    /// The connection is over.
    End(ControlEnd),
    /// The broker was dialled.
    Dialled(Result<Stream, ControlEnd>),
}

impl<H: Handler> Broker<H> {
    /// Announces this process.
    pub(crate) fn begin(mut link: Link, service: &Arc<Service<H>>) -> Self {
        let inherited = link.inherited.take();
        let mut broker = Self {
            service: Arc::clone(service),
            link,
            control: None,
            dial_at: Instant::now(),
            pause: PAUSE.0,
            at_work: JoinSet::new(),
            has_quiesced: false,
        };
        if let Some(stream) = inherited {
            broker.announce(stream);
        }
        broker
    }

    fn announce(&mut self, stream: Stream) {
        let Some(announcement) = self.link.announcement.clone() else { return };
        match Control::begin(stream, announcement) {
            Ok(control) => self.control = Some(control),
            Err(end) => self.lost(&end),
        }
    }

    /// Whether no new connection is to be taken, as this process will be ended soon.
    pub(crate) const fn has_quiesced(&self) -> bool {
        self.has_quiesced
    }

    /// What happens next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> News {
        let Some(control) = &mut self.control else { return News::Dialled(self.dial().await) };
        loop {
            tokio::select! {
                biased;
                event = control.next() => match event {
                    Ok(event) => return News::Event(event),
                    Err(end) => return News::End(end),
                },
                Some(done) = self.at_work.join_next() => match done {
                    Ok((id, answer)) => return News::Done(id, answer),
                    Err(error) => tracing::error!(%error, "a handler panicked; the broker gets no answer"),
                },
            }
        }
    }

    /// A connection to the broker, once it is time for one.
    async fn dial(&self) -> Result<Stream, ControlEnd> {
        let (Some(_), Some(endpoint)) = (&self.link.announcement, &self.link.broker) else {
            return std::future::pending().await;
        };
        sleep_until(self.dial_at).await;
        let stream = Stream::connect(endpoint).await.map_err(ControlEnd::Dial)?;
        match stream.peer()?.user {
            user if user.is_self() => Ok(stream),
            user => Err(ControlEnd::ForeignBroker(user.key())),
        }
    }

    /// Does what has to be done about it.
    pub(crate) fn take(&mut self, news: News, connections: &mut Connections<H>) {
        let is_proof = matches!(news, News::Event(_));
        let outcome = match news {
            News::Event(Event::Admitted) => Ok(()),
            News::Event(Event::Offered(offer, descriptor)) => self.offered(&offer, descriptor, connections),
            News::Event(Event::Asked(id, question)) => self.asked(id, question, connections),
            News::Done(id, answer) => self.answer(id, &answer),
            News::Dialled(Ok(stream)) => {
                self.announce(stream);
                Ok(())
            }
            News::End(end) | News::Dialled(Err(end)) => Err(end),
        };
        match outcome {
            // It listens to this process.
            Ok(()) if is_proof => self.pause = PAUSE.0,
            Ok(()) => {}
            Err(end) => self.lost(&end),
        }
    }

    /// A connection has ended. One that was passed on ends for its peer only with the broker's copy.
    pub(crate) fn connection_ended(&mut self, by: EndedBy) {
        if by == EndedBy::Us
            && let Some(control) = &mut self.control
            && let Err(end) = control.release()
        {
            self.lost(&end);
        }
    }

    /// Rejects what was offered meanwhile, and closes the connection.
    pub(crate) async fn leave(mut self) {
        let Some(control) = &mut self.control else { return };
        // Also where this task has had its turn already: what is there is rejected now or never.
        while let Some(event) = unconstrained(control.next_waiting()).await {
            if let Event::Offered(offer, descriptor) = event {
                drop(descriptor);
                if control.settle(&Acknowledgement::reject(&offer, "this process is ending")).is_err() {
                    return;
                }
            }
        }
        // What is not sent now is not needed: the broker sees the end.
        let _ = control.release();
    }

    fn offered(
        &mut self,
        offer: &Offer,
        descriptor: Result<OwnedDescriptor, ClaimError>,
        connections: &mut Connections<H>,
    ) -> Result<(), ControlEnd> {
        let refusal = if self.has_quiesced {
            Some("this process is about to end".to_owned())
        } else if offer.service.as_str() != self.name() {
            Some(format!("this process serves {}, not {}", self.name(), offer.service))
        } else {
            None
        };
        let Some(control) = &mut self.control else { return Ok(()) };
        let admitted = match (refusal, descriptor) {
            (Some(refusal), descriptor) => {
                drop(descriptor);
                Err(refusal)
            }
            (None, Err(ClaimError::Missing)) => {
                Err("no descriptor is free for another connection".to_owned())
            }
            (None, Err(why)) => Err(why.to_string()),
            (None, Ok(descriptor)) => connections.admit_passed(descriptor).map_err(|why| why.to_string()),
        };
        match (admitted, offer.reply.clone()) {
            // The client waits for this process, and nobody for the broker.
            (Ok(admitted), Some(reply)) => {
                connections.adopt(admitted, Some(reply));
                control.settle_soon(&Acknowledgement::accept(offer))
            }
            // The client waits for the broker's word.
            (Ok(admitted), None) => {
                let settled = control.settle(&Acknowledgement::accept(offer));
                connections.adopt(admitted, None);
                settled
            }
            (Err(detail), _) => {
                tracing::debug!(detail, connection_id = %offer.connection, "a connection was not taken");
                control.settle(&Acknowledgement::reject(offer, detail))
            }
        }
    }

    fn asked(
        &mut self,
        id: u64,
        question: ControlMessage,
        connections: &Connections<H>,
    ) -> Result<(), ControlEnd> {
        let service = Arc::clone(&self.service);
        match question {
            ControlMessage::UsageQuery(_) => {
                let usage = Usage { connections: connections.len() as u64 };
                return self.answer(id, &ControlMessage::Usage(usage));
            }
            ControlMessage::Quiesce(quiesce) => {
                self.has_quiesced = true;
                let limit = Duration::from_millis(quiesce.deadline_ms);
                self.at_work.spawn(async move {
                    service.handler().quiesce(limit).await;
                    (id, ControlMessage::Quiesced(Quiesced {}))
                });
            }
            ControlMessage::ReleaseHandles(release) => {
                self.at_work.spawn(async move {
                    let outcome = service.handler().release_handles(Path::new(&release.path)).await;
                    let released = HandlesReleased {
                        released: outcome.is_ok(),
                        detail: outcome.err().unwrap_or_default(),
                    };
                    (id, ControlMessage::HandlesReleased(released))
                });
            }
            // What only a backend says, and answers to what was not asked.
            ControlMessage::Announcement(_)
            | ControlMessage::Admittance(_)
            | ControlMessage::Usage(_)
            | ControlMessage::Quiesced(_)
            | ControlMessage::HandlesReleased(_) => {}
        }
        Ok(())
    }

    fn answer(&mut self, id: u64, answer: &ControlMessage) -> Result<(), ControlEnd> {
        match &mut self.control {
            Some(control) => control.answer(id, answer),
            None => Ok(()),
        }
    }

    /// The service that was announced.
    fn name(&self) -> &str {
        self.link.announcement.as_ref().map_or("", |announcement| &announcement.service_name)
    }

    /// Goes on as a plain backend: nobody is left who would end it soon.
    fn lost(&mut self, end: &ControlEnd) {
        match end {
            ControlEnd::NotAdmitted(_) | ControlEnd::ForeignBroker(_) => {
                tracing::warn!(%end, "the broker does not take this backend");
            }
            _ => tracing::debug!(%end, "there is no control connection to the broker"),
        }
        self.dial_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE.1);
        self.control = None;
        // Nor do their answers go to the next broker.
        self.at_work = JoinSet::new();
        self.has_quiesced = false;
    }
}

#[cfg(test)]
mod tests;
