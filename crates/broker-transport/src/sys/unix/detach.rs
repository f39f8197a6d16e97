//! Process groups (setpgid(2)), signals as at a program's beginning, descriptors that are not inherited.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::super::os;
use super::close_from::{close_from, listed_end};
use super::signals::{reset_dispositions, unblock_all};

pub(crate) fn isolate(command: &mut Command) -> &mut Command {
    let end = listed_end(Path::new(os::OWN_DESCRIPTORS));
    command.process_group(0);
    // SAFETY: the closure runs between fork and exec and calls only what is async-signal-safe. Standard input
    // and output are in place by then, and the pipe on which a failed exec is told stays open until it.
    unsafe {
        command.pre_exec(move || {
            reset_dispositions();
            close_from(3, end);
            unblock_all();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::mem::zeroed;
    use std::os::unix::process::ExitStatusExt;
    use std::ptr::null_mut;

    use super::*;

    /// What ends a program that sends this signal to itself.
    fn end_by(signal: &str) -> Option<i32> {
        let mut command = Command::new("/bin/sh");
        isolate(command.args(["-c", &format!("kill -{signal} $$")])).status().unwrap().signal()
    }

    #[test]
    fn a_signal_that_is_blocked_or_ignored_here_ends_a_detached_process() {
        // SAFETY: valid sets and no old values; nobody else in this process wants these two signals.
        unsafe {
            let mut blocked: libc::sigset_t = zeroed();
            libc::sigemptyset(&raw mut blocked);
            libc::sigaddset(&raw mut blocked, libc::SIGTERM);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, null_mut());
            libc::signal(libc::SIGUSR2, libc::SIG_IGN);
        }
        assert_eq!(end_by("TERM"), Some(libc::SIGTERM));
        assert_eq!(end_by("USR2"), Some(libc::SIGUSR2));
    }
}
