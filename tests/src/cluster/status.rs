//! Which clusters there are, and how they are.

use serde::Serialize;

use super::cgroups::Cgroups;
use super::names::{CONTROL_PLANE, NODES};
use super::{control_plane, node, state};

/// A cluster.
#[derive(Debug, Serialize)]
pub struct Status {
    pub name: String,
    /// Whether all its programs run.
    pub healthy: bool,
    pub directory: String,
    /// The path of its cgroup below the root of each hierarchy.
    pub cgroup: String,
    /// Its processes, with those in pods.
    pub processes: Vec<u32>,
    pub programs: Vec<Program>,
}

/// One of its programs.
#[derive(Debug, Serialize)]
pub struct Program {
    pub machine: &'static str,
    pub program: &'static str,
    pub pid: Option<u32>,
    pub log: String,
}

/// All clusters of this user.
pub fn all() -> Vec<Status> {
    state::clusters().iter().map(|name| of(name)).collect()
}

/// One of them, which may have nothing left that runs.
pub fn of(name: &str) -> Status {
    let (state, cgroups) = (state::of(name), Cgroups::of(name));
    let control = control_plane::PROGRAMS.map(|program| (CONTROL_PLANE, program));
    let nodes = NODES.iter().flat_map(|at| node::PROGRAMS.map(|program| (at.as_str(), program)));
    let programs = control.into_iter().chain(nodes).map(|(machine, program)| Program {
        machine,
        program,
        pid: cgroups.processes(&format!("{machine}/{program}")).into_iter().min(),
        log: super::machine::log(&state, machine, program).display().to_string(),
    });
    let programs: Vec<Program> = programs.collect();
    Status {
        name: name.to_owned(),
        healthy: programs.iter().all(|program| program.pid.is_some()),
        directory: state.path().display().to_string(),
        cgroup: cgroups.absolute("").trim_end_matches('/').to_owned(),
        processes: cgroups.all_processes(""),
        programs,
    }
}
