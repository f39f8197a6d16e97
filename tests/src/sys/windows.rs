//! Pipes, handles and console events.
//!
//! The bytes are written by hand here, too; connections with deadlines are the transport's.

use std::ffi::OsString;
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle};
use std::os::windows::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use broker_transport::listener::BindOptions;
use broker_transport::stream::BlockingStream;
use tempfile::TempDir;
use tokio::sync::oneshot;
use windows_sys::Win32::Foundation::WAIT_TIMEOUT;
use windows_sys::Win32::System::Console::{
    AttachConsole, CTRL_BREAK_EVENT, FreeConsole, GenerateConsoleCtrlEvent, SetConsoleCtrlHandler,
};
use windows_sys::Win32::System::Pipes::PeekNamedPipe;
use windows_sys::Win32::System::Threading::{
    CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW, GetProcessHandleCount, OpenProcess,
    PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE, PROCESS_TERMINATE, TerminateProcess,
    WaitForSingleObject,
};

use crate::PATIENCE;

/// How a process is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(());

impl Signal {
    /// Ctrl+Break: it may clean up.
    pub const TERM: Self = Self(());
}

/// A connection that knows only bytes.
pub type Stream = BlockingStream;

pub(crate) fn connect(path: &Path) -> io::Result<Stream> {
    BlockingStream::connect(path, Some(PATIENCE)).map_err(|error| error.source)
}

pub(crate) fn patient(stream: &Stream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

/// Whether the peer still holds its end, and has said nothing.
pub(crate) fn is_open(stream: &Stream) -> bool {
    peek(stream) == Some(0)
}

/// How many bytes there are; nothing once the peer has closed its end.
fn peek(stream: &Stream) -> Option<u32> {
    let mut available = 0;
    // SAFETY: the handle is open, the count has room, and what is not wanted may be null.
    let is_open = unsafe {
        PeekNamedPipe(
            stream.as_handle().as_raw_handle(),
            null_mut(),
            0,
            null_mut(),
            &raw mut available,
            null_mut(),
        )
    };
    (is_open != 0).then_some(available)
}

/// A listener of a peer that knows only bytes.
pub struct Listener {
    accepted: Mutex<Receiver<Stream>>,
    /// Ends the thread that accepts, and waits for it.
    end: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Listener {
    /// Listens there.
    pub fn bind(path: &Path) -> Self {
        let (sender, accepted) = channel();
        let (end, mut ended) = oneshot::channel();
        let path = path.to_owned();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let options = BindOptions::default();
                let listener = broker_transport::listener::Listener::bind(&path, &options).unwrap();
                tell.send(()).unwrap();
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted.unwrap(),
                        _ = &mut ended => break,
                    };
                    if sender.send(accepted.stream.into_blocking().unwrap()).is_err() {
                        break;
                    }
                }
            });
        });
        told.recv_timeout(PATIENCE).unwrap();
        Self { accepted: Mutex::new(accepted), end: Mutex::new(Some((end, thread))) }
    }

    /// The next connection, however long that takes, and however long its peer is silent.
    pub(crate) fn next(&self) -> Stream {
        self.accepted.lock().unwrap().recv().unwrap()
    }

    /// The next connection.
    pub fn accept(&self) -> Stream {
        let stream = self.accepted.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        patient(&stream);
        stream
    }

    /// The next connection on which something is said: who dials may find that there is nothing to say.
    pub(crate) fn accept_talking(&self) -> Stream {
        loop {
            let stream = self.accept();
            if says_something(&stream) {
                return stream;
            }
        }
    }

    /// Takes its name away.
    pub(crate) fn close(&self, _path: &Path) {
        let (end, thread) = self.end.lock().unwrap().take().unwrap();
        end.send(()).unwrap();
        thread.join().unwrap();
    }

    /// Whether nobody waits to be accepted at this moment.
    pub fn is_left_alone(&self) -> bool {
        self.accepted.lock().unwrap().try_recv().is_err()
    }
}

/// Waits for the first byte, or for the end without one.
fn says_something(stream: &Stream) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match peek(stream) {
            None => return false,
            Some(0) => assert!(Instant::now() < deadline, "nothing came"),
            Some(_) => return true,
        }
        std::thread::yield_now();
    }
}

/// Nothing comes with a message here.
pub(crate) const fn receive_carried(_stream: &Stream) -> Option<(Stream, Vec<u8>)> {
    None
}

/// The connection whose handle was put into this process.
pub(crate) fn passed_as(handle_value: u64) -> Stream {
    let handle = std::ptr::with_exposed_provenance_mut(usize::try_from(handle_value).unwrap());
    // SAFETY: the broker has made the handle for this process, and tells of it once.
    let stream = Stream::from_owned_fd(unsafe { OwnedHandle::from_raw_handle(handle) }).unwrap();
    patient(&stream);
    stream
}

pub(crate) fn home() -> TempDir {
    tempfile::Builder::new().prefix("b").rand_bytes(8).tempdir().unwrap()
}

/// An endpoint that belongs to a home: a pipe lies in no directory, so its name says whose it is.
pub(crate) fn endpoint(home: &Path, below: &str) -> PathBuf {
    let home = home.file_name().unwrap().to_str().unwrap();
    PathBuf::from(format!("rpb-test-{home}-{}", below.replace('/', "-")))
}

/// The lock of an endpoint that belongs to a home.
pub(crate) fn lock(home: &Path, endpoint: &Path) -> PathBuf {
    home.join(r"local\running-process\run").join(format!("{}.lock", endpoint.display()))
}

/// A broker's own state below a home.
pub(crate) fn state_dir(home: &Path) -> PathBuf {
    home.join(r"local\running-process\broker")
}

/// A user's definitions below a home.
pub(crate) fn definitions(home: &Path) -> PathBuf {
    home.join(r"roaming\running-process\services")
}

pub(crate) fn environment(home: &Path) -> Vec<(&'static str, OsString)> {
    let mut environment = vec![
        ("USERPROFILE", home.into()),
        ("APPDATA", home.join("roaming").into()),
        ("LOCALAPPDATA", home.join("local").into()),
    ];
    // Without these a process does not begin.
    for name in ["SystemRoot", "SystemDrive", "PATH", "TEMP", "TMP"] {
        environment.extend(std::env::var_os(name).map(|value| (name, value)));
    }
    environment
}

/// Sets a command up so that it can be asked to end: with a hidden console of its own.
pub(crate) fn spawned(command: &mut Command) -> &mut Command {
    command.creation_flags(CREATE_NEW_PROCESS_GROUP | CREATE_NO_WINDOW)
}

/// Not counted: a process's handles are also those of its threads, its events and its runtime, which come
/// and go. That none is left behind is a test of its own.
pub(crate) const fn open_connections(_number: u32) -> usize {
    0
}

/// How many handles a process has open.
pub(crate) fn handles(number: u32) -> u32 {
    let process = open(number, PROCESS_QUERY_LIMITED_INFORMATION).unwrap();
    let mut count = 0;
    // SAFETY: the handle is open, and the count has room.
    done(unsafe { GetProcessHandleCount(process.as_raw_handle(), &raw mut count) }).unwrap();
    count
}

/// Keeps a test from being ended by what it sends.
unsafe extern "system" fn is_for_others(_event: u32) -> i32 {
    1
}

/// Console events reach only who shares the sender's console, so this process goes to the other's for a moment.
pub(crate) fn signal(number: u32, _signal: Signal) -> io::Result<()> {
    static AWAY: Mutex<()> = Mutex::new(());
    let _alone = AWAY.lock();
    // SAFETY: plain calls, and a handler that touches nothing. Output goes to pipes, which stay as they are.
    unsafe {
        done(SetConsoleCtrlHandler(Some(is_for_others), 1))?;
        FreeConsole();
        done(AttachConsole(number))?;
        let sent = done(GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, number));
        FreeConsole();
        sent
    }
}

/// Whether this is Wine, which leaves some things out.
pub(crate) fn is_wine() -> bool {
    Path::new(r"C:\windows\system32\winecfg.exe").exists()
}

pub(crate) fn kill(number: u32) -> io::Result<()> {
    // SAFETY: the handle is open for the call.
    done(unsafe { TerminateProcess(open(number, PROCESS_TERMINATE)?.as_raw_handle(), 1) })
}

pub(crate) fn exists(number: u32) -> bool {
    died_within(number, 0).is_ok_and(|has_died| !has_died)
}

pub(crate) fn has_died(number: u32) -> bool {
    died_within(number, u32::try_from(PATIENCE.as_millis()).unwrap()).unwrap_or(true)
}

fn died_within(number: u32, milliseconds: u32) -> io::Result<bool> {
    let process = open(number, PROCESS_SYNCHRONIZE)?;
    // SAFETY: the handle is open.
    Ok(unsafe { WaitForSingleObject(process.as_raw_handle(), milliseconds) } != WAIT_TIMEOUT)
}

fn open(number: u32, access: u32) -> io::Result<OwnedHandle> {
    // SAFETY: a plain call; the handle is checked before it is owned.
    let handle = unsafe { OpenProcess(access, 0, number) };
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made, and nobody else knows it.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

fn done(outcome: i32) -> io::Result<()> {
    if outcome == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
