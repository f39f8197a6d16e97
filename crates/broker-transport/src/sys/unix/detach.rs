//! Process groups (setpgid(2)), and descriptors that are not inherited.

use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::c_int;

use super::super::os;
use super::close_from::close_from;

pub(crate) fn isolate(command: &mut Command) -> &mut Command {
    let end = descriptor_end();
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

/// A number that no open descriptor of this process reaches.
fn descriptor_end() -> c_int {
    let numbers = std::fs::read_dir(os::OWN_DESCRIPTORS).into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<c_int>().ok());
    numbers.max().map_or(0, |last| last + 1)
}
