//! glibc's allocator (malloc_trim(3)); other C libraries have no such call.

#[cfg(target_env = "gnu")]
pub(crate) fn return_what_is_free() {
    // SAFETY: it touches free memory only, under the allocator's own locks. Its result says whether there was
    // any to return.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub(crate) const fn return_what_is_free() {}
