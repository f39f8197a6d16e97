//! The program `hostile-peer`, as a test sees it: it works beside the test until it is told to stop.
//!
//! What it does to a broker is its own business (`src/bin/hostile-peer`). Invariant: it is never left behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use crate::{PATIENCE, World};

/// A process that does to a broker what no client should. Killed when dropped.
pub struct HostilePeer {
    child: Child,
    /// How much it had done after each round.
    rounds: Receiver<u64>,
    done: u64,
}

impl HostilePeer {
    /// Starts it, with a behaviour and its options.
    pub(crate) fn start(world: &World, socket: &Path, arguments: &[&str]) -> Self {
        let mut command = world.command(&World::program("hostile-peer"));
        command.arg(socket).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, rounds) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line.parse().unwrap()).is_err() {
                    break;
                }
            }
        });
        Self { child, rounds, done: 0 }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has done another round.
    pub fn wait_for_round(&mut self) {
        assert!(self.next_round(), "it has ended");
    }

    /// Waits until it has done as much as it was to do; how much that is.
    pub fn wait(mut self) -> u64 {
        while self.next_round() {}
        assert!(self.child.wait().unwrap().success());
        self.done
    }

    /// Tells it to stop; how much it has done.
    pub fn stop(mut self) -> u64 {
        drop(self.child.stdin.take());
        self.wait()
    }

    fn next_round(&mut self) -> bool {
        match self.rounds.recv_timeout(PATIENCE) {
            Ok(done) => {
                self.done = done;
                true
            }
            Err(RecvTimeoutError::Timeout) => panic!("no round after {}", self.done),
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }
}

impl Drop for HostilePeer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
