//! The ways from a client to a server that are compared.

mod envoy;
mod haproxy;
mod hop;
mod nginx;
mod relay;
mod sheath;
mod stunnel;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sheath_tests::agent::Agent;
use sheath_tests::interop::Program;
use sheath_tests::place::{Place, Process};
use sheath_tests::world::{Family, World};

pub use hop::{Credentials, Hop, Side};
pub use sheath::Variant;

use crate::process;
use crate::services::{Services, wire_port};

/// A contender, before anything of it runs.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub kind: Kind,
    /// Whether it takes part in a quick run.
    pub quick: bool,
    /// Only plays what opens new connections.
    pub connections_only: bool,
}

/// What stands between client and server.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing.
    Direct,
    /// The same proxy on both nodes.
    Proxies(&'static Proxy),
    /// An agent on both nodes.
    Agents(Variant),
}

/// How to start a proxy, and what it does with the wire.
#[derive(Debug)]
pub struct Proxy {
    pub name: &'static str,
    pub start: fn(&Hop<'_>) -> Result<Program>,
    pub encrypts: bool,
    /// Whether keys are agreed on as between agents, in X25519MLKEM768, and not in X25519.
    pub hybrid: bool,
}

pub const DIRECT: &str = "direct";
pub const RELAY: &str = "relay";
pub const SHEATH: &str = "sheath";
/// Sheath with a handshake for each connection, where it would otherwise reuse a session.
pub const SHEATH_FRESH: &str = "sheath-fresh";
pub const ENVOY: &str = "envoy";

static PROXIES: [Proxy; 5] = [
    Proxy { name: RELAY, start: relay::start, encrypts: false, hybrid: false },
    Proxy { name: ENVOY, start: envoy::start, encrypts: true, hybrid: false },
    Proxy { name: "stunnel", start: stunnel::start, encrypts: true, hybrid: false },
    Proxy { name: "haproxy", start: haproxy::start, encrypts: true, hybrid: false },
    Proxy { name: "nginx", start: nginx::start, encrypts: true, hybrid: false },
];

/// Shows how much of a fresh handshake's cost is that of the group.
static ENVOY_HYBRID: Proxy =
    Proxy { name: "envoy-hybrid", start: envoy::start_hybrid, encrypts: true, hybrid: true };

/// Every contender, agents of other binaries included.
pub fn roster(variants: &[(String, PathBuf)]) -> Vec<Entry> {
    let entry = |name: &str, kind, quick| {
        let name = name.to_owned();
        Entry { name, kind, quick, connections_only: false }
    };
    let proxy = |proxy: &'static Proxy| {
        entry(proxy.name, Kind::Proxies(proxy), [RELAY, ENVOY].contains(&proxy.name))
    };
    let [relay, others @ ..] = &PROXIES;
    let agents = |binary, fresh| Kind::Agents(Variant { binary, fresh });
    let mut all = vec![entry(DIRECT, Kind::Direct, true), proxy(relay)];
    all.push(entry(SHEATH, agents(None, false), true));
    for (name, binary) in variants {
        all.push(entry(name, agents(Some(binary.clone()), false), true));
    }
    let fresh = entry(SHEATH_FRESH, agents(None, true), true);
    all.push(Entry { connections_only: true, ..fresh });
    all.extend(others.iter().map(proxy));
    all.push(Entry { connections_only: true, ..proxy(&ENVOY_HYBRID) });
    all
}

/// A contender at work in a world of its own. Fields are dropped in this order: what runs in a world before the world.
pub struct Contender {
    pub entry: Entry,
    /// Where clients run.
    pub client: Place,
    /// Where clients find the services.
    pub address: IpAddr,
    middle: Middle,
    _services: Services,
    // Without a process in it, a place is no workload.
    _resident: Process,
    pub world: World,
}

/// What runs between client and server, the client's side first.
enum Middle {
    Nothing,
    Proxies(Box<([Program; 2], Credentials)>),
    Agents(Box<[Agent; 2]>),
}

pub const SIDES: [Side; 2] = [Side::Client, Side::Server];

impl Contender {
    /// Returns when everything listens.
    ///
    /// # Errors
    /// If something of it cannot be set up.
    pub fn start(entry: &Entry) -> Result<Self> {
        let world = World::new();
        for node in [&world.a, &world.b] {
            // Thousands of connections a second, each of which leaves its port in TIME-WAIT for a minute.
            node.netns.sysctl("ipv4/tcp_tw_reuse", "1");
            node.netns.sysctl("ipv4/ip_local_port_range", "16000 65000");
        }
        let (client, server) = (world.a.host("client"), world.b.host("web"));
        let mut sleep = client.command("sleep");
        let resident = client.spawn(sleep.arg("infinity"));
        let services = Services::start(&server, world.dir.path())?;
        let middle = match &entry.kind {
            Kind::Direct => Middle::Nothing,
            Kind::Agents(variant) => {
                Middle::Agents(Box::new(sheath::start(&world, variant, &client, &server)))
            }
            Kind::Proxies(proxy) => {
                let credentials = Credentials::issue(&world)?;
                Middle::Proxies(Box::new((
                    start_proxies(&world, proxy, &credentials)?,
                    credentials,
                )))
            }
        };
        let address = match middle {
            Middle::Proxies(_) => Ipv4Addr::LOCALHOST.into(),
            Middle::Nothing | Middle::Agents(_) => world.b.addresses.of(Family::V4),
        };
        let entry = entry.clone();
        Ok(Self { entry, client, address, middle, _services: services, _resident: resident, world })
    }

    /// Where clients find a service.
    pub fn target(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// Where a service's connections cross the wire to.
    pub fn on_wire(&self, port: u16) -> SocketAddr {
        let port = match self.middle {
            Middle::Proxies(_) => wire_port(port),
            Middle::Nothing | Middle::Agents(_) => port,
        };
        self.world.b.addresses.at(Family::V4, port)
    }

    pub fn encrypts(&self) -> bool {
        match &self.entry.kind {
            Kind::Direct => false,
            Kind::Proxies(proxy) => proxy.encrypts,
            Kind::Agents(_) => true,
        }
    }

    /// Whether keys are agreed on in X25519MLKEM768.
    pub fn is_hybrid(&self) -> bool {
        match &self.entry.kind {
            Kind::Direct => false,
            Kind::Proxies(proxy) => proxy.hybrid,
            Kind::Agents(_) => true,
        }
    }

    /// The processes of one side; none if nothing stands in between.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn processes(&self, side: Side) -> Result<Vec<u32>> {
        match &self.middle {
            Middle::Nothing => Ok(Vec::new()),
            Middle::Proxies(pair) => process::family(pair.0[side as usize].pid()),
            Middle::Agents(agents) => process::family(agents[side as usize].pid()),
        }
    }

    /// The agent on the client's node.
    pub fn agent(&mut self) -> Option<&mut Agent> {
        match &mut self.middle {
            Middle::Agents(agents) => Some(&mut agents[Side::Client as usize]),
            Middle::Nothing | Middle::Proxies(_) => None,
        }
    }

    /// What a pair of proxies shows to each other.
    pub fn credentials(&self) -> Option<&Credentials> {
        match &self.middle {
            Middle::Proxies(pair) => Some(&pair.1),
            Middle::Nothing | Middle::Agents(_) => None,
        }
    }

    /// Runs a client to its end.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn run_client(&self, command: &mut Command) -> Result<String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = command.output().with_context(|| format!("cannot start {name}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let problem = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{name} failed ({}): {}\n{}",
            output.status,
            problem.trim(),
            text.trim()
        );
        Ok(text)
    }
}

fn start_proxies(world: &World, proxy: &Proxy, credentials: &Credentials) -> Result<[Program; 2]> {
    let start = |side: Side| -> Result<Program> {
        let hop = Hop::new(world, side, credentials)?;
        let program = (proxy.start)(&hop)?;
        for way in hop.ways() {
            hop.place.wait_listening(way.listen.port());
        }
        Ok(program)
    };
    let server = start(Side::Server)?;
    Ok([start(Side::Client)?, server])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::PORTS;

    #[test]
    fn ports_of_services_and_of_their_proxies_do_not_collide() {
        let mut ports: Vec<u16> = PORTS.iter().flat_map(|&port| [port, wire_port(port)]).collect();
        ports.push(crate::services::BESIDE);
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 2 * PORTS.len() + 1);
    }
}
