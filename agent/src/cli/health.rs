//! `sheath health`: whether an agent is alive, or ready.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::which::Which;
use super::{Failure, Format, Output, UNWELL};
use crate::admin::{self, Request};
use crate::sys::namespaces::shares_mounts_with;

#[derive(clap::Args)]
pub struct Health {
    /// alive: its threads answer. ready: what protects new pods is in force.
    question: Question,
    /// Be content only with an agent that runs here, in the same container, or has taken over from one that does
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Question {
    Alive,
    Ready,
}

impl Health {
    pub fn run(&self) -> Result<ExitCode, Failure> {
        let request = match self.question {
            Question::Alive => Request::Alive,
            Question::Ready => Request::Ready,
        };
        let socket = self.which.instance()?.admin_socket();
        let mut answer = request.send(&socket).map_err(Failure::new)?;
        if self.here && !is_from(&answer, shares_mounts_with) {
            let problem = "the agent of this container does not serve yet; another one answers";
            answer = json!({ "ok": false, "problems": [problem] });
        }
        match self.format.output {
            Output::Text => anstream::print!("{}", admin::render_health(&answer)),
            Output::Json => println!("{answer}"),
        }
        let is_well = admin::is_healthy(&answer);
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(UNWELL) })
    }
}

/// True if the agent that has answered, or the one that it has taken over from, is here.
fn is_from(answer: &Value, is_here: impl Fn(u64) -> bool) -> bool {
    ["pid", "taken_over_from"].into_iter().any(|key| answer[key].as_u64().is_some_and(&is_here))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_elsewhere_is_one_that_has_not_taken_over_from_any_here() {
        let is_here = |pid| pid == 7;
        assert!(is_from(&json!({ "pid": 7, "taken_over_from": null }), is_here));
        assert!(is_from(&json!({ "pid": 8, "taken_over_from": 7 }), is_here));
        assert!(!is_from(&json!({ "pid": 8, "taken_over_from": 6 }), is_here));
        // An agent of an earlier version does not say who it is.
        assert!(!is_from(&json!({ "ok": true }), is_here));
    }
}
