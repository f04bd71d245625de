//! The allocator's caches.

use std::ptr::null_mut;

/// Empties the allocator's cache of the calling thread: few bytes, but each of them may be all that keeps
/// a page from going back to the system. By itself the allocator empties it only while the thread allocates.
pub fn give_back() {
    // SAFETY: the name ends with NUL, and the command takes no values (jemalloc(3), thread.tcache.flush).
    let result = unsafe {
        tikv_jemalloc_sys::mallctl(
            c"thread.tcache.flush".as_ptr(),
            null_mut(),
            null_mut(),
            null_mut(),
            0,
        )
    };
    debug_assert!(result == 0, "thread.tcache.flush: {result}");
}
