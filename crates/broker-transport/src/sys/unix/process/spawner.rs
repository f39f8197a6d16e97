//! The one thread that forks, and reaps what nobody waits for.
//!
//! Linux sends a child its parent-death signal when the *thread* that forked it ends
//! (PR_SET_PDEATHSIG(2const)). Invariant: all forks happen on this thread, and it never ends before the
//! process does. Nothing here decides; requests come over a queue and answers go back.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::super::super::os::process::{Handle, Wake, own_exec_failure};
use super::super::signals;
use super::super::succession::become_successor;
use super::child::{ChildProcess, kill_group};
use super::exec::{REPORT_LEN, Stage, fork_and_exec};
use super::plan::{Plan, prepare};
use super::request_queue::RequestQueue;
use crate::identity::{self, IdentityError};
use crate::process::{ExecFailure, SpawnCommand, SpawnError};
use crate::succession::{NotSucceeded, Succession};

/// Stack of the thread that does the work meanwhile, in bytes: what a process's first thread has by default.
const STACK: usize = 8 * 1024 * 1024;

/// The one of this process, once it was started.
static RUNNING: Mutex<Option<Spawner>> = Mutex::new(None);

/// Starts processes. Clones and further starts share the one thread of this process.
#[derive(Clone, Debug)]
pub struct Spawner {
    queue: Arc<RequestQueue<Request, Wake>>,
}

#[derive(Debug)]
enum Request {
    Spawn(Box<SpawnCommand>, oneshot::Sender<Result<Unclaimed, SpawnError>>),
    Reap(Orphan),
    Open(u32, oneshot::Sender<Result<File, IdentityError>>),
    Succeed(Box<Succession>, mpsc::Sender<NotSucceeded>),
    /// Whoever has work for the thread has done it.
    Finish,
}

/// A child as the thread made it.
#[derive(Debug)]
pub(super) struct RawChild {
    pub(super) pid: u32,
    pub(super) handle: Handle,
    pub(super) stderr: OwnedFd,
}

/// A child that its starter has not got yet. Nobody else knows of it: it is killed where it is dropped.
#[derive(Debug)]
struct Unclaimed {
    child: Option<RawChild>,
    spawner: Spawner,
}

impl Unclaimed {
    fn claim(mut self) -> io::Result<ChildProcess> {
        let child = self.child.take().ok_or(io::ErrorKind::NotFound)?;
        ChildProcess::adopt(child, &self.spawner)
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(RawChild { pid, handle, .. }) = self.child.take() {
            self.spawner.reap(Orphan::to_kill(pid, handle));
        }
    }
}

/// A child that nobody waits for any more.
#[derive(Debug)]
pub(crate) struct Orphan {
    pid: u32,
    handle: Handle,
    is_unwanted: bool,
}

impl Orphan {
    /// One that may live on; it is reaped when it ends.
    pub(crate) const fn to_await(pid: u32, handle: Handle) -> Self {
        Self { pid, handle, is_unwanted: false }
    }

    /// One that nobody ever knew of; it is killed with its process group.
    pub(super) const fn to_kill(pid: u32, handle: Handle) -> Self {
        Self { pid, handle, is_unwanted: true }
    }
}

impl Spawner {
    /// The spawner of this process, started if need be.
    ///
    /// Where SIGCHLD is ignored, its default disposition is restored: an ignored one would make the
    /// kernel reap children behind our back, and their exit status would be lost.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn start() -> io::Result<Self> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spawner) = &*running {
            return Ok(spawner.clone());
        }
        keep_children_waitable();
        let spawner = Self { queue: Arc::new(RequestQueue::new(Wake::new()?)) };
        let served = spawner.clone();
        std::thread::Builder::new().name("broker-spawner".into()).spawn(move || serve(&served))?;
        Ok(running.insert(spawner).clone())
    }

    /// Makes the calling thread, which is to be the process's first, the one that forks, and does `work` on
    /// another one meanwhile; returns when that is done. Nothing can be started any more then.
    ///
    /// As long as the process lives so does its first thread, also while another program takes its place
    /// ([`succeed`](Self::succeed)): children whose parent's death ends them notice nothing.
    ///
    /// # Errors
    /// No thread or descriptor is left, or this process has a spawner already.
    pub fn serve_here<R: Send + 'static>(work: impl FnOnce(Self) -> R + Send + 'static) -> io::Result<R> {
        let spawner = {
            let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            if running.is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            keep_children_waitable();
            let spawner = Self { queue: Arc::new(RequestQueue::new(Wake::new()?)) };
            running.insert(spawner).clone()
        };
        let served = spawner.clone();
        let finish = Finish(spawner.clone());
        let work = move || {
            let _finish = finish;
            work(spawner)
        };
        let worker = std::thread::Builder::new().name("broker-loop".into()).stack_size(STACK).spawn(work)?;
        serve(&served);
        worker.join().or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Goes on as another program. Returns only where that fails; the calling thread stands still meanwhile.
    ///
    /// Every thread ends, and no destructor runs.
    pub fn succeed(&self, succession: Succession) -> NotSucceeded {
        let (answer, answered) = mpsc::channel();
        let parts = Box::new(succession);
        self.queue.push(Request::Succeed(parts, answer));
        answered.recv().unwrap_or_else(|gone| NotSucceeded {
            succession: Box::default(),
            source: io::Error::other(gone),
        })
    }

    /// Starts a process. It is the program already when this returns: exec has succeeded.
    ///
    /// Cancelling may leave it unstarted, or kills it right away.
    ///
    /// # Errors
    /// [`SpawnError`]; nothing is left behind.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn spawn(&self, command: SpawnCommand) -> Result<ChildProcess, SpawnError> {
        let program = command.program.clone();
        let failure = |source| SpawnError::Setup { program, stage: "watch the child", source };
        let (answer, answered) = oneshot::channel();
        self.queue.push(Request::Spawn(Box::new(command), answer));
        match answered.await {
            Ok(child) => child?.claim().map_err(failure),
            // The thread does not end, so this does not happen; if it did, it would be no panic.
            Err(gone) => Err(failure(io::Error::other(gone))),
        }
    }

    /// Opens the very file that a process executes, whatever lies at its path by now.
    ///
    /// By this thread, as one in a sandbox may not look at processes outside of it.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn open_executable(&self, pid: u32) -> Result<File, IdentityError> {
        let (answer, answered) = oneshot::channel();
        self.queue.push(Request::Open(pid, answer));
        answered.await.unwrap_or_else(|gone| Err(identity::unreadable_process(pid, io::Error::other(gone))))
    }

    pub(crate) fn reap(&self, orphan: Orphan) {
        self.queue.push(Request::Reap(orphan));
    }
}

/// Ends [`serve`] when the work is done, or has panicked.
struct Finish(Spawner);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.queue.push(Request::Finish);
    }
}

fn serve(spawner: &Spawner) {
    // This thread handles no signal; and what it forks starts with all of them blocked.
    signals::block_all_here();
    let mut orphans: Vec<Orphan> = Vec::new();
    loop {
        while let Some(request) = spawner.queue.next() {
            match request {
                Request::Spawn(command, answer) if !answer.is_closed() => {
                    let child = spawn(*command, &mut orphans);
                    let unclaimed = |child| Unclaimed { child: Some(child), spawner: spawner.clone() };
                    // Who has asked may have gone, before it hears of it or after.
                    drop(answer.send(child.map(unclaimed)));
                }
                Request::Spawn(..) => {}
                Request::Reap(orphan) => orphans.push(kill(orphan)),
                // Who has asked may have gone.
                Request::Open(pid, answer) => drop(answer.send(identity::open_process_executable(pid))),
                Request::Succeed(succession, answer) => {
                    let left: Vec<_> = orphans.iter().map(|orphan| orphan.pid).collect();
                    // Who has asked waits for it.
                    let _ = answer.send(become_successor(succession, &left));
                }
                Request::Finish => return,
            }
        }
        // A failed reap leaves nothing to wait for.
        orphans.retain(|orphan| matches!(orphan.handle.reap(), Ok(None)));
        spawner.queue.sleep(|wake| {
            let mut descriptors = vec![PollFd::new(wake, PollFlags::IN)];
            descriptors.extend(orphans.iter().map(|orphan| PollFd::new(&orphan.handle, PollFlags::IN)));
            // Interrupted or out of memory: the loop looks again.
            let _ = poll(&mut descriptors, None);
        });
    }
}

fn kill(orphan: Orphan) -> Orphan {
    if orphan.is_unwanted {
        // It may have ended by itself.
        let _ = kill_group(orphan.pid);
    }
    orphan
}

/// What a child's bond needs is left to `orphans`.
fn spawn(command: SpawnCommand, orphans: &mut Vec<Orphan>) -> Result<RawChild, SpawnError> {
    let (plan, ends) = prepare(command)?;
    let program = plan.program_path();
    let setup = |stage, source| SpawnError::Setup { program: plan.program_path(), stage, source };
    let pid = fork_and_exec(&plan).map_err(|source| setup("fork", source))?.unsigned_abs();
    let handle = Handle::of_child(pid);
    let held = plan.bond.hold(pid, plan.report.as_fd()).map(|supervisor| orphans.extend(supervisor));
    // The child has its own copies; the report ends only when ours is closed, too.
    drop::<Plan>(plan);
    let setup = |stage, source| SpawnError::Setup { program: program.clone(), stage, source };
    let failure = match (read_report(ends.report), held, handle) {
        (Ok(None), Ok(()), Ok(handle)) => return Ok(RawChild { pid, handle, stderr: ends.stderr }),
        (Ok(Some((Stage::Exec, source))), ..) => {
            SpawnError::Exec { program: program.clone(), failure: exec_failure(&program, &source), source }
        }
        (Ok(Some((stage, source))), ..) => setup(stage.text(), source),
        (_, Err(source), _) => setup(Stage::ParentDeath.text(), source),
        (_, _, Err(errno)) => setup("watch the child", errno.into()),
        (Err(source), ..) => setup("hear from the child", source),
    };
    discard(pid);
    Err(failure)
}

/// Kills and reaps a child that came to nothing.
fn discard(pid: u32) {
    let _ = kill_group(pid);
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return };
    // Before it began its session it is in our own group, where `kill_group` finds nobody.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    while let Err(Errno::INTR) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()) {}
}

/// What a child reports before it exits; `None` when exec has closed the report.
fn read_report(report: OwnedFd) -> io::Result<Option<(Stage, io::Error)>> {
    let mut bytes = Vec::with_capacity(REPORT_LEN);
    File::from(report).read_to_end(&mut bytes)?;
    match bytes[..] {
        [] => Ok(None),
        [stage, a, b, c, d] => {
            let error = io::Error::from_raw_os_error(i32::from_ne_bytes([a, b, c, d]));
            Ok(Some((Stage::from_number(stage).unwrap_or(Stage::Exec), error)))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a child's report was cut")),
    }
}

fn exec_failure(program: &Path, error: &io::Error) -> ExecFailure {
    let errno = Errno::from_io_error(error);
    if let Some(failure) = errno.and_then(|errno| own_exec_failure(program, errno)) {
        return failure;
    }
    match errno {
        Some(Errno::NOENT | Errno::NOTDIR) => ExecFailure::NotFound,
        Some(Errno::ACCESS | Errno::PERM) => ExecFailure::PermissionDenied,
        Some(Errno::NOEXEC) => ExecFailure::WrongFormat,
        Some(Errno::TXTBSY) => ExecFailure::Busy,
        _ => ExecFailure::Other,
    }
}

fn keep_children_waitable() {
    // SAFETY: both structures are initialised, by zeroing and by the first call; a handler that
    // somebody installed is left alone.
    unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        let is_known = libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut current) == 0;
        if is_known && current.sa_sigaction == libc::SIG_IGN {
            current.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(libc::SIGCHLD, &raw const current, std::ptr::null_mut());
        }
    }
}
