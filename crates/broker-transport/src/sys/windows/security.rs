//! Security descriptors for what is made here (SDDL).
//!
//! Invariant: what is made with one is open to this process's user, and to nobody else.

use std::io;
use std::mem::size_of;
use std::ptr::null_mut;

use windows_sys::Win32::Security::Authorization::{
    ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
};
use windows_sys::Win32::Security::SECURITY_ATTRIBUTES;

use super::calls::{Local, done, wide};
use super::identity;

/// A security descriptor.
pub(super) struct Security(Local);

// SAFETY: it is not changed after it was made.
unsafe impl Send for Security {}
// SAFETY: as above.
unsafe impl Sync for Security {}

impl Security {
    /// All rights for this process's user, and none that are inherited from above.
    pub(super) fn own() -> io::Result<Self> {
        Self::parse(&format!("D:P(A;;GA;;;{})", identity::own_sid()?))
    }

    /// What a text of the security descriptor definition language says.
    pub(super) fn parse(sddl: &str) -> io::Result<Self> {
        let sddl = wide(sddl)?;
        let mut descriptor = null_mut();
        // SAFETY: the text ends with a NUL, and the result has room; its size is not wanted.
        done(unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                sddl.as_ptr(),
                SDDL_REVISION_1,
                &raw mut descriptor,
                null_mut(),
            )
        })?;
        Ok(Self(Local(descriptor)))
    }

    /// For a call that makes something, which is not inherited by other processes. They are good for as long
    /// as this value is.
    pub(super) const fn attributes(&self) -> SECURITY_ATTRIBUTES {
        SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
            lpSecurityDescriptor: self.0.0,
            bInheritHandle: 0,
        }
    }
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Security")
    }
}
