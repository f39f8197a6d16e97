//! Accepting connections until it is time to stop (behaviour.md, section 1, step 1).
//!
//! Every connection is a task of its own, so one that stalls delays no other. Invariants: a connection
//! of another user is closed before a byte of it is read; a want of descriptors never makes the loop
//! spin; and a stop ends within [`DRAIN_LIMIT`], whatever the clients do.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use broker_transport::listener::{AcceptError, Listener};
use broker_transport::peer::PeerCredentials;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::backend::Backend;
use crate::broker::Broker;
use crate::connection::Service;
use crate::connections::Connections;
use crate::handler::Handler;
use crate::identity::Unidentified;
use crate::offers::Offers;
use crate::sidecar::Kept;

/// How long a stop waits for the requests at hand. A broker that stops a backend kills it after 5 s;
/// this leaves it the time to end by itself.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(4);

/// First and longest pause after an accept that failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Why a backend stopped serving by itself.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The listener cannot be waited on.
    #[error("cannot wait for connections: {0}")]
    Watch(#[source] io::Error),
    /// This process cannot say which one it is, so no broker would ever take it to be ready.
    #[error(transparent)]
    Unidentified(#[from] Arc<Unidentified>),
}

pub(crate) async fn run(
    backend: Backend,
    handler: impl Handler,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let service = backend.environment().map(|environment| environment.service.to_string());
    let Backend { socket, identity, lock, control, offers, mux, sidecar, .. } = backend;
    let lock = lock.map(Arc::new);
    let listener = Listener::from_bound(socket).map_err(ServeError::Watch)?;
    let offers = offers.map(Listener::from_bound).transpose().map_err(ServeError::Watch)?;
    let mut offers = Offers::new(offers, service);
    let service = Arc::new(Service::new(handler, identity.clone()));
    let mut broker = Broker::begin(control, &service);
    let (stopping, is_stopping) = watch::channel(false);
    let mut connections = Connections::new(Arc::clone(&service), is_stopping);
    let mut backoff = Backoff::default();
    let mut sidecar = Kept::new(sidecar, &identity, lock.as_ref());
    let (mut stop, mut unidentified) = (pin!(stop), pin!(identity.failed()));
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            error = &mut unidentified => return Err(error.into()),
            never = sidecar.keep() => match never {},
            ended_by = connections.ended() => {
                // It has left a descriptor to accept another one with.
                backoff.cut_short();
                broker.connection_ended(ended_by);
            }
            news = broker.next() => broker.take(news, &mut connections),
            offer = offers.next(), if !broker.has_quiesced() => offers.take(offer, &mut connections),
            accepted = backoff.then(listener.accept()), if !broker.has_quiesced() => match accepted {
                Ok(accepted) => {
                    backoff.reset();
                    connections.admit(accepted, mux.as_ref());
                }
                Err(error) => backoff.failed(&error, Instant::now()),
            },
        }
    }
    broker.leave().await;
    drop(offers);
    drop(listener);
    drop(lock);
    stopping.send_replace(true);
    let drained = timeout(DRAIN_LIMIT, async {
        // The sidecar's file holds the lock until it is gone.
        tokio::join!(sidecar.end(), connections.drained())
    });
    if drained.await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests were cut off, as they took too long to end"
        );
    }
    Ok(())
}

/// Why a peer is not served.
#[derive(Debug, Error)]
pub(crate) enum Inadmissible {
    #[error("its peer is user {0}, not the one this process runs as")]
    ForeignUser(u64),
    #[error("the kernel does not say who its peer is: {0}")]
    Unknown(#[from] io::Error),
}

pub(crate) fn admissible(peer: io::Result<PeerCredentials>) -> Result<PeerCredentials, Inadmissible> {
    let peer = peer?;
    if peer.user.is_self() { Ok(peer) } else { Err(Inadmissible::ForeignUser(peer.user.key())) }
}

/// When to accept again after an accept that failed.
#[derive(Debug, Default)]
struct Backoff {
    until: Option<Instant>,
    last: Option<Duration>,
}

impl Backoff {
    fn failed(&mut self, error: &AcceptError, now: Instant) {
        let pause = match self.last {
            Some(last) => (last * 2).min(PAUSE.1),
            None => {
                // Once, and not again until an accept has succeeded.
                tracing::warn!(%error, "connections have to wait");
                PAUSE.0
            }
        };
        self.last = Some(pause);
        self.until = Some(now + pause);
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn cut_short(&mut self) {
        self.until = None;
    }

    /// Carries out `accept` after the pause. Cancel-safe if `accept` is.
    async fn then<T>(&self, accept: impl Future<Output = T>) -> T {
        if let Some(until) = self.until {
            sleep_until(until).await;
        }
        accept.await
    }
}

#[cfg(test)]
mod tests {
    use broker_transport::peer::UserId;

    use super::*;

    #[test]
    fn only_a_peer_of_the_own_user_is_served() {
        let credentials = |user| PeerCredentials { user, gid: None, pid: None };
        assert!(admissible(Ok(credentials(UserId::current()))).is_ok());
        let foreign = UserId::from_uid(UserId::current().key() as u32 ^ 1);
        assert!(matches!(admissible(Ok(credentials(foreign))), Err(Inadmissible::ForeignUser(_))));
        let unknown = admissible(Err(io::ErrorKind::NotConnected.into()));
        assert!(matches!(unknown, Err(Inadmissible::Unknown(_))));
    }

    #[test]
    fn pauses_double_up_to_a_second_until_an_accept_succeeds() {
        let now = Instant::now();
        let error = AcceptError::DescriptorPressure(io::Error::from_raw_os_error(24));
        let mut backoff = Backoff::default();
        let pause = |backoff: &mut Backoff| {
            backoff.failed(&error, now);
            (backoff.until.unwrap() - now).as_millis()
        };
        let pauses: Vec<_> = (0..9).map(|_| pause(&mut backoff)).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.cut_short();
        assert_eq!(backoff.until, None);
        assert_eq!(pause(&mut backoff), 1000, "the want has not ended because one connection has");
        backoff.reset();
        assert_eq!(pause(&mut backoff), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_accepted_during_a_pause() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        assert_eq!(backoff.then(async { Instant::now() - start }).await, Duration::ZERO);
        backoff.failed(&AcceptError::Other(io::ErrorKind::OutOfMemory.into()), start);
        assert!(backoff.then(async { Instant::now() - start }).await >= PAUSE.0);
    }
}
