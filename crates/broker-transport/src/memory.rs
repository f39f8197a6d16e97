//! What becomes of memory that a long-running process has freed.
//!
//! Only a word to the process's allocator. Invariant: nothing that is in use moves or goes.

/// Has memory that was freed go back to the system now, wherever in the heap it lies.
///
/// A daemon that once had much to buffer would else keep the memory: the heap of glibc shrinks only from its
/// end, where sooner or later some small block lies that is still in use. Takes a moment for each free block,
/// so it is for after a burst, not for every connection. Elsewhere nothing is done.
pub fn return_what_is_free() {
    crate::sys::memory::return_what_is_free();
}
