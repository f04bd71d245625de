//! What is at a Service's address and port.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::tiers::Tiers;
use crate::kubernetes::{ServiceName, ServicePort};

/// All addresses and served of Services, as they are now. Immutable, and swapped whole.
#[derive(Clone, Debug, Default)]
pub struct Services {
    pub(super) frontends: HashMap<SocketAddr, Frontend>,
}

/// What is at an address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frontend {
    Served(Arc<Served>),
    /// Two Services say that it is theirs: it is nobody's.
    Claimed(ServiceName, ServiceName),
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
    #[must_use]
    pub fn at(&self, destination: SocketAddr) -> Option<&Frontend> {
        self.frontends.get(&destination)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &Frontend)> {
        self.frontends.iter().map(|(at, frontend)| (*at, frontend))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.frontends.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty()
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
