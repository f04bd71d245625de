//! What is at a Service's address and port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rpds::HashTrieMapSync;
use sheath_common::verdict::Known;

use super::tiers::Tiers;
use crate::kubernetes::{BypassedService, ServiceName, ServicePort};

/// All addresses and ports of Services, as they are now. Immutable, and swapped whole.
#[derive(Clone, Debug, Default)]
pub struct Services {
    pub(super) by_address: HashTrieMapSync<IpAddr, Arc<BTreeMap<u16, Frontend>>>,
    pub(super) notes: Arc<Notes>,
}

/// What the kernel is told of Services at an address, by port: sorted, each once. Port 0 stands for all that are not there.
pub type ServicePorts = Arc<[(u16, Known)]>;

/// What people are told of Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Services that are bypassed by their names, and where each is. Nowhere: there is no such Service.
    pub bypassed: Vec<(BypassedService, Vec<SocketAddr>)>,
    /// Addresses that a Service says it has, and that are another's or the cluster's own.
    pub closed: BTreeMap<IpAddr, Frontend>,
    /// Services for which there is no room.
    pub without_room: BTreeSet<ServiceName>,
}

/// What is at an address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frontend {
    Served(Arc<Served>),
    /// Two Services say that it is theirs, or that the address is: it is nobody's.
    Claimed(ServiceName, ServiceName),
    /// The Service says that it has an address that is the cluster's own: nobody is there.
    Foreign(ServiceName),
    /// There is no room for the Service. At port 0, for all its ports.
    NoRoom(ServiceName),
}

/// A port of a Service, as it is reached from this node in one of the ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub service: ServiceName,
    pub port: ServicePort,
    pub reach: Reach,
    /// Endpoints by preference.
    pub tiers: Tiers,
    /// How long clients stay with an endpoint, if they do.
    pub stickiness: Option<Stickiness>,
    /// Whose connections are taken; with none, everybody's.
    pub clients: BTreeSet<IpNet>,
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// At a cluster address.
    Cluster,
    /// At a cluster address, and only endpoints of this node answer (internalTrafficPolicy `Local`).
    Node,
    /// At an external address. A pod is inside, so externalTrafficPolicy does not matter (kube-proxy's short-circuit).
    External,
    /// At a load balancer's address; otherwise the same.
    Balancer,
    /// At an address that is the cluster's own: it is not reached there.
    Foreign,
}

/// How clients stay with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stickiness {
    /// After the client's last connection.
    pub timeout: Duration,
    /// Differs from one time to the next that a Service begins to have it.
    pub number: u64,
}

impl Services {
    /// What is at the ports of an address from now on.
    pub(super) fn put(&mut self, address: IpAddr, ports: BTreeMap<u16, Frontend>) {
        let is_closed =
            |frontend: &&Frontend| matches!(frontend, Frontend::Claimed(..) | Frontend::Foreign(_));
        let closed = ports.values().find(is_closed).cloned();
        if self.notes.closed.get(&address) != closed.as_ref() {
            let all = &mut Arc::make_mut(&mut self.notes).closed;
            match closed {
                Some(closed) => all.insert(address, closed),
                None => all.remove(&address),
            };
        }
        match ports.is_empty() {
            true => {
                self.by_address.remove_mut(&address);
            }
            false => self.by_address.insert_mut(address, Arc::new(ports)),
        }
    }

    #[must_use]
    pub fn at(&self, destination: SocketAddr) -> Option<&Frontend> {
        let ports = self.by_address.get(&destination.ip())?;
        ports.get(&destination.port()).or_else(|| ports.get(&0))
    }

    /// All ports at an address.
    #[must_use]
    pub fn ports(&self, address: IpAddr) -> Option<&BTreeMap<u16, Frontend>> {
        self.by_address.get(&address).map(|ports| &**ports)
    }

    /// All addresses, in no order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().copied()
    }

    #[must_use]
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// How many addresses there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_address.size()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }
}

impl Frontend {
    /// The Service, or the first of them.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        match self {
            Self::Served(served) => &served.service,
            Self::Claimed(name, _) | Self::Foreign(name) | Self::NoRoom(name) => name,
        }
    }

    /// What the kernel is told. Where nobody answers, it refuses at once, as kube-proxy does.
    #[must_use]
    pub fn known(&self, is_bypassed: impl Fn(&Served) -> bool) -> Known {
        match self {
            Self::Served(served) if is_bypassed(served) => Known::BYPASS,
            Self::Served(served) if !served.tiers.is_empty() => Known::PROTECT,
            _ => Known::REFUSE,
        }
    }
}

impl Served {
    /// True if it matters which client asks.
    #[must_use]
    pub fn minds_client(&self) -> bool {
        self.stickiness.is_some() || !self.clients.is_empty()
    }

    pub(super) fn takes(&self, client: IpAddr) -> bool {
        self.clients.is_empty() || self.clients.iter().any(|prefix| prefix.contains(&client))
    }
}
