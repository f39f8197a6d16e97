//! Signals, as a program expects to find them when it begins: none ignored, none blocked.
//!
//! Both outlive exec, unlike handlers. Invariant: nothing here allocates, locks or returns an error, so it
//! may run between fork and exec (signal-safety(7)).

use std::ffi::c_int;
use std::mem::zeroed;
use std::ptr::null_mut;

use super::super::os;

/// The real-time signals of Linux included; other systems have fewer, and refuse the rest.
const SIGNALS: std::ops::RangeInclusive<c_int> = 1..=64;

/// Gives every signal its default effect, SIGPIPE among them.
///
/// # Safety
/// Only in a child between fork and exec: it takes the handlers of whatever else runs in this process.
pub(crate) unsafe fn reset_dispositions() {
    // SAFETY: a zeroed `sigaction` is one with the default disposition (SIG_DFL is 0), no flags and an
    // empty mask; the calls are async-signal-safe. SIGKILL and SIGSTOP refuse, rightly.
    unsafe {
        let mut default: libc::sigaction = zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        for signal in SIGNALS {
            if libc::sigaction(signal, &raw const default, null_mut()) == -1 {
                os::reset_reserved(signal);
            }
        }
    }
}

/// Keeps every signal from the calling thread, and from those that it starts.
#[cfg(feature = "tokio")]
pub(crate) fn block_all_here() {
    // SAFETY: `all` is a set that lives through the call; no old one is asked for.
    unsafe {
        let mut all: libc::sigset_t = zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, null_mut());
    }
}

/// Lets every signal through to the calling thread, whose handlers are in place.
#[cfg(feature = "tokio")]
pub(crate) fn unblock_all_here() {
    // SAFETY: `none` is a set that lives through the call; no old one is asked for.
    unsafe {
        let mut none: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, null_mut());
    }
}

/// Lets every signal through. One that came meanwhile takes effect here.
///
/// # Safety
/// Only in a child between fork and exec, after [`reset_dispositions`]: a handler of its parent's would run.
pub(crate) unsafe fn unblock_all() {
    // SAFETY: `none` is a set that lives through the call; no old one is asked for.
    unsafe {
        let mut none: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, null_mut());
    }
}
