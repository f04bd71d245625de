//! Ranges of the cluster that are no node's: of Services.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// Ranges that Services have their cluster addresses of.
#[derive(Debug, Default)]
pub struct ServiceRanges {
    /// What the settings say.
    written: Vec<IpNet>,
    /// By ServiceCIDR.
    known: HashMap<Arc<str>, Vec<IpNet>>,
}

impl ServiceRanges {
    #[must_use]
    pub fn new(written: &[IpNet]) -> Self {
        Self { written: written.iter().map(IpNet::trunc).collect(), known: HashMap::new() }
    }

    /// Returns the ranges that have come or gone.
    pub fn set(&mut self, name: &str, ranges: Vec<IpNet>) -> Vec<IpNet> {
        if self.known.get(name) == Some(&ranges) {
            return Vec::new();
        }
        let now = ranges.clone();
        let mut changed = self.known.insert(name.into(), ranges).unwrap_or_default();
        changed.extend(now);
        changed
    }

    /// Returns the ranges that have gone.
    pub fn remove(&mut self, name: &str) -> Vec<IpNet> {
        self.known.remove(name).unwrap_or_default()
    }

    /// These are all objects. Returns the ranges that have gone.
    pub fn keep(&mut self, all: &HashSet<Arc<str>>) -> Vec<IpNet> {
        let gone = self.known.extract_if(|name, _| !all.contains(name));
        gone.flat_map(|(_, ranges)| ranges).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.written.iter().chain(self.known.values().flatten())
    }

    #[must_use]
    pub fn are_known(&self) -> bool {
        self.iter().next().is_some()
    }

    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.iter().any(|range| range.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_and_go_with_their_objects() {
        let range = |text: &str| -> IpNet { text.parse().unwrap() };
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let mut ranges = ServiceRanges::new(&[]);
        assert!(!ranges.are_known());
        let [one, other] = ["10.96.0.0/16", "fd00::/112"].map(range);
        assert_eq!(ranges.set("kubernetes", vec![one]), [one]);
        assert!(ranges.set("kubernetes", vec![one]).is_empty());
        assert_eq!(ranges.set("more", vec![other]), [other]);
        assert!(ranges.contain(ip("10.96.7.7")) && ranges.contain(ip("fd00::9")));
        assert!(!ranges.contain(ip("10.97.0.1")));
        assert_eq!(ranges.set("more", vec![one]), [other, one]);
        assert_eq!(ranges.keep(&["more".into()].into()), [one]);
        assert!(ranges.contain(ip("10.96.7.7")));
        assert_eq!(ranges.remove("more"), [one]);
        assert!(!ranges.contain(ip("10.96.7.7")));
        assert!(ServiceRanges::new(&[one]).contain(ip("10.96.7.7")));
    }
}
