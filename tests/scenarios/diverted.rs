//! What was turned to the agent comes to the agent or to nobody: not to whom a rule leads it, not to whoever sits where
//! the agent would be, and not back to the one who sent it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use sheath_tests::agent::{self, Agent};
use sheath_tests::config::{Peer, Workload};
use sheath_tests::names::marker;
use sheath_tests::pair::{
    PORT, Pair, SERVER_NETWORKS, SETTINGS, Setting, any, client, say, server,
};
use sheath_tests::pins;
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Connection, Job, Socket, Step};
use sheath_tests::world::{FAMILIES, Family};

/// Where IPv6 connections are turned to; IPv4 ones to the first (README, "Things that applications may notice").
const AGENTS_PORTS: std::ops::RangeInclusive<u16> = 15_001..=15_064;
/// Somebody else's.
const OTHER_PORT: u16 = 7_001;
/// Milliseconds that a client waits where no agent ends its connection.
const PATIENCE: u64 = 1_500;
/// What is ended at once is ended before that.
const AT_ONCE_MS: u64 = 3_000;

fn outsider(pair: &Pair) -> Place {
    Place::new(&pair.client.netns, &pair.world.a.host("outsider").cgroup)
}

fn call(pair: &Pair, family: Family, text: &str) -> Connection {
    let socket = Socket { connect_limit: Some(PATIENCE), ..Socket::default() };
    let job = Job::Client { socket, to: pair.target(family), steps: say(text) };
    probe::run(&pair.client, &job)
}

/// Transparent proxies and meshes set up such rules.
#[test]
fn a_rule_that_leads_loopback_elsewhere_leads_nothing_of_the_workload_there() {
    for setting in SETTINGS {
        let mut pair = Pair::new(setting);
        let _servers = FAMILIES.map(|family| pair.serve(family, &[Step::Echo]));
        let place = outsider(&pair);
        let mut squatters = FAMILIES
            .map(|family| Probe::start(&place, &server(any(family, OTHER_PORT), &[Step::Echo])));
        pair.client.netns.nft(&format!(
            "table inet divert {{
                chain out {{
                    type nat hook output priority -100;
                    tcp dport 15001-15064 redirect to :{OTHER_PORT}
                }}
             }}"
        ));
        // The rule works for everybody else.
        for (family, squatter) in FAMILIES.into_iter().zip(&mut squatters) {
            let loopback = SocketAddr::new(loopback(family), *AGENTS_PORTS.start());
            let seen = probe::run(&place, &client(loopback, &say("mine")));
            assert_eq!(seen.last().text, "mine", "{setting:?} {family:?}: {seen:?}");
            squatter.accepted();
        }
        for is_alive in [true, false] {
            if !is_alive {
                pair.agent_a.kill();
            }
            for family in FAMILIES {
                let seen = call(&pair, family, &marker());
                assert!(seen.error.is_some(), "{setting:?} {family:?} alive {is_alive}: {seen:?}");
                if is_alive {
                    assert_eq!(seen.error, Some(libc::ECONNABORTED), "{setting:?} {family:?}");
                    assert!(seen.connect_ms < AT_ONCE_MS, "{setting:?} {family:?}: {seen:?}");
                }
            }
            if is_alive {
                assert!(pair.agent_a.status().counter("guard_dropped_diverted") >= 2);
                pair.agent_a.wait_for_log("WARN", "translates or redirects");
            }
        }
        for squatter in &mut squatters {
            assert_eq!(squatter.pending(), 0, "{setting:?}: somebody else was reached");
        }
    }
}

/// The last of the agent's programs, without which the kernel looks for a listener of its own.
#[test]
fn whoever_listens_where_connections_are_turned_to_gets_none_though_the_steering_is_gone() {
    for family in FAMILIES {
        let mut pair = Pair::new(Setting::Pods);
        let _echo = pair.serve(family, &[Step::Echo]);
        assert_eq!(call(&pair, family, "hello").last().text, "hello", "{family:?}");
        pair.agent_a.kill();
        for pin in pins::named(pair.agent_a.instance(), "steer") {
            pins::detach(&pin).expect("detaching the steering");
        }
        let place = outsider(&pair);
        let ports = if family == Family::V4 { 15_001..=15_001 } else { AGENTS_PORTS };
        let mut squatters: Vec<_> = ports
            .map(|port| Probe::start(&place, &server(any(family, port), &[Step::Echo])))
            .collect();
        let seen = call(&pair, family, &marker());
        assert!(seen.error.is_some(), "{family:?}: {seen:?}");
        assert!(squatters.iter_mut().all(|squatter| squatter.pending() == 0), "{family:?}");
    }
}

/// There is one `::1`, so a source port may be the one that is dialled: TCP would connect the socket to itself, and the
/// application would read what it wrote.
#[test]
fn no_connection_is_its_own_peer() {
    let mut pair = Pair::new(Setting::Pods);
    let _server = pair.serve(Family::V6, &[Step::ReceiveToEnd, Step::Send("answer".into())]);
    for is_alive in [true, false] {
        if !is_alive {
            pair.agent_a.kill();
        }
        let mut served = 0;
        for port in AGENTS_PORTS {
            let socket = Socket {
                bind: Some(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)),
                connect_limit: Some(PATIENCE),
                ..Socket::default()
            };
            let to = pair.target(Family::V6);
            let seen =
                probe::run(&pair.client, &Job::Client { socket, to, steps: say("question") });
            match seen.ended_by() {
                None => {
                    assert_eq!(seen.last().text, "answer", "from port {port}: {seen:?}");
                    served += 1;
                }
                Some(_) if is_alive => {
                    assert_eq!(seen.error, Some(libc::ECONNABORTED), "from port {port}: {seen:?}");
                }
                Some(_) => {}
            }
        }
        let expected = if is_alive { AGENTS_PORTS.count() - 1 } else { 0 };
        assert_eq!(served, expected, "alive {is_alive}");
    }
}

/// Each takes what was turned to it, and leaves the other's to the other.
#[test]
fn two_agents_in_one_namespace_serve_their_own_workloads() {
    let mut pair = Pair::host();
    let _servers = FAMILIES.map(|family| pair.serve(family, &[Step::Echo]));
    let world = &pair.world;
    let mut config = agent::config(world, &world.a);
    config.node.push_str("-second");
    config.instance.push_str("-second");
    config.run_dir.push_str("-second");
    let pattern = format!("{}/second*", world.a.cgroup.relative());
    config.workloads = vec![Workload::new("client", &pattern).outbound("require", &[])];
    config.peers = vec![Peer::new(&SERVER_NETWORKS, &["web"])];
    let second = Agent::start(world, &world.a, config);
    let place = world.a.host("second");
    let _resident = Probe::start(&place, &Job::Idle);
    second.wait_enrolled("client", &place);
    let served = |from: &Place, family| {
        let seen = probe::run(from, &client(pair.server_addresses.at(family, PORT), &say("hello")));
        (seen.ended_by(), seen.error, seen.last().text.clone())
    };
    let hello = (None, None, "hello".to_owned());
    for family in FAMILIES {
        assert_eq!(served(&place, family), hello, "{family:?}, the second's");
        assert_eq!(served(&pair.client, family), hello, "{family:?}, the first's");
    }
    pair.agent_a.kill();
    for family in FAMILIES {
        assert_eq!(served(&place, family), hello, "{family:?}, without the first");
        let (.., error, text) = served(&pair.client, family);
        assert_eq!((error, text.as_str()), (Some(libc::ECONNREFUSED), ""), "{family:?}");
    }
}

fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([127, 0, 0, 1]),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}
