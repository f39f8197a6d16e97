//! Process groups (setpgid(2)).

use std::os::unix::process::CommandExt;
use std::process::Command;

pub(crate) fn group(command: &mut Command) -> &mut Command {
    command.process_group(0)
}
