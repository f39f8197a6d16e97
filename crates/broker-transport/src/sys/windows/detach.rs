//! Process creation flags (CreateProcess).
//!
//! The standard library asks for handles to be inherited whenever it passes standard input and output on, so
//! a handle that somebody has marked as inheritable is; those that it makes itself are not marked.

use std::os::windows::process::CommandExt;
use std::process::Command;

/// `DETACHED_PROCESS` and `CREATE_NEW_PROCESS_GROUP` of `winbase.h`.
const FLAGS: u32 = 0x8 | 0x200;

pub(crate) fn isolate(command: &mut Command) -> &mut Command {
    command.creation_flags(FLAGS)
}
