//! Identity by the token, the registry and the times that the kernel keeps.
//!
//! There is no official id of a boot. Taken is the moment the kernel started (its time of day, class 3 of
//! `NtQuerySystemInformation`), less what the clock was set by since: both move together when somebody sets the
//! clock, so their difference stays. The boot environment's GUID will not do, as it names the entry of the boot
//! menu; nor will a counter in the registry, which is missing where prefetching is off. Two boots differ as two
//! moments of 100 ns do. A shutdown with "fast startup" hibernates the kernel and goes on with the same boot;
//! processes are told apart by their start times then.
//!
//! Invariant: whoever is not known is nobody, and no user's number is that of the system's own accounts.

use std::ffi::OsString;
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle};
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::OnceLock;

use windows_sys::Wdk::System::SystemInformation::{NtQuerySystemInformation, SystemTimeOfDayInformation};
use windows_sys::Win32::Foundation::{
    ERROR_INVALID_PARAMETER, ERROR_SUCCESS, FILETIME, HANDLE, RtlNtStatusToDosError, STILL_ACTIVE,
};
use windows_sys::Win32::Security::Authorization::ConvertSidToStringSidW;
use windows_sys::Win32::Security::{GetTokenInformation, PSID, TOKEN_QUERY, TOKEN_USER, TokenUser};
use windows_sys::Win32::System::Registry::{
    HKEY_LOCAL_MACHINE, RRF_RT_REG_SZ, RRF_SUBKEY_WOW6464KEY, RegGetValueW,
};
use windows_sys::Win32::System::SystemInformation::{ComputerNamePhysicalDnsHostname, GetComputerNameExW};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetExitCodeProcess, GetProcessId, GetProcessTimes, OpenProcess, OpenProcessToken,
    PROCESS_QUERY_LIMITED_INFORMATION, QueryFullProcessImageNameW,
};
use windows_sys::core::{PWSTR, w};

use super::calls::{Local, done, filled, owned, text};
use crate::identity::IdentityError;
use crate::unsupported::Unsupported;

/// What opening a process that is not there fails with.
pub(crate) const ESRCH: i32 = ERROR_INVALID_PARAMETER.cast_signed();

/// The account that the system's own services run as.
pub(super) const LOCAL_SYSTEM: &str = "S-1-5-18";

/// The number of a user who could not be found out. It equals no SID's but by an accident of 1 in 2^64.
const NOBODY: u64 = u64::MAX;

/// Room for the user of a token: a SID has 68 bytes at most.
const TOKEN_USER_WORDS: usize = 16;

/// `SYSTEM_TIMEOFDAY_INFORMATION`, as far as it is of use here.
#[repr(C)]
#[derive(Default)]
struct TimesOfDay {
    boot_time: i64,
    current_time: i64,
    time_zone_bias: i64,
    time_zone_id: u32,
    reserved: u32,
    /// By how much setting the clock has moved `boot_time`.
    boot_time_bias: i64,
    sleep_time_bias: i64,
}

pub(crate) fn boot_id() -> Result<String, IdentityError> {
    let mut times = TimesOfDay::default();
    // SAFETY: the structure is the one of this class, and its true size is given.
    let status = unsafe {
        NtQuerySystemInformation(
            SystemTimeOfDayInformation,
            (&raw mut times).cast(),
            size_of::<TimesOfDay>() as u32,
            null_mut(),
        )
    };
    if status < 0 {
        // SAFETY: it only maps a number.
        let code = unsafe { RtlNtStatusToDosError(status) };
        return Err(unreadable("the time of boot", io::Error::from_raw_os_error(code.cast_signed())));
    }
    Ok(format!("{:016x}", times.boot_time.wrapping_sub(times.boot_time_bias)))
}

pub(crate) fn machine_id() -> Option<String> {
    /// A GUID has 36 characters.
    const ROOM: usize = 64;
    let mut units = [0_u16; ROOM];
    let mut bytes = size_of_val(&units) as u32;
    // SAFETY: the names end with NUL, and the buffer has as many bytes as the size says.
    let status = unsafe {
        RegGetValueW(
            HKEY_LOCAL_MACHINE,
            w!("SOFTWARE\\Microsoft\\Cryptography"),
            w!("MachineGuid"),
            RRF_RT_REG_SZ | RRF_SUBKEY_WOW6464KEY,
            null_mut(),
            units.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    let id = (status == ERROR_SUCCESS).then(|| text(&units))?.into_string().ok()?;
    let id = id.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

pub(crate) fn user_identity_text() -> Result<String, IdentityError> {
    match own_sid() {
        Ok(sid) => Ok(sid.to_owned()),
        Err(error) => Err(unreadable("this process's user", error)),
    }
}

/// There are no numeric users.
pub(crate) fn effective_uid() -> u32 {
    0
}

pub(crate) fn current_user_key() -> u64 {
    own_sid().map_or(NOBODY, user_key)
}

/// `LocalSystem` alone: the accounts for services, `LocalService` and `NetworkService`, have few rights, and
/// an administrator's are those of a user who was asked.
pub(crate) fn is_privileged() -> bool {
    // Unknown, and therefore assumed: who runs a service on it has to say that it is meant.
    own_sid().map_or(true, |sid| sid == LOCAL_SYSTEM)
}

pub(crate) fn hostname() -> Result<String, IdentityError> {
    // SAFETY: the buffer has the room that its number says.
    let name = filled(|buffer, length| unsafe {
        GetComputerNameExW(ComputerNamePhysicalDnsHostname, buffer, length)
    });
    name.map(|name| name.to_string_lossy().into_owned()).map_err(|error| unreadable("the host name", error))
}

pub(crate) fn process_start_time(pid: u32) -> Result<u64, IdentityError> {
    of_process(pid, creation_time)
}

pub(crate) fn process_is_stopped(_pid: u32) -> Result<bool, IdentityError> {
    Err(unsupported("telling whether a process is stopped"))
}

pub(crate) fn control_group(_pid: u32) -> Result<String, IdentityError> {
    Err(unsupported("telling a process's control group"))
}

fn unsupported(operation: &'static str) -> IdentityError {
    Unsupported { operation, platform: std::env::consts::OS }.into()
}

pub(crate) fn process_executable(pid: u32) -> Result<PathBuf, IdentityError> {
    let name = |process: BorrowedHandle<'_>| {
        if has_ended(process)? {
            return Err(io::Error::from_raw_os_error(ESRCH));
        }
        // SAFETY: the handle is open, and the buffer has the room that its number says.
        filled(|buffer, length| unsafe {
            QueryFullProcessImageNameW(process.as_raw_handle(), 0, buffer, length)
        })
    };
    of_process(pid, name).map(PathBuf::from)
}

/// The path once more: a running executable can be neither written to nor removed. It can be renamed, though;
/// then what lies at its path is another file, or none.
pub(crate) fn process_executable_file(pid: u32) -> Result<PathBuf, IdentityError> {
    process_executable(pid)
}

/// Opens the process that has this pid now.
///
/// The system takes any number for the next lower pid, as pids are multiples of 4; here it is taken at its word.
pub(super) fn open_process(pid: u32, access: u32) -> io::Result<OwnedHandle> {
    // SAFETY: a plain call; the handle is not inherited, and new.
    let process = unsafe { owned(OpenProcess(access, 0, pid)) }?;
    // SAFETY: the handle is open.
    if unsafe { GetProcessId(process.as_raw_handle()) } == pid {
        Ok(process)
    } else {
        Err(io::Error::from_raw_os_error(ESRCH))
    }
}

/// When a process started, in 100 ns since 1601.
pub(super) fn creation_time(process: BorrowedHandle<'_>) -> io::Result<u64> {
    const NEVER: FILETIME = FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 };
    let (mut created, mut exited, mut kernel, mut user) = (NEVER, NEVER, NEVER, NEVER);
    // SAFETY: the handle is open, and the four times are written to.
    done(unsafe {
        GetProcessTimes(
            process.as_raw_handle(),
            &raw mut created,
            &raw mut exited,
            &raw mut kernel,
            &raw mut user,
        )
    })?;
    Ok(u64::from(created.dwHighDateTime) << 32 | u64::from(created.dwLowDateTime))
}

/// The SID of the user that a process runs as, as text.
pub(crate) fn token_user_sid(process: BorrowedHandle<'_>) -> io::Result<String> {
    let mut token: HANDLE = null_mut();
    // SAFETY: the handle is open, and the token's is written to.
    done(unsafe { OpenProcessToken(process.as_raw_handle(), TOKEN_QUERY, &raw mut token) })?;
    // SAFETY: the call has just made it.
    let token = unsafe { owned(token) }?;
    // In words, so that it is aligned for the structure at its beginning.
    let mut user = [0_u64; TOKEN_USER_WORDS];
    let mut length = 0;
    // SAFETY: the buffer has as many bytes as the size says.
    done(unsafe {
        GetTokenInformation(
            token.as_raw_handle(),
            TokenUser,
            user.as_mut_ptr().cast(),
            size_of_val(&user) as u32,
            &raw mut length,
        )
    })?;
    // SAFETY: the call has filled in the structure, whose SID lies behind it in the same buffer.
    unsafe { sid_text((*user.as_ptr().cast::<TOKEN_USER>()).User.Sid) }
}

/// A SID as text, `S-1-5-…`.
///
/// # Safety
/// It points to a valid SID.
pub(super) unsafe fn sid_text(sid: PSID) -> io::Result<String> {
    let mut units: PWSTR = null_mut();
    // SAFETY: the SID is valid by this function's contract, and the pointer is written to.
    done(unsafe { ConvertSidToStringSidW(sid, &raw mut units) })?;
    let _freed = Local(units.cast());
    // SAFETY: the call has made a text that ends with NUL.
    let text = unsafe {
        let length = (0..).take_while(|index| *units.add(*index) != 0).count();
        String::from_utf16_lossy(std::slice::from_raw_parts(units, length))
    };
    Ok(text)
}

/// The SID of the user that this process runs as; it does not change.
pub(super) fn own_sid() -> io::Result<&'static str> {
    static OWN: OnceLock<String> = OnceLock::new();
    if let Some(sid) = OWN.get() {
        return Ok(sid);
    }
    // SAFETY: the pseudo handle of this process is valid for as long as it runs.
    let own = unsafe { BorrowedHandle::borrow_raw(GetCurrentProcess()) };
    let sid = token_user_sid(own)?;
    Ok(OWN.get_or_init(|| sid))
}

/// A number that stands for a SID: the first 8 bytes of its BLAKE3. It is never 0, which is the system's own.
pub(crate) fn user_key(sid_text: &str) -> u64 {
    let mut key = [0; 8];
    key.copy_from_slice(&blake3::hash(sid_text.as_bytes()).as_bytes()[..8]);
    u64::from_le_bytes(key).max(1)
}

/// Whether it has ended, though somebody still holds it. One that has ended with the code of those that run is
/// taken for one.
fn has_ended(process: BorrowedHandle<'_>) -> io::Result<bool> {
    let mut code = 0;
    // SAFETY: the handle is open, and the number is written to.
    done(unsafe { GetExitCodeProcess(process.as_raw_handle(), &raw mut code) })?;
    Ok(code != STILL_ACTIVE.cast_unsigned())
}

fn of_process<T>(
    pid: u32,
    fact: impl FnOnce(BorrowedHandle<'_>) -> io::Result<T>,
) -> Result<T, IdentityError> {
    open_process(pid, PROCESS_QUERY_LIMITED_INFORMATION)
        .and_then(|process| fact(process.as_handle()))
        .map_err(|error| unreadable(format!("the facts about process {pid}"), error))
}

fn unreadable(what: impl Into<OsString>, source: io::Error) -> IdentityError {
    IdentityError::Unreadable { path: PathBuf::from(what.into()), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_user_has_a_sid_and_a_number_that_stands_for_it() {
        let sid = own_sid().unwrap();
        assert!(sid.starts_with("S-1-5-"), "{sid}");
        assert_eq!(user_identity_text().unwrap(), sid);
        assert_eq!(current_user_key(), user_key(sid));
        assert_ne!(user_key(sid), user_key(LOCAL_SYSTEM));
        assert!(![0, NOBODY].contains(&user_key(sid)));
        assert_eq!(is_privileged(), sid == LOCAL_SYSTEM);
    }

    #[test]
    fn a_number_stands_for_the_same_sid_for_ever() {
        assert_eq!(user_key(LOCAL_SYSTEM), 993_345_139_536_405_377);
    }

    #[test]
    fn the_machine_has_an_id() {
        assert_eq!(machine_id().unwrap().len(), 36);
        assert_eq!(machine_id(), machine_id());
    }

    #[test]
    fn a_number_between_two_pids_is_no_pid() {
        let own = std::process::id();
        assert!(process_start_time(own).unwrap() > 0);
        for pid in own + 1..own + 4 {
            assert!(process_start_time(pid).unwrap_err().is_not_found(), "{pid}");
        }
    }

    #[test]
    fn a_boot_id_is_the_same_in_another_process() {
        const HELPER: &str = "BROKER_TRANSPORT_TEST_BOOT_ID";
        if std::env::var_os(HELPER).is_some() {
            println!("\nboot {}", boot_id().unwrap());
            return;
        }
        let name = "sys::windows::identity::tests::a_boot_id_is_the_same_in_another_process";
        let other = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(HELPER, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&other.stdout);
        assert!(text.contains(&format!("boot {}", boot_id().unwrap())), "{text}");
    }
}
