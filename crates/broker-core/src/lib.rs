#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod admission;
pub mod backends;
pub mod broker;
pub mod entropy;
mod events;
pub mod handoff;
pub mod hello;
pub mod metrics;
pub mod services;
pub mod time;
mod timers;

pub use events::{HELLO_EVENT_WINDOW, HELLO_EVENTS_PER_WINDOW, RECENT_EVENTS};
