//! The write of an async stream that is under way.
//!
//! There is one at a time. Invariant: its bytes go out in full although its stream is dropped, unless the
//! peer does not read them within [`LINGER`], or the thread that dropped it ends before.

use std::ffi::c_void;
use std::io;
use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::ptr::null;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::System::Threading::{
    CloseThreadpoolWait, CreateThreadpoolWait, PTP_CALLBACK_INSTANCE, PTP_WAIT, SetThreadpoolWait,
};

use super::overlapped::{Call, Overlapped, is_cancelled};
use super::stream::WRITE_STEP;
use super::wake::{EventWatch, Wakers};

/// How long a dropped stream's last bytes wait for their reader. A socket would keep them for ever, but in
/// the kernel's memory and not with a handle of ours.
const LINGER: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Writing {
    pipe: Arc<OwnedHandle>,
    wakers: Arc<Wakers>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    /// Before the call, whose event it watches.
    watch: EventWatch,
    carried: Carried,
}

/// A call and its bytes.
#[derive(Debug)]
struct Carried {
    /// Before the bytes, as its end frees them.
    call: Overlapped,
    bytes: Box<[u8]>,
}

impl Writing {
    pub(super) fn new(pipe: Arc<OwnedHandle>) -> Self {
        Self { pipe, wakers: Arc::default(), current: None }
    }

    /// Ready when no write is under way; an error is that of the last one.
    pub(super) fn poll_flush(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if self.current.is_some() {
            // Before the look, so that no news falls between the two.
            self.wakers.add(context);
        }
        match self.settle() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            outcome => Poll::Ready(outcome),
        }
    }

    pub(super) fn poll_write(&mut self, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(context))?;
        Poll::Ready(self.begin(bytes))
    }

    /// Kind `WouldBlock` while a write is under way.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.settle()?;
        self.begin(bytes)
    }

    fn settle(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let carried = &mut current.carried;
        let outcome = match carried.call.outcome() {
            Ok(None) => return Err(io::ErrorKind::WouldBlock.into()),
            Ok(Some(count)) if count < carried.bytes.len() => Err(io::ErrorKind::WriteZero.into()),
            Ok(Some(_)) => Ok(()),
            // Nobody here gives one up that is to go on: its thread has ended. Another one writes the rest.
            Err(error) if is_cancelled(&error) => {
                let rest = carried.bytes[carried.call.done_before_failure()..].to_vec();
                self.current = None;
                self.begin(&rest)?;
                return self.settle();
            }
            Err(error) => Err(error),
        };
        self.current = None;
        outcome
    }

    fn begin(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let bytes = Box::from(&bytes[..bytes.len().min(WRITE_STEP)]);
        // All that can fail comes before the first byte leaves.
        let watch = EventWatch::new(Arc::clone(&self.wakers))?;
        let mut carried = Carried { call: Overlapped::new(Arc::clone(&self.pipe))?, bytes };
        // SAFETY: the bytes lie on the heap, nobody changes them, and they go after the call.
        if let Some(count) = unsafe { carried.call.start(Call::Write(&raw const *carried.bytes)) }? {
            return Ok(count);
        }
        let count = carried.bytes.len();
        watch.watch(carried.call.event());
        self.current = Some(Current { watch, carried });
        Ok(count)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Err(error) = self.settle()
            && error.kind() == io::ErrorKind::WouldBlock
            && let Some(Current { watch, carried }) = self.current.take()
        {
            // Before its event, which the other wait takes over.
            drop(watch);
            carried.linger();
        }
    }
}

impl Carried {
    /// Stays until it has ended, or its time is up.
    fn linger(self) {
        let event = self.call.event().as_raw_handle();
        let context = Box::into_raw(Box::new(self));
        // Negative is from now on, in steps of 100 ns.
        let limit = -i64::try_from(LINGER.as_nanos() / 100).unwrap_or(i64::MAX);
        let limit = FILETIME {
            dwLowDateTime: limit.cast_unsigned() as u32,
            dwHighDateTime: (limit.cast_unsigned() >> 32) as u32,
        };
        // SAFETY: the context is the callback's from here on, which comes once. The event belongs to it.
        unsafe {
            let wait = CreateThreadpoolWait(Some(on_end), context.cast(), null());
            if wait == 0 {
                drop(Box::from_raw(context));
            } else {
                SetThreadpoolWait(wait, event, &raw const limit);
            }
        }
    }
}

unsafe extern "system" fn on_end(_: PTP_CALLBACK_INSTANCE, context: *mut c_void, wait: PTP_WAIT, _: u32) {
    // SAFETY: from `Carried::linger`, and this callback comes once. A wait may be closed within its callback.
    unsafe {
        drop(Box::from_raw(context.cast::<Carried>()));
        CloseThreadpoolWait(wait);
    }
}
