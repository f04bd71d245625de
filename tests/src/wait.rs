//! Waiting on conditions, never on time.

use std::env;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Long enough for a busy machine; reached only by a test that fails.
pub const GENEROUS: Duration = Duration::from_secs(30);

/// Names the factor by which this machine is slower than those that limits are made for: an emulated processor is. One if there is
/// no such variable.
pub const SLOWNESS: &str = "SHEATH_TEST_SLOWNESS";

const STEP: Duration = Duration::from_millis(10);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every wait end in a panic, so that the owners of namespaces, cgroups and pins clean up.
/// Safe to call from a signal handler.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Has these signals do so: an interrupted program then cleans up like one that failed.
///
/// # Errors
/// When a handler cannot be set.
pub fn interrupt_on(signals: &[Signal]) -> nix::Result<()> {
    extern "C" fn interrupted(_: libc::c_int) {
        interrupt();
    }
    let action =
        SigAction::new(SigHandler::Handler(interrupted), SaFlags::SA_RESTART, SigSet::empty());
    for signal in signals {
        // SAFETY: the handler only stores to an atomic.
        unsafe { sigaction(*signal, &action) }?;
    }
    Ok(())
}

/// Whether somebody has asked for the end: see [`interrupt`].
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// A limit as it is on this machine: longer by [`SLOWNESS`].
///
/// # Panics
/// When that is no whole number.
pub fn patient(limit: Duration) -> Duration {
    limit * slowness()
}

/// Whether this machine is said to be slow: figures of it mean nothing.
///
/// # Panics
/// As [`patient`].
pub fn is_slow() -> bool {
    slowness() > 1
}

fn slowness() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| {
        let said = env::var(SLOWNESS).ok();
        said.map_or(1, |factor| factor.parse().expect("a whole number in SHEATH_TEST_SLOWNESS"))
    })
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

/// Polls `condition` until it yields a value or `limit` passes, [`patient`] as all of these.
pub fn try_for<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    uninterrupted(limit, || {
        let value = condition();
        assert!(value.is_some() || !is_interrupted() || thread::panicking(), "interrupted");
        value
    })
}

/// [`try_for`] for those who clean up, whom nothing must interrupt.
pub fn uninterrupted<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patient(limit);
    loop {
        let value = condition();
        if value.is_some() || Instant::now() >= deadline {
            return value;
        }
        thread::sleep(STEP);
    }
}
