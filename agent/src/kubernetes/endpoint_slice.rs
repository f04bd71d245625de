//! EndpointSlices: where the endpoints of a Service are, as far as TCP is concerned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1 as api;
use serde::{Deserialize, Serialize};
use sheath_common::pod_uid::PodUid;

use super::service::{NotAService, ServiceName, is_tcp};
use super::words;

/// The Service that a slice is of (`LabelServiceName` of the API).
const SERVICE: &str = "kubernetes.io/service-name";
/// The slice is of a Service without an address, which kube-proxy leaves alone.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// What the API allows (`pkg/apis/discovery/validation`).
const MOST_ENDPOINTS: usize = 1000;
const MOST_PORTS: usize = 100;
const MOST_HINTS: usize = 8;
/// Bytes of the names of nodes and zones in a slice, each counted once: as many as fit into a message to agents.
const MOST_NAMES: usize = 64 << 10;

/// A part of the endpoints of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Unique in its namespace, which is the Service's.
    pub name: Arc<str>,
    pub service: ServiceName,
    /// What each of the endpoints has.
    pub ports: Vec<SlicePort>,
    /// By address. Of two at one address the one counts that is not about to end.
    pub endpoints: BTreeMap<IpAddr, Endpoint>,
}

/// A TCP port of all endpoints of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicePort {
    /// The name of the Service's port; may be empty.
    pub name: Arc<str>,
    pub port: u16,
}

/// Somebody who answers for a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The pod; `None` if somebody has written the slice for something else.
    pub pod: Option<PodUid>,
    /// The node that it is on.
    pub node: Option<Arc<str>>,
    pub conditions: Conditions,
    /// Zones and nodes whose clients it is for; empty if nobody has said so.
    pub zones: BTreeSet<Arc<str>>,
    pub nodes: BTreeSet<Arc<str>>,
}

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// It is for new connections: ready and not about to end, or its Service publishes such as are not ready.
    pub is_ready: bool,
    /// It answers, though it may be about to end.
    pub is_serving: bool,
    pub is_terminating: bool,
}

/// An object of the API that cannot be an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEndpointSlice {
    #[error("an EndpointSlice without {0}")]
    Lacks(&'static str),
    #[error("an EndpointSlice has `{}` for a name", .0.escape_debug())]
    Name(String),
    #[error("the EndpointSlice {slice} has `{}` for {what}", .value.escape_debug())]
    Value { slice: String, what: &'static str, value: String },
    #[error("the EndpointSlice {slice} has more than {most} {what}")]
    TooMany { slice: String, what: &'static str, most: usize },
}

impl EndpointSlice {
    /// `None` if kube-proxy does not look at it: it is of no Service, of one without an address, or has names in place of
    /// addresses.
    ///
    /// # Errors
    /// If the object lacks what every slice has, or if that makes no sense.
    pub fn of(object: &api::EndpointSlice) -> Result<Option<Self>, NotAnEndpointSlice> {
        let own = ServiceName::of(&object.metadata)?;
        let label = |name| object.metadata.labels.as_ref().and_then(|labels| labels.get(name));
        let service = label(SERVICE).filter(|service| !service.is_empty());
        let Some(service) = service.filter(|_| label(HEADLESS).is_none()) else {
            return Ok(None);
        };
        let reading = Reading { slice: &own };
        let is_v4 = match &*object.address_type {
            "IPv4" => true,
            "IPv6" => false,
            "FQDN" => return Ok(None),
            other => return Err(reading.value("addressType", other)),
        };
        let service = words::object_name(service)
            .ok_or_else(|| reading.value("the name of its Service", service))?;
        let service = ServiceName { namespace: own.namespace.clone(), name: service };
        let all = object.endpoints.as_deref().unwrap_or_default();
        reading.bounded("endpoints", all.len(), MOST_ENDPOINTS)?;
        let mut endpoints: BTreeMap<_, Endpoint> = BTreeMap::new();
        for object in all {
            let Some((address, endpoint)) = reading.endpoint(object, is_v4)? else {
                continue;
            };
            let known = endpoints.get(&address);
            if known.is_none_or(|known| known.conditions.is_terminating) {
                endpoints.insert(address, endpoint);
            }
        }
        let names = endpoints.values().flat_map(Endpoint::names).collect::<BTreeSet<_>>();
        let bytes = names.iter().map(|name| name.len()).sum();
        reading.bounded("bytes of names of nodes and zones", bytes, MOST_NAMES)?;
        let ports = reading.ports(object.ports.as_deref().unwrap_or_default())?;
        Ok(Some(Self { name: own.name, service, ports, endpoints }))
    }
}

impl Endpoint {
    /// The names of nodes and zones that it has.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.node.iter().chain(&self.zones).chain(&self.nodes)
    }
}

impl From<NotAService> for NotAnEndpointSlice {
    fn from(error: NotAService) -> Self {
        match error {
            NotAService::Name(name) => Self::Name(name),
            NotAService::Lacks(what) => Self::Lacks(what),
            other => Self::Name(other.to_string()),
        }
    }
}

/// A slice that is being read.
struct Reading<'s> {
    slice: &'s ServiceName,
}

impl Reading<'_> {
    fn value(&self, what: &'static str, value: &str) -> NotAnEndpointSlice {
        NotAnEndpointSlice::Value { slice: self.slice.to_string(), what, value: value.to_owned() }
    }

    fn bounded(
        &self,
        what: &'static str,
        count: usize,
        most: usize,
    ) -> Result<(), NotAnEndpointSlice> {
        if count > most {
            return Err(NotAnEndpointSlice::TooMany { slice: self.slice.to_string(), what, most });
        }
        Ok(())
    }

    /// A port without a name or a number is left out, as by kube-proxy.
    fn ports(&self, all: &[api::EndpointPort]) -> Result<Vec<SlicePort>, NotAnEndpointSlice> {
        self.bounded("ports", all.len(), MOST_PORTS)?;
        let mut ports = Vec::new();
        for object in all.iter().filter(|port| is_tcp(port.protocol.as_deref())) {
            let (Some(name), Some(number)) = (&object.name, object.port) else {
                continue;
            };
            let name =
                words::label_value(name).ok_or_else(|| self.value("the name of a port", name))?;
            match words::port(number) {
                Some(port) => ports.push(SlicePort { name, port }),
                None if number == 0 => {}
                None => return Err(self.value("a port", &number.to_string())),
            }
        }
        Ok(ports)
    }

    /// Only the first address counts, as for kube-proxy. `None` if there is none.
    fn endpoint(
        &self,
        object: &api::Endpoint,
        is_v4: bool,
    ) -> Result<Option<(IpAddr, Endpoint)>, NotAnEndpointSlice> {
        let Some(text) = object.addresses.first() else {
            return Ok(None);
        };
        let address = words::address(text).filter(|address| address.is_ipv4() == is_v4);
        let node = object.node_name.as_deref();
        let node = node.map(|node| self.name("the name of a node", node)).transpose()?;
        let hints = object.hints.as_ref();
        let zones = hints.and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
        let nodes = hints.and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
        self.bounded("hints for an endpoint", zones.len().max(nodes.len()), MOST_HINTS)?;
        let zone = |name: &str| {
            words::label_value(name).ok_or_else(|| self.value("the name of a zone", name))
        };
        let address = address.ok_or_else(|| self.value("an address", text))?;
        let endpoint = Endpoint {
            pod: self.pod(object)?,
            node,
            conditions: conditions(object),
            zones: zones.iter().map(|hint| zone(&hint.name)).collect::<Result<_, _>>()?,
            nodes: nodes
                .iter()
                .map(|hint| self.name("the name of a node", &hint.name))
                .collect::<Result<_, _>>()?,
        };
        Ok(Some((address, endpoint)))
    }

    /// A pod is of the slice's own namespace: nobody else's is anything to its Service.
    fn pod(&self, object: &api::Endpoint) -> Result<Option<PodUid>, NotAnEndpointSlice> {
        let target = object.target_ref.as_ref();
        let target = target.filter(|target| target.kind.as_deref() == Some("Pod"));
        let target = target.filter(|target| {
            let namespace = target.namespace.as_deref().unwrap_or_default();
            namespace == &*self.slice.namespace
        });
        let uid = target.and_then(|target| target.uid.as_deref()).filter(|uid| !uid.is_empty());
        uid.map(|uid| uid.parse().map_err(|_| self.value("the uid of a pod", uid))).transpose()
    }

    fn name(&self, what: &'static str, text: &str) -> Result<Arc<str>, NotAnEndpointSlice> {
        words::object_name(text).ok_or_else(|| self.value(what, text))
    }
}

/// What is not said is read as kube-proxy reads it (`addEndpoints` in `pkg/proxy/endpointslicecache.go`).
fn conditions(object: &api::Endpoint) -> Conditions {
    let of = |condition: fn(&api::EndpointConditions) -> Option<bool>| {
        object.conditions.as_ref().and_then(condition)
    };
    Conditions {
        is_ready: of(|all| all.ready).unwrap_or(true),
        is_serving: of(|all| all.serving).unwrap_or(true),
        is_terminating: of(|all| all.terminating).unwrap_or(false),
    }
}

#[cfg(test)]
mod tests;
