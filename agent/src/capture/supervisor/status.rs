//! What capture tells about itself: observed just now, never remembered from what was asked for.

use std::net::SocketAddr;

use serde::Serialize;
use sheath_common::workload::{InboundMode, OutboundMode};

use super::Supervisor;
use super::listening::is_inbound;
use super::observed::Observed;
use crate::capture::cgroups;
use crate::capture::kernel::filters;
use crate::capture::kernel::mounts::{self, NetworkMount};
use crate::capture::kernel::targets::Hook;

#[derive(Clone, Debug, Serialize)]
pub struct StatusView {
    pub programs: Vec<ProgramStatus>,
    pub workloads: Vec<WorkloadStatus>,
}

/// One BPF program.
#[derive(Clone, Debug, Serialize)]
pub struct ProgramStatus {
    pub name: &'static str,
    pub kind: &'static str,
    pub attached_to: String,
    /// The kernel says that it runs.
    pub observed: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct WorkloadStatus {
    pub name: String,
    pub spiffe_id: String,
    pub state: WorkloadState,
    /// Empty unless the state is degraded.
    pub reason: String,
    pub cgroups: Vec<CgroupStatus>,
    pub namespaces: Vec<NamespaceStatus>,
    pub inbound: InboundStatus,
    pub outbound: OutboundStatus,
    pub unprotected: Vec<UnprotectedConnection>,
    /// File systems on the network, which the kernel itself reads and writes in the clear.
    pub network_mounts: Vec<NetworkMount>,
    /// What else there is to know about who listens on its ports.
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadState {
    /// No process of it runs.
    Waiting,
    /// Everything that protects it is in force.
    Protected,
    /// Something is missing; the reason says what.
    Degraded,
}

#[derive(Clone, Debug, Serialize)]
pub struct CgroupStatus {
    pub path: String,
    pub id: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct NamespaceStatus {
    pub inode: u64,
    pub cookie: u64,
    /// Listeners are open, and the kernel says that steering is attached.
    pub ready: bool,
    /// The agent's own, that is, the host's.
    pub host: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct InboundStatus {
    pub mode: &'static str,
    /// Empty for every port.
    pub ports: Vec<u16>,
    /// True if its callers are refused, because it is in the agent's namespace and its ports have no names.
    pub refused: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct OutboundStatus {
    pub mode: &'static str,
}

/// A connection older than the workload's protection.
#[derive(Clone, Debug, Serialize)]
pub struct UnprotectedConnection {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

pub(super) fn view(supervisor: &mut Supervisor) -> StatusView {
    let found = supervisor.programs.check_and_repair();
    let programs = found
        .into_iter()
        .map(|program| ProgramStatus {
            name: program.name,
            kind: match program.hook {
                Hook::Cgroup(_) | Hook::Root(_) => "cgroup",
                Hook::Tracepoint(_) => "tracepoint",
            },
            attached_to: program.target,
            observed: program.is_in_force,
        })
        .collect();
    let supervisor = &*supervisor;
    StatusView {
        programs,
        workloads: supervisor
            .workloads
            .iter()
            .map(|workload| workload_view(supervisor, workload))
            .collect(),
    }
}

fn workload_view(supervisor: &Supervisor, workload: &Observed) -> WorkloadStatus {
    let config = &workload.config;
    let inodes = workload.served_in();
    let namespaces: Vec<_> = inodes
        .iter()
        .filter_map(|inode| supervisor.namespaces.get(inode))
        .map(|served| NamespaceStatus {
            inode: served.namespace.inode(),
            cookie: served.namespace.cookie(),
            ready: served.namespace.is_steered(),
            host: served.namespace.is_agents_own(),
        })
        .collect();
    let problem = problem(supervisor, workload, &namespaces);
    let state = match &problem {
        Some(_) => WorkloadState::Degraded,
        None if workload.processes.is_empty() => WorkloadState::Waiting,
        None => WorkloadState::Protected,
    };
    WorkloadStatus {
        name: config.name.clone(),
        spiffe_id: config.spiffe_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        state,
        reason: problem.unwrap_or_default(),
        cgroups: workload
            .cgroups
            .iter()
            .map(|(id, enrolled)| CgroupStatus { path: cgroups::shown(&enrolled.path), id: *id })
            .collect(),
        namespaces,
        inbound: InboundStatus {
            mode: match config.inbound.mode {
                InboundMode::Strict => "strict",
                InboundMode::Permissive => "permissive",
                InboundMode::Disabled => "disabled",
            },
            ports: config.inbound.ports.clone(),
            refused: is_inbound(workload)
                && config.inbound.ports.is_empty()
                && workload.is_settled_in(supervisor.own_netns.inode()),
        },
        outbound: OutboundStatus {
            mode: match config.outbound.mode {
                OutboundMode::Require => "require",
                OutboundMode::Prefer => "prefer",
                OutboundMode::Disabled => "disabled",
            },
        },
        unprotected: supervisor.unprotected(workload),
        network_mounts: mounts::of_processes(&workload.processes),
        notes: workload.notes.clone(),
    }
}

/// The first thing that keeps a workload from being protected as configured.
fn problem(
    supervisor: &Supervisor,
    workload: &Observed,
    namespaces: &[NamespaceStatus],
) -> Option<String> {
    if let Some(problem) = &workload.problem {
        return Some(problem.clone());
    }
    for (id, enrolled) in &workload.cgroups {
        let path = cgroups::shown(&enrolled.path);
        let entry = workload.entry(enrolled.dropped.as_ref());
        if supervisor.tables.workloads.get(id).ok().flatten() != Some(entry) {
            return Some(format!("the kernel does not know the cgroup {path}"));
        }
        if !supervisor.covers(&enrolled.path) {
            return Some(format!("not every program runs for the cgroup {path}"));
        }
        // What is on the workload's own cgroup has been found already.
        let directory = cgroups::join(&supervisor.mount, &enrolled.path);
        if let Ok(Some(dropped)) = filters::dropped_within(&directory, false) {
            return Some(format!("below {path}, {dropped}; {}", dropped.advice()));
        }
    }
    namespaces
        .iter()
        .find(|namespace| !namespace.ready)
        .map(|namespace| format!("network namespace {} is not steered", namespace.inode))
}
