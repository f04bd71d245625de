//! Promise 3, by number: the kernel knows each workload by one that is nobody else's, whatever the names, the restarts and the
//! configurations in between.

use std::collections::BTreeSet;

use sheath_tests::agent::Agent;
use sheath_tests::config::{Config, Select, Workload, spiffe_id};
use sheath_tests::pair::{Pair, Setting, client, say};
use sheath_tests::pins;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Job, Step};
use sheath_tests::world::{FAMILIES, Family};

/// Two names that 32-bit FNV-1a, which once made a workload's number of its name, gives the same.
const COLLIDING: [&str; 2] = ["index-auth-502", "index-shop-1448"];

#[test]
fn workloads_whose_names_hash_alike_are_two() {
    let pair = Pair::with(Setting::Host, |a, b| {
        for name in COLLIDING {
            let cgroup = format!("{}/{name}", a.capture.cgroup);
            a.workloads.push(Workload::new(name, &cgroup).outbound("require", &[]));
        }
        let inbound = b.workloads[0].inbound.as_mut().expect("an inbound mode");
        inbound.allow.push(spiffe_id(COLLIDING[0]));
    });
    let [known, stranger] = COLLIDING.map(|name| {
        let place = pair.world.a.host(name);
        let resident = Probe::start(&place, &Job::Idle);
        pair.agent_a.wait_enrolled(name, &place);
        (place, resident)
    });
    assert_eq!(ids(&pair.agent_a, &COLLIDING).len(), 2);
    for family in FAMILIES {
        let _echo = pair.serve(family, &[Step::Echo]);
        let seen = probe::run(&known.0, &client(pair.target(family), &say("hello")));
        assert_eq!((seen.ended_by(), &*seen.last().text), (None, "hello"), "{family:?}: {seen:?}");
        let seen = probe::run(&stranger.0, &client(pair.target(family), &say("hello")));
        assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{family:?}: {seen:?}");
    }
    let lines = pair.agent_a.access();
    let outbound = lines.iter().filter(|line| line.direction == "outbound");
    for line in outbound {
        assert_eq!(line.local_id, spiffe_id(&line.workload), "{line:?}");
    }
}

#[test]
fn a_workload_keeps_its_number_for_as_long_as_it_is_configured() {
    let mut pair = Pair::with(Setting::Host, |a, _| {
        add(a, "first");
        add(a, "second");
    });
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let all = ["client", "first", "second"];
    let before = ids(&pair.agent_a, &all);
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 3);

    // In another order, with one more and without another.
    pair.agent_a.kill();
    pair.agent_a.reconfigure(|config| {
        config.workloads.retain(|workload| workload.name != "first");
        config.workloads.reverse();
        let third = other(config, "third");
        config.workloads.insert(0, third);
    });
    pair.agent_a.launch();
    let after = ids(&pair.agent_a, &["client", "second"]);
    assert_eq!(after, [before[0], before[2]]);
    let third = ids(&pair.agent_a, &["third"])[0];
    assert!(before.iter().all(|id| *id < third), "{before:?} {third}");
    pair.assert_served();

    // Whoever comes back is somebody new: what bears the old number may still be there.
    assert!(pair.agent_a.reload(|config| add(config, "first")).status.success());
    let again = ids(&pair.agent_a, &["first"])[0];
    assert!(again > third, "{again} {third}");
    assert_eq!(ids(&pair.agent_a, &["client", "second"]), after);

    // Somebody removes the pins while no agent runs.
    pair.agent_a.terminate();
    pair.agent_a.wait(sheath_tests::wait::GENEROUS);
    assert!(!pins::remove_maps(pair.agent_a.instance()).is_empty());
    pair.agent_a.launch();
    let kept = ids(&pair.agent_a, &["client", "second", "third", "first"]);
    assert_eq!(kept, [after[0], after[1], third, again]);
    pair.assert_served();
}

#[test]
fn a_configuration_that_is_refused_gives_no_number_to_two_names() {
    let mut pair = Pair::with(Setting::Host, |a, _| add(a, "first"));
    let before = ids(&pair.agent_a, &["client", "first"]);
    // What the agent itself is in is refused by capture, after the numbers have been given out.
    let refused = pair.agent_a.reload(|config| {
        let mut own = other(config, "own");
        own.select = Select::Cgroup(format!("{}/agent*", config.capture.cgroup));
        config.workloads.push(own);
        add(config, "second");
    });
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(ids(&pair.agent_a, &["client", "first"]), before);
    let taken = pair.agent_a.reload(|config| config.workloads.retain(|w| w.name != "own"));
    assert!(taken.status.success(), "{taken:?}");
    assert_eq!(ids(&pair.agent_a, &["client", "first"]), before);
    let second = ids(&pair.agent_a, &["second"])[0];
    assert!(before.iter().all(|id| *id < second), "{before:?} {second}");
}

fn add(config: &mut Config, name: &str) {
    let workload = other(config, name);
    config.workloads.push(workload);
}

fn other(config: &Config, name: &str) -> Workload {
    Workload::new(name, &format!("{}/{name}", config.capture.cgroup)).outbound("require", &[])
}

/// By which numbers the kernel knows these workloads.
fn ids(agent: &Agent, names: &[&str]) -> Vec<u32> {
    let status = agent.status();
    names.iter().map(|name| status.workload(name).id).collect()
}
