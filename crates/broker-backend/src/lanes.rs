//! A handler for each lane of a service (protocol.md, "Payload protocols").
//!
//! It only chooses; a service that wants to choose by itself implements [`Handler`] and looks at
//! [`Request::lane`]. Invariant: a request goes to the handler of its own lane, or its connection is closed.

use std::collections::BTreeMap;
use std::pin::Pin;

use broker_protocol::PayloadProtocol;

use crate::handler::{Handler, Request, Response};

/// Requests by their lane.
///
/// ```
/// use broker_backend::{Lanes, PayloadProtocol, Request};
///
/// let lanes = Lanes::new()
///     .on(PayloadProtocol::ZCCACHE, async |request: Request| request.into_payload())
///     .on(PayloadProtocol::new(0xF001), async |_: Request| "pong");
/// # let _ = lanes;
/// ```
#[derive(Default)]
pub struct Lanes {
    handlers: BTreeMap<PayloadProtocol, Box<dyn AnyHandler>>,
}

impl Lanes {
    /// No lane yet: every request closes its connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a lane to a handler, instead of the one that had it. The hooks of the handlers are not called:
    /// a service with something to tidy up implements [`Handler`] around this.
    #[must_use]
    pub fn on(mut self, lane: PayloadProtocol, handler: impl Handler) -> Self {
        self.handlers.insert(lane, Box::new(handler));
        self
    }
}

impl Handler for Lanes {
    async fn handle(&self, request: Request) -> Response {
        match self.handlers.get(&request.lane()) {
            Some(handler) => handler.handle_any(request).await,
            None => Response::hang_up(),
        }
    }
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.handlers.keys()).finish()
    }
}

/// A handler whose type is forgotten.
trait AnyHandler: Send + Sync {
    fn handle_any(&self, request: Request) -> Pin<Box<dyn Future<Output = Response> + Send + '_>>;
}

impl<H: Handler> AnyHandler for H {
    fn handle_any(&self, request: Request) -> Pin<Box<dyn Future<Output = Response> + Send + '_>> {
        Box::pin(self.handle(request))
    }
}

#[cfg(test)]
mod tests {
    use broker_protocol::wire::Frame;
    use broker_transport::peer::{PeerCredentials, UserId};

    use super::*;

    #[tokio::test]
    async fn a_request_goes_to_its_lane_and_nowhere_else() {
        let lanes = Lanes::new()
            .on(PayloadProtocol::CLUD, async |_: Request| "first")
            .on(PayloadProtocol::CLUD, async |request: Request| request.into_payload())
            .on(PayloadProtocol::ZCCACHE, async |_: Request| "cache");
        let ask = |lane| {
            let peer = PeerCredentials { user: UserId::from_uid(1), gid: None, pid: None };
            lanes.handle(Request::new(Frame::request(lane, 1, "mine"), peer))
        };
        assert_eq!(ask(PayloadProtocol::CLUD).await, "mine".into());
        assert_eq!(ask(PayloadProtocol::ZCCACHE).await, "cache".into());
        assert_eq!(ask(PayloadProtocol::FBUILD).await, Response::hang_up());
    }
}
