//! Nodes: the ranges that their pods have addresses of, and the addresses of the nodes themselves.
//!
//! A node writes both into the API when it comes, so neither proves anything against another node.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// The ranges of all nodes (`spec.podCIDRs`), and their addresses. Where the network gives pods addresses in another way, nodes have
/// no ranges.
#[derive(Debug, Default)]
pub struct Nodes {
    ranges: HashMap<Arc<str>, Vec<IpNet>>,
    by_range: HashMap<IpNet, BTreeSet<Arc<str>>>,
    /// Lengths of prefixes that there are, or were.
    lengths: BTreeSet<u8>,
    addresses: HashMap<Arc<str>, BTreeSet<IpAddr>>,
    /// How many nodes say that it is theirs.
    by_address: HashMap<IpAddr, usize>,
}

/// Whose the range is that an address is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeOwner<'n> {
    Nobody,
    Node(&'n Arc<str>),
    /// Ranges of these nodes overlap there: nobody knows.
    Several(BTreeSet<&'n Arc<str>>),
}

/// The shortest prefix of a node's range: with a wider one a node would speak for everybody, and for the world outside.
const WIDEST: [u8; 2] = [12, 40];

impl Nodes {
    /// Returns the ranges of which that changes whose they are.
    pub fn set(&mut self, node: &Arc<str>, ranges: Vec<IpNet>) -> Vec<IpNet> {
        let is_fit = |range: &IpNet| range.prefix_len() >= WIDEST[usize::from(!is_v4(range))];
        let ranges: Vec<_> =
            ranges.iter().filter(|range| is_fit(range)).map(IpNet::trunc).collect();
        if self.ranges.get(node) == Some(&ranges) {
            return Vec::new();
        }
        let mut changed = self.remove_ranges(node);
        changed.extend(&ranges);
        for range in &ranges {
            self.by_range.entry(*range).or_default().insert(node.clone());
            self.lengths.insert(range.prefix_len());
        }
        self.ranges.insert(node.clone(), ranges);
        changed
    }

    /// Returns true if that changes anything.
    pub fn set_addresses(&mut self, node: &Arc<str>, addresses: BTreeSet<IpAddr>) -> bool {
        if self.addresses.get(node).map_or(addresses.is_empty(), |known| *known == addresses) {
            return false;
        }
        self.remove_addresses(node);
        for address in &addresses {
            *self.by_address.entry(*address).or_default() += 1;
        }
        self.addresses.insert(node.clone(), addresses);
        true
    }

    /// Returns the ranges that it had.
    pub fn remove(&mut self, node: &str) -> Vec<IpNet> {
        self.remove_addresses(node);
        self.remove_ranges(node)
    }

    fn remove_ranges(&mut self, node: &str) -> Vec<IpNet> {
        let ranges = self.ranges.remove(node).unwrap_or_default();
        for range in &ranges {
            if let Some(owners) = self.by_range.get_mut(range) {
                owners.remove(node);
                if owners.is_empty() {
                    self.by_range.remove(range);
                }
            }
        }
        ranges
    }

    fn remove_addresses(&mut self, node: &str) {
        for address in self.addresses.remove(node).unwrap_or_default() {
            if let Some(count) = self.by_address.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.by_address.remove(&address);
                }
            }
        }
    }

    /// The node whose pods have such addresses, if it is known.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> RangeOwner<'_> {
        let ranges = self.lengths.iter().filter_map(|length| {
            let range = IpNet::new(address, *length).ok()?.trunc();
            self.by_range.get(&range)
        });
        let mut owners: BTreeSet<_> = ranges.flatten().collect();
        match owners.len() {
            0 => RangeOwner::Nobody,
            1 => owners.pop_first().map_or(RangeOwner::Nobody, RangeOwner::Node),
            _ => RangeOwner::Several(owners),
        }
    }

    /// True for an address of pods, whichever node's.
    #[must_use]
    pub fn have_range_of(&self, address: IpAddr) -> bool {
        self.of(address) != RangeOwner::Nobody
    }

    /// True for an address that a node says is its own.
    #[must_use]
    pub fn are_at(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    pub fn ranges(&self) -> impl Iterator<Item = &IpNet> {
        self.ranges.values().flatten()
    }

    #[must_use]
    pub fn knows(&self, node: &str) -> bool {
        self.ranges.contains_key(node)
    }

    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.ranges.keys()
    }
}

fn is_v4(range: &IpNet) -> bool {
    range.addr().is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn of(nodes: &Nodes, ip: &str) -> String {
        match nodes.of(ip.parse().unwrap()) {
            RangeOwner::Nobody => "nobody".to_owned(),
            RangeOwner::Node(node) => node.to_string(),
            RangeOwner::Several(nodes) => {
                nodes.iter().map(|node| node.to_string()).collect::<Vec<_>>().join(" or ")
            }
        }
    }

    #[test]
    fn where_ranges_overlap_nobody_knows_whose_an_address_is() {
        let mut nodes = Nodes::default();
        let [a, b]: [Arc<str>; 2] = ["a", "b"].map(Into::into);
        assert_eq!(nodes.set(&a, ranges(&["10.1.0.0/16", "fd00::/64"])).len(), 2);
        assert!(nodes.set(&a, ranges(&["10.1.0.0/16", "fd00::/64"])).is_empty());
        assert_eq!(of(&nodes, "10.1.2.3"), "a");
        // A longer prefix proves nothing, nor does the same.
        for (range, at) in [("10.1.2.0/24", "10.1.2.3"), ("10.1.0.0/16", "10.1.9.9")] {
            assert!(nodes.set(&b, ranges(&[range])).contains(&range.parse().unwrap()));
            assert_eq!(of(&nodes, at), "a or b");
        }
        nodes.set(&b, ranges(&["10.1.2.0/24"]));
        assert_eq!(of(&nodes, "10.1.3.3"), "a");
        assert_eq!(of(&nodes, "fd00::7"), "a");
        assert_eq!(of(&nodes, "10.2.0.1"), "nobody");
        assert!(!nodes.remove("b").is_empty() && nodes.remove("b").is_empty());
        assert_eq!(of(&nodes, "10.1.2.3"), "a");
        assert!(nodes.knows("a") && !nodes.knows("b"));
    }

    #[test]
    fn a_node_does_not_speak_for_everybody() {
        let mut nodes = Nodes::default();
        let a: Arc<str> = "a".into();
        nodes.set(&a, ranges(&["0.0.0.0/0", "::/0", "10.0.0.0/8", "10.2.0.0/16"]));
        assert_eq!(nodes.ranges().copied().collect::<Vec<_>>(), ranges(&["10.2.0.0/16"]));
    }

    #[test]
    fn addresses_are_counted_by_node() {
        let mut nodes = Nodes::default();
        let [a, b]: [Arc<str>; 2] = ["a", "b"].map(Into::into);
        let at = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let is_there = |nodes: &Nodes| nodes.are_at("192.0.2.1".parse().unwrap());
        assert!(!nodes.set_addresses(&a, at(&[])));
        assert!(nodes.set_addresses(&a, at(&["192.0.2.1"])));
        assert!(!nodes.set_addresses(&a, at(&["192.0.2.1"])));
        assert!(nodes.set_addresses(&b, at(&["192.0.2.1", "192.0.2.2"])));
        nodes.remove("a");
        assert!(is_there(&nodes));
        assert!(nodes.set_addresses(&b, at(&["192.0.2.2"])));
        assert!(!is_there(&nodes));
    }
}
