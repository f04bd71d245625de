//! What those who look after an agent ask: whether it works, and whether it does all that it is there for.
//!
//! That something is wrong with one pod or peer is no reason to end the agent, or to wait with an update: `sheath status` has it.

use serde::Serialize;

use super::AgentInfo;
use crate::capture::InForceView;
use crate::gate::{GateKind, InForce};

/// An answer. The names of its fields are stable.
#[derive(Debug, Serialize)]
pub struct Health {
    pub ok: bool,
    /// What is missing.
    pub problems: Vec<String>,
    /// The process that answers, and the one that it has taken over from.
    pub pid: u32,
    pub taken_over_from: Option<i32>,
}

impl Health {
    fn new(problems: Vec<String>, taken_over_from: Option<i32>) -> Self {
        let pid = std::process::id();
        Self { ok: problems.is_empty(), problems, pid, taken_over_from }
    }

    /// Every thread of the agent has answered.
    #[must_use]
    pub fn alive(info: &AgentInfo) -> Self {
        Self::new(Vec::new(), info.predecessor())
    }

    /// Whether everything that protects new pods is in force.
    #[must_use]
    pub fn ready(view: &InForceView, info: &AgentInfo) -> Self {
        let mut problems = Vec::new();
        for program in view.programs.iter().filter(|program| !program.observed) {
            problems.push(format!("{} is not in force on {}", program.name, program.attached_to));
        }
        if let Some(pods) = &view.pods {
            if !pods.known {
                problems.push("nothing was heard about pods yet".to_owned());
            }
            if !pods.problem.is_empty() {
                problems.push(pods.problem.clone());
            }
        }
        // Whether it is known, not whether it is current: without a controller an agent goes on by what it knows, and so does a successor.
        if let Some(directory) = info.directory_view()
            && !directory.known
        {
            let why = match directory.problem.as_str() {
                "" => "the controller has not told yet",
                problem => problem,
            };
            problems.push(format!("it is not known yet who is where in the cluster: {why}"));
        }
        if let Some(gate) = info.gate_view()
            && gate.in_force == InForce::None
            && gate.wanted != GateKind::None
        {
            let why = if gate.problem.is_empty() { "it has not connected" } else { &gate.problem };
            problems.push(format!("the container runtime does not ask before pods start: {why}"));
        }
        Self::new(problems, info.predecessor())
    }
}
