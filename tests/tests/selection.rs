//! Where the programs attach and how workloads are selected, beyond the cgroup paths and globs of
//! the other scenarios.

use sheath_tests::cgroup::Cgroup;
use sheath_tests::config::{Select, spiffe_id};
use sheath_tests::hammer::Hammer;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::{marker, unique};
use sheath_tests::pair::{PORT, Pair, Setting, say};
use sheath_tests::place::Place;
use sheath_tests::probe;
use sheath_tests::script::{Job, Origin, Socket, Step};
use sheath_tests::world::{FAMILIES, Family};

/// `capture.cgroup: auto` is the root: a socket is captured wherever it was made.
#[test]
fn capture_auto_attaches_at_the_root() {
    let pair = Pair::with(Setting::Host, |a, b| {
        for config in [a, b] {
            config.capture.cgroup = "auto".to_owned();
        }
    });
    let elsewhere = Place::new(&pair.client.netns, &Cgroup::top(&unique()));
    for family in FAMILIES {
        let tap = pair.world.tap();
        let secret = marker();
        let _echo = pair.serve(family, &[Step::Echo]);
        let seen = pair.connect(pair.target(family), &say(&secret));
        assert_eq!(seen.last().text, secret, "{family:?}: {seen:?}");
        let origin = Origin::BeforeMovingTo(pair.client.cgroup.procs());
        let socket = Socket { origin, ..Socket::default() };
        let job = Job::Client { socket, to: pair.target(family), steps: say(&secret) };
        let seen = probe::run(&elsewhere, &job);
        assert_eq!(seen.last().text, secret, "{family:?}: {seen:?}");
        assert_ciphertext(&tap, PORT, &secret);
    }
}

#[test]
fn a_systemd_unit_is_a_workload() {
    let slice = Cgroup::shared("system.slice");
    let unit = format!("{}.service", unique());
    let service = slice.child(&unit);
    let pair = Pair::with(Setting::Host, |a, _| {
        a.capture.cgroup = "auto".to_owned();
        let mut workload = a.workloads[0].clone();
        workload.name = "unit".to_owned();
        workload.select = Select::SystemdUnit(unit.clone());
        a.workloads.push(workload);
    });
    let place = Place::new(&pair.world.a.netns, &service);
    let tap = pair.world.tap();
    let secret = marker();
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let to = pair.target(Family::V4);
    let seen = probe::run(&place, &sheath_tests::pair::client(to, &say(&secret)));
    assert_eq!(seen.last().text, secret, "{seen:?}");
    assert_ciphertext(&tap, PORT, &secret);
}

/// In the kernel, where a new cgroup is first seen, and in the agent, which looks again and again:
/// the workload that is configured first has the cgroup, and the other is told.
#[test]
fn two_patterns_for_one_cgroup_are_resolved_the_same_way_everywhere() {
    for patterns in [["client*", "c*"], ["c*", "client*"]] {
        let pair = Pair::with(Setting::Host, |a, _| {
            let select = |pattern| Select::Cgroup(format!("{}/{pattern}", a.capture.cgroup));
            let mut other = a.workloads[0].clone();
            other.name = "other".to_owned();
            other.spiffe_id = Some(spiffe_id("other"));
            other.select = select(patterns[1]);
            a.workloads[0].select = select(patterns[0]);
            a.workloads.push(other);
        });
        let _echo = pair.serve(Family::V4, &[Step::Echo]);
        let later = Place::new(&pair.client.netns, &pair.world.a.host("client-later").cgroup);
        let mut hammers = [&pair.client, &later]
            .map(|place| Hammer::start(place, pair.target(Family::V4), "hello"));
        // Long enough for the agent to look several times.
        for hammer in &mut hammers {
            hammer.collect("many tries", |tries| tries.len() >= 300);
        }
        let status = pair.agent_a.wait_for_status("the loser to be told", |status| {
            let loser = status.workload("other");
            loser.state == "degraded" && !loser.reason.is_empty()
        });
        let has = |name: &str, place: &Place| {
            status.workload(name).cgroups.iter().any(|c| c.id == place.cgroup.id())
        };
        for place in [&pair.client, &later] {
            assert!(has("client", place), "{patterns:?}: {status:#?}");
            assert!(!has("other", place), "{patterns:?}: {status:#?}");
        }
        let access = pair.agent_a.access();
        let outbound = access.iter().filter(|line| line.direction == "outbound");
        for line in outbound {
            assert_eq!(line.local_id, spiffe_id("client"), "{patterns:?}: {line:?}");
        }
    }
}
