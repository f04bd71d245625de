//! Two agents, as an operator would set them up.

use std::path::PathBuf;

use sheath_tests::agent::{self, Agent};
use sheath_tests::config::{Peer, Reuse, Sessions, Workload};
use sheath_tests::place::Place;
use sheath_tests::world::{Family, World};

use crate::services::PORTS;

/// An agent's program, and what its configuration has besides.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The one under test, unless it is another.
    pub binary: Option<PathBuf>,
    /// Whether every connection has a handshake of its own.
    pub fresh: bool,
}

/// The workload on the server's node.
const SERVER: &str = "web";

/// Returns when both agents serve their workloads.
pub fn start(world: &World, variant: &Variant, client: &Place, server: &Place) -> [Agent; 2] {
    let base = |node| {
        let mut config = agent::config(world, node);
        if let Some(binary) = &variant.binary {
            config.binary.clone_from(binary);
        }
        // None of the proxies writes a line for each connection.
        config.log.level = "info,sheath::access=off";
        if variant.fresh {
            config.sessions = Sessions::reused(Reuse { per_workload: 0, ..Reuse::default() });
        }
        config
    };
    let (mut a, mut b) = (base(&world.a), base(&world.b));
    let of = |place: &Place| place.cgroup.relative();
    a.workloads = vec![Workload::new("client", &of(client)).outbound("prefer", &[])];
    let destination = format!("{}/32", world.b.addresses.of(Family::V4));
    a.peers = vec![Peer::new(&[&destination], &[SERVER])];
    let inbound = Workload::new(SERVER, &of(server)).inbound("strict", Some(&PORTS), &["client"]);
    b.workloads = vec![inbound];
    let agents = [Agent::start(world, &world.a, a), Agent::start(world, &world.b, b)];
    agents[0].wait_enrolled("client", client);
    agents[1].wait_enrolled(SERVER, server);
    agents
}
