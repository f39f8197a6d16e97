//! The user by POSIX; the rest is still missing.

pub(crate) use super::super::no_identity::{
    boot_id, hostname, machine_id, process_executable, process_executable_file, process_start_time,
    user_identity_text,
};

pub(crate) const ESRCH: i32 = libc::ESRCH;

pub(crate) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

pub(crate) fn current_user_key() -> u64 {
    effective_uid().into()
}

pub(crate) fn is_privileged() -> bool {
    rustix::process::geteuid().is_root()
}
