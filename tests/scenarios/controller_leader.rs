//! Of the controller's replicas one leads, and never two.

use std::time::{Duration, Instant};

use sheath_tests::controller::{self, Csr, Scene};
use sheath_tests::wait::{self, GENEROUS};
use tonic::Code;

#[test]
fn a_replica_that_does_not_lead_says_who_does_and_leads_when_that_has_ended() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let mut one = scene.leader();
    let two = scene.controller("two");
    let csr = Csr::new(None);
    let agent = scene.agent(&two, "token of node-a");
    wait::wait_until("the leader is named", GENEROUS, || {
        let status = agent.sign(&pod, &csr.der).unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let leader = status.metadata().get("sheath-leader").expect("who leads");
        leader.to_str().unwrap() == one.address().to_string()
    });
    let roots = controller::wait_roots(&scene.api);
    let started = Instant::now();
    one.terminate();
    wait::wait_until("the other signs", GENEROUS, || agent.sign(&pod, &csr.der).is_ok());
    assert!(started.elapsed() < Duration::from_secs(10), "the Lease was given back");
    assert_eq!(controller::wait_roots(&scene.api), roots, "it is the same CA");
    // Killed, it gives nothing back: the Lease has to run out.
    one.launch();
    let mut two = two;
    two.kill();
    let agent = scene.agent(&one, "token of node-a");
    wait::wait_until("the first signs again", GENEROUS, || agent.sign(&pod, &csr.der).is_ok());
    assert_eq!(controller::wait_roots(&scene.api), roots, "it is the same CA");
}

/// A leader that hears nothing of the API server any more cannot know whether another leads, and ends before one can.
#[test]
fn a_leader_that_is_cut_off_signs_nothing_once_another_leads() {
    let scene = Scene::new();
    let pod = scene.pod(1, |_| {});
    let one = scene.leader();
    let two = scene.controller("two");
    let agent = scene.agent(&one, "token of node-a");
    let csr = Csr::new(None);
    agent.sign(&pod, &csr.der).unwrap();
    let follower = scene.agent(&one, "token of node-a");
    let following = std::thread::spawn(move || follower.follow_to_the_end());
    let cut = Instant::now();
    scene.api.behave(|behaviour| behaviour.shut_out = vec!["one".to_owned()]);
    let mut last = cut;
    let taken = wait::wait_for("another leads", GENEROUS, || {
        // The order matters: what is signed after another leads is wrong.
        let taken = controller::holder(&scene.api) == Some(two.identity());
        match agent.sign(&pod, &csr.der) {
            Ok(_) => {
                assert!(!taken, "the old leader signs though another leads");
                last = Instant::now();
            }
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
        taken.then(Instant::now)
    });
    assert!(taken - last > Duration::from_secs(1), "it had ended before");
    let streams = following.join().unwrap();
    assert!(streams.is_ok_and(|told| told == 1), "streams of the old leader end");
    let agent = scene.agent(&two, "token of node-a");
    wait::wait_until("the other signs", GENEROUS, || agent.sign(&pod, &csr.der).is_ok());
}
