//! What a server process costs, as the kernel counts it (proc(5)).

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// What the kernel says in `name` about each thread that a process has. One that ends meanwhile is left out.
fn of_each_thread(pid: u32, name: &str) -> io::Result<Vec<String>> {
    let mut texts = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read_to_string(task?.path().join(name)) {
            Ok(text) => texts.push(text),
            Err(error) if has_ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(texts)
}

/// A thread may end before its file is opened, and before it is read.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// CPU time of all threads that a process has, so far; of one that has ended, nothing.
///
/// # Errors
/// There is no such process, or the kernel keeps no scheduler statistics.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut nanos = 0u64;
    for text in of_each_thread(pid, "schedstat")? {
        let run: Option<u64> = text.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
        nanos += run.ok_or_else(|| io::Error::other("schedstat holds no number"))?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory of a process in KiB: now, and at its highest.
///
/// # Errors
/// There is no such process.
pub fn resident_kib(pid: u32) -> io::Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    match (field("VmRSS:"), field("VmHWM:")) {
        (Some(now), Some(peak)) => Ok((now, peak)),
        _ => Err(io::Error::other("/proc/PID/status names no resident memory")),
    }
}

/// Counts the system calls that a process makes while `work` runs, with strace(1).
///
/// # Errors
/// strace is not there or may not trace, or the work fails.
pub fn syscalls_during(pid: u32, work: impl FnOnce() -> io::Result<()>) -> io::Result<u64> {
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-p", &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    wait_until_traced(pid, &mut strace)?;
    work()?;
    interrupt(&strace)?;
    let output = strace.wait_with_output()?;
    total_calls(&String::from_utf8_lossy(&output.stderr))
        .ok_or_else(|| io::Error::other("strace printed no total"))
}

fn interrupt(child: &Child) -> io::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.ok_or(io::ErrorKind::NotFound)?, Signal::INT)?;
    Ok(())
}

/// Every thread of the process has a tracer once strace is attached.
fn wait_until_traced(pid: u32, strace: &mut Child) -> io::Result<()> {
    loop {
        if let Some(status) = strace.try_wait()? {
            return Err(io::Error::other(format!("strace ended with {status}")));
        }
        let statuses = of_each_thread(pid, "status")?;
        if statuses.iter().all(|status| !status.contains("TracerPid:\t0\n")) {
            return Ok(());
        }
        std::thread::yield_now();
    }
}

/// The last line of `strace -c`: the number of calls, then `total`.
fn total_calls(summary: &str) -> Option<u64> {
    let total = summary.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
    total.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory() {
        let pid = std::process::id();
        assert!(cpu_time(pid).unwrap() > Duration::ZERO);
        let (now, peak) = resident_kib(pid).unwrap();
        assert!(now > 0 && peak >= now);
        assert!(cpu_time(u32::MAX / 2).is_err());
    }

    #[test]
    fn a_thread_that_ends_meanwhile_is_left_out() {
        let pid = std::process::id();
        std::thread::scope(|scope| {
            // Threads come and go for as long as this one looks.
            let looking = scope.spawn(|| (0..500).map(|_| cpu_time(pid)).find(Result::is_err));
            while !looking.is_finished() {
                scope.spawn(std::thread::yield_now);
            }
            assert!(looking.join().unwrap().is_none());
        });
    }

    #[test]
    fn the_total_is_the_last_line_of_a_summary() {
        let summary = "    calls syscall\n--------- ----------------\n     2000 read\n     4000 close\n--------- ----------------\n     6000 total\n";
        assert_eq!(total_calls(summary), Some(6_000));
        assert_eq!(total_calls("strace: attach: Operation not permitted"), None);
    }
}
