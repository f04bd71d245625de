//! What the kernel is told of a namespace's addresses: which are its own, and from which of them connections leave.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::route::route_source;
use crate::capture::kernel::maps::Maps;
use crate::flow::Inherited;
use crate::steering::mapped_length;
use crate::sys::netns::NetworkNamespace;

/// The addresses of one namespace.
#[derive(Debug)]
pub struct Sources {
    netns: NetworkNamespace,
    cookie: u64,
    maps: Arc<Maps>,
    /// Its own, as the kernel has been told.
    own: Mutex<Option<HashSet<IpAddr>>>,
}

impl Sources {
    pub fn of(netns: NetworkNamespace, cookie: u64, maps: Arc<Maps>) -> Self {
        Self { netns, cookie, maps, own: Mutex::default() }
    }

    /// Tells the kernel the namespace's own addresses, and from which address connections leave, by default and to
    /// each of these prefixes.
    ///
    /// # Errors
    /// If the addresses cannot be read or the maps not be written.
    pub fn publish(&self, prefixes: &[IpNet]) -> io::Result<()> {
        let (own, routed) = self.netns.run(|| {
            let anybody = Inherited::default();
            let source = |prefix: &IpNet| route_source(probe_address(prefix), &anybody).ok();
            let routed: Vec<_> = anywhere()
                .iter()
                .chain(prefixes)
                .filter_map(|prefix| source(prefix).map(|source| (*prefix, source)))
                .collect();
            Ok((own_addresses()?, routed))
        })?;
        self.publish_own(own)?;
        for (prefix, source) in routed {
            let length = u32::from(mapped_length(&prefix));
            self.maps.set_source(self.cookie, length, prefix.addr().into(), source.into())?;
        }
        Ok(())
    }

    fn publish_own(&self, addresses: HashSet<IpAddr>) -> io::Result<()> {
        let mut told = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref() != Some(&addresses) {
            let own = addresses.iter().map(|address| (*address).into()).collect();
            self.maps.set_locals(self.cookie, &own)?;
            *told = Some(addresses);
        }
        Ok(())
    }

    /// Forgets what [`Self::publish`] has told about other prefixes than these.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn prune(&self, prefixes: &[IpNet]) -> io::Result<()> {
        let entry = |prefix: &IpNet| (u32::from(mapped_length(prefix)), prefix.addr().into());
        let wanted = anywhere().iter().chain(prefixes).map(entry).collect();
        self.maps.prune_sources(self.cookie, &wanted)
    }
}

fn anywhere() -> [IpNet; 2] {
    [
        IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
    ]
}

/// Addresses of the calling thread's namespace.
fn own_addresses() -> io::Result<HashSet<IpAddr>> {
    let of = |address: SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    };
    Ok(getifaddrs()?.filter_map(|interface| interface.address).filter_map(of).collect())
}

/// An address in a prefix to look the route up with; the first may be a broadcast address.
fn probe_address(prefix: &IpNet) -> IpAddr {
    match prefix {
        // Addresses for documentation (RFC 5737, RFC 3849) stand for "anywhere".
        IpNet::V4(net) if net.prefix_len() == 0 => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpNet::V6(net) if net.prefix_len() == 0 => {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
        }
        _ => prefix.hosts().next().unwrap_or_else(|| prefix.addr()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_looked_up_with_a_host_of_the_prefix() {
        assert_eq!(probe_address(&"10.0.2.0/24".parse().unwrap()), IpAddr::from([10, 0, 2, 1]));
        assert_eq!(probe_address(&"10.0.2.7/32".parse().unwrap()), IpAddr::from([10, 0, 2, 7]));
    }

    #[test]
    fn loopback_is_among_the_own_addresses() {
        assert!(own_addresses().unwrap().contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
