//! Clients that connect, say one thing, read one answer and close, as fast as they are answered.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::samples::Samples;

/// Stack of a client's thread: it holds one small buffer.
const STACK: usize = 64 * 1024;

/// What one round of load came to.
#[derive(Debug, Default)]
pub struct Round {
    /// From before connecting to after the last byte of the answer.
    pub latencies: Samples,
    /// From the first request to the last answer.
    pub took: Duration,
}

/// One exchange on a connection of its own; returns the whole answer frame's length.
///
/// # Errors
/// The server is not there, or closes before its answer is whole.
pub fn exchange(socket: &Path, request: &[u8], answer: &mut [u8]) -> io::Result<usize> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(request)?;
    let mut filled = 0;
    loop {
        match stream.read(&mut answer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
        if let [_, a, b, c, d, body @ ..] = &answer[..filled]
            && body.len() >= u32::from_le_bytes([*a, *b, *c, *d]) as usize
        {
            return Ok(filled);
        }
    }
}

/// `count` exchanges by `clients` at once, each a thread that blocks; the requests take turns.
///
/// # Errors
/// The first exchange that fails ends the round.
pub fn drive(socket: &Path, requests: &[Vec<u8>], clients: usize, count: usize) -> io::Result<Round> {
    let next = AtomicUsize::new(0);
    let start = Barrier::new(clients + 1);
    std::thread::scope(|scope| {
        let client = || {
            let mut latencies = Samples::default();
            let mut answer = [0; 2048];
            start.wait();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count {
                    return Ok::<_, io::Error>(latencies);
                }
                let request = &requests[at % requests.len()];
                let begun = Instant::now();
                exchange(socket, request, &mut answer)?;
                latencies.push(begun.elapsed());
            }
        };
        let threads = (0..clients)
            .map(|_| std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, client))
            .collect::<io::Result<Vec<_>>>()?;
        start.wait();
        let begun = Instant::now();
        let mut round = Round::default();
        for thread in threads {
            let latencies = thread.join().map_err(|_| io::Error::other("a client panicked"))??;
            round.latencies.extend(&latencies);
        }
        round.took = begun.elapsed();
        Ok(round)
    })
}
