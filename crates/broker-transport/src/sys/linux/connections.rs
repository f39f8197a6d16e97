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
/// `SS_CONNECTING` and `SS_CONNECTED` of `<linux/net.h>`, as the list writes them. A connection that waits
/// to be accepted counts as the first.
const CONNECTED: [&[u8]; 2] = [b"02", b"03"];

pub(crate) fn has_connections(endpoint: &Path) -> io::Result<bool> {
    let mut list = BufReader::new(File::open(LIST)?);
    let mut line = Vec::new();
    while list.read_until(b'\n', &mut line)? > 0 {
        if is_connection_to(endpoint, line.strip_suffix(b"\n").unwrap_or(&line)) {
            return Ok(true);
        }
        line.clear();
    }
    Ok(false)
}

/// The listener's end of a connection has the listener's path, and a state of its own.
fn is_connection_to(endpoint: &Path, line: &[u8]) -> bool {
    let mut rest = line;
    let mut is_connected = false;
    for number in 0..NUMBERS {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        is_connected |= number == STATE && CONNECTED.contains(&word);
        rest = after;
    }
    is_connected && rest.strip_prefix(b" ") == Some(endpoint.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_its_listeners_path_and_the_state_of_one() {
        let is = |line: &str| is_connection_to(Path::new("/run/a b.sock"), line.as_bytes());
        assert!(is("0000000000000000: 00000003 00000000 00000000 0001 03 7342911 /run/a b.sock"));
        assert!(is("ffff9f0a1c0d8800: 00000002 00000000 00000000 0001 02     0 /run/a b.sock"));
        for other in [
            "Num       RefCount Protocol Flags    Type St Inode Path",
            "0000000000000000: 00000002 00000000 00010000 0001 01 7342911 /run/a b.sock",
            "0000000000000000: 00000003 00000000 00000000 0001 03 7342911 /run/a b.sock2",
            "0000000000000000: 00000003 00000000 00000000 0001 03 7342911 /run/a",
            "0000000000000000: 00000003 00000000 00000000 0001 03 7342911",
            "03 03 03 03 03 03 03",
            "",
        ] {
            assert!(!is(other), "{other}");
        }
    }
}
