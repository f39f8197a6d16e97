//! The programs that cargo-fuzz builds, and how each is called.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use super::{Places, files_in, kept};
use crate::workspace::{TaskError, TaskResult, root};

/// Most memory in all, and for one allocation, in MiB: what comes in has at most 16 MiB, and is not copied often.
const MEMORY_MIB: u32 = 2_048;
const ALLOCATION_MIB: u32 = 64;

/// Longest time for one input, in seconds, on a machine that does other things too.
const INPUT_SECONDS: u32 = 25;

/// The built programs.
pub(super) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Builds all of them.
    pub(super) fn build() -> Result<Self, TaskError> {
        if !answers(nightly("rustc").arg("--version")) {
            return Err(
                "the fuzzer takes the nightly compiler; get it with `rustup toolchain install nightly`"
                    .into(),
            );
        }
        if !answers(nightly("cargo").args(["fuzz", "--version"])) {
            return Err("cargo-fuzz is not installed; get it with `cargo install cargo-fuzz`".into());
        }
        let build = root().join("target/fuzz/build");
        let mut cargo = nightly("cargo");
        cargo.args(["fuzz", "build", "--target-dir"]).arg(&build).current_dir(root());
        if !cargo.status()?.success() {
            return Err("`cargo fuzz build` failed".into());
        }
        Ok(Self { folder: build.join(host()?).join("release") })
    }

    /// Runs a target for so many seconds; what it says goes into its log.
    pub(super) fn fuzz(&self, target: &str, places: &Places, seconds: u64) -> Result<ExitStatus, TaskError> {
        for folder in [&places.found, &places.failures] {
            fs::create_dir_all(folder)?;
        }
        let log = create(&places.log)?;
        let mut program = self.program(target)?;
        program
            .args([format!("-max_total_time={seconds}"), "-print_final_stats=1".to_owned()])
            .args([format!("-rss_limit_mb={MEMORY_MIB}"), format!("-malloc_limit_mb={ALLOCATION_MIB}")])
            .args([
                format!("-timeout={INPUT_SECONDS}"),
                format!("-artifact_prefix={}/", places.failures.display()),
            ])
            // Inputs may soon be longer than the seeds, which are as short as they can be.
            .args(["-len_control=10"])
            .args([&places.found, &places.corpus]);
        Ok(program.stdout(log.try_clone()?).stderr(log).status()?)
    }

    /// Adds to the corpus what reaches most of what nothing in it reaches.
    pub(super) fn keep(&self, target: &str, places: &Places) -> TaskResult {
        let log = create(&places.log.with_extension("merge.log"))?;
        let control = places.log.with_extension("merge.control");
        let merged = tempfile::tempdir_in(temporary()?)?;
        let mut program = self.program(target)?;
        program
            .args(["-set_cover_merge=1", "-use_counters=0"])
            .arg(format!("-merge_control_file={}", control.display()))
            .args([merged.path(), &places.corpus, &places.found]);
        let _ = fs::remove_file(&control);
        if !program.stdout(log.try_clone()?).stderr(log).status()?.success() {
            return Err("what was found cannot be merged with the corpus".into());
        }
        let kept = files_in(&places.corpus);
        for input in kept::choose(&fs::read_to_string(&control)?, &places.corpus, kept)? {
            fs::copy(&input, places.corpus.join(input.file_name().unwrap_or_default()))?;
        }
        Ok(())
    }

    fn program(&self, target: &str) -> Result<Command, TaskError> {
        let mut program = Command::new(self.folder.join(target));
        program
            .env("TMPDIR", temporary()?)
            .env("ASAN_OPTIONS", "detect_odr_violation=0")
            .stdin(Stdio::null());
        Ok(program)
    }
}

/// Where a program leaves what it leaves behind when it is ended.
fn temporary() -> Result<PathBuf, TaskError> {
    let folder = root().join("target/fuzz/tmp");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn create(log: &Path) -> Result<File, TaskError> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(File::create(log)?)
}

/// A program of the nightly toolchain.
fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", program]);
    command
}

fn answers(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn host() -> Result<String, TaskError> {
    let version = nightly("rustc").arg("-vV").output()?;
    let version = String::from_utf8(version.stdout)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("`rustc -vV` names no host")?.to_owned())
}
