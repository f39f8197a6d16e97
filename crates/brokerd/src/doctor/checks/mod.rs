//! The checks, by what they look at. Each is a function from the facts to what it finds.

pub(super) mod backends;
pub(super) mod broker;
pub(super) mod config;
pub(super) mod definitions;
pub(super) mod dirs;
pub(super) mod endpoint;
pub(super) mod env;
pub(super) mod executables;
pub(super) mod manifests;
pub(super) mod redefine;
pub(super) mod system;
pub(super) mod systemd;
pub(super) mod units;
