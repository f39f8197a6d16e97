//! A child's stderr, from its pipe into its ring.
//!
//! Invariant: whoever reads the pipe holds the ring's lock, so that chunks stay in order; nobody waits
//! while holding it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;

use super::planted::Bug;
use crate::process::StderrRing;

pub(super) const CHUNK: usize = 4096;

/// Most chunks that one look takes: a flooding child must not keep its reader for ever. More than any
/// pipe holds by default (pipe(7): 64 KiB).
const CHUNKS_AT_ONCE: usize = 64;

pub(super) struct StderrPipe {
    receiver: Receiver,
    ring: StderrRing,
    /// The child is gone and its last words are taken: what a grandchild says is nobody's.
    ended: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is left for now.
    Empty,
    /// There may be more.
    More,
    /// Every writer is gone.
    Ended,
}

impl StderrPipe {
    /// Starts reading, until nobody has the pipe open or the child has ended: it never waits for its reader.
    pub(super) fn start(pipe: OwnedFd, ring: StderrRing) -> io::Result<Arc<Self>> {
        let receiver = Receiver::from_owned_fd(pipe)?;
        let pipe = Arc::new(Self { receiver, ring, ended: Notify::new() });
        tokio::spawn(Arc::clone(&pipe).read_all());
        Ok(pipe)
    }

    /// Another descriptor of the pipe.
    pub(super) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.receiver.as_fd().try_clone_to_owned()
    }

    /// Takes what is in the pipe after the child's end, and stops reading.
    pub(super) fn finish(&self) {
        self.drain();
        self.ended.notify_one();
    }

    /// Takes what is in the pipe right now. What a process wrote before it died is there by then.
    fn drain(&self) {
        for _ in 0..CHUNKS_AT_ONCE {
            match self.take_chunk() {
                Ok(State::More) => {}
                Ok(State::Empty | State::Ended) | Err(_) => return,
            }
        }
    }

    async fn read_all(self: Arc<Self>) {
        loop {
            let readable = tokio::select! {
                biased;
                () = self.ended.notified() => return,
                readable = self.receiver.readable() => readable,
            };
            if let Err(error) = readable {
                tracing::debug!(%error, "a child's stderr is no longer read");
                return;
            }
            let taken = self.receiver.try_io(|| match self.take_chunk()? {
                State::Empty => Err(io::ErrorKind::WouldBlock.into()),
                state => Ok(state),
            });
            match taken {
                Ok(State::Ended) => return,
                Ok(State::More | State::Empty) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::debug!(%error, "a child's stderr cannot be read");
                    return;
                }
            }
        }
    }

    fn take_chunk(&self) -> io::Result<State> {
        take_chunk(self.receiver.as_fd(), &self.ring)
    }
}

/// Takes the next of what is in a pipe that does not block, while the ring is locked.
pub(super) fn take_chunk(pipe: BorrowedFd<'_>, ring: &StderrRing) -> io::Result<State> {
    let mut chunk = [0; CHUNK];
    let mut locked = ring.lock();
    match rustix::io::read(pipe, &mut chunk) {
        Ok(0) => Ok(State::Ended),
        Ok(length) => {
            if Bug::UnlockedBeforePush.is_planted() {
                drop(locked);
                locked = ring.lock();
            }
            locked.push(&chunk[..length]);
            Ok(State::More)
        }
        Err(Errno::WOULDBLOCK) => Ok(State::Empty),
        Err(Errno::INTR) => Ok(State::More),
        Err(errno) => Err(errno.into()),
    }
}
