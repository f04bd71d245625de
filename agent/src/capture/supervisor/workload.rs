//! What the supervisor knows of one workload.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sheath_common::workload::{InboundMode, Workload, WorkloadId};

use super::enrolled_cgroup::{EnrolledCgroup, LINGER, STAY};
use super::listening::Listening;
use super::namespaces::Namespaces;
use super::report::Report;
use super::whereabouts::{ListensAt, Seen, Whereabouts};
use crate::capture::cgroups::{self, WorkloadCgroup};
use crate::capture::filters::Blocked;
use crate::capture::namespace::owned_sockets::OwnedSocket;
use crate::capture::proc::socket_inodes;
use crate::desired::{self, Existing};

/// A workload, and what there is of it.
#[derive(Debug)]
pub struct WorkloadState {
    config: Arc<desired::Workload>,
    /// By cgroup id.
    cgroups: BTreeMap<u64, EnrolledCgroup>,
    /// Cgroups that are refused because of their long paths.
    too_long: BTreeSet<u64>,
    /// Processes in its cgroups.
    processes: BTreeSet<u32>,
    /// Other workloads may lie below its cgroups.
    is_above_others: bool,
    /// It could not be inspected the last time: all this is what was seen before.
    is_unseen: bool,
    /// The namespaces that it is in.
    whereabouts: Whereabouts,
    /// What status says of it.
    report: Report,
}

impl WorkloadState {
    /// A workload of which nothing has been seen yet.
    pub fn new(config: Arc<desired::Workload>) -> Self {
        Self {
            config,
            cgroups: BTreeMap::new(),
            too_long: BTreeSet::new(),
            processes: BTreeSet::new(),
            is_above_others: false,
            is_unseen: false,
            whereabouts: Whereabouts::default(),
            report: Report::default(),
        }
    }

    /// The same workload with another configuration. Connections that were not protected before are older than
    /// the protection.
    pub fn reconfigured(mut self, config: Arc<desired::Workload>) -> Self {
        if config.existing == Existing::Reset && config.kernel_view() != self.config.kernel_view() {
            for cgroup in self.cgroups.values_mut() {
                cgroup.set_must_reset(true);
            }
        }
        Self { config, ..self }
    }

    /// True if another configuration has nothing done otherwise with its cgroups, namespaces and ports.
    pub fn is_as(&self, config: &desired::Workload) -> bool {
        let facets = |workload: &desired::Workload| {
            let inbound = &workload.inbound;
            (
                workload.cgroup.clone(),
                workload.kernel_view(),
                workload.existing,
                inbound.mode,
                inbound.ports.clone(),
                inbound.addresses.clone(),
                inbound.namespace,
                inbound.activator.clone(),
            )
        };
        facets(&self.config) == facets(config)
    }

    pub fn config(&self) -> &Arc<desired::Workload> {
        &self.config
    }

    pub fn id(&self) -> WorkloadId {
        self.config.id
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// True if the network may call the workload by way of the agent.
    pub fn is_inbound(&self) -> bool {
        self.config.inbound.mode != InboundMode::Disabled
    }

    /// Ports that it has declared.
    pub fn ports(&self) -> &[u16] {
        &self.config.inbound.ports
    }

    /// Notes whether other workloads may lie below its cgroups.
    pub fn set_above_others(&mut self, is_above_others: bool) {
        self.is_above_others = is_above_others;
    }

    /// What the kernel has to know of one of its cgroups.
    pub fn kernel_entry(&self, blocked: Option<&Blocked>) -> Workload {
        let view = self.config.kernel_view();
        let view = if self.is_above_others { view.above_others() } else { view };
        blocked.map_or(view, |blocked| blocked.mark(view))
    }

    /// Notes which of its cgroups there still are, and all its processes.
    pub fn set_present(&mut self, cgroups: &BTreeSet<u64>, processes: BTreeSet<u32>) {
        self.is_unseen = false;
        self.cgroups.retain(|id, _| cgroups.contains(id));
        self.processes = processes;
    }

    /// Notes that it could not be looked at: what was seen before still holds.
    pub fn set_unseen(&mut self) {
        self.is_unseen = true;
    }

    pub fn is_unseen(&self) -> bool {
        self.is_unseen
    }

    pub fn set_too_long(&mut self, cgroups: BTreeSet<u64>) {
        self.too_long = cgroups;
    }

    pub fn has_too_long(&self) -> bool {
        !self.too_long.is_empty()
    }

    /// Enters a cgroup of the workload, if it is new. Connections that are older than a new one are reset
    /// if `must_reset` says so.
    pub fn enrol(&mut self, cgroup: &WorkloadCgroup, must_reset: bool) -> &mut EnrolledCgroup {
        self.cgroups.entry(cgroup.id).or_insert_with(|| {
            tracing::info!(
                workload = self.config.name,
                cgroup = cgroups::shown(&cgroup.path),
                "workload enrolled"
            );
            EnrolledCgroup::new(cgroup.path.clone(), must_reset)
        })
    }

    pub fn cgroup(&self, id: u64) -> Option<&EnrolledCgroup> {
        self.cgroups.get(&id)
    }

    pub fn cgroups(&self) -> impl Iterator<Item = (u64, &EnrolledCgroup)> {
        self.cgroups.iter().map(|(id, cgroup)| (*id, cgroup))
    }

    /// Ids of the cgroups that it has entries for in the kernel's map.
    pub fn recorded(&self) -> impl Iterator<Item = u64> {
        self.cgroups.keys().chain(&self.too_long).copied()
    }

    pub fn processes(&self) -> &BTreeSet<u32> {
        &self.processes
    }

    /// Notes namespaces in which it is, although no process of its cgroups is seen there.
    pub fn sight(&mut self, namespaces: &BTreeSet<u64>) {
        let now = Instant::now();
        for cgroup in self.cgroups.values_mut() {
            cgroup.sight(namespaces, now);
        }
    }

    /// Namespaces that its processes have been seen in, and whether they have stayed.
    pub fn seen(&self) -> Seen {
        let mut seen = Seen::new();
        for (inode, sighting) in self.cgroups.values().flat_map(EnrolledCgroup::sightings) {
            *seen.entry(inode).or_default() |= sighting.has_stayed();
        }
        seen
    }

    /// Namespaces that its processes have been seen in, by inode number.
    pub fn namespaces(&self) -> BTreeSet<u64> {
        self.seen().into_keys().collect()
    }

    /// Namespaces in which its ports are its own.
    pub fn served_in(&self) -> BTreeSet<u64> {
        let mut namespaces = self.namespaces();
        namespaces.extend(self.whereabouts.homes());
        namespaces
    }

    /// True if processes have stayed in a namespace.
    pub fn has_stayed_in(&self, inode: u64) -> bool {
        self.seen().get(&inode).is_some_and(|has_stayed| *has_stayed)
    }

    /// True if it does not only pass through a namespace: processes have stayed there, or it has listened there.
    pub fn is_at_home_in(&self, inode: u64) -> bool {
        self.whereabouts.is_at_home_in(inode, &self.seen())
    }

    /// True if it may be passing through a namespace now, the agent's own above all.
    pub fn may_be_passing(&self, own: u64) -> bool {
        let has_just_come = self
            .cgroups
            .values()
            .flat_map(EnrolledCgroup::sightings)
            .any(|(_, sighting)| !sighting.has_stayed() && !sighting.is_older_than(STAY));
        has_just_come || self.seen().get(&own).is_some_and(|has_stayed| !has_stayed)
    }

    /// Namespaces it has been at home in, and where none of its processes has been seen for a while.
    pub fn homes_left(&self) -> impl Iterator<Item = u64> {
        let is_left = |inode: &u64| {
            let mut sightings = self.cgroups.values().filter_map(|cgroup| cgroup.sighting(*inode));
            sightings.all(|sighting| sighting.is_older_than(LINGER / 2))
        };
        self.whereabouts.homes().iter().copied().filter(is_left)
    }

    /// Notes where it is now, and returns the namespaces that it has left. `own` is the agent's.
    pub fn update_whereabouts(&mut self, own: u64) -> Vec<u64> {
        let seen = self.seen();
        self.whereabouts.update(&seen, own)
    }

    /// Notes in which namespaces of its own it is at home, and has those served longer in which it is awaited: where
    /// somebody listens on its ports, as a service manager does that starts it for each connection. The kernel does not
    /// know such a socket for the workload's, so only the steering closes it to strangers.
    pub fn update_homes(&mut self, namespaces: &mut Namespaces, listening: &Listening) {
        // Whom nobody may call, nobody awaits: its namespaces go with its processes.
        if !self.is_inbound() {
            self.whereabouts.forget_homes();
            return;
        }
        let seen = self.seen();
        let Self { config, whereabouts, .. } = self;
        whereabouts.update_homes(&seen, namespaces.own_inode(), |inode| {
            let is_present = seen.contains_key(&inode);
            let is_awaited = match listening.in_namespace(inode) {
                Some(listeners) => is_awaited_by(config, listeners),
                // What could not be seen is as it was.
                None => !is_present,
            };
            match is_awaited {
                true => namespaces.keep(inode),
                false => is_present && namespaces.get(inode).is_some(),
            }
        });
    }

    /// True if its ports in the agent's namespace are other people's.
    pub fn lives_elsewhere(&self) -> bool {
        self.whereabouts.lives_elsewhere()
    }

    /// Notes where it listens, of all who listen.
    pub fn note_listeners<'l>(
        &mut self,
        listeners: impl Iterator<Item = (u64, &'l [OwnedSocket])>,
    ) {
        let mut now = ListensAt::new();
        for (inode, all) in listeners {
            for listener in all.iter().filter(|listener| self.owns(listener)) {
                let port = listener.socket.local.port();
                if self.ports().contains(&port) {
                    now.entry((inode, port)).or_default().extend(listener.socket.listens_at());
                }
            }
        }
        let seen = self.seen();
        self.whereabouts.note_listeners(now, &seen);
    }

    /// Addresses of a declared port at which it listens, or listened last.
    pub fn listens_at(&self, inode: u64, port: u16) -> Option<&BTreeSet<IpAddr>> {
        self.whereabouts.listens_at(inode, port)
    }

    /// True if a socket is the workload's, or made for it by its activator.
    pub fn owns(&self, socket: &OwnedSocket) -> bool {
        let activator = self.config.inbound.activator.as_deref().map(Path::new);
        self.cgroups.values().any(|cgroup| socket.is_of(cgroup.path()))
            || (socket.cgroup.is_some() && socket.cgroup.as_deref() == activator)
    }

    /// True if one of its processes has the socket, whoever made it.
    pub fn holds(&self, socket: &OwnedSocket) -> bool {
        socket_inodes(&self.processes).contains(&socket.socket.inode)
    }

    pub fn report(&self) -> &Report {
        &self.report
    }

    pub fn report_mut(&mut self) -> &mut Report {
        &mut self.report
    }

    /// Ends the report and logs what is new in it.
    pub fn finish_report(&mut self) {
        let news = self.report.finish();
        for note in news.notes {
            tracing::warn!(workload = self.config.name, %note, "listening sockets");
        }
        if let Some(reason) = news.problem {
            tracing::warn!(workload = self.config.name, %reason, "workload not served as configured");
        }
    }
}

/// True if one of the listeners is what the network calls the workload at.
fn is_awaited_by(config: &desired::Workload, listeners: &[OwnedSocket]) -> bool {
    let inbound = &config.inbound;
    let is_declared = |port| inbound.ports.is_empty() || inbound.ports.contains(&port);
    let mut places = listeners.iter().map(|listener| listener.socket.local);
    places.any(|local| !local.ip().is_loopback() && is_declared(local.port()))
}

#[cfg(test)]
mod tests;
