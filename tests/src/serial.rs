//! One heavy test at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by tests that move gigabytes or thousands of connections. All scenarios are one program, so a lock of the
/// process is enough.
pub fn heavy() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}
