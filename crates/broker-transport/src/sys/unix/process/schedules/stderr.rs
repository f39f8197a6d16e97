//! A child's stderr in many schedules: who waits for the child takes its last words while the reader takes
//! the ones before, and they stay in order.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::ioctl_fionbio;
use shuttle::thread;

use super::super::super::super::os::process::pipe;
use super::super::planted::Bug;
use super::super::stderr_pipe::{CHUNK, State, take_chunk};
use super::{find, hold};
use crate::process::{STDERR_RING_BYTES, StderrRing};

/// More than the ring keeps.
const CHUNKS: usize = STDERR_RING_BYTES / CHUNK + 1;

/// What stands in each chunk.
const LETTERS: [u8; CHUNKS] = *b"abc";

fn take_all(pipe: &OwnedFd, ring: &StderrRing) {
    while take_chunk(pipe.as_fd(), ring).unwrap() == State::More {}
}

/// The letters of a text, each as often as it begins anew.
fn runs(text: &str) -> Vec<u8> {
    let mut letters = text.as_bytes().to_vec();
    letters.dedup();
    letters
}

fn last_words() {
    let (reading, writing) = pipe().unwrap();
    ioctl_fionbio(&reading, true).unwrap();
    for letter in LETTERS {
        assert_eq!(rustix::io::write(&writing, &[letter; CHUNK]).unwrap(), CHUNK);
    }
    drop(writing);
    let (reading, ring) = (Arc::new(reading), StderrRing::new());
    let takers: Vec<_> = (0..2)
        .map(|_| {
            let (reading, ring) = (Arc::clone(&reading), ring.clone());
            thread::spawn(move || take_all(&reading, &ring))
        })
        .collect();
    // Whoever looks meanwhile sees neither more than the bound nor a gap.
    let seen = ring.text();
    assert!(seen.len() <= STDERR_RING_BYTES);
    assert!(LETTERS.windows(runs(&seen).len().max(1)).any(|part| seen.is_empty() || part == runs(&seen)));
    takers.into_iter().for_each(|taker| taker.join().unwrap());
    assert_eq!(runs(&ring.text()), LETTERS[1..], "in order, and the last of them");
    assert_eq!((ring.text().len(), ring.written()), (STDERR_RING_BYTES, (CHUNKS * CHUNK) as u64));
}

#[test]
fn the_last_words_stay_in_order_whoever_takes_them() {
    hold(last_words);
}

#[test]
fn a_ring_that_is_unlocked_between_the_look_and_the_push_is_found() {
    find(Bug::UnlockedBeforePush, last_words, "in order");
}
