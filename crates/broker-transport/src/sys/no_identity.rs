//! Identity where this crate cannot find it out yet.

use std::path::PathBuf;

use crate::identity::IdentityError;
use crate::unsupported::Unsupported;

pub(crate) fn boot_id() -> Result<String, IdentityError> {
    unsupported("reading the boot id")
}

pub(crate) fn machine_id() -> Option<String> {
    None
}

pub(crate) fn user_identity_text() -> Result<String, IdentityError> {
    unsupported("identifying the user on this machine")
}

pub(crate) fn hostname() -> Result<String, IdentityError> {
    unsupported("reading the host name")
}

pub(crate) fn process_start_time(_pid: u32) -> Result<u64, IdentityError> {
    unsupported("reading a process's start time")
}

pub(crate) fn process_executable(_pid: u32) -> Result<PathBuf, IdentityError> {
    unsupported("finding a process's executable")
}

pub(crate) fn process_executable_file(_pid: u32) -> Result<PathBuf, IdentityError> {
    unsupported("finding a process's executable")
}

fn unsupported<T>(operation: &'static str) -> Result<T, IdentityError> {
    Err(Unsupported { operation, platform: std::env::consts::OS }.into())
}
