//! A running program, with what it has said.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::signal::Signal;

use crate::place::{Place, Process};
use crate::wait::{self, GENEROUS};

/// How much of its output a failed test shows.
const LOG_TAIL: usize = 30;

/// Dropping it kills the process; when a test fails, the end of its output is shown.
pub struct Program {
    name: &'static str,
    log: PathBuf,
    process: Process,
}

impl Program {
    /// Starts a program whose output goes to a log in `dir`, and whose input stays open.
    #[track_caller]
    pub fn spawn(name: &'static str, place: &Place, dir: &Path, command: &mut Command) -> Self {
        let log = dir.join("log");
        // nginx opens its standard output by name, so that there are two offsets.
        let mut options = OpenOptions::new();
        let file: File = options.create(true).append(true).open(&log).expect("the program's log");
        command.stdout(file.try_clone().expect("the log once more")).stderr(file);
        command.stdin(Stdio::piped());
        Self { name, log, process: place.spawn(command) }
    }

    /// The same, and returns when it listens on `port`.
    ///
    /// # Panics
    /// When it ends before.
    #[track_caller]
    pub fn start(
        name: &'static str,
        place: &Place,
        dir: &Path,
        command: &mut Command,
        port: u16,
    ) -> Self {
        let mut program = Self::spawn(name, place, dir, command);
        let what = format!("{name} on port {port}");
        let ended = wait::wait_for(&what, GENEROUS, || {
            if place.netns.has_listener(port) {
                return Some(None);
            }
            program.process.try_wait().map(Some)
        });
        assert!(ended.is_none(), "{name} ended with {ended:?}");
        program
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Writes to the program's standard input.
    pub fn say(&mut self, text: &str) {
        let stdin = self.process.child().stdin.as_mut().expect("an open input");
        stdin.write_all(text.as_bytes()).expect("the program's input");
    }

    /// What the program has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the program has written `text`.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        let what = format!("{text:?} in the output of {}", self.name);
        wait::wait_until(&what, GENEROUS, || self.log().contains(text));
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until the program has ended by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait(GENEROUS)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.process.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
            eprintln!("--- last lines of {}\n{tail}", self.name);
        }
    }
}
