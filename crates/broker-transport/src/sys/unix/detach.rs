//! Process groups (setpgid(2)), and descriptors that are not inherited.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::super::os;
use super::close_from::{close_from, listed_end};

pub(crate) fn isolate(command: &mut Command) -> &mut Command {
    let end = listed_end(Path::new(os::OWN_DESCRIPTORS));
    command.process_group(0);
    // SAFETY: the closure runs between fork and exec and calls only what is async-signal-safe. Standard input
    // and output are in place by then, and the pipe on which a failed exec is told stays open until it.
    unsafe {
        command.pre_exec(move || {
            close_from(3, end);
            Ok(())
        })
    }
}
