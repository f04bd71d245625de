//! The gate of pauses: the nth line on standard input opens it for every connection's nth pause.

use std::io;
use std::sync::{Condvar, Mutex};
use std::thread;

static LINES: Mutex<usize> = Mutex::new(0);
static CHANGED: Condvar = Condvar::new();

/// Counts lines from now on. Without the harness at the other end there is nobody to report to,
/// so the end of input ends the probe.
pub fn watch_stdin() {
    thread::spawn(|| {
        let mut line = String::new();
        while io::stdin().read_line(&mut line).is_ok_and(|length| length > 0) {
            *LINES.lock().unwrap() += 1;
            CHANGED.notify_all();
            line.clear();
        }
        std::process::exit(0);
    });
}

/// Waits for the nth line.
pub fn wait(n: usize) {
    let lines = LINES.lock().unwrap();
    drop(CHANGED.wait_while(lines, |lines| *lines < n).unwrap());
}

/// Whether any line has come.
pub fn is_open() -> bool {
    *LINES.lock().unwrap() > 0
}
