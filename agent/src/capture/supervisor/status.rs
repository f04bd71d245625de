//! The status of capture: what is observed now, never what was once asked for.

use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;
use sheath_common::workload::{InboundMode, OutboundMode, WorkloadId};

use super::enrolled::Enrolled;
use super::kubelet::{Kubelet, KubeletView};
use super::namespaces::Namespaces;
use super::pods::HeldPod;
use super::workload::WorkloadState;
use crate::capture::cgroups;
use crate::capture::kernel::mounts::{self, NetworkMount};
use crate::capture::kernel::programs::{FoundProgram, Programs};
use crate::capture::kernel::targets::Hook;
use crate::capture::namespace::{Namespace, existing};
use crate::desired::Bypass;
use crate::steering::Steering;
use crate::telemetry::{Refusals, RefusedConnections, rfc3339};

/// So many bypassed destinations of a workload are named.
const MOST_NAMED: usize = 20;

#[derive(Clone, Debug, Serialize)]
pub struct StatusView {
    pub programs: Vec<ProgramStatus>,
    pub workloads: Vec<WorkloadStatus>,
    /// `None` without a kubelet.
    pub pods: Option<PodsStatus>,
}

/// The pods of a kubelet.
#[derive(Clone, Debug, Serialize)]
pub struct PodsStatus {
    /// The cgroup that they are below.
    pub root: String,
    /// False as long as nothing is known about pods.
    pub known: bool,
    /// How many the kernel knows a decision about.
    pub decided: usize,
    /// Those that nobody has decided about.
    pub held: Vec<HeldPodStatus>,
    /// What keeps the kernel from knowing every decision; empty if it does.
    pub problem: String,
    /// Whose probes are let through; `None` if nobody's.
    pub kubelet: Option<KubeletStatus>,
}

/// The kubelet of the node.
#[derive(Clone, Debug, Serialize)]
pub struct KubeletStatus {
    /// Zero if it is not known.
    pub pid: u32,
    /// Its cgroup; empty if it is not known.
    pub cgroup: String,
    /// The id of that; zero if there is none.
    pub id: u64,
    /// Names of other processes in it: they may call pods as the kubelet may.
    pub others: Vec<String>,
    /// Why probes are refused, or may be; empty if they are not.
    pub problem: String,
}

impl From<KubeletView> for KubeletStatus {
    fn from(view: KubeletView) -> Self {
        Self {
            pid: view.pid.unwrap_or_default(),
            cgroup: view.path.as_deref().map(cgroups::shown).unwrap_or_default(),
            id: view.id.unwrap_or_default(),
            others: view.others,
            problem: view.problem.unwrap_or_default(),
        }
    }
}

/// A pod that is held.
#[derive(Clone, Debug, Serialize)]
pub struct HeldPodStatus {
    pub uid: String,
    pub cgroup: String,
    /// When it was first seen to be held (RFC 3339).
    pub since: String,
    /// Why nobody has decided about it.
    pub reason: &'static str,
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
    /// What the kernel calls it.
    pub id: WorkloadId,
    pub spiffe_id: String,
    pub state: Protection,
    /// Empty unless the state is degraded.
    pub reason: String,
    pub cgroups: Vec<CgroupStatus>,
    pub namespaces: Vec<NamespaceStatus>,
    pub inbound: InboundStatus,
    pub outbound: OutboundStatus,
    pub unprotected: Vec<UnprotectedConnection>,
    /// File systems on the network, which the kernel itself reads and writes in the clear.
    pub network_mounts: Vec<NetworkMount>,
    /// Notes on the sockets that listen on its ports.
    pub notes: Vec<String>,
    /// Connections of it, and to it, that were refused.
    pub refused: Option<RefusedConnections>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
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
    /// Destinations that it reaches as it likes: the first of them.
    pub bypass: Vec<BypassStatus>,
    /// How many there are.
    pub bypassed: usize,
}

/// A destination that is bypassed, and who has said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BypassStatus {
    pub destination: String,
    pub origin: &'static str,
}

impl From<&Bypass> for BypassStatus {
    fn from(bypass: &Bypass) -> Self {
        Self { destination: bypass.destination.to_string(), origin: bypass.origin.name() }
    }
}

/// What is served of a workload.
#[derive(Clone, Debug)]
pub struct ServedWorkload {
    pub workload: WorkloadId,
    /// A cgroup of it is recorded.
    pub has_cgroup: bool,
    pub namespaces: Vec<NamespaceStatus>,
}

/// A connection older than the workload's protection.
#[derive(Clone, Debug, Serialize)]
pub struct UnprotectedConnection {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// Where the parts of a status come from.
#[derive(Debug)]
pub struct Owners<'s> {
    pub programs: &'s Programs,
    pub enrolled: &'s Enrolled,
    pub namespaces: &'s Namespaces,
    pub kubelet: &'s Kubelet,
    pub policy: &'s dyn Steering,
}

impl From<FoundProgram> for ProgramStatus {
    fn from(program: FoundProgram) -> Self {
        Self {
            name: program.name,
            kind: match program.hook {
                Hook::Cgroup(_) | Hook::Root(_) | Hook::Probers(_) => "cgroup",
                Hook::Tracepoint(_) => "tracepoint",
            },
            attached_to: program.target,
            observed: program.is_in_force,
        }
    }
}

impl NamespaceStatus {
    fn of(namespace: &Namespace) -> Self {
        Self {
            inode: namespace.inode(),
            cookie: namespace.cookie(),
            ready: namespace.is_steered(),
            host: namespace.is_agents_own(),
        }
    }
}

impl Owners<'_> {
    /// The status, with the programs as they have just been found.
    pub fn view(&self, programs: Vec<FoundProgram>, refusals: &Refusals) -> StatusView {
        StatusView {
            programs: programs.into_iter().map(ProgramStatus::from).collect(),
            workloads: self
                .enrolled
                .iter()
                .map(|workload| self.workload(workload, refusals))
                .collect(),
            pods: self.pods(),
        }
    }

    pub(super) fn pods(&self) -> Option<PodsStatus> {
        let pods = self.enrolled.pods();
        let reason = match pods.decisions().known() {
            None => "the agent has heard nothing of pods yet",
            Some(_) => {
                "the agent has not heard of this pod, or cannot tell what is to become of it"
            }
        };
        let held = |pod: &HeldPod| HeldPodStatus {
            uid: pod.uid.to_string(),
            cgroup: cgroups::shown(&pod.path),
            since: rfc3339(pod.since),
            reason,
        };
        Some(PodsStatus {
            root: pods.root()?.as_str().to_owned(),
            known: pods.decisions().known().is_some(),
            decided: pods.decisions().count(),
            held: pods.held().map(held).collect(),
            problem: pods.problem().unwrap_or_default(),
            kubelet: self.kubelet.view().map(|view| self.kubelet_status(view)),
        })
    }

    /// Connections of a workload are its agent's affair before they are probes.
    fn kubelet_status(&self, view: KubeletView) -> KubeletStatus {
        let root = self.enrolled.pods().root();
        let selects = |path: &Path| {
            let mut workloads = self.enrolled.configs();
            workloads.find(|workload| cgroups::selects(workload, root, path)).cloned()
        };
        let owner = view.path.as_deref().and_then(selects);
        let mut status = KubeletStatus::from(view);
        if let Some(owner) = owner {
            status.problem = format!(
                "the kubelet's cgroup is the workload {}'s, whose connections are no probes; select it no more",
                owner.name
            );
        }
        status
    }

    /// What is served of each workload.
    pub fn served(&self) -> Vec<ServedWorkload> {
        let served = |workload: &WorkloadState| ServedWorkload {
            workload: workload.id(),
            has_cgroup: workload.cgroups().next().is_some(),
            namespaces: self.served_in(workload),
        };
        self.enrolled.iter().map(served).collect()
    }

    pub(super) fn served_in(&self, workload: &WorkloadState) -> Vec<NamespaceStatus> {
        let all = workload.served_in();
        let open = all.iter().filter_map(|inode| self.namespaces.get(*inode));
        open.map(NamespaceStatus::of).collect()
    }

    fn workload(&self, workload: &WorkloadState, refusals: &Refusals) -> WorkloadStatus {
        let config = workload.config();
        let bypass = &config.outbound.bypass;
        let namespaces = self.served_in(workload);
        let condition = self.condition(workload, &namespaces, refusals);
        WorkloadStatus {
            name: condition.name,
            id: condition.id,
            spiffe_id: config.spiffe_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            state: condition.state,
            reason: condition.reason,
            cgroups: workload
                .cgroups()
                .map(|(id, cgroup)| CgroupStatus { path: cgroups::shown(cgroup.path()), id })
                .collect(),
            namespaces,
            inbound: InboundStatus {
                mode: match config.inbound.mode {
                    InboundMode::Strict => "strict",
                    InboundMode::Permissive => "permissive",
                    InboundMode::Disabled => "disabled",
                },
                ports: config.inbound.ports.clone(),
                refused: workload.is_inbound()
                    && workload.ports().is_empty()
                    && workload.has_stayed_in(self.namespaces.own_inode()),
            },
            outbound: OutboundStatus {
                mode: match config.outbound.mode {
                    OutboundMode::Require => "require",
                    OutboundMode::Prefer => "prefer",
                    OutboundMode::Disabled => "disabled",
                },
                bypass: bypass.iter().take(MOST_NAMED).map(BypassStatus::from).collect(),
                bypassed: bypass.len(),
            },
            unprotected: self.unprotected(workload),
            network_mounts: mounts::of_processes(workload.processes()),
            notes: workload.report().said().notes.clone(),
            refused: condition.refused,
        }
    }

    /// Connections of a workload that policy wants protected and that are not.
    fn unprotected(&self, workload: &WorkloadState) -> Vec<UnprotectedConnection> {
        let inodes = workload.namespaces();
        let sockets = inodes.iter().filter_map(|inode| {
            let namespace = self.namespaces.get(*inode)?;
            let processes = workload.processes();
            existing::unprotected(namespace, processes, workload.id(), self.policy).ok()
        });
        sockets
            .flatten()
            .map(|socket| UnprotectedConnection { local: socket.local, remote: socket.remote })
            .collect()
    }
}
