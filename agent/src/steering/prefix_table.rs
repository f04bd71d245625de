//! Destinations by prefix and port, the most specific first: the host's twin of the kernel's tables.

mod ports;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv6Net};

use crate::desired::Destination;

use ports::Ports;

/// IPv4 prefixes count from here, as in the kernel.
const V4_BITS: u8 = 96;

/// Values by destination.
#[derive(Debug)]
pub struct PrefixTable<V> {
    /// By length of the prefix, longest first, and network in IPv4-mapped form.
    by_length: BTreeMap<Reverse<u8>, HashMap<Ipv6Net, Ports<V>>>,
}

impl<V> Default for PrefixTable<V> {
    fn default() -> Self {
        Self { by_length: BTreeMap::new() }
    }
}

impl<V> PrefixTable<V> {
    /// The place of exactly this destination.
    pub fn entry(&mut self, destination: &Destination) -> &mut Option<V> {
        let prefix = mapped(destination.prefix);
        let values = self.by_length.entry(Reverse(prefix.prefix_len())).or_default();
        values.entry(prefix).or_default().entry(destination.port)
    }

    pub fn map<W>(self, mut f: impl FnMut(V) -> W) -> PrefixTable<W> {
        let mut convert = |values: HashMap<_, Ports<V>>| {
            values.into_iter().map(|(prefix, ports)| (prefix, ports.map(&mut f))).collect()
        };
        let by_length =
            self.by_length.into_iter().map(|(length, values)| (length, convert(values))).collect();
        PrefixTable { by_length }
    }

    /// The value with the longest prefix; of two with the same, the one that names the port.
    pub fn most_specific(&self, to: SocketAddr) -> Option<&V> {
        self.holding(to.ip())
            .find_map(|(_, ports)| ports.get(Some(to.port())).or_else(|| ports.get(None)))
    }

    /// True if one of the prefixes contains a destination without host bits, and both mean some port: the same, or either
    /// means every port.
    pub fn overlaps(&self, destination: &Destination) -> bool {
        self.holding(destination.prefix.addr()).any(|(_, ports)| match destination.port {
            Some(port) => ports.get(Some(port)).or_else(|| ports.get(None)).is_some(),
            None => ports.iter().next().is_some(),
        })
    }

    /// The longest prefixes that match, with the port named and with any port: their lengths and values.
    pub fn candidates(&self, to: SocketAddr) -> [Option<(u32, &V)>; 2] {
        [Some(to.port()), None].map(|port| {
            let mut holding = self.holding(to.ip());
            holding.find_map(|(length, ports)| Some((u32::from(length), ports.get(port)?)))
        })
    }

    pub fn destinations(&self) -> impl Iterator<Item = Destination> {
        self.by_length.values().flatten().flat_map(|(prefix, ports)| {
            ports.iter().map(|(port, _)| Destination { prefix: unmapped(*prefix), port })
        })
    }

    /// The prefixes that an address has, longest first.
    fn holding(&self, ip: IpAddr) -> impl Iterator<Item = (u8, &Ports<V>)> {
        self.by_length.iter().filter_map(move |(Reverse(length), values)| {
            Some((*length, values.get(&host(ip, *length))?))
        })
    }
}

/// Length of a prefix in the form in which both families share one table.
#[must_use]
pub fn mapped_length(prefix: &IpNet) -> u8 {
    mapped(*prefix).prefix_len()
}

fn mapped(prefix: IpNet) -> Ipv6Net {
    match prefix {
        IpNet::V6(prefix) => prefix,
        IpNet::V4(prefix) => {
            let length = V4_BITS + prefix.prefix_len();
            Ipv6Net::new_assert(prefix.addr().to_ipv6_mapped(), length)
        }
    }
}

fn unmapped(prefix: Ipv6Net) -> IpNet {
    match prefix.addr().to_ipv4_mapped() {
        Some(v4) if prefix.prefix_len() >= V4_BITS => {
            IpNet::new_assert(v4.into(), prefix.prefix_len() - V4_BITS)
        }
        _ => prefix.into(),
    }
}

/// The prefix of `length` bits that holds an address.
fn host(ip: IpAddr, length: u8) -> Ipv6Net {
    let ip = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    Ipv6Net::new_assert(ip, length).trunc()
}

#[cfg(test)]
mod tests;
