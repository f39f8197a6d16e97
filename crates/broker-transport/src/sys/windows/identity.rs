//! Identity: still missing (the user's SID, above all).

pub(crate) use super::super::no_identity::{
    boot_id, hostname, machine_id, process_executable, process_executable_file, process_start_time,
    user_identity_text,
};

/// `ERROR_INVALID_PARAMETER`: what opening a process that is not there fails with.
pub(crate) const ESRCH: i32 = 87;

/// There are no numeric users.
pub(crate) fn effective_uid() -> u32 {
    0
}

/// Unknown, and therefore assumed: who runs a service on it has to say that it is meant.
pub(crate) fn is_privileged() -> bool {
    true
}
