//! Everything a child needs, made ready before it is created.
//!
//! Invariant: copies that a child may inherit exist only as long as this does, and it is made right before the
//! child and dropped right behind it.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{DUPLICATE_SAME_ACCESS, DuplicateHandle, HANDLE};
use windows_sys::Win32::System::SystemInformation::GetSystemWindowsDirectoryW;
use windows_sys::Win32::System::Threading::GetCurrentProcess;

use super::super::calls::{done, owned, text, wide};
use super::command_line::{self, MAX_COMMAND_LINE};
use super::environment::{Environment, SYSTEM_ROOT};
use super::stderr_pipe;
use crate::process::{ExecFailure, ParentDeath, SpawnCommand, SpawnError};
use crate::unsupported::Unsupported;

pub(super) const NUL_INSIDE: &str = "it has a NUL character";

/// What the child is given.
pub(super) struct Plan {
    pub(super) program: Vec<u16>,
    pub(super) command_line: Vec<u16>,
    pub(super) environment: Vec<u16>,
    pub(super) directory: Vec<u16>,
    /// For standard input and output.
    pub(super) null: OwnedHandle,
    /// For standard error, where it is not the same.
    pub(super) stderr: Option<OwnedHandle>,
    pub(super) inherited: Vec<OwnedHandle>,
}

/// Makes a child ready; the other result is where its stderr can be read.
pub(super) fn prepare(command: SpawnCommand) -> Result<(Plan, Option<OwnedHandle>), SpawnError> {
    let path = command.program.clone();
    let setup = |stage| {
        let program = path.clone();
        move |source| SpawnError::Setup { program, stage, source }
    };
    if !path.is_absolute() {
        return Err(SpawnError::NotAbsolute { program: path });
    }
    refuse_batch_file(&path)?;
    if command.listen_fd.is_some() {
        let operation = "passing a listener (use `spawn.activation = bind`)";
        let unsupported = Unsupported { operation, platform: std::env::consts::OS };
        return Err(setup("pass the listener")(unsupported.into()));
    }
    let program = units(path.as_os_str())?;
    let command_line = command_line(&command)?;
    let root = windows_directory().map_err(setup("find the system's directory"))?;
    let mut environment = Environment::of(command.base_env);
    environment.insert_missing(SYSTEM_ROOT, root.as_os_str());
    for (name, value) in command.env {
        environment.insert(name, value);
    }
    let mut inherited = Vec::with_capacity(command.inherited.len());
    for named in command.inherited {
        let copy = inheritable(named.descriptor).map_err(setup("copy a handle"))?;
        environment.insert(named.variable, (copy.as_raw_handle() as usize).to_string().into());
        inherited.push(copy);
    }
    let null = null_device().map_err(setup("open the null device"))?;
    let (stderr, reader) = match command.parent_death {
        ParentDeath::Terminate => {
            let (reader, writer) = stderr_pipe::pair().map_err(setup("make a pipe"))?;
            (Some(inheritable(writer).map_err(setup("copy a handle"))?), Some(reader))
        }
        // It is to outlive whoever reads the pipe.
        ParentDeath::Survive => (None, None),
    };
    let directory = wide(root.as_os_str()).map_err(setup("find the system's directory"))?;
    let environment = environment.to_block()?;
    Ok((Plan { program, command_line, environment, directory, null, stderr, inherited }, reader))
}

impl Plan {
    /// The handles that the child inherits, each once.
    pub(super) fn handles(&self) -> Vec<HANDLE> {
        let own = std::iter::once(&self.null).chain(&self.stderr);
        own.chain(&self.inherited).map(AsRawHandle::as_raw_handle).collect()
    }
}

pub(super) fn unpassable(text: &OsStr, problem: &'static str) -> SpawnError {
    SpawnError::Unpassable { text: text.to_owned(), problem }
}

/// The command interpreter would run it, and it takes a line apart by other rules: an argument could be a command.
fn refuse_batch_file(program: &Path) -> Result<(), SpawnError> {
    let name = program.file_name().unwrap_or_default().to_ascii_lowercase();
    // The system ignores dots and spaces at the end of a name.
    let name = name.to_string_lossy();
    let name = name.trim_end_matches(['.', ' ']);
    if name.ends_with(".bat") || name.ends_with(".cmd") {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "a batch file is no program");
        return Err(SpawnError::Exec {
            program: program.to_path_buf(),
            failure: ExecFailure::WrongFormat,
            source,
        });
    }
    Ok(())
}

fn units(text: &OsStr) -> Result<Vec<u16>, SpawnError> {
    wide(text).map_err(|_| unpassable(text, NUL_INSIDE))
}

fn command_line(command: &SpawnCommand) -> Result<Vec<u16>, SpawnError> {
    let mut args = Vec::with_capacity(command.args.len());
    for arg in &command.args {
        let mut arg = units(arg)?;
        arg.pop();
        args.push(arg);
    }
    let program = command.program.as_os_str();
    let path: Vec<u16> = program.encode_wide().collect();
    if path.contains(&(b'"' as u16)) {
        return Err(unpassable(program, "a path has no quote in it"));
    }
    let line = command_line::join(&path, args.iter().map(Vec::as_slice));
    if line.len() > MAX_COMMAND_LINE {
        return Err(unpassable(program, "its arguments are longer than Windows passes on"));
    }
    Ok(line)
}

/// Where a child stands: a directory that is always there and that only the system writes to.
fn windows_directory() -> io::Result<PathBuf> {
    const ROOM: usize = 512;
    let mut buffer = [0; ROOM];
    // SAFETY: the buffer has the room that is given.
    match unsafe { GetSystemWindowsDirectoryW(buffer.as_mut_ptr(), ROOM as u32) } {
        0 => Err(io::Error::last_os_error()),
        length if (length as usize) < ROOM => Ok(PathBuf::from(text(&buffer))),
        _ => Err(io::ErrorKind::InvalidFilename.into()),
    }
}

fn null_device() -> io::Result<OwnedHandle> {
    inheritable(OpenOptions::new().read(true).write(true).open("NUL")?.into())
}

/// A copy that may be inherited; the original is closed.
fn inheritable(handle: OwnedHandle) -> io::Result<OwnedHandle> {
    let mut copy: HANDLE = null_mut();
    // SAFETY: the handle is open and belongs to this process, as the copy does.
    let is_made = unsafe {
        let own = GetCurrentProcess();
        DuplicateHandle(own, handle.as_raw_handle(), own, &raw mut copy, 0, 1, DUPLICATE_SAME_ACCESS)
    };
    done(is_made)?;
    // SAFETY: the call has just made it.
    unsafe { owned(copy) }
}
