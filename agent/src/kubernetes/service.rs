//! Services, as far as kube-proxy serves them and TCP is concerned.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;
use serde::{Deserialize, Serialize};

use super::words;

/// By this label somebody else than kube-proxy serves a Service (`pkg/proxy/apis/well_known_labels.go`).
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// In place of an address where there is none.
const HEADLESS: &str = "None";
/// What the API server writes where nobody says how long a client stays with an endpoint.
const AFFINITY: Duration = Duration::from_secs(3 * 60 * 60);
/// The longest time that it allows, in seconds.
const LONGEST_AFFINITY: u64 = 24 * 60 * 60;
/// More than anybody has.
const MOST_PORTS: usize = 1000;
const MOST_ADDRESSES: usize = 64;
/// Ports at all addresses: each is an entry in the kernel of every node.
const MOST_PLACES: usize = 2000;

/// The name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// A Service with addresses of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub name: ServiceName,
    /// Its cluster addresses, at most one of a family.
    pub cluster: BTreeSet<IpAddr>,
    /// Its external addresses.
    pub external: BTreeSet<IpAddr>,
    /// Addresses of load balancers that leave the destination as it is (ipMode `VIP`, KEP-1860).
    pub balancers: BTreeSet<IpAddr>,
    /// Who may call those; with none of a family, everybody of that family.
    pub balancer_clients: BTreeSet<IpNet>,
    /// At least one.
    pub ports: BTreeSet<ServicePort>,
    /// Addresses that it says it has, and that are the cluster's own: nobody is believed to be there. The controller says which.
    pub foreign: BTreeSet<IpAddr>,
    /// When it was made, in seconds since 1970: where there is no room for all, older ones come first.
    pub created: u64,
    /// At its cluster addresses, only endpoints of the client's node answer (KEP-2086).
    pub is_node_local: bool,
    /// How long a client stays with an endpoint after its last connection, if it does.
    pub affinity: Option<Duration>,
}

/// A TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServicePort {
    pub port: u16,
    /// As EndpointSlices name it; may be empty.
    pub name: Arc<str>,
}

/// An object of the API that cannot be a Service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAService {
    #[error("a Service without {0}")]
    Lacks(&'static str),
    #[error("a Service has `{}` for a name", .0.escape_debug())]
    Name(String),
    #[error("the Service {service} has `{}` for {what}", .value.escape_debug())]
    Value { service: ServiceName, what: &'static str, value: String },
    #[error("the Service {service} has more than {most} {what}")]
    TooMany { service: ServiceName, what: &'static str, most: usize },
    #[error("the Service {0} has two cluster addresses of one family")]
    TwoOfAFamily(ServiceName),
    #[error("the Service {service} has the {what} {value} twice")]
    Twice { service: ServiceName, what: &'static str, value: String },
}

impl Service {
    /// `None` if kube-proxy does not serve it, or not by TCP: it has no address (headless, `ExternalName`), or another proxy
    /// serves it.
    ///
    /// # Errors
    /// If the object lacks what every Service has, or if that makes no sense.
    pub fn of(object: &api::Service) -> Result<Option<Self>, NotAService> {
        let name = ServiceName::of(&object.metadata)?;
        let spec = object.spec.as_ref().ok_or(NotAService::Lacks("a specification"))?;
        let labels = object.metadata.labels.as_ref();
        let is_others = labels.is_some_and(|labels| labels.contains_key(PROXY_NAME));
        if is_others || spec.type_.as_deref() == Some("ExternalName") {
            return Ok(None);
        }
        let reading = Reading(&name);
        let cluster = reading.cluster(spec)?;
        let ports = reading.ports(spec)?;
        if cluster.is_empty() || ports.is_empty() {
            return Ok(None);
        }
        // kube-proxy serves a family only where there is a cluster address of it.
        let is_served = |address: &IpAddr| {
            cluster.iter().any(|own: &IpAddr| own.is_ipv4() == address.is_ipv4())
        };
        let mut external = reading.external(spec)?;
        let mut balancers = reading.balancers(object)?;
        external.retain(is_served);
        balancers.retain(is_served);
        let addresses = cluster.len() + external.len() + balancers.len();
        reading.bounded("ports at all of its addresses", ports.len() * addresses, MOST_PLACES)?;
        let is_node_local = match spec.internal_traffic_policy.as_deref() {
            None | Some("Cluster") => false,
            Some("Local") => true,
            Some(other) => return Err(reading.value("internalTrafficPolicy", other)),
        };
        Ok(Some(Self {
            cluster,
            external,
            balancers,
            balancer_clients: reading.balancer_clients(spec)?,
            foreign: BTreeSet::new(),
            created: created(object),
            ports,
            is_node_local,
            affinity: reading.affinity(spec)?,
            name,
        }))
    }
}

impl ServiceName {
    /// # Errors
    /// If it has no name, or none that an object can have.
    pub fn of(
        metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    ) -> Result<Self, NotAService> {
        let name = metadata.name.as_deref().ok_or(NotAService::Lacks("a name"))?;
        let namespace = metadata.namespace.as_deref().ok_or(NotAService::Lacks("a namespace"))?;
        let checked =
            |text: &str| words::object_name(text).ok_or_else(|| NotAService::Name(text.to_owned()));
        Ok(Self { namespace: checked(namespace)?, name: checked(name)? })
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Service that is being read.
struct Reading<'n>(&'n ServiceName);

impl Reading<'_> {
    fn value(&self, what: &'static str, value: &str) -> NotAService {
        NotAService::Value { service: self.0.clone(), what, value: value.to_owned() }
    }

    fn bounded(&self, what: &'static str, count: usize, most: usize) -> Result<(), NotAService> {
        if count > most {
            return Err(NotAService::TooMany { service: self.0.clone(), what, most });
        }
        Ok(())
    }

    fn addresses<'a>(
        &self,
        what: &'static str,
        texts: impl Iterator<Item = &'a str>,
    ) -> Result<BTreeSet<IpAddr>, NotAService> {
        let mut addresses = BTreeSet::new();
        for text in texts {
            addresses.insert(words::address(text).ok_or_else(|| self.value(what, text))?);
            self.bounded("addresses", addresses.len(), MOST_ADDRESSES)?;
        }
        Ok(addresses)
    }

    fn cluster(&self, spec: &api::ServiceSpec) -> Result<BTreeSet<IpAddr>, NotAService> {
        let all = spec.cluster_ips.iter().flatten().map(String::as_str);
        let all = all.chain(spec.cluster_ip.as_deref());
        let own = all.filter(|text| !text.is_empty() && *text != HEADLESS);
        let addresses = self.addresses("a cluster address", own)?;
        let of_v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
        if of_v4 > 1 || addresses.len() - of_v4 > 1 {
            return Err(NotAService::TwoOfAFamily(self.0.clone()));
        }
        Ok(addresses)
    }

    fn external(&self, spec: &api::ServiceSpec) -> Result<BTreeSet<IpAddr>, NotAService> {
        let all = spec.external_ips.iter().flatten().map(String::as_str);
        self.addresses("an external address", all)
    }

    /// A load balancer that is a proxy makes connections of its own: what goes there is for it (KEP-1860).
    fn balancers(&self, object: &api::Service) -> Result<BTreeSet<IpAddr>, NotAService> {
        let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let all = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
        let virtual_ones =
            all.filter(|ingress| ingress.ip_mode.as_deref().is_none_or(|m| m == "VIP"));
        let texts = virtual_ones.filter_map(|ingress| ingress.ip.as_deref());
        self.addresses("a load balancer's address", texts.filter(|text| !text.is_empty()))
    }

    fn balancer_clients(&self, spec: &api::ServiceSpec) -> Result<BTreeSet<IpNet>, NotAService> {
        let mut clients = BTreeSet::new();
        for text in spec.load_balancer_source_ranges.iter().flatten() {
            // Spaces around it are allowed, by an oversight of the API's that was kept.
            let prefix: IpNet =
                text.trim().parse().map_err(|_| self.value("a source range", text))?;
            clients.insert(prefix.trunc());
            self.bounded("source ranges", clients.len(), MOST_ADDRESSES)?;
        }
        Ok(clients)
    }

    fn ports(&self, spec: &api::ServiceSpec) -> Result<BTreeSet<ServicePort>, NotAService> {
        let all = spec.ports.as_deref().unwrap_or_default();
        self.bounded("ports", all.len(), MOST_PORTS)?;
        let (mut ports, mut numbers, mut names) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for object in all.iter().filter(|port| is_tcp(port.protocol.as_deref())) {
            let text = object.name.as_deref().unwrap_or_default();
            let name =
                words::label_value(text).ok_or_else(|| self.value("the name of a port", text))?;
            let port = words::port(object.port)
                .ok_or_else(|| self.value("a port", &object.port.to_string()))?;
            let twice = |what, value| NotAService::Twice { service: self.0.clone(), what, value };
            if !numbers.insert(port) {
                return Err(twice("port", port.to_string()));
            }
            if !names.insert(name.clone()) {
                return Err(twice("name of a port", format!("`{name}`")));
            }
            ports.insert(ServicePort { port, name });
        }
        Ok(ports)
    }

    fn affinity(&self, spec: &api::ServiceSpec) -> Result<Option<Duration>, NotAService> {
        match spec.session_affinity.as_deref() {
            None | Some("" | "None") => return Ok(None),
            Some("ClientIP") => {}
            Some(other) => return Err(self.value("sessionAffinity", other)),
        }
        let config = spec.session_affinity_config.as_ref();
        let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
        let Some(seconds) = seconds else {
            return Ok(Some(AFFINITY));
        };
        let allowed = u64::try_from(seconds).ok().filter(|s| (1..=LONGEST_AFFINITY).contains(s));
        let allowed = allowed.ok_or_else(|| self.value("timeoutSeconds", &seconds.to_string()))?;
        Ok(Some(Duration::from_secs(allowed)))
    }
}

fn created(object: &api::Service) -> u64 {
    let created = object.metadata.creation_timestamp.as_ref();
    created.map_or(0, |time| u64::try_from(time.0.as_second()).unwrap_or_default())
}

/// TCP is what is meant where nothing is said.
pub(super) fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("" | "TCP"))
}

#[cfg(test)]
mod tests;
