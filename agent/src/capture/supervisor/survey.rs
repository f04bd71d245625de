//! Who listens on a workload's ports now, seen without an agent: for `sheath check`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::declared_ports::{compare, no_declared_ports};
use super::workload::WorkloadState;
use crate::capture::cgroups;
use crate::capture::namespace::owned_sockets;
use crate::capture::pod_settings::PodRoot;
use crate::capture::proc::{self, NamespaceFile};
use crate::capture::recognition;
use crate::desired::{self, NamespaceKind};
use crate::sys::netns::NetworkNamespace;

/// Findings about the sockets that listen on a workload's ports now.
#[derive(Debug, Default)]
pub struct Survey {
    /// What keeps it from being served, or leaves a service of it unprotected.
    pub problems: BTreeSet<String>,
    pub notes: BTreeSet<String>,
}

/// Looks at a workload's processes and at who listens where they are. Pods are below `pods`.
///
/// # Errors
/// If cgroups, processes or sockets cannot be looked at.
pub fn survey(
    mount: &Path,
    config: &Arc<desired::Workload>,
    pods: Option<&PodRoot>,
) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let mut workload = WorkloadState::new(config.clone());
    if !workload.is_inbound() {
        return Ok(survey);
    }
    let (mut ids, mut processes) = (BTreeSet::new(), BTreeSet::new());
    for cgroup in recognition::find(mount, config, pods)?.selected {
        processes.extend(cgroups::processes(&cgroups::join(mount, &cgroup.path))?);
        workload.enrol(&cgroup, false);
        ids.insert(cgroup.id);
    }
    workload.set_present(&ids, processes);
    let own = NetworkNamespace::own()?;
    if workload.processes().is_empty() {
        // It may come to be here: until it is seen elsewhere, its ports are its own here too.
        if config.inbound.namespace == NamespaceKind::Any && !config.inbound.ports.is_empty() {
            let listeners = owned_sockets::listening(&own, mount)?;
            survey.problems.extend(compare(&workload, &listeners).problem);
        }
        return Ok(survey);
    }
    for (inode, file) in namespaces(workload.processes())? {
        let netns = NetworkNamespace::open(&file.path, &own)?;
        let listeners = owned_sockets::listening(&netns, mount)?;
        if !config.inbound.ports.is_empty() {
            let findings = compare(&workload, &listeners);
            survey.problems.extend(findings.problem);
            survey.notes.extend(findings.notes);
        } else if inode == own.inode() {
            survey.problems.insert(no_declared_ports(&workload, &listeners));
        }
    }
    Ok(survey)
}

fn namespaces(processes: &BTreeSet<u32>) -> io::Result<BTreeMap<u64, NamespaceFile>> {
    let mut namespaces = BTreeMap::new();
    for pid in processes {
        if let Some(file) = proc::network_namespace(*pid)? {
            namespaces.entry(file.inode).or_insert(file);
        }
    }
    Ok(namespaces)
}
