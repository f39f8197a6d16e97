//! Who may come in, how often, and what happens when there is no room (behaviour.md 1 and 2).
//!
//! Accounting only: nothing here accepts, reads or closes a connection. Everything is counted per
//! [`PeerKey`], which comes from the kernel, never from what a peer says about itself.
//!
//! Invariant: what one peer does costs at most its own share; a peer that arrives for the first time
//! is never refused for what others did, as long as the tables have room for it, and no table grows
//! with the number of peers that ever came.

mod connections;
mod pressure;
mod quota;
mod rate_limit;
mod rate_limiter;

use std::num::NonZeroU32;

pub use connections::{
    Admission, BUFFERED_PER_PEER, ConnectionKey, ConnectionLimits, Connections, MAX_CONNECTIONS,
};
pub use pressure::{DESCRIPTOR_QUIET_PERIOD, DescriptorPressure};
pub use quota::{OverQuota, Quota};
pub use rate_limit::RateLimit;
pub use rate_limiter::{MAX_PEERS, RateLimiter};

/// Whom something is counted against: the kernel's word for the user and, where it has one, the process.
///
/// Where the kernel gives no pid, all such processes of a user count as one peer; none is exempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerKey {
    user: u64,
    /// 0 where the kernel gave none.
    pid: u32,
}

impl PeerKey {
    /// The process `pid` of `user`. A pid of 0 means what `None` means, as no peer has it.
    pub const fn new(user: u64, pid: Option<u32>) -> Self {
        Self {
            user,
            pid: match pid {
                Some(pid) => pid,
                None => 0,
            },
        }
    }

    /// The user id; where users have no number (Windows), a number that stands for the security id.
    pub const fn user(self) -> u64 {
        self.user
    }

    /// The process id, where the kernel gave one.
    pub const fn pid(self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_users_and_processes_apart() {
        let key = PeerKey::new(1000, Some(42));
        assert_eq!((key.user(), key.pid().map(NonZeroU32::get)), (1000, Some(42)));
        assert_ne!(key, PeerKey::new(1001, Some(42)));
        assert_ne!(key, PeerKey::new(1000, Some(43)));
        assert_ne!(key, PeerKey::new(1000, None));
    }

    #[test]
    fn pid_zero_is_no_pid() {
        assert_eq!(PeerKey::new(1000, Some(0)), PeerKey::new(1000, None));
        assert_eq!(PeerKey::new(1000, Some(0)).pid(), None);
    }

    #[test]
    fn a_key_fits_sixteen_bytes() {
        assert!(size_of::<PeerKey>() <= 16);
    }
}
