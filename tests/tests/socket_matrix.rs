//! Promise 1 as a matrix: every kind of socket, prepared and opened in every way, to every kind of destination, in both
//! modes and settings, with the agent alive and dead. What is forbidden is one thing alone: its bytes on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use sheath_tests::matrix::Matrix;
use sheath_tests::names::{self, marker};
use sheath_tests::pair::{PORT, Pair, Setting, any, server};
use sheath_tests::place::Place;
use sheath_tests::probe::Probe;
use sheath_tests::script::{Job, Step};
use sheath_tests::world::{FAMILIES, WIRE};

/// A port that node B answers on in plaintext, at every address.
const OPEN_PORT: u16 = 9090;
/// For all the cases of one matrix.
const LIMIT: Duration = Duration::from_secs(120);
/// For the first retransmissions of what was held back.
const RETRANSMISSION: Duration = Duration::from_millis(700);

#[test]
fn no_socket_gets_plaintext_out_of_require_on_the_host() {
    play(Setting::Host, "require");
}

#[test]
fn no_socket_gets_plaintext_out_of_require_in_a_pod() {
    play(Setting::Pods, "require");
}

#[test]
fn no_socket_gets_plaintext_to_a_peer_out_of_prefer_on_the_host() {
    play(Setting::Host, "prefer");
}

#[test]
fn no_socket_gets_plaintext_to_a_peer_out_of_prefer_in_a_pod() {
    play(Setting::Pods, "prefer");
}

fn play(setting: Setting, mode: &'static str) {
    let mut pair =
        Pair::with(setting, |a, _| a.workloads[0].outbound.as_mut().unwrap().mode = mode);
    let device = if setting == Setting::Host { WIRE } else { "eth0" };
    // As kube-proxy sets it: packets for 127.0.0.0/8 are then routed, and taken from the wire.
    pair.client.netns.sysctl(&format!("ipv4/conf/{device}/route_localnet"), "1");
    for netns in [&pair.world.a.netns, &pair.world.b.netns] {
        netns.sysctl("ipv4/conf/all/route_localnet", "1");
        netns.sysctl("ipv4/conf/all/accept_source_route", "1");
        netns.sysctl(&format!("ipv4/conf/{WIRE}/accept_source_route"), "1");
        netns.sysctl("ipv6/conf/all/seg6_enabled", "1");
        netns.sysctl(&format!("ipv6/conf/{WIRE}/seg6_enabled"), "1");
    }
    let open_place = pair.world.b.host("open");
    let _servers: Vec<_> = FAMILIES
        .into_iter()
        .flat_map(|family| {
            let open = Probe::start(&open_place, &server(any(family, OPEN_PORT), &[Step::Echo]));
            [open, pair.serve(family, &[Step::Echo])]
        })
        .collect();
    let bystander = Place::new(&pair.client.netns, &pair.world.a.host("bystander").cgroup);
    let accomplice = pair.world.dir.path().join(names::unique());
    let _accomplice = Probe::start(&bystander, &Job::Accomplice { path: accomplice.clone() });
    let destinations = destinations(&pair, mode);
    let via = FAMILIES.map(|family| pair.world.b.addresses.of(family)).to_vec();
    let matrix = |marker| Matrix {
        marker,
        destinations: destinations.clone(),
        device: device.to_owned(),
        via: via.clone(),
        accomplice: accomplice.clone(),
    };
    for is_alive in [true, false] {
        if !is_alive {
            pair.agent_a.kill();
        }
        let matrix = matrix(marker());
        let tap = pair.world.tap();
        let mut player = Probe::start(&pair.client, &Job::Matrix(matrix.clone()));
        let tally = player.tally(LIMIT);
        thread::sleep(RETRANSMISSION);
        let seen = matrix.seen_in(&tap.frames());
        assert_eq!(tally.ok + tally.errors.len(), matrix.cases().len());
        assert!(
            seen.is_empty(),
            "{setting:?} {mode}, agent alive: {is_alive}: {} cases on the wire in plaintext: {seen:#?}",
            seen.len()
        );
        if is_alive {
            // The honest ones among them were served: it is not that nothing worked.
            assert!(tally.ok > 0, "{tally:?}");
        }
    }
}

/// Peers, this very host in all its names, and, where the mode refuses them, everybody else.
fn destinations(pair: &Pair, mode: &str) -> Vec<SocketAddr> {
    let own = pair.client_addresses;
    let mut all: Vec<SocketAddr> = Vec::new();
    for ip in [
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(127, 0, 0, 2),
        Ipv4Addr::new(127, 255, 255, 254),
        Ipv4Addr::UNSPECIFIED,
    ] {
        all.push((ip, OPEN_PORT).into());
    }
    for ip in [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED] {
        all.push((ip, OPEN_PORT).into());
    }
    all.push((Ipv4Addr::LOCALHOST, 15_001).into());
    all.push((Ipv6Addr::LOCALHOST, 15_001).into());
    for family in FAMILIES {
        all.push(pair.target(family));
        all.push(pair.world.b.addresses.at(family, OPEN_PORT));
    }
    if mode == "require" {
        for family in FAMILIES {
            all.push(own.at(family, OPEN_PORT));
            all.push(pair.world.b.extra.at(family, OPEN_PORT));
            all.push(pair.world.b.extra.at(family, PORT));
        }
        for ip in ["224.0.0.1", "10.0.255.255", "255.255.255.255", "240.0.0.1"] {
            all.push(SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), OPEN_PORT));
        }
    }
    all
}
