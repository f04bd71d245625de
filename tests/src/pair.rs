//! The usual scene: a client workload on node A, a server workload on node B, an agent on each.

use std::net::SocketAddr;

use crate::agent::{self, Agent};
use crate::config::{Config, Peer, Workload};
use crate::place::Place;
use crate::probe::{self, Probe};
use crate::script::{Connection, Job, ListenerOptions, Socket, Step};
use crate::world::{Addresses, Family, Pod, World};

/// The port of the server workload that is protected.
pub const PORT: u16 = 8080;

/// Where the workloads live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// In their node's own namespace.
    Host,
    /// In pods with a namespace each.
    Pods,
}

pub const SETTINGS: [Setting; 2] = [Setting::Host, Setting::Pods];

/// Two agents and the places of the workloads `client` (on A, outbound require) and `web` (on B,
/// inbound strict, allows `client`).
///
/// Fields are dropped in this order: agents before the world they run in.
pub struct Pair {
    pub agent_a: Agent,
    pub agent_b: Agent,
    pub client: Place,
    pub server: Place,
    /// The client's and the server's own addresses.
    pub client_addresses: Addresses,
    pub server_addresses: Addresses,
    // Without a process, there is no workload.
    _residents: [Probe; 2],
    _pods: Option<(Pod, Pod)>,
    pub world: World,
}

impl Pair {
    pub fn new(setting: Setting) -> Self {
        Self::with(setting, |_, _| {})
    }

    pub fn host() -> Self {
        Self::new(Setting::Host)
    }

    /// The usual scene with changes to the configurations of A and B.
    #[track_caller]
    pub fn with(setting: Setting, change: impl FnOnce(&mut Config, &mut Config)) -> Self {
        Self::with_world(setting, |_, a, b| change(a, b))
    }

    /// The same, of what is made in the world before agents start.
    #[track_caller]
    pub fn with_world(
        setting: Setting,
        change: impl FnOnce(&World, &mut Config, &mut Config),
    ) -> Self {
        let world = World::new();
        let pods = (setting == Setting::Pods).then(|| (world.a.pod(2), world.b.pod(2)));
        let (client, server) = (world.a.host("client"), world.b.host("web"));
        let (client, server, client_addresses, server_addresses) = match &pods {
            None => (client, server, world.a.addresses, world.b.addresses),
            Some((a, b)) => (
                Place::new(&a.netns, &client.cgroup),
                Place::new(&b.netns, &server.cgroup),
                a.addresses,
                b.addresses,
            ),
        };
        let (mut a, mut b) = configs(&world, setting);
        change(&world, &mut a, &mut b);
        let residents = [&client, &server].map(|place| Probe::start(place, &Job::Idle));
        let agent_a = Agent::start(&world, &world.a, a);
        let agent_b = Agent::start(&world, &world.b, b);
        agent_a.wait_enrolled("client", &client);
        agent_b.wait_enrolled("web", &server);
        Self {
            agent_a,
            agent_b,
            client,
            server,
            client_addresses,
            server_addresses,
            _residents: residents,
            _pods: pods,
            world,
        }
    }

    /// The protected address of the server.
    pub fn target(&self, family: Family) -> SocketAddr {
        self.server_addresses.at(family, PORT)
    }

    /// Starts the server workload's application: `steps` on every connection to [`PORT`].
    #[track_caller]
    pub fn serve(&self, family: Family, steps: &[Step]) -> Probe {
        Probe::start(&self.server, &server(any(family, PORT), steps))
    }

    /// A new connection reaches the echo of the server workload.
    #[track_caller]
    pub fn assert_served(&self) {
        let seen = self.connect(self.target(Family::V4), &say("hello"));
        assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, "hello"), "{seen:?}");
    }

    /// A new connection is reset.
    #[track_caller]
    pub fn assert_refused(&self) {
        let seen = self.connect(self.target(Family::V4), &say("hello"));
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
        assert_eq!(seen.last().text, "", "{seen:?}");
    }

    /// Runs a client of the client workload to its end.
    #[track_caller]
    pub fn connect(&self, to: SocketAddr, steps: &[Step]) -> Connection {
        probe::run(&self.client, &client(to, steps))
    }
}

/// The configurations of the usual scene.
pub fn configs(world: &World, setting: Setting) -> (Config, Config) {
    let (mut a, mut b) = (agent::config(world, &world.a), agent::config(world, &world.b));
    let ports: Option<&[u16]> = match setting {
        Setting::Host => Some(&[PORT]),
        Setting::Pods => None,
    };
    a.workloads = vec![client_workload(world)];
    a.peers = vec![Peer::new(&SERVER_NETWORKS, &["web"])];
    b.workloads =
        vec![Workload::new("web", &format!("{}/web*", world.b.cgroup.relative())).inbound(
            "strict",
            ports,
            &["client"],
        )];
    (a, b)
}

/// Where the server workload may be: node B's own address, and its pods.
pub const SERVER_NETWORKS: [&str; 4] =
    ["10.0.2.0/24", "10.1.2.0/24", "fd00::2:0/112", "fd01::2:0/112"];

/// The client workload of the usual scene.
pub fn client_workload(world: &World) -> Workload {
    Workload::new("client", &format!("{}/client*", world.a.cgroup.relative()))
        .outbound("require", &[])
}

/// A plain client.
pub fn client(to: SocketAddr, steps: &[Step]) -> Job {
    Job::Client { socket: Socket::default(), to, steps: steps.to_vec() }
}

/// A plain server.
pub fn server(listen: SocketAddr, steps: &[Step]) -> Job {
    Job::Server { listen, socket: ListenerOptions::default(), steps: steps.to_vec() }
}

/// The unspecified address.
pub fn any(family: Family, port: u16) -> SocketAddr {
    let address = match family {
        Family::V4 => "0.0.0.0",
        Family::V6 => "::",
    };
    SocketAddr::new(address.parse().unwrap(), port)
}

pub fn send(text: &str) -> Step {
    Step::Send(text.to_owned())
}

/// The client's side of an echo: sends `text`, ends sending, and receives to the end.
pub fn say(text: &str) -> Vec<Step> {
    vec![send(text), Step::EndSending, Step::ReceiveToEnd]
}

/// The client's side of an echo that lives through whatever happens while it pauses: hears `ab` before, and `cd`
/// at last.
pub fn living() -> Vec<Step> {
    vec![
        send("ab"),
        Step::Receive(2),
        Step::Pause,
        send("cd"),
        Step::EndSending,
        Step::ReceiveToEnd,
    ]
}
