//! The limit: a tokio server that accepts, reads a request, writes a canned answer and closes.
//!
//! It moves the bytes that a broker moves and decides nothing. `bare-server SOCKET ANSWER-FILE FLAVOUR`,
//! where the flavour is `multi` (tokio's default runtime) or `single` (one thread).

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;

pub(super) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, answer, flavour] = arguments.as_slice() else {
        eprintln!("usage: bare-server SOCKET ANSWER-FILE single|multi");
        return ExitCode::from(2);
    };
    match run(socket, answer, flavour) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(socket: &str, answer: &str, flavour: &str) -> io::Result<()> {
    let answer: Arc<[u8]> = std::fs::read(answer)?.into();
    let runtime = match flavour {
        "single" => Builder::new_current_thread().enable_all().build()?,
        _ => Builder::new_multi_thread().enable_all().build()?,
    };
    runtime.block_on(async {
        let listener = UnixListener::bind(socket)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let answer = Arc::clone(&answer);
            // A client that leaves early is its own affair.
            tokio::spawn(async move { serve(stream, &answer).await });
        }
    })
}

async fn serve(mut stream: UnixStream, answer: &[u8]) -> io::Result<()> {
    let mut buffer = [0; 1024];
    let mut filled = 0;
    while !is_whole(&buffer[..filled]) {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            count => filled += count,
        }
    }
    stream.write_all(answer).await
}

fn is_whole(received: &[u8]) -> bool {
    match received {
        [_, a, b, c, d, body @ ..] => body.len() >= u32::from_le_bytes([*a, *b, *c, *d]) as usize,
        _ => false,
    }
}
