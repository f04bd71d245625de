//! Messages, taken for what they mean. Nothing of a message that makes no sense is believed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sheath_common::pod_uid::PodUid;

use super::{READY, SERVING, TERMINATING};
use crate::controller_api::services as api;
use crate::kubernetes::{
    Conditions, Endpoint, EndpointSlice, Service, ServiceName, ServicePort, SlicePort, words,
};
use crate::services::Change;

/// A message that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the controller says of Services makes no sense: {0}")]
pub struct Senseless(&'static str);

/// The changes that a message tells of.
///
/// # Errors
/// If it makes no sense.
pub fn decode(message: api::Services) -> Result<Vec<Change>, Senseless> {
    let texts = message.texts.iter().map(|text| Arc::<str>::from(text.as_str())).collect();
    let reading = Reading { texts };
    let mut changes = Vec::new();
    for service in message.services {
        changes.push(Change::Service(Arc::new(reading.service(service)?)));
    }
    for slice in message.slices {
        changes.push(reading.slice(slice)?);
    }
    for name in message.gone_services {
        let (namespace, name) = reading.name(Some(name))?;
        changes.push(Change::ServiceGone(ServiceName { namespace, name }));
    }
    for name in message.gone_slices {
        changes.push(Change::SliceGone(reading.name(Some(name))?));
    }
    Ok(changes)
}

/// A message that is being read.
struct Reading {
    texts: Vec<Arc<str>>,
}

impl Reading {
    /// The text with an index, which counts from 1.
    fn text(&self, index: u32) -> Result<Arc<str>, Senseless> {
        let text = (index as usize).checked_sub(1).and_then(|at| self.texts.get(at));
        text.cloned().ok_or(Senseless("an index of no text"))
    }

    fn object_name(&self, index: u32) -> Result<Arc<str>, Senseless> {
        let text = self.text(index)?;
        words::object_name(&text).map(|_| text).ok_or(Senseless("a name that is none"))
    }

    fn name(&self, name: Option<api::ObjectName>) -> Result<(Arc<str>, Arc<str>), Senseless> {
        let name = name.ok_or(Senseless("an object without a name"))?;
        let own = words::object_name(&name.name).ok_or(Senseless("a name that is none"))?;
        Ok((self.object_name(name.namespace)?, own))
    }

    fn service(&self, service: api::Service) -> Result<Service, Senseless> {
        let (namespace, name) = self.name(service.name)?;
        let mut ports = BTreeSet::new();
        for stated in &service.ports {
            let (port, name) = port(stated)?;
            ports.insert(ServicePort { port, name });
        }
        let clients = service.balancer_clients.iter().map(|text| text.parse::<IpNet>());
        let clients = clients.collect::<Result<_, _>>();
        let affinity = Duration::from_secs(service.affinity_seconds.into());
        Ok(Service {
            name: ServiceName { namespace, name },
            cluster: addresses(&service.cluster)?,
            external: addresses(&service.external)?,
            balancers: addresses(&service.balancers)?,
            foreign: addresses(&service.foreign)?,
            created: service.created,
            balancer_clients: clients.map_err(|_| Senseless("a source range that is none"))?,
            ports,
            is_node_local: service.is_node_local,
            affinity: Some(affinity).filter(|time| !time.is_zero()),
        })
    }

    fn slice(&self, slice: api::EndpointSlice) -> Result<Change, Senseless> {
        let (namespace, name) = self.name(slice.name)?;
        let mut endpoints = Vec::with_capacity(slice.endpoints.len());
        for endpoint in slice.endpoints {
            endpoints.push(self.endpoint(endpoint)?);
        }
        let Some(whole) = slice.whole else {
            let gone = slice.gone.iter().map(|octets| address(octets));
            let gone = gone.collect::<Result<_, _>>()?;
            return Ok(Change::Endpoints { slice: (namespace, name), now: endpoints, gone });
        };
        let service = words::object_name(&whole.service).ok_or(Senseless("no Service"))?;
        let mut ports = Vec::with_capacity(whole.ports.len());
        for stated in &whole.ports {
            let (port, name) = port(stated)?;
            ports.push(SlicePort { name, port });
        }
        Ok(Change::Slice(Arc::new(EndpointSlice {
            name,
            service: ServiceName { namespace, name: service },
            ports,
            endpoints: endpoints.into_iter().collect(),
        })))
    }

    fn endpoint(&self, endpoint: api::Endpoint) -> Result<(IpAddr, Endpoint), Senseless> {
        let pod = match &endpoint.pod_uid[..] {
            [] => None,
            uid => {
                let uid = uid.try_into().map_err(|_| Senseless("a uid without 16 bytes"))?;
                Some(PodUid::from_bytes(uid))
            }
        };
        let node = match endpoint.node {
            0 => None,
            index => Some(self.object_name(index)?),
        };
        let zone = |index: &u32| {
            let text = self.text(*index)?;
            words::label_value(&text).map(|_| text).ok_or(Senseless("a zone that is none"))
        };
        let conditions = endpoint.conditions;
        let is = |flag| conditions & flag != 0;
        let made = Endpoint {
            pod,
            node,
            conditions: Conditions {
                is_ready: is(READY),
                is_serving: is(SERVING),
                is_terminating: is(TERMINATING),
            },
            zones: endpoint.zone_hints.iter().map(zone).collect::<Result<_, _>>()?,
            nodes: endpoint
                .node_hints
                .iter()
                .map(|index| self.object_name(*index))
                .collect::<Result<_, _>>()?,
        };
        Ok((address(&endpoint.address)?, made))
    }
}

fn addresses<B: AsRef<[u8]>>(all: &[B]) -> Result<BTreeSet<IpAddr>, Senseless> {
    all.iter().map(|octets| address(octets.as_ref())).collect()
}

fn address(octets: &[u8]) -> Result<IpAddr, Senseless> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
    let address = address.map_err(|_| Senseless("an address with neither 4 nor 16 bytes"))?;
    words::is_of_one_place(address).then_some(address).ok_or(Senseless("an address of nobody"))
}

fn port(stated: &api::Port) -> Result<(u16, Arc<str>), Senseless> {
    let port = u16::try_from(stated.port).ok().filter(|port| *port != 0);
    let port = port.ok_or(Senseless("a port that is none"))?;
    let name = words::label_value(&stated.name).ok_or(Senseless("the name of a port"))?;
    Ok((port, name))
}
