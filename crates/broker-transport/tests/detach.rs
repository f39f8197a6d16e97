//! Processes that outlive the one that starts them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end at any surprise")]

use std::process::Command;

use broker_transport::detach::detached;
use rustix::process::{Pid, getpgid, getpgrp};

#[test]
#[cfg(target_os = "linux")]
fn a_detached_process_inherits_no_descriptor_but_its_three() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    // As they are without close-on-exec.
    rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty()).unwrap();
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).unwrap();
    let mut child = detached(Command::new("/bin/sleep").arg("60")).spawn().unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
    let mut open: Vec<_> = open.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    open.sort();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(open, ["0", "1", "2"]);
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
