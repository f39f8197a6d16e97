//! The connections that are open, each a task of its own.
//!
//! Invariants: a connection of another user is closed before a byte of it is read, however it came here;
//! one that stalls delays no other; and the handler's idle hook runs only while there is none.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use broker_protocol::bytes::Bytes;
use broker_transport::descriptor::OwnedDescriptor;
use broker_transport::listener::Accepted;
use broker_transport::peer::PeerCredentials;
use broker_transport::stream::Stream;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use crate::connection::{Connection, Service};
use crate::handler::Handler;
use crate::mux::Mux;
use crate::serve::{Inadmissible, admissible};

/// The handler's idle hook at work.
type Idle = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is open.
pub(crate) struct Connections<H> {
    service: Arc<Service<H>>,
    is_stopping: watch::Receiver<bool>,
    tasks: JoinSet<()>,
    idle: Option<Idle>,
}

/// Why an offered connection is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAdopted {
    #[error(transparent)]
    Inadmissible(#[from] Inadmissible),
    #[error("cannot use the connection: {0}")]
    Stream(#[source] io::Error),
    #[error("its client is gone: {0}")]
    Client(#[source] io::Error),
}

impl<H: Handler> Connections<H> {
    pub(crate) fn new(service: Arc<Service<H>>, is_stopping: watch::Receiver<bool>) -> Self {
        Self { service, is_stopping, tasks: JoinSet::new(), idle: None }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Serves a connection that was dialled, if its peer may; a mux tells whose it is.
    pub(crate) fn admit(&mut self, accepted: Accepted, mux: Option<&Mux>) {
        let peer = match admissible(accepted.peer) {
            Ok(peer) => peer,
            Err(why) => return tracing::warn!(%why, "a connection was closed unread"),
        };
        let (service, is_stopping) = (Arc::clone(&self.service), self.is_stopping.clone());
        let connection = Connection::new(accepted.stream, peer, service, is_stopping);
        match mux {
            None => self.spawn(connection.serve(), peer),
            Some(mux) => self.spawn(mux.clone().serve(connection), peer),
        }
    }

    /// Serves a connection that the broker has passed on, whose client is sent `greeting` first.
    ///
    /// # Errors
    /// Nothing was written then; it is closed here.
    pub(crate) fn adopt(
        &mut self,
        descriptor: OwnedDescriptor,
        greeting: Option<Bytes>,
    ) -> Result<(), NotAdopted> {
        let stream = Stream::from_owned_fd(descriptor).map_err(NotAdopted::Stream)?;
        let peer = admissible(stream.peer())?;
        let (service, is_stopping) = (Arc::clone(&self.service), self.is_stopping.clone());
        let mut connection = Connection::new(stream, peer, service, is_stopping);
        if let Some(greeting) = greeting {
            connection = connection.greet(greeting).map_err(NotAdopted::Client)?;
        }
        self.spawn(connection.serve(), peer);
        Ok(())
    }

    fn spawn(&mut self, serve: impl Future<Output = ()> + Send + 'static, peer: PeerCredentials) {
        let span = tracing::debug_span!("connection", peer_pid = peer.pid);
        self.idle = None;
        self.tasks.spawn(serve.instrument(span));
    }

    /// Returns when one has ended; meanwhile, where there is none, the handler's idle hook runs.
    /// Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        loop {
            if let Some(ended) = self.tasks.join_next().await {
                report(ended);
                if self.tasks.is_empty() {
                    let service = Arc::clone(&self.service);
                    self.idle = Some(Box::pin(async move { service.handler().idle().await }));
                }
                return;
            }
            match &mut self.idle {
                Some(idle) => idle.await,
                None => std::future::pending().await,
            }
            self.idle = None;
        }
    }

    /// Returns when all have ended.
    pub(crate) async fn drained(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            report(ended);
        }
    }
}

/// A connection's own end is told where it happens; what is left is a handler that panicked.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a handler panicked; its connection is closed");
    }
}
