//! Which system calls a thread may no longer make, by a seccomp filter.
//!
//! The calls that are refused are listed, not those that are allowed: which ones a libc or an allocator needs
//! changes with every version of it, and a daemon that dies of an update protects nobody. They fail with `EPERM`.
//! Invariant: nothing that a broker does beside starting processes is on the list.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::sandbox::SandboxError;

/// Executing another program.
const PROGRAMS: &[c_long] = &[libc::SYS_execve, libc::SYS_execveat];

/// Reaching into other processes.
const PROCESSES: &[c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
];

/// Mounts, roots and namespaces.
const NAMESPACES: &[c_long] = &[
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
];

/// Other users, and more rights.
const USERS: &[c_long] = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// The kernel itself: large parts of it that a broker has no use for, or what only root may change.
const KERNEL: &[c_long] = &[
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// What only this architecture has.
#[cfg(target_arch = "x86_64")]
const OWN: &[c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const OWN: &[c_long] = &[];

/// From here on x86-64 numbers the calls of its other ABI, x32, which the lists above do not name.
const X32: u32 = 0x4000_0000;

#[cold]
pub(super) fn restrict() -> Result<(), SandboxError> {
    for program in [refused_calls(), unreadable_calls()] {
        let program = program.map_err(|error| refused(&Error::Backend(error)))?;
        seccompiler::apply_filter(&program).map_err(|error| refused(&error))?;
    }
    Ok(())
}

#[cold]
fn refused(error: &Error) -> SandboxError {
    match error {
        // An architecture that the filter's compiler does not know, or a kernel without filters.
        Error::Backend(seccompiler::BackendError::InvalidTargetArch(_)) | Error::Seccomp(_) => {
            SandboxError::NotOffered { means: "seccomp filters (CONFIG_SECCOMP_FILTER)" }
        }
        error => SandboxError::Refused { operation: "restrict system calls", cause: error.to_string() },
    }
}

/// The filter with everything on the lists, and with the calls that depend on their arguments.
fn refused_calls() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules = BTreeMap::new();
    for call in [PROGRAMS, PROCESSES, NAMESPACES, USERS, KERNEL, OWN].into_iter().flatten() {
        rules.insert(*call, Vec::new());
    }
    rules.insert(libc::SYS_socket, vec![argument(0, SeccompCmpOp::Ne, libc::AF_UNIX)?]);
    // A thread shares its process; what does not is a process of its own.
    let no_thread = SeccompCmpOp::MaskedEq(libc::CLONE_THREAD.unsigned_abs().into());
    rules.insert(libc::SYS_clone, vec![argument(0, no_thread, 0)?]);
    let program = filter(rules, libc::EPERM)?;
    if cfg!(target_arch = "x86_64") { Ok([&no_other_numbers()[..], &program].concat()) } else { Ok(program) }
}

/// `clone3` keeps its flags where a filter cannot look. Whoever hears that there is no such call takes `clone`.
fn unreadable_calls() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules = BTreeMap::new();
    rules.insert(libc::SYS_clone3, Vec::new());
    filter(rules, libc::ENOSYS)
}

#[cold]
fn filter(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)?.try_into()
}

fn argument(index: u8, operator: SeccompCmpOp, value: i32) -> Result<SeccompRule, seccompiler::BackendError> {
    let value = value.unsigned_abs().into();
    SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?])
}

/// Says of every number of the other ABI that there is no such call.
fn no_other_numbers() -> [sock_filter; 3] {
    // linux/bpf_common.h: load a word at an offset, jump if greater or equal, return.
    const LOAD: u16 = 0x20;
    const JUMP_GE: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let no_such_call = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    [
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_GE, jt: 0, jf: 1, k: X32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: no_such_call },
    ]
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// What this thread hears of a call whose every argument is nonsense.
    fn answer(call: c_long) -> Option<i32> {
        let nonsense = c_long::from(-1);
        // SAFETY: no pointer of all ones is valid, so no memory is touched even where the call is made.
        let result =
            unsafe { libc::syscall(call, nonsense, nonsense, nonsense, nonsense, nonsense, nonsense) };
        if result == -1 { io::Error::last_os_error().raw_os_error() } else { None }
    }

    /// In a thread of its own: what it gives up is gone for good.
    fn restricted<T: Send>(look: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                restrict().unwrap();
                look()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn every_call_on_the_lists_is_refused() {
        let lists = [PROGRAMS, PROCESSES, NAMESPACES, USERS, KERNEL, OWN];
        let answers =
            restricted(|| lists.concat().into_iter().map(|call| (call, answer(call))).collect::<Vec<_>>());
        for (call, answer) in answers {
            assert_eq!(answer, Some(libc::EPERM), "call {call}");
        }
    }

    #[test]
    fn no_call_is_to_be_had_by_the_numbers_of_another_abi() {
        if cfg!(target_arch = "x86_64") {
            let number = i64::from(X32);
            // Its own numbers of execve, and those of the lists with its mark.
            for call in [number + 520, number | libc::SYS_getpid, number | libc::SYS_execve] {
                assert_eq!(restricted(|| answer(call)), Some(libc::ENOSYS), "{call}");
            }
        }
    }

    #[test]
    fn only_unix_sockets_are_made() {
        let families =
            [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK];
        let answers = restricted(|| {
            families.map(|family| {
                // SAFETY: makes a descriptor or fails.
                let made = unsafe { libc::socket(family, libc::SOCK_RAW, 0) };
                (family, made, io::Error::last_os_error().raw_os_error())
            })
        });
        for (family, made, error) in answers {
            assert_eq!((made, error), (-1, Some(libc::EPERM)), "family {family}");
        }
        restricted(std::os::unix::net::UnixStream::pair).unwrap();
    }

    #[test]
    fn threads_are_started_as_before_and_processes_are_not() {
        let (thread, process) = restricted(|| {
            let thread = std::thread::Builder::new().spawn(|| 7).map(|thread| thread.join().unwrap());
            (thread, std::process::Command::new("/bin/true").status())
        });
        assert_eq!(thread.unwrap(), 7);
        assert_eq!(process.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}
