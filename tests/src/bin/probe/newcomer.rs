//! The first process of a pod, which connects before it does anything else.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigSet, Signal};
use sheath_tests::script::{Event, Newcomer};

use crate::client::{connect, errno};
use crate::emit;

/// Between two tries.
const PACE: Duration = Duration::from_millis(5);

/// Calls a stranger once, then the server until it answers with the text. What it has seen is told when it is over.
pub fn run(started: SystemTime, stranger: SocketAddr, server: SocketAddr, text: &str) {
    let begun = Instant::now();
    let stranger_answered = exchange(stranger, text).is_ok();
    let mut refused = 0;
    let mut first_error = None;
    loop {
        match exchange(server, text) {
            Ok(answer) if answer.contains(text) => break,
            Ok(_) => {}
            Err(error) => first_error = first_error.or(Some(errno(&error))),
        }
        refused += 1;
        thread::sleep(PACE);
    }
    let answered_after = begun.elapsed();
    emit(&Event::Newcomer(Newcomer {
        started_ms: started.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_millis() as u64),
        stranger_answered,
        refused,
        first_error,
        answered_after_us: answered_after.as_micros() as u64,
    }));
}

/// Waits to be told to end. The first process of a pod has no default for the signal.
pub fn wait_for_the_end() {
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    end.thread_block().expect("blocking a signal");
    end.wait().expect("waiting for a signal");
}

/// Sends the text in a request, and returns what comes back.
fn exchange(to: SocketAddr, text: &str) -> io::Result<String> {
    let mut socket = connect(to)?;
    let request = format!("GET /{text} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    if answer.is_empty() {
        // A clean end without an answer is a failure of its own kind.
        return Err(io::Error::from_raw_os_error(libc::ENODATA));
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
