//! Capability bits (protocol.md, "Capabilities" and "Extensions").
//!
//! A bit is in force only where both sides set it. Bits this crate does not know are kept, because
//! they belong to somebody else's extension.

use bitflags::bitflags;

bitflags! {
    /// What one side of a conversation can do.
    ///
    /// ```
    /// use broker_protocol::Capabilities;
    ///
    /// let client = Capabilities::from_bits_retain(0x8000_0000_0000_0001);
    /// let server = Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA;
    /// assert_eq!(client & server, Capabilities::HANDLE_PASSING);
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Capabilities: u64 {
        /// The broker may pass the client's open connection to the backend.
        const HANDLE_PASSING = 1 << 0;
        /// Extension: the client may write its first backend request right behind the Hello.
        const EARLY_DATA = 1 << 32;
        const _ = !0;
    }
}
