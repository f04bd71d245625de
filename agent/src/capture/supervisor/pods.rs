//! Pods of a kubelet: what the kernel is told of them before their cgroups are there, and which of them are held.
//!
//! What was decided about a pod stays in the kernel until its cgroup is gone, also when nobody wants it any more: a pod that was
//! left alone still is, and one that was a workload is held. As long as nothing is known about pods, nothing changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use sheath_common::maps::MAX_PODS;
use sheath_common::pod_uid::PodUid;
use sheath_common::workload::Workload;

use super::pod_decisions::{Fate, PodDecisions, Remnant};
use super::records::CgroupRecords;
use crate::capture::cgroups::{self, WorkloadCgroup};
use crate::capture::kernel::maps::Maps;
use crate::capture::pod_cgroups::{self, PodCgroup};
use crate::capture::pod_settings::{PodRoot, PodSettings, UnknownPods};
use crate::capture::proc;
use crate::desired::Pods;

/// All pods.
#[derive(Debug)]
pub struct PodRecords {
    maps: Arc<Maps>,
    /// Where the cgroup v2 hierarchy is mounted.
    mount: PathBuf,
    settings: Option<PodSettings>,
    /// Inode number of the host's network namespace.
    host: u64,
    decisions: PodDecisions,
    /// By cgroup id.
    held: BTreeMap<u64, HeldPod>,
    /// Cgroups whose entries stay although no workload has them.
    kept: BTreeSet<u64>,
    /// Pods for which there is no room.
    untold: usize,
}

/// A pod that nobody has decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPod {
    pub uid: PodUid,
    pub path: PathBuf,
    /// When it was first seen to be held.
    pub since: SystemTime,
}

impl PodRecords {
    /// `host` is the inode number of the host's network namespace.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn new(
        maps: Arc<Maps>,
        mount: PathBuf,
        settings: Option<PodSettings>,
        host: u64,
    ) -> io::Result<Self> {
        let decisions = PodDecisions::restore(maps.pods.decisions()?);
        Ok(Self {
            maps,
            mount,
            settings,
            host,
            decisions,
            held: BTreeMap::new(),
            kept: BTreeSet::new(),
            untold: 0,
        })
    }

    /// What all pods are below, if there are any.
    pub fn root(&self) -> Option<&PodRoot> {
        self.settings.as_ref().map(|settings| &settings.root)
    }

    /// Tells the kernel what was decided, so that it knows before a pod's cgroup is made. For what there is no room for the kernel
    /// holds a new pod, until its cgroup is found.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn decide(
        &mut self,
        pods: Option<Pods>,
        selected: HashMap<PodUid, Workload>,
    ) -> io::Result<()> {
        self.decisions.decide(pods, selected);
        self.tell()
    }

    /// Tells the kernel what it does not know yet.
    fn tell(&mut self) -> io::Result<()> {
        let before = std::mem::take(&mut self.untold);
        for (uid, decision) in self.decisions.untold() {
            match self.maps.pods.decide(&uid, &decision) {
                Ok(()) => self.decisions.note_told(uid, decision),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => self.untold += 1,
                Err(error) => return Err(error),
            }
        }
        if self.untold != 0 && before == 0 {
            tracing::warn!(pods = self.untold, "{}", no_room(self.untold));
        }
        Ok(())
    }

    /// The pods whose cgroups there are now.
    ///
    /// # Errors
    /// If the hierarchy cannot be read.
    pub fn find(&self) -> io::Result<Vec<PodCgroup>> {
        self.root().map_or(Ok(Vec::new()), |root| pod_cgroups::find(&self.mount, root))
    }

    /// Holds and releases what has been found, but for cgroups of `workloads`, and forgets pods that are gone. Unless all workloads
    /// could be looked at (`is_complete`), what may be the entry of one stays.
    ///
    /// # Errors
    /// If a map cannot be read or written, or it cannot be seen where a pod's processes are.
    pub fn reconcile(
        &mut self,
        found: &[PodCgroup],
        workloads: &BTreeSet<u64>,
        is_complete: bool,
        records: &mut CgroupRecords,
    ) -> io::Result<()> {
        self.kept.clear();
        let before = std::mem::take(&mut self.held);
        // What there is no room for must not keep others from being released.
        let mut settled = Ok(());
        for pod in found.iter().filter(|pod| !workloads.contains(&pod.cgroup.id)) {
            let id = pod.cgroup.id;
            let entry = match self.settle(pod, is_complete, records) {
                Ok(entry) => entry,
                Err(error) => {
                    settled = Err(error);
                    continue;
                }
            };
            if entry.is_none_or(|entry| entry.is_base()) {
                continue;
            }
            self.kept.insert(id);
            if entry.is_some_and(|entry| entry.is_held()) {
                let held = before.get(&id).cloned().unwrap_or_else(|| HeldPod::new(pod));
                self.held.insert(id, held);
            }
        }
        for (id, pod) in before.iter().filter(|(id, _)| !self.held.contains_key(id)) {
            let how_long = pod.since.elapsed().unwrap_or_default();
            tracing::info!(pod = %pod.uid, cgroup = id, ?how_long, "pod not held any more");
        }
        self.settle_remnants(found)?;
        // There may be room now.
        if self.untold != 0 {
            self.tell()?;
        }
        settled
    }

    /// Makes the entry of a pod's cgroup what it is to be, and returns it.
    fn settle(
        &mut self,
        pod: &PodCgroup,
        is_complete: bool,
        records: &mut CgroupRecords,
    ) -> io::Result<Option<Workload>> {
        let id = pod.cgroup.id;
        let entry = records.get(id)?;
        let is_ours = entry.is_some_and(|entry| !entry.is_base());
        if is_ours && !is_complete && !entry.is_some_and(|entry| entry.is_held()) {
            return Ok(entry);
        }
        let holds = self.settings.as_ref().is_some_and(|set| set.unknown == UnknownPods::Hold);
        match self.decisions.fate(&pod.uid, pod.is_hash, holds) {
            Fate::Plain if is_ours => {
                records.remove(id)?;
                Ok(None)
            }
            Fate::Held if !entry.is_some_and(|entry| entry.is_held()) => {
                // What the host itself does must not depend on a decision: it was there before.
                if entry.is_none() && self.is_host_network(&pod.cgroup)? {
                    return Ok(None);
                }
                records.record(id, &Workload::HELD)?;
                // Removed since it was found, its entry would stay.
                if !cgroups::is_there(&self.mount, &pod.cgroup) {
                    records.remove(id)?;
                    return Ok(None);
                }
                Ok(Some(Workload::HELD))
            }
            _ => Ok(entry),
        }
    }

    /// True if processes of a cgroup are in the host's network namespace, and are to be left alone there.
    fn is_host_network(&self, cgroup: &WorkloadCgroup) -> io::Result<bool> {
        if self.settings.as_ref().is_none_or(|settings| settings.hold_host_network) {
            return Ok(false);
        }
        for pid in cgroups::processes(&cgroups::join(&self.mount, &cgroup.path))? {
            if proc::network_namespace(pid)?.is_some_and(|file| file.inode == self.host) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets pods that are wanted no more and whose cgroups are gone; holds those that were workloads.
    fn settle_remnants(&mut self, found: &[PodCgroup]) -> io::Result<()> {
        let there: HashSet<_> = found.iter().map(|pod| pod.uid).collect();
        for (pod, remnant) in self.decisions.remnants(&there) {
            match remnant {
                Remnant::Forget => {
                    self.maps.pods.forget(&pod)?;
                    self.decisions.note_forgotten(&pod);
                }
                Remnant::Hold => {
                    self.maps.pods.decide(&pod, &Workload::HELD)?;
                    self.decisions.note_told(pod, Workload::HELD);
                }
            }
        }
        Ok(())
    }

    /// Cgroups whose entries stay although no workload has them.
    pub fn kept(&self) -> impl Iterator<Item = u64> {
        self.kept.iter().copied()
    }

    /// What was decided.
    pub fn decisions(&self) -> &PodDecisions {
        &self.decisions
    }

    pub fn held(&self) -> impl Iterator<Item = &HeldPod> {
        self.held.values()
    }

    /// What keeps the kernel from knowing every decision.
    pub fn problem(&self) -> Option<String> {
        (self.untold != 0).then(|| no_room(self.untold))
    }
}

impl HeldPod {
    fn new(pod: &PodCgroup) -> Self {
        tracing::info!(
            pod = %pod.uid,
            cgroup = cgroups::shown(&pod.cgroup.path),
            "pod held: nobody has decided about it"
        );
        Self { uid: pod.uid, path: pod.cgroup.path.clone(), since: SystemTime::now() }
    }
}

fn no_room(pods: usize) -> String {
    format!(
        "the kernel knows what {MAX_PODS} pods are, and there is no room for {pods} more: each of these is held from the making of its \
         cgroup until the agent has seen it"
    )
}
