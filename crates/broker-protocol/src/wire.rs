//! The wire messages, generated from `proto/` by `cargo xtask codegen`.
//!
//! These structs hold whatever the peer sent. Code past the edge of the wire works with the parsed
//! types beside this module ([`ServiceName`](crate::ServiceName), [`Version`](crate::Version), …).
//! Messages that can carry a token or a payload print it as `<redacted>` in their `Debug`.

#![allow(clippy::all, clippy::pedantic, missing_docs, unused_qualifications)]

include!("../generated/running_process.broker.v1.rs");
