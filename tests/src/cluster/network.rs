//! The network of a cluster: a bridge on the control plane's machine, which every machine is plugged into, and routes to
//! the pods of each node.
//!
//! ```text
//!            control-plane 10.0.0.1 (bridge)
//!                 │                 │
//!  node-a 10.0.0.11 ─eth0     eth0─ node-b 10.0.0.12
//!    │ veth of each pod             │ veth of each pod
//!  10.244.1.N                     10.244.2.N
//! ```

use super::machine::Machine;
use super::names::{NODES, NodeName, WIRE, control_plane};

const BRIDGE: &str = "nodes";

/// Joins the machines.
pub fn join(control: &Machine, nodes: &[(NodeName, Machine)]) {
    let own = control_plane();
    control.netns.ip(&format!(
        "link add {BRIDGE} type bridge
         link set {BRIDGE} up
         addr add {}/24 dev {BRIDGE}
         addr add {}/64 dev {BRIDGE} nodad\n",
        own.v4, own.v6
    ));
    for (name, machine) in nodes {
        let addresses = name.addresses();
        let port = name.as_str();
        control.netns.ip(&format!(
            "link add {port} type veth peer name {WIRE} netns {}
             link set {port} master {BRIDGE} up\n",
            machine.netns.path()
        ));
        machine.netns.sysctl("ipv4/ip_forward", "1");
        machine.netns.sysctl("ipv6/conf/all/forwarding", "1");
        machine.netns.ip(&format!(
            "link set {WIRE} up
             addr add {}/24 dev {WIRE}
             addr add {}/64 dev {WIRE} nodad
             route add default via {}
             route add default via {}\n",
            addresses.v4, addresses.v6, own.v4, own.v6
        ));
        machine.netns.ip(&routes(Some(*name)));
    }
    control.netns.ip(&routes(None));
}

/// To the pods of every node but this one.
fn routes(own: Option<NodeName>) -> String {
    let others = NODES.into_iter().filter(|node| Some(*node) != own);
    let routes = others.map(|node| {
        let ((v4, v6), via) = (node.pods(), node.addresses());
        format!("route add {v4} via {}\nroute add {v6} via {}\n", via.v4, via.v6)
    });
    routes.collect()
}
