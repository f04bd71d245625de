//! Two nodes: curl and redis-cli on one, nginx and redis-server on the other.

use std::net::SocketAddr;
use std::process::Stdio;

use sheath_tests::agent::{self, Agent};
use sheath_tests::config::{Peer, Workload};
use sheath_tests::names::marker;
use sheath_tests::place::Place;
use sheath_tests::programs::{Nginx, Redis};
use sheath_tests::world::{Family, World};

pub const HTTP: u16 = 8080;
pub const REDIS: u16 = 6379;

/// The programs, before any agent runs.
pub struct Prelude {
    pub client: Place,
    pub nginx: Nginx,
    _redis: Redis,
    /// The text that no packet may contain.
    pub secret: String,
    pub world: World,
}

impl Prelude {
    pub fn new() -> Self {
        let world = World::new();
        let secret = marker();
        let dir = world.dir.path();
        let nginx = Nginx::start(&world.b.host("web"), &dir.join("nginx"), HTTP, &secret);
        let redis = Redis::start(&world.b.host("cache"), &dir.join("redis"), REDIS);
        Self { client: world.a.host("client"), nginx, _redis: redis, secret, world }
    }

    pub fn http(&self, family: Family) -> SocketAddr {
        self.world.b.addresses.at(family, HTTP)
    }

    /// Fetches nginx's page as `place` would.
    pub fn curl(&self, place: &Place, from: SocketAddr) -> Fetch {
        const WRITE_OUT: &str = "\n%{local_ip} %{local_port} %{remote_ip} %{remote_port}";
        let mut command = place.command("curl");
        command.args(["-sS", "--max-time", "10", "-w", WRITE_OUT]).arg(format!("http://{from}/"));
        let output = place.output(command.stdin(Stdio::null()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, addresses) = text.rsplit_once('\n').unwrap_or_default();
        let words: Vec<_> = addresses.split(' ').collect();
        let address = |at: usize| {
            Some(SocketAddr::new(words.get(at)?.parse().ok()?, words.get(at + 1)?.parse().ok()?))
        };
        Fetch {
            page: body.trim().to_owned(),
            bytes: body.len(),
            local: address(0),
            remote: address(2),
            error: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }
    }

    /// Runs one redis command as the client.
    pub fn redis(&self, words: &[&str]) -> String {
        let server = self.world.b.addresses.v4.to_string();
        let mut command = self.client.command("redis-cli");
        command.args(["-h", &server, "-p", &REDIS.to_string()]).args(words);
        let output = self.client.output(command.stdin(Stdio::null()));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// What one run of curl saw.
pub struct Fetch {
    pub page: String,
    pub bytes: usize,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    /// curl's own words, if it failed.
    pub error: String,
}

/// The same with an agent on each node.
pub struct Scene {
    pub agent_a: Agent,
    pub agent_b: Agent,
    pub prelude: Prelude,
}

impl Scene {
    pub fn new(prelude: Prelude) -> Self {
        let Prelude { world, .. } = &prelude;
        let mut a = agent::config(world, &world.a);
        let mut b = agent::config(world, &world.b);
        let cgroup =
            |node: &sheath_tests::world::Node, name| format!("{}/{name}", node.cgroup.relative());
        a.workloads =
            vec![Workload::new("client", &cgroup(&world.a, "client")).outbound("require", &[])];
        a.peers = vec![
            Peer::new(&["10.0.2.1/32:6379"], &["cache"]),
            Peer::new(&["10.0.2.1/32", "fd00::2:1/128"], &["web"]),
        ];
        b.workloads = vec![
            Workload::new("web", &cgroup(&world.b, "web")).inbound(
                "strict",
                Some(&[HTTP]),
                &["client"],
            ),
            Workload::new("cache", &cgroup(&world.b, "cache")).inbound(
                "strict",
                Some(&[REDIS]),
                &["client"],
            ),
        ];
        let agent_a = Agent::start(world, &world.a, a);
        let agent_b = Agent::start(world, &world.b, b);
        Self { agent_a, agent_b, prelude }
    }
}
