//! The choice of one endpoint, as a function of everything that it depends on.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use sheath_common::workload::OutboundMode;

use super::affinity::{self, Affinity};
use super::endpoints::Backend;
use super::frontend::{Reach, Served};
use crate::kubernetes::ServiceName;

/// What is known of an endpoint's protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is known who must answer there.
    Protected,
    /// Nobody protects it.
    Plain,
    /// It will be protected, or another pod is at its address than the Service says: nobody is called there.
    Pending,
    /// It may be anybody's.
    Unknown,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its address, if [`Served::minds_client`].
    pub address: Option<IpAddr>,
    pub mode: OutboundMode,
}

/// The endpoint that a connection goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub backend: Backend,
    /// There is nobody who protects it: it is called as it is.
    pub is_plain: bool,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    #[error(
        "the Services {0} and {1} both say that they have this address; nobody is believed to be at this port"
    )]
    Claimed(ServiceName, ServiceName),
    #[error(
        "the Service {0} says that it has this address, which is of the cluster's own pods, Services or nodes; nobody is believed to be there"
    )]
    Foreign(ServiceName),
    #[error(
        "there is no room for the Service {0}: its namespace has more ports or endpoints of Services than its share; `sheath status` says how many are left out"
    )]
    NoRoom(ServiceName),
    #[error("the Service {service} has no endpoint that is ready for port {port}")]
    NotReady { service: ServiceName, port: u16 },
    #[error(
        "the Service {service} has no endpoint on this node that is ready for port {port}, and its internalTrafficPolicy is Local"
    )]
    NotHere { service: ServiceName, port: u16 },
    #[error(
        "the Service {service} has no endpoint for port {port} that may be called: {plain} without protection, {pending} that will be protected, {unknown} unknown"
    )]
    NotAllowed { service: ServiceName, port: u16, plain: usize, pending: usize, unknown: usize },
    #[error(
        "the Service {0} takes no connections from {1} at its load balancer: see loadBalancerSourceRanges"
    )]
    NotForClient(ServiceName, IpAddr),
    #[error("the Service {0} must know who calls, and the client has no address")]
    NoAddress(ServiceName),
}

/// An endpoint was tried, and another is asked for.
pub type Tried = Option<SocketAddr>;

/// How often one is drawn before all are looked at.
const DRAWS: u32 = 8;

/// Chooses an endpoint. `random` is drawn from anew for each number.
///
/// # Errors
/// Why none may be called.
pub fn choose(
    served: &Served,
    client: &Client,
    tried: Tried,
    standing: &dyn Fn(&Backend) -> Standing,
    affinity: &Affinity,
    mut random: impl FnMut() -> u64,
    now: Instant,
) -> Result<Choice, NoEndpoint> {
    let address = match client.address {
        None if served.minds_client() => return Err(NoEndpoint::NoAddress(served.service.clone())),
        address => address.filter(|_| served.minds_client()),
    };
    if let Some(address) = address.filter(|address| !served.takes(*address)) {
        return Err(NoEndpoint::NotForClient(served.service.clone(), address));
    }
    let judged = |backend: &Backend| {
        if tried == Some(backend.at) {
            return None;
        }
        is_plain(client.mode, standing(backend))
    };
    for tier in served.tiers.iter() {
        let choice = match address.filter(|_| served.stickiness.is_some()) {
            Some(client) => stay(served, client, tier, affinity, &judged, now),
            None => draw(tier, &judged, &mut random),
        };
        if let Some(choice) = choice {
            if let Some(client) = address {
                affinity.remember(served, client, choice.backend.at, now);
            }
            return Ok(choice);
        }
    }
    Err(none(served, standing))
}

/// Whether an endpoint is called without protection; `None` if it is not called.
fn is_plain(mode: OutboundMode, standing: Standing) -> Option<bool> {
    match (standing, mode) {
        (Standing::Protected, _) => Some(false),
        (Standing::Plain, OutboundMode::Prefer) => Some(true),
        (Standing::Plain | Standing::Pending | Standing::Unknown, _) => None,
    }
}

/// The endpoint that a client has had, or the first that it has.
fn stay(
    served: &Served,
    client: IpAddr,
    tier: &[Backend],
    affinity: &Affinity,
    judged: &dyn Fn(&Backend) -> Option<bool>,
    now: Instant,
) -> Option<Choice> {
    let last = affinity.last(served, client, now);
    let last = last.and_then(|last| tier.binary_search_by_key(&last, |backend| backend.at).ok());
    if let Some(backend) = last.map(|index| tier[index])
        && let Some(is_plain) = judged(&backend)
    {
        return Some(Choice { backend, is_plain });
    }
    let allowed = tier.iter().filter(|backend| judged(backend).is_some());
    let backend = *affinity::first(served, client, allowed)?;
    Some(Choice { backend, is_plain: judged(&backend)? })
}

/// One of a tier, each with the same probability: of many it is not asked about all.
fn draw(
    tier: &[Backend],
    judged: &dyn Fn(&Backend) -> Option<bool>,
    random: &mut dyn FnMut() -> u64,
) -> Option<Choice> {
    let one_of = |backends: &[Backend], random: u64| {
        backends.get((random % backends.len().max(1) as u64) as usize).copied()
    };
    for _ in 0..DRAWS {
        let backend = one_of(tier, random())?;
        if let Some(is_plain) = judged(&backend) {
            return Some(Choice { backend, is_plain });
        }
    }
    let allowed: Vec<_> = tier.iter().filter(|b| judged(b).is_some()).copied().collect();
    let backend = one_of(&allowed, random())?;
    Some(Choice { backend, is_plain: judged(&backend)? })
}

fn none(served: &Served, standing: &dyn Fn(&Backend) -> Standing) -> NoEndpoint {
    let (service, port) = (served.service.clone(), served.port.port);
    if served.tiers.is_empty() {
        return match served.reach {
            Reach::Node => NoEndpoint::NotHere { service, port },
            Reach::Cluster | Reach::External | Reach::Balancer | Reach::Foreign => {
                NoEndpoint::NotReady { service, port }
            }
        };
    }
    let all: std::collections::BTreeSet<_> = served.tiers.iter().flatten().collect();
    let count = |wanted| all.iter().filter(|backend| standing(backend) == wanted).count();
    NoEndpoint::NotAllowed {
        service,
        port,
        plain: count(Standing::Plain),
        pending: count(Standing::Pending),
        unknown: count(Standing::Unknown),
    }
}

#[cfg(test)]
mod tests;
