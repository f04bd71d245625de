//! Changes in the form of messages.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{READY, SERVING, TERMINATING};
use crate::controller_api::services as api;
use crate::kubernetes::{Endpoint, EndpointSlice, Service};
use crate::services::Change;

/// Bytes of a message, about, unless one change alone has more.
const MOST: usize = 48 << 10;

/// The messages that tell of these changes, in their order.
#[must_use]
pub fn encode(changes: &[Change]) -> Vec<api::Services> {
    let mut messages = Vec::new();
    let (mut message, mut bytes) = (Message::default(), 0);
    for change in changes {
        let more = weight(change);
        if bytes > 0 && bytes + more > MOST {
            messages.push(std::mem::take(&mut message).services);
            bytes = 0;
        }
        message.add(change);
        bytes += more;
    }
    if bytes > 0 {
        messages.push(message.services);
    }
    messages
}

/// How many bytes a change takes in a message of its own, at most.
fn weight(change: &Change) -> usize {
    let of_endpoint =
        |endpoint: &Endpoint| 64 + endpoint.names().map(|name| name.len() + 8).sum::<usize>();
    64 + match change {
        Change::Service(service) => {
            let ports: usize = service.ports.iter().map(|port| port.name.len() + 16).sum();
            let addresses =
                [&service.cluster, &service.external, &service.balancers, &service.foreign];
            let addresses: usize = addresses.iter().map(|addresses| addresses.len()).sum();
            512 + ports + 24 * addresses + 64 * service.balancer_clients.len()
        }
        Change::Slice(slice) => {
            let ports: usize = slice.ports.iter().map(|port| port.name.len() + 16).sum();
            1024 + ports + slice.endpoints.values().map(of_endpoint).sum::<usize>()
        }
        Change::Endpoints { now, gone, .. } => {
            let now = now.iter().map(|(_, endpoint)| of_endpoint(endpoint));
            512 + now.sum::<usize>() + 24 * gone.len()
        }
        Change::ServiceGone(_) | Change::SliceGone(_) | Change::Node(_) => 512,
    }
}

/// A message, and the texts that it has.
#[derive(Default)]
struct Message {
    services: api::Services,
    texts: HashMap<String, u32>,
}

impl Message {
    fn add(&mut self, change: &Change) {
        match change {
            Change::Service(service) => {
                let service = self.service(service);
                self.services.services.push(service);
            }
            Change::ServiceGone(name) => {
                let name = self.name(&name.namespace, &name.name);
                self.services.gone_services.push(name);
            }
            Change::Slice(slice) => {
                let slice = self.slice(slice);
                self.services.slices.push(slice);
            }
            Change::Endpoints { slice, now, gone } => {
                let name = Some(self.name(&slice.0, &slice.1));
                let endpoints = now.iter().map(|(at, endpoint)| self.endpoint(*at, endpoint));
                let endpoints = endpoints.collect();
                let gone = gone.iter().copied().map(octets).collect();
                let slice = api::EndpointSlice { name, whole: None, endpoints, gone };
                self.services.slices.push(slice);
            }
            Change::SliceGone((namespace, name)) => {
                let name = self.name(namespace, name);
                self.services.gone_slices.push(name);
            }
            // Each agent is told its own.
            Change::Node(_) => {}
        }
    }

    fn text(&mut self, text: &str) -> u32 {
        if let Some(index) = self.texts.get(text) {
            return *index;
        }
        self.services.texts.push(text.to_owned());
        let index = self.services.texts.len() as u32;
        self.texts.insert(text.to_owned(), index);
        index
    }

    fn name(&mut self, namespace: &str, name: &str) -> api::ObjectName {
        api::ObjectName { namespace: self.text(namespace), name: name.to_owned() }
    }

    fn service(&mut self, service: &Service) -> api::Service {
        let all = |addresses: &std::collections::BTreeSet<IpAddr>| {
            addresses.iter().copied().map(octets).collect()
        };
        let port = |port: &crate::kubernetes::ServicePort| api::Port {
            port: port.port.into(),
            name: port.name.to_string(),
        };
        api::Service {
            name: Some(self.name(&service.name.namespace, &service.name.name)),
            cluster: all(&service.cluster),
            external: all(&service.external),
            balancers: all(&service.balancers),
            balancer_clients: service.balancer_clients.iter().map(ToString::to_string).collect(),
            ports: service.ports.iter().map(port).collect(),
            foreign: all(&service.foreign),
            created: service.created,
            is_node_local: service.is_node_local,
            affinity_seconds: service.affinity.map_or(0, |time| time.as_secs() as u32),
        }
    }

    fn slice(&mut self, slice: &EndpointSlice) -> api::EndpointSlice {
        let port = |port: &crate::kubernetes::SlicePort| api::Port {
            port: port.port.into(),
            name: port.name.to_string(),
        };
        let whole = api::Whole {
            service: slice.service.name.to_string(),
            ports: slice.ports.iter().map(port).collect(),
        };
        let endpoints = slice.endpoints.iter().map(|(at, endpoint)| self.endpoint(*at, endpoint));
        let endpoints = endpoints.collect();
        api::EndpointSlice {
            name: Some(self.name(&slice.service.namespace, &slice.name)),
            whole: Some(whole),
            endpoints,
            gone: Vec::new(),
        }
    }

    fn endpoint(&mut self, address: IpAddr, endpoint: &Endpoint) -> api::Endpoint {
        let conditions = endpoint.conditions;
        let flags = [
            (conditions.is_ready, READY),
            (conditions.is_serving, SERVING),
            (conditions.is_terminating, TERMINATING),
        ];
        api::Endpoint {
            address: octets(address),
            pod_uid: endpoint.pod.map(|uid| uid.to_bytes().to_vec()).unwrap_or_default().into(),
            node: endpoint.node.as_ref().map_or(0, |node| self.text(node)),
            zone_hints: endpoint.zones.iter().map(|zone| self.text(zone)).collect(),
            node_hints: endpoint.nodes.iter().map(|node| self.text(node)).collect(),
            conditions: flags.iter().filter(|(is_so, _)| *is_so).map(|(_, flag)| flag).sum(),
        }
    }
}

fn octets<B: From<Vec<u8>>>(address: IpAddr) -> B {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec().into(),
        IpAddr::V6(v6) => v6.octets().to_vec().into(),
    }
}
