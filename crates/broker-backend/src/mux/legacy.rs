//! The older format's side: what its handler gets, and how it learns of a stop.
//!
//! Invariant: a connection belongs to its handler alone; nothing here reads or writes a byte of it.

use std::pin::Pin;
use std::sync::Arc;

use broker_transport::peer::PeerCredentials;
use broker_transport::stream::Stream;
use tokio::sync::watch;

use crate::connection::stop_of;

/// A connection of the older format, with every byte that its client sent still to be read.
///
/// Dropping it closes it.
#[derive(Debug)]
pub struct LegacyConnection {
    /// The connection.
    pub stream: Stream,
    /// The kernel's word on who connected. Its user is the one this process runs as.
    pub peer: PeerCredentials,
    /// Tells when it is time to end.
    pub stop: StopNotice,
}

/// Tells a handler that the backend stops.
///
/// A handler that does not ask is cut off when [`DRAIN_LIMIT`](crate::DRAIN_LIMIT) has passed.
#[derive(Clone, Debug)]
pub struct StopNotice(watch::Receiver<bool>);

impl StopNotice {
    pub(crate) const fn new(is_stopping: watch::Receiver<bool>) -> Self {
        Self(is_stopping)
    }

    /// Returns when the backend stops; at once if it does already. Cancel-safe.
    pub async fn given(&mut self) {
        stop_of(&mut self.0).await;
    }
}

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The handler, whatever its type. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct Legacy(Arc<dyn Fn(LegacyConnection) -> Serving + Send + Sync>);

impl Legacy {
    pub(crate) fn new<A>(handler: impl Fn(LegacyConnection) -> A + Send + Sync + 'static) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
    {
        Self(Arc::new(move |connection| Box::pin(handler(connection))))
    }

    pub(crate) async fn serve(&self, connection: LegacyConnection) {
        (self.0)(connection).await;
    }
}
