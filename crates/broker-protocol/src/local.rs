//! Messages of this implementation's own, generated from `proto/` by `cargo xtask codegen`.
//!
//! They never go to a peer that is not of this implementation; what does is in [`wire`](crate::wire).
//! These structs hold whatever was read: who reads them checks each field.

#![allow(clippy::all, clippy::pedantic, missing_docs, unused_qualifications)]

include!("../generated/local_service_broker.v1.rs");
