//! Destinations by prefix and port, the most specific first: the host's twin of the kernel's trie.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv6Net};

use crate::desired::Destination;

/// IPv4 prefixes count from here, as in the kernel.
const V4_BITS: u8 = 96;

/// A network in IPv4-mapped form, and a port if only one is meant.
pub type Key = (Ipv6Net, Option<u16>);

/// Values by destination.
#[derive(Debug)]
pub struct PrefixTable<V> {
    /// By length of the prefix, longest first.
    by_length: BTreeMap<Reverse<u8>, HashMap<Key, V>>,
}

impl<V> Default for PrefixTable<V> {
    fn default() -> Self {
        Self { by_length: BTreeMap::new() }
    }
}

impl<V> PrefixTable<V> {
    /// The place of exactly this destination.
    pub fn entry(&mut self, destination: &Destination) -> Entry<'_, Key, V> {
        let prefix = mapped(destination.prefix);
        let values = self.by_length.entry(Reverse(prefix.prefix_len())).or_default();
        values.entry((prefix, destination.port))
    }

    pub fn map<W>(self, f: impl Fn(V) -> W) -> PrefixTable<W> {
        let convert = |values: HashMap<_, V>| values.into_iter().map(|(k, v)| (k, f(v))).collect();
        let by_length =
            self.by_length.into_iter().map(|(length, values)| (length, convert(values))).collect();
        PrefixTable { by_length }
    }

    /// The value with the longest prefix; of two with the same, the one that names the port.
    pub fn most_specific(&self, to: SocketAddr) -> Option<&V> {
        self.by_length.iter().find_map(|(Reverse(length), values)| {
            let prefix = host(to.ip(), *length);
            values.get(&(prefix, Some(to.port()))).or_else(|| values.get(&(prefix, None)))
        })
    }

    /// True if a destination without host bits is behind one of the prefixes, by the same port or any: of two that
    /// both leave the port open, or of which one does, some connections would be meant by both.
    pub fn overlaps(&self, destination: &Destination) -> bool {
        let address = destination.prefix.addr();
        self.by_length.iter().any(|(Reverse(length), values)| {
            let prefix = host(address, *length);
            match destination.port {
                Some(port) => {
                    values.contains_key(&(prefix, Some(port)))
                        || values.contains_key(&(prefix, None))
                }
                None => values.keys().any(|(known, _)| *known == prefix),
            }
        })
    }

    /// The longest prefixes that match, with the port named and with any port: their lengths and values.
    pub fn candidates(&self, to: SocketAddr) -> [Option<(u32, &V)>; 2] {
        [Some(to.port()), None].map(|port| {
            self.by_length.iter().find_map(|(Reverse(length), values)| {
                let value = values.get(&(host(to.ip(), *length), port))?;
                Some((u32::from(*length), value))
            })
        })
    }

    pub fn destinations(&self) -> impl Iterator<Item = Destination> {
        self.by_length
            .values()
            .flat_map(HashMap::keys)
            .map(|(prefix, port)| Destination { prefix: unmapped(*prefix), port: *port })
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
