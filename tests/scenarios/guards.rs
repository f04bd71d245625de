//! The second line, and what it spares the application: packets that capture has not seen, whatever they look like, and
//! connections that cannot be captured.

use std::time::Duration;

use sheath_tests::names::{self, marker};
use sheath_tests::pair::{PORT, Pair, SETTINGS, Setting, any, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::raw::{self, Between};
use sheath_tests::script::{Connection, Job, ListenerOptions, Origin, Socket, Step};
use sheath_tests::tap::Tap;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family, WIRE};

/// The longest that an answer takes which comes at once.
const AT_ONCE: Duration = Duration::from_secs(3);

fn is_at_once(seen: &Connection) -> bool {
    Duration::from_millis(seen.connect_ms) < wait::patient(AT_ONCE)
}

/// Where steering is missing, the workload's own listener is all there is to answer: here its agent is dead, and the
/// workload has been started again in a namespace that no agent has seen. With SYN cookies no socket stands for the
/// connection until it is complete.
#[test]
fn a_strict_port_answers_no_packet_whatever_its_headers() {
    for ports in [None, Some(&[PORT][..])] {
        let mut pair = Pair::with(Setting::Pods, |_, b| {
            b.workloads[0].inbound.as_mut().unwrap().ports = ports.map(<[u16]>::to_vec);
        });
        pair.agent_b.kill();
        let pod = pair.world.b.pod(30);
        pod.netns.sysctl("ipv4/tcp_syncookies", "2");
        let place = Place::new(&pod.netns, &pair.world.b.host("web-30").cgroup);
        let neighbour = Place::new(&pod.netns, &pair.world.b.host("neighbour").cgroup);
        for family in FAMILIES {
            let mut app = Probe::start(&place, &server(any(family, PORT), &[Step::Echo]));
            let _open = Probe::start(&neighbour, &server(any(family, PORT + 1), &[Step::Echo]));
            let kinds = if family == Family::V4 { &Between::V4[..] } else { &Between::V6[..] };
            for (from, between) in (50_000..).zip(kinds) {
                let context = format!("{ports:?} {family:?} {between:?}");
                let tap = pair.world.tap();
                let source = pair.world.a.addresses.at(family, from);
                for port in [PORT, PORT + 1] {
                    let to = pod.addresses.at(family, port);
                    raw::send_syn(&pair.world.a.netns, source, to, *between);
                }
                if *between == Between::DestinationOptions(20) {
                    // Linux 7.2 does not take so many headers. What comes behind is answered later.
                    let source = pair.world.a.addresses.at(family, from + 1000);
                    let to = pod.addresses.at(family, PORT + 1);
                    raw::send_syn(&pair.world.a.netns, source, to, Between::Nothing);
                }
                // The neighbour, who is no workload, is answered as ever: the packet is one that Linux takes.
                wait::wait_until(&format!("the neighbour's answer: {context}"), GENEROUS, || {
                    answers(&tap, PORT + 1) > 0
                });
                assert_eq!(answers(&tap, PORT), 0, "{context}");
            }
            assert_eq!(app.pending(), 0, "{ports:?} {family:?}");
        }
    }
}

/// What a workload's process has made is the workload's, wherever it is held: by a process that has moved on at once to
/// another cgroup, in a namespace that the agent has never seen, and also once the workload's cgroup is gone.
#[test]
fn a_listener_whose_process_has_moved_on_answers_no_stranger() {
    let pair = Pair::new(Setting::Pods);
    let stranger = pair.world.a.host("stranger");
    for (index, family) in (40..).zip(FAMILIES) {
        for is_removed in [false, true] {
            let context = format!("{family:?}, cgroup removed: {is_removed}");
            let pod = pair.world.b.pod(index + 4 * u8::from(is_removed));
            let cgroup = pair.world.b.host(&format!("web-{index}-{is_removed}")).cgroup;
            let elsewhere = pair.world.b.host(&format!("elsewhere-{index}-{is_removed}"));
            let place = Place::new(&pod.netns, &cgroup);
            let socket = ListenerOptions {
                moves_to: Some(elsewhere.cgroup.procs()),
                ..ListenerOptions::default()
            };
            let listen = any(family, PORT);
            let job = Job::Server { listen, socket, steps: vec![Step::Echo] };
            let mut app = Probe::start(&place, &job);
            if is_removed {
                std::fs::remove_dir(cgroup.path()).expect("removing the workload's cgroup");
            }
            let to = pod.addresses.at(family, PORT);
            let socket = Socket { connect_limit: Some(1_500), ..Socket::default() };
            let job = Job::Client { socket, to, steps: say("let me in") };
            let seen = probe::run(&stranger, &job);
            assert_ne!(seen.ended_by(), None, "{context}: {seen:?}");
            assert_eq!(app.pending(), 0, "{context}: the application was reached");
        }
    }
}

/// Nor does a socket of a workload that is gone get anything out, in whatever hands it is.
#[test]
fn a_socket_of_a_workload_that_is_gone_gets_nothing_out() {
    let pair = Pair::host();
    let bystander = pair.world.a.host("bystander");
    let tap = pair.world.tap();
    for family in FAMILIES {
        let _echo = pair.serve(family, &[Step::Echo]);
        let workload = pair.world.a.host(&format!("client-{family:?}"));
        let path = pair.world.dir.path().join(names::unique());
        let job = Job::Lender { path: path.clone(), v6: family == Family::V6 };
        let lender = Probe::start(&workload, &job);
        let socket = Socket { origin: Origin::Lent(path), pause: true, ..Socket::default() };
        let text = marker();
        let job = Job::Client { socket, to: pair.target(family), steps: say(&text) };
        let mut holder = Probe::start(&bystander, &job);
        holder.wait_paused();
        lender.kill();
        let path = workload.cgroup.path().to_owned();
        wait::wait_until("the cgroup to be removed", GENEROUS, || {
            std::fs::remove_dir(&path).is_ok()
        });
        holder.go();
        let seen = holder.connection();
        assert_ne!(seen.ended_by(), None, "{family:?}: {seen:?}");
        assert_eq!(tap.sightings(&text), 0, "{family:?}: plaintext on the wire");
    }
}

/// SYN-ACKs from a port.
fn answers(tap: &Tap, port: u16) -> usize {
    let segments = tap.segments();
    segments.iter().filter(|segment| segment.is_syn() && segment.source.port() == port).count()
}

#[test]
fn a_socket_bound_to_a_device_is_refused_at_once_and_the_log_says_why() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        let device = if setting == Setting::Host { WIRE } else { "eth0" };
        for (family, mptcp) in FAMILIES.into_iter().zip([false, true]) {
            let _echo = pair.serve(family, &[Step::Echo]);
            let socket = Socket { device: Some(device.into()), mptcp, ..Socket::default() };
            let to = pair.target(family);
            let job = Job::Client { socket, to, steps: say("hello") };
            let seen = probe::run(&pair.client, &job);
            assert_eq!(seen.error, Some(libc::EOPNOTSUPP), "{setting:?} {family:?}: {seen:?}");
            assert!(is_at_once(&seen), "{setting:?} {family:?}: {seen:?}");
            pair.agent_a.wait_for_access("the refusal, and why", |line| {
                line.destination == to.to_string() && line.reason.contains("SO_BINDTODEVICE")
            });
        }
    }
}

/// An option that keeps packets from loopback cannot be seen by `connect()`. The guard sees it, and the application
/// learns of it at once instead of waiting for minutes.
#[test]
fn a_connection_whose_packets_are_dropped_ends_at_once() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        for family in FAMILIES {
            let _echo = pair.serve(family, &[Step::Echo]);
            let stop = pair.world.b.addresses.of(family);
            let socket = Socket { source_route: Some(stop), ..Socket::default() };
            let job = Job::Client { socket, to: pair.target(family), steps: say("hello") };
            let seen = probe::run(&pair.client, &job);
            assert_eq!(seen.error, Some(libc::ECONNABORTED), "{setting:?} {family:?}: {seen:?}");
            assert!(is_at_once(&seen), "{setting:?} {family:?}: {seen:?}");
        }
        let status = pair.agent_a.status();
        assert!(status.counter("guard_dropped_confined") > 0, "{setting:?}");
    }
}

/// A source port is taken by one connection to one place, not by one connection to the agent: with 40 ports and two
/// peers an application may have 80 connections, with the agent as without.
#[test]
fn an_application_has_as_many_connections_as_its_ports_and_peers_allow() {
    const PORTS: usize = 40;
    for family in FAMILIES {
        let pair = Pair::new(Setting::Pods);
        let range = format!("40000 {}", 40_000 + PORTS - 1);
        pair.client.netns.sysctl("ipv4/ip_local_port_range", &range);
        let _servers: Vec<_> = (0..4)
            .map(|n| Probe::start(&pair.server, &server(any(family, PORT + n), &[Step::Echo])))
            .collect();
        let to = (0..4).map(|n| pair.server_addresses.at(family, PORT + n)).collect();
        let job = Job::Crowds { to, count: 2 * PORTS };
        let tally = Probe::start(&pair.client, &job).tally(GENEROUS);
        assert_eq!((tally.ok, tally.errors.as_slice()), (2 * PORTS, &[][..]), "{family:?}");
    }
}

/// What an application asks of MPTCP it asks of the connection, not of the one to the agent.
#[test]
fn mptcp_sockets_see_the_peer_they_asked_for() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        for family in FAMILIES {
            let _echo = pair.serve(family, &[Step::Echo]);
            let target = pair.target(family);
            let socket = Socket { mptcp: true, ..Socket::default() };
            let job = Job::Client { socket, to: target, steps: say("hello") };
            let seen = probe::run(&pair.client, &job);
            assert_eq!(seen.last().text, "hello", "{setting:?} {family:?}: {seen:?}");
            assert_eq!(seen.peer, Some(target), "{setting:?} {family:?}: {seen:?}");
            let local = seen.local.map(|local| local.ip());
            assert_eq!(local, Some(pair.client_addresses.of(family)), "{setting:?}: {seen:?}");
        }
    }
}

/// The guard drops what is wrong and nothing else: loopback, and what policy leaves alone.
#[test]
fn what_concerns_nobody_passes_the_guards() {
    let pair = Pair::with(Setting::Host, |a, _| {
        a.workloads[0].outbound.as_mut().unwrap().bypass = vec!["10.0.92.9/32".into()];
    });
    let dropped = |pair: &Pair| pair.agent_a.status().counter("guard_dropped_outbound");
    let before = dropped(&pair);
    let open = pair.world.b.host("open");
    let _open = Probe::start(&open, &server(any(Family::V4, 9090), &[Step::Echo]));
    let own = Place::new(&pair.client.netns, &pair.world.a.host("local").cgroup);
    let mut servers = Vec::new();
    for family in FAMILIES {
        servers.push(Probe::start(&own, &server(any(family, 7070), &[Step::Echo])));
    }
    for to in ["10.0.92.9:9090", "127.0.0.1:7070", "127.0.0.2:7070", "[::1]:7070", "0.0.0.0:7070"] {
        let seen = pair.connect(to.parse().unwrap(), &say("hello"));
        assert_eq!(seen.last().text, "hello", "{to}: {seen:?}");
    }
    assert_eq!(dropped(&pair), before);
}
