//! Identity by gethostuuid(2), sysctl(3) and libproc.
//!
//! Where an error names a file elsewhere, it names here what the kernel was asked for.

use std::ffi::{CStr, OsString};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::rules::{start_micros, uuid_text};
use super::sysctl;
use crate::endpoint::identity_text_macos;
use crate::identity::IdentityError;
use crate::unsupported::Unsupported;

pub(crate) const ESRCH: i32 = libc::ESRCH;

/// How long the kernel may take to know the machine's id: it does not know it early during boot.
const MACHINE_ID_PATIENCE: libc::timespec = libc::timespec { tv_sec: 5, tv_nsec: 0 };

/// To find zombies, too (`proc_pidinfo`'s argument for this flavor).
const WITH_ZOMBIES: u64 = 1;

pub(crate) fn boot_id() -> Result<String, IdentityError> {
    text(c"kern.bootsessionuuid", "a boot id")
}

pub(crate) fn machine_id() -> Option<String> {
    platform_uuid().ok()
}

pub(crate) fn user_identity_text() -> Result<String, IdentityError> {
    Ok(identity_text_macos(effective_uid(), &platform_uuid()?))
}

pub(crate) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

pub(crate) fn current_user_key() -> u64 {
    effective_uid().into()
}

pub(crate) fn is_privileged() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn hostname() -> Result<String, IdentityError> {
    text(c"kern.hostname", "a host name")
}

/// In microseconds since the Unix epoch.
pub(crate) fn process_start_time(pid: u32) -> Result<u64, IdentityError> {
    let info = bsd_info(pid).map_err(|source| unreadable(process(pid), source))?;
    start_micros(info.pbi_start_tvsec, info.pbi_start_tvusec)
        .ok_or_else(|| IdentityError::Malformed { path: process(pid), expected: "a start time" })
}

pub(crate) fn process_executable(pid: u32) -> Result<PathBuf, IdentityError> {
    let mut path = vec![0u8; libc::PROC_PIDPATHINFO_MAXSIZE as usize];
    let length = raw_pid(pid).and_then(|raw| {
        // SAFETY: `path` has room for its length.
        match unsafe { libc::proc_pidpath(raw, path.as_mut_ptr().cast(), path.len() as u32) } {
            length @ 1.. => Ok(length as usize),
            _ => Err(io::Error::last_os_error()),
        }
    });
    path.truncate(length.map_err(|source| unreadable(process(pid), source))?);
    Ok(PathBuf::from(OsString::from_vec(path)))
}

/// `SSTOP` of `<sys/proc.h>`.
const STOPPED: u32 = 4;

pub(crate) fn process_is_stopped(pid: u32) -> Result<bool, IdentityError> {
    let info = bsd_info(pid).map_err(|source| unreadable(process(pid), source))?;
    Ok(info.pbi_status == STOPPED)
}

pub(crate) fn control_group(_pid: u32) -> Result<String, IdentityError> {
    Err(Unsupported { operation: "telling a process's control group", platform: std::env::consts::OS }.into())
}

/// The file that lies at the executable's path now: there is no name for the one that runs. Where it was
/// replaced since, its hash is the new one's.
pub(crate) fn process_executable_file(pid: u32) -> Result<PathBuf, IdentityError> {
    process_executable(pid)
}

/// `IOPlatformUUID`, written as `ioreg` does. The kernel answers gethostuuid(2) from that very property
/// (`IOBSDGetPlatformUUID`), so neither IOKit nor another process is needed.
fn platform_uuid() -> Result<String, IdentityError> {
    let mut uuid: libc::uuid_t = [0; 16];
    let patience = MACHINE_ID_PATIENCE;
    // SAFETY: `uuid` has the 16 bytes that are written, and the time lives through the call.
    if unsafe { libc::gethostuuid(uuid.as_mut_ptr(), &raw const patience) } != 0 {
        return Err(unreadable(PathBuf::from("IOPlatformUUID"), io::Error::last_os_error()));
    }
    Ok(uuid_text(&uuid))
}

fn bsd_info(pid: u32) -> io::Result<libc::proc_bsdinfo> {
    let size = size_of::<libc::proc_bsdinfo>();
    let mut info = MaybeUninit::<libc::proc_bsdinfo>::zeroed();
    let raw = raw_pid(pid)?;
    // SAFETY: `info` has room for `size` bytes.
    let written = unsafe {
        libc::proc_pidinfo(raw, libc::PROC_PIDTBSDINFO, WITH_ZOMBIES, info.as_mut_ptr().cast(), size as i32)
    };
    match usize::try_from(written) {
        // SAFETY: it was initialised by zeroing, and every bit pattern is a value of its integers.
        Ok(written) if written == size => Ok(unsafe { info.assume_init() }),
        Ok(0) | Err(_) => Err(io::Error::last_os_error()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "facts of unexpected size")),
    }
}

fn raw_pid(pid: u32) -> io::Result<i32> {
    i32::try_from(pid).map_err(|_| io::Error::from_raw_os_error(ESRCH))
}

fn text(name: &CStr, expected: &'static str) -> Result<String, IdentityError> {
    let path = || PathBuf::from(format!("sysctl {}", name.to_string_lossy()));
    let found = sysctl::text(name).map_err(|source| unreadable(path(), source))?;
    found.ok_or_else(|| IdentityError::Malformed { path: path(), expected })
}

fn process(pid: u32) -> PathBuf {
    PathBuf::from(format!("process {pid}"))
}

fn unreadable(path: PathBuf, source: io::Error) -> IdentityError {
    IdentityError::Unreadable { path, source }
}
