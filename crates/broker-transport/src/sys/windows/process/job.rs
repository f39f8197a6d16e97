//! The job object that holds a child and what it starts.
//!
//! Invariant: a job whose processes are to end with this one has no handle outside of this process. Dropping it
//! here lets them be; only the end of this process, which drops nothing, closes it as it was made.

use std::io;
use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::ptr::null;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::JobObjects::{
    CreateJobObjectW, JOB_OBJECT_LIMIT, JOB_OBJECT_LIMIT_BREAKAWAY_OK, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation, SetInformationJobObject,
    TerminateJobObject,
};

use super::super::calls::{done, owned};
use super::exit_code;
use crate::process::{ParentDeath, StopSignal};

#[derive(Debug)]
pub(super) struct Job(OwnedHandle);

/// What a child starts may ask to be outside, as a daemon that is to live on does.
const OPEN: JOB_OBJECT_LIMIT = JOB_OBJECT_LIMIT_BREAKAWAY_OK;

impl Job {
    pub(super) fn new(parent_death: ParentDeath) -> io::Result<Self> {
        // SAFETY: without a name and with default rights; the handle is new and not inherited.
        let job = Self(unsafe { owned(CreateJobObjectW(null(), null())) }?);
        job.limit(match parent_death {
            ParentDeath::Terminate => OPEN | JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
            ParentDeath::Survive => OPEN,
        })?;
        Ok(job)
    }

    pub(super) fn raw(&self) -> HANDLE {
        self.0.as_raw_handle()
    }

    /// Ends every process in it.
    pub(super) fn end(&self, stop: StopSignal) -> io::Result<()> {
        // SAFETY: the handle is open.
        done(unsafe { TerminateJobObject(self.raw(), exit_code(stop)) })
    }

    fn limit(&self, limit: JOB_OBJECT_LIMIT) -> io::Result<()> {
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        limits.BasicLimitInformation.LimitFlags = limit;
        // SAFETY: the handle is open, and the structure is the one of this class.
        done(unsafe {
            SetInformationJobObject(
                self.raw(),
                JobObjectExtendedLimitInformation,
                (&raw const limits).cast(),
                size_of_val(&limits) as u32,
            )
        })
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Err(error) = self.limit(OPEN) {
            tracing::debug!(%error, "what an ended child has started ends with it");
        }
    }
}
