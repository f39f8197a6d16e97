//! Processes that outlive the one that starts them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end at any surprise")]

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
