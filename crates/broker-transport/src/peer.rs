//! Who is at the other end of a connection, as the kernel says (behaviour.md, section 1).
//!
//! Nothing here comes from the peer's own bytes. What a credential permits is decided elsewhere.
//! Invariant: the user is that of the moment the peer connected; it does not follow a socket that was
//! passed on, nor a process that changed its user since. So is the process id, but for macOS, which names
//! the process that has used the socket last.

use std::num::NonZeroU32;

/// A user, opaque: the user id on Unix, a number that stands for the security id on Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserId(u64);

impl UserId {
    /// The user with this Unix user id.
    pub const fn from_uid(uid: u32) -> Self {
        Self(uid as u64)
    }

    /// The user with this [key](Self::key).
    pub const fn from_key(key: u64) -> Self {
        Self(key)
    }

    /// The user this process runs as (the effective one on Unix).
    pub fn current() -> Self {
        Self(crate::identity::current_user_key())
    }

    /// Whether this is the user this process runs as.
    pub fn is_self(self) -> bool {
        self == Self::current()
    }

    /// A number to tell users apart by, for rate limiting and accounting.
    pub const fn key(self) -> u64 {
        self.0
    }
}

/// The kernel's word on a peer (`SO_PEERCRED` on Linux: unix(7); `getpeereid` on macOS; on Windows a client's
/// token, and the owner of a server's pipe).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerCredentials {
    /// Its user.
    pub user: UserId,
    /// Its group id, where there is one.
    pub gid: Option<u32>,
    /// Its process id; `None` where the kernel gives none, as for a peer in another pid namespace.
    pub pid: Option<NonZeroU32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_is_self() {
        let own = UserId::current();
        assert!(own.is_self());
        assert!(!UserId(own.key() ^ 1).is_self());
    }
}
