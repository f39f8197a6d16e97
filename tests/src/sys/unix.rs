//! Sockets, descriptors and signals.

use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;

use crate::PATIENCE;

pub use rustix::process::Signal;

/// A connection that knows only bytes.
pub type Stream = UnixStream;

pub(crate) fn connect(path: &Path) -> io::Result<Stream> {
    UnixStream::connect(path)
}

pub(crate) fn patient(stream: &Stream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

pub(crate) fn finish(stream: &Stream) {
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Whether the peer still holds its end, and has said nothing.
pub(crate) fn is_open(stream: &Stream) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&now)).unwrap() == 0
}

/// A listener of a peer that knows only bytes.
pub struct Listener(UnixListener);

impl Listener {
    /// Listens there.
    pub fn bind(path: &Path) -> Self {
        Self(UnixListener::bind(path).unwrap())
    }

    /// The next connection.
    pub fn accept(&self) -> Stream {
        wait_readable(&self.0);
        let stream = self.next();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The next connection, however long that takes, and however long its peer is silent.
    pub(crate) fn next(&self) -> Stream {
        self.0.accept().unwrap().0
    }

    /// The next connection on which something is said: who dials may find that there is nothing to say.
    pub(crate) fn accept_talking(&self) -> Stream {
        loop {
            let stream = self.accept();
            wait_readable(&stream);
            if rustix::net::recv(&stream, &mut [0; 1], RecvFlags::PEEK).is_ok_and(|(_, got)| got > 0) {
                return stream;
            }
        }
    }

    /// Takes its name away.
    pub(crate) fn close(&self, path: &Path) {
        std::fs::remove_file(path).unwrap();
    }

    /// Whether nobody waits to be accepted at this moment.
    pub fn is_left_alone(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&now)).unwrap() == 0
    }
}

/// Receives a descriptor and the bytes it came with, and nothing behind them.
pub(crate) fn receive_carried(stream: &Stream) -> Option<(Stream, Vec<u8>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 4096];
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty());
    let got = got.unwrap().bytes;
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    let [client] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
    assert!(!rustix::fs::fcntl_getfl(&client).unwrap().contains(OFlags::NONBLOCK), "as from accept()");
    let client = UnixStream::from(client);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    Some((client, bytes[..got].to_vec()))
}

/// A descriptor comes with its message, and by no value.
pub(crate) fn passed_as(handle_value: u64) -> Stream {
    panic!("no descriptor came, but the value {handle_value}")
}

fn wait_readable(descriptor: &impl AsFd) {
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let came = poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(came, 1, "nothing came");
}

/// Short, because a socket's path has at most 107 bytes.
pub(crate) fn home() -> TempDir {
    tempfile::Builder::new().prefix("b").rand_bytes(8).tempdir_in("/tmp").unwrap()
}

/// An endpoint that belongs to a home.
pub(crate) fn endpoint(home: &Path, below: &str) -> PathBuf {
    home.join(below)
}

/// The lock of an endpoint that belongs to a home.
pub(crate) fn lock(_home: &Path, endpoint: &Path) -> PathBuf {
    PathBuf::from(format!("{}.lock", endpoint.display()))
}

/// A broker's own state below a home.
pub(crate) fn state_dir(home: &Path) -> PathBuf {
    home.join(".local/state/running-process/broker")
}

pub(crate) fn environment(home: &Path) -> Vec<(&'static str, OsString)> {
    vec![
        ("PATH", "/usr/bin:/bin".into()),
        ("HOME", home.into()),
        ("XDG_RUNTIME_DIR", home.join("xdg").into()),
    ]
}

/// Sets a command up so that it can be asked to end.
pub(crate) const fn spawned(command: &mut Command) -> &mut Command {
    command
}

/// A user's definitions below a home.
pub(crate) fn definitions(home: &Path) -> PathBuf {
    home.join(".config/running-process/services")
}

/// How many sockets a process has open. Not its files: that of its events a broker opens when there is one.
/// None where there is no list of them.
pub(crate) fn open_connections(number: u32) -> usize {
    if cfg!(not(target_os = "linux")) {
        return 0;
    }
    let listed = std::fs::read_dir(format!("/proc/{number}/fd")).unwrap();
    // One that is closed meanwhile is none.
    let links = listed.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

pub(crate) fn signal(number: u32, signal: Signal) -> io::Result<()> {
    Ok(kill_process(pid(number), signal)?)
}

pub(crate) const fn is_wine() -> bool {
    false
}

pub(crate) fn kill(number: u32) -> io::Result<()> {
    signal(number, Signal::KILL)
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}

pub(crate) fn exists(number: u32) -> bool {
    rustix::process::test_kill_process(pid(number)).is_ok()
}

#[cfg(target_os = "linux")]
pub(crate) fn has_died(number: u32) -> bool {
    use rustix::process::{PidfdFlags, pidfd_open};
    let Ok(pidfd) = pidfd_open(pid(number), PidfdFlags::empty()) else { return true };
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&patience)).unwrap() > 0
}

/// A child of this process that nobody waits for is still there after its death, so it is looked for among those.
#[cfg(not(target_os = "linux"))]
pub(crate) fn has_died(number: u32) -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let deadline = std::time::Instant::now() + PATIENCE;
    while exists(number) {
        if waitid(WaitId::Pid(pid(number)), options).is_ok_and(|status| status.is_some()) {
            return true;
        }
        if std::time::Instant::now() >= deadline {
            return false;
        }
        std::thread::yield_now();
    }
    true
}
