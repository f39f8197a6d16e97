//! The negotiation in memory: known services, live backends, a rate limit, and handoff tokens.
//!
//! It starts nothing and reads no file: whoever owns it says which services and backends there are.
//! Invariant: every request gets exactly one reply, decided by the first row of the decision table
//! that applies (behaviour.md 2).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use broker_protocol::{
    BrokerInstance, Capabilities, ConnectionId, ConnectionIds, HandoffToken, Refusal, ServiceName,
    SpawnFailure, SpawnStage, Version,
};
use foldhash::fast::RandomState;

use super::reply::{Negotiation, Reply};
use super::request::{Admitted, HelloRequest, Request};
use super::route::{BackendHandoff, Route};
use crate::admission::{PeerKey, RateLimit, RateLimiter};
use crate::entropy::Entropy;
use crate::handoff::{BackendSlot, HandoffLimits, PendingHandoffs};
use crate::services::{Definition, FileStamp, TrustDomain};
use crate::time::Now;

/// Keepalive interval where the client wishes none.
pub const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(1_800);

/// Whether tokens are issued at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tokens {
    /// Wherever everybody involved allows a handoff.
    #[default]
    Issued,
    /// To nobody, as if there were no capacity.
    Withheld,
}

/// Whether this platform, and whoever carries out the decisions, can pass an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoffPlatform {
    /// It can.
    Supported,
    /// It cannot; no token is ever issued.
    Unsupported,
}

/// What can be set about a [`HelloHandler`].
#[derive(Clone, Debug)]
pub struct HelloConfig {
    /// Hellos per peer.
    pub rate_limit: RateLimit,
    /// Which services are answered for.
    pub domain: TrustDomain,
    /// Keepalive interval where the client wishes none.
    pub keepalive: Duration,
    /// Whether connections can be passed.
    pub platform: HandoffPlatform,
    /// Bounds of the pending handoffs, the acknowledgement deadline among them.
    pub handoff: HandoffLimits,
}

impl Default for HelloConfig {
    fn default() -> Self {
        Self {
            rate_limit: RateLimit::default(),
            domain: TrustDomain::Every,
            keepalive: DEFAULT_KEEPALIVE,
            platform: HandoffPlatform::Supported,
            handoff: HandoffLimits::default(),
        }
    }
}

/// What a request comes to when only definitions and live backends are looked at.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// A live backend serves it, or it is refused.
    Reply(Reply),
    /// It may have what it asks for, but no backend lives.
    NoBackend(Arc<Definition>),
}

/// Who an agreement is made with, and what it wishes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) peer: PeerKey,
    pub(crate) capabilities: Capabilities,
    pub(crate) keepalive_secs: u64,
}

impl From<&Admitted<'_>> for Asker {
    fn from(admitted: &Admitted<'_>) -> Self {
        Self {
            peer: admitted.peer(),
            capabilities: admitted.capabilities(),
            keepalive_secs: admitted.keepalive_secs(),
        }
    }
}

/// A service that may be asked for.
#[derive(Debug)]
struct Service {
    definition: Arc<Definition>,
    stamp: Option<FileStamp>,
    /// Live backends in ascending order of their versions.
    routes: Vec<Arc<Route>>,
}

impl Service {
    fn route(&self, version: &Version) -> Option<&Arc<Route>> {
        match self.routes.as_slice() {
            [only] if only.version() == version => Some(only),
            [_] => None,
            routes => {
                routes.binary_search_by(|route| route.version().cmp(version)).ok().map(|at| &routes[at])
            }
        }
    }
}

/// Names the endpoint of a broker, for clients that asked the wrong one.
type NameEndpoint = Box<dyn Fn(&BrokerInstance) -> String + Send + Sync>;

/// The Hello negotiation, whole and in memory.
///
/// ```
/// use broker_core::admission::PeerKey;
/// use broker_core::entropy::SeededEntropy;
/// use broker_core::hello::{BackendHandoff, HelloConfig, HelloHandler};
/// use broker_core::services::Definition;
/// use broker_core::time::Now;
/// use broker_protocol::prost::Message;
/// use broker_protocol::wire::{Frame, Hello, HelloReply, ServiceDefinition, hello_reply};
/// use broker_protocol::{PayloadProtocol, Version};
///
/// let mut handler = HelloHandler::new(HelloConfig::default(), SeededEntropy::new(1));
/// let binary = if cfg!(windows) { r"C:\bin\cached.exe" } else { "/usr/bin/cached" };
/// let definition = Definition::new(&ServiceDefinition {
///     service_name: "cache".into(),
///     binary_path: binary.into(),
///     ..ServiceDefinition::default()
/// })?;
/// handler.register(definition, Version::parse("1.2.3")?, "/run/cached.sock", BackendHandoff::DialOnly);
///
/// let hello = Hello {
///     client_min_protocol: 1,
///     client_max_protocol: 1,
///     service_name: "cache".into(),
///     wanted_version: "1.2.3".into(),
///     ..Hello::default()
/// };
/// let request = Frame::request(PayloadProtocol::CONTROL, 7, hello.encode_to_vec());
/// let mut answer = Vec::new();
/// handler.handle_frame(Now::default(), PeerKey::new(1000, Some(42)), &request.encode_to_vec(), &mut answer);
///
/// let frame = Frame::decode(&answer[5..])?;
/// assert_eq!(frame.request_id, 7);
/// match HelloReply::decode(frame.payload)?.result {
///     Some(hello_reply::Result::Negotiated(negotiated)) => {
///         assert_eq!(negotiated.backend_pipe, "/run/cached.sock");
///         assert_eq!(negotiated.keepalive_interval_secs, 1_800);
///     }
///     other => panic!("expected an agreement, got {other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HelloHandler<E> {
    config: HelloConfig,
    entropy: E,
    limiter: RateLimiter,
    services: HashMap<ServiceName, Service, RandomState>,
    handoffs: PendingHandoffs,
    ids: ConnectionIds,
    tokens: Tokens,
    next_slot: u32,
    name_endpoint: NameEndpoint,
}

impl<E: Entropy> HelloHandler<E> {
    /// A handler that knows no service yet and draws its tokens from `entropy`.
    pub fn new(config: HelloConfig, entropy: E) -> Self {
        Self {
            limiter: RateLimiter::new(config.rate_limit),
            handoffs: PendingHandoffs::new(config.handoff),
            services: HashMap::default(),
            ids: ConnectionIds::default(),
            tokens: Tokens::default(),
            next_slot: 0,
            name_endpoint: Box::new(ToString::to_string),
            entropy,
            config,
        }
    }

    /// Sets how the endpoint of another broker is told to a client that asked the wrong one.
    #[must_use]
    pub fn with_endpoint_names(
        mut self,
        name: impl Fn(&BrokerInstance) -> String + Send + Sync + 'static,
    ) -> Self {
        self.name_endpoint = Box::new(name);
        self
    }

    /// What is configured.
    pub const fn config(&self) -> &HelloConfig {
        &self.config
    }

    /// Makes a service known, or replaces its definition. Its live backends stay.
    pub fn define(&mut self, definition: Arc<Definition>, stamp: Option<FileStamp>) {
        match self.services.get_mut(definition.service()) {
            Some(service) => {
                let warnings = &definition.settings().warnings;
                if service.definition.settings().warnings != *warnings {
                    for route in &mut service.routes {
                        *route = Arc::new(route.with_warnings(warnings));
                    }
                }
                service.definition = definition;
                service.stamp = stamp;
            }
            None => {
                let name = definition.service().clone();
                self.services.insert(name, Service { definition, stamp, routes: Vec::new() });
            }
        }
    }

    /// Forgets a service and the routes to its backends.
    pub fn undefine(&mut self, service: &str) {
        self.services.remove(service);
    }

    /// The state of the definition file that a service was loaded from.
    pub fn stamp(&self, service: &str) -> Option<FileStamp> {
        self.services.get(service)?.stamp
    }

    /// The definition of a service.
    pub fn definition(&self, service: &str) -> Option<&Arc<Definition>> {
        self.services.get(service).map(|service| &service.definition)
    }

    /// How many services are known.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// Makes a service and a live backend of it known. Replaces a backend of the same version.
    pub fn register(
        &mut self,
        definition: Definition,
        version: Version,
        endpoint: impl Into<String>,
        handoff: BackendHandoff,
    ) -> BackendSlot {
        let slot = BackendSlot::new(self.next_slot);
        self.next_slot = self.next_slot.wrapping_add(1);
        let route = Route::new(version, endpoint, handoff, slot, &definition.settings().warnings);
        let service = definition.service().clone();
        self.define(Arc::new(definition), None);
        self.add_route(service.as_str(), Arc::new(route));
        slot
    }

    /// Adds a route to a known service; for one that is not known it does nothing.
    pub(crate) fn add_route(&mut self, service: &str, route: Arc<Route>) {
        if let Some(service) = self.services.get_mut(service) {
            match service.routes.binary_search_by(|other| other.version().cmp(route.version())) {
                Ok(at) => service.routes[at] = route,
                Err(at) => service.routes.insert(at, route),
            }
        }
    }

    /// Takes the route to a backend out: no client is sent there any more. What was offered to it can
    /// still be answered.
    pub fn unregister(&mut self, service: &str, version: &Version) {
        if let Some(service) = self.services.get_mut(service)
            && let Ok(at) = service.routes.binary_search_by(|route| route.version().cmp(version))
        {
            service.routes.remove(at);
        }
    }

    /// Spends one of the peer's permits (row 10).
    ///
    /// # Errors
    /// [`Refusal::RateLimited`].
    pub fn spend_permit(&mut self, now: Now, peer: PeerKey) -> Result<(), Refusal> {
        self.limiter.check(now.monotonic, peer).map_err(|retry_after| Refusal::RateLimited { retry_after })
    }

    /// Replaces the rate limit; peers go on owing what they owe.
    pub fn set_rate_limit(&mut self, now: Now, limit: RateLimit) {
        self.config.rate_limit = limit;
        self.limiter.set_limit(now.monotonic, limit);
    }

    /// Checks that a service is served here (row 14).
    ///
    /// # Errors
    /// [`Refusal::OtherTrustDomain`] names the broker that serves it.
    pub fn check_domain(&self, definition: &Definition) -> Result<(), Refusal> {
        if self.config.domain.serves(definition.instance()) {
            return Ok(());
        }
        let instance = definition.instance().clone();
        let pipe = (self.name_endpoint)(&instance);
        Err(Refusal::OtherTrustDomain { service: definition.service().to_string(), instance, pipe })
    }

    /// Decides by definitions and live backends alone (rows 14, 16 and 19).
    pub fn negotiate(&mut self, now: Now, admitted: &Admitted<'_>) -> Verdict {
        let Some(service) = self.services.get(admitted.service()) else {
            let service = admitted.service().to_owned();
            return Verdict::Reply(Reply::Refused(Refusal::ServiceUnknown { service }));
        };
        let definition = &service.definition;
        if let Err(refusal) = self.check_domain(definition) {
            return Verdict::Reply(Reply::Refused(refusal));
        }
        if let Err(block) = definition.policy().check(admitted.version()) {
            let (service, wanted) = (admitted.service().to_owned(), admitted.version().clone());
            return Verdict::Reply(Reply::Refused(Refusal::VersionBlocked { service, wanted, block }));
        }
        let Some(route) = service.route(admitted.version()) else {
            return Verdict::NoBackend(Arc::clone(definition));
        };
        let route = Arc::clone(route);
        let policy_allows = definition.settings().handoff_enabled;
        Verdict::Reply(self.agree(now, route, policy_allows, &Asker::from(admitted)))
    }

    /// Agrees with a client on a live backend (row 19): a fresh id, and a token where everybody
    /// involved allows a handoff and one can be issued.
    pub(crate) fn agree(&mut self, now: Now, route: Arc<Route>, policy_allows: bool, asker: &Asker) -> Reply {
        let &Asker { peer, capabilities: client, keepalive_secs } = asker;
        let Some(connection_id) = self.ids.allocate() else {
            return Reply::Refused(Refusal::Internal {
                cause: "every connection id of this process is used up",
            });
        };
        let common = route.handoff().capabilities() & client;
        let wanted = self.config.platform == HandoffPlatform::Supported
            && self.tokens == Tokens::Issued
            && policy_allows
            && route.handoff().suits(client);
        let token: Option<HandoffToken> = if wanted {
            // Those whose time is over make room, also where no timer drives this handler.
            self.handoffs.expire(now.monotonic, |_| {});
            // Without a token the client dials the backend: capacity and randomness are no refusal.
            self.handoffs.issue(now.monotonic, connection_id, peer, route.slot(), &mut self.entropy).ok()
        } else {
            None
        };
        let capabilities = if token.is_some() { common } else { Capabilities::empty() };
        let keepalive_secs =
            if keepalive_secs == 0 { self.config.keepalive.as_secs() } else { keepalive_secs };
        Reply::Negotiated(Negotiation { route, capabilities, keepalive_secs, token, connection_id })
    }

    /// Answers a decoded request (rows 10 to 19). Where no backend lives, the answer is a failed start.
    pub fn handle_request(&mut self, now: Now, peer: PeerKey, request: &HelloRequest<'_>) -> Reply {
        let admitted = self.spend_permit(now, peer).and_then(|()| Admitted::check(peer, request));
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return Reply::Refused(refusal),
        };
        match self.negotiate(now, &admitted) {
            Verdict::Reply(reply) => reply,
            Verdict::NoBackend(_) => Reply::Refused(Refusal::SpawnFailed {
                service: admitted.service().to_owned(),
                version: admitted.version().clone(),
                failure: Box::new(SpawnFailure::new(
                    SpawnStage::Absent,
                    "no backend of this version is registered",
                )),
            }),
        }
    }

    /// Answers the body of a first frame (rows 4 to 19): appends the whole response frame to `out`.
    ///
    /// A malformed request costs its peer a permit too. Admin requests are refused here.
    pub fn handle_frame(&mut self, now: Now, peer: PeerKey, body: &[u8], out: &mut Vec<u8>) {
        let (echo, reply) = match Request::decode(body) {
            Ok(Request::Hello(request)) => (request.echo, self.handle_request(now, peer, &request)),
            Ok(Request::Announcement(echo, _)) => {
                let actual = broker_protocol::PayloadProtocol::BACKEND_CONTROL.id();
                (echo, Reply::Refused(Refusal::PayloadProtocol { actual }))
            }
            Ok(Request::Admin(echo, _)) => {
                let actual = broker_protocol::PayloadProtocol::ADMIN.id();
                (echo, Reply::Refused(Refusal::PayloadProtocol { actual }))
            }
            Err(rejected) => {
                // The refusal stands whether or not a permit was left.
                let _ = self.spend_permit(now, peer);
                (rejected.echo, Reply::Refused(rejected.refusal))
            }
        };
        reply.encode(&echo, out);
    }

    /// Issues tokens, or none.
    pub const fn set_tokens(&mut self, tokens: Tokens) {
        self.tokens = tokens;
    }

    /// The last connection id that was given out.
    pub fn last_id(&self) -> Option<ConnectionId> {
        self.ids.last()
    }

    /// Gives out ids after this one only.
    pub fn continue_ids_after(&mut self, last: ConnectionId) {
        self.ids = ConnectionIds::after(last);
    }

    /// The pending handoffs: offer, acknowledge, reject, expire, revoke.
    pub const fn handoffs(&mut self) -> &mut PendingHandoffs {
        &mut self.handoffs
    }

    /// How many handoffs are pending.
    pub fn pending_handoffs(&self) -> usize {
        self.handoffs.len()
    }

    /// How many peers the rate limiter remembers.
    pub fn known_peers(&self) -> usize {
        self.limiter.known_peers()
    }
}
