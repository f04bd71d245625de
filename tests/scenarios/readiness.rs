//! An agent of a cluster is ready when it knows who is where in it, or has known it once: a controller that is away keeps no update of
//! the agents from going on.

use std::fs;

use serde_json::{Value, json};
use sheath_tests::agent::Agent;
use sheath_tests::controller::Controller;
use sheath_tests::wait::{self, GENEROUS};

use crate::cluster_directory::Cluster;

/// What keeps the agent from being ready, as it tells the kubelet.
#[track_caller]
fn lacks(agent: &Agent) -> Vec<String> {
    let output = agent.sheath("health", &["ready", "--output", "json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("an answer");
    let problems = answer["problems"].as_array().expect("problems").iter();
    let problems: Vec<_> = problems.map(|problem| problem.as_str().unwrap().to_owned()).collect();
    assert_eq!(output.status.success(), problems.is_empty(), "{answer}");
    problems
}

#[track_caller]
fn wait_ready(agent: &Agent) {
    wait::wait_until("an agent that is ready", 2 * GENEROUS, || lacks(agent).is_empty());
}

#[test]
fn an_agent_is_ready_once_it_has_known_the_directory_and_stays_so_without_a_controller() {
    let mut cluster = Cluster::with(|config| {
        config.kubernetes.as_mut().expect("an API server").gate = Some("none");
    });
    wait_ready(&cluster.agent);
    // As on a node that joins while there is no controller.
    cluster.controller.kill();
    cluster.agent.kill();
    let known = cluster.agent.run_dir().join(cluster.agent.instance()).join("directory.state");
    // It may have had no time to write it.
    if known.exists() {
        fs::remove_file(known).expect("what the agent has known");
    }
    cluster.agent.launch();
    let left = wait::wait_for("all that does not need a controller", GENEROUS, || {
        Some(lacks(&cluster.agent)).filter(|left| left.len() == 1)
    });
    assert!(left[0].contains("not known yet who is where in the cluster"), "{left:?}");
    assert!(!cluster.agent.status().directory.expect("a directory").known);
    // It comes late.
    let at = cluster.controller.address().to_string();
    let mut late = Controller::start(&cluster.api, &cluster.world.a.netns, "two", |settings| {
        (settings["listen"], settings["advertise"]) = (json!(at), json!(at));
    });
    wait_ready(&cluster.agent);
    // And goes again.
    late.kill();
    let is_away = |agent: &Agent| {
        agent.wait_for_status("the controller's absence", |status| {
            let directory = status.directory.as_ref().expect("a directory");
            directory.known && !directory.current
        });
    };
    is_away(&cluster.agent);
    assert_eq!(lacks(&cluster.agent), [""; 0]);
    // An update of the agent meanwhile: what the one before has known is enough.
    cluster.agent.take_over().kill();
    is_away(&cluster.agent);
    wait_ready(&cluster.agent);
}
