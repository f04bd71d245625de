//! All workloads: enrolled as they are found, and what is known of each.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sheath_common::selector::{Selector, base};
use sheath_common::workload::{Workload, WorkloadId};

use super::declared_ports::compare;
use super::enrolment::{Enrolment, Pass};
use super::listening::Listening;
use super::namespaces::Namespaces;
use super::records::{CgroupRecords, Known};
use super::workload::WorkloadState;
use crate::capture::kernel::maps::Maps;
use crate::capture::processes::Processes;
use crate::desired;
use crate::steering::Steering;

/// The workloads of the configuration, in its order.
#[derive(Debug)]
pub struct Enrolled {
    workloads: Vec<WorkloadState>,
    enrolment: Enrolment,
    /// Enrolments of an earlier configuration have yet to be removed.
    is_pruning: bool,
}

impl Enrolled {
    /// Knows of no workload yet.
    pub fn new(maps: Arc<Maps>, mount: PathBuf, processes: Arc<Processes>) -> Self {
        let records = CgroupRecords::new(maps, mount.clone());
        let enrolment = Enrolment::new(mount, records, processes);
        Self { workloads: Vec::new(), enrolment, is_pruning: false }
    }

    /// From now on, processes that are new have just come. Before, the agent starts: those that it finds have been there.
    pub fn set_up(&mut self) {
        self.enrolment.set_up();
    }

    /// Changes the workloads. Those that stay, by id, keep what is known of them. From here on the kernel recognises new
    /// cgroups of theirs itself; those that exist are found by looking.
    ///
    /// # Errors
    /// If the map of selectors cannot be written.
    pub fn set_workloads(&mut self, workloads: Vec<Arc<desired::Workload>>) -> io::Result<()> {
        let mut before: HashMap<_, _> =
            self.workloads.drain(..).map(|workload| (workload.id(), workload)).collect();
        self.workloads = workloads
            .into_iter()
            .map(|config| match before.remove(&config.id) {
                Some(known) => known.reconfigured(config),
                None => WorkloadState::new(config),
            })
            .collect();
        let bases = self.bases();
        for workload in &mut self.workloads {
            workload.note_bases(&bases);
        }
        self.enrolment.records().set_selectors(&self.selectors(&bases))
    }

    /// What the kernel recognises new cgroups by: workloads first, then what they lie below.
    fn selectors(&self, bases: &BTreeSet<String>) -> Vec<Selector> {
        let of_workload = |workload: &WorkloadState| {
            let selector = workload.config().selector()?;
            Some(Selector { workload: workload.kernel_entry(None), ..selector })
        };
        let of_base = |path: &String| Selector::new(path.as_bytes(), Workload::BASE);
        let of_bases = bases.iter().filter(|path| !path.is_empty()).filter_map(of_base);
        self.workloads.iter().filter_map(of_workload).chain(of_bases).collect()
    }

    /// Paths of the cgroups that workloads lie below.
    fn bases(&self) -> BTreeSet<String> {
        let base_of = |workload: &WorkloadState| {
            workload.config().cgroup.pattern().map(|pattern| base(pattern).to_owned())
        };
        self.workloads.iter().filter_map(base_of).collect()
    }

    pub fn configs(&self) -> impl Iterator<Item = &Arc<desired::Workload>> {
        self.workloads.iter().map(WorkloadState::config)
    }

    pub fn iter(&self) -> impl Iterator<Item = &WorkloadState> {
        self.workloads.iter()
    }

    /// Those that the network may call by way of the agent.
    pub fn inbound(&self) -> impl Iterator<Item = &WorkloadState> {
        self.workloads.iter().filter(|workload| workload.is_inbound())
    }

    /// Looks at every workload, enrols what there is of it and has its namespaces served. What cannot be served becomes
    /// the workload's problem; the kernel keeps it closed meanwhile. Reports end with [`Self::finish_reports`].
    pub fn reconcile(&mut self, namespaces: &mut Namespaces, policy: &dyn Steering) {
        let seen = self.enrolment.records_mut().begin();
        let mut pass = Pass::new(namespaces, policy);
        for workload in &mut self.workloads {
            let problem = match self.enrolment.reconcile_workload(workload, &mut pass) {
                Ok(problem) => problem,
                Err(error) => {
                    workload.set_unseen();
                    pass.keep(workload);
                    Some(format!("cannot be looked at: {error}"))
                }
            };
            workload.report_mut().begin(problem);
        }
        let (bases, known) = (self.bases(), self.known());
        self.enrolment.records_mut().finish(seen, &bases, &known);
    }

    fn known(&self) -> Known {
        Known {
            cgroups: self.workloads.iter().flat_map(WorkloadState::recorded).collect(),
            is_complete: !self.workloads.iter().any(WorkloadState::is_unseen),
        }
    }

    /// Ids of the cgroups that the kernel has entries for, of whatever configuration.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn recorded(&self) -> io::Result<Vec<u64>> {
        self.enrolment.records().all()
    }

    /// Removes those entries of `before` that the last look has not found to be this configuration's. Where something
    /// could not be looked at, they stay for another time: [`Self::is_pruning`].
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn prune(&mut self, before: &[u64]) -> io::Result<()> {
        let known = self.known();
        self.is_pruning = !known.is_complete;
        if self.is_pruning {
            return Ok(());
        }
        self.enrolment.records().prune(before, &known)
    }

    /// True while entries of an earlier configuration may have yet to be removed.
    pub fn is_pruning(&self) -> bool {
        self.is_pruning
    }

    /// Serves namespaces that an earlier agent has served, and of which a workload still has a socket although nobody is
    /// in them.
    ///
    /// # Errors
    /// If one of them cannot be served.
    pub fn serve_held(&mut self, namespaces: &mut Namespaces) -> io::Result<()> {
        let mut unserved: HashSet<u64> = namespaces.unserved()?;
        for workload in &mut self.workloads {
            let found = namespaces.serve_held_by(workload.processes(), &mut unserved)?;
            workload.sight(&found);
        }
        Ok(())
    }

    /// Namespaces of which it has to be known who listens: the agent's own, others in which a workload has declared ports,
    /// and where one may be awaited.
    pub fn where_listeners_matter(&self, own: u64) -> BTreeSet<u64> {
        let mut namespaces = BTreeSet::new();
        for workload in self.inbound() {
            namespaces.insert(own);
            if !workload.ports().is_empty() {
                namespaces.extend(workload.namespaces());
            }
            namespaces.extend(workload.homes_left());
        }
        namespaces
    }

    /// Notes where each workload listens and is. What rests on its being in a namespace ends when it has left.
    pub fn update_whereabouts(&mut self, namespaces: &mut Namespaces, listening: &Listening) {
        for workload in self.workloads.iter_mut().filter(|workload| workload.is_inbound()) {
            workload.note_listeners(listening.iter());
            if let Some(problem) = listening.problem() {
                workload.report_mut().note(problem.to_owned());
            }
        }
        for workload in &mut self.workloads {
            for inode in workload.update_whereabouts(namespaces.own_inode()) {
                if let Some(namespace) = namespaces.get(inode) {
                    namespace.leave(workload.id());
                }
            }
            workload.update_homes(namespaces, listening);
        }
    }

    /// True if a workload that the network may call may be passing through a namespace now.
    pub fn may_be_passing(&self, own: u64) -> bool {
        self.inbound().any(|workload| workload.may_be_passing(own))
    }

    /// Reports what keeps a workload's ports from being served, or leaves a service of it unprotected.
    pub fn compare_with_listeners(&mut self, listening: &Listening, own: u64) {
        for workload in self.workloads.iter_mut().filter(|workload| workload.is_inbound()) {
            if workload.ports().is_empty() {
                continue;
            }
            let mut places = workload.namespaces();
            if places.is_empty() && !workload.lives_elsewhere() {
                places.insert(own);
            }
            for listeners in places.iter().filter_map(|inode| listening.in_namespace(*inode)) {
                let findings = compare(workload, listeners);
                let runs = !workload.processes().is_empty();
                let report = workload.report_mut();
                match findings.problem {
                    Some(problem) if runs => report.problem(problem),
                    Some(problem) => report.note(problem),
                    None => {}
                }
                findings.notes.into_iter().for_each(|note| report.note(note));
            }
        }
    }

    /// Reports a problem of one workload.
    pub fn report(&mut self, workload: WorkloadId, problem: &str) {
        self.report_where(|other| other.id() == workload, problem);
    }

    /// Reports a problem of those workloads that it concerns.
    pub fn report_where(&mut self, concerns: impl Fn(&WorkloadState) -> bool, problem: &str) {
        for workload in self.workloads.iter_mut().filter(|workload| concerns(workload)) {
            workload.report_mut().problem(problem);
        }
    }

    /// Ends what is to be said of each workload, and logs what is new.
    pub fn finish_reports(&mut self) {
        self.workloads.iter_mut().for_each(WorkloadState::finish_report);
    }

    /// True if the kernel has this entry for a cgroup.
    pub fn is_recorded(&self, cgroup: u64, entry: Workload) -> bool {
        self.enrolment.records().get(cgroup).is_ok_and(|found| found == Some(entry))
    }

    /// Directory of a cgroup given by its path from the root.
    pub fn directory(&self, path: &Path) -> PathBuf {
        self.enrolment.directory(path)
    }
}
