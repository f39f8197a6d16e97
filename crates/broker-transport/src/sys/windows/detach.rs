//! Process creation flags (CreateProcess). Handles are inherited only where they are marked for it.

use std::os::windows::process::CommandExt;
use std::process::Command;

/// `DETACHED_PROCESS` and `CREATE_NEW_PROCESS_GROUP` of `winbase.h`.
const FLAGS: u32 = 0x8 | 0x200;

pub(crate) fn isolate(command: &mut Command) -> &mut Command {
    command.creation_flags(FLAGS)
}
