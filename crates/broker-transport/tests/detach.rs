//! Processes that outlive the one that starts them.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end at any surprise")]

mod common;

use std::io::Read;
use std::process::Stdio;

use common::helper_command;

#[test]
fn a_detached_process_does_not_keep_the_output_of_its_starter_open() {
    let mut starter = helper_command("detach sleep; exit 0").stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    // Its end is the point: the sleeping process lives on.
    starter.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(starter.wait().unwrap().success());
    let pid = said.lines().find_map(|line| line.strip_prefix("pid ")).unwrap();
    end(pid.parse().unwrap());
}

/// Ends a process that lives.
fn end(pid: u32) {
    use broker_transport::process::{ProcessWatch, StopSignal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let watch = ProcessWatch::open(pid).unwrap();
        assert!(!watch.is_dead().unwrap());
        watch.signal(StopSignal::Kill).unwrap();
        watch.died().await.unwrap();
    });
}

#[cfg(unix)]
mod unix {
    use std::process::Command;

    use broker_transport::detach::detached;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, getpgid, getpgrp};

    #[test]
    fn a_detached_process_inherits_no_descriptor() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        // As it is without close-on-exec.
        rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).unwrap();
        let mut child = detached(Command::new("/bin/sleep").arg("60")).spawn().unwrap();
        drop(writer);
        let mut waited = [PollFd::new(&reader, PollFlags::IN)];
        let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
        let ended = poll(&mut waited, Some(&patience)).unwrap();
        let is_running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ended == 1 && is_running, "the pipe has no writer left while the process lives");
    }

    #[test]
    fn a_detached_process_is_in_a_group_of_its_own() {
        let mut child = detached(Command::new("/bin/sleep").arg("60")).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let group = getpgid(Some(pid)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(group, pid);
        assert_ne!(group, getpgrp());
        assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
    }
}
