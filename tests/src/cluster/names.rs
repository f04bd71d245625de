//! What things of a cluster are called, and their addresses. They are the same in every cluster: clusters do not see one
//! another.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};

use crate::world::Addresses;

/// Services have addresses of these; the first ones are the API server's.
pub const SERVICES: (&str, &str) = ("10.96.0.0/16", "fd00:96::/112");

/// The API server as a Service.
pub const API_SERVICE: Addresses = Addresses {
    v4: Ipv4Addr::new(10, 96, 0, 1),
    v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 1),
};

/// Where the cluster's DNS server is, once it is [deployed](super::dns): pods' `resolv.conf` names it.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// All pods, of all nodes.
pub const PODS: (&str, &str) = ("10.244.0.0/16", "fd00:244::/48");

pub const CONTROL_PLANE: &str = "control-plane";
pub const API_PORT: u16 = 6443;

/// The interface of each machine that leads to the others.
pub const WIRE: &str = "eth0";

/// A node of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// From 1 on.
    number: u8,
}

/// Both nodes.
pub const NODES: [NodeName; 2] = [NodeName { number: 1 }, NodeName { number: 2 }];

impl NodeName {
    /// As Kubernetes knows it.
    pub fn as_str(self) -> &'static str {
        if self.number == 1 { "node-a" } else { "node-b" }
    }

    /// What other machines reach it at.
    pub fn addresses(self) -> Addresses {
        machine(10 + self.number)
    }

    /// The ranges that its pods' addresses are from.
    pub fn pods(self) -> (String, String) {
        (format!("10.244.{}.0/24", self.number), format!("fd00:244:0:{:x}::/64", self.number))
    }
}

/// The addresses of the machine that the control plane runs on.
pub fn control_plane() -> Addresses {
    machine(1)
}

fn machine(number: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(10, 0, 0, number),
        v6: Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, number.into()),
    }
}

/// The cgroup of a whole cluster, below the root of every hierarchy.
pub fn cgroup(cluster: &str) -> String {
    format!("sheath-cluster-{cluster}")
}

/// The instance of a node's agent: what its pins are called.
pub fn instance(cluster: &str, node: NodeName) -> String {
    format!("{cluster}-{}", node.as_str())
}

/// Checks what somebody wants a cluster to be called.
///
/// # Errors
/// When it could not be part of a path, or would make paths of sockets too long.
pub fn check(cluster: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        (1..=20).contains(&cluster.len())
            && cluster.chars().all(is_plain)
            && !cluster.starts_with('-'),
        "`{cluster}` cannot be a cluster's name: up to 20 of a-z, 0-9 and `-`, and no `-` in front"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plain_part_of_a_path() {
        for good in ["dev", "t-2", "0"] {
            check(good).unwrap();
        }
        for bad in ["", "-x", "..", "a/b", "A", "a b", "abcdefghijklmnopqrstu"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
