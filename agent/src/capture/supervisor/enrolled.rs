//! All workloads, and what is known of each. They are enrolled as their cgroups are found.

mod node_pods;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sheath_common::workload::{Workload, WorkloadId};

use super::attention::Attention;
use super::declared_ports::compare;
use super::enrolment::{Enrolment, Pass};
use super::listening::Listening;
use super::namespaces::Namespaces;
use super::pods::PodRecords;
use super::records::{Bases, CgroupRecords, Known};
use super::workload::WorkloadState;
use crate::capture::cgroups;
use crate::capture::kernel::maps::Maps;
use crate::capture::processes::Processes;
use crate::capture::recognition::{Found, Recognition};
use crate::capture::selectors::Selectors;
use crate::desired::{self, CgroupSelector, Pods};
use crate::steering::Steering;

/// The workloads of the configuration, in its order.
#[derive(Debug)]
pub struct Enrolled {
    workloads: Vec<WorkloadState>,
    enrolment: Enrolment,
    /// How the workloads' cgroups are recognised, and what the kernel has been told of it.
    recognition: Recognition,
    told: Option<Selectors>,
    pods: PodRecords,
    /// The pods could not be looked at the last time.
    are_pods_unseen: bool,
    /// Enrolments of an earlier configuration have yet to be removed.
    is_pruning: bool,
}

impl Enrolled {
    /// Knows of no workload yet.
    pub fn new(
        maps: Arc<Maps>,
        mount: PathBuf,
        processes: Arc<Processes>,
        pods: PodRecords,
    ) -> Self {
        let records = CgroupRecords::new(maps, mount.clone());
        let enrolment = Enrolment::new(mount, records, processes);
        let (workloads, recognition) = (Vec::new(), Recognition::default());
        let (told, are_pods_unseen, is_pruning) = (None, false, false);
        Self { workloads, enrolment, recognition, told, pods, are_pods_unseen, is_pruning }
    }

    /// Ends the start. From now on, processes that are found have just come; those that a start finds have been there before.
    pub fn set_up(&mut self) {
        self.enrolment.set_up();
    }

    /// Changes the workloads. Those that stay, by id, keep what is known of them. From here on the kernel recognises new
    /// cgroups of theirs itself; those that exist are found by looking: it is returned at what. `pods` is what is known of other
    /// pods.
    ///
    /// # Errors
    /// If the maps of pods or patterns cannot be written.
    pub fn set_workloads(
        &mut self,
        workloads: Vec<Arc<desired::Workload>>,
        pods: Option<Pods>,
    ) -> io::Result<Attention> {
        let known = self.pods.decisions().known();
        let mut attention = Attention::to_others(known.as_ref(), pods.as_ref());
        let mut before: HashMap<_, _> =
            self.workloads.drain(..).map(|workload| (workload.id(), workload)).collect();
        for config in workloads {
            let known = before.remove(&config.id);
            if !known.as_ref().is_some_and(|known| known.is_as(&config)) {
                attention.add(&config.cgroup);
            }
            self.workloads.push(match known {
                Some(known) => known.reconfigured(config),
                None => WorkloadState::new(config),
            });
        }
        // The kernel takes the entry of a cgroup away when it is removed. What is left of others is found by looking.
        if before.values().any(|workload| self.enrolment.is_left(workload)) {
            attention = Attention::Everything;
        }
        self.recognition = Recognition::new(self.configs().map(AsRef::as_ref));
        let above = self.recognition.above_others();
        for (index, workload) in self.workloads.iter_mut().enumerate() {
            workload.set_above_others(above.contains(&index));
        }
        let workloads = &self.workloads;
        // First of all: a pod's cgroup may be made at any moment.
        let selected = self.recognition.pods().into_iter();
        let entry = |(uid, index): (_, usize)| (uid, workloads[index].kernel_entry(None));
        self.pods.decide(pods, selected.map(entry).collect())?;
        self.recognition.stand_for(|index| workloads[index].kernel_entry(None));
        let selectors = self.recognition.selectors();
        if self.told.as_ref() != Some(selectors) {
            self.enrolment.records().set_selectors(selectors)?;
            self.told = Some(selectors.clone());
        }
        Ok(attention)
    }

    pub fn configs(&self) -> impl Iterator<Item = &Arc<desired::Workload>> {
        self.workloads.iter().map(WorkloadState::config)
    }

    pub fn iter(&self) -> impl Iterator<Item = &WorkloadState> {
        self.workloads.iter()
    }

    /// Workloads that accept connections from the network through the agent.
    pub fn inbound(&self) -> impl Iterator<Item = &WorkloadState> {
        self.workloads.iter().filter(|workload| workload.is_inbound())
    }

    /// Looks at every workload, enrols what there is of it and has its namespaces served. What cannot be served becomes
    /// the workload's problem; the kernel keeps it closed meanwhile. Reports end with [`Self::finish_reports`].
    pub fn reconcile(&mut self, namespaces: &mut Namespaces, policy: &dyn Steering) {
        let seen = self.enrolment.records_mut().begin();
        let pods = self.pods.find();
        let found = match &pods {
            Ok(pods) => self.enrolment.find(&self.recognition, pods),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let mut bases = Bases {
            of_workloads: self.recognition.bases().iter().map(PathBuf::from).collect(),
            of_pods: self
                .pods
                .root()
                .into_iter()
                .flat_map(|root| root.parents())
                .map(Into::into)
                .collect(),
        };
        if let Ok(found) = &found {
            self.add_nesting(found, &mut bases);
        }
        let mut pass = Pass::new(namespaces, policy);
        for index in 0..self.workloads.len() {
            let looked = match &found {
                Ok(found) => self.reconcile_workload(index, found, &mut pass),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            let workload = &mut self.workloads[index];
            let problem = looked.unwrap_or_else(|error| {
                workload.set_unseen();
                pass.keep(workload);
                Some(format!("cannot be inspected: {error}"))
            });
            workload.report_mut().begin(problem);
        }
        self.reconcile_pods(pods);
        let known = self.known();
        self.enrolment.records_mut().finish(seen, &bases, &known);
    }

    fn reconcile_workload(
        &mut self,
        index: usize,
        all: &[Found],
        pass: &mut Pass<'_>,
    ) -> io::Result<Option<String>> {
        let found = &all[index];
        let taken = found.taken.last().map(|(cgroup, owner)| {
            format!(
                "the cgroup {} is also the workload `{}`, which comes first",
                cgroups::shown(&cgroup.path),
                self.workloads[*owner].name()
            )
        });
        let problem = self.enrolment.reconcile_workload(&mut self.workloads[index], found, pass)?;
        Ok(problem.or(taken))
    }

    /// Cgroups that are selected by their ids may lie below those of other workloads, and others below them, and so may pods:
    /// no pattern tells. Adds where they lie to `bases`, and notes which workloads are above.
    fn add_nesting(&mut self, all: &[Found], bases: &mut Bases) {
        if !self.recognition.has_ids() && bases.of_pods.is_empty() {
            return;
        }
        let mut owners = HashMap::new();
        for (index, found) in all.iter().enumerate() {
            let is_by_id = matches!(self.workloads[index].config().cgroup, CgroupSelector::Id(_));
            for cgroup in &found.selected {
                owners.insert(cgroup.path.as_path(), index);
                let above = cgroup.path.parent().filter(|_| is_by_id);
                bases.of_workloads.extend(above.map(Path::to_owned));
            }
        }
        let paths = bases.of_workloads.iter().chain(&bases.of_pods);
        for path in paths.flat_map(|path| path.ancestors()) {
            if let Some(index) = owners.get(path) {
                self.workloads[*index].set_above_others(true);
            }
        }
    }

    fn known(&self) -> Known {
        Known {
            cgroups: self
                .workloads
                .iter()
                .flat_map(WorkloadState::recorded)
                .chain(self.pods.kept())
                .collect(),
            is_complete: !self.are_pods_unseen
                && !self.workloads.iter().any(WorkloadState::is_unseen),
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

    /// Puts the removal of what an earlier configuration had off, if pods may be known by it: nothing has been heard yet that says
    /// what they are now. Returns whether it is put off.
    pub fn put_off_pruning(&mut self) -> bool {
        let ids = self.workloads.iter().map(WorkloadState::id).collect();
        let may_have_others =
            self.pods.root().is_some() && self.pods.decisions().may_have_others(&ids);
        self.is_pruning |= may_have_others;
        may_have_others
    }

    /// Has what an earlier configuration had removed after the next look at everything.
    pub fn prune_later(&mut self) {
        self.is_pruning = true;
    }

    pub fn pods(&self) -> &PodRecords {
        &self.pods
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

    /// Ends the report of each workload, and logs what is new.
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
