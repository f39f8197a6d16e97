//! The connections that are open, each a task of its own.
//!
//! Invariants: a connection of another user is closed before a byte of it is read, however it came here;
//! one that stalls delays no other; and the handler's idle hook runs only while there is none.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use broker_protocol::bytes::Bytes;
use broker_transport::descriptor::OwnedDescriptor;
use broker_transport::listener::Accepted;
use broker_transport::peer::PeerCredentials;
use broker_transport::stream::Stream;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use crate::connection::{Connection, EndedBy, Service};
use crate::handler::Handler;
use crate::mux::Mux;
use crate::serve::{Inadmissible, admissible};

/// The handler's idle hook at work.
type Idle = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is open.
pub(crate) struct Connections<H> {
    service: Arc<Service<H>>,
    is_stopping: watch::Receiver<bool>,
    tasks: JoinSet<EndedBy>,
    idle: Option<Idle>,
}

/// A connection that was passed on and can be served.
pub(crate) struct Adopted<H> {
    connection: Connection<H>,
    peer: PeerCredentials,
}

/// Why an offered connection is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAdopted {
    #[error(transparent)]
    Inadmissible(#[from] Inadmissible),
    #[error("cannot use the connection: {0}")]
    Stream(#[source] io::Error),
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

    /// Makes sure that a connection which the broker passes on can be served.
    ///
    /// # Errors
    /// Nothing was written then; it is closed here.
    pub(crate) fn admit_passed(&self, descriptor: OwnedDescriptor) -> Result<Adopted<H>, NotAdopted> {
        let stream = Stream::from_owned_fd(descriptor).map_err(NotAdopted::Stream)?;
        let peer = admissible(stream.peer())?;
        let (service, is_stopping) = (Arc::clone(&self.service), self.is_stopping.clone());
        Ok(Adopted { connection: Connection::new(stream, peer, service, is_stopping), peer })
    }

    /// Serves a connection that was passed on, whose client is sent `greeting` first.
    pub(crate) fn adopt(&mut self, adopted: Adopted<H>, greeting: Option<Bytes>) {
        let Adopted { connection, peer } = adopted;
        match greeting {
            None => self.spawn(connection.serve(), peer),
            // Its request may be here already.
            Some(greeting) => self.spawn_looked_at(connection.greet(greeting).serve(), peer),
        }
    }

    /// Looks at a connection once before it becomes a task: what it says at once costs no turn of the
    /// runtime. Where other threads could serve it meanwhile, it is theirs.
    fn spawn_looked_at(
        &mut self,
        serve: impl Future<Output = EndedBy> + Send + 'static,
        peer: PeerCredentials,
    ) {
        if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
            return self.spawn(serve, peer);
        }
        let span = tracing::debug_span!("connection", peer_pid = peer.pid);
        let mut serve = Box::pin(serve.instrument(span));
        let mut context = Context::from_waker(Waker::noop());
        self.idle = None;
        match catch_unwind(AssertUnwindSafe(|| serve.as_mut().poll(&mut context))) {
            Ok(Poll::Pending) => drop(self.tasks.spawn(serve)),
            // Its end is told like that of any other.
            Ok(Poll::Ready(end)) => drop(self.tasks.spawn(std::future::ready(end))),
            Err(_) => {
                tracing::error!("a handler panicked; its connection is closed");
                self.tasks.spawn(std::future::ready(EndedBy::Us));
            }
        }
    }

    fn spawn(&mut self, serve: impl Future<Output = EndedBy> + Send + 'static, peer: PeerCredentials) {
        let span = tracing::debug_span!("connection", peer_pid = peer.pid);
        self.idle = None;
        self.tasks.spawn(serve.instrument(span));
    }

    /// Returns when one has ended; meanwhile, where there is none, the handler's idle hook runs.
    /// Cancel-safe.
    pub(crate) async fn ended(&mut self) -> EndedBy {
        loop {
            if let Some(ended) = self.tasks.join_next().await {
                let ended_by = report(ended);
                if self.tasks.is_empty() {
                    let service = Arc::clone(&self.service);
                    self.idle = Some(Box::pin(async move { service.handler().idle().await }));
                }
                return ended_by;
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
fn report(ended: Result<EndedBy, JoinError>) -> EndedBy {
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "a handler panicked; its connection is closed");
        EndedBy::Us
    })
}
