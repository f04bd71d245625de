//! Two nodes joined by one veth pair, and nothing else.
//!
//! ```text
//!  node-a 10.0.1.1 ─wire──────wire─ node-b 10.0.2.1
//!    │ podN                           │ podN
//!  eth0 10.1.1.N                    eth0 10.1.2.N
//! ```
//! The same addresses in every world: worlds do not see one another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;

use crate::ca::Ca;
use crate::cgroup::Cgroup;
use crate::names;
use crate::netns::NetNs;
use crate::place::Place;
use crate::tap::Tap;

pub const TRUST_DOMAIN: &str = "example.org";

/// The interface of each node that leads to the other one.
pub const WIRE: &str = "wire";

/// IPv4 or IPv6, for scenarios that must hold for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The two addresses of a node or pod.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Addresses {
    pub fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    pub fn at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.of(family), port)
    }
}

/// A node: a namespace with an agent's and some workloads' cgroups.
pub struct Node {
    /// `node-a` or `node-b`.
    pub name: &'static str,
    pub netns: Arc<NetNs>,
    pub cgroup: Arc<Cgroup>,
    /// What the other node uses to reach this one.
    pub addresses: Addresses,
    /// Further addresses of this node, which no configuration here calls a peer and from which no
    /// connection starts unless it is bound to them.
    pub extra: Addresses,
    number: u8,
}

impl Node {
    fn new(number: u8, parent: &Arc<Cgroup>) -> Self {
        let name = if number == 1 { "node-a" } else { "node-b" };
        let netns = Arc::new(NetNs::new());
        netns.sysctl("ipv4/ip_forward", "1");
        netns.sysctl("ipv6/conf/all/forwarding", "1");
        Self {
            name,
            netns,
            cgroup: parent.child(name),
            addresses: Addresses {
                v4: Ipv4Addr::new(10, 0, number, 1),
                v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, number.into(), 1),
            },
            extra: Addresses {
                v4: Ipv4Addr::new(10, 0, 90 + number, 9),
                v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x90 + u16::from(number), 9),
            },
            number,
        }
    }

    /// A place in the node's own namespace: what a systemd unit or a host-network pod has.
    pub fn host(&self, cgroup: &str) -> Place {
        Place::new(&self.netns, &self.cgroup.child(cgroup))
    }

    /// A new pod: a namespace with `eth0`, routed through this node. `index` from 2 to 254.
    pub fn pod(&self, index: u8) -> Pod {
        let addresses = Addresses {
            v4: Ipv4Addr::new(10, 1, self.number, index),
            v6: Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, self.number.into(), index.into()),
        };
        let Addresses { v4, v6 } = addresses;
        let netns = Arc::new(NetNs::new());
        self.netns.ip(&format!(
            "link add pod{index} type veth peer name eth0 netns {}
             link set pod{index} up
             addr add 10.255.0.1/32 dev pod{index}
             addr add fe80::1/64 dev pod{index}\n",
            netns.path()
        ));
        netns.ip(&format!(
            "link set eth0 up
             addr add {v4}/32 dev eth0
             addr add {v6}/128 dev eth0
             route add 10.255.0.1 dev eth0 scope link
             route add default via 10.255.0.1
             route add default via fe80::1 dev eth0\n"
        ));
        self.netns.ip(&format!(
            "route add {v4}/32 dev pod{index}
             route add {v6}/128 dev pod{index}\n"
        ));
        Pod { netns, addresses }
    }
}

/// A pod's namespace and addresses.
pub struct Pod {
    pub netns: Arc<NetNs>,
    pub addresses: Addresses,
}

/// Two nodes, their certificate authority, and a directory for what the agents write.
pub struct World {
    pub name: String,
    pub a: Node,
    pub b: Node,
    pub dir: Arc<TempDir>,
    ca: OnceLock<Ca>,
}

impl World {
    pub fn new() -> Self {
        let name = names::unique();
        let dir = tempfile::Builder::new().prefix(&name).tempdir().expect("a temporary directory");
        let top = Cgroup::top(&name);
        let (a, b) = (Node::new(1, &top), Node::new(2, &top));
        a.netns
            .ip(&format!("link add {WIRE} type veth peer name {WIRE} netns {}\n", b.netns.path()));
        for (node, other) in [(&a, &b), (&b, &a)] {
            node.netns.ip(&node_commands(node, other));
        }
        Self { name, a, b, dir: Arc::new(dir), ca: OnceLock::new() }
    }

    /// The certificate authority both agents load, made by `sheath ca init` on first use.
    pub fn ca(&self) -> &Ca {
        self.ca.get_or_init(|| Ca::init(&self.dir.path().join("ca"), TRUST_DOMAIN))
    }

    /// A tap on the wire between the nodes.
    pub fn tap(&self) -> Tap {
        Tap::new(&self.a.netns, WIRE)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// Addresses and routes of one node. The extra addresses are deprecated (`preferred_lft 0`) so
/// that the kernel never chooses them as a source.
fn node_commands(node: &Node, other: &Node) -> String {
    let Addresses { v4, v6 } = node.addresses;
    let extra = node.extra;
    let via = other.addresses;
    let n = other.number;
    format!(
        "link set {WIRE} up
         addr add {v4}/16 dev {WIRE}
         addr add {v6}/64 dev {WIRE}
         addr add {}/32 dev {WIRE}
         addr add {}/128 dev {WIRE} preferred_lft 0
         route add 10.1.{n}.0/24 via {}
         route add fd01::{n:x}:0/112 via {}\n",
        extra.v4, extra.v6, via.v4, via.v6
    )
}
