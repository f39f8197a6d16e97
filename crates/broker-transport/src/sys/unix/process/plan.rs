//! Everything a child needs, made ready before the fork.
//!
//! After a fork in a process with threads only async-signal-safe calls are allowed, so nothing may be
//! allocated then. Invariant: every descriptor that the child places is numbered above all places, so
//! placing one never overwrites another.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::fcntl_dupfd_cloexec;

use super::super::super::os::process::{Bond, pipe};
use crate::process::{BaseEnv, LISTEN_NAME, ParentDeath, SpawnCommand, SpawnError, is_passed_on};

/// What the child is given.
pub(super) struct Plan {
    pub(super) program: CString,
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    /// Whether `LISTEN_PID` is added, which only the child can write.
    pub(super) has_listener: bool,
    /// The descriptors for places 0, 1, 2 and so on.
    pub(super) placed: Vec<OwnedFd>,
    /// Where the child reports that it failed; closed by a successful exec.
    pub(super) report: OwnedFd,
    pub(super) bond: Bond,
}

/// What the parent keeps.
pub(super) struct Ends {
    /// Reading end of the child's stderr, non-blocking.
    pub(super) stderr: OwnedFd,
    /// Reading end of the report.
    pub(super) report: OwnedFd,
}

pub(super) fn prepare(command: SpawnCommand) -> Result<(Plan, Ends), SpawnError> {
    let program_path = command.program.clone();
    if !program_path.is_absolute() {
        return Err(SpawnError::NotAbsolute { program: program_path });
    }
    let program = c_string(program_path.as_os_str())?;
    let mut argv = vec![program.clone()];
    for arg in &command.args {
        argv.push(c_string(arg)?);
    }
    let has_listener = command.listen_fd.is_some();
    let env = environment(&command)?;
    let failure =
        |source| SpawnError::Setup { program: program_path.clone(), stage: "make the descriptors", source };
    let bond = Bond::new(command.parent_death).map_err(|errno| failure(errno.into()))?;
    let (placed, stderr, report) = descriptors(command).map_err(failure)?;
    let plan = Plan { program, argv, env, has_listener, placed, report: report.1, bond };
    Ok((plan, Ends { stderr, report: report.0 }))
}

type Descriptors = (Vec<OwnedFd>, OwnedFd, (OwnedFd, OwnedFd));

fn descriptors(command: SpawnCommand) -> io::Result<Descriptors> {
    let null: OwnedFd = OpenOptions::new().read(true).write(true).open("/dev/null")?.into();
    let (stderr_read, stderr_write) = pipe()?;
    rustix::io::ioctl_fionbio(&stderr_read, true)?;
    let (report_read, report_write) = pipe()?;
    let stderr = match command.parent_death {
        ParentDeath::Terminate => stderr_write,
        // It is to outlive whoever reads the pipe, and must not die of its next word.
        ParentDeath::Survive => null.try_clone()?,
    };
    let mut sources = vec![null.try_clone()?, null, stderr];
    sources.extend(command.listen_fd);
    sources.extend(command.inherited.into_iter().map(|inherited| inherited.descriptor));
    let places = i32::try_from(sources.len()).map_err(io::Error::other)?;
    let above = |descriptor: OwnedFd| fcntl_dupfd_cloexec(descriptor.as_fd(), places);
    let placed = sources.into_iter().map(above).collect::<Result<Vec<_>, _>>()?;
    Ok((placed, stderr_read, (report_read, above(report_write)?)))
}

fn environment(command: &SpawnCommand) -> Result<Vec<CString>, SpawnError> {
    let mut variables: BTreeMap<OsString, OsString> = match command.base_env {
        BaseEnv::Inherit => std::env::vars_os().filter(|(name, _)| is_passed_on(name)).collect(),
        BaseEnv::Empty => BTreeMap::new(),
    };
    variables.extend(command.env.iter().cloned());
    let mut place = 3;
    if command.listen_fd.is_some() {
        variables.insert("LISTEN_FDS".into(), "1".into());
        variables.insert("LISTEN_FDNAMES".into(), LISTEN_NAME.into());
        variables.remove(OsStr::new("LISTEN_PID"));
        place += 1;
    }
    for inherited in &command.inherited {
        variables.insert(inherited.variable.clone(), place.to_string().into());
        place += 1;
    }
    variables.iter().map(|(name, value)| variable(name, value)).collect()
}

fn variable(name: &OsStr, value: &OsStr) -> Result<CString, SpawnError> {
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        let problem = "a variable's name is not empty and has no '='";
        return Err(SpawnError::Unpassable { text: name.to_owned(), problem });
    }
    let mut text = name.to_owned();
    text.push("=");
    text.push(value);
    c_string(&text)
}

fn c_string(text: &OsStr) -> Result<CString, SpawnError> {
    CString::new(text.as_bytes()).map_err(|error| SpawnError::Unpassable {
        text: OsString::from_vec(error.into_vec()),
        problem: "it has a NUL byte",
    })
}

impl Plan {
    /// The program's path.
    pub(super) fn program_path(&self) -> PathBuf {
        Path::new(OsStr::from_bytes(self.program.as_bytes())).to_path_buf()
    }
}
