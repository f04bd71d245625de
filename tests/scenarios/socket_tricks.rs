//! Promise 1 against the processes of the workload itself: no way of making or connecting a
//! socket gets plaintext out.

use sheath_tests::config::{Reuse, Sessions};
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, Setting, any, configs, say, server};
use sheath_tests::probe::Probe;
use sheath_tests::script::{Job, Socket, Step};
use sheath_tests::tricks::{Scene, Trick};
use sheath_tests::world::{FAMILIES, Family, WIRE, World};
use sheath_tests::{agent::Agent, place::Place};

/// A port of node B where everyone is taken at their word: whatever gets out arrives.
const OPEN_PORT: u16 = 9090;

#[test]
fn ipv4_mapped_ipv6() {
    no_plaintext_by(&[Trick::Plain, Trick::Ipv4Mapped]);
}

#[test]
fn tcp_fast_open() {
    no_plaintext_by(&[Trick::FastOpenSend, Trick::FastOpenConnect, Trick::MappedFastOpen]);
}

#[test]
fn mptcp() {
    no_plaintext_by(&[Trick::Mptcp, Trick::MappedMptcp]);
}

#[test]
fn bound_source_address_and_port() {
    no_plaintext_by(&[Trick::BoundAddress, Trick::BoundPort]);
}

#[test]
fn bind_to_device() {
    no_plaintext_by(&[Trick::BoundDevice, Trick::DeviceFastOpen]);
}

#[test]
fn io_uring() {
    no_plaintext_by(&[Trick::IoUring, Trick::IoUringPolled]);
}

#[test]
fn a_socket_from_elsewhere() {
    no_plaintext_by(&[Trick::LentSocket, Trick::SocketFromBefore, Trick::ConnectedOutside]);
}

/// Tries both towards the protected server, where an honest application must be served, and
/// towards a server that takes plaintext.
fn no_plaintext_by(tricks: &[Trick]) {
    for setting in [Setting::Host, Setting::Pods] {
        let pair = Pair::new(setting);
        let bystander = Place::new(&pair.client.netns, &pair.world.a.host("bystander").cgroup);
        let open_place = pair.world.b.host("open");
        for family in FAMILIES {
            let _echo = pair.serve(family, &[Step::Echo]);
            let open = server(any(family, OPEN_PORT), &[Step::Echo]);
            let mut open = Probe::start(&open_place, &open);
            let scene = scene(&pair, &bystander, family, setting);
            for &trick in tricks.iter().filter(|trick| trick.exists_for(family)) {
                let context = format!("{trick:?} {family:?} {setting:?}");
                let tap = pair.world.tap();
                let marker = marker();
                let served = scene.attempt(trick, pair.target(family), &marker);
                let exposed =
                    scene.attempt(trick, pair.world.b.addresses.at(family, OPEN_PORT), &marker);
                assert_eq!(tap.sightings(&marker), 0, "{context}: plaintext on the wire");
                if trick.is_honest() {
                    assert_eq!(served.ended_by(), None, "{context}: {served:?}");
                    assert_eq!(served.last().text, marker, "{context}: {served:?}");
                }
                assert_ne!(exposed.ended_by(), None, "{context}: {exposed:?}");
            }
            for _ in 0..open.pending() {
                assert_eq!(open.connection().last().text, "", "{family:?} {setting:?}");
            }
        }
    }
}

#[test]
fn every_trick_while_the_agent_is_dead() {
    for setting in [Setting::Host, Setting::Pods] {
        let mut pair = Pair::new(setting);
        let bystander = Place::new(&pair.client.netns, &pair.world.a.host("bystander").cgroup);
        let open_place = pair.world.b.host("open");
        pair.agent_a.kill();
        for family in FAMILIES {
            let _open = Probe::start(&open_place, &server(any(family, OPEN_PORT), &[Step::Echo]));
            let target = pair.world.b.addresses.at(family, OPEN_PORT);
            let scene = scene(&pair, &bystander, family, setting);
            for trick in Trick::ALL.into_iter().filter(|trick| trick.exists_for(family)) {
                let context = format!("{trick:?} {family:?} {setting:?}");
                let tap = pair.world.tap();
                let marker = marker();
                let seen = scene.attempt(trick, target, &marker);
                assert_ne!(seen.ended_by(), None, "{context}: {seen:?}");
                assert_eq!(tap.sightings(&marker), 0, "{context}: plaintext on the wire");
            }
        }
    }
}

#[test]
fn a_socket_created_before_the_workload_was_enrolled() {
    for family in FAMILIES {
        let world = World::new();
        let workload = world.a.host("client");
        let open = server(any(family, OPEN_PORT), &[Step::Echo]);
        let _open = Probe::start(&world.b.host("open"), &open);
        let tap = world.tap();
        let marker = marker();
        let socket = Socket { pause: true, ..Socket::default() };
        let to = world.b.addresses.at(family, OPEN_PORT);
        let mut early = Probe::start(&workload, &Job::Client { socket, to, steps: say(&marker) });
        early.wait_paused();
        let _agent = Agent::start(&world, &world.a, configs(&world, Setting::Host).0);
        early.go();
        let seen = early.connection();
        assert_ne!(seen.ended_by(), None, "{family:?}: {seen:?}");
        assert_eq!(tap.sightings(&marker), 0, "{family:?}: plaintext on the wire");
    }
}

#[test]
fn the_same_source_port_again_and_again() {
    // With a session for each connection.
    let pair = Pair::with(Setting::Host, |a, _| {
        a.sessions = Sessions::reused(Reuse { per_workload: 0, ..Reuse::default() });
    });
    let tap = pair.world.tap();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    for _ in 0..5 {
        let marker = marker();
        let socket = Socket { bind: Some(any(Family::V4, 41_001)), ..Socket::default() };
        let to = pair.target(Family::V4);
        let job = Job::Client { socket, to, steps: say(&marker) };
        let seen = sheath_tests::probe::run(&pair.client, &job);
        // The wire's 4-tuple may still be in TIME_WAIT; the application need not notice.
        assert_eq!(seen.last().text, marker, "{seen:?}");
        assert_eq!(tap.sightings(&marker), 0);
    }
    assert!(tap.attempts(PORT).len() >= 5);
}

fn scene<'a>(pair: &'a Pair, bystander: &'a Place, family: Family, setting: Setting) -> Scene<'a> {
    Scene {
        client: &pair.client,
        bystander,
        source: pair.client_addresses.of(family),
        device: if setting == Setting::Host { WIRE } else { "eth0" },
        dir: pair.world.dir.path(),
    }
}
