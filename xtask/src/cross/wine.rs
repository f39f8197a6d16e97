//! A Wine of our own: its own prefix, its own server, and the one library that Rust's programs miss in it.
//!
//! Whatever happens, nothing of it runs on when it is dropped. A person's own Wine is neither used nor changed.

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::toolchain::works;
use crate::workspace::{TaskError, TaskResult, root};

/// The C compiler for Windows.
pub(super) const MINGW: &str = "x86_64-w64-mingw32-gcc";
/// What Wine 8 lacks, and where ours is written.
const MISSING_DLL: (&str, &str) = ("bcryptprimitives.dll", "xtask/wine/bcryptprimitives.c");
/// How long the server may take to listen, and to end.
const SERVER_LIMIT: Duration = Duration::from_secs(30);
/// How long the first start may take: it writes the prefix.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How often an end is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// The task that runs one Windows program.
pub(crate) const RUNNER: &str = "under-wine";
/// How often a list of tests is asked for: Wine now and then fails to begin a process. A test that fails is for
/// its runner to try again.
const ATTEMPTS_TO_LIST: u32 = 4;

/// Runs a Windows program in the Wine that the environment names, and ends as it does.
///
/// # Errors
/// There is no Wine.
pub(crate) fn run_program(program: &[&str]) -> Result<ExitCode, TaskError> {
    let attempts = if program.contains(&"--list") { ATTEMPTS_TO_LIST } else { 1 };
    for _ in 1..attempts {
        let output = Command::new("wine").args(program).stdin(Stdio::null()).output()?;
        if output.status.success() {
            io::stdout().write_all(&output.stdout)?;
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("wine: {}, once more", output.status);
    }
    let status = Command::new("wine").args(program).status()?;
    // What a signal has ended has no code; 1 is nobody's own.
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// A Wine that runs.
pub(super) struct Wine {
    prefix: PathBuf,
    server: Child,
}

impl Wine {
    /// Starts its server and its services, and gives it what it lacks.
    pub(super) fn start(folder: &Path) -> Result<Self, TaskError> {
        let prefix = folder.join("wine-prefix");
        fs::create_dir_all(&prefix)?;
        // It goes on as long as we do: a server that ends with each test costs a second each time.
        let mut server = Command::new("wineserver");
        set_environment(&mut server, &prefix);
        silence(&mut server);
        let server = server.args(["--foreground", "--persistent"]).spawn()?;
        let mut wine = Self { prefix, server };
        wine.wait_until_it_listens()?;
        // The services inherit the output of whoever starts them, and would hold a test's open for ever.
        let mut boot = Command::new("wineboot");
        set_environment(&mut boot, &wine.prefix);
        silence(&mut boot);
        // Here it makes links into the home directory, for which there is no need.
        boot.arg("--init").env("HOME", &wine.prefix);
        match finish(&mut boot.spawn()?, BOOT_LIMIT)? {
            Some(status) if status.success() => {}
            Some(status) => return Err(format!("wineboot failed: {status}").into()),
            None => return Err(format!("wineboot took longer than {} s", BOOT_LIMIT.as_secs()).into()),
        }
        wine.add_missing_dll()?;
        Ok(wine)
    }

    /// Where every program finds it: a test may copy one to another place.
    fn add_missing_dll(&self) -> TaskResult {
        let (name, source) = MISSING_DLL;
        let mut compiler = Command::new(MINGW);
        compiler.args(["-shared", "-Os", "-s", "-Wall", "-Werror", "-o"]);
        compiler.arg(self.prefix.join("drive_c/windows/system32").join(name));
        compiler.arg(root().join(source)).arg("-ladvapi32");
        if compiler.status()?.success() {
            Ok(())
        } else {
            Err(format!("{MINGW} cannot build {source}").into())
        }
    }

    /// Has the tests that this cargo builds for `triple` run here.
    pub(super) fn make_runner_of(&self, cargo: &mut Command, triple: &str) -> TaskResult {
        set_environment(cargo, &self.prefix);
        let triple = triple.replace('-', "_").to_uppercase();
        let us = env::current_exe()?;
        cargo.env(format!("CARGO_TARGET_{triple}_RUNNER"), format!("{} {RUNNER}", us.display()));
        Ok(())
    }

    /// Runs a command that needs this Wine, and ends it when its time is over.
    pub(super) fn run(&mut self, command: &mut Command, limit: Duration) -> TaskResult {
        match finish(&mut command.spawn()?, limit)? {
            Some(status) if status.success() => Ok(()),
            Some(_) => Err("Windows tests failed".into()),
            None => Err(format!("the Windows tests took longer than {} s", limit.as_secs()).into()),
        }
    }

    fn wait_until_it_listens(&mut self) -> TaskResult {
        let deadline = Instant::now() + SERVER_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.server.try_wait()? {
                let prefix = self.prefix.display();
                return Err(format!(
                    "wineserver ended at once: {status}; does one run for {prefix} already?"
                )
                .into());
            }
            // Signal 0 asks whether there is one.
            let mut question = Command::new("wineserver");
            set_environment(&mut question, &self.prefix);
            if works(question.arg("-k0")) {
                return Ok(());
            }
            sleep(LOOK);
        }
        Err(format!("wineserver does not listen after {} s", SERVER_LIMIT.as_secs()).into())
    }
}

impl Drop for Wine {
    fn drop(&mut self) {
        // Interrupted, it ends every Windows process before itself; killed, it would leave them behind.
        let mut interrupt = Command::new("sh");
        works(interrupt.args(["-c", "kill -INT \"$0\""]).arg(self.server.id().to_string()));
        // Then there is nobody left to tell of a failure.
        let _ = finish(&mut self.server, SERVER_LIMIT);
    }
}

fn set_environment(command: &mut Command, prefix: &Path) {
    command
        .env("WINEPREFIX", prefix)
        // Neither .NET nor a browser: the first start would ask whether to fetch them.
        .env("WINEDLLOVERRIDES", "mscoree,mshtml=")
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY");
    if env::var_os("WINEDEBUG").is_none() {
        command.env("WINEDEBUG", "-all");
    }
}

fn silence(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
}

/// Waits for a process's end, which it makes itself when the time is over: then there is no status.
fn finish(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        sleep(LOOK);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_a_prefix_of_its_own_and_no_display() {
        let mut command = Command::new("wine");
        set_environment(&mut command, Path::new("/p"));
        let set = |name: &str| command.get_envs().find(|(known, _)| *known == name).map(|(_, value)| value);
        assert_eq!(set("WINEPREFIX"), Some(Some("/p".as_ref())));
        assert_eq!(set("DISPLAY"), Some(None));
    }

    #[test]
    fn a_process_that_takes_too_long_is_ended() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(finish(&mut child, Duration::from_millis(1)).unwrap(), None);
        assert!(child.try_wait().unwrap().is_some());
    }

    #[test]
    fn a_process_that_ends_in_time_has_a_status() {
        let mut child = Command::new("true").spawn().unwrap();
        assert!(finish(&mut child, Duration::from_secs(60)).unwrap().unwrap().success());
    }
}
