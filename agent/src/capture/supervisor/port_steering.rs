//! Has the ports of each namespace steered to the agent, and guards the ports on which service managers listen for workloads.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use sheath_common::flow::ActivatedKey;
use sheath_common::workload::WorkloadId;

use super::enrolled::Enrolled;
use super::listening::Listening;
use super::namespaces::Namespaces;
use super::ports::{NamespaceView, assign};
use super::workload::WorkloadState;
use crate::capture::cgroups;
use crate::capture::kernel::maps::Maps;

/// The inbound ports in the kernel.
#[derive(Debug)]
pub struct PortSteering {
    maps: Arc<Maps>,
    /// Where the cgroup v2 hierarchy is mounted.
    mount: PathBuf,
    /// Ports of service managers that are guarded.
    activated: Option<HashSet<ActivatedKey>>,
}

impl PortSteering {
    pub fn new(maps: Arc<Maps>, mount: PathBuf) -> Self {
        Self { maps, mount, activated: None }
    }

    /// Works out whose the ports of every namespace are, and has them steered. What fails becomes the problem of the
    /// workloads that it concerns.
    pub fn update(
        &mut self,
        enrolled: &mut Enrolled,
        namespaces: &Namespaces,
        listening: &Listening,
    ) {
        self.update_where(|_| true, enrolled, namespaces, listening);
    }

    /// The same in these namespaces alone.
    pub fn update_in(
        &mut self,
        places: &BTreeSet<u64>,
        enrolled: &mut Enrolled,
        namespaces: &Namespaces,
        listening: &Listening,
    ) {
        self.update_where(|inode| places.contains(&inode), enrolled, namespaces, listening);
    }

    fn update_where(
        &mut self,
        is_meant: impl Fn(u64) -> bool,
        enrolled: &mut Enrolled,
        namespaces: &Namespaces,
        listening: &Listening,
    ) {
        let activators: HashMap<_, _> = enrolled
            .inbound()
            .filter_map(|workload| Some((workload.id(), self.activator_of(workload)?)))
            .collect();
        if let Err(error) = self.guard_activators(enrolled, &activators) {
            let has_activator =
                |workload: &WorkloadState| workload.config().inbound.activator.is_some();
            let problem = format!("inbound.activator is not guarded: {error}");
            enrolled.report_where(has_activator, &problem);
        }
        let inbound: Vec<_> = enrolled.inbound().collect();
        let mut served_in: HashMap<u64, Vec<&WorkloadState>> = HashMap::new();
        for workload in &inbound {
            for inode in workload.served_in() {
                served_in.entry(inode).or_default().push(workload);
            }
        }
        let assigned: Vec<_> = namespaces
            .iter()
            .filter(|namespace| is_meant(namespace.inode()))
            .map(|namespace| {
                let inode = namespace.inode();
                let listeners = listening.in_namespace(inode).unwrap_or_default();
                let view = NamespaceView { inode, is_own: namespace.is_agents_own(), listeners };
                // In the agent's own namespace one may have ports also before it is there.
                let workloads = match view.is_own {
                    true => inbound.as_slice(),
                    false => served_in.get(&inode).map_or(&[][..], Vec::as_slice),
                };
                (namespace, assign(view, workloads, &activators))
            })
            .collect();
        for (workload, problem) in assigned.iter().flat_map(|(_, (_, problems))| problems) {
            enrolled.report(*workload, problem);
        }
        for (namespace, (ports, _)) in assigned {
            if let Err(error) = namespace.steer(ports) {
                let is_served =
                    |workload: &WorkloadState| workload.served_in().contains(&namespace.inode());
                let problem = format!("inbound ports cannot be steered: {error}");
                enrolled.report_where(is_served, &problem);
            }
        }
    }

    /// What a service manager listens on for a workload is guarded like what the workload itself listens on.
    fn guard_activators(
        &mut self,
        enrolled: &Enrolled,
        activators: &HashMap<WorkloadId, u64>,
    ) -> io::Result<()> {
        let mut activated = HashSet::new();
        for workload in enrolled.inbound() {
            if let Some(cgroup) = activators.get(&workload.id()) {
                activated.extend(workload.ports().iter().map(|port| ActivatedKey {
                    cgroup: *cgroup,
                    port: u32::from(*port),
                    _reserved: 0,
                }));
            }
        }
        if self.activated.as_ref() != Some(&activated) {
            self.maps.set_activated(&activated)?;
            self.activated = Some(activated);
        }
        Ok(())
    }

    /// Id of the cgroup that may listen for the workload, while there is one.
    fn activator_of(&self, workload: &WorkloadState) -> Option<u64> {
        let path = workload.config().inbound.activator.as_ref()?;
        let metadata = fs::metadata(cgroups::join(&self.mount, path)).ok()?;
        Some(metadata.ino())
    }
}
