//! The same look at who listens, without an agent: for `sheath check`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::listening::is_inbound;
use super::observed::{Enrolled, Observed};
use super::ports::unnamed_ports;
use crate::capture::cgroups;
use crate::capture::namespace::owned_sockets;
use crate::capture::proc::{self, NamespaceFile};
use crate::config::{NamespaceKind, WorkloadConfig};
use crate::sys::netns::NetworkNamespace;

/// What is to be said about who listens on a workload's ports now.
#[derive(Debug, Default)]
pub struct Survey {
    /// What keeps it from being served, or leaves a service of it unprotected.
    pub problems: BTreeSet<String>,
    pub notes: BTreeSet<String>,
}

/// Looks at a workload's processes and at who listens where they are.
pub fn survey(mount: &Path, config: &WorkloadConfig) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let mut workload = Observed::new(config.clone());
    if !is_inbound(&workload) {
        return Ok(survey);
    }
    for cgroup in cgroups::find(mount, config)?.selected {
        workload.processes.extend(cgroups::processes(&cgroups::join(mount, &cgroup.path))?);
        workload.cgroups.insert(cgroup.id, Enrolled::new(cgroup.path, false));
    }
    let own = NetworkNamespace::own()?;
    if workload.processes.is_empty() {
        // It may come to be here: until it is seen elsewhere, its ports are its own here too.
        if config.inbound.namespace == NamespaceKind::Any && !config.inbound.ports.is_empty() {
            survey
                .problems
                .extend(workload.compare(&owned_sockets::listening(&own, mount)?).problem);
        }
        return Ok(survey);
    }
    for (inode, file) in namespaces(&workload.processes)? {
        let netns = NetworkNamespace::open(&file.path, &own)?;
        let all = owned_sockets::listening(&netns, mount)?;
        if !config.inbound.ports.is_empty() {
            let findings = workload.compare(&all);
            survey.problems.extend(findings.problem);
            survey.notes.extend(findings.notes);
        } else if inode == own.inode() {
            survey.problems.insert(unnamed_ports(&workload, &all));
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
