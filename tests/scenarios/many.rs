//! As many workloads, and as many peers, as a host may have.

use std::net::Ipv4Addr;
use std::time::Duration;

use sheath_tests::agent::Agent;
use sheath_tests::config::{Peer, Workload};
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Setting, any, client, configs, say, server};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, Socket, Step};
use sheath_tests::serial;
use sheath_tests::world::{FAMILIES, Node, World};

/// `MAX_SELECTED` and `MAX_ADDRESSES` of the kernel's maps.
const WORKLOADS: usize = 16_000;
const ADDRESSES: u32 = 500_000;

/// An agent that is not optimised reads its configuration slowly.
const LONG: Duration = Duration::from_secs(240);

const OPEN_PORT: u16 = 9090;

/// A third each of paths, of patterns that begin in ways of their own, and of patterns that all begin alike.
fn workload(node: &Node, number: usize) -> Workload {
    let path = match number % 3 {
        0 => format!("path-{number}"),
        1 => format!("own-{number}-*"),
        _ => format!("*-like-{number}"),
    };
    let pattern = format!("{}/{path}", node.cgroup.relative());
    Workload::new(&format!("workload-{number}"), &pattern).outbound("require", &[])
}

#[test]
fn every_one_of_very_many_workloads_is_recognised_when_its_cgroup_is_made() {
    let _heavy = serial::heavy();
    let world = World::new();
    let mut config = configs(&world, Setting::Host).0;
    // So that a workload is known by not getting anywhere.
    config.peers.clear();
    config.workloads = (0..WORKLOADS).map(|number| workload(&world.a, number)).collect();
    let mut agent = Agent::prepare(&world, &world.a, config);
    agent.launch_within(LONG);
    assert_eq!(agent.status().workloads.len(), WORKLOADS);

    let open = world.b.host("open");
    let _open =
        FAMILIES.map(|family| Probe::start(&open, &server(any(family, OPEN_PORT), &[Step::Echo])));
    let connect = |cgroup: &str| {
        let place = world.a.host(cgroup);
        FAMILIES.map(|family| {
            let job = client(world.b.addresses.at(family, OPEN_PORT), &say("hello"));
            probe::run(&place, &job).error
        })
    };
    for is_alive in [true, false] {
        if !is_alive {
            agent.kill();
        }
        let name = if is_alive { "a" } else { "b" };
        for (cgroup, is_workload) in [
            (format!("path-{}", 15_999 - usize::from(is_alive) * 3), true),
            (format!("own-1-{name}"), true),
            (format!("own-15997-{name}"), true),
            (format!("{name}-like-2"), true),
            (format!("{name}-like-15998"), true),
            (format!("{name}-like-15999"), false),
            (format!("path-1599{name}"), false),
            (format!("own-2-{name}"), false),
        ] {
            let expected = is_workload.then_some(libc::EPERM);
            assert_eq!(connect(&cgroup), [expected; 2], "{cgroup}, alive: {is_alive}");
        }
    }
    // Those that are there when an agent comes are found as well.
    let existing = "own-4-existing";
    let place = world.a.host(existing);
    let _resident = Probe::start(&place, &Job::Idle);
    agent.launch_within(LONG);
    agent.wait_enrolled("workload-4", &place);
    let status = agent.status();
    for (name, is_there) in [("workload-1", 0), ("workload-15998", 0), ("workload-4", 1)] {
        assert_eq!(status.workload(name).cgroups.len(), is_there, "{name}");
    }
}

#[test]
fn a_peer_among_very_many_single_addresses_is_known_by_its_own() {
    let _heavy = serial::heavy();
    let world = World::new();
    let (mut config, server_config) = configs(&world, Setting::Host);
    let open = world.b.addresses;
    let web = [format!("{}:{PORT}", open.v4), format!("[{}]:{PORT}", open.v6)];
    config.peers = vec![
        Peer::new(&web.each_ref().map(String::as_str), &["web"]),
        somebody(ADDRESSES - web.len() as u32),
    ];
    let mut agent_a = Agent::prepare(&world, &world.a, config);
    agent_a.launch_within(LONG);
    let agent_b = Agent::start(&world, &world.b, server_config);
    let [caller, app] = [world.a.host("client"), world.b.host("web")];
    let _residents = [&caller, &app].map(|place| Probe::start(place, &Job::Idle));
    agent_a.wait_enrolled("client", &caller);
    agent_b.wait_enrolled("web", &app);

    let tap = world.tap();
    let secret = marker();
    for family in FAMILIES {
        let _echo = Probe::start(&app, &server(any(family, PORT), &[Step::Echo]));
        let job = client(open.at(family, PORT), &say(&secret));
        let seen = probe::run(&caller, &job);
        assert_eq!((seen.ended_by(), &*seen.last().text), (None, &*secret), "{family:?}: {seen:?}");
        // Its address, but another port.
        let seen = probe::run(&caller, &client(open.at(family, OPEN_PORT), &say(&secret)));
        assert_eq!(seen.error, Some(libc::EPERM), "{family:?}: {seen:?}");
    }
    assert_ciphertext(&tap, PORT, &secret);
    // The last of the others is known too, though nobody is there; the one behind it is not.
    let last = ADDRESSES - web.len() as u32 - 1;
    for (number, is_known) in [(0, true), (last / 2, true), (last, true), (last + 1, false)] {
        let before = agent_a.status().counter("connect_protected");
        let socket = Socket { connect_limit: Some(500), ..Socket::default() };
        let to = (address(number), 80).into();
        let seen = probe::run(&caller, &Job::Client { socket, to, steps: say(&secret) });
        let is_unknown = seen.error == Some(libc::EPERM);
        let protected = agent_a.status().counter("connect_protected") - before;
        assert_eq!((is_unknown, protected), (!is_known, u64::from(is_known)), "{to}: {seen:?}");
    }
}

/// A peer at so many addresses.
fn somebody(count: u32) -> Peer {
    let mut peer = Peer::new(&[], &["somebody"]);
    peer.matches = (0..count).map(|number| address(number).to_string()).collect();
    peer
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number)
}
