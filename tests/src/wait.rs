//! Waiting on conditions, never on time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Long enough for a loaded two-core machine; reached only by a test that fails.
pub const GENEROUS: Duration = Duration::from_secs(30);

const STEP: Duration = Duration::from_millis(10);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every wait end in a panic, so that the owners of namespaces, cgroups and pins clean up.
/// Safe to call from a signal handler.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Polls `condition` until it yields a value.
///
/// # Panics
/// When `limit` passes first, naming `what` was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, condition: impl FnMut() -> Option<T>) -> T {
    try_for(limit, condition).unwrap_or_else(|| panic!("{what}: not seen within {limit:?}"))
}

/// Polls `condition` until it holds.
///
/// # Panics
/// When `limit` passes first, naming `what` was waited for.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

/// Polls `condition` until it yields a value or `limit` passes.
pub fn try_for<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        assert!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(STEP);
    }
}
