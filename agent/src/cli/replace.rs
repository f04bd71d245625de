//! `sheath replace`: an agent of a service manager, by the program that is installed now.

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::which::Which;
use super::{Failure, Format, Output};
use crate::admin::Request;

/// How often is looked whether the successor serves.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub struct Replace {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    format: Format,
    /// How long the successor may take to serve, such as `2m`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2m")]
    wait: Duration,
}

impl Replace {
    /// Returns when the successor serves.
    pub fn run(&self) -> Result<ExitCode, Failure> {
        let socket = self.which.instance()?.admin_socket();
        let started = Request::Replace.send(&socket).map_err(Failure::new)?;
        let pid = started["pid"].as_u64().ok_or_else(|| Failure::new("the answer has no pid"))?;
        let until = Instant::now() + self.wait;
        let answer = loop {
            // There is a moment in which neither of the two answers.
            let answer = Request::Alive.send(&socket).unwrap_or_default();
            if answer["pid"] == pid {
                break answer;
            }
            if !is_there(pid) {
                return Err(Failure::new(format!(
                    "the new agent has ended before it served, and the one before goes on: the log says why (process {pid})"
                )));
            }
            if Instant::now() >= until {
                return Err(Failure::new(format!(
                    "the new agent (process {pid}) does not serve yet; the one before goes on until it does"
                )));
            }
            thread::sleep(AGAIN);
        };
        println!("{}", self.render(&answer));
        Ok(ExitCode::SUCCESS)
    }

    fn render(&self, answer: &Value) -> String {
        let (pid, before) = (&answer["pid"], &answer["taken_over_from"]);
        match self.format.output {
            Output::Text => format!("process {pid} has taken over from process {before}"),
            Output::Json => json!({ "pid": pid, "taken_over_from": before }).to_string(),
        }
    }
}

/// Whether a process runs: one that has ended may still be there until the service manager has seen that (proc_pid_stat(5)).
fn is_there(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may have anything in it.
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}
