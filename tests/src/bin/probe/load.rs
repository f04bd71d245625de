//! Many connections: all at once, one after another, or without end.

use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use sheath_tests::script::{Event, Tally, Try};
use socket2::Socket;

use crate::client::{connect, elapsed_ms, end_sending, errno};
use crate::{emit, gate};

const CROWD_THREADS: usize = 16;
const PACE: Duration = Duration::from_millis(5);
const MESSAGE: &str = "one of many";

/// Opens `count` connections; when all are open, each echoes a message and closes.
pub fn crowd(to: &[SocketAddr], count: usize) -> Tally {
    let barrier = Barrier::new(CROWD_THREADS);
    let work = |thread: usize| {
        let share = (thread..count).step_by(CROWD_THREADS);
        let sockets: Vec<_> = share.map(|number| connect(to[number % to.len()])).collect();
        barrier.wait();
        sockets.into_iter().map(|socket| echo(&socket?, MESSAGE)).collect()
    };
    in_threads(CROWD_THREADS, work)
}

/// Makes `count` connections, each thread one after the other.
pub fn churn(to: SocketAddr, count: usize, threads: usize) -> Tally {
    in_threads(threads, |thread| {
        let numbers = (thread..count).step_by(threads);
        numbers.map(|number| echo(&connect(to)?, &message(number))).collect()
    })
}

/// The same, with as many connections in between that are broken off.
pub fn rude_churn(to: SocketAddr, count: usize, threads: usize) -> Tally {
    in_threads(threads, |thread| {
        let numbers = (thread..count).step_by(threads);
        let polite = |number| {
            // What becomes of it is nobody's business.
            let _ = connect(to).and_then(|socket| break_off(&socket, &message(count + number)));
            echo(&connect(to)?, &message(number))
        };
        numbers.map(polite).collect()
    })
}

/// No two are the same; some are a few bytes, some fill several records.
fn message(number: usize) -> String {
    const LONGEST: usize = 5_000;
    let word = format!("{:x}.{number};", std::process::id());
    word.repeat(1 + number * 7919 % LONGEST * usize::from(number.is_multiple_of(4)))
}

/// Sends a message, waits for a part of the answer every other time, and resets the connection.
fn break_off(mut socket: &Socket, text: &str) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))?;
    socket.write_all(text.as_bytes())?;
    if text.len().is_multiple_of(2) {
        socket.read_exact(&mut [0; 4])?;
    }
    Ok(())
}

/// Makes one connection after the other until the gate opens, reporting each.
pub fn hammer(to: SocketAddr, text: &str) {
    while !gate::is_open() {
        emit(&Event::Try(attempt(to, text)));
        // A refusal costs nothing; the processor is for the others.
        thread::sleep(PACE);
    }
}

/// Connects from the first instant of a cgroup's life.
pub fn newborn(cgroup: &Path, to: SocketAddr, text: &str, tries: usize) {
    fs::create_dir_all(cgroup).expect("a new cgroup");
    fs::write(cgroup.join("cgroup.procs"), "0").expect("moving into the new cgroup");
    let tries: Vec<_> = (0..tries).map(|_| attempt(to, text)).collect();
    // Reported only now, since nothing must come between the birth and the connections.
    for attempt in tries {
        emit(&Event::Try(attempt));
    }
}

fn attempt(to: SocketAddr, text: &str) -> Try {
    let started = Instant::now();
    let (error, at_connect) = match connect(to) {
        Err(error) => (Some(errno(&error)), true),
        Ok(socket) => (echo(&socket, text).err().as_ref().map(errno), false),
    };
    Try { error, at_connect, milliseconds: elapsed_ms(started) }
}

fn in_threads(threads: usize, work: impl Fn(usize) -> Vec<io::Result<()>> + Sync) -> Tally {
    let results: Vec<io::Result<()>> = thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a thread")).collect()
    });
    let errors: Vec<i32> = results.iter().filter_map(|r| r.as_ref().err()).map(errno).collect();
    Tally { ok: results.len() - errors.len(), errors }
}

/// Sends a message, ends sending, and expects exactly the message back.
fn echo(mut socket: &Socket, text: &str) -> io::Result<()> {
    socket.write_all(text.as_bytes())?;
    end_sending(socket)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    if answer == text.as_bytes() {
        return Ok(());
    }
    // A clean end without the answer is a failure of its own kind.
    Err(io::Error::from_raw_os_error(libc::ENODATA))
}
