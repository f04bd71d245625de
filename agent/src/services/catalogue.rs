//! Services and slices as they come, and what is at each address and port by them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::endpoints;
use super::frontend::{Frontend, Reach, Served, Services, Stickiness};
use super::tiers::Tiers;
use crate::kubernetes::{Endpoint, EndpointSlice, Service, ServiceName, ServicePort};

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
    /// Who says that an address and port are its own.
    claims: HashMap<SocketAddr, BTreeMap<ServiceName, Arc<Served>>>,
    /// The last number of a [`Stickiness`].
    number: u64,
    published: Arc<ArcSwap<Services>>,
}

/// A Service, or a name that slices say is one.
#[derive(Debug, Default)]
struct Known {
    service: Option<Arc<Service>>,
    slices: BTreeMap<Arc<str>, Arc<EndpointSlice>>,
    stickiness: Option<u64>,
    claimed: BTreeSet<SocketAddr>,
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
            number: 0,
            published,
        }
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
    pub fn replace_by(&mut self, all: Vec<Change>) -> BTreeSet<SocketAddr> {
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

    /// The ports of all Services at the addresses of these places.
    #[must_use]
    pub fn ports_at(&self, places: &BTreeSet<SocketAddr>) -> Vec<(IpAddr, Arc<[u16]>)> {
        let concerned = places.iter().map(|at| (at.ip(), BTreeSet::new()));
        let mut ports: BTreeMap<IpAddr, BTreeSet<u16>> = concerned.collect();
        if ports.is_empty() {
            return Vec::new();
        }
        for (at, _) in self.published.load().iter() {
            if let Some(ports) = ports.get_mut(&at.ip()) {
                ports.insert(at.port());
            }
        }
        ports.into_iter().map(|(ip, ports)| (ip, ports.into_iter().collect())).collect()
    }

    /// The same, of all.
    #[must_use]
    pub fn all_ports(&self) -> Vec<(IpAddr, Arc<[u16]>)> {
        self.ports_at(&self.published.load().iter().map(|(at, _)| at).collect())
    }

    /// All Services that are known.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().filter_map(|known| known.service.as_ref())
    }

    /// All slices that are known.
    pub fn slices(&self) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.services.values().flat_map(|known| known.slices.values())
    }

    /// Takes changes, and publishes what they come to. Returns the addresses and ports at which something is different.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> BTreeSet<SocketAddr> {
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
    ) -> BTreeSet<SocketAddr> {
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
    fn work_out(&mut self, concerned: BTreeSet<ServiceName>) -> BTreeSet<SocketAddr> {
        let mut touched = BTreeSet::new();
        for name in concerned {
            let Some(known) = self.services.get_mut(&name) else {
                continue;
            };
            let served = known.served(&self.node);
            let before = std::mem::replace(&mut known.claimed, served.keys().copied().collect());
            if known.service.is_none() && known.slices.is_empty() {
                self.services.remove(&name);
            }
            for at in before.into_iter().filter(|at| !served.contains_key(at)) {
                touched.insert(at);
                if let Some(claims) = self.claims.get_mut(&at) {
                    claims.remove(&name);
                }
            }
            for (at, served) in served {
                touched.insert(at);
                self.claims.entry(at).or_default().insert(name.clone(), Arc::new(served));
            }
        }
        let mut services = self.published.load_full();
        touched.retain(|at| {
            let claims = self.claims.get(at);
            let now = claims.and_then(decided);
            if claims.is_some_and(BTreeMap::is_empty) {
                self.claims.remove(at);
            }
            if services.frontends.get(at) == now.as_ref() {
                return false;
            }
            let frontends = &mut Arc::make_mut(&mut services).frontends;
            match now {
                Some(frontend) => frontends.insert(*at, frontend),
                None => frontends.remove(at),
            };
            true
        });
        if !touched.is_empty() {
            self.published.store(services);
        }
        touched
    }
}

/// Whose an address and port are. A cluster address is given by the API server to one Service alone; external addresses anybody
/// may write into a Service (CVE-2020-8554). So they never take what is another's, and where two have one, neither has it.
fn decided(claims: &BTreeMap<ServiceName, Arc<Served>>) -> Option<Frontend> {
    let is_own = |served: &&Arc<Served>| matches!(served.reach, Reach::Cluster | Reach::Node);
    let mut own = claims.values().filter(is_own);
    let mut others = claims.values().filter(|served| !is_own(served));
    let (one, next) = match own.next() {
        Some(one) => (one, own.next()),
        None => (others.next()?, others.next()),
    };
    Some(match next {
        None => Frontend::Served(one.clone()),
        Some(other) => Frontend::Claimed(one.service.clone(), other.service.clone()),
    })
}

impl Known {
    /// What the Service is at each of its addresses and ports.
    fn served(&self, node: &Node) -> BTreeMap<SocketAddr, Served> {
        let mut served = BTreeMap::new();
        let Some(service) = &self.service else {
            return served;
        };
        let stickiness = service.affinity.zip(self.stickiness);
        let stickiness = stickiness.map(|(timeout, number)| Stickiness { timeout, number });
        for port in &service.ports {
            for is_v4 in [true, false] {
                let slices = self.slices.values().map(|slice| &**slice);
                let endpoints = endpoints::of_port(slices, &port.name, is_v4);
                let anywhere = Tiers::anywhere(&endpoints, node);
                let on_node = Tiers::on_node(&endpoints, node);
                for (address, reach) in addresses(service, is_v4) {
                    let at = SocketAddr::new(address, port.port);
                    let tiers = if reach == Reach::Node { &on_node } else { &anywhere };
                    served.entry(at).or_insert_with(|| Served {
                        service: service.name.clone(),
                        port: ServicePort::clone(port),
                        reach,
                        tiers: tiers.clone(),
                        stickiness,
                        clients: clients(service, reach, is_v4),
                    });
                }
            }
        }
        served
    }
}

/// The addresses of a Service; one that is there twice counts as what it is first.
fn addresses(service: &Service, is_v4: bool) -> impl Iterator<Item = (IpAddr, Reach)> {
    let own = if service.is_node_local { Reach::Node } else { Reach::Cluster };
    let all = [
        (&service.cluster, own),
        (&service.external, Reach::External),
        (&service.balancers, Reach::Balancer),
    ];
    all.into_iter()
        .flat_map(|(addresses, reach)| addresses.iter().map(move |address| (*address, reach)))
        .filter(move |(address, _)| address.is_ipv4() == is_v4)
}

/// Who may call a load balancer's address. Ranges of one family say nothing about the other.
fn clients(service: &Service, reach: Reach, is_v4: bool) -> BTreeSet<ipnet::IpNet> {
    let all = service.balancer_clients.iter().filter(|_| reach == Reach::Balancer);
    all.filter(|prefix| prefix.addr().is_ipv4() == is_v4).copied().collect()
}

fn slice_name(slice: &EndpointSlice) -> SliceName {
    (slice.service.namespace.clone(), slice.name.clone())
}

#[cfg(test)]
mod tests;
