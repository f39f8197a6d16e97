//! What the kernel tells of a socket in some process: `struct socket_fdinfo` of `<sys/proc_info.h>`.
//!
//! Read by position, as libc does not declare it. Pure, so it is tested on other systems, too. Invariant:
//! only a Unix stream socket with a path has a role.

/// Its size: 24 bytes about the descriptor, 240 about the socket, 526 about its protocol, and padding.
pub(crate) const SOCKET_INFO_LEN: usize = 792;

// Positions of the fields: soi_type, soi_options, soi_state, soi_kind, and the path in unsi_addr.
const TYPE: usize = 176;
const OPTIONS: usize = 188;
const STATE: usize = 192;
const KIND: usize = 256;
const PATH: usize = 282;
/// `sun_path` (unix(4)).
const PATH_LEN: usize = 104;

/// `SOCKINFO_UN`.
const UNIX: i32 = 3;
/// `SOCK_STREAM`.
const STREAM: i32 = 1;
/// `SO_ACCEPTCONN`.
const ACCEPTS: u16 = 0x0002;
/// `SOI_S_ISCONNECTED`, `SOI_S_CANTSENDMORE`, `SOI_S_CANTRCVMORE` and `SOI_S_ISDISCONNECTED`: it is connected,
/// or was. One that was is counted until its process lets go of it: there may be something left to read.
const HAS_BEEN_CONNECTED: u16 = 0x0002 | 0x0010 | 0x0020 | 0x2000;

/// What a socket with a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Listening,
    /// The listener's end of a connection, which has the listener's path.
    Accepted,
}

/// The role and the path of a socket; `None` for one without.
pub(crate) fn parse(info: &[u8; SOCKET_INFO_LEN]) -> Option<(Role, &[u8])> {
    if number(info, KIND) != UNIX || number(info, TYPE) != STREAM {
        return None;
    }
    let path = info[PATH..PATH + PATH_LEN].split(|byte| *byte == 0).next().unwrap_or_default();
    if path.is_empty() {
        return None;
    }
    if half(info, OPTIONS) & ACCEPTS != 0 {
        Some((Role::Listening, path))
    } else if half(info, STATE) & HAS_BEEN_CONNECTED != 0 {
        Some((Role::Accepted, path))
    } else {
        None
    }
}

fn number(info: &[u8; SOCKET_INFO_LEN], at: usize) -> i32 {
    i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]])
}

fn half(info: &[u8; SOCKET_INFO_LEN], at: usize) -> u16 {
    u16::from_ne_bytes([info[at], info[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(kind: i32, socket_type: i32, options: u16, state: u16, path: &[u8]) -> [u8; SOCKET_INFO_LEN] {
        let mut info = [0; SOCKET_INFO_LEN];
        info[KIND..KIND + 4].copy_from_slice(&kind.to_ne_bytes());
        info[TYPE..TYPE + 4].copy_from_slice(&socket_type.to_ne_bytes());
        info[OPTIONS..OPTIONS + 2].copy_from_slice(&options.to_ne_bytes());
        info[STATE..STATE + 2].copy_from_slice(&state.to_ne_bytes());
        info[PATH..PATH + path.len()].copy_from_slice(path);
        info
    }

    #[test]
    fn a_stream_socket_with_a_path_listens_or_serves() {
        let non_blocking = 0x0100;
        let cases = [
            (ACCEPTS, non_blocking, Some(Role::Listening)),
            (0, 0x0002 | non_blocking, Some(Role::Accepted)),
            (0, 0x0010 | 0x0020, Some(Role::Accepted)),
            (0, 0x2000, Some(Role::Accepted)),
            (0, non_blocking, None),
        ];
        for (options, state, role) in cases {
            let info = socket(UNIX, STREAM, options, state, b"/tmp/a b");
            assert_eq!(parse(&info), role.map(|role| (role, &b"/tmp/a b"[..])), "{options} {state}");
        }
    }

    #[test]
    fn other_sockets_have_no_role() {
        for (kind, socket_type, path) in
            [(1, STREAM, &b"/x"[..]), (2, STREAM, b"/x"), (UNIX, 2, b"/x"), (UNIX, STREAM, b"")]
        {
            assert_eq!(parse(&socket(kind, socket_type, 0, 0x0002, path)), None);
        }
    }

    #[test]
    fn the_longest_path_is_taken_whole() {
        let path = [b'x'; PATH_LEN];
        assert_eq!(parse(&socket(UNIX, STREAM, 0, 0x0002, &path)), Some((Role::Accepted, &path[..])));
    }
}
