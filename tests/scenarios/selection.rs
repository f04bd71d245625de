//! Where the programs attach and how workloads are selected, beyond the cgroup paths and globs of
//! the other scenarios.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use sheath_tests::cgroup::Cgroup;
use sheath_tests::config::{Select, spiffe_id};
use sheath_tests::hammer::Hammer;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::{marker, unique};
use sheath_tests::pair::{PORT, Pair, Setting, any, client, say, server};
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, Origin, Socket, Step};
use sheath_tests::wait::{self, GENEROUS};
use sheath_tests::world::{FAMILIES, Family};

/// A port of node B where everyone is taken at their word.
const OPEN_PORT: u16 = 9090;

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
    let seen = probe::run(&place, &client(to, &say(&secret)));
    assert_eq!(seen.last().text, secret, "{seen:?}");
    assert_ciphertext(&tap, PORT, &secret);
}

/// Whoever has a subtree of their own gives names there. The kernel's side matches bytes, and so does the agent.
#[test]
fn a_cgroup_whose_name_is_no_text_is_like_any_other() {
    let mut pair = Pair::with(Setting::Pods, |_, _| {});
    let node = pair.world.b.cgroup.clone();
    let name = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    let _neighbours = [node.child(name(b"\xff")), node.child(name(b"other\xff\x1b"))];
    let stranger = pair.world.a.host("stranger");
    // One below a workload's, and one that its pattern selects.
    let theirs = [pair.server.cgroup.child(name(b"\xff")), node.child(name(b"web\xff"))];
    let deeper = theirs[0].child(name(b"\xc3"));
    for is_next in [false, true] {
        if is_next {
            pair.agent_b.kill();
            pair.agent_b.launch();
        }
        for (index, cgroup) in (10..).zip(theirs.iter().chain([&deeper])) {
            let pod = pair.world.b.pod(index + 10 * u8::from(is_next));
            let place = Place::new(&pod.netns, cgroup);
            for family in FAMILIES {
                let tap = pair.world.tap();
                let secret = marker();
                let mut echo = Probe::start(&place, &server(any(family, PORT), &[Step::Echo]));
                let to = pod.addresses.at(family, PORT);
                wait::wait_until("the new namespace to be served", GENEROUS, || {
                    pair.connect(to, &say(&secret)).last().text == secret
                });
                echo.accepted();
                assert_ciphertext(&tap, PORT, &secret);
                let seen = probe::run(&stranger, &client(to, &say("stranger")));
                assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
                assert_eq!(echo.pending(), 0, "a stranger reached it");
            }
        }
        let status = pair.agent_b.wait_for_status("all to be protected", |status| {
            status.workload("web").state == "protected"
        });
        let cgroups = &status.workload("web").cgroups;
        assert!(cgroups.iter().any(|found| found.id == theirs[1].id()), "{cgroups:?}");
        assert_eq!(cgroups.len(), 2, "{cgroups:?}");
    }
    let text = pair.agent_b.sheath("status", &[]).stdout;
    assert!(!text.contains(&b'\x1b'), "{}", String::from_utf8_lossy(&text));
    let checked = pair.agent_b.sheath_check();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
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

/// It, and what is below it; not its parent, its sibling, nor whoever has its path later.
#[test]
fn a_cgroup_is_selected_by_its_id_and_nobody_else_is() {
    let mut pair = Pair::host();
    let parent = pair.world.a.host("parent").cgroup;
    let [chosen, sibling] = ["chosen", "sibling"].map(|name| parent.child(name));
    let below = chosen.child("below");
    let netns = pair.client.netns.clone();
    let place = |cgroup: &Arc<Cgroup>| Place::new(&netns, cgroup);
    let resident = Probe::start(&place(&chosen), &Job::Idle);
    let reloaded = pair.agent_a.reload(|config| {
        let mut workload = config.workloads[0].clone();
        workload.name = "by-id".to_owned();
        workload.select = Select::CgroupId(chosen.id());
        config.workloads.push(workload);
    });
    assert!(reloaded.status.success(), "{reloaded:?}");
    pair.agent_a.wait_enrolled("by-id", &place(&chosen));

    let open = pair.world.b.host("open");
    let tap = pair.world.tap();
    let (secret, public) = (marker(), marker());
    let _echo = FAMILIES.map(|family| pair.serve(family, &[Step::Echo]));
    let _open =
        FAMILIES.map(|family| Probe::start(&open, &server(any(family, OPEN_PORT), &[Step::Echo])));
    for is_next in [false, true] {
        if is_next {
            pair.agent_a.kill();
            for family in FAMILIES {
                let job = client(pair.target(family), &say(&secret));
                let seen = probe::run(&place(&chosen), &job);
                assert_eq!(seen.error, Some(libc::ECONNREFUSED), "without an agent: {seen:?}");
            }
            pair.agent_a.launch();
        }
        for family in FAMILIES {
            let to_open = pair.world.b.addresses.at(family, OPEN_PORT);
            for cgroup in [&chosen, &below] {
                let seen = probe::run(&place(cgroup), &client(pair.target(family), &say(&secret)));
                assert_eq!((seen.ended_by(), &*seen.last().text), (None, &*secret), "{seen:?}");
                let seen = probe::run(&place(cgroup), &client(to_open, &say(&secret)));
                assert!(seen.ended_by().is_some(), "{seen:?}");
            }
            for cgroup in [&parent, &sibling] {
                let seen = probe::run(&place(cgroup), &client(to_open, &say(&public)));
                assert_eq!(seen.last().text, public, "{seen:?}");
            }
        }
    }
    drop((resident, below));
    let path = chosen.path().to_owned();
    drop(chosen);
    let heir = parent.child(path.file_name().expect("its name"));
    let seen = probe::run(
        &place(&heir),
        &client(pair.world.b.addresses.at(Family::V4, OPEN_PORT), &say(&public)),
    );
    assert_eq!(seen.last().text, public, "{seen:?}");
    pair.agent_a.wait_for_status("the cgroup to be gone", |status| {
        status.workload("by-id").cgroups.is_empty()
    });
    assert_ciphertext(&tap, PORT, &secret);
}
