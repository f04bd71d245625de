//! Services and their endpoints as agents are told of them: what others have is taken from them first.
//!
//! Whoever may write a Service may write any address into its `externalIPs` (CVE-2020-8554). One that is of the cluster's own pods,
//! Services or nodes is told as *foreign*: nobody is believed to be there, at the ports of that Service.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::nodes::Nodes;
use super::ranges::ServiceRanges;
use crate::kubernetes::{EndpointSlice, Service, ServiceName};
use crate::services::{Change, SliceName, Watched};

/// What is known of addresses.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'c> {
    pub nodes: &'c Nodes,
    pub services: &'c ServiceRanges,
    /// Further ranges of pods.
    pub pods: &'c [IpNet],
}

impl Bounds<'_> {
    /// An address of pods.
    fn is_pods(&self, address: IpAddr) -> bool {
        self.nodes.have_range_of(address) || self.pods.iter().any(|range| range.contains(&address))
    }

    /// An address of a node, as far as it is nobody else's: a node says itself what it has.
    fn is_nodes(&self, address: IpAddr) -> bool {
        self.nodes.are_at(address) && !self.services.contain(address) && !self.is_pods(address)
    }

    /// An address that the API server has given to a Service.
    fn is_given(&self, address: IpAddr) -> bool {
        !self.services.are_known()
            || self.services.contain(address)
            || !self.nodes.have_range_of(address)
    }

    fn service(&self, said: &Service) -> Service {
        let is_own = |address: &&IpAddr| {
            self.services.contain(**address) || self.is_pods(**address) || self.is_nodes(**address)
        };
        let external = said.external.iter().filter(is_own);
        let cluster = said.cluster.iter().filter(|address| !self.is_given(**address));
        let foreign: BTreeSet<_> = external.chain(cluster).copied().collect();
        let kept = |addresses: &BTreeSet<IpAddr>| addresses.difference(&foreign).copied().collect();
        Service {
            cluster: kept(&said.cluster),
            external: kept(&said.external),
            foreign,
            ..said.clone()
        }
    }

    /// A pod in the network of its node has no address of its own: what is there is nobody whom the directory could name. `None`
    /// if there is no such endpoint.
    fn slice(&self, said: &EndpointSlice) -> Option<EndpointSlice> {
        let is_host = |address: &IpAddr| self.is_nodes(*address);
        let hosts: Vec<_> = said
            .endpoints
            .iter()
            .filter(|(address, endpoint)| endpoint.pod.is_some() && is_host(address))
            .map(|(address, _)| *address)
            .collect();
        if hosts.is_empty() {
            return None;
        }
        let mut slice = said.clone();
        for address in hosts {
            if let Some(endpoint) = slice.endpoints.get_mut(&address) {
                endpoint.pod = None;
            }
        }
        Some(slice)
    }
}

/// Services and slices as they are told.
#[derive(Debug, Default)]
pub struct Screened {
    told: Watched,
    /// All Services, as they say.
    services: HashMap<ServiceName, Service>,
    /// Slices that are told otherwise than they say.
    slices: HashMap<SliceName, EndpointSlice>,
}

impl Screened {
    pub fn set_service(&mut self, service: Service, bounds: Bounds<'_>) {
        let told = bounds.service(&service);
        if !told.foreign.is_empty() && self.services.get(&service.name) != Some(&service) {
            let addresses = &told.foreign;
            tracing::warn!(service = %service.name, ?addresses, "a Service says it has addresses of the cluster's own; nobody is believed to be there");
        }
        self.services.insert(service.name.clone(), service);
        self.told.set_service(told);
    }

    pub fn remove_service(&mut self, name: &ServiceName) {
        self.services.remove(name);
        self.told.remove_service(name);
    }

    /// There are these Services and no others.
    pub fn keep_services(&mut self, names: &HashSet<ServiceName>) {
        self.services.retain(|name, _| names.contains(name));
        self.told.keep_services(names);
    }

    pub fn set_slice(&mut self, slice: EndpointSlice, bounds: Bounds<'_>) {
        let name = (slice.service.namespace.clone(), slice.name.clone());
        match bounds.slice(&slice) {
            None => {
                self.slices.remove(&name);
                self.told.set_slice(slice);
            }
            Some(told) => {
                self.slices.insert(name, slice);
                self.told.set_slice(told);
            }
        }
    }

    pub fn remove_slice(&mut self, name: &SliceName) {
        self.slices.remove(name);
        self.told.remove_slice(name);
    }

    /// There are these slices and no others.
    pub fn keep_slices(&mut self, names: &HashSet<SliceName>) {
        self.slices.retain(|name, _| names.contains(name));
        self.told.keep_slices(names);
    }

    /// Something else is known of addresses.
    pub fn screen_again(&mut self, bounds: Bounds<'_>) {
        for service in self.services.values() {
            self.told.set_service(bounds.service(service));
        }
        let as_they_say: Vec<Arc<_>> = self.told.slices().cloned().collect();
        for slice in std::mem::take(&mut self.slices).into_values() {
            self.set_slice(slice, bounds);
        }
        for slice in as_they_say {
            let name = (slice.service.namespace.clone(), slice.name.clone());
            if !self.slices.contains_key(&name) && bounds.slice(&slice).is_some() {
                self.set_slice(EndpointSlice::clone(&slice), bounds);
            }
        }
    }

    /// What has changed since this was called last.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.told.take_changes()
    }

    /// All that was told: what has changed since is none of it.
    #[must_use]
    pub fn told(&self) -> Vec<Change> {
        self.told.told()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::testing::{endpoint, name, service, slice};
    use sheath_common::pod_uid::PodUid;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Pods of a node in 10.1.0.0/16, and of whatever else in 10.3.0.0/16; the node at 192.0.2.1; Services in 10.96.0.0/16.
    fn world(service_ranges: &[&str]) -> (Nodes, ServiceRanges, Vec<IpNet>) {
        let mut nodes = Nodes::default();
        nodes.set(&"a".into(), vec!["10.1.0.0/16".parse().unwrap()]);
        nodes.set_addresses(&"a".into(), ["192.0.2.1", "10.1.0.9", "10.96.0.9"].map(ip).into());
        let ranges: Vec<_> = service_ranges.iter().map(|text| text.parse().unwrap()).collect();
        (nodes, ServiceRanges::new(&ranges), vec!["10.3.0.0/16".parse().unwrap()])
    }

    fn told(screened: &mut Screened) -> Vec<(Vec<IpAddr>, Vec<IpAddr>, Vec<IpAddr>)> {
        let services = screened.take_changes().into_iter().filter_map(|change| match change {
            Change::Service(service) => Some(service),
            _ => None,
        });
        let all = |addresses: &BTreeSet<IpAddr>| addresses.iter().copied().collect();
        services.map(|s| (all(&s.cluster), all(&s.external), all(&s.foreign))).collect()
    }

    #[test]
    fn what_is_the_clusters_own_is_no_external_address() {
        let (nodes, services, pods) = world(&["10.96.0.0/16"]);
        let bounds = Bounds { nodes: &nodes, services: &services, pods: &pods };
        let mut thief = service("thief", "10.96.0.2");
        let own = ["10.1.0.7", "10.3.0.7", "10.96.0.7", "192.0.2.1"].map(ip);
        thief.external = own.into();
        thief.external.insert(ip("203.0.113.1"));
        let mut screened = Screened::default();
        screened.set_service(thief, bounds);
        let expected = (
            vec![ip("10.96.0.2")],
            vec![ip("203.0.113.1")],
            BTreeSet::from(own).into_iter().collect(),
        );
        assert_eq!(told(&mut screened), [expected]);
        // The node has gone.
        let mut nodes = nodes;
        nodes.remove("a");
        screened.screen_again(Bounds { nodes: &nodes, services: &services, pods: &pods });
        let [(_, external, foreign)] = &told(&mut screened)[..] else { panic!() };
        assert_eq!(external, &["10.1.0.7", "192.0.2.1", "203.0.113.1"].map(ip));
        assert_eq!(foreign, &["10.3.0.7", "10.96.0.7"].map(ip));
    }

    #[test]
    fn a_cluster_address_is_of_the_ranges_of_services() {
        for (ranges, address, is_given) in [
            (&["10.96.0.0/16"][..], "10.96.0.1", true),
            // One that is left from other ranges.
            (&["10.96.0.0/16"], "10.97.0.1", true),
            (&["10.96.0.0/16"], "10.1.0.1", false),
            (&[], "10.1.0.1", true),
        ] {
            let (nodes, services, pods) = world(ranges);
            let bounds = Bounds { nodes: &nodes, services: &services, pods: &pods };
            let told = bounds.service(&service("web", address));
            assert_eq!(told.cluster.is_empty(), !is_given, "{address} {ranges:?}");
            assert_eq!(told.foreign.is_empty(), is_given, "{address} {ranges:?}");
        }
    }

    #[test]
    fn pods_in_their_nodes_network_are_no_pods_of_the_directory() {
        let (nodes, services, pods) = world(&["10.96.0.0/16"]);
        let bounds = Bounds { nodes: &nodes, services: &services, pods: &pods };
        let placed = |address: &str| {
            let (address, mut endpoint) = endpoint(address);
            endpoint.pod = Some(PodUid::from_bytes([7; 16]));
            (address, endpoint)
        };
        // What the node says of addresses of pods or Services proves nothing.
        let said = ["192.0.2.1", "10.1.0.9", "10.96.0.9", "10.1.0.7", "198.51.100.7"];
        let said = slice("a", &[("", 80)], said.map(placed).into());
        let mut screened = Screened::default();
        let named = |screened: &Screened| -> Vec<String> {
            let slice = screened.told.slices().next().unwrap();
            let named = slice.endpoints.iter().filter(|(_, endpoint)| endpoint.pod.is_some());
            named.map(|(address, _)| address.to_string()).collect()
        };
        screened.set_slice(said, bounds);
        assert_eq!(named(&screened), ["10.1.0.7", "10.1.0.9", "10.96.0.9", "198.51.100.7"]);
        // Another node is at the last one; then there is none.
        let mut more = Nodes::default();
        more.set_addresses(&"b".into(), [ip("198.51.100.7")].into());
        screened.screen_again(Bounds { nodes: &more, ..bounds });
        assert_eq!(named(&screened), ["10.1.0.7", "10.1.0.9", "10.96.0.9", "192.0.2.1"]);
        let nobody = Nodes::default();
        screened.screen_again(Bounds { nodes: &nobody, ..bounds });
        assert_eq!(named(&screened).len(), 5);
        screened.screen_again(bounds);
        assert_eq!(named(&screened).len(), 4);
        screened.remove_slice(&(name("x").namespace, "a".into()));
        assert!(screened.told.slices().next().is_none() && screened.slices.is_empty());
    }
}
