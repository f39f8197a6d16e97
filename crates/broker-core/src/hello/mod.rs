//! A Hello, from decoded frame to reply: decode, admit, negotiate.
//!
//! [`HelloHandler`] is the whole negotiation in memory and of use on its own;
//! [`Broker`](crate::broker::Broker) adds starting backends, draining and everything with a lifetime.

mod handler;
mod reply;
mod request;
mod route;

pub(crate) use handler::Asker;
pub use handler::{DEFAULT_KEEPALIVE, HandoffPlatform, HelloConfig, HelloHandler, Tokens, Verdict};
pub use reply::{Handover, Negotiation, Reply};
pub use request::{Admitted, HelloRequest, Rejected, Request};
pub use route::{BackendHandoff, Route};
