//! Process creation flags (CreateProcessW), and handles that are not inherited.
//!
//! The standard library asks for handles to be inherited whenever it starts a process, so one that somebody has
//! marked as inheritable is. Its own are not, but those that this process was given as its input and output
//! usually are, being inherited themselves: whoever reads them would wait for the other process's end. So they
//! lose the mark; the standard library passes copies where it is told to.

use std::os::windows::process::CommandExt;
use std::process::Command;
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};
use windows_sys::Win32::System::Console::{
    GetStdHandle, STD_ERROR_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE,
};
use windows_sys::Win32::System::JobObjects::{
    JOB_OBJECT_LIMIT_BREAKAWAY_OK, JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation,
    QueryInformationJobObject,
};
use windows_sys::Win32::System::Threading::{
    CREATE_BREAKAWAY_FROM_JOB, CREATE_NEW_PROCESS_GROUP, DETACHED_PROCESS, PROCESS_CREATION_FLAGS,
};

pub(crate) fn isolate(command: &mut Command) -> &mut Command {
    for number in [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        // SAFETY: plain calls; where there is no such handle, or it is a console's, the second one fails and
        // nothing has to be done.
        unsafe { SetHandleInformation(GetStdHandle(number), HANDLE_FLAG_INHERIT, 0) };
    }
    command.creation_flags(DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP | breakaway())
}

/// Out of the job that this process is in, which may end with it, where that job permits it: asking one that
/// does not fails. In none, the question fails.
fn breakaway() -> PROCESS_CREATION_FLAGS {
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    // SAFETY: without a job's handle the own one is asked about, and the structure is the one of this class.
    let is_known = unsafe {
        QueryInformationJobObject(
            null_mut(),
            JobObjectExtendedLimitInformation,
            (&raw mut limits).cast(),
            size_of_val(&limits) as u32,
            null_mut(),
        )
    };
    let is_permitted = limits.BasicLimitInformation.LimitFlags & JOB_OBJECT_LIMIT_BREAKAWAY_OK != 0;
    if is_known != 0 && is_permitted { CREATE_BREAKAWAY_FROM_JOB } else { 0 }
}
