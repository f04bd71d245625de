//! Services and slices as they come, and what is at each address and port by them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::claims::{self, Claim};
use super::frontend::{Frontend, Notes, Reach, Served, ServicePorts, Services};
use super::known::Known;
use super::room::{Cost, Room};
use crate::kubernetes::{BypassedService, Endpoint, EndpointSlice, Service, ServiceName};

/// Where the agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub name: Arc<str>,
    /// Its label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
}

/// The namespace and the name of a slice.
pub type SliceName = (Arc<str>, Arc<str>);

/// What has changed in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Service(Arc<Service>),
    ServiceGone(ServiceName),
    Slice(Arc<EndpointSlice>),
    /// Endpoints of a slice that is known: new or changed ones, and addresses at which there is none any more.
    Endpoints {
        slice: SliceName,
        now: Vec<(IpAddr, Endpoint)>,
        gone: Vec<IpAddr>,
    },
    SliceGone(SliceName),
    /// Which node this is.
    Node(Node),
}

/// All Services and slices, and what they come to on this node.
#[derive(Debug)]
pub struct Catalogue {
    node: Node,
    services: HashMap<ServiceName, Known>,
    /// The Service of each slice: its label may change.
    slices: HashMap<SliceName, ServiceName>,
    /// Who says that an address is its own.
    claims: HashMap<IpAddr, BTreeMap<ServiceName, Claim>>,
    /// Whom the configuration bypasses by name: there is always room for these.
    bypassed: Vec<BypassedService>,
    room: Room,
    /// The last number of a `Stickiness`.
    number: u64,
    published: Arc<ArcSwap<Services>>,
}

impl Catalogue {
    /// Nothing is published before something is known.
    #[must_use]
    pub fn new(node: Node, published: Arc<ArcSwap<Services>>) -> Self {
        Self {
            node,
            services: HashMap::new(),
            slices: HashMap::new(),
            claims: HashMap::new(),
            bypassed: Vec::new(),
            room: Room::default(),
            number: 0,
            published,
        }
    }

    /// The same, with Services that are bypassed.
    #[must_use]
    pub fn bypassing(mut self, bypassed: Vec<BypassedService>) -> Self {
        self.bypassed = bypassed;
        self.publish(self.published());
        self
    }

    /// What is published.
    #[must_use]
    pub fn published(&self) -> Arc<Services> {
        self.published.load_full()
    }

    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// All that is known, as changes of nothing.
    #[must_use]
    pub fn all(&self) -> Vec<Change> {
        let services = self.services().cloned().map(Change::Service);
        services.chain(self.slices().cloned().map(Change::Slice)).collect()
    }

    /// Takes all that there is, as changes of nothing, in place of what was known. Returns the same as [`Self::apply`].
    pub fn replace_by(&mut self, all: Vec<Change>) -> BTreeSet<IpAddr> {
        let (mut services, mut slices) = (Vec::new(), Vec::new());
        for change in all {
            match change {
                Change::Service(service) => services.push(service),
                Change::Slice(slice) => slices.push(slice),
                _ => {}
            }
        }
        self.replace(services, slices)
    }

    /// The ports of all Services at these addresses, as the kernel is told of them.
    #[must_use]
    pub fn ports_at(&self, addresses: &BTreeSet<IpAddr>) -> Vec<(IpAddr, ServicePorts)> {
        let services = self.published.load();
        let is_bypassed = |served: &Served| self.is_bypassed(served);
        let known = |frontend: &Frontend| frontend.known(is_bypassed);
        let ports = |address: &IpAddr| {
            let ports = services.ports(*address).into_iter().flatten();
            (*address, ports.map(|(port, frontend)| (*port, known(frontend))).collect())
        };
        addresses.iter().map(ports).collect()
    }

    /// The same, of all.
    #[must_use]
    pub fn all_ports(&self) -> Vec<(IpAddr, ServicePorts)> {
        self.ports_at(&self.published.load().addresses().collect())
    }

    /// Only at the addresses that the API server has given it: whoever may write the Service may write any other into it.
    fn is_bypassed(&self, served: &Served) -> bool {
        let is_own = matches!(served.reach, Reach::Cluster | Reach::Node);
        let is_named = |bypassed: &BypassedService| {
            bypassed.name == served.service && bypassed.has(served.port.port)
        };
        is_own && self.bypassed.iter().any(is_named)
    }

    /// All Services that are known.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().filter_map(|known| known.service.as_ref())
    }

    /// All slices that are known.
    pub fn slices(&self) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.services.values().flat_map(|known| known.slices.values())
    }

    /// Takes changes, and publishes what they come to. Returns the addresses at which something is different.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> BTreeSet<IpAddr> {
        let mut concerned = BTreeSet::new();
        for change in changes {
            self.take(change, &mut concerned);
        }
        self.work_out(concerned)
    }

    /// Takes all that there is in place of what was known. Returns the same as [`Self::apply`].
    pub fn replace(
        &mut self,
        services: Vec<Arc<Service>>,
        slices: Vec<Arc<EndpointSlice>>,
    ) -> BTreeSet<IpAddr> {
        let named: BTreeSet<_> = services.iter().map(|service| service.name.clone()).collect();
        let listed: BTreeSet<_> = slices.iter().map(|slice| slice_name(slice)).collect();
        let known = self.services.iter().filter(|(_, known)| known.service.is_some());
        let gone = known.map(|(name, _)| name).filter(|name| !named.contains(*name));
        let gone = gone.cloned().map(Change::ServiceGone);
        let ended = self.slices.keys().filter(|name| !listed.contains(*name));
        let ended = ended.cloned().map(Change::SliceGone);
        let mut changes: Vec<_> = gone.chain(ended).collect();
        changes.extend(services.into_iter().map(Change::Service));
        changes.extend(slices.into_iter().map(Change::Slice));
        self.apply(changes)
    }

    fn take(&mut self, change: Change, concerned: &mut BTreeSet<ServiceName>) {
        match change {
            Change::Node(node) => {
                if node != self.node {
                    self.node = node;
                    concerned.extend(self.services.keys().cloned());
                }
            }
            Change::Service(service) => {
                concerned.insert(service.name.clone());
                self.put(service);
            }
            Change::ServiceGone(name) => {
                if let Some(known) = self.services.get_mut(&name) {
                    known.service = None;
                    known.stickiness = None;
                    concerned.insert(name);
                }
            }
            Change::Slice(slice) => {
                let name = slice_name(&slice);
                if self.slices.get(&name) != Some(&slice.service) {
                    concerned.extend(self.forget(&name));
                }
                concerned.insert(slice.service.clone());
                self.slices.insert(name, slice.service.clone());
                let known = self.services.entry(slice.service.clone()).or_default();
                known.slices.insert(slice.name.clone(), slice);
            }
            Change::Endpoints { slice, now, gone } => {
                let service = self.slices.get(&slice);
                let known = service.and_then(|name| self.services.get_mut(name));
                if let Some(known) = known.and_then(|known| known.slices.get_mut(&slice.1)) {
                    concerned.insert(known.service.clone());
                    let endpoints = &mut Arc::make_mut(known).endpoints;
                    endpoints.extend(now);
                    endpoints.retain(|address, _| !gone.contains(address));
                }
            }
            Change::SliceGone(name) => concerned.extend(self.forget(&name)),
        }
    }

    fn put(&mut self, service: Arc<Service>) {
        let known = self.services.entry(service.name.clone()).or_default();
        known.stickiness = match (service.affinity, known.stickiness) {
            (None, _) => None,
            (Some(_), Some(number)) => Some(number),
            (Some(_), None) => {
                self.number += 1;
                Some(self.number)
            }
        };
        known.service = Some(service);
    }

    /// Returns the Service that the slice was of.
    fn forget(&mut self, slice: &SliceName) -> Option<ServiceName> {
        let service = self.slices.remove(slice)?;
        if let Some(known) = self.services.get_mut(&service) {
            known.slices.remove(&slice.1);
        }
        Some(service)
    }

    /// Publishes what these Services come to. Returns where something is different.
    fn work_out(&mut self, mut concerned: BTreeSet<ServiceName>) -> BTreeSet<IpAddr> {
        concerned.iter().for_each(|name| self.weigh(name));
        // One that comes or goes may be the reason that there is room for another, or none.
        concerned.extend(self.room.settle());
        let mut touched = BTreeSet::new();
        for name in concerned {
            let Some(known) = self.services.get_mut(&name) else {
                continue;
            };
            let claims = match (self.room.has(&name), self.room.closes(&name)) {
                (true, _) => known.claims(&self.node),
                (false, true) => known.closed(),
                (false, false) => BTreeMap::new(),
            };
            let before = std::mem::replace(&mut known.claimed, claims.keys().copied().collect());
            if known.service.is_none() && known.slices.is_empty() {
                self.services.remove(&name);
            }
            for address in before.into_iter().filter(|address| !claims.contains_key(address)) {
                touched.insert(address);
                if let Some(claims) = self.claims.get_mut(&address) {
                    claims.remove(&name);
                }
            }
            for (address, claim) in claims {
                touched.insert(address);
                self.claims.entry(address).or_default().insert(name.clone(), claim);
            }
        }
        let mut services = self.published();
        touched.retain(|address| {
            let claims = self.claims.get(address);
            let now = claims.map(claims::decided).unwrap_or_default();
            if claims.is_some_and(BTreeMap::is_empty) {
                self.claims.remove(address);
            }
            if services.ports(*address).map_or(now.is_empty(), |known| *known == now) {
                return false;
            }
            Arc::make_mut(&mut services).put(*address, now);
            true
        });
        self.publish(services);
        touched
    }

    /// Takes note of how much room a Service needs.
    fn weigh(&mut self, name: &ServiceName) {
        let known = self.services.get(name);
        let service = known.and_then(|known| Some((known.service.as_ref()?, known.endpoints())));
        match service.filter(|_| self.bypassed.iter().all(|bypassed| bypassed.name != *name)) {
            None => self.room.leave(name),
            Some((service, endpoints)) => {
                let ports = service.ports.len();
                let all =
                    [&service.cluster, &service.external, &service.balancers, &service.foreign];
                let addresses: usize = all.iter().map(|addresses| addresses.len()).sum();
                let cost = Cost { places: ports * addresses, backends: ports * endpoints };
                self.room.take(name, service.created, service.cluster.len(), cost);
            }
        }
    }

    /// With what people are told of it.
    fn publish(&self, mut services: Arc<Services>) {
        let places = |bypassed: &BypassedService| {
            let service =
                self.services.get(&bypassed.name).and_then(|known| known.service.as_ref());
            let ports = service.into_iter().flat_map(|service| &service.ports);
            let ports = ports.map(|port| port.port).filter(|port| bypassed.has(*port));
            let at = |port| {
                let cluster = service.into_iter().flat_map(|service| &service.cluster);
                cluster.map(move |address| SocketAddr::new(*address, port))
            };
            (bypassed.clone(), ports.flat_map(at).collect())
        };
        let bypassed: Vec<_> = self.bypassed.iter().map(places).collect();
        let before = services.notes();
        if before.bypassed != bypassed || !before.without_room.iter().eq(self.room.outside()) {
            let without_room = self.room.outside().cloned().collect();
            let notes = Notes { bypassed, without_room, closed: before.closed.clone() };
            Arc::make_mut(&mut services).notes = Arc::new(notes);
        }
        if !Arc::ptr_eq(&services, &self.published.load()) {
            self.published.store(services);
        }
    }
}

fn slice_name(slice: &EndpointSlice) -> SliceName {
    (slice.service.namespace.clone(), slice.name.clone())
}

#[cfg(test)]
mod tests;
