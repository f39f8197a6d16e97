//! Every bound of the protocol, by name (protocol.md, "Framing").
//!
//! All are inclusive: a value equal to the limit is legal, one more is not.

/// Longest body of any frame, in bytes.
pub const MAX_FRAME_BODY: usize = 16 * 1024 * 1024;

/// Longest body of the first frame on a connection to the broker's own socket, in bytes.
pub const MAX_HELLO_BODY: usize = 64 * 1024;

/// Longest service or instance name, in bytes.
pub const MAX_NAME: usize = 64;

/// Longest version text (`wanted_version`, `client_lib_version`), in bytes.
pub const MAX_VERSION: usize = 64;

/// Longest `client_lib_name`, in bytes.
pub const MAX_CLIENT_LIB: usize = 64;

/// Longest `client_version`, in bytes.
pub const MAX_CLIENT_VERSION: usize = 128;

/// Length of an identity probe's nonce, in bytes.
pub const PROBE_NONCE: usize = 32;

/// Longest encoding of a `LifecycleEvent` together with its length prefix, in bytes, so that one
/// append write is atomic.
pub const MAX_EVENT: usize = 512;

/// Longest service definition file, in bytes.
pub const MAX_SERVICE_DEFINITION: usize = 1024 * 1024;

/// Deepest nesting of protobuf groups and messages: prost's default, never lifted.
pub const MAX_RECURSION: u32 = 100;
