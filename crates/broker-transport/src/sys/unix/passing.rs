//! Descriptors for other processes, in messages (unix(7), `SCM_RIGHTS`).
//!
//! Nothing has to be made ready for that. Invariant: a descriptor leaves together with the first byte.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::super::os::process::ChildProcess;
use super::stream::Stream;
use crate::fd_passing::{FdPassError, send_with_fds, try_send_with_fds};
use crate::passing::{Carrier, ClaimError};

pub(crate) const CARRIER: Carrier = Carrier::Message;

/// Whoever reads the message.
#[derive(Debug)]
pub(crate) struct Recipient;

impl Recipient {
    #[allow(clippy::unnecessary_wraps, reason = "the same signature on every platform")]
    pub(crate) const fn peer_of(_stream: &Stream) -> io::Result<Self> {
        Ok(Self)
    }

    #[allow(clippy::unnecessary_wraps, reason = "the same signature on every platform")]
    pub(crate) const fn child(_child: &ChildProcess) -> io::Result<Self> {
        Ok(Self)
    }

    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "the same signature on every platform")]
    pub(crate) const fn prepare(&self, _descriptor: BorrowedFd<'_>) -> io::Result<Passage> {
        Ok(Passage)
    }
}

#[derive(Debug)]
pub(crate) struct Passage;

impl Passage {
    #[allow(clippy::unused_self, reason = "the same signature on every platform")]
    pub(crate) const fn handle_value(&self) -> u64 {
        0
    }

    pub(crate) async fn send(
        self,
        stream: &Stream,
        bytes: &[u8],
        descriptor: BorrowedFd<'_>,
    ) -> Result<usize, FdPassError> {
        send_with_fds(stream, bytes, &[descriptor]).await
    }

    pub(crate) fn try_send(
        self,
        stream: &Stream,
        bytes: &[u8],
        descriptor: BorrowedFd<'_>,
    ) -> Result<usize, FdPassError> {
        try_send_with_fds(stream, bytes, &[descriptor])
    }
}

pub(crate) fn claim(
    carried: Option<OwnedFd>,
    _handle_value: u64,
    _told_on: &Stream,
) -> Result<OwnedFd, ClaimError> {
    carried.ok_or(ClaimError::Missing)
}
