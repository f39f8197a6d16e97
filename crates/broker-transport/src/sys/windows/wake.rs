//! Waking tasks when an event is set.
//!
//! A thread of the system's pool waits on many events at once (`CreateThreadpoolWait`). Invariant: nobody is
//! woken by a value that was dropped, so what the pool's thread uses lives as long as the wait.

use std::ffi::c_void;
use std::io;
use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::ptr::null;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use windows_sys::Win32::System::Threading::{
    CloseThreadpoolWait, CreateThreadpoolWait, PTP_CALLBACK_INSTANCE, PTP_WAIT, SetThreadpoolWait,
    WaitForThreadpoolWaitCallbacks,
};

/// The tasks that wait for the same news.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    waiting: Mutex<Vec<Waker>>,
}

impl Wakers {
    /// Has a task woken by the next news. One that waits already is not added again.
    pub(super) fn add(&self, context: &Context<'_>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
    }

    pub(super) fn wake_all(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Has tasks woken when an event is set.
#[derive(Debug)]
pub(super) struct EventWatch {
    wait: PTP_WAIT,
    wakers: Arc<Wakers>,
}

impl EventWatch {
    pub(super) fn new(wakers: Arc<Wakers>) -> io::Result<Self> {
        let context = Arc::as_ptr(&wakers).cast_mut().cast();
        // SAFETY: the context lives for as long as `wakers` does, which is longer than the wait.
        let wait = unsafe { CreateThreadpoolWait(Some(on_event), context, null()) };
        if wait == 0 { Err(io::Error::last_os_error()) } else { Ok(Self { wait, wakers }) }
    }

    pub(super) fn wakers(&self) -> &Wakers {
        &self.wakers
    }

    /// Watches an event from now on, until it has been set once. The event outlives the watch.
    pub(super) fn watch(&self, event: &OwnedHandle) {
        // SAFETY: both are open.
        unsafe { SetThreadpoolWait(self.wait, event.as_raw_handle(), null()) };
    }
}

impl Drop for EventWatch {
    fn drop(&mut self) {
        // SAFETY: the wait is open, and closed only here. After the second call the pool does not come back
        // to it, so the event and the context may go.
        unsafe {
            SetThreadpoolWait(self.wait, std::ptr::null_mut(), null());
            WaitForThreadpoolWaitCallbacks(self.wait, 1);
            CloseThreadpoolWait(self.wait);
        }
    }
}

unsafe extern "system" fn on_event(_: PTP_CALLBACK_INSTANCE, context: *mut c_void, _: PTP_WAIT, _: u32) {
    // SAFETY: from `EventWatch::new`, and alive until no callback runs any more.
    unsafe { &*context.cast::<Wakers>() }.wake_all();
}
