//! The configuration is read again while everything runs: as a whole, or not at all.

use std::net::SocketAddr;

use nix::sys::signal::Signal;
use sheath_tests::config::{Outbound, Peer, Workload, WorkloadIdentity};
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, Setting, any, client, living, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, Step};
use sheath_tests::wait::{GENEROUS, wait_for};
use sheath_tests::world::{FAMILIES, Family};

/// A port that the usual scene does not protect.
const OTHER_PORT: u16 = 9090;

fn other_target(pair: &Pair, family: Family) -> SocketAddr {
    pair.server_addresses.at(family, OTHER_PORT)
}

fn serve_other(pair: &Pair, family: Family) -> Probe {
    Probe::start(&pair.server, &server(any(family, OTHER_PORT), &[Step::Echo]))
}

/// A connection that goes on throughout, and one step of it.
fn bystander(pair: &Pair) -> Probe {
    let mut probe = Probe::start(&pair.client, &client(pair.target(Family::V4), &living()));
    probe.wait_paused();
    probe
}

#[test]
fn a_port_and_a_peer_are_added_and_removed_while_others_go_on() {
    let mut pair = Pair::host();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let mut bystander = bystander(&pair);
    let tap = pair.world.tap();
    for family in FAMILIES {
        let _other = serve_other(&pair, family);
        // An unprotected port of the server: a TLS client finds no TLS there.
        let seen = pair.connect(other_target(&pair, family), &say("too early"));
        assert_ne!(seen.last().text, "too early", "{family:?}: {seen:?}");

        let ports = |ports: &'static [u16]| {
            move |b: &mut sheath_tests::config::Config| {
                let inbound = b.workloads[0].inbound.as_mut().expect("an inbound mode");
                inbound.ports = Some(ports.to_vec());
            }
        };
        let output = pair.agent_b.reload(ports(&[PORT, OTHER_PORT]));
        assert!(output.status.success(), "{output:?}");
        let marker = marker();
        wait_for("the new port", GENEROUS, || {
            let seen = pair.connect(other_target(&pair, family), &say(&marker));
            (seen.last().text == marker).then_some(())
        });
        assert_eq!(tap.sightings(&marker), 0);

        let output = pair.agent_b.reload(ports(&[PORT]));
        assert!(output.status.success(), "{output:?}");
        wait_for("the port given back", GENEROUS, || {
            let seen = pair.connect(other_target(&pair, family), &say(&marker));
            (seen.last().text != marker).then_some(())
        });
    }
    bystander.go();
    let seen = bystander.connection();
    assert_eq!(seen.last().text, "cd", "{seen:?}");
}

#[test]
fn a_workload_is_added_and_removed() {
    let mut pair = Pair::host();
    let late = pair.world.a.host("late");
    let _resident = Probe::start(&late, &Job::Idle);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let target = pair.target(Family::V4);
    let dial = |place: &Place| probe::run(place, &client(target, &say("late")));
    assert_ne!(dial(&late).ended_by(), None, "plaintext to a strict port");
    let cgroup = format!("{}/late", pair.agent_a.config().capture.cgroup);
    let output = pair.agent_b.reload(|b| {
        let inbound = b.workloads[0].inbound.as_mut().expect("an inbound mode");
        inbound.allow.push(sheath_tests::config::spiffe_id("late"));
    });
    assert!(output.status.success(), "{output:?}");
    let output = pair
        .agent_a
        .reload(|a| a.workloads.push(Workload::new("late", &cgroup).outbound("require", &[])));
    assert!(output.status.success(), "{output:?}");
    // In force when the command has returned.
    let seen = dial(&late);
    assert_eq!(seen.last().text, "late", "{seen:?}");
    let refused = probe::run(&late, &client(other_target(&pair, Family::V4), &say("late")));
    assert_ne!(refused.ended_by(), None, "require lets nothing else out: {refused:?}");

    let output = pair.agent_a.reload(|a| {
        a.workloads.pop();
    });
    assert!(output.status.success(), "{output:?}");
    assert_ne!(dial(&late).ended_by(), None, "protected although it is no workload any more");
    assert!(pair.agent_a.status().workloads.iter().all(|workload| workload.name != "late"));
}

#[test]
fn what_does_not_fit_is_refused_as_a_whole_with_its_reason() {
    let mut pair = Pair::host();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let own = pair.agent_a.cgroup().relative();
    let good = pair.agent_a.config().clone();
    type Change = Box<dyn Fn(&mut sheath_tests::config::Config)>;
    let mistakes: [(Change, &str); 4] = [
        (Box::new(|a| a.node = "other".to_owned()), "node has changed, which takes a restart"),
        (Box::new(|a| a.workloads[0].spiffe_id = None), "spiffeId"),
        (Box::new(|a| a.embedded_ca().dir = "/nowhere".to_owned()), "/nowhere"),
        (
            Box::new(move |a| a.workloads.push(Workload::new("agent", &own))),
            "selects the cgroup of the agent itself",
        ),
    ];
    let mut bystander = bystander(&pair);
    for (mistake, reason) in mistakes {
        let output = pair.agent_a.reload(|a| {
            // Something that would be harmless by itself must not be applied either.
            a.peers = Vec::new();
            mistake(a);
        });
        assert_eq!(output.status.code(), Some(1), "{reason}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(reason), "{said}");
        let seen = pair.connect(pair.target(Family::V4), &say("still here"));
        assert_eq!(seen.last().text, "still here", "{reason}: {seen:?}");
        pair.agent_a.reconfigure(|a| *a = good.clone());
    }
    bystander.go();
    let seen = bystander.connection();
    assert_eq!(seen.last().text, "cd", "cut by a reload that was refused: {seen:?}");
}

/// What changes about a workload's source is no reason to take its identity from it.
#[test]
fn a_source_that_changes_disturbs_nothing() {
    let mut pair = Pair::host();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let mut bystander = bystander(&pair);
    let output = pair
        .agent_a
        .reload(|a| a.workloads[0].identity = Some(WorkloadIdentity::Ca { svid_ttl: "2h" }));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(pair.connect(pair.target(Family::V4), &say("x")).last().text, "x");
    bystander.go();
    let seen = bystander.connection();
    assert_eq!(seen.last().text, "cd", "{seen:?}");
}

/// What a port let through while it was permissive ends when it is strict.
#[test]
fn plaintext_that_passed_ends_when_a_port_becomes_strict() {
    let mut pair = Pair::with(Setting::Host, |_, b| {
        b.workloads[0].inbound.as_mut().expect("an inbound mode").mode = "permissive";
    });
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let stranger = pair.world.a.host("stranger");
    let steps = [Step::Send("ab".into()), Step::Receive(2), Step::Pause, Step::ReceiveToEnd];
    let mut passing = Probe::start(&stranger, &client(pair.target(Family::V4), &steps));
    passing.wait_paused();
    let mut protected = bystander(&pair);
    let output = pair.agent_b.reload(|b| {
        b.workloads[0].inbound.as_mut().expect("an inbound mode").mode = "strict";
    });
    assert!(output.status.success(), "{output:?}");
    passing.go();
    let seen = passing.connection();
    assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
    protected.go();
    assert_eq!(protected.connection().last().text, "cd");
}

/// `existing: reset` means connections that are older than their protection, also where that comes later.
#[test]
fn connections_older_than_a_stricter_mode_are_reset_where_configured() {
    let mut pair = Pair::with(Setting::Host, |a, _| {
        a.workloads[0].outbound = None;
        a.workloads[0].existing = Some("reset");
    });
    let place = pair.world.b.host("plain");
    let _echo = Probe::start(&place, &server(any(Family::V4, OTHER_PORT), &[Step::Echo]));
    let steps = [Step::Send("ab".into()), Step::Receive(2), Step::Pause, Step::ReceiveToEnd];
    let mut old = Probe::start(&pair.client, &client(other_target(&pair, Family::V4), &steps));
    old.wait_paused();
    let output = pair.agent_a.reload(|a| {
        a.workloads[0].outbound = Some(Outbound { mode: "require", bypass: Vec::new() });
    });
    assert!(output.status.success(), "{output:?}");
    old.go();
    let seen = old.connection();
    assert_ne!(seen.ended_by(), None, "{seen:?}");
}

/// A workload that is taken out is given back, whatever trouble another one has.
#[test]
fn a_removed_workload_is_given_back_also_when_another_one_is_degraded() {
    let mut pair = Pair::with(Setting::Host, |a, _| {
        // Two workloads of one port in one namespace: the second is degraded.
        let cgroup = |name: &str| format!("{}/{name}", a.capture.cgroup);
        let (first, second) = (cgroup("first"), cgroup("second"));
        for (name, cgroup) in [("first", first), ("second", second)] {
            a.workloads.push(Workload::new(name, &cgroup).inbound("strict", Some(&[7777]), &["x"]));
        }
    });
    let _residents =
        ["first", "second"].map(|name| Probe::start(&pair.world.a.host(name), &Job::Idle));
    pair.agent_a.wait_for_status("a degraded workload", |status| {
        status.workloads.iter().any(|workload| workload.state == "degraded")
    });
    let place = pair.world.b.host("plain");
    let _echo = Probe::start(&place, &server(any(Family::V4, OTHER_PORT), &[Step::Echo]));
    let target = other_target(&pair, Family::V4);
    assert_ne!(pair.connect(target, &say("x")).ended_by(), None, "require lets it out");
    let output = pair.agent_a.reload(|a| a.workloads.retain(|workload| workload.name != "client"));
    assert!(output.status.success(), "{output:?}");
    let seen = pair.connect(target, &say("x"));
    assert_eq!(seen.last().text, "x", "{seen:?}");
}

/// A path can come to lead anywhere while the agent runs with all its memory locked.
#[test]
fn a_reload_reads_no_device_and_waits_for_no_fifo() {
    let pair = Pair::host();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let file = pair.agent_a.file();
    let before = pair.agent_a.resident_bytes();
    let fifo = || nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let device = || std::os::unix::fs::symlink("/dev/zero", file).unwrap();
    let cases: [(&dyn Fn(), &str); 2] = [(&fifo, "it is a FIFO"), (&device, "it is a device")];
    for (make, reason) in cases {
        std::fs::remove_file(file).unwrap();
        make();
        let output = pair.agent_a.sheath("reload", &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason), "{said}");
        assert!(pair.agent_a.resident_bytes() < before + (16 << 20), "{reason}");
        assert_eq!(pair.connect(pair.target(Family::V4), &say("x")).last().text, "x", "{reason}");
    }
}

#[test]
fn sighup_reloads_as_well() {
    let mut pair = Pair::host();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    pair.agent_a.reconfigure(|a| a.peers = vec![Peer::new(&["10.0.2.0/24"], &["somebody-else"])]);
    assert_eq!(pair.connect(pair.target(Family::V4), &say("x")).last().text, "x");
    pair.agent_a.signal(Signal::SIGHUP);
    wait_for("the new peers", GENEROUS, || {
        let seen = pair.connect(pair.target(Family::V4), &say("x"));
        (seen.last().text != "x").then_some(())
    });
    pair.agent_a.reconfigure(|a| a.node = "other".to_owned());
    pair.agent_a.signal(Signal::SIGHUP);
    wait_for("the complaint", GENEROUS, || {
        let lines = pair.agent_a.log_lines();
        lines
            .iter()
            .any(|line| line.contains("not reloaded") && line.contains("restart"))
            .then_some(())
    });
}
