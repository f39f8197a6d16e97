//! Starting processes from a runtime's blocking threads.
//!
//! Creating a process waits for the disk, and for whoever scans what is executed. Invariant: a child whose
//! starter has gone away in the meantime is ended, as nobody knows of it.

use std::fs::File;
use std::io;

use super::child::ChildProcess;
use super::create::{create, exec_failure};
use super::job::Job;
use super::plan::prepare;
use crate::Unsupported;
use crate::identity::{self, IdentityError};
use crate::process::{SpawnCommand, SpawnError, StopSignal};
use crate::succession::{NotSucceeded, Succession};

/// Starts processes.
#[derive(Clone, Debug)]
pub struct Spawner {
    _nothing: (),
}

impl Spawner {
    /// A spawner. There is nothing to start on this platform.
    ///
    /// # Errors
    /// None.
    pub fn start() -> io::Result<Self> {
        Ok(Self { _nothing: () })
    }

    /// Does `work` with the spawner of this process, here.
    ///
    /// # Errors
    /// None.
    pub fn serve_here<R: Send + 'static>(work: impl FnOnce(Self) -> R + Send + 'static) -> io::Result<R> {
        Self::start().map(work)
    }

    /// Goes on as another program, which is not possible on this platform.
    pub fn succeed(&self, succession: Succession) -> NotSucceeded {
        let unsupported =
            Unsupported { operation: "going on as another program", platform: std::env::consts::OS };
        NotSucceeded { succession: Box::new(succession), source: unsupported.into() }
    }

    /// Starts a process.
    ///
    /// Cancelling may leave it unstarted, or ends it right away.
    ///
    /// # Errors
    /// [`SpawnError`]; nothing is left behind.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn spawn(&self, command: SpawnCommand) -> Result<ChildProcess, SpawnError> {
        let program = command.program.clone();
        match tokio::task::spawn_blocking(move || spawn(command)).await {
            Ok(child) => child.and_then(|unclaimed| unclaimed.claim(program)),
            // The runtime is going down.
            Err(error) => Err(SpawnError::Setup {
                program,
                stage: "wait for the start",
                source: io::Error::other(error),
            }),
        }
    }

    /// Opens the file that a process executes, which can be renamed meanwhile, but not changed.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn open_executable(&self, pid: u32) -> Result<File, IdentityError> {
        let opened = tokio::task::spawn_blocking(move || identity::open_process_executable(pid)).await;
        opened.unwrap_or_else(|gone| Err(identity::unreadable_process(pid, io::Error::other(gone))))
    }
}

fn spawn(command: SpawnCommand) -> Result<Unclaimed, SpawnError> {
    let program = command.program.clone();
    let setup = |stage, source| SpawnError::Setup { program: program.clone(), stage, source };
    let job =
        Job::new(command.parent_death).map_err(|source| setup("arrange for this process's death", source))?;
    let (plan, stderr) = prepare(command)?;
    let (pid, process) = create(plan, &job).map_err(|source| SpawnError::Exec {
        program: program.clone(),
        failure: exec_failure(&source),
        source,
    })?;
    let child = ChildProcess::adopt(pid, process, job, stderr);
    child.map(|child| Unclaimed(Some(child))).map_err(|source| setup("watch the child", source))
}

/// A child that its starter has not got yet.
struct Unclaimed(Option<ChildProcess>);

impl Unclaimed {
    fn claim(mut self, program: std::path::PathBuf) -> Result<ChildProcess, SpawnError> {
        let gone = || SpawnError::Setup {
            program,
            stage: "wait for the start",
            source: io::ErrorKind::NotFound.into(),
        };
        self.0.take().ok_or_else(gone)
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            // It may have ended by itself.
            let _ = child.signal(StopSignal::Kill);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::windows::io::{AsRawHandle, OwnedHandle};
    use std::path::Path;

    use windows_sys::Win32::Foundation::{HANDLE, HANDLE_FLAG_INHERIT, SetHandleInformation};
    use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_PIPE, GetFileType};

    use super::super::super::calls::done;
    use super::super::stderr_pipe;
    use super::super::watch::ProcessWatch;
    use super::*;
    use crate::process::{ExecFailure, Inherited};

    const NAMED: &str = "BROKER_TRANSPORT_TEST_NAMED";
    const UNNAMED: &str = "BROKER_TRANSPORT_TEST_UNNAMED";

    fn helper() -> SpawnCommand {
        let name = "sys::windows::process::spawner::tests::helper_with_two_numbers";
        ["--exact", name, "--ignored", "--nocapture"]
            .iter()
            .fold(SpawnCommand::new(std::env::current_exe().unwrap()), SpawnCommand::arg)
    }

    /// Whether the number in a variable is that of a pipe here.
    fn is_pipe(variable: &str) -> bool {
        let number: usize = std::env::var(variable).unwrap().parse().unwrap();
        // SAFETY: it only asks; where there is no such handle it says so.
        unsafe { GetFileType(number as HANDLE) == FILE_TYPE_PIPE }
    }

    /// Not a test of its own.
    #[test]
    #[ignore = "run by a_child_inherits_what_is_named_and_nothing_that_could_be_inherited"]
    fn helper_with_two_numbers() {
        match std::env::var(UNNAMED).as_deref() {
            Err(_) => return,
            Ok("wait") => loop {
                std::thread::park();
            },
            Ok(_) => {}
        }
        std::process::exit(i32::from(is_pipe(NAMED)) + 2 * i32::from(is_pipe(UNNAMED)));
    }

    fn inheritable_end() -> OwnedHandle {
        let (_, writer) = stderr_pipe::pair().unwrap();
        // SAFETY: the handle is open.
        let marked =
            unsafe { SetHandleInformation(writer.as_raw_handle(), HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT) };
        done(marked).unwrap();
        writer
    }

    #[tokio::test]
    async fn a_child_inherits_what_is_named_and_nothing_that_could_be_inherited() {
        // Many, as a child has handles of its own whose numbers may be the same.
        let unnamed: Vec<OwnedHandle> = (0..200).map(|_| inheritable_end()).collect();
        let last = unnamed.last().unwrap().as_raw_handle() as usize;
        let mut command = helper().env(UNNAMED, last.to_string());
        let (_reader, descriptor) = stderr_pipe::pair().unwrap();
        command.inherited.push(Inherited { variable: NAMED.into(), descriptor });
        let child = Spawner::start().unwrap().spawn(command).await.unwrap();
        assert_eq!(child.wait().await.unwrap().to_string(), "exit code 1");
    }

    #[test]
    fn a_child_whose_starter_has_gone_away_is_ended() {
        let unclaimed = spawn(helper().env(UNNAMED, "wait")).unwrap();
        let watch = ProcessWatch::open(unclaimed.0.as_ref().unwrap().pid()).unwrap();
        assert!(!watch.is_dead().unwrap());
        drop(unclaimed);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(watch.died()).unwrap();
    }

    #[test]
    fn a_batch_file_is_no_program_however_its_name_ends() {
        for name in ["a.bat", "a.CMD", "a.bat.", "a.cmd .. "] {
            let Err(error) = spawn(SpawnCommand::new(Path::new(r"C:\").join(name))) else { unreachable!() };
            let expected = ExecFailure::WrongFormat;
            assert!(matches!(&error, SpawnError::Exec { failure, .. } if *failure == expected), "{error}");
        }
    }

    #[test]
    fn a_listener_is_not_passed() {
        let mut command = helper();
        command.listen_fd = Some(inheritable_end());
        let Err(error) = spawn(command) else { unreachable!() };
        assert!(error.to_string().contains("spawn.activation = bind"), "{error}");
        let SpawnError::Setup { source, .. } = error else { unreachable!() };
        assert_eq!(source.kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn what_is_no_program_has_the_wrong_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("garbage.exe");
        std::fs::write(&path, b"\0\x01garbage").unwrap();
        let Err(error) = spawn(SpawnCommand::new(path)) else { unreachable!() };
        let expected = ExecFailure::WrongFormat;
        assert!(matches!(&error, SpawnError::Exec { failure, .. } if *failure == expected), "{error:?}");
    }
}
