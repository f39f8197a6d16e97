//! Systems whose processes cannot take rights away from single threads of theirs.

use crate::sandbox::{InForce, Sandbox, SandboxError};
use crate::unsupported::Unsupported;

pub(crate) const fn forbid_new_privileges() -> std::io::Result<()> {
    Ok(())
}

pub(crate) fn enter(_: &Sandbox) -> Result<InForce, SandboxError> {
    Err(Unsupported { operation: "a sandbox", platform: std::env::consts::OS }.into())
}
