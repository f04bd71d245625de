//! Says what is going on when it takes longer than a reader's patience.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

/// Runs one step of the demo; a step that lasts is announced on standard error.
pub fn step<T>(name: &str, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        // Dropped when the work is done, or has panicked.
        let (_done, waiting) = mpsc::channel::<()>();
        scope.spawn(move || {
            if waiting.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("... {name}");
            }
        });
        work()
    })
}
