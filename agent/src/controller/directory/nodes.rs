//! Nodes, and the ranges that their pods have addresses of.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// The ranges of all nodes (`spec.podCIDRs`). Where the network gives pods addresses in another way, nodes have none.
#[derive(Debug, Default)]
pub struct Nodes {
    ranges: HashMap<Arc<str>, Vec<IpNet>>,
    by_range: HashMap<IpNet, Arc<str>>,
    /// Lengths of prefixes that there are.
    lengths: BTreeSet<u8>,
}

impl Nodes {
    /// Returns the ranges of which that changes whose they are.
    pub fn set(&mut self, node: &Arc<str>, ranges: Vec<IpNet>) -> Vec<IpNet> {
        if self.ranges.get(node) == Some(&ranges) {
            return Vec::new();
        }
        let mut changed = self.remove(node);
        changed.extend(&ranges);
        for range in &ranges {
            self.by_range.insert(*range, node.clone());
            self.lengths.insert(range.prefix_len());
        }
        self.ranges.insert(node.clone(), ranges);
        changed
    }

    /// Returns the ranges that it had.
    pub fn remove(&mut self, node: &str) -> Vec<IpNet> {
        let ranges = self.ranges.remove(node).unwrap_or_default();
        for range in &ranges {
            // A range that two nodes have is the last one's.
            if self.by_range.get(range).is_some_and(|owner| &**owner == node) {
                self.by_range.remove(range);
            }
        }
        ranges
    }

    /// The node whose pods have such addresses, if it is known.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.lengths.iter().rev().find_map(|length| {
            let range = IpNet::new(address, *length).ok()?.trunc();
            self.by_range.get(&range)
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_the_node_with_the_longest_range() {
        let mut nodes = Nodes::default();
        let [a, b]: [Arc<str>; 2] = ["a", "b"].map(Into::into);
        let ranges =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(nodes.set(&a, ranges(&["10.1.0.0/16", "fd00::/64"])).len(), 2);
        assert!(nodes.set(&a, ranges(&["10.1.0.0/16", "fd00::/64"])).is_empty());
        assert_eq!(nodes.set(&b, ranges(&["10.1.2.0/24"])), ranges(&["10.1.2.0/24"]));
        let of = |nodes: &Nodes, ip: &str| nodes.of(ip.parse().unwrap()).map(|n| n.to_string());
        assert_eq!(of(&nodes, "10.1.2.3").as_deref(), Some("b"));
        assert_eq!(of(&nodes, "10.1.3.3").as_deref(), Some("a"));
        assert_eq!(of(&nodes, "fd00::7").as_deref(), Some("a"));
        assert_eq!(of(&nodes, "10.2.0.1"), None);
        assert!(!nodes.remove("b").is_empty() && nodes.remove("b").is_empty());
        assert_eq!(of(&nodes, "10.1.2.3").as_deref(), Some("a"));
    }
}
