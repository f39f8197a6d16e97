#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod activation;
pub mod descriptor;
pub mod detach;
pub mod endpoint;
pub mod fd_passing;
pub mod files;
pub mod frame_io;
pub mod identity;
pub mod limits;
pub mod listener;
pub mod lock;
pub mod memory;
#[cfg(feature = "tokio")]
pub mod passing;
pub mod peer;
pub mod private_dir;
pub mod probe;
#[cfg(feature = "tokio")]
pub mod process;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod service_manager;
#[cfg(feature = "tokio")]
pub mod stop_requests;
pub mod stream;
#[cfg(feature = "tokio")]
pub mod succession;
#[cfg(feature = "tokio")]
mod sync;
#[allow(unsafe_code)]
mod sys;
mod unsupported;

pub use unsupported::Unsupported;
