//! Creating a process from a plan (CreateProcessW, UpdateProcThreadAttribute).
//!
//! Invariant: a process that was created is in its job and has the handles of its plan, or it does not run.

use std::ffi::c_void;
use std::io;
use std::mem::zeroed;
use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_BAD_EXE_FORMAT, ERROR_BAD_FORMAT, ERROR_DIRECTORY, ERROR_ELEVATION_REQUIRED,
    ERROR_EXE_MACHINE_TYPE_MISMATCH, ERROR_FILE_NOT_FOUND, ERROR_INVALID_NAME, ERROR_PATH_NOT_FOUND,
    ERROR_SHARING_VIOLATION, HANDLE,
};
use windows_sys::Win32::System::Threading::{
    CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW, CREATE_UNICODE_ENVIRONMENT, CreateProcessW,
    DeleteProcThreadAttributeList, EXTENDED_STARTUPINFO_PRESENT, InitializeProcThreadAttributeList,
    LPPROC_THREAD_ATTRIBUTE_LIST, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, PROC_THREAD_ATTRIBUTE_JOB_LIST,
    PROCESS_INFORMATION, STARTF_USESTDHANDLES, STARTUPINFOEXW, UpdateProcThreadAttribute,
};

use super::super::calls::{done, owned};
use super::job::Job;
use super::plan::Plan;
use crate::process::ExecFailure;

/// No window, and out of reach of what this process's console sends.
const FLAGS: u32 =
    CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP | CREATE_UNICODE_ENVIRONMENT | EXTENDED_STARTUPINFO_PRESENT;

/// Starts the planned process in a job.
pub(super) fn create(mut plan: Plan, job: &Job) -> io::Result<(u32, OwnedHandle)> {
    let (handles, jobs) = (plan.handles(), [job.raw()]);
    let mut attributes = Attributes::with_room_for(2)?;
    attributes.add(PROC_THREAD_ATTRIBUTE_HANDLE_LIST, &handles)?;
    attributes.add(PROC_THREAD_ATTRIBUTE_JOB_LIST, &jobs)?;
    // SAFETY: these are plain values, for which zero means nothing.
    let (mut startup, mut made): (STARTUPINFOEXW, PROCESS_INFORMATION) = unsafe { zeroed() };
    startup.StartupInfo.cb = size_of::<STARTUPINFOEXW>() as u32;
    startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
    startup.StartupInfo.hStdInput = plan.null.as_raw_handle();
    startup.StartupInfo.hStdOutput = plan.null.as_raw_handle();
    startup.StartupInfo.hStdError = plan.stderr.as_ref().unwrap_or(&plan.null).as_raw_handle();
    startup.lpAttributeList = attributes.raw();
    // SAFETY: the texts end with NUL and the block with two; the command line may be written to; the attributes
    // and what they point to live longer than the call.
    done(unsafe {
        CreateProcessW(
            plan.program.as_ptr(),
            plan.command_line.as_mut_ptr(),
            null(),
            null(),
            1,
            FLAGS,
            plan.environment.as_ptr().cast(),
            plan.directory.as_ptr(),
            &raw const startup.StartupInfo,
            &raw mut made,
        )
    })?;
    // SAFETY: the call has just made both; the thread's is not needed.
    unsafe {
        drop(owned(made.hThread));
        Ok((made.dwProcessId, owned(made.hProcess)?))
    }
}

/// What a caller can tell about a failed `CreateProcessW`.
pub(super) fn exec_failure(error: &io::Error) -> ExecFailure {
    match error.raw_os_error().map(i32::cast_unsigned) {
        Some(ERROR_FILE_NOT_FOUND | ERROR_PATH_NOT_FOUND | ERROR_INVALID_NAME | ERROR_DIRECTORY) => {
            ExecFailure::NotFound
        }
        Some(ERROR_ACCESS_DENIED | ERROR_ELEVATION_REQUIRED) => ExecFailure::PermissionDenied,
        Some(ERROR_BAD_EXE_FORMAT | ERROR_BAD_FORMAT | ERROR_EXE_MACHINE_TYPE_MISMATCH) => {
            ExecFailure::WrongFormat
        }
        Some(ERROR_SHARING_VIOLATION) => ExecFailure::Busy,
        _ => ExecFailure::Other,
    }
}

/// A list of attributes for a new process. What it points to has to outlive it.
struct Attributes<'a> {
    /// In words, so that it is aligned for whatever the system keeps in it.
    memory: Vec<usize>,
    values: std::marker::PhantomData<&'a [HANDLE]>,
}

impl<'a> Attributes<'a> {
    fn with_room_for(count: u32) -> io::Result<Self> {
        let mut bytes = 0;
        // SAFETY: without a list only the size is written to; the call fails by design.
        unsafe { InitializeProcThreadAttributeList(null_mut(), count, 0, &raw mut bytes) };
        let mut memory = vec![0; bytes.div_ceil(size_of::<usize>())];
        // SAFETY: the memory has as many bytes as the system has asked for.
        done(unsafe {
            InitializeProcThreadAttributeList(memory.as_mut_ptr().cast(), count, 0, &raw mut bytes)
        })?;
        Ok(Self { memory, values: std::marker::PhantomData })
    }

    fn add(&mut self, attribute: u32, handles: &'a [HANDLE]) -> io::Result<()> {
        let value: *const c_void = handles.as_ptr().cast();
        // SAFETY: the list is initialised and has room left; the handles outlive it.
        done(unsafe {
            UpdateProcThreadAttribute(
                self.raw(),
                0,
                attribute as usize,
                value,
                size_of_val(handles),
                null_mut(),
                null(),
            )
        })
    }

    fn raw(&mut self) -> LPPROC_THREAD_ATTRIBUTE_LIST {
        self.memory.as_mut_ptr().cast()
    }
}

impl Drop for Attributes<'_> {
    fn drop(&mut self) {
        // SAFETY: the list was initialised.
        unsafe { DeleteProcThreadAttributeList(self.raw()) };
    }
}
