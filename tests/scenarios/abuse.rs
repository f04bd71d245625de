//! Local processes and clients who mean harm: to take somebody's flow, to make the agent work
//! against itself, or to have it give up its post.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sheath_tests::agent::Agent;
use sheath_tests::config::{Limits, Reuse, Sessions};
use sheath_tests::hammer::Hammer;
use sheath_tests::netns::{NetNs, must_succeed};
use sheath_tests::pair::{PORT, Pair, Setting, any, client, configs, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Event, Job, Socket, Step};
use sheath_tests::status::Status;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family, World};
use socket2::{Domain, Type};

/// Where redirected connections go.
const AGENT_PORT: u16 = 15_001;

/// How a TLS record begins that tells why a handshake failed (RFC 8446, section 5.1).
const TLS_ALERT: &[u8] = &[21, 3];

/// A flow is known by where it comes from. A stranger who connects from the same port, only to
/// another address at which the agent can be reached, and who is accepted first, must not be taken
/// for it.
#[test]
fn a_stranger_does_not_get_a_workloads_flow() {
    let pair = Pair::host();
    let stranger = pair.world.a.host("stranger");
    let steps = [Step::ReceiveToEnd, Step::Send("for the client".into())];
    let mut app = pair.serve(Family::V4, &steps);
    let mut doors = listeners(&pair.world.a.netns);
    assert!(!doors.is_empty(), "the agent listens nowhere");
    for address in [[127, 0, 0, 2], [127, 8, 8, 8], [127, 255, 255, 254]] {
        doors.push((Ipv4Addr::from(address), AGENT_PORT).into());
    }
    for (port, door) in (43_000..).zip(doors.into_iter().filter(SocketAddr::is_ipv4)) {
        // Stands for an agent that has many connections to accept: the stranger comes first.
        pair.agent_a.signal(Signal::SIGSTOP);
        let socket = |from: Ipv4Addr| Socket {
            bind: Some((from, port).into()),
            connect_limit: Some(1_000),
            ..Socket::default()
        };
        let mut steps = vec![Step::Pause];
        steps.extend(say("from a stranger"));
        let job = Job::Client { socket: socket(Ipv4Addr::LOCALHOST), to: door, steps };
        let mut thief = Probe::start(&stranger, &job);
        let is_in = thief.expect("the stranger's connect()", GENEROUS, |event| match event {
            Event::Paused(_) => Some(true),
            Event::Connection(_) => Some(false),
            _ => None,
        });
        let to = pair.target(Family::V4);
        let mut steps = vec![Step::Pause];
        steps.extend(say("from the client"));
        let job = Job::Client { socket: socket(Ipv4Addr::UNSPECIFIED), to, steps };
        let mut victim = Probe::start(&pair.client, &job);
        victim.wait_paused();
        pair.agent_a.signal(Signal::SIGCONT);
        if is_in {
            thief.go();
            let seen = thief.connection();
            assert_eq!(seen.last().text, "", "{door}: the stranger was served: {seen:?}");
        }
        victim.go();
        let seen = victim.connection();
        assert_eq!(seen.last().text, "for the client", "{door}: {seen:?}");
        let served = app.connection();
        assert_eq!(served.steps[0].text, "from the client", "{door}: {served:?}");
        app.accepted();
        assert_eq!(app.pending(), 0, "{door}: a flow too many");
    }
    pair.agent_a.wait_for_status("nothing left of any flow", Status::is_idle);
}

/// Taken for an ordinary client, a connection to the inbound listener would be passed on to where
/// it wanted to go: to the inbound listener.
#[test]
fn the_inbound_listener_does_not_dial_itself() {
    let pair = Pair::with(Setting::Pods, |_, b| {
        b.workloads[0].inbound.as_mut().unwrap().mode = "permissive";
    });
    // Without the limit a failure takes the machine with it.
    pair.agent_b.limit_files(1024);
    let neighbour = Place::new(&pair.server.netns, &pair.world.b.host("neighbour").cgroup);
    let before = (pair.agent_b.open_files(), pair.agent_b.access().len());
    let doors = listeners(&pair.server.netns);
    assert!(!doors.is_empty(), "the agent listens nowhere");
    for place in [&neighbour, &pair.server] {
        for &door in &doors {
            let seen =
                probe::run(place, &client(door, &[Step::Send("x".into()), Step::Receive(1)]));
            let turned_away = [libc::ECONNRESET, libc::ECONNREFUSED, libc::EPERM];
            assert!(
                seen.ended_by().is_some_and(|errno| turned_away.contains(&errno)),
                "{door}: {seen:?}"
            );
        }
    }
    pair.agent_b.wait_for_status("nothing left of any flow", Status::is_idle);
    let flows = pair.agent_b.access().len() - before.1;
    assert!(flows <= 2 * doors.len(), "{flows} flows of {} connections", 2 * doors.len());
    wait::wait_until("closed descriptors", GENEROUS, || pair.agent_b.open_files() <= before.0);
    // Strangers who come by the door are passed on as before.
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let outside = pair.world.a.host("stranger");
    let seen = probe::run(&outside, &client(pair.target(Family::V4), &say("plain")));
    assert_eq!(seen.last().text, "plain", "{seen:?}");
}

/// As systemd starts a service with a namespace of its own: first the cgroup, then the namespace.
/// In between, the host's namespace looks like the workload's. That the workload has one of its own is declared.
#[test]
fn a_process_that_passes_through_a_namespace_does_not_take_its_ports() {
    let world = World::new();
    let mut config = configs(&world, Setting::Host).1;
    config.workloads[0].inbound.as_mut().unwrap().namespace = Some("own");
    let agent = Agent::start(&world, &world.b, config);
    let (open, stranger) = (world.b.host("open"), world.a.host("stranger"));
    let _open = Probe::start(&open, &server(any(Family::V4, PORT), &[Step::Echo]));
    let hello = client(world.b.addresses.at(Family::V4, PORT), &say("hello"));
    let is_answered = || probe::run(&stranger, &hello).last().text == "hello";
    assert!(is_answered(), "before there is any workload");

    let pod = world.b.pod(7);
    let here = world.b.host("web");
    let there = Place::new(&pod.netns, &here.cgroup);
    let script = format!("read go; exec nsenter --net={} sleep 600", pod.netns.path());
    let mut command = here.command("sh");
    let mut process = here.spawn(command.args(["-c", &script]).stdin(Stdio::piped()));
    agent.wait_enrolled("web", &here);
    let mut stdin = process.child().stdin.take().expect("the shell's input");
    stdin.write_all(b"\n").expect("telling the shell to go on");
    agent.wait_enrolled("web", &there);

    agent.wait_for_status("the host's namespace to be left alone", |status| {
        status.workload("web").namespaces.iter().all(|n| n.inode == pod.netns.inode())
    });
    wait::wait_until("an answer of the host's service", GENEROUS, is_answered);
    // And where the workload lives now, its port is closed to strangers.
    let mut app = Probe::start(&there, &server(any(Family::V4, PORT), &[Step::Echo]));
    let seen = probe::run(&stranger, &client(pod.addresses.at(Family::V4, PORT), &say("hello")));
    assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
    assert_eq!(app.pending(), 0);
}

/// Connections cost descriptors, and whoever has not proven anything may open as many as they like. It must
/// not cost the agent its place before the port: here the agent bounds them by its own limit.
#[test]
fn many_unproven_connections_do_not_unsteer_a_port() {
    let pair = Pair::new(Setting::Pods);
    // The agent takes its limit into account for every namespace that it begins to serve.
    pair.agent_b.limit_files(pair.agent_b.open_files() as u64 + 200);
    let pod = pair.world.b.pod(20);
    let place = Place::new(&pod.netns, &pair.world.b.host("web-20").cgroup);
    let app = Probe::start(&place, &server(any(Family::V4, PORT), &[Step::Echo]));
    pair.agent_b.wait_enrolled("web", &place);
    besiege(&pair, pod.addresses.at(Family::V4, PORT), pod.netns.inode(), app);
}

/// A host that connects and says nothing takes the places of its own connections, not of others', however many it holds
/// open, and however often it comes. Nor does it take any of the flows that the workload may have.
#[test]
fn a_host_that_says_nothing_delays_nobody_else() {
    const SOON: Duration = Duration::from_secs(3);
    for (family, flows) in FAMILIES.into_iter().zip([None, Some(50)]) {
        let pair = Pair::with(Setting::Pods, |a, b| {
            a.sessions = Sessions::reused(Reuse { per_workload: 0, ..Reuse::default() });
            b.limits = Some(Limits { flows, ..Limits::default() });
        });
        let target = pair.target(family);
        let _echo = pair.serve(family, &[Step::Echo]);
        let stranger = &pair.world.a.netns;
        let mut crowd = connect_many(stranger, target, 1_500);
        for _ in 0..5 {
            // More come while nobody goes.
            crowd.extend(connect_many(stranger, target, 50));
            let start = Instant::now();
            let seen = pair.connect(target, &say("honest"));
            let took = start.elapsed();
            assert_eq!((seen.ended_by(), &*seen.last().text), (None, "honest"), "{seen:?}");
            assert!(took < SOON, "an honest client waited for {took:?}");
        }
        assert!(pair.agent_b.status().counter("unproven_evicted") > 400);
    }
}

/// The same where nothing bounds them: for a while the agent has no descriptor left to look around with.
#[test]
fn want_of_descriptors_does_not_unsteer_a_port() {
    let pair = Pair::new(Setting::Pods);
    let app = pair.serve(Family::V4, &[Step::Echo]);
    pair.agent_b.limit_files(pair.agent_b.open_files() as u64 + 200);
    besiege(&pair, pair.target(Family::V4), pair.server.netns.inode(), app);
}

fn besiege(pair: &Pair, target: SocketAddr, inode: u64, mut app: Probe) {
    assert_eq!(pair.connect(target, &say("before")).last().text, "before");
    app.accepted();
    let stranger = &pair.world.a.netns;
    let crowd = connect_many(stranger, target, 900);
    // Long enough for the agent to look many times, and to let go of a namespace that it sees nobody in.
    for _ in 0..14 {
        thread::sleep(Duration::from_secs(1));
        let mut plain = connect_many(stranger, target, 40);
        thread::sleep(Duration::from_millis(100));
        for socket in &mut plain {
            let _ = socket.write_all(b"in the clear");
        }
        thread::sleep(Duration::from_millis(100));
        for socket in &mut plain {
            let mut answer = [0; 64];
            let length = socket.read(&mut answer).unwrap_or(0);
            let answer = &answer[..length];
            let refused = answer.is_empty() || answer.starts_with(TLS_ALERT);
            assert!(refused, "a stranger was answered: {}", answer.escape_ascii());
        }
        assert_eq!(app.pending(), 0, "a stranger reached the application");
    }
    drop(crowd);
    pair.agent_b.wait_for_status("the port to be steered as ever", |status| {
        status.workload("web").namespaces.iter().any(|n| n.inode == inode && n.ready)
    });
    let mut honest = Hammer::start(&pair.client, target, "after");
    honest.succeed(3);
}

/// Non-blocking sockets on their way to `to`, established or not.
fn connect_many(from: &NetNs, to: SocketAddr, count: usize) -> Vec<socket2::Socket> {
    let connect = || {
        let socket =
            socket2::Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        let _ = socket.connect(&to.into());
        socket
    };
    from.run(|| std::iter::repeat_with(connect).take(count).collect())
}

/// Where somebody listens on loopback, in a namespace in which only the agent does.
fn listeners(netns: &NetNs) -> Vec<SocketAddr> {
    let text = must_succeed(netns.command("ss").args(["-Hltn"]));
    let local = |line: &str| line.split_whitespace().nth(3)?.parse::<SocketAddr>().ok();
    text.lines().filter_map(local).filter(|local| local.ip().is_loopback()).collect()
}
