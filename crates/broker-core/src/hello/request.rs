//! What a client asks, decoded and checked field by field (behaviour.md 2, rows 4 to 7, 12 and 13).
//!
//! Two steps, because a malformed request costs its peer a permit just as a good one does, and
//! whether a permit is left is decided between them: [`Request::decode`], then
//! [`Admitted::check`].

use broker_protocol::control::{Announcement, ControlMessage};
use broker_protocol::local;
use broker_protocol::prost::Message;
use broker_protocol::wire::{AdminRequest, FrameKind, PayloadEncoding};
use broker_protocol::{
    Capabilities, ENVELOPE_VERSION, Echo, FrameView, HelloView, PROTOCOL_VERSION, PayloadProtocol, Refusal,
    ServiceName, Version, limits,
};

use crate::admission::PeerKey;
use crate::time::UnixMillis;

/// The first frame of a connection.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    /// On the control lane.
    Hello(HelloRequest<'a>),
    /// On the admin lane.
    Admin(Echo<'a>, AdminRequest),
    /// On the lane of control connections: a backend that runs already.
    Announcement(Echo<'a>, Announcement),
}

/// A first frame that is no request.
#[derive(Clone, Debug)]
pub struct Rejected<'a> {
    /// What of the frame the reply can still echo.
    pub echo: Echo<'a>,
    /// What is wrong with it.
    pub refusal: Refusal,
}

impl<'a> Request<'a> {
    /// Decodes a frame's body (rows 4 to 7).
    ///
    /// # Errors
    /// What is wrong with it; boxed, as good requests should not pay for its size.
    pub fn decode(body: &'a [u8]) -> Result<Self, Box<Rejected<'a>>> {
        let frame = FrameView::decode(body).map_err(|error| {
            Box::new(Rejected { echo: Echo::default(), refusal: Refusal::NotAFrame(error) })
        })?;
        let echo = Echo::from(&frame);
        let refuse = |refusal| Box::new(Rejected { echo, refusal });
        check_envelope(&frame).map_err(refuse)?;
        match frame.lane() {
            PayloadProtocol::CONTROL => HelloRequest::from_frame(&frame).map(Self::Hello).map_err(refuse),
            PayloadProtocol::ADMIN => {
                AdminRequest::decode(frame.payload).map(|request| Self::Admin(echo, request)).map_err(
                    |error| refuse(Refusal::Payload { expected: "AdminRequest", cause: error.to_string() }),
                )
            }
            PayloadProtocol::BACKEND_CONTROL => match control_message(frame.payload) {
                Ok(ControlMessage::Announcement(announcement)) => Ok(Self::Announcement(echo, announcement)),
                Ok(_) => Err(refuse(Refusal::Payload {
                    expected: "Announcement",
                    cause: "it is another message".to_owned(),
                })),
                Err(cause) => Err(refuse(Refusal::Payload { expected: "Announcement", cause })),
            },
            _ => Err(refuse(Refusal::PayloadProtocol { actual: frame.payload_protocol })),
        }
    }
}

fn control_message(payload: &[u8]) -> Result<ControlMessage, String> {
    let decoded = local::ControlMessage::decode(payload).map_err(|error| error.to_string())?;
    decoded.message.ok_or_else(|| "it holds no message".to_owned())
}

fn check_envelope(frame: &FrameView<'_>) -> Result<(), Refusal> {
    if frame.envelope_version != ENVELOPE_VERSION {
        return Err(Refusal::EnvelopeVersion { actual: frame.envelope_version });
    }
    if frame.kind != FrameKind::Request as i32 {
        return Err(Refusal::FrameKind { actual: frame.kind });
    }
    let is_ours = matches!(
        frame.lane(),
        PayloadProtocol::CONTROL | PayloadProtocol::ADMIN | PayloadProtocol::BACKEND_CONTROL
    );
    if !is_ours {
        return Err(Refusal::PayloadProtocol { actual: frame.payload_protocol });
    }
    if frame.payload_encoding != PayloadEncoding::None as i32 {
        return Err(Refusal::PayloadEncoding { actual: frame.payload_encoding });
    }
    Ok(())
}

/// A Hello whose encoding is right and whose fields nobody has looked at yet.
#[derive(Clone, Copy, Debug)]
pub struct HelloRequest<'a> {
    /// What the reply echoes.
    pub echo: Echo<'a>,
    /// When the client stops waiting.
    pub deadline: Option<UnixMillis>,
    /// What it says.
    pub hello: HelloView<'a>,
}

impl<'a> HelloRequest<'a> {
    /// Decodes the payload of a control frame (row 7).
    ///
    /// # Errors
    /// [`Refusal::Payload`].
    // One caller asks for it, which so builds the request in place.
    #[inline(always)]
    pub fn from_frame(frame: &FrameView<'a>) -> Result<Self, Refusal> {
        let hello = HelloView::decode(frame.payload)
            .map_err(|error| Refusal::Payload { expected: "Hello", cause: error.to_string() })?;
        let deadline = (frame.deadline_unix_ms != 0).then(|| UnixMillis::new(frame.deadline_unix_ms));
        Ok(Self { echo: Echo::from(frame), deadline, hello })
    }
}

/// A Hello whose fields satisfy their rules. Who asks has a permit, and is who it says.
#[derive(Clone, Debug)]
pub struct Admitted<'a> {
    peer: PeerKey,
    service: &'a str,
    version: Version,
    capabilities: Capabilities,
    keepalive_secs: u64,
    request_id: &'a str,
    deadline: Option<UnixMillis>,
    echo: Echo<'a>,
}

impl<'a> Admitted<'a> {
    /// Checks the fields (rows 11 to 13).
    ///
    /// # Errors
    /// The refusal of the first row that applies.
    pub fn check(peer: PeerKey, request: &HelloRequest<'a>) -> Result<Self, Refusal> {
        let hello = &request.hello;
        let (min, max) = (hello.client_min_protocol, hello.client_max_protocol);
        if !(min..=max).contains(&PROTOCOL_VERSION) {
            return Err(Refusal::ProtocolRange { min, max });
        }
        ServiceName::check(hello.service_name)
            .map_err(|error| bad_field("service_name", error.rule(), &error, hello.service_name))?;
        at_most("wanted_version", limits::MAX_VERSION, hello.wanted_version)?;
        let version = Version::parse(hello.wanted_version)
            .map_err(|error| bad_field("wanted_version", error.rule(), &error, hello.wanted_version))?;
        at_most("client_version", limits::MAX_CLIENT_VERSION, hello.client_version)?;
        at_most("client_lib_name", limits::MAX_CLIENT_LIB, hello.client_lib_name)?;
        at_most("client_lib_version", limits::MAX_VERSION, hello.client_lib_version)?;
        match peer.pid() {
            Some(actual) if hello.peer_pid != 0 && hello.peer_pid != actual.get() => {
                return Err(Refusal::PeerPid { claimed: hello.peer_pid, actual: actual.get() });
            }
            Some(_) | None => {}
        }
        Ok(Self {
            peer,
            service: hello.service_name,
            version,
            capabilities: Capabilities::from_bits_retain(hello.client_capabilities),
            keepalive_secs: hello.client_keepalive_secs,
            request_id: hello.request_id,
            deadline: request.deadline,
            echo: request.echo,
        })
    }

    /// Who asks.
    pub const fn peer(&self) -> PeerKey {
        self.peer
    }

    /// The service; satisfies the rule of [`ServiceName`].
    pub const fn service(&self) -> &'a str {
        self.service
    }

    /// The version it wants.
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// What the client can do.
    pub const fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// The keepalive interval it wishes, in seconds; 0 for the broker's default.
    pub const fn keepalive_secs(&self) -> u64 {
        self.keepalive_secs
    }

    /// The client's own name for its request, of any length.
    pub const fn request_id(&self) -> &'a str {
        self.request_id
    }

    /// When the client stops waiting.
    pub const fn deadline(&self) -> Option<UnixMillis> {
        self.deadline
    }

    /// What the reply echoes.
    pub const fn echo(&self) -> &Echo<'a> {
        &self.echo
    }
}

fn at_most(field: &'static str, limit: usize, text: &str) -> Result<(), Refusal> {
    if text.len() > limit {
        return Err(Refusal::FieldTooLong { field, limit, actual: text.len() });
    }
    Ok(())
}

/// Longest part of a bad value that a refusal repeats, in characters.
const SHOWN: usize = 80;

#[cold]
fn bad_field(
    field: &'static str,
    rule: &'static str,
    error: &dyn std::error::Error,
    actual: &str,
) -> Refusal {
    Refusal::BadField { field, rule, cause: error.to_string(), actual: actual.chars().take(SHOWN).collect() }
}
