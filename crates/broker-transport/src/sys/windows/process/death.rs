//! Learning of a process's death, without a thread that waits for it (RegisterWaitForSingleObject).
//!
//! The system's own thread tells of it. Invariants: what it is given is a key and no pointer, so that a call
//! that comes late finds nothing; and a wait is given up before the handle it waits for is closed.

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt::{self, Debug, Formatter};
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use windows_sys::Win32::Foundation::{HANDLE, WAIT_FAILED, WAIT_OBJECT_0};
use windows_sys::Win32::System::Threading::{
    GetExitCodeProcess, INFINITE, RegisterWaitForSingleObject, UnregisterWaitEx, WT_EXECUTEONLYONCE,
    WaitForSingleObject,
};

use super::super::calls::done;

/// The waits that are under way.
static WAITS: Mutex<Waits> = Mutex::new(Waits { next: 0, by_key: BTreeMap::new() });

struct Waits {
    next: usize,
    by_key: BTreeMap<usize, Wait>,
}

struct Wait {
    told: Arc<Notify>,
    is_over: bool,
    /// What nobody holds any more and is to live until the process's end.
    kept: Option<Box<dyn Any + Send>>,
}

/// The end of one process, which is to come or has come.
pub(super) struct Death {
    process: OwnedHandle,
    key: usize,
    /// The wait's handle, as a number: it may move between threads.
    wait: usize,
    told: Arc<Notify>,
}

impl Death {
    /// Waits for the end of a process; the handle permits it (`SYNCHRONIZE`).
    pub(super) fn of(process: OwnedHandle) -> io::Result<Self> {
        let told = Arc::new(Notify::new());
        let key = {
            let mut waits = waits();
            let key = waits.next;
            waits.next += 1;
            waits.by_key.insert(key, Wait { told: Arc::clone(&told), is_over: false, kept: None });
            key
        };
        let mut wait: HANDLE = null_mut();
        // SAFETY: the handle stays open until the wait is given up (`drop`); the key is no pointer.
        let registered = done(unsafe {
            RegisterWaitForSingleObject(
                &raw mut wait,
                process.as_raw_handle(),
                Some(ended),
                key as *const c_void,
                INFINITE,
                WT_EXECUTEONLYONCE,
            )
        });
        match registered {
            Ok(()) => Ok(Self { process, key, wait: wait as usize, told }),
            Err(error) => {
                waits().by_key.remove(&key);
                Err(error)
            }
        }
    }

    /// Whether it has come.
    pub(super) fn is_here(&self) -> io::Result<bool> {
        // SAFETY: the handle is open.
        match unsafe { WaitForSingleObject(self.process.as_raw_handle(), 0) } {
            WAIT_OBJECT_0 => Ok(true),
            WAIT_FAILED => Err(io::Error::last_os_error()),
            _ => Ok(false),
        }
    }

    /// Returns when it has come. Cancel-safe.
    pub(super) async fn comes(&self) -> io::Result<()> {
        loop {
            // Before the look: from its making on it misses nothing.
            let told = self.told.notified();
            if self.is_here()? {
                return Ok(());
            }
            told.await;
        }
    }

    /// The exit code, once it has come.
    pub(super) fn exit_code(&self) -> io::Result<u32> {
        let mut code = 0;
        // SAFETY: the handle is open, and the code is written to.
        done(unsafe { GetExitCodeProcess(self.process.as_raw_handle(), &raw mut code) })?;
        Ok(code)
    }

    /// The process.
    pub(super) fn process(&self) -> BorrowedHandle<'_> {
        self.process.as_handle()
    }

    /// Keeps something, and this, until the process's end.
    pub(super) fn keep(self, something: impl Send + 'static) {
        let key = self.key;
        let kept: Box<dyn Any + Send> = Box::new((something, self));
        let not_kept = match waits().by_key.get_mut(&key) {
            Some(wait) if !wait.is_over => wait.kept.replace(kept),
            // The end has come just before.
            Some(_) | None => Some(kept),
        };
        // Not while the waits are locked, which this drops its own of.
        drop(not_kept);
    }
}

impl Drop for Death {
    fn drop(&mut self) {
        let wait = waits().by_key.remove(&self.key);
        // SAFETY: the wait was registered and is given up once. It does not wait for a call under way, which
        // may be the very one that drops this, and which touches nothing of this.
        unsafe { UnregisterWaitEx(self.wait as HANDLE, null_mut()) };
        drop(wait);
    }
}

impl Debug for Death {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Death").field(&self.process).finish()
    }
}

/// Called by the system when a process has ended.
///
/// # Safety
/// None is needed: the context is a number.
unsafe extern "system" fn ended(context: *mut c_void, _is_timeout: bool) {
    let (told, kept) = {
        let mut waits = waits();
        let Some(wait) = waits.by_key.get_mut(&(context as usize)) else { return };
        wait.is_over = true;
        (Arc::clone(&wait.told), wait.kept.take())
    };
    told.notify_waiters();
    drop(kept);
}

fn waits() -> MutexGuard<'static, Waits> {
    WAITS.lock().unwrap_or_else(PoisonError::into_inner)
}
