//! The tests' end of a machine's virtual serial port.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::protocol::{Ended, Report, Request};

/// How much longer than a script may take an answer may take.
const GRACE: Duration = Duration::from_secs(20);

/// The way to the program in a machine.
pub struct Channel {
    writer: Mutex<UnixStream>,
    heard: Arc<Heard>,
    next: AtomicU64,
}

#[derive(Default)]
struct Heard {
    hellos: AtomicU64,
    ended: Mutex<BTreeMap<u64, Ended>>,
}

/// A script that runs.
pub struct Running {
    id: u64,
    limit: Duration,
}

impl Channel {
    /// Speaks by a stream that QEMU has connected.
    ///
    /// # Panics
    /// When the stream cannot be used twice.
    pub fn new(stream: UnixStream) -> Self {
        let heard = Arc::new(Heard::default());
        let reader = BufReader::new(stream.try_clone().expect("a copy of the stream"));
        thread::spawn({
            let heard = heard.clone();
            move || listen(reader, &heard)
        });
        Self { writer: Mutex::new(stream), heard, next: AtomicU64::new(1) }
    }

    /// How often the machine has booted.
    pub fn boots(&self) -> u64 {
        self.heard.hellos.load(Ordering::Acquire)
    }

    /// Has the machine run a script, and does not wait for it.
    ///
    /// # Panics
    /// When nobody is at the other end.
    #[track_caller]
    pub fn start(&self, script: &str, limit: Duration) -> Running {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let request = Request { id, script: script.to_owned(), limit: limit_ms };
        let mut line = serde_json::to_vec(&request).expect("a request");
        line.push(b'\n');
        self.writer.lock().unwrap().write_all(&line).expect("a machine that listens");
        Running { id, limit: limit + GRACE }
    }

    /// The answer, if it has come.
    pub fn take(&self, running: &Running) -> Option<Ended> {
        self.heard.ended.lock().unwrap().remove(&running.id)
    }
}

impl Running {
    /// How long the answer may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }
}

/// Lines that make no sense are the rest of what a machine said when it lost its power.
fn listen(reader: impl BufRead, heard: &Heard) {
    for line in reader.split(b'\n').map_while(Result::ok) {
        match serde_json::from_slice(&line) {
            Ok(Report::Hello) => {
                heard.hellos.fetch_add(1, Ordering::Release);
            }
            Ok(Report::Done { id, ended }) => {
                heard.ended.lock().unwrap().insert(id, ended);
            }
            Err(_) => {}
        }
    }
}
