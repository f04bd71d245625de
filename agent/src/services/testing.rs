//! For tests: Services and endpoints, briefly.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sheath_common::pod_uid::PodUid;

use super::endpoints::Backend;
use super::frontend::{Reach, Served};
use super::tiers::Tiers;
use super::{Catalogue, Node, Services};
use crate::kubernetes::{
    Conditions, Endpoint, EndpointSlice, Service, ServiceName, ServicePort, SlicePort,
};

/// An endpoint, and its address.
pub type Placed = (IpAddr, Endpoint);

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn name(text: &str) -> ServiceName {
    ServiceName { namespace: "shop".into(), name: text.into() }
}

pub fn node() -> Node {
    Node { name: "node-a".into(), zone: Some("zone-a".into()) }
}

/// A ready endpoint on another node, of nobody's pod, for everybody.
pub fn endpoint(address: &str) -> Placed {
    let endpoint = Endpoint {
        pod: None,
        node: Some("node-b".into()),
        conditions: Conditions { is_ready: true, is_serving: true, is_terminating: false },
        zones: BTreeSet::new(),
        nodes: BTreeSet::new(),
    };
    (address.parse().unwrap(), endpoint)
}

pub fn ending(address: &str) -> Placed {
    conditioned(endpoint(address), false, true, true)
}

pub fn unready(address: &str) -> Placed {
    conditioned(endpoint(address), false, false, false)
}

pub fn conditioned(
    (address, endpoint): Placed,
    is_ready: bool,
    is_serving: bool,
    is_terminating: bool,
) -> Placed {
    let conditions = Conditions { is_ready, is_serving, is_terminating };
    (address, Endpoint { conditions, ..endpoint })
}

pub fn here((address, endpoint): Placed) -> Placed {
    (address, Endpoint { node: Some(node().name), ..endpoint })
}

pub fn hinted((address, endpoint): Placed, zones: &[&str], nodes: &[&str]) -> Placed {
    let set = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    (address, Endpoint { zones: set(zones), nodes: set(nodes), ..endpoint })
}

/// A slice of the Service `web`.
pub fn slice(name_of: &str, ports: &[(&str, u16)], endpoints: Vec<Placed>) -> EndpointSlice {
    let port = |(name, port): &(&str, u16)| SlicePort { name: (*name).into(), port: *port };
    EndpointSlice {
        name: name_of.into(),
        service: name("web"),
        ports: ports.iter().map(port).collect(),
        endpoints: endpoints.into_iter().collect(),
    }
}

/// A Service with one address and the port 80, which has no name.
pub fn service(name_of: &str, cluster: &str) -> Service {
    Service {
        name: name(name_of),
        cluster: [cluster.parse().unwrap()].into(),
        external: BTreeSet::new(),
        balancers: BTreeSet::new(),
        balancer_clients: BTreeSet::new(),
        ports: [ServicePort { port: 80, name: "".into() }].into(),
        foreign: BTreeSet::new(),
        created: 0,
        is_node_local: false,
        affinity: None,
    }
}

pub fn sticky(service: Service, seconds: u64) -> Service {
    Service { affinity: Some(Duration::from_secs(seconds)), ..service }
}

pub fn backends(all: &[&str]) -> Vec<Backend> {
    all.iter().map(|text| Backend { at: at(text), pod: None }).collect()
}

/// The Service `web`, with these endpoints.
pub fn served(all: &[&str]) -> Served {
    let endpoints: Vec<_> =
        all.iter().map(|text| (at(text), endpoint(&at(text).ip().to_string()).1)).collect();
    let endpoints = endpoints.iter().map(|(at, endpoint)| (*at, endpoint)).collect();
    Served {
        service: name("web"),
        port: ServicePort { port: 80, name: "".into() },
        reach: Reach::Cluster,
        tiers: Tiers::anywhere(&endpoints, &node()),
        stickiness: None,
        clients: BTreeSet::new(),
    }
}

pub fn catalogue() -> Catalogue {
    Catalogue::new(node(), Arc::new(arc_swap::ArcSwap::from_pointee(Services::default())))
}

prop_compose! {
    fn arbitrary_endpoint()(
        number in 1..9_u8, pod in prop::option::of(any::<[u8; 16]>()), node in prop::option::of(0..3_u8),
        is_ready: bool, is_serving: bool, is_terminating: bool,
        zones in prop::collection::btree_set(0..3_u8, 0..3), nodes in prop::collection::btree_set(0..3_u8, 0..3),
    ) -> Placed {
        let text = |kind: &str, n: u8| Arc::from(format!("{kind}-{n}"));
        let endpoint = Endpoint {
            pod: pod.map(PodUid::from_bytes),
            node: node.map(|n| text("node", n)),
            conditions: Conditions { is_ready, is_serving, is_terminating },
            zones: zones.into_iter().map(|n| text("zone", n)).collect(),
            nodes: nodes.into_iter().map(|n| text("node", n)).collect(),
        };
        ([10, 1, 0, number].into(), endpoint)
    }
}

prop_compose! {
    /// One of a few slices, of one of a few Services.
    pub fn arbitrary_slice()(
        number in 0..3_u8, of in 0..3_u8, port in 80..83_u16,
        endpoints in prop::collection::vec(arbitrary_endpoint(), 0..6),
    ) -> EndpointSlice {
        EndpointSlice {
            service: name(&format!("service-{of}")),
            ..slice(&format!("slice-{number}"), &[("", port)], endpoints)
        }
    }
}

prop_compose! {
    /// One of a few Services.
    pub fn arbitrary_service()(
        number in 0..3_u8, external in 0..3_u8, has_v6: bool, is_node_local: bool,
        affinity in prop::option::of(1..9_u64), ranges in prop::collection::btree_set(0..3_u8, 0..2),
    ) -> Service {
        let mut made = service(&format!("service-{number}"), &format!("10.96.0.{}", number + 1));
        if has_v6 {
            made.cluster.insert(format!("fd00::{}", number + 1).parse().unwrap());
        }
        made.external.insert([203, 0, 113, external + 1].into());
        made.balancers.insert([198, 51, 100, external + 1].into());
        made.balancer_clients =
            ranges.iter().map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
        made.foreign.insert([192, 0, 2, external + 1].into());
        made.created = u64::from(external);
        made.is_node_local = is_node_local;
        made.affinity = affinity.map(Duration::from_secs);
        made
    }
}
