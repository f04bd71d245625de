//! What there is of each workload: cgroups and processes, enrolled as they are found.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::time::Instant;

use super::Supervisor;
use super::observed::{Enrolled, SETTLED};
use crate::capture::cgroups::{self, WorkloadCgroup};
use crate::capture::namespace::existing;
use crate::config::Existing;

impl Supervisor {
    /// Finds what there is now and serves it. What cannot be served becomes the workload's problem; the kernel
    /// keeps it closed meanwhile.
    pub(super) fn look(&mut self) {
        self.programs.follow();
        let seen = self.begin_enrolment();
        let mut claimed = HashMap::new();
        let mut problems = Vec::new();
        for index in 0..self.workloads.len() {
            let problem = match self.look_at(index, &mut claimed) {
                Ok(problem) => problem,
                Err(error) => {
                    self.workloads[index].is_unseen = true;
                    self.keep_as_it_was(index, &mut claimed);
                    Some(format!("cannot be looked at: {error}"))
                }
            };
            problems.push(problem);
        }
        self.settle_enrolment(seen);
        self.open_missing_listeners(&mut problems);
        self.see_who_listens();
        self.see_who_is_where();
        self.keep_awaited();
        self.assign_ports(&mut problems);
        self.say_who_listens(&mut problems);
        for (workload, problem) in self.workloads.iter_mut().zip(problems) {
            workload.set_problem(problem);
        }
        self.let_go();
    }

    /// What was known of a workload still holds when it cannot be looked at.
    fn keep_as_it_was(&mut self, index: usize, claimed: &mut HashMap<u64, String>) {
        let workload = &self.workloads[index];
        for id in workload.cgroups.keys() {
            claimed.entry(*id).or_insert_with(|| workload.config.name.clone());
        }
        for inode in workload.namespaces() {
            if let Some(served) = self.namespaces.get_mut(&inode) {
                served.last_seen = Instant::now();
            }
        }
    }

    /// Returns why the workload cannot be served as configured, if so. `claimed` names the workload of each
    /// cgroup: of several whose patterns match, the first in the configuration has it, as in the kernel.
    ///
    /// # Errors
    /// If it could not be seen what there is; then everything stays as it was.
    fn look_at(
        &mut self,
        index: usize,
        claimed: &mut HashMap<u64, String>,
    ) -> io::Result<Option<String>> {
        let mut found = Vec::new();
        let cgroups = cgroups::find(&self.mount, &self.workloads[index].config)?;
        let mut problem = self.refuse_too_long(index, cgroups.too_long)?;
        for cgroup in cgroups.selected {
            if let Some(owner) = claimed.get(&cgroup.id) {
                problem = Some(format!(
                    "the cgroup {} is also the workload `{owner}`, which comes first",
                    cgroups::shown(&cgroup.path)
                ));
                continue;
            }
            let processes = cgroups::processes(&cgroups::join(&self.mount, &cgroup.path))?;
            claimed.insert(cgroup.id, self.workloads[index].config.name.clone());
            found.push((cgroup, processes));
        }
        let workload = &mut self.workloads[index];
        workload.is_unseen = false;
        workload.cgroups.retain(|id, _| found.iter().any(|(cgroup, _)| cgroup.id == *id));
        workload.processes = found.iter().flat_map(|(_, processes)| processes).copied().collect();
        self.roster.publish(workload.config.id, &workload.processes);
        for (cgroup, processes) in found {
            let (mut namespaces, trouble) = self.serve_namespaces_of(&processes);
            problem = problem.or(trouble);
            namespaces.extend(self.held_by(index, &cgroup, &namespaces)?);
            if let Err(error) = self.enrol(index, &cgroup, &namespaces, &processes) {
                problem = Some(format!("cannot be enrolled: {error}"));
            }
            problem = problem.or_else(|| self.cut_off(index, cgroup.id));
        }
        Ok(problem)
    }

    /// Makes sure that the kernel knows a cgroup as a workload's, and notes where its processes are.
    fn enrol(
        &mut self,
        index: usize,
        cgroup: &WorkloadCgroup,
        namespaces: &BTreeSet<u64>,
        processes: &BTreeSet<u32>,
    ) -> io::Result<()> {
        let is_up = self.is_up;
        let dropped = self.dropped_of(index, cgroup, namespaces)?;
        let entry = self.workloads[index].entry(dropped.as_ref());
        let already = self.tables.workloads.get(&cgroup.id)?;
        if already != Some(entry) {
            self.record(cgroup.id, &entry)?;
            // Removed since it was found, its entry would stay: the kernel takes away what is there when it is removed.
            if !cgroups::is_there(&self.mount, cgroup) {
                self.tables.workloads.remove(&cgroup.id)?;
            }
        }
        let workload = &mut self.workloads[index];
        let enrolled = workload.cgroups.entry(cgroup.id).or_insert_with(|| {
            tracing::info!(
                workload = workload.config.name,
                cgroup = cgroups::shown(&cgroup.path),
                "workload enrolled"
            );
            let reset = already.is_none() && workload.config.existing == Existing::Reset;
            Enrolled::new(cgroup.path.clone(), reset)
        });
        enrolled.dropped = dropped;
        // Whoever is there when the agent starts has been there before.
        let now = Instant::now();
        let since = if is_up { now } else { now.checked_sub(SETTLED).unwrap_or(now) };
        enrolled.sight(namespaces, since);
        if enrolled.reset_pending {
            self.reset_existing(index, namespaces, processes)?;
            if let Some(enrolled) = self.workloads[index].cgroups.get_mut(&cgroup.id) {
                enrolled.reset_pending = false;
            }
        }
        Ok(())
    }

    /// Resets the connections that a workload had before it was enrolled.
    fn reset_existing(
        &self,
        index: usize,
        namespaces: &BTreeSet<u64>,
        processes: &BTreeSet<u32>,
    ) -> io::Result<()> {
        let config = &self.workloads[index].config;
        for served in namespaces.iter().filter_map(|inode| self.namespaces.get(inode)) {
            let sockets =
                existing::unprotected(&served.namespace, processes, config.id, &self.in_force)?;
            existing::reset(&served.namespace, &sockets)?;
            if !sockets.is_empty() {
                tracing::info!(
                    workload = config.name,
                    count = sockets.len(),
                    "existing connections reset"
                );
            }
        }
        Ok(())
    }
}
