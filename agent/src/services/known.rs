//! One Service with its endpoints, and what it says of its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Node;
use super::claims::{Claim, Ports};
use super::endpoints;
use super::frontend::{Reach, Served, Stickiness};
use super::tiers::Tiers;
use crate::kubernetes::{EndpointSlice, Service, ServicePort};

/// A Service, or a name that slices say is one.
#[derive(Debug, Default)]
pub struct Known {
    pub service: Option<Arc<Service>>,
    pub slices: BTreeMap<Arc<str>, Arc<EndpointSlice>>,
    /// That of its [`Stickiness`], if it has one.
    pub stickiness: Option<u64>,
    /// At which addresses it is, or was closed, when it was last worked out.
    pub claimed: BTreeSet<IpAddr>,
}

impl Known {
    /// How many endpoints there are, in all slices.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        self.slices.values().map(|slice| slice.endpoints.len()).sum()
    }

    /// What the Service says of each of its addresses.
    pub fn claims(&self, node: &Node) -> BTreeMap<IpAddr, Claim> {
        let mut claims: BTreeMap<IpAddr, BTreeMap<u16, Arc<Served>>> = BTreeMap::new();
        let mut reaches = BTreeMap::new();
        let Some(service) = &self.service else {
            return BTreeMap::new();
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
                    let reach = *reaches.entry(address).or_insert(reach);
                    let tiers = if reach == Reach::Node { &on_node } else { &anywhere };
                    let served = || {
                        Arc::new(Served {
                            service: service.name.clone(),
                            port: ServicePort::clone(port),
                            reach,
                            tiers: tiers.clone(),
                            stickiness,
                            clients: clients(service, reach, is_v4),
                        })
                    };
                    claims.entry(address).or_default().entry(port.port).or_insert_with(served);
                }
            }
        }
        let claim = |(address, ports)| {
            let reach = reaches.get(&address).copied().unwrap_or(Reach::Foreign);
            (address, Claim { reach, ports: Ports::These(ports) })
        };
        claims.into_iter().map(claim).collect()
    }

    /// The same, where there is no room for it: nobody is at the addresses that are its own.
    pub fn closed(&self) -> BTreeMap<IpAddr, Claim> {
        let cluster = self.service.iter().flat_map(|service| &service.cluster);
        let closed = || Claim { reach: Reach::Cluster, ports: Ports::NoRoom };
        cluster.map(|address| (*address, closed())).collect()
    }
}

/// The addresses of a Service; one that is there twice counts as what it is first.
fn addresses(service: &Service, is_v4: bool) -> impl Iterator<Item = (IpAddr, Reach)> {
    let own = if service.is_node_local { Reach::Node } else { Reach::Cluster };
    let all = [
        (&service.cluster, own),
        (&service.balancers, Reach::Balancer),
        (&service.external, Reach::External),
        (&service.foreign, Reach::Foreign),
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
