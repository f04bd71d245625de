//! Packet filters of others on a workload's cgroup. The agent is reached over loopback: where a filter drops that, it is
//! said, with what to write, and connections fail at once.

use sheath_tests::agent::Agent;
use sheath_tests::cgroup::Cgroup;
use sheath_tests::filter::Filter;
use sheath_tests::pair::{Pair, SETTINGS, Setting, say};
use sheath_tests::probe;
use sheath_tests::script::{Job, Socket, Step};
use sheath_tests::world::{FAMILIES, Family};

/// The kernel's name of systemd's program for `RestrictNetworkInterfaces=`.
const RESTRICTED: &str = "sd_restrictif_e";

#[test]
fn a_filter_that_keeps_a_client_from_the_agent_is_told_of_and_its_connections_fail_at_once() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        let _echo = pair.serve(Family::V6, &[Step::Echo]);
        let filter = Filter::without_loopback(&pair.client.cgroup, RESTRICTED);
        assert_told(&pair.agent_a, "client");
        for family in FAMILIES {
            let socket = Socket { connect_limit: Some(5_000), ..Socket::default() };
            let to = pair.target(family);
            let job = Job::Client { socket, to, steps: say("hello") };
            let seen = probe::run(&pair.client, &job);
            assert_eq!(seen.error, Some(libc::EPERM), "{setting:?} {family:?}: {seen:?}");
        }
        pair.agent_a.wait_for_access("the refusal", |line| {
            line.outcome == "denied" && line.reason.contains("packet filter")
        });
        drop(filter);
        assert_well(&pair.agent_a, "client");
        let seen = pair.connect(pair.target(Family::V6), &say("hello"));
        assert_eq!(seen.last().text, "hello", "{setting:?}: {seen:?}");
    }
}

#[test]
fn a_filter_that_keeps_a_server_from_the_agent_is_told_of() {
    for setting in SETTINGS {
        let pair = Pair::new(setting);
        let filter = Filter::without_loopback(&pair.server.cgroup, RESTRICTED);
        assert_told(&pair.agent_b, "web");
        drop(filter);
        assert_well(&pair.agent_b, "web");
    }
}

/// A slice may be the workload, and the filter on a unit in it.
#[test]
fn a_filter_further_in_than_the_workloads_cgroup_is_told_of() {
    let pair = Pair::new(Setting::Host);
    let unit = pair.client.cgroup.child("unit.service");
    let filter = Filter::without_loopback(&unit, RESTRICTED);
    assert_told(&pair.agent_a, "client");
    // Whoever is not behind it is served.
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    pair.assert_served();
    drop(filter);
    assert_well(&pair.agent_a, "client");
}

/// Every unit with `IPAccounting=` has one.
#[test]
fn a_filter_that_lets_loopback_pass_is_no_fault() {
    let pair = Pair::new(Setting::Host);
    let _echo = pair.serve(Family::V4, &[Step::Echo]);
    let filter = |cgroup: &Cgroup| Filter::that_only_counts(cgroup, "sd_fw_egress");
    let _filters = [&pair.client, &pair.server].map(|place| filter(&place.cgroup));
    pair.assert_served();
    for (agent, workload) in [(&pair.agent_a, "client"), (&pair.agent_b, "web")] {
        assert_well(agent, workload);
    }
}

/// Status and `check` name the filter and what the unit lacks.
#[track_caller]
fn assert_told(agent: &Agent, workload: &str) {
    agent.wait_for_status("the filter to be told of", |status| {
        let workload = status.workload(workload);
        workload.state == "degraded"
            && workload.reason.contains(RESTRICTED)
            && workload.reason.contains("RestrictNetworkInterfaces=")
    });
    let check = agent.sheath_check();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(!check.status.success(), "{said}");
    assert!(said.contains(RESTRICTED) && said.contains("RestrictNetworkInterfaces="), "{said}");
}

#[track_caller]
fn assert_well(agent: &Agent, workload: &str) {
    agent.wait_for_status("the workload to be protected", |status| {
        status.workload(workload).state == "protected"
    });
    let check = agent.sheath_check();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}
