//! The modes: what is protected, what is refused, and what is left alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sheath_tests::agent::{self, Agent};
use sheath_tests::ca::Ca;
use sheath_tests::config::{Config, Peer, Workload};
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::lent;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, Setting, any, client, configs, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::rogue::{Dial, End, Face, RogueServer};
use sheath_tests::script::{Connection, Job, Step};
use sheath_tests::tap::Tap;
use sheath_tests::world::{FAMILIES, Family, World};

/// A port of node B that no configuration mentions.
const OPEN_PORT: u16 = 9090;

#[test]
fn inbound_permissive_takes_plaintext_mtls_and_foreign_tls() {
    let pair = Pair::with(Setting::Host, |_, b| {
        b.workloads[0].inbound.as_mut().unwrap().mode = "permissive";
    });
    let stranger = pair.world.a.host("stranger");
    for family in FAMILIES {
        let target = pair.target(family);
        let before = pair.agent_b.status();
        let mut echo = pair.serve(family, &[Step::Send("banner ".into()), Step::Echo]);

        let plain = probe::run(&stranger, &client(target, &say("in the clear")));
        assert_eq!(plain.last().text, "banner in the clear", "{plain:?}");
        assert_eq!(echo.accepted(), plain.local.unwrap(), "the true client");

        let tap = pair.world.tap();
        let marker = marker();
        let protected = pair.connect(target, &say(&marker));
        assert_eq!(protected.last().text, format!("banner {marker}"), "{protected:?}");
        assert_eq!(echo.accepted(), protected.local.unwrap(), "the true client");
        assert_ciphertext(&tap, PORT, &marker);
        drop(echo);

        // The application's own TLS, with its own certificate: none of our business.
        let leaf = Ca::stranger("app.example").issue("spiffe://app.example/own");
        let listener = lent::listener(&pair.server, pair.world.dir.path(), target);
        let application =
            RogueServer::on(listener, Face::Tls(leaf), "end to end", End::CloseNotify);
        for alpn in [&[][..], &["h2", "http/1.1"]] {
            let netns = &pair.world.a.netns;
            let send = "my own TLS";
            let answer =
                Dial { netns, to: target, leaf: None, alpn, send, end: End::CloseNotify }.run();
            assert_eq!(answer.received, "end to end", "{alpn:?}: {answer:?}");
        }
        for session in application.sessions(2) {
            assert_eq!(session.received, b"my own TLS", "{session:?}");
        }

        let status = pair.agent_b.wait_for_status("every kind counted", |status| {
            let grown = |name, by| status.counter(name) >= before.counter(name) + by;
            grown("inbound_plaintext", 1) && grown("inbound_passthrough", 2)
        });
        assert_eq!(status.counter("inbound_plaintext"), before.counter("inbound_plaintext") + 1);
    }
}

#[test]
fn inbound_disabled_leaves_a_port_alone() {
    let pair = Pair::with(Setting::Host, |_, b| {
        b.workloads[0].inbound.as_mut().unwrap().mode = "disabled";
    });
    let stranger = pair.world.a.host("stranger");
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let seen = probe::run(&stranger, &client(pair.target(Family::V4), &say("hello")));
    assert_eq!(seen.last().text, "hello", "{seen:?}");
}

#[test]
fn inbound_leaves_ports_that_are_not_listed_alone() {
    // The server may itself only connect by mTLS, and the client's node is a peer of it: answers
    // to what came in plaintext on another port are still not to be dropped.
    let pair = Pair::with(Setting::Host, |_, b| {
        b.workloads[0] = b.workloads[0].clone().outbound("require", &[]);
        b.peers = vec![Peer::new(&["10.0.1.0/24", "fd00::1:0/112"], &["client"])];
    });
    let stranger = pair.world.a.host("stranger");
    for family in FAMILIES {
        let open = server(any(family, OPEN_PORT), &[Step::Echo]);
        let _open = Probe::start(&pair.server, &open);
        let target = pair.world.b.addresses.at(family, OPEN_PORT);
        let seen = probe::run(&stranger, &client(target, &say("hello")));
        assert_eq!(seen.last().text, "hello", "{family:?}: {seen:?}");

        let _echo = pair.serve(family, &[Step::Echo]);
        let seen = pair.connect(pair.target(family), &say("hello"));
        assert_eq!(seen.last().text, "hello", "{family:?}: {seen:?}");
    }
}

#[test]
fn inbound_without_ports_protects_every_port_of_a_pod() {
    let pair = Pair::new(Setting::Pods);
    let stranger = pair.world.a.host("stranger");
    for family in FAMILIES {
        for port in [PORT, 1, 65_535] {
            let mut echo = Probe::start(&pair.server, &server(any(family, port), &[Step::Echo]));
            let target = pair.server_addresses.at(family, port);
            let plain = probe::run(&stranger, &client(target, &say("hello")));
            assert_eq!(plain.ended_by(), Some(libc::ECONNRESET), "{target}: {plain:?}");
            let protected = pair.connect(target, &say("hello"));
            assert_eq!(protected.last().text, "hello", "{target}: {protected:?}");
            echo.accepted();
            assert_eq!(echo.pending(), 0, "{target}");
        }
    }
}

/// One agent on A with the given outbound mode, and a plaintext echo server on every address of B.
struct Outbound {
    agent: Agent,
    client: Place,
    _open: Vec<Probe>,
    tap: Tap,
    world: World,
}

impl Outbound {
    fn new(mode: &'static str, bypass: &[&str]) -> Self {
        let world = World::new();
        let mut config: Config = configs(&world, Setting::Host).0;
        config.workloads[0] = config.workloads[0].clone().outbound(mode, bypass);
        let agent = Agent::start(&world, &world.a, config);
        let place = world.b.host("open");
        let ports = FAMILIES.into_iter().flat_map(|family| {
            [PORT, OPEN_PORT].map(|port| server(any(family, port), &[Step::Echo]))
        });
        let open = ports.map(|job| Probe::start(&place, &job)).collect();
        Self { agent, client: world.a.host("client"), _open: open, tap: world.tap(), world }
    }

    fn try_plain(&self, to: SocketAddr) -> (Connection, String) {
        let marker = marker();
        (probe::run(&self.client, &client(to, &say(&marker))), marker)
    }

    /// Served in plaintext, and without any part of the agent.
    fn assert_untouched(&self, to: SocketAddr) {
        let before = self.agent.status().counter("flows_opened");
        let (seen, marker) = self.try_plain(to);
        assert_eq!(seen.last().text, marker, "{to}: {seen:?}");
        assert_eq!(self.tap.sightings(&marker), 2, "{to}");
        assert_eq!(self.agent.status().counter("flows_opened"), before, "{to}: in user space");
    }

    /// mTLS was tried; since nobody here speaks it, the application got a reset.
    fn assert_mtls_or_nothing(&self, to: SocketAddr) {
        let (seen, marker) = self.try_plain(to);
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{to}: {seen:?}");
        assert_eq!(self.tap.sightings(&marker), 0, "{to}");
    }
}

#[test]
fn outbound_require_refuses_unknown_destinations() {
    let scene = Outbound::new("require", &[]);
    for family in FAMILIES {
        let unknown = scene.world.b.extra.at(family, OPEN_PORT);
        let (seen, marker) = scene.try_plain(unknown);
        assert_eq!(seen.error, Some(libc::EPERM), "{seen:?}");
        assert_eq!(scene.tap.sightings(&marker), 0);
        let line = scene
            .agent
            .wait_for_access("the refusal", |line| line.destination == unknown.to_string());
        assert!(line.is("outbound", "denied"), "{line:?}");
        assert_eq!((line.stage.as_str(), line.workload.as_str()), ("capture", "client"));
        scene.assert_mtls_or_nothing(scene.world.b.addresses.at(family, OPEN_PORT));
    }
    assert!(scene.agent.status().counter("connect_denied") >= 2);
}

#[test]
fn outbound_prefer_leaves_unknown_destinations_untouched() {
    let scene = Outbound::new("prefer", &[]);
    for family in FAMILIES {
        scene.assert_untouched(scene.world.b.extra.at(family, OPEN_PORT));
        // Promise 2: what is known is reached by mTLS or not at all.
        scene.assert_mtls_or_nothing(scene.world.b.addresses.at(family, OPEN_PORT));
    }
}

#[test]
fn outbound_disabled_leaves_every_destination_untouched() {
    let scene = Outbound::new("disabled", &[]);
    for family in FAMILIES {
        scene.assert_untouched(scene.world.b.addresses.at(family, OPEN_PORT));
        scene.assert_untouched(scene.world.b.extra.at(family, OPEN_PORT));
    }
}

#[test]
fn outbound_bypass_is_per_address_and_port() {
    let bypass = ["10.0.2.1/32:9090", "[fd00::2:1/128]:9090", "10.0.92.0/24", "fd00::92:0/112"];
    let scene = Outbound::new("require", &bypass);
    for family in FAMILIES {
        scene.assert_untouched(scene.world.b.addresses.at(family, OPEN_PORT));
        scene.assert_mtls_or_nothing(scene.world.b.addresses.at(family, PORT));
        scene.assert_untouched(scene.world.b.extra.at(family, OPEN_PORT));
        scene.assert_untouched(scene.world.b.extra.at(family, PORT));
    }
}

#[test]
fn outbound_leaves_loopback_alone() {
    let scene = Outbound::new("require", &[]);
    let neighbour = scene.world.a.host("neighbour");
    for loopback in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let to = SocketAddr::new(loopback, OPEN_PORT);
        let mut echo = Probe::start(&neighbour, &server(to, &[Step::Echo]));
        let (seen, marker) = scene.try_plain(to);
        assert_eq!(seen.last().text, marker, "{to}: {seen:?}");
        assert_eq!((seen.peer, echo.connection().accepted), (Some(to), seen.local));
    }
}

/// Two workloads of one agent, in pods of one node.
#[test]
fn pods_on_the_same_node_are_protected_from_one_another() {
    let world = World::new();
    let (pod_a, pod_b) = (world.a.pod(2), world.a.pod(3));
    let from = Place::new(&pod_a.netns, &world.a.host("client").cgroup);
    let to = Place::new(&pod_b.netns, &world.a.host("web").cgroup);
    let mut config = agent::config(&world, &world.a);
    let cgroup = world.a.cgroup.relative();
    config.workloads = vec![
        Workload::new("client", &format!("{cgroup}/client")).outbound("require", &[]),
        Workload::new("web", &format!("{cgroup}/web")).inbound("strict", None, &["client"]),
    ];
    config.peers = vec![Peer::new(&["10.1.1.0/24", "fd01::1:0/112"], &["web"])];
    let _residents = [&from, &to].map(|place| Probe::start(place, &Job::Idle));
    let agent = Agent::start(&world, &world.a, config);
    agent.wait_enrolled("client", &from);
    agent.wait_enrolled("web", &to);
    for family in FAMILIES {
        let tap = Tap::new(&world.a.netns, "pod3");
        let marker = marker();
        let mut echo = Probe::start(&to, &server(any(family, PORT), &[Step::Echo]));
        let target = pod_b.addresses.at(family, PORT);
        let seen = probe::run(&from, &client(target, &say(&marker)));
        assert_eq!(seen.last().text, marker, "{family:?}: {seen:?}");
        assert_eq!(echo.connection().accepted, seen.local);
        assert_ciphertext(&tap, PORT, &marker);
    }
}
