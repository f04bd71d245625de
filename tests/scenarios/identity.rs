//! Promise 3: identity comes from the kernel. No address, port or listener that a process can
//! choose makes it somebody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sheath_tests::config::{Select, Workload, spiffe_id};
use sheath_tests::names::marker;
use sheath_tests::netns::must_succeed;
use sheath_tests::pair::{PORT, Pair, Setting, any, client, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Connection, Job, Socket, Step};
use sheath_tests::wait::{GENEROUS, wait_for};
use sheath_tests::world::{FAMILIES, Family};

/// Where redirected connections go.
const AGENT_PORT: u16 = 15_001;

fn agent_address(family: Family) -> SocketAddr {
    let loopback: IpAddr = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(loopback, AGENT_PORT)
}

/// Refused or reset: nobody listened to it.
fn is_turned_away(seen: &Connection) -> bool {
    matches!(seen.ended_by(), Some(libc::ECONNREFUSED | libc::ECONNRESET))
}

#[test]
fn a_workload_cannot_connect_to_the_agent_directly() {
    for setting in [Setting::Host, Setting::Pods] {
        let pair = Pair::new(setting);
        for family in FAMILIES {
            let seen = pair.connect(agent_address(family), &say("I am a flow"));
            assert_eq!(seen.error, Some(libc::EPERM), "{setting:?} {family:?}: {seen:?}");
        }
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 8, 8, 8), Ipv4Addr::UNSPECIFIED] {
            for mapped in [false, true] {
                let socket = Socket { mapped, ..Socket::default() };
                let to = SocketAddr::from((address, AGENT_PORT));
                let job = Job::Client { socket, to, steps: say("I am a flow") };
                let seen = probe::run(&pair.client, &job);
                assert_eq!(seen.error, Some(libc::EPERM), "{setting:?} {to} {mapped}: {seen:?}");
            }
        }
    }
}

#[test]
fn nobody_else_can_connect_to_the_agent_either() {
    let pair = Pair::host();
    let tap = pair.world.tap();
    let stranger = pair.world.a.host("stranger");
    let neighbour = pair.world.b.host("neighbour");
    for family in FAMILIES {
        let local = probe::run(&stranger, &client(agent_address(family), &say("I am a flow")));
        assert!(is_turned_away(&local), "{family:?}: {local:?}");
        let own = pair.world.a.addresses.at(family, AGENT_PORT);
        for place in [&stranger, &neighbour] {
            let seen = probe::run(place, &client(own, &say("I am a flow")));
            assert!(is_turned_away(&seen), "{family:?}: {seen:?}");
        }
    }
    assert!(tap.attempts(PORT).is_empty(), "the agent dialled for somebody unknown");
}

/// A flow is known by its source port. A process that takes the port of somebody's live flow and
/// goes straight to the agent must not inherit the flow.
#[test]
fn a_forged_flow_is_reset() {
    let pair = Pair::host();
    let stranger = pair.world.a.host("stranger");
    for family in FAMILIES {
        let _echo = pair.serve(family, &[Step::Echo]);
        let steps = [Step::Pause, Step::Send("mine".into()), Step::EndSending, Step::ReceiveToEnd];
        let mut victim = Probe::start(&pair.client, &client(pair.target(family), &steps));
        victim.wait_paused();
        let port = live_port(&pair);
        let tap = pair.world.tap();
        let socket = Socket {
            bind: Some(SocketAddr::new(agent_address(family).ip(), port)),
            ..Socket::default()
        };
        let job = Job::Client { socket, to: agent_address(family), steps: say("mine as well") };
        let forged = probe::run(&stranger, &job);
        assert_ne!(forged.ended_by(), None, "{family:?}: {forged:?}");
        assert_eq!(forged.last().text, "", "{family:?}: {forged:?}");
        assert!(tap.attempts(PORT).is_empty(), "{family:?}: the forged flow was dialled");
        victim.go();
        assert_eq!(victim.connection().last().text, "mine", "{family:?}");
    }
}

/// The source port of the one flow that is under way, once its wire leg is.
fn live_port(pair: &Pair) -> u16 {
    wait_for("an established wire leg", GENEROUS, || {
        let mut command = pair.client.netns.command("ss");
        let filter = ["-Htn", "state", "established", "dport", "=", &format!(":{PORT}")];
        let text = must_succeed(command.args(filter));
        let local = text.split_whitespace().nth(2)?;
        Some(local.rsplit(':').next()?.parse().expect("a port"))
    })
}

/// Somebody else listens where redirected connections go: before the agent does, while it does,
/// and when it is dead.
#[test]
fn a_squatter_on_the_agents_port_gets_nothing() {
    for family in FAMILIES {
        let mut pair = Pair::host();
        let tap = pair.world.tap();
        let marker = marker();
        let squatter_place = pair.world.a.host("squatter");
        let _echo = pair.serve(family, &[Step::Echo]);
        for listen in [agent_address(family), any(family, AGENT_PORT)] {
            // With the agent listening there, the port may be taken, which is an answer too.
            let squat = server(listen, &[Step::Receive(1)]);
            let mut squatter = try_start(&squatter_place, &squat);
            let seen = pair.connect(pair.target(family), &say(&marker));
            assert_eq!(seen.last().text, marker, "{listen}: {seen:?}");

            pair.agent_a.kill();
            if squatter.is_none() {
                squatter = try_start(&squatter_place, &squat);
            }
            let seen = pair.connect(pair.target(family), &say(&marker));
            assert_eq!(seen.error, Some(libc::ECONNREFUSED), "{listen}: {seen:?}");
            assert_eq!(squatter.as_mut().map_or(0, Probe::pending), 0, "{listen}");

            drop(squatter);
            pair.agent_a.launch();
        }
        assert_eq!(tap.sightings(&marker), 0);
    }
}

/// A server that may fail to bind.
fn try_start(place: &Place, job: &Job) -> Option<Probe> {
    let free = place.netns.run(|| {
        let Job::Server { listen, .. } = job else { return false };
        std::net::TcpListener::bind(listen).is_ok()
    });
    free.then(|| Probe::start(place, job))
}

/// Two workloads in one namespace share addresses and ports; what tells them apart is the cgroup
/// the kernel saw at connect().
#[test]
fn another_workload_cannot_borrow_an_identity_by_its_source() {
    let pair = Pair::with(Setting::Host, |a, _| {
        let mut other = a.workloads[0].clone();
        other.name = "other".to_owned();
        other.spiffe_id = Some(spiffe_id("other"));
        other.select = Select::Cgroup(format!("{}/other*", a.capture.cgroup));
        a.workloads.push(other);
    });
    let other = pair.world.a.host("other");
    for family in FAMILIES {
        let mut echo = pair.serve(family, &[Step::Echo]);
        let target = pair.target(family);
        for source in [pair.world.a.addresses.of(family), pair.world.a.extra.of(family)] {
            let bind = Some(SocketAddr::new(source, 42_000));
            let socket = Socket { bind, ..Socket::default() };
            let job = Job::Client { socket, to: target, steps: say("who am I") };
            let honest = probe::run(&pair.client, &job);
            assert_eq!(honest.last().text, "who am I", "{source}: {honest:?}");
            echo.accepted();

            let spoofed = probe::run(&other, &job);
            assert_ne!(spoofed.ended_by(), None, "{source}: {spoofed:?}");
            assert_eq!(spoofed.last().text, "", "{source}: {spoofed:?}");
            assert_eq!(echo.pending(), 0, "{source}: the spoofed client was served");
        }
    }
    let line = pair.agent_b.wait_for_access("the refusal", |line| line.outcome == "denied");
    assert_eq!(line.peer_id, spiffe_id("other"), "{line:?}");
}

/// A process in a cgroup below the workload's is the workload; one beside it is not.
#[test]
fn a_nested_cgroup_is_the_workload_and_a_sibling_is_not() {
    let pair = Pair::with(Setting::Host, |a, _| {
        let cgroup = format!("{}/client", a.capture.cgroup);
        a.workloads[0] = Workload::new("client", &cgroup).outbound("require", &[]);
    });
    let nested = pair.client.cgroup.child("service").child("worker");
    let nested = Place::new(&pair.client.netns, &nested);
    let sibling = pair.world.a.host("client2");
    let mut echo = pair.serve(Family::V4, &[Step::Echo]);
    let target = pair.target(Family::V4);
    let seen = probe::run(&nested, &client(target, &say("I am the workload")));
    assert_eq!(seen.last().text, "I am the workload", "{seen:?}");
    echo.accepted();
    let seen = probe::run(&sibling, &client(target, &say("I am not")));
    assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "plaintext to a strict port: {seen:?}");
    assert_eq!(echo.pending(), 0);
}
