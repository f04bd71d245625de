//! What is in force, and what is wrong: what those ask often who look after an agent and its workloads. No look is made for it.

use sheath_common::workload::WorkloadId;

use super::status::{NamespaceStatus, Owners, PodsStatus, ProgramStatus, Protection};
use super::workload::WorkloadState;
use crate::capture::cgroups;
use crate::capture::filters;
use crate::capture::kernel::programs::FoundProgram;
use crate::telemetry::{Refusals, RefusedConnections};

/// What is in force, whatever there is of workloads.
#[derive(Clone, Debug)]
pub struct InForceView {
    pub programs: Vec<ProgramStatus>,
    /// `None` without a kubelet.
    pub pods: Option<PodsStatus>,
}

/// What is wrong, as far as the last look has found it.
#[derive(Clone, Debug)]
pub struct ConditionsView {
    pub workloads: Vec<Condition>,
    /// `None` without a kubelet.
    pub pods: Option<PodsStatus>,
}

/// How well a workload is protected.
#[derive(Clone, Debug)]
pub struct Condition {
    pub name: String,
    /// What the kernel calls it.
    pub id: WorkloadId,
    pub state: Protection,
    /// Empty unless the state is degraded.
    pub reason: String,
    /// Connections of it, and to it, that were refused.
    pub refused: Option<RefusedConnections>,
}

impl Owners<'_> {
    /// What is in force, with the programs as they have just been found.
    pub fn in_force(&self, programs: Vec<FoundProgram>) -> InForceView {
        let programs = programs.into_iter().map(ProgramStatus::from).collect();
        InForceView { programs, pods: self.pods() }
    }

    /// What is wrong.
    pub fn conditions(&self, refusals: &Refusals) -> ConditionsView {
        let condition = |workload: &WorkloadState| {
            let namespaces = self.served_in(workload);
            self.condition(workload, &namespaces, refusals)
        };
        ConditionsView {
            workloads: self.enrolled.iter().map(condition).collect(),
            pods: self.pods(),
        }
    }

    /// How well a workload is protected that is in these namespaces.
    pub fn condition(
        &self,
        workload: &WorkloadState,
        namespaces: &[NamespaceStatus],
        refusals: &Refusals,
    ) -> Condition {
        let problem = self.problem(workload, namespaces);
        Condition {
            name: workload.name().to_owned(),
            id: workload.id(),
            state: match &problem {
                Some(_) => Protection::Degraded,
                None if workload.processes().is_empty() => Protection::Waiting,
                None => Protection::Protected,
            },
            reason: problem.unwrap_or_default(),
            refused: refusals.of(workload.id()),
        }
    }

    /// The first thing that keeps a workload from being protected as configured.
    fn problem(&self, workload: &WorkloadState, namespaces: &[NamespaceStatus]) -> Option<String> {
        if let Some(problem) = &workload.report().said().problem {
            return Some(problem.clone());
        }
        for (id, cgroup) in workload.cgroups() {
            let path = cgroups::shown(cgroup.path());
            if !self.enrolled.is_recorded(id, workload.kernel_entry(cgroup.blocked())) {
                return Some(format!("the kernel does not know the cgroup {path}"));
            }
            let directory = self.enrolled.directory(cgroup.path());
            if !self.programs.cover(&directory) {
                return Some(format!("not every program runs for the cgroup {path}"));
            }
            // What is on the workload's own cgroup has been found already.
            if let Ok(Some(blocked)) = filters::blocked_within(&directory, false) {
                return Some(format!("below {path}, {blocked}; {}", blocked.advice()));
            }
        }
        namespaces
            .iter()
            .find(|namespace| !namespace.ready)
            .map(|namespace| format!("network namespace {} is not steered", namespace.inode))
    }
}
