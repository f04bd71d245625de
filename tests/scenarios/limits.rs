//! What one workload may take of the agent. Whoever wants more is refused or slowed down, and nobody else notices.

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use sheath_tests::agent::Agent;
use sheath_tests::config::{Config, Limits, Peer, Reuse, Sessions, Workload, spiffe_id};
use sheath_tests::hammer::Hammer;
use sheath_tests::live::LiveFlow;
use sheath_tests::pair::{PORT, Pair, SERVER_NETWORKS, Setting, any, client, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Event, Job, ListenerOptions, Step};
use sheath_tests::serial;
use sheath_tests::status::Status;
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::Family;

const LONG: Duration = Duration::from_secs(120);

/// How long what is not to be slowed down may take, on a busy machine.
const SOON: Duration = Duration::from_secs(4);

/// A workload beside the pair's client, and one beside its server, on ports of their own.
struct Scene {
    pair: Pair,
    neighbour: Place,
    _neighbour: Probe,
}

impl Scene {
    fn new(change: impl FnOnce(&mut Config, &mut Config)) -> Self {
        let pair = Pair::with(Setting::Host, |a, b| {
            let cgroup = format!("{}/neighbour", a.capture.cgroup);
            a.workloads.push(Workload::new("neighbour", &cgroup).outbound("require", &[]));
            let inbound = b.workloads[0].inbound.as_mut().expect("an inbound mode");
            inbound.allow.push(spiffe_id("neighbour"));
            change(a, b);
        });
        let neighbour = pair.world.a.host("neighbour");
        let resident = Probe::start(&neighbour, &Job::Idle);
        pair.agent_a.wait_enrolled("neighbour", &neighbour);
        Self { pair, neighbour, _neighbour: resident }
    }

    /// The other workload is served as ever.
    #[track_caller]
    fn assert_neighbour_is_served(&self) {
        let start = Instant::now();
        let job = client(self.pair.target(Family::V4), &say("neighbour"));
        let seen = probe::run(&self.neighbour, &job);
        assert_eq!((seen.ended_by(), &*seen.last().text), (None, "neighbour"), "{seen:?}");
        assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    }
}

fn limits(flows: Option<usize>, handshakes_per_second: Option<u32>) -> Option<Limits> {
    Some(Limits { flows, handshakes_per_second, buffers: None })
}

#[test]
fn flows_beyond_the_limit_are_reset_at_once_and_those_before_go_on() {
    const FLOWS: usize = 4;
    let scene = Scene::new(|a, _| a.limits = limits(Some(FLOWS), None));
    let pair = &scene.pair;
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let to = pair.target(Family::V4);
    let mut flows: Vec<_> = (0..FLOWS).map(|_| LiveFlow::start(&pair.client, to)).collect();
    for round in 1..=3 {
        let start = Instant::now();
        pair.assert_refused();
        assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
        assert_eq!(pair.agent_a.status().counter("flows_refused"), round);
    }
    let line = pair.agent_a.wait_for_access("the refusal", |line| line.outcome == "refused");
    assert!(line.reason.contains("has 4 connections open"), "{line:?}");
    scene.assert_neighbour_is_served();
    for flow in &mut flows {
        flow.assert_alive();
    }
    // A place that is given up is there for the next.
    flows.pop().expect("a flow").finish();
    pair.agent_a
        .wait_for_status("its end", |status| status.workload("client").flows == FLOWS as u64 - 1);
    pair.assert_served();
    flows.into_iter().for_each(LiveFlow::finish);
}

#[test]
fn a_server_takes_no_more_flows_than_it_may() {
    const FLOWS: usize = 3;
    let scene = Scene::new(|_, b| b.limits = limits(Some(FLOWS), None));
    let pair = &scene.pair;
    let mut app = pair.serve(Family::V4, &[Step::Echo]);
    let to = pair.target(Family::V4);
    let flows: Vec<_> = (0..FLOWS).map(|_| LiveFlow::start(&pair.client, to)).collect();
    flows.iter().for_each(|_| {
        app.accepted();
    });
    pair.assert_refused();
    assert_eq!(app.pending(), 0, "the application was reached");
    assert!(pair.agent_b.status().counter("flows_refused") > 0);
    flows.into_iter().for_each(LiveFlow::finish);
}

/// A burst of a second's worth is free. What comes then waits for its turn, and only in its own workload.
#[test]
fn handshakes_beyond_the_rate_wait_and_others_do_not() {
    const RATE: u32 = 10;
    const FLOWS: usize = 80;
    for at_client in [true, false] {
        let scene = Scene::new(|a, b| {
            // Without reuse each flow has a handshake.
            for config in [&mut *a, &mut *b] {
                config.sessions = Sessions::reused(Reuse { per_workload: 0, ..Reuse::default() });
            }
            let limited = if at_client { a } else { b };
            limited.limits = limits(None, Some(RATE));
        });
        let pair = &scene.pair;
        let _echo = pair.serve(Family::V4, &[Step::Echo]);
        let to = pair.target(Family::V4);
        let start = Instant::now();
        let mut crowd = Probe::start(&pair.client, &Job::Crowd { to, count: FLOWS });
        thread::sleep(Duration::from_millis(500));
        // The workload that is limited is the client's at A, and the server's at B: there all clients wait.
        if at_client {
            scene.assert_neighbour_is_served();
        }
        let tally = crowd.tally(LONG);
        assert!(tally.errors.is_empty(), "{tally:?}");
        // Ten at once, seventy at ten per second.
        assert!(start.elapsed() > Duration::from_millis(6_500), "{:?}", start.elapsed());
        let agent = if at_client { &pair.agent_a } else { &pair.agent_b };
        let status = agent.status();
        assert!(status.counter("handshakes_delayed") >= 20, "{:?}", status.counters);
        assert_eq!(status.counter("handshakes_refused"), 0);
    }
}

/// Nobody waits for longer than a handshake may take.
#[test]
fn handshakes_that_would_have_to_wait_for_too_long_are_refused() {
    let scene = Scene::new(|a, _| {
        a.sessions = Sessions::reused(Reuse { per_workload: 0, ..Reuse::default() });
        a.limits = limits(None, Some(2));
        a.timeouts.handshake = "2s";
    });
    let pair = &scene.pair;
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let to = pair.target(Family::V4);
    let start = Instant::now();
    let mut crowd = Probe::start(&pair.client, &Job::Crowd { to, count: 40 });
    thread::sleep(Duration::from_millis(300));
    scene.assert_neighbour_is_served();
    let tally = crowd.tally(LONG);
    // Were there no end to waiting, the last of forty would be served after nineteen seconds.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    // Two at once, and two for each second that one may wait.
    assert!((4..12).contains(&tally.ok), "{tally:?}");
    assert!(tally.errors.iter().all(|&errno| errno == libc::ECONNRESET), "{tally:?}");
    let status = pair.agent_a.status();
    assert_eq!(status.counter("handshakes_refused"), tally.errors.len() as u64);
    let line = pair.agent_a.wait_for_access("a refusal", |line| line.outcome == "refused");
    assert!(line.reason.contains("more than 2 handshakes per second"), "{line:?}");
    wait::wait_until("a place", GENEROUS, || {
        pair.connect(to, &say("later")).last().text == "later"
    });
}

/// Readers that do not read make nobody else slow, and nothing is lost when they do.
#[test]
fn buffers_are_bounded_and_transfers_beyond_are_whole() {
    const TRANSFERS: usize = 48;
    const BYTES: u64 = 8 << 20;
    let _heavy = serial::heavy();
    let scene = Scene::new(|a, b| {
        for config in [a, b] {
            config.limits = Some(Limits { buffers: Some("1MiB"), ..Limits::default() });
        }
    });
    let pair = &scene.pair;
    let before = [&pair.agent_a, &pair.agent_b].map(|agent| agent.resident_bytes());
    let job = Job::Server {
        listen: any(Family::V4, PORT),
        socket: ListenerOptions { small_buffer: true, ..ListenerOptions::default() },
        steps: vec![Step::Pause, Step::Exchange { bytes: 1, seed: 3 }],
    };
    let mut stuck = Probe::start(&pair.server, &job);
    let to = pair.target(Family::V4);
    let mut senders: Vec<_> = (0..TRANSFERS)
        .map(|number| {
            let steps = [Step::Exchange { bytes: BYTES, seed: 100 + number as u64 }];
            Probe::start(&pair.client, &client(to, &steps))
        })
        .collect();
    for _ in 0..TRANSFERS {
        stuck.wait_paused();
    }
    // Until nothing moves any more.
    let mut last = u64::MAX;
    wait::wait_until("a standstill", LONG, || {
        let now = pair.agent_b.status().counter("buffered_bytes");
        thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut last, now) == now
    });
    for (agent, before) in [&pair.agent_a, &pair.agent_b].into_iter().zip(before) {
        let status = agent.status();
        // A record's worth for each direction that moves, and the limit.
        let bound = (1 << 20) + 3 * TRANSFERS as u64 * 17_000;
        assert!(status.counter("buffered_bytes") < bound, "{:?}", status.counters);
        let resident = agent.resident_bytes();
        assert!(resident < before + (48 << 20), "{before} bytes of memory before, {resident} now");
    }
    stuck.go();
    let mut sent: Vec<String> = Vec::new();
    for sender in &mut senders {
        let seen = sender.connection_within(LONG);
        assert_eq!(seen.ended_by(), None, "{seen:?}");
        sent.push(seen.last().sent_digest);
    }
    let mut received: Vec<String> = Vec::new();
    for _ in 0..TRANSFERS {
        let served = stuck.connection_within(LONG);
        assert_eq!((served.ended_by(), served.last().bytes), (None, BYTES), "{served:?}");
        received.push(served.last().received_digest);
    }
    sent.sort();
    received.sort();
    assert_eq!(sent, received);
    let capped =
        [&pair.agent_a, &pair.agent_b].map(|agent| agent.status().counter("buffers_capped"));
    assert!(capped.iter().any(|&capped| capped > 0), "{capped:?}");
    for agent in [&pair.agent_a, &pair.agent_b] {
        agent.wait_for_status("buffers given back", |status| {
            status.is_idle() && status.counter("buffered_bytes") == 0
        });
    }
}

/// Without descriptors nothing new can begin. That is said at once, and passes.
#[test]
fn a_client_without_descriptors_resets_new_flows_and_old_ones_go_on() {
    assert_descriptors_are_done_without(|pair| &pair.agent_a, Family::V4);
}

#[test]
fn a_server_without_descriptors_resets_new_flows_and_old_ones_go_on() {
    assert_descriptors_are_done_without(|pair| &pair.agent_b, Family::V6);
}

fn assert_descriptors_are_done_without(poor: fn(&Pair) -> &Agent, family: Family) {
    let pair = Pair::with(Setting::Host, |a, b| {
        for config in [a, b] {
            config.sessions = Sessions::reused(Reuse { per_workload: 0, ..Reuse::default() });
        }
    });
    let poor = poor(&pair);
    let _echo = pair.serve(family, &[Step::Echo]);
    let to = pair.target(family);
    let mut old = LiveFlow::start(&pair.client, to);
    poor.limit_files(poor.open_files() as u64 + 40);
    let steps = [Step::Send("ab".into()), Step::Receive(2), Step::Pause, Step::ReceiveToEnd];
    let mut held: Vec<Probe> = Vec::new();
    let (errno, took) = loop {
        assert!(held.len() < 60, "the limit is not reached");
        let start = Instant::now();
        let mut probe = Probe::start(&pair.client, &client(to, &steps));
        let end = probe.expect("a pause or the end", GENEROUS, |event| match event {
            Event::Paused(_) => Some(None),
            Event::Connection(seen) => Some(Some(seen.ended_by())),
            _ => None,
        });
        match end {
            None => held.push(probe),
            Some(errno) => break (errno, start.elapsed()),
        }
    };
    assert_eq!(errno, Some(libc::ECONNRESET));
    assert!(took < SOON, "it took {took:?}");
    // A flow takes two descriptors: there may be one that helps nobody. These take what there is, and say nothing.
    let visitors = [poor.visit(), poor.visit()];
    for _ in 0..3 {
        let start = Instant::now();
        let seen = pair.connect(to, &say("hello"));
        assert_eq!((seen.ended_by(), &*seen.last().text), (Some(libc::ECONNRESET), ""), "{seen:?}");
        assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    }
    old.assert_alive();
    drop(visitors);
    held.truncate(held.len() / 2);
    wait::wait_until("new flows", GENEROUS, || {
        pair.connect(to, &say("again")).last().text == "again"
    });
    old.finish();
    let status = poor.status();
    assert!(status.counter("connections_shed") >= 3, "{:?}", status.counters);
    drop(held);
    for agent in [&pair.agent_a, &pair.agent_b] {
        agent.wait_for_status("nothing left of any flow", Status::is_idle);
    }
}

/// A process with few descriptors is as good as many pods.
#[test]
fn two_greedy_workloads_leave_a_third_some_of_what_the_descriptors_allow() {
    const DESCRIPTORS: usize = 700;
    let pair = Pair::with_world(Setting::Host, |world, a, b| {
        let script = world.dir.path().join("few-descriptors");
        let text =
            format!("#!/bin/sh\nulimit -n {DESCRIPTORS}\nexec {} \"$@\"\n", a.binary.display());
        fs::write(&script, text).expect("a script");
        fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("a script");
        a.binary = script;
        for name in ["neighbour", "newcomer"] {
            let cgroup = format!("{}/{name}", a.capture.cgroup);
            a.workloads.push(Workload::new(name, &cgroup).outbound("require", &[]));
            b.workloads[0].inbound.as_mut().expect("a mode").allow.push(spiffe_id(name));
        }
    });
    let places = ["neighbour", "newcomer"].map(|name| pair.world.a.host(name));
    let _residents = places.each_ref().map(|place| Probe::start(place, &Job::Idle));
    for (name, place) in ["neighbour", "newcomer"].iter().zip(&places) {
        pair.agent_a.wait_enrolled(name, place);
    }
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let to = pair.target(Family::V4);
    let steps = [Step::Send("ab".into()), Step::Receive(2), Step::Pause, Step::ReceiveToEnd];
    // As many connections as there are to be had, all of them open.
    let take = |place: &Place| {
        let mut held: Vec<Probe> = Vec::new();
        while held.len() < DESCRIPTORS {
            let mut probe = Probe::start(place, &client(to, &steps));
            let is_served = probe.expect("a pause or the end", GENEROUS, |event| match event {
                Event::Paused(_) => Some(true),
                Event::Connection(_) => Some(false),
                _ => None,
            });
            if !is_served {
                return held;
            }
            held.push(probe);
        }
        panic!("there is no limit");
    };
    let (first, second) = (take(&pair.client), take(&places[0]));
    let third = take(&places[1]);
    let counts = [&first, &second, &third].map(Vec::len);
    assert!(counts[0] > counts[1] && counts[1] >= counts[2] && counts[2] >= 2, "{counts:?}");
    let line = pair.agent_a.wait_for_access("a refusal", |line| {
        line.workload == "newcomer" && line.outcome == "refused"
    });
    assert!(line.reason.contains("is left to others"), "{line:?}");
    // Who gives up what is held has it again.
    drop(first);
    pair.agent_a.wait_for_status("room", |status| status.workload("client").flows == 0);
    pair.assert_served();
}

/// In one namespace: strangers at one workload's port, who never say anything, and clients of another.
#[test]
fn silent_strangers_of_one_workload_do_not_hold_up_the_clients_of_another() {
    const QUIET_PORT: u16 = 9191;
    let pair = Pair::with(Setting::Host, |a, b| {
        a.peers = vec![Peer::new(&SERVER_NETWORKS, &["web", "quiet"])];
        let cgroup = format!("{}/quiet", b.capture.cgroup);
        let quiet = Workload::new("quiet", &cgroup);
        b.workloads.push(quiet.inbound("strict", Some(&[QUIET_PORT]), &["client"]));
        b.sessions = Sessions::reused(Reuse { per_workload: 0, ..Reuse::default() });
        b.timeouts.handshake = "20s";
    });
    let quiet = pair.world.b.host("quiet");
    let _quiet = Probe::start(&quiet, &server(any(Family::V4, QUIET_PORT), &[Step::Echo]));
    pair.agent_b.wait_enrolled("quiet", &quiet);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let besieged = pair.server_addresses.at(Family::V4, QUIET_PORT);
    let connect = || TcpStream::connect(besieged).expect("a connection to the agent");
    // More than may wait for their turn at once.
    let strangers: Vec<_> =
        pair.world.a.netns.run(|| std::iter::repeat_with(connect).take(1_500).collect());
    pair.agent_b.wait_for_status("the siege", |status| status.workload("quiet").flows >= 1_000);
    let mut honest = Hammer::start(&pair.client, pair.target(Family::V4), "honest");
    for attempt in honest.succeed(30) {
        assert_eq!(attempt.error, None, "{attempt:?}");
        assert!(attempt.milliseconds < 2_000, "{attempt:?}");
    }
    assert!(pair.agent_b.status().workload("quiet").flows >= 1_000, "the siege is over too soon");
    drop(strangers);
    // And the besieged are free again.
    let mut late = Hammer::start(&pair.client, besieged, "late");
    late.succeed(3);
}
