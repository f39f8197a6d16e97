//! A backend's control connection, as the broker holds it (protocol.md, "Extensions").
//!
//! Offers go out at once or not at all, so no client waits for a backend that does not read; everything
//! else queues behind what has not left yet. Invariants: a frame leaves whole and in one piece with its
//! descriptor; at most [`MAX_QUEUED`] bytes wait for a backend; nothing that comes in is bigger than
//! [`MAX_CONTROL_BODY`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::rc::Rc;

use broker_core::admission::PeerKey;
use broker_core::backends::ControlKey;
use broker_core::broker::{Input, NotRegistered};
use broker_core::handoff::BackendSlot;
use broker_protocol::bytes::{Buf, BytesMut};
use broker_protocol::control::{
    Admittance, Announcement, AnnouncementFault, ControlFault, ControlMessage, MAX_CONTROL_BODY,
};
use broker_protocol::prost::DecodeError;
use broker_protocol::wire::{Frame, FrameKind};
use broker_protocol::{
    Capabilities, FrameDecoder, FramingError, PayloadProtocol, ServiceName, Version, frame_bytes,
};
use broker_transport::descriptor::BorrowedDescriptor;
use broker_transport::fd_passing::FdPassError;
use broker_transport::passing::{Passage, Recipient};
use broker_transport::stream::Stream;
use thiserror::Error;
use tokio::sync::{Notify, oneshot};

use super::shell::Shell;
use super::{connection, handoff};

/// Most bytes that wait for a backend to read them.
const MAX_QUEUED: usize = 64 * 1024;
/// Bytes read at once.
const READ_STEP: usize = 4 * 1024;

/// One backend's control connection.
pub(super) struct Control {
    key: ControlKey,
    slot: BackendSlot,
    stream: Stream,
    /// Whom connections are passed to, or why they cannot be: its clients dial then.
    recipient: io::Result<Recipient>,
    /// It is to end, once what has come on it is read.
    ending: Notify,
    /// What has not left yet.
    queue: RefCell<BytesMut>,
    /// What has come and is no whole frame yet.
    unread: RefCell<BytesMut>,
    /// What was announced there, once it was.
    announced: Cell<Option<Capabilities>>,
    /// How it came about.
    origin: ControlOrigin,
    has_queued: Notify,
    /// Who waits for an answer, by the id of the request.
    asked: RefCell<HashMap<u64, oneshot::Sender<ControlMessage>>>,
    next_request: Cell<u64>,
}

/// How a control connection came about.
#[derive(Clone, Debug)]
pub(super) enum ControlOrigin {
    /// Its backend was started with it.
    Started,
    /// Its backend has dialled, and said this.
    Dialled(Box<Announcement>),
}

/// Where a control connection is at.
#[derive(Debug, Default)]
pub(super) struct ControlProgress {
    /// What was announced there, once it was.
    pub(super) announced: Option<Capabilities>,
    /// What has come and is no whole frame yet.
    pub(super) unread: Vec<u8>,
    /// What has not left yet.
    pub(super) unsent: Vec<u8>,
    /// The number of the next question.
    pub(super) next_request: u64,
}

/// Why a control connection ended.
#[derive(Debug, Error)]
pub(super) enum ControlEnd {
    #[error("the backend closed it")]
    Closed,
    #[error("cannot use it: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error("a body is not a Frame: {0}")]
    NotAFrame(#[from] DecodeError),
    #[error(transparent)]
    Message(#[from] ControlFault),
    #[error("expected an announcement first, got something else")]
    NoAnnouncement,
    #[error("it announced itself in a way that is not understood: {0}")]
    Announcement(#[from] AnnouncementFault),
    #[error("it announced {actual}, but was started as {expected}")]
    OtherBackend { expected: String, actual: String },
    #[error("its process is gone")]
    Ended,
    #[error("the backend does not read what it is sent")]
    Stuck,
}

impl Control {
    fn new(
        shell: &Shell,
        slot: BackendSlot,
        (stream, recipient): (Stream, io::Result<Recipient>),
        origin: ControlOrigin,
        progress: ControlProgress,
    ) -> Rc<Self> {
        Rc::new(Self {
            key: shell.next_control(),
            slot,
            stream,
            recipient,
            ending: Notify::new(),
            queue: RefCell::new(BytesMut::from(&progress.unsent[..])),
            unread: RefCell::new(BytesMut::from(&progress.unread[..])),
            announced: Cell::new(progress.announced),
            origin,
            has_queued: Notify::new(),
            asked: RefCell::default(),
            next_request: Cell::new(progress.next_request.max(1)),
        })
    }

    pub(super) const fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) const fn origin(&self) -> &ControlOrigin {
        &self.origin
    }

    pub(super) fn progress(&self) -> ControlProgress {
        ControlProgress {
            announced: self.announced.get(),
            unread: self.unread.borrow().to_vec(),
            unsent: self.queue.borrow().to_vec(),
            next_request: self.next_request.get(),
        }
    }

    pub(super) const fn key(&self) -> ControlKey {
        self.key
    }

    /// Whose it is.
    pub(super) const fn slot(&self) -> BackendSlot {
        self.slot
    }

    /// Ends it, once what has come on it is read.
    pub(super) fn end(&self) {
        self.ending.notify_one();
    }

    /// Makes a connection ready to be offered.
    ///
    /// # Errors
    /// The backend's process does not take it.
    pub(super) fn prepare(&self, descriptor: BorrowedDescriptor<'_>) -> io::Result<Passage> {
        match &self.recipient {
            Ok(recipient) => recipient.prepare(descriptor),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    /// Sends an offer with its connection, at once.
    ///
    /// # Errors
    /// Not a byte of it was sent: kind `WouldBlock` where the backend has no room.
    pub(super) fn offer(
        &self,
        offer: &[u8],
        passage: Passage,
        descriptor: BorrowedDescriptor<'_>,
    ) -> Result<(), FdPassError> {
        let mut queue = self.queue.borrow_mut();
        if !queue.is_empty() {
            return Err(io::Error::from(io::ErrorKind::WouldBlock).into());
        }
        let sent = passage.try_send(&self.stream, offer, descriptor)?;
        if sent < offer.len() {
            queue.extend_from_slice(&offer[sent..]);
            self.has_queued.notify_one();
        }
        Ok(())
    }

    /// Asks the backend something; the answer, or nothing where the connection ends first.
    pub(super) async fn ask(&self, question: &ControlMessage) -> Option<ControlMessage> {
        let id = self.next_request.replace(self.next_request.get() + 1);
        let (tell, answer) = oneshot::channel();
        self.asked.borrow_mut().insert(id, tell);
        let _forget = Forget { control: self, id };
        self.send(&question.to_frame(id)).ok()?;
        answer.await.ok()
    }

    fn send(&self, frame: &Frame) -> Result<(), ControlEnd> {
        let bytes = frame_bytes(frame)?;
        let mut queue = self.queue.borrow_mut();
        if queue.len() + bytes.len() > MAX_QUEUED {
            return Err(ControlEnd::Stuck);
        }
        queue.extend_from_slice(&bytes);
        self.has_queued.notify_one();
        Ok(())
    }

    /// Writes what is queued, for ever. Cancel-safe.
    async fn write_queued(&self) -> io::Result<Infallible> {
        loop {
            let chunk = {
                let queue = self.queue.borrow();
                queue[..queue.len().min(READ_STEP)].to_vec()
            };
            if chunk.is_empty() {
                self.has_queued.notified().await;
            } else {
                let sent = self.stream.write_some(&chunk).await?;
                // Others only add to the end meanwhile.
                self.queue.borrow_mut().advance(sent);
            }
        }
    }
}

/// A question whose answer nobody waits for any more.
struct Forget<'a> {
    control: &'a Control,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.control.asked.borrow_mut().remove(&self.id);
    }
}

/// What comes in on a control connection, frame by frame.
struct Incoming<'a> {
    control: &'a Control,
    decoder: FrameDecoder,
}

impl<'a> Incoming<'a> {
    fn new(control: &'a Control) -> Self {
        let decoder = FrameDecoder::with_limit(MAX_CONTROL_BODY);
        Self { control, decoder }
    }

    /// The next frame. Cancel-safe.
    async fn next(&mut self) -> Result<Frame, ControlEnd> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.control.unread.borrow_mut())? {
                return Ok(frame);
            }
            let mut space = [0; READ_STEP];
            match self.control.stream.read_some(&mut space).await? {
                0 => return Err(ControlEnd::Closed),
                count => self.control.unread.borrow_mut().extend_from_slice(&space[..count]),
            }
        }
    }
}

/// What a started backend has to announce.
pub(super) struct Started {
    pub(super) service: ServiceName,
    pub(super) version: Version,
    pub(super) endpoint: String,
}

impl Started {
    fn check(&self, announced: &Announcement) -> Result<(), ControlEnd> {
        let (service, version) = announced.key()?;
        if (&service, &version, &announced.endpoint) == (&self.service, &self.version, &self.endpoint) {
            return Ok(());
        }
        Err(ControlEnd::OtherBackend {
            expected: format!("{} {} at {}", self.service, self.version, self.endpoint),
            actual: format!("{service} {version} at {}", announced.endpoint),
        })
    }
}

/// Makes the control connection of a backend that was started here.
pub(super) fn of_started(
    shell: &Shell,
    slot: BackendSlot,
    connection: (Stream, io::Result<Recipient>),
    progress: ControlProgress,
) -> Rc<Control> {
    Control::new(shell, slot, connection, ControlOrigin::Started, progress)
}

/// Serves the control connection of a backend that was started here, until either ends. One that never
/// says anything is plain v1. `in_use` is there where it was announced to a predecessor.
pub(super) async fn serve_started(
    shell: Rc<Shell>,
    control: Rc<Control>,
    started: Started,
    in_use: Option<InUse>,
) {
    let mut incoming = Incoming::new(&control);
    let end = async {
        let in_use = match in_use {
            Some(in_use) => in_use,
            None => {
                let (id, announcement) = incoming.announcement().await?;
                started.check(&announcement)?;
                admit(&shell, &control, id, &announcement)?
            }
        };
        exchange(&in_use, &mut incoming).await
    };
    let Err(end) = end.await;
    tracing::debug!(service = %started.service, version = %started.version, %end, "a control connection ended");
}

/// Serves the control connection of a backend that has dialled and announced itself, until it ends.
pub(super) async fn serve_registered(
    shell: &Rc<Shell>,
    stream: Stream,
    peer: PeerKey,
    id: u64,
    announcement: &Announcement,
) {
    let end = match shell.call(|broker, now| broker.announced(now, peer, announcement)) {
        Ok(slot) => {
            let control = of_dialled(shell, slot, stream, announcement, ControlProgress::default());
            let served = async {
                let in_use = admit(shell, &control, id, announcement)?;
                exchange(&in_use, &mut Incoming::new(&control)).await
            };
            let Err(end) = served.await;
            end.to_string()
        }
        Err(why) => {
            let refusal = Admittance { admitted: false, reason: why.to_string() };
            if let Ok(refusal) = frame_bytes(&ControlMessage::Admittance(refusal).to_frame(id)) {
                connection::write(&stream, &refusal).await;
            }
            why.to_string()
        }
    };
    let (service, version) = (&announcement.service_name, &announcement.service_version);
    tracing::debug!(service, version, end, "a control connection ended");
}

/// Goes on with the control connection of a backend that has dialled a predecessor; what serves it.
///
/// # Errors
/// [`NotRegistered`]: the connection is of no more use.
pub(super) fn resume_registered(
    shell: &Rc<Shell>,
    stream: Stream,
    peer: PeerKey,
    announcement: &Announcement,
    progress: ControlProgress,
) -> Result<impl Future<Output = ()> + use<>, NotRegistered> {
    let slot = shell.call(|broker, _| broker.announced_before(peer, announcement))?;
    let control = of_dialled(shell, slot, stream, announcement, progress);
    let announced = Capabilities::from_bits_retain(announcement.capabilities);
    let in_use = InUse::begin(shell, &control, announced);
    Ok(async move {
        let Err(end) = exchange(&in_use, &mut Incoming::new(&control)).await;
        tracing::debug!(%end, "a control connection ended");
    })
}

fn of_dialled(
    shell: &Rc<Shell>,
    slot: BackendSlot,
    stream: Stream,
    announcement: &Announcement,
    progress: ControlProgress,
) -> Rc<Control> {
    let recipient = Recipient::peer_of(&stream);
    let origin = ControlOrigin::Dialled(Box::new(announcement.clone()));
    Control::new(shell, slot, (stream, recipient), origin, progress)
}

/// Takes a backend's control connection into use.
fn admit(
    shell: &Rc<Shell>,
    control: &Rc<Control>,
    id: u64,
    announcement: &Announcement,
) -> Result<InUse, ControlEnd> {
    let admitted = ControlMessage::Admittance(Admittance { admitted: true, reason: String::new() });
    control.send(&admitted.to_frame(id))?;
    Ok(InUse::begin(shell, control, Capabilities::from_bits_retain(announcement.capabilities)))
}

/// Serves a control connection that is in use, until it ends.
async fn exchange(in_use: &InUse, incoming: &mut Incoming<'_>) -> Result<Infallible, ControlEnd> {
    let InUse { shell, control } = in_use;
    loop {
        let frame = tokio::select! {
            frame = incoming.next() => frame?,
            written = control.write_queued() => match written? {},
            () = control.ending.notified() => break,
        };
        control.take(shell, frame)?;
    }
    // What its process has said is here already; others may hold its end open for as long as they like.
    while let Some(frame) = handoff::first_look(pin!(incoming.next())).await {
        control.take(shell, frame?)?;
    }
    Err(ControlEnd::Ended)
}

/// A control connection that offers go out on.
pub(super) struct InUse {
    shell: Rc<Shell>,
    control: Rc<Control>,
}

impl InUse {
    pub(super) fn begin(shell: &Rc<Shell>, control: &Rc<Control>, announced: Capabilities) -> Self {
        let (slot, key) = (control.slot, control.key);
        control.announced.set(Some(announced));
        shell.add_control(slot, control);
        shell.tell(Input::ControlOpened { slot, control: key, announced });
        Self { shell: Rc::clone(shell), control: Rc::clone(control) }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // Whoever waits for an answer hears that there will be none.
        self.control.asked.borrow_mut().clear();
        let (slot, control) = (self.control.slot, self.control.key);
        self.shell.remove_control(slot, &self.control);
        self.shell.tell(Input::ControlClosed { slot, control });
    }
}

impl Control {
    /// Takes in a frame from the backend.
    fn take(&self, shell: &Rc<Shell>, frame: Frame) -> Result<(), ControlEnd> {
        let slot = self.slot;
        shell.call(|broker, _| broker.spoke(slot));
        if frame.lane() == PayloadProtocol::HANDOFF {
            let is_out_here = |connection| shell.is_parked(connection, self);
            if let Some((answer, settlement)) = handoff::settle_by(shell, slot, frame, is_out_here)
                && let Some(parked) = shell.unpark(answer.connection)
            {
                parked.settle(&answer, settlement);
            }
            return Ok(());
        }
        let id = frame.request_id;
        let message = match ControlMessage::from_frame(frame) {
            Ok(message) => message,
            // A backend of a later version may say more.
            Err(ControlFault::Empty) => return Ok(()),
            Err(fault) => return Err(fault.into()),
        };
        if message.kind() == FrameKind::Response
            && let Some(asked) = self.asked.borrow_mut().remove(&id)
        {
            // Whoever asked may have stopped waiting.
            let _ = asked.send(message);
        }
        Ok(())
    }
}

impl Incoming<'_> {
    async fn announcement(&mut self) -> Result<(u64, Announcement), ControlEnd> {
        let frame = self.next().await?;
        let id = frame.request_id;
        match ControlMessage::from_frame(frame)? {
            ControlMessage::Announcement(announcement) => Ok((id, announcement)),
            _ => Err(ControlEnd::NoAnnouncement),
        }
    }
}
