//! The fork, and what the child does until it is another program.
//!
//! Invariant: between `fork` and `execve` nothing is allocated, locked or dropped: only system calls
//! and writes into memory that was prepared before (signal-safety(7)).

use std::ffi::{c_char, c_int};
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::null;

use super::super::close_from::{close_from, limit_end};
use super::super::limits::original_limit;
use super::super::signals::{reset_dispositions, unblock_all};
use super::plan::Plan;

/// What a child was doing when it failed. The number is what it reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    Session = 1,
    ParentDeath = 2,
    Limits = 3,
    Descriptors = 4,
    Directory = 5,
    Exec = 6,
}

impl Stage {
    pub(super) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Session,
            2 => Self::ParentDeath,
            3 => Self::Limits,
            4 => Self::Descriptors,
            5 => Self::Directory,
            6 => Self::Exec,
            _ => return None,
        })
    }

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Session => "begin a session",
            Self::ParentDeath => "arrange for this process's death",
            Self::Limits => "restore the descriptor limit",
            Self::Descriptors => "place the descriptors",
            Self::Directory => "change to the root directory",
            Self::Exec => "execute",
        }
    }
}

/// Length of a failed child's report: the stage and the error number.
pub(crate) const REPORT_LEN: usize = 5;

const LISTEN_PID: &[u8] = b"LISTEN_PID=";
/// Room for the decimal digits of any pid and the NUL.
const PID_ROOM: usize = 11;

/// The child's side, with every pointer in place.
struct Prepared<'a> {
    plan: &'a Plan,
    argv: Vec<*const c_char>,
    /// Ends with NULL; the entry before that is free for `LISTEN_PID`, where there is a listener.
    envp: Vec<*const c_char>,
    listen_pid: [u8; LISTEN_PID.len() + PID_ROOM],
    limit: Option<libc::rlimit>,
    /// First descriptor that no open one reaches, for kernels without `close_range`.
    descriptor_end: c_int,
}

/// Forks; the child executes the plan or reports why it could not. Returns the child's pid.
///
/// All signals are blocked in the calling thread: none of this process's handlers runs in the child.
pub(super) fn fork_and_exec(plan: &Plan) -> io::Result<libc::pid_t> {
    let pointers = |texts: &[std::ffi::CString], spare: usize| {
        let texts = texts.iter().map(|text| text.as_ptr());
        texts.chain(std::iter::repeat_n(null(), spare + 1)).collect::<Vec<_>>()
    };
    let mut listen_pid = [0; LISTEN_PID.len() + PID_ROOM];
    listen_pid[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID);
    let mut prepared = Prepared {
        plan,
        argv: pointers(&plan.argv, 0),
        envp: pointers(&plan.env, usize::from(plan.has_listener)),
        listen_pid,
        limit: original_limit(),
        // Not what is open now: another thread may open more before the fork.
        descriptor_end: limit_end(),
    };
    // SAFETY: the child makes only async-signal-safe calls until it executes or exits (below), and
    // the parent goes on as if nothing had happened.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: this is the child, right after the fork.
        0 => unsafe { run(&mut prepared) },
        pid => Ok(pid),
    }
}

/// Becomes the planned program, or reports and exits.
///
/// # Safety
/// Only in a child right after `fork`, with all signals blocked.
unsafe fn run(prepared: &mut Prepared<'_>) -> ! {
    // SAFETY: passed on from the caller.
    let stage = match unsafe { become_program(prepared) } {
        Ok(never) => match never {},
        Err(stage) => stage,
    };
    // SAFETY: this is still that child.
    unsafe { report_and_exit(prepared.plan.report.as_raw_fd(), stage) }
}

/// Reports the last error, and ends this process.
///
/// # Safety
/// Only in a child after `fork` that is not yet another program.
pub(crate) unsafe fn report_and_exit(report: c_int, stage: Stage) -> ! {
    let error = io::Error::last_os_error().raw_os_error().unwrap_or(0).to_ne_bytes();
    let bytes: [u8; REPORT_LEN] = [stage as u8, error[0], error[1], error[2], error[3]];
    // SAFETY: `bytes` is valid for its length; so few bytes into a pipe are written whole or not at all;
    // `_exit` runs no destructor and no exit handler of the parent's.
    unsafe {
        libc::write(report, bytes.as_ptr().cast(), bytes.len());
        libc::_exit(127)
    }
}

/// # Safety
/// As [`run`].
unsafe fn become_program(prepared: &mut Prepared<'_>) -> Result<std::convert::Infallible, Stage> {
    let done = |result: c_int, stage: Stage| if result == -1 { Err(stage) } else { Ok(()) };
    // SAFETY: these are system calls with pointers to live, initialised values of this function or of
    // `prepared`; none of them allocates. `argv` and `envp` end with NULL and point to C strings of
    // the plan, which lives as long as this process image.
    unsafe {
        reset_dispositions();
        done(libc::setsid(), Stage::Session)?;
        done(prepared.plan.bond.tie(), Stage::ParentDeath)?;
        if let Some(limit) = &prepared.limit {
            done(libc::setrlimit(libc::RLIMIT_NOFILE, limit), Stage::Limits)?;
        }
        for (place, source) in (0..).zip(&prepared.plan.placed) {
            // The source is numbered above every place; dup2 clears close-on-exec.
            done(libc::dup2(source.as_raw_fd(), place), Stage::Descriptors)?;
        }
        close_from(prepared.plan.placed.len() as c_int, prepared.descriptor_end);
        done(libc::chdir(c"/".as_ptr()), Stage::Directory)?;
        if prepared.plan.has_listener {
            write_digits(&mut prepared.listen_pid[LISTEN_PID.len()..], libc::getpid().unsigned_abs());
            let free = prepared.envp.len() - 2;
            prepared.envp[free] = prepared.listen_pid.as_ptr().cast();
        }
        // A SIGTERM that came meanwhile, also the one of a dying parent, ends the child here.
        unblock_all();
        libc::execve(prepared.plan.program.as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr());
    }
    Err(Stage::Exec)
}

/// Writes a number in decimal, left-aligned; the rest of `room` stays NUL.
fn write_digits(room: &mut [u8], number: u32) {
    let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut rest = number;
    for place in room.iter_mut().take(digits).rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_left_aligned_and_end_with_nul() {
        for number in [0, 7, 10, 4_194_304, u32::MAX] {
            let mut room = [0; PID_ROOM];
            write_digits(&mut room, number);
            let text = std::ffi::CStr::from_bytes_until_nul(&room).unwrap();
            assert_eq!(text.to_str().unwrap(), number.to_string());
        }
    }

    #[test]
    fn a_stage_survives_the_way_through_its_number() {
        for number in 0..=u8::MAX {
            assert!(Stage::from_number(number).is_none_or(|stage| stage as u8 == number));
        }
        assert_eq!(Stage::from_number(Stage::Exec as u8), Some(Stage::Exec));
    }
}
