//! A probe process: an application that plays a [`Job`] in a workload.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::binaries;
use crate::place::{Place, Process};
use crate::script::{Connection, Event, Job, Tally};
use crate::wait::{self, GENEROUS};
use crate::world::World;

/// A running probe; dropping it kills it.
pub struct Probe {
    process: Process,
    stdin: ChildStdin,
    events: Receiver<Event>,
    /// Events that were read while looking for another one.
    skipped: Vec<Event>,
}

impl Probe {
    /// Starts a probe; a job that listens is listening when this returns.
    #[track_caller]
    pub fn start(place: &Place, job: &Job) -> Self {
        Self::run(place, place.command(binaries::probe()), job)
    }

    /// Starts a probe as an ordinary user with some capabilities (`net_raw`), and no others.
    #[track_caller]
    pub fn start_as_user(place: &Place, world: &World, job: &Job, capabilities: &[&str]) -> Self {
        // Where the probe has been built may be closed to others.
        let program = world.dir.path().join("probe");
        if !program.exists() {
            binaries::copy(&binaries::probe(), &program);
        }
        let some: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
        let mut command = place.command("setpriv");
        command
            .args(["--reuid=1000", "--regid=1000", "--clear-groups"])
            .args([format!("--inh-caps=-all{some}"), format!("--ambient-caps=-all{some}")])
            .arg(program);
        Self::run(place, command, job)
    }

    #[track_caller]
    fn run(place: &Place, mut command: Command, job: &Job) -> Self {
        let job_text = serde_json::to_string(job).expect("a job");
        command.arg(job_text).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = place.spawn(&mut command);
        let stdin = process.child().stdin.take().unwrap();
        let stdout = process.child().stdout.take().unwrap();
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("an event from the probe");
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut probe = Self { process, stdin, events, skipped: Vec::new() };
        if matches!(
            job,
            Job::Server { .. }
                | Job::Lender { .. }
                | Job::Connector { .. }
                | Job::Accomplice { .. }
                | Job::Idle
        ) {
            probe.expect("a listening probe", GENEROUS, |event| {
                matches!(event, Event::Listening).then_some(())
            });
        }
        probe
    }

    /// Lets every connection pass its next pause: the nth call opens the nth.
    pub fn go(&mut self) {
        self.stdin.write_all(b"\n").expect("telling the probe to go on");
    }

    /// Waits until a script pauses.
    #[track_caller]
    pub fn wait_paused(&mut self) {
        self.expect("a pausing probe", GENEROUS, |event| {
            matches!(event, Event::Paused(_)).then_some(())
        });
    }

    /// Waits for the end of a connection's script.
    #[track_caller]
    pub fn connection(&mut self) -> Connection {
        self.connection_within(GENEROUS)
    }

    #[track_caller]
    pub fn connection_within(&mut self, limit: Duration) -> Connection {
        self.expect("the end of a connection", limit, |event| match event {
            Event::Connection(connection) => Some(connection.clone()),
            _ => None,
        })
    }

    /// Waits for the end of a crowd or a churn.
    #[track_caller]
    pub fn tally(&mut self, limit: Duration) -> Tally {
        self.expect("the tally", limit, |event| match event {
            Event::Tally(tally) => Some(tally.clone()),
            _ => None,
        })
    }

    /// Waits for an event from which `pick` makes a value, keeping the others for later.
    #[track_caller]
    pub fn expect<T>(
        &mut self,
        what: &str,
        limit: Duration,
        pick: impl Fn(&Event) -> Option<T>,
    ) -> T {
        if let Some(index) = self.skipped.iter().position(|event| pick(event).is_some()) {
            return pick(&self.skipped.remove(index)).unwrap();
        }
        let deadline = std::time::Instant::now() + wait::patient(limit);
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => match pick(&event) {
                    Some(value) => return value,
                    None => self.skipped.push(event),
                },
                Err(error) => {
                    let last = &self.skipped[self.skipped.len().saturating_sub(8)..];
                    panic!("{what}: {error} after {limit:?}; last saw {last:?}")
                }
            }
        }
    }

    /// Waits for the next connection the server accepts; the address accept() gave.
    #[track_caller]
    pub fn accepted(&mut self) -> SocketAddr {
        self.expect("an accepted connection", GENEROUS, |event| match event {
            Event::Accepted(from) => Some(*from),
            _ => None,
        })
    }

    /// Connections accepted so far that nobody has asked for with [`Self::accepted`].
    pub fn pending(&mut self) -> usize {
        self.skipped.extend(self.events.try_iter());
        self.skipped.iter().filter(|event| matches!(event, Event::Accepted(_))).count()
    }

    /// Every event so far that nobody has asked for.
    pub fn events_so_far(&mut self) -> Vec<Event> {
        self.skipped.extend(self.events.try_iter());
        std::mem::take(&mut self.skipped)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills the probe now instead of when it is dropped.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

/// Runs a job that is one connection and returns what it saw.
#[track_caller]
pub fn run(place: &Place, job: &Job) -> Connection {
    Probe::start(place, job).connection()
}
