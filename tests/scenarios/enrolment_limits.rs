//! Promise 1 where enrolment comes to its limits: what cannot be recorded as a workload is refused.

use std::sync::Arc;

use sheath_tests::agent::Agent;
use sheath_tests::cgroup::Cgroup;
use sheath_tests::config::{Select, Workload};
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, Setting, any, client, configs, say, server};
use sheath_tests::pins;
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Connection, Job, Socket, Step};
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family, Node, World};

const OPEN_PORT: u16 = 9090;
const PUBLIC_PORT: u16 = 9091;

/// A wildcard takes components of 255 bytes, and the kernel's tracepoint no path of more than 1 023.
#[test]
fn a_cgroup_whose_path_is_too_long_to_be_matched_is_refused() {
    for alive in [true, false] {
        let world = World::new();
        let mut config = configs(&world, Setting::Host).0;
        let pattern = format!("{}/*/*/*", config.capture.cgroup);
        config.workloads[0].select = Select::Cgroup(pattern);
        config.workloads[0] = inbound(config.workloads[0].clone());
        let before = deep(&world.a, "b");
        let mut agent = Agent::start(&world, &world.a, config);
        if !alive {
            agent.kill();
        }
        let later = deep(&world.a, "c");
        // What is far below is in the same workload, if it is in one.
        let below = deep_below(&later, "d");
        let tap = world.tap();
        let secret = marker();
        for cgroup in [&before, &later, &below] {
            let context = format!("alive: {alive}, {} bytes", cgroup.relative().len());
            assert_refused(&world, &Place::new(&world.a.netns, cgroup), &secret, &context);
        }
        assert_eq!(tap.sightings(&secret), 0, "alive: {alive}");
        if alive {
            agent.wait_for_status("the long paths to be told of", |status| {
                let workload = status.workload("client");
                workload.state == "degraded" && workload.reason.contains("510 bytes")
            });
        }
    }
}

#[test]
fn a_cgroup_that_there_is_no_room_to_record_is_refused_until_there_is() {
    let mut pair = Pair::with(Setting::Host, |a, _| {
        a.workloads[0] = inbound(a.workloads[0].clone());
    });
    let tap = pair.world.tap();
    let (secret, public) = (marker(), marker());
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let older = Place::new(&pair.client.netns, &pair.world.a.host("older").cgroup);
    let filling = pins::fill(pair.agent_a.instance(), "WORKLOADS");
    let later = Place::new(&pair.client.netns, &pair.world.a.host("client-later").cgroup);
    assert_refused(&pair.world, &later, &secret, "no room");
    pair.agent_a.wait_for_status("the lack of room to be told of", |status| {
        let workload = status.workload("client");
        workload.state == "degraded" && workload.reason.contains("no room for more")
    });
    assert_refused(&pair.world, &later, &secret, "no room, and seen by the agent");
    pair.agent_a.kill();
    let last = Place::new(&pair.client.netns, &pair.world.a.host("client-last").cgroup);
    assert_refused(&pair.world, &last, &secret, "no room, and no agent");
    // Whoever was there before, and is no workload, is left alone.
    let open = server(any(Family::V4, PUBLIC_PORT), &[Step::Echo]);
    let _open = Probe::start(&pair.world.b.host("public"), &open);
    let to = pair.world.b.addresses.at(Family::V4, PUBLIC_PORT);
    let seen = probe::run(&older, &client(to, &say(&public)));
    assert_eq!(seen.last().text, public, "{seen:?}");

    pair.agent_a.launch();
    assert_refused(&pair.world, &last, &secret, "no room, and a new agent");
    filling.clear();
    for place in [&later, &last] {
        wait::wait_until("the workload to be served", GENEROUS, || {
            let seen = probe::run(place, &client(pair.target(Family::V4), &say(&secret)));
            seen.last().text == secret
        });
    }
    // And so is whoever is new, and no workload.
    let newer = Place::new(&pair.client.netns, &pair.world.a.host("newer").cgroup);
    wait::wait_until("nobody to be in doubt", GENEROUS, || {
        probe::run(&newer, &client(to, &say(&public))).last().text == public
    });
    assert!(tap.sightings(&public) > 0, "the tap must see what is not protected");
    assert_eq!(tap.sightings(&secret), 0);
}

/// Whoever makes many cgroups must not get the identity of the workload round his own.
#[test]
fn a_workload_within_another_that_there_is_no_room_to_record_is_not_taken_for_the_outer() {
    let pair = Pair::with(Setting::Host, |a, _| {
        let mut inner = a.workloads[0].clone();
        inner.name = "inner".to_owned();
        inner.select = Select::Cgroup(format!("{}/client/inner*", a.capture.cgroup));
        a.workloads.push(inner);
    });
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let filling = pins::fill(pair.agent_a.instance(), "WORKLOADS");
    let inner = Place::new(&pair.client.netns, &pair.client.cgroup.child("inner-1"));
    for _ in 0..3 {
        let seen = probe::run(&inner, &client(pair.target(Family::V4), &say("who am I")));
        assert_eq!(seen.error, Some(libc::EPERM), "{seen:?}");
    }
    // The outer workload's own processes are served as before.
    pair.assert_served();
    filling.clear();
    wait::wait_until("the inner workload to be recorded", GENEROUS, || {
        let status = pair.agent_a.status();
        status.workload("inner").cgroups.iter().any(|cgroup| cgroup.id == inner.cgroup.id())
    });
}

/// Strict on every port that a workload is asked for here, too.
fn inbound(workload: Workload) -> Workload {
    workload.inbound("strict", Some(&[PORT]), &["nobody"])
}

/// Nobody gets out in the clear, and nobody in.
#[track_caller]
fn assert_refused(world: &World, place: &Place, secret: &str, context: &str) {
    for family in FAMILIES {
        let open = server(any(family, OPEN_PORT), &[Step::Echo]);
        let _open = Probe::start(&world.b.host("open"), &open);
        let to = world.b.addresses.at(family, OPEN_PORT);
        let seen = probe::run(place, &client(to, &say(secret)));
        assert!(seen.ended_by().is_some(), "{context} {family:?}: {seen:?}");
        let steps = [Step::Send(secret.to_owned()), Step::ReceiveToEnd];
        let mut app = Probe::start(place, &server(any(family, PORT), &steps));
        let socket = Socket { connect_limit: Some(500), ..Socket::default() };
        let to = world.a.addresses.at(family, PORT);
        let job = Job::Client { socket, to, steps: say("let me in") };
        let seen: Connection = probe::run(&world.b.host("stranger"), &job);
        assert!(seen.ended_by().is_some(), "{context} {family:?}: {seen:?}");
        assert_eq!(app.pending(), 0, "{context} {family:?}: the application was reached");
    }
}

/// Three levels below the node's cgroup, with a path of more than 510 bytes.
fn deep(node: &Node, letter: &str) -> Arc<Cgroup> {
    let outer = node.cgroup.child(format!("{letter}{}", "o".repeat(254)));
    outer.child(format!("m{}", "m".repeat(200))).child(format!("i{}", "i".repeat(200)))
}

/// And with one of more than the kernel's tracepoints show.
fn deep_below(cgroup: &Arc<Cgroup>, letter: &str) -> Arc<Cgroup> {
    cgroup.child(letter.repeat(250)).child(letter.repeat(250))
}
