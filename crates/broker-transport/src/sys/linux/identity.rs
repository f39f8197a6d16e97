//! Identity by `/proc`, `/etc/machine-id` and the boot id.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::endpoint::identity_text_linux;
use crate::identity::IdentityError;

pub(crate) const ESRCH: i32 = libc::ESRCH;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
const MACHINE_ID: &str = "/etc/machine-id";
const DBUS_MACHINE_ID: &str = "/var/lib/dbus/machine-id";

/// Position of `starttime` behind the command: field 22, and the first one behind it is field 3.
const START_TIME: usize = 22 - 3;

pub(crate) fn boot_id() -> Result<String, IdentityError> {
    line(Path::new(BOOT_ID), "a boot id")
}

pub(crate) fn machine_id() -> Option<String> {
    [MACHINE_ID, DBUS_MACHINE_ID].iter().find_map(|path| line(Path::new(path), "a machine id").ok())
}

pub(crate) fn user_identity_text() -> Result<String, IdentityError> {
    match machine_id() {
        Some(machine_id) => Ok(identity_text_linux(effective_uid(), Some(&machine_id), None, "")),
        None => Ok(identity_text_linux(effective_uid(), None, None, &boot_id()?)),
    }
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
    line(Path::new(HOSTNAME), "a host name")
}

pub(crate) fn process_start_time(pid: u32) -> Result<u64, IdentityError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let bytes = fs::read(&path).map_err(|source| unreadable(&path, source))?;
    let malformed = || IdentityError::Malformed { path: path.clone(), expected: "a start time" };
    start_time(&String::from_utf8_lossy(&bytes)).ok_or_else(malformed)
}

/// The command may hold spaces and parentheses: only the last `)` ends it.
fn start_time(stat: &str) -> Option<u64> {
    let (_, behind_command) = stat.rsplit_once(')')?;
    behind_command.split_ascii_whitespace().nth(START_TIME)?.parse().ok()
}

pub(crate) fn process_is_stopped(pid: u32) -> Result<bool, IdentityError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let bytes = fs::read(&path).map_err(|source| unreadable(&path, source))?;
    match String::from_utf8_lossy(&bytes).rsplit_once(')') {
        Some((_, behind_command)) => Ok(behind_command.trim_start().starts_with(['T', 't'])),
        None => Err(IdentityError::Malformed { path, expected: "a state" }),
    }
}

pub(crate) fn control_group(pid: u32) -> Result<String, IdentityError> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = fs::read_to_string(&path).map_err(|source| unreadable(&path, source))?;
    managed_group(&text).ok_or(IdentityError::Malformed { path, expected: "a control group" })
}

/// Of all hierarchies the one that the service manager keeps (cgroups(7)): with both, the older one says more.
fn managed_group(text: &str) -> Option<String> {
    let group = |controllers: &str| {
        text.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(controllers)?.strip_prefix(':'))
    };
    group("name=systemd").or_else(|| group("")).map(str::to_owned)
}

pub(crate) fn process_executable(pid: u32) -> Result<PathBuf, IdentityError> {
    let link = process_executable_file(pid)?;
    fs::read_link(&link).map_err(|source| unreadable(&link, source))
}

pub(crate) fn process_executable_file(pid: u32) -> Result<PathBuf, IdentityError> {
    Ok(PathBuf::from(format!("/proc/{pid}/exe")))
}

fn line(path: &Path, expected: &'static str) -> Result<String, IdentityError> {
    let text = fs::read_to_string(path).map_err(|source| unreadable(path, source))?;
    match text.trim() {
        "" => Err(IdentityError::Malformed { path: path.to_path_buf(), expected }),
        text => Ok(text.to_owned()),
    }
}

fn unreadable(path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Unreadable { path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_managers_group_is_found_among_all() {
        let hybrid = "9:name=systemd:/user.slice/a.service\n4:memory:/other\n0::/\n";
        assert_eq!(managed_group(hybrid).as_deref(), Some("/user.slice/a.service"));
        assert_eq!(managed_group("0::/user.slice/b:c.service\n").as_deref(), Some("/user.slice/b:c.service"));
        assert_eq!(managed_group("4:memory:/other\n"), None);
        assert!(control_group(std::process::id()).unwrap().starts_with('/'));
    }

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_start_time() {
        let fields: Vec<String> = (4..=52).map(|field| format!("{field}00")).collect();
        for command in ["sh", "a) S 1 (b", ")) ) 1 2 3"] {
            let stat = format!("42 ({command}) S {}\n", fields.join(" "));
            assert_eq!(start_time(&stat), Some(2200));
        }
        assert_eq!(start_time("42 (sh S 1"), None);
        assert!(!process_is_stopped(std::process::id()).unwrap());
        assert_eq!(start_time("42 (sh) S 1 2"), None);
    }
}
