//! Progress on standard error: a line for each step; on a terminal, one line that is rewritten.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Steps that take longer than this get a line.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a run has got to.
pub struct Progress {
    steps: usize,
    done: usize,
    started: Instant,
    terminal: bool,
}

impl Progress {
    pub fn new(steps: usize) -> Self {
        Self { steps, done: 0, started: Instant::now(), terminal: stderr().is_terminal() }
    }

    /// Does one step of the run.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.done += 1;
        let line = format!("[{}/{}] {name}", self.done, self.steps);
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            let _ = stderr().flush();
        } else if self.started.elapsed() >= PATIENCE {
            eprintln!("{line}");
        }
        work()
    }

    /// Says something that stays.
    pub fn say(&self, text: &str) {
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        eprintln!("{start}{text}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
