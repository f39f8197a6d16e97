//! Passing an open connection to another process (protocol.md, "Conversations" 4 and 5).
//!
//! On Unix a descriptor rides on the first byte of a message; on Windows a handle is put into the other
//! process's table, and the message tells its value. This is one face for both: what is passed is
//! [prepared](Recipient::prepare), its [value](Passage::handle_value) goes into the message, and the message
//! [leaves](Passage::send); the other side [claims](claim) what it was told of. Invariants: while not a byte
//! of the message has left, nothing is passed; and a process takes only what its peer has passed to it.

use std::io;

use thiserror::Error;

use crate::descriptor::{BorrowedDescriptor, OwnedDescriptor};
use crate::fd_passing::FdPassError;
use crate::process::ChildProcess;
use crate::stream::Stream;
use crate::sys::passing as sys;

/// How a connection gets from one process to another here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// On a byte of a message (unix(7), `SCM_RIGHTS`).
    Message,
    /// By a value in the table of the process that gets it (`DuplicateHandle`).
    Table,
}

/// How this platform passes connections.
pub const CARRIER: Carrier = sys::CARRIER;

/// A process that connections are passed to.
#[derive(Debug)]
pub struct Recipient(sys::Recipient);

impl Recipient {
    /// The process at the other end of a connection.
    ///
    /// # Errors
    /// It is gone, or this process may not pass it anything.
    pub fn peer_of(stream: &Stream) -> io::Result<Self> {
        sys::Recipient::peer_of(stream).map(Self)
    }

    /// A child of this process, which has inherited one end of a connection.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn child(child: &ChildProcess) -> io::Result<Self> {
        sys::Recipient::child(child).map(Self)
    }

    /// Makes it ready to be passed. Until the message has left it can be dropped, and nothing has happened.
    ///
    /// # Errors
    /// The process is gone, or it takes no more.
    pub fn prepare(&self, descriptor: BorrowedDescriptor<'_>) -> io::Result<Passage> {
        self.0.prepare(descriptor).map(Passage)
    }
}

/// What is about to be passed.
#[derive(Debug)]
#[must_use = "what is not sent is not passed"]
pub struct Passage(sys::Passage);

impl Passage {
    /// What an offer says in `handle_value`: 0 on Unix.
    pub fn handle_value(&self) -> u64 {
        self.0.handle_value()
    }

    /// Sends the message that passes `descriptor`, which is what was prepared.
    ///
    /// Returns how many bytes were sent, at least 1: send the rest without it. Cancel-safe: when it did not
    /// return, nothing was sent and nothing passed.
    ///
    /// # Errors
    /// [`FdPassError`]; nothing was passed then.
    pub async fn send(
        self,
        stream: &Stream,
        bytes: &[u8],
        descriptor: BorrowedDescriptor<'_>,
    ) -> Result<usize, FdPassError> {
        self.0.send(stream, bytes, descriptor).await
    }

    /// [`send`](Self::send) that does not wait: an error of kind `WouldBlock` where the peer has no room.
    ///
    /// # Errors
    /// [`FdPassError`]; nothing was passed then.
    pub fn try_send(
        self,
        stream: &Stream,
        bytes: &[u8],
        descriptor: BorrowedDescriptor<'_>,
    ) -> Result<usize, FdPassError> {
        self.0.try_send(stream, bytes, descriptor)
    }
}

/// Why a connection that was offered is not to be had.
#[derive(Debug, Error)]
pub enum ClaimError {
    /// Nothing came with the message.
    #[error("no connection came with the offer")]
    Missing,
    /// Another user tells of a handle.
    #[error("only a process of this user may pass handles")]
    Foreign,
    /// The value stands for something that the sender cannot have passed.
    #[error("expected a connection that the sender has accepted as handle {value:#x}, found {found}")]
    NotTheirs {
        /// The value.
        value: u64,
        /// What it stands for.
        found: &'static str,
    },
    /// The system does not say who has sent it.
    #[error("the sender is not known: {0}")]
    Unknown(#[from] io::Error),
}

/// Takes what was passed: the descriptor that the message has `carried`, or the handle whose value it tells.
///
/// `told_on` is the connection that the message came on.
///
/// # Errors
/// [`ClaimError`]; a connection that is not taken is closed. What is none of the sender's stays as it is.
pub fn claim(
    carried: Option<OwnedDescriptor>,
    handle_value: u64,
    told_on: &Stream,
) -> Result<OwnedDescriptor, ClaimError> {
    sys::claim(carried, handle_value, told_on)
}
