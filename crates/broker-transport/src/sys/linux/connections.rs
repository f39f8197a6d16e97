//! Who is connected to a socket, by the kernel's list of Unix sockets (`/proc/net/unix`, proc(5)).

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const LIST: &str = "/proc/net/unix";

/// Numbers before a socket's path: address, references, protocol, flags, type, state, inode.
const NUMBERS: usize = 7;
/// Which of them is the state.
const STATE: usize = 5;
/// `SS_UNCONNECTED` and `SS_CONNECTED` of `<linux/net.h>`, as the list writes them. A connection that waits
/// to be accepted has another state: who does not accept it does not serve it.
const LISTENING: &[u8] = b"01";
const CONNECTED: &[u8] = b"03";

pub(crate) fn has_connections(endpoint: &Path) -> io::Result<bool> {
    let mut is_known = false;
    let is_connected = find(endpoint, |state| {
        is_known |= state == LISTENING;
        state == CONNECTED
    })?;
    if is_connected || is_known {
        Ok(is_connected)
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "nobody listens by this path"))
    }
}

pub(crate) fn is_bound(endpoint: &Path) -> io::Result<bool> {
    find(endpoint, |_| true)
}

/// Whether the list has a socket with this path, its links followed or not, in such a state.
fn find(endpoint: &Path, mut is_meant: impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
    // Who binds a path may have followed its links first.
    let resolved = std::fs::canonicalize(endpoint)?;
    let mut list = BufReader::new(File::open(LIST)?);
    let mut line = Vec::new();
    while list.read_until(b'\n', &mut line)? > 0 {
        let (state, path) = parse(line.strip_suffix(b"\n").unwrap_or(&line));
        let is_it = path == endpoint.as_os_str().as_bytes() || path == resolved.as_os_str().as_bytes();
        if is_it && is_meant(state) {
            return Ok(true);
        }
        line.clear();
    }
    Ok(false)
}

/// The state and the path of a socket. The listener's end of a connection has the listener's path, and a
/// state of its own.
fn parse(line: &[u8]) -> (&[u8], &[u8]) {
    let (mut state, mut rest) = (&b""[..], line);
    for number in 0..NUMBERS {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if number == STATE {
            state = word;
        }
        rest = after;
    }
    (state, rest.strip_prefix(b" ").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_state_and_a_path_or_none() {
        let cases: [(&str, &str, &str); 6] = [
            (
                "0000000000000000: 00000003 00000000 00000000 0001 03 7342911 /run/a b.sock",
                "03",
                "/run/a b.sock",
            ),
            ("ffff9f0a1c0d8800: 00000002 00000000 00000000 0001 02     0 /run/a.sock", "02", "/run/a.sock"),
            ("0000000000000000: 00000002 00000000 00010000 0001 01 7342911 @hidden", "01", "@hidden"),
            ("0000000000000000: 00000003 00000000 00000000 0001 03 7342911", "03", ""),
            ("Num       RefCount Protocol Flags    Type St Inode Path", "St", "Path"),
            ("", "", ""),
        ];
        for (line, state, path) in cases {
            assert_eq!(parse(line.as_bytes()), (state.as_bytes(), path.as_bytes()), "{line}");
        }
    }
}
