//! Both kinds of session behind one face.

use broker_client::{
    Agreement, Connector, Origin, PayloadProtocol, RequestError, SessionError, blocking, bytes::Bytes,
};
use tokio::runtime::Runtime;

use super::runtime;

/// Which half of the client a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Blocking,
    #[cfg(feature = "tokio")]
    Async,
}

/// Each of them.
pub(crate) const HALVES: &[Half] = &[
    Half::Blocking,
    #[cfg(feature = "tokio")]
    Half::Async,
];

#[derive(Debug)]
enum Kind {
    Blocking(blocking::Session),
    #[cfg(feature = "tokio")]
    Async(broker_client::Session),
}

/// A session, and the runtime that the async one needs.
#[derive(Debug)]
pub(crate) struct Session {
    kind: Kind,
    runtime: Runtime,
}

impl Half {
    pub(crate) fn connect(self, connector: &Connector) -> Result<Session, SessionError> {
        let runtime = runtime();
        let kind = match self {
            Self::Blocking => Kind::Blocking(blocking::Session::connect(connector)?),
            #[cfg(feature = "tokio")]
            Self::Async => Kind::Async(runtime.block_on(broker_client::Session::connect(connector))?),
        };
        Ok(Session { kind, runtime })
    }
}

impl Session {
    pub(crate) fn request(
        &mut self,
        lane: PayloadProtocol,
        payload: impl Into<Bytes>,
    ) -> Result<Bytes, RequestError> {
        match &mut self.kind {
            Kind::Blocking(session) => session.request(lane, payload),
            #[cfg(feature = "tokio")]
            Kind::Async(session) => self.runtime.block_on(session.request(lane, payload)),
        }
    }

    pub(crate) fn set_timeout(&mut self, timeout: std::time::Duration) {
        match &mut self.kind {
            Kind::Blocking(session) => session.set_timeout(timeout),
            #[cfg(feature = "tokio")]
            Kind::Async(session) => session.set_timeout(timeout),
        }
    }

    pub(crate) fn agreement(&self) -> &Agreement {
        match &self.kind {
            Kind::Blocking(session) => session.agreement(),
            #[cfg(feature = "tokio")]
            Kind::Async(session) => session.agreement(),
        }
    }

    pub(crate) fn origin(&self) -> Origin {
        match &self.kind {
            Kind::Blocking(session) => session.origin(),
            #[cfg(feature = "tokio")]
            Kind::Async(session) => session.origin(),
        }
    }

    /// Whether nothing is left of the session.
    pub(crate) fn into_stream_is_none(self) -> bool {
        match self.kind {
            Kind::Blocking(session) => session.into_stream().is_none(),
            #[cfg(feature = "tokio")]
            Kind::Async(session) => session.into_stream().is_none(),
        }
    }

    /// What is left of the session: a connection that is asked by hand, and its answer.
    pub(crate) fn ask_by_hand(self, bytes: &[u8], answer: &mut [u8]) {
        match self.kind {
            Kind::Blocking(session) => {
                use std::io::{Read, Write};
                let mut stream = session.into_stream().unwrap();
                stream.write_all(bytes).unwrap();
                stream.read_exact(answer).unwrap();
            }
            #[cfg(feature = "tokio")]
            Kind::Async(session) => self.runtime.block_on(async {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut stream = session.into_stream().unwrap();
                stream.write_all(bytes).await.unwrap();
                stream.read_exact(answer).await.unwrap();
            }),
        }
    }
}
