//! Keeps one name resolved.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::Resolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use rustls_pki_types::DnsName;
use tokio::sync::{mpsc, watch};

use super::resolv_conf::{NameServer, ResolvConf};
use super::system::System;
use super::zoned::Zoned;
use super::{Answer, ResolutionError};
use crate::follow::Backoff;

/// Bounds of the time between two queries, which is the TTL of the answer.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Sends the addresses of a name again and again: from `/etc/hosts`, and from name servers: `servers`, or those of the host
/// if there are none.
pub async fn keep_resolved(
    servers: Vec<SocketAddr>,
    name: DnsName<'static>,
    mut system: watch::Receiver<Arc<System>>,
    answers: mpsc::Sender<Answer>,
    mut backoff: Backoff,
) {
    // Absolute: no search domain is tried.
    let absolute = format!("{}.", name.as_ref());
    let mut ready: Option<Resolver<Zoned>> = None;
    loop {
        let known = system.borrow_and_update().clone();
        let own = known.hosts.addresses(name.as_ref());
        // These are known at once, however long the name servers take.
        if !own.is_empty() && answers.send((name.clone(), Ok(own.clone()))).await.is_err() {
            return;
        }
        // A new one after every failure: the name servers may have changed.
        let current = match ready.take() {
            Some(current) => Ok(current),
            None => resolver(&servers, &known),
        };
        let answer = match current {
            Ok(current) => {
                let answer = tokio::select! {
                    answer = current.lookup_ip(absolute.as_str()) => answer,
                    // The name servers have changed: ask the new ones.
                    () = changed(&mut system) => continue,
                };
                ready = answer.is_ok().then_some(current);
                answer.map_err(ResolutionError::from)
            }
            Err(error) => Err(error),
        };
        let (found, pause) = match answer {
            Ok(found) => {
                backoff.reset();
                let left = found.valid_until().saturating_duration_since(Instant::now());
                (Ok(found.iter().collect()), left.clamp(SHORTEST, LONGEST))
            }
            Err(error) => (Err(error), backoff.pause()),
        };
        if answers.send((name.clone(), joined(own, found))).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = changed(&mut system) => {
                ready = None;
                backoff.reset();
            }
        }
    }
}

/// Joins the addresses in `/etc/hosts` with those of the name servers: a workload in a container does not see the host's
/// file. The file alone counts if no name server answers.
fn joined(
    own: BTreeSet<IpAddr>,
    found: Result<BTreeSet<IpAddr>, ResolutionError>,
) -> Result<BTreeSet<IpAddr>, ResolutionError> {
    match found {
        Ok(found) => Ok(found.into_iter().chain(own).collect()),
        Err(error) if own.is_empty() => Err(error),
        Err(_) => Ok(own),
    }
}

/// Waits until the files of the host change.
async fn changed(system: &mut watch::Receiver<Arc<System>>) {
    if system.changed().await.is_err() {
        std::future::pending().await
    }
}

fn resolver(servers: &[SocketAddr], system: &System) -> Result<Resolver<Zoned>, ResolutionError> {
    let mut options = ResolverOpts::default();
    let mut zones = HashMap::new();
    let servers: Vec<_> = if servers.is_empty() {
        let ResolvConf { servers, timeout, attempts, edns0, only_tcp } =
            system.resolver.as_ref().map_err(Clone::clone)?;
        (options.timeout, options.attempts, options.edns0) = (*timeout, *attempts, *edns0);
        for NameServer { address, zone } in servers {
            if let Some(zone) = zone {
                zones.insert(*address, zone.clone());
            }
        }
        servers.iter().map(|server| name_server(server.address, 53, *only_tcp)).collect()
    } else {
        servers.iter().map(|server| name_server(server.ip(), server.port(), false)).collect()
    };
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // We read it ourselves, and again when it changes.
    options.use_hosts_file = ResolveHosts::Never;
    // We ask only when the answer before has expired.
    options.cache_size = 0;
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut builder = Resolver::builder_with_config(config, Zoned::new(zones));
    *builder.options_mut() = options;
    builder.build().map_err(|error| ResolutionError::NoResolver(error.to_string()))
}

fn name_server(address: IpAddr, port: u16, only_tcp: bool) -> NameServerConfig {
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = port;
        connection
    };
    let mut connections = vec![with_port(ConnectionConfig::tcp())];
    if !only_tcp {
        connections.insert(0, with_port(ConnectionConfig::udp()));
    }
    NameServerConfig::new(address, true, connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_file_adds_to_what_others_say() {
        let set = |addresses: &[&str]| -> BTreeSet<IpAddr> {
            addresses.iter().map(|address| address.parse().unwrap()).collect()
        };
        let failed = || Err(ResolutionError::Timeout);
        assert_eq!(joined(set(&[]), Ok(set(&["10.0.0.1"]))), Ok(set(&["10.0.0.1"])));
        let both = joined(set(&["fd00::1"]), Ok(set(&["10.0.0.1"])));
        assert_eq!(both, Ok(set(&["10.0.0.1", "fd00::1"])));
        assert_eq!(joined(set(&["10.0.0.1"]), failed()), Ok(set(&["10.0.0.1"])));
        assert_eq!(joined(set(&[]), failed()), failed());
    }
}
