//! Kills a process right before one of its system calls, counted from the moment a client sets out.
//!
//! Between two system calls a process does nothing that anybody else can see, so these are the steps at which its
//! death can make a difference. The victim is traced (ptrace(2)) from outside and knows nothing of it. Invariant:
//! the call at which it is killed is not carried out.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};

use crate::PATIENCE;

/// How often in a row nothing may be seen to happen until a scenario is over.
const QUIET_LOOKS: u32 = 5;

/// Whose steps are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// Those of this process.
    Process(u32),
    /// Those of the next process that this one forks, from the fork on.
    ForkedBy(u32),
    /// Those of the client itself.
    Client,
}

/// Where a victim was killed.
#[derive(Clone, Debug)]
pub struct Killed {
    /// Its process id.
    pub pid: u32,
    /// Which thread was about to make which system call.
    pub at: String,
}

/// How a run went.
#[derive(Debug)]
pub struct Run {
    /// Where the victim was killed, if it came that far.
    pub killed: Option<Killed>,
    /// How many steps it made.
    pub steps: u64,
    /// What the client printed after it had set out.
    pub said: String,
}

/// Runs a client, and kills the victim before its `step`th system call, from 1 on. Ends once the client has ended,
/// and either the victim, too, or nothing happens any more among `others` and the victim.
///
/// The client prints a line when it is ready, and sets out when it reads one. A victim that is a child of this
/// process has been waited for when this returns.
pub fn run(victim: Victim, step: u64, client: &mut Command, others: &[u32]) -> Run {
    // Tracing is a thread's affair, and ends with it.
    std::thread::scope(|scope| scope.spawn(|| Tracer::new(victim, step).run(client, others)).join().unwrap())
}

struct Tracer {
    victim: Victim,
    step: u64,
    /// The process whose steps count, once it is known.
    process: Option<Pid>,
    steps: u64,
    killed: Option<Killed>,
    /// Every traced thread and its process.
    threads: HashMap<Pid, Pid>,
    client: Option<Pid>,
}

impl Tracer {
    fn new(victim: Victim, step: u64) -> Self {
        Self { victim, step, process: None, steps: 0, killed: None, threads: HashMap::new(), client: None }
    }

    fn run(mut self, client: &mut Command, others: &[u32]) -> Run {
        // It is waited for with everybody else.
        #[expect(clippy::zombie_processes, reason = "by `next`, as one that may be traced")]
        let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let client = Pid::from_raw(child.id().try_into().unwrap());
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        match self.victim {
            Victim::Process(pid) => self.stop_at_calls(pid),
            Victim::Client => self.stop_at_calls(child.id()),
            Victim::ForkedBy(pid) => self.seize_all(pid),
        }
        self.client = Some(client);
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        self.follow(others);
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        Run { killed: self.killed, steps: self.steps, said }
    }

    /// Traces every thread of a process; those to come are traced from their beginning.
    fn seize_all(&mut self, process: u32) {
        let process = Pid::from_raw(process.try_into().unwrap());
        let options =
            Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEFORK;
        loop {
            let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
            let numbers = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
            let fresh: Vec<Pid> = numbers.filter(|thread| !self.threads.contains_key(thread)).collect();
            if fresh.is_empty() {
                return;
            }
            for thread in fresh {
                seize(thread, options);
                self.threads.insert(thread, process);
            }
        }
    }

    /// Makes a process stop at each of its system calls from now on.
    fn stop_at_calls(&mut self, process: u32) {
        self.process = Some(Pid::from_raw(process.try_into().unwrap()));
        self.seize_all(process);
        let mut waiting: Vec<Pid> = self.threads.keys().copied().collect();
        waiting.retain(|thread| ptrace::interrupt(*thread).is_ok());
        while !waiting.is_empty() {
            let status = next(WaitPidFlag::empty()).unwrap();
            waiting.retain(|thread| status.pid() != Some(*thread));
            self.see(status);
        }
    }

    fn follow(&mut self, others: &[u32]) {
        let mut quiet = 0;
        while self.client.is_some() || (self.killed.is_some() && self.process.is_some()) {
            let status = next(WaitPidFlag::empty()).expect("the client ends at last");
            self.see(status);
        }
        while self.killed.is_none() && quiet < QUIET_LOOKS {
            match next(WaitPidFlag::WNOHANG) {
                None => break,
                Some(WaitStatus::StillAlive) => {
                    let mut processes = others.iter().copied().chain(self.process.map(number));
                    quiet = if processes.all(is_asleep) { quiet + 1 } else { 0 };
                    std::thread::yield_now();
                }
                Some(status) => {
                    quiet = 0;
                    self.see(status);
                }
            }
        }
        // Killed at its last step, it is not gone yet.
        while self.killed.is_some() && self.process.is_some() {
            let status = next(WaitPidFlag::empty()).expect("the victim ends at last");
            self.see(status);
        }
    }

    fn see(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                self.threads.remove(&pid);
                if self.process == Some(pid) {
                    self.process = None;
                }
                if self.client == Some(pid) {
                    self.client = None;
                }
            }
            WaitStatus::PtraceSyscall(thread) => {
                if is_at_entry(thread) && self.counts(thread) {
                    self.steps += 1;
                    if self.steps == self.step {
                        return self.kill(thread);
                    }
                }
                self.resume(thread, None);
            }
            WaitStatus::PtraceEvent(thread, ..) => self.resume(thread, None),
            WaitStatus::Stopped(thread, signal) => self.resume(thread, Some(signal)),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
    }

    /// Whether a thread is the victim's; one that nobody has seen yet may make its process the victim.
    fn counts(&mut self, thread: Pid) -> bool {
        let process = *self.threads.entry(thread).or_insert_with(|| process_of(thread));
        if let Victim::ForkedBy(parent) = self.victim
            && self.process.is_none()
            && self.killed.is_none()
            && number(process) != parent
        {
            self.process = Some(process);
        }
        self.process == Some(process)
    }

    fn resume(&mut self, thread: Pid, signal: Option<Signal>) {
        let resumed =
            if self.counts(thread) { ptrace::syscall(thread, signal) } else { ptrace::cont(thread, signal) };
        // It may have been killed meanwhile.
        assert!(matches!(resumed, Ok(()) | Err(Errno::ESRCH)), "{thread}: {resumed:?}");
    }

    fn kill(&mut self, thread: Pid) {
        let process = self.process.unwrap();
        let read = |file: &str| fs::read_to_string(format!("/proc/{thread}/{file}")).unwrap_or_default();
        let at = format!("{} at system call {}", read("comm").trim(), read("syscall").trim());
        kill(process, Signal::SIGKILL).unwrap();
        self.killed = Some(Killed { pid: number(process), at });
    }
}

/// The next news of a child or tracee of this thread; none when there are no more.
fn next(flags: WaitPidFlag) -> Option<WaitStatus> {
    loop {
        match waitpid(None, Some(flags | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(status) => return Some(status),
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return None,
            Err(errno) => panic!("{errno}"),
        }
    }
}

fn seize(thread: Pid, options: Options) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ptrace::seize(thread, options) {
            // A thread that has ended.
            Ok(()) | Err(Errno::ESRCH) => return,
            // Traced from its beginning, by this thread.
            Err(Errno::EPERM) if tracer_of(thread) == Some(gettid()) => return,
            // The last tracer is just going.
            Err(Errno::EPERM) if Instant::now() < deadline => std::thread::yield_now(),
            Err(errno) => panic!("{thread} cannot be traced: {errno}"),
        }
    }
}

fn is_at_entry(thread: Pid) -> bool {
    ptrace::syscall_info(thread).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY)
}

fn tracer_of(thread: Pid) -> Option<Pid> {
    Some(Pid::from_raw(status(thread, "TracerPid:")?))
}

fn process_of(thread: Pid) -> Pid {
    status(thread, "Tgid:").map_or(thread, Pid::from_raw)
}

fn status(thread: Pid, field: &str) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(field))?.trim().parse().ok()
}

/// Whether every thread of a process waits for something. So does one that is gone.
fn is_asleep(process: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok()).all(|stat| {
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['S', 'Z', 'X']))
    })
}

fn number(pid: Pid) -> u32 {
    pid.as_raw().unsigned_abs()
}
