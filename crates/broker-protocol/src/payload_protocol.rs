//! The lanes of `Frame.payload_protocol` (protocol.md, "Payload protocols").
//!
//! Invariant: no two named lanes share an id; the compiler checks it below.

use std::fmt::{self, Display, Formatter};

/// Which lane a frame's payload belongs to.
///
/// ```
/// use broker_protocol::PayloadProtocol;
///
/// assert!(PayloadProtocol::ADMIN.is_first_party());
/// assert!(PayloadProtocol::new(0x7A63).is_registered_consumer());
/// assert_eq!(PayloadProtocol::new(0x7A63).name(), Some("zccache"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayloadProtocol(u32);

/// Every lane that has a name, with that name.
const NAMED: [(PayloadProtocol, &str); 9] = [
    (PayloadProtocol::CONTROL, "control"),
    (PayloadProtocol::ADMIN, "admin"),
    (PayloadProtocol::IDENTITY_PROBE, "identity-probe"),
    (PayloadProtocol::HANDOFF, "handoff"),
    (PayloadProtocol::SESSION_STREAM, "session-stream"),
    (PayloadProtocol::ZCCACHE, "zccache"),
    (PayloadProtocol::CLUD, "clud"),
    (PayloadProtocol::FBUILD, "fbuild"),
    (PayloadProtocol::BACKEND_CONTROL, "backend-control"),
];

const LAST_FIRST_PARTY: u32 = 0x6FFF;
const FIRST_CONSUMER: u32 = 0x7000;
const LAST_CONSUMER: u32 = 0x7EFF;
const FIRST_PRIVATE_USE: u32 = 0xF000;
const LAST_PRIVATE_USE: u32 = 0xFFFF;

impl PayloadProtocol {
    /// `Hello` and `HelloReply`.
    pub const CONTROL: Self = Self(0x0000);
    /// `AdminRequest` and `AdminReply`.
    pub const ADMIN: Self = Self(0xAD01);
    /// A backend's identity probe.
    pub const IDENTITY_PROBE: Self = Self(0xB232);
    /// `HandoffOffer`, `HandoffAck` and the event relayed to the client.
    pub const HANDOFF: Self = Self(0xD0FF);
    /// Reserved for the session stream of a later generation; never used here.
    pub const SESSION_STREAM: Self = Self(0x5350);
    /// zccache's own lane.
    pub const ZCCACHE: Self = Self(0x7A63);
    /// clud's own lane.
    pub const CLUD: Self = Self(0x7C4C);
    /// fbuild's own lane.
    pub const FBUILD: Self = Self(0x7EB1);

    /// Extension: what a broker and a backend say on a control connection. From the range for private
    /// use, as no service's own lane is spoken there or on a broker's socket.
    pub const BACKEND_CONTROL: Self = Self(0xFBC0);

    /// The lane with this id. Every `u32` is one; whether anybody speaks it is another question.
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// The id on the wire.
    pub const fn id(self) -> u32 {
        self.0
    }

    /// The lane's name; `None` where the table has none.
    pub fn name(self) -> Option<&'static str> {
        NAMED.iter().find(|(lane, _)| *lane == self).map(|(_, name)| *name)
    }

    /// Whether the id belongs to the protocol itself: 0x0000 to 0x6FFF and the lanes of the broker
    /// that lie above (admin, identity probe, handoff).
    pub const fn is_first_party(self) -> bool {
        self.0 <= LAST_FIRST_PARTY
            || self.0 == Self::ADMIN.0
            || self.0 == Self::IDENTITY_PROBE.0
            || self.0 == Self::HANDOFF.0
    }

    /// Whether the id lies in the range that consumers register: 0x7000 to 0x7EFF.
    pub const fn is_registered_consumer(self) -> bool {
        self.0 >= FIRST_CONSUMER && self.0 <= LAST_CONSUMER
    }

    /// Whether the id is free for private use: 0xF000 to 0xFFFF.
    pub const fn is_private_use(self) -> bool {
        self.0 >= FIRST_PRIVATE_USE && self.0 <= LAST_PRIVATE_USE
    }
}

impl Display for PayloadProtocol {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{:#06x} ({name})", self.0),
            None => write!(f, "{:#06x}", self.0),
        }
    }
}

/// A collision, or a lane in the wrong range, does not compile.
const _: () = {
    let mut first = 0;
    while first < NAMED.len() {
        let mut second = first + 1;
        while second < NAMED.len() {
            assert!(NAMED[first].0.0 != NAMED[second].0.0, "two lanes share one id");
            second += 1;
        }
        first += 1;
    }
    assert!(PayloadProtocol::ZCCACHE.is_registered_consumer());
    assert!(PayloadProtocol::CLUD.is_registered_consumer());
    assert!(PayloadProtocol::FBUILD.is_registered_consumer());
    assert!(PayloadProtocol::BACKEND_CONTROL.is_private_use());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_end_where_the_protocol_says() {
        assert!(PayloadProtocol::new(0x6FFF).is_first_party());
        assert!(!PayloadProtocol::new(0x7000).is_first_party());
        assert!(!PayloadProtocol::new(0x6FFF).is_registered_consumer());
        assert!(PayloadProtocol::new(0x7000).is_registered_consumer());
        assert!(PayloadProtocol::new(0x7EFF).is_registered_consumer());
        assert!(!PayloadProtocol::new(0x7F00).is_registered_consumer());
        assert!(!PayloadProtocol::new(0xEFFF).is_private_use());
        assert!(PayloadProtocol::new(0xF000).is_private_use());
        assert!(PayloadProtocol::new(0xFFFF).is_private_use());
        assert!(!PayloadProtocol::new(0x1_0000).is_private_use());
    }

    #[test]
    fn first_party_lanes_above_the_range_are_first_party() {
        for lane in [PayloadProtocol::ADMIN, PayloadProtocol::IDENTITY_PROBE, PayloadProtocol::HANDOFF] {
            assert!(lane.is_first_party() && !lane.is_registered_consumer(), "{lane}");
        }
        assert!(!PayloadProtocol::new(0xAD02).is_first_party());
    }
}
