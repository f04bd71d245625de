//! Enrols one workload: finds and records its cgroups, and has the namespaces of its processes served.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use sheath_common::selector::MAX_PATH;
use sheath_common::workload::Workload;

use super::enrolled_cgroup::{EnrolledCgroup, LINGER, STAY};
use super::namespaces::Namespaces;
use super::records::CgroupRecords;
use super::workload::WorkloadState;
use crate::capture::cgroups::{self, WorkloadCgroup};
use crate::capture::filters::{self, Blocked};
use crate::capture::namespace::existing;
use crate::capture::pod_cgroups::PodCgroup;
use crate::capture::processes::Processes;
use crate::capture::recognition::{Found, Recognition};
use crate::desired::{CgroupSelector, Existing};
use crate::steering::Steering;

/// Enrols workloads.
#[derive(Debug)]
pub struct Enrolment {
    /// Where the cgroup v2 hierarchy is mounted.
    mount: PathBuf,
    records: CgroupRecords,
    processes: Arc<Processes>,
    /// False while the agent starts: the processes that it finds then have been there before.
    is_up: bool,
}

/// One pass over all workloads.
#[derive(Debug)]
pub struct Pass<'p> {
    namespaces: &'p mut Namespaces,
    policy: &'p dyn Steering,
}

/// A cgroup of a workload, with all that there is of it.
struct FoundCgroup {
    cgroup: WorkloadCgroup,
    processes: BTreeSet<u32>,
    namespaces: BTreeSet<u64>,
}

impl<'p> Pass<'p> {
    pub fn new(namespaces: &'p mut Namespaces, policy: &'p dyn Steering) -> Self {
        Self { namespaces, policy }
    }

    /// Keeps what was known of a workload that cannot be inspected.
    pub fn keep(&mut self, workload: &WorkloadState) {
        for inode in workload.namespaces() {
            self.namespaces.keep(inode);
        }
    }
}

impl Enrolment {
    pub fn new(mount: PathBuf, records: CgroupRecords, processes: Arc<Processes>) -> Self {
        Self { mount, records, processes, is_up: false }
    }

    /// From now on, processes that are new have just come.
    pub fn set_up(&mut self) {
        self.is_up = true;
    }

    pub fn records(&self) -> &CgroupRecords {
        &self.records
    }

    pub fn records_mut(&mut self) -> &mut CgroupRecords {
        &mut self.records
    }

    /// Directory of a cgroup given by its path from the root.
    pub fn directory(&self, path: &std::path::Path) -> PathBuf {
        cgroups::join(&self.mount, path)
    }

    /// True if cgroups of a workload may still be there.
    pub fn is_left(&self, workload: &WorkloadState) -> bool {
        let is_there = |(id, cgroup): (u64, &EnrolledCgroup)| {
            let path = cgroup.path().to_owned();
            cgroups::is_there(&self.mount, &WorkloadCgroup { id, path })
        };
        let is_pod = matches!(workload.config().cgroup, CgroupSelector::Pod(_));
        !is_pod || workload.has_too_long() || workload.cgroups().any(is_there)
    }

    /// Finds the cgroups of all workloads that there are now. `pods` are the pods that there are.
    ///
    /// # Errors
    /// If the hierarchy cannot be read.
    pub fn find(&self, recognition: &Recognition, pods: &[PodCgroup]) -> io::Result<Vec<Found>> {
        recognition.find(&self.mount, pods)
    }

    /// Enrols what has been found of a workload, and has it served. Returns why the workload cannot be served as configured,
    /// if so.
    ///
    /// # Errors
    /// If it could not be seen what there is; then what was known of it still holds.
    pub fn reconcile_workload(
        &mut self,
        workload: &mut WorkloadState,
        cgroups: &Found,
        pass: &mut Pass<'_>,
    ) -> io::Result<Option<String>> {
        let mut problem = self.refuse_too_long(workload, &cgroups.too_long)?;
        let mut found = Vec::new();
        for cgroup in &cgroups.selected {
            let processes = cgroups::processes(&self.directory(&cgroup.path))?;
            found.push((cgroup.clone(), processes));
        }
        let ids = found.iter().map(|(cgroup, _)| cgroup.id).collect();
        let processes = found.iter().flat_map(|(_, processes)| processes).copied().collect();
        workload.set_present(&ids, processes);
        self.processes.publish(workload.id(), workload.processes());
        for (cgroup, processes) in found {
            let (mut namespaces, trouble) = pass.namespaces.serve_those_of(&processes);
            problem = problem.or(trouble);
            let held = held_by(workload, &cgroup, &namespaces, pass.namespaces)?;
            namespaces.extend(held);
            let found = FoundCgroup { cgroup, processes, namespaces };
            if let Err(error) = self.enrol(workload, &found, pass) {
                problem = Some(format!("cannot be enrolled: {error}"));
            }
            problem = problem.or_else(|| cut_off(workload, found.cgroup.id));
        }
        Ok(problem)
    }

    /// Refuses cgroups whose paths are too long to tell whose they are. Returns what to say of them.
    fn refuse_too_long(
        &mut self,
        workload: &mut WorkloadState,
        too_long: &[WorkloadCgroup],
    ) -> io::Result<Option<String>> {
        let problem = too_long.first().map(|cgroup| {
            format!(
                "connections of {} cgroup(s) are refused because of paths longer than {MAX_PATH} bytes: {}",
                too_long.len(),
                cgroups::shown(&cgroup.path)
            )
        });
        let ids: BTreeSet<u64> = too_long.iter().map(|cgroup| cgroup.id).collect();
        workload.set_too_long(ids.clone());
        for id in ids {
            if self.records.get(id)? != Some(Workload::REFUSED) {
                self.records.record(id, &Workload::REFUSED)?;
            }
        }
        Ok(problem)
    }

    /// Makes sure that the kernel knows a cgroup as a workload's, and notes where its processes are.
    fn enrol(
        &mut self,
        workload: &mut WorkloadState,
        found: &FoundCgroup,
        pass: &Pass<'_>,
    ) -> io::Result<()> {
        let id = found.cgroup.id;
        let blocked = self.blocked(workload, found, pass.namespaces)?;
        let entry = workload.kernel_entry(blocked.as_ref());
        let already = self.records.get(id)?;
        if already != Some(entry) {
            self.records.record(id, &entry)?;
            // Removed since it was found, its entry would stay: the kernel takes away what is there when it is removed.
            if !cgroups::is_there(&self.mount, &found.cgroup) {
                self.records.remove(id)?;
            }
        }
        let must_reset = already.is_none() && workload.config().existing == Existing::Reset;
        let now = Instant::now();
        let since = if self.is_up { now } else { now.checked_sub(STAY).unwrap_or(now) };
        let enrolled = workload.enrol(&found.cgroup, must_reset);
        enrolled.set_blocked(blocked);
        enrolled.sight(&found.namespaces, since);
        if enrolled.must_reset() {
            reset_existing(workload, found, pass)?;
            workload.enrol(&found.cgroup, false).set_must_reset(false);
        }
        Ok(())
    }

    /// The packet filters of others that block a cgroup's processes on their way to the agent.
    fn blocked(
        &self,
        workload: &WorkloadState,
        found: &FoundCgroup,
        namespaces: &Namespaces,
    ) -> io::Result<Option<Blocked>> {
        let directory = match File::open(self.directory(&found.cgroup.path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            directory => directory?,
        };
        filters::blocked(&directory, || match workload.is_inbound() {
            true => namespaces.own_addresses(&found.namespaces),
            false => Ok(Vec::new()),
        })
    }
}

/// Namespaces that a workload has been in, and that still hold sockets of the cgroup although no process is seen there.
/// Looked for only where nobody has been seen for a while: most namespaces end with their last process.
fn held_by(
    workload: &WorkloadState,
    cgroup: &WorkloadCgroup,
    seen: &BTreeSet<u64>,
    namespaces: &mut Namespaces,
) -> io::Result<BTreeSet<u64>> {
    let Some(enrolled) = workload.cgroup(cgroup.id) else {
        return Ok(BTreeSet::new());
    };
    let left = enrolled
        .sightings()
        .filter(|(inode, sighting)| sighting.is_older_than(LINGER / 2) && !seen.contains(inode))
        .map(|(inode, _)| inode)
        .collect();
    namespaces.keep_where_sockets_of(&cgroup.path, &left)
}

/// Why connections of a cgroup do not reach the agent, if they do not.
fn cut_off(workload: &WorkloadState, cgroup: u64) -> Option<String> {
    let blocked = workload.cgroup(cgroup)?.blocked()?;
    Some(format!("{blocked}; {}", blocked.advice()))
}

/// Resets the connections that a workload had before it was enrolled.
fn reset_existing(
    workload: &WorkloadState,
    found: &FoundCgroup,
    pass: &Pass<'_>,
) -> io::Result<()> {
    for namespace in found.namespaces.iter().filter_map(|inode| pass.namespaces.get(*inode)) {
        let sockets =
            existing::unprotected(namespace, &found.processes, workload.id(), pass.policy)?;
        existing::reset(namespace, &sockets)?;
        if !sockets.is_empty() {
            tracing::info!(
                workload = workload.name(),
                count = sockets.len(),
                "existing connections reset"
            );
        }
    }
    Ok(())
}
