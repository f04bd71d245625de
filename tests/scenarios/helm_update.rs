//! An update of the agents of a real cluster, under the chart: nobody notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;
use sheath_tests::cluster::helm::{NAMESPACE, Release};
use sheath_tests::cluster::scene::{LIMIT, PORT, Scene, url};
use sheath_tests::cluster::{NODES, WIRE, shared};
use sheath_tests::tap::Tap;
use sheath_tests::wait;

/// Many requests, one connection each, in the pod itself. Returns what was answered, a line for each.
fn ask_often(scene: &Scene<'_>, address: &str) -> Vec<String> {
    let ask = format!(
        "i=0; while [ $i -lt 50 ]; do i=$((i+1)); curl -sS -m 10 {} 2>&1; echo; done",
        url(address, PORT)
    );
    let said = scene.cluster.kubectl().exec(&scene.namespace, "client", &["sh", "-c", &ask]);
    said.unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn an_update_of_the_agents_fails_no_request_and_new_pods_start_after_it() {
    let [a, b] = NODES;
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("require"));
    let release = Release::install(&turn, &json!({})).unwrap();
    scene.run("web", "web", b);
    scene.run("client", "client", a);
    let tap = Tap::new(&scene.cluster.node(a).netns, WIRE);
    let address = scene.addresses("web").swap_remove(0);
    scene.wait_served("client", &address);
    let pods = [a, b].map(|node| release.agent(node).unwrap());

    let space = format!("--namespace={NAMESPACE}");
    let rollout = |what: &str, more: &[&str]| {
        let arguments = ["rollout", what, "daemonset/sheath-agent", &space];
        scene.cluster.kubectl().run(arguments.iter().chain(more).copied())
    };
    let is_over = AtomicBool::new(false);
    let answers = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                answers.extend(ask_often(&scene, &address));
            }
            answers
        });
        rollout("restart", &[]).unwrap();
        let rolled = wait::try_for(2 * LIMIT, || rollout("status", &["--timeout=5s"]).ok());
        // The old ones end meanwhile.
        let gone = wait::try_for(LIMIT, || {
            let now = [a, b].map(|node| release.agent(node).unwrap_or_default());
            now.iter().all(|pod| !pods.contains(pod)).then_some(())
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(rolled.is_some() && gone.is_some(), "the update does not end");
        asking.join().unwrap()
    });
    let wrong: Vec<_> = answers.iter().filter(|line| **line != scene.marker).collect();
    assert_eq!(wrong, [""; 0], "of {} requests", answers.len());
    assert!(answers.len() >= 100, "{}", answers.len());
    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
    for node in [a, b] {
        let taken = release.status(node).unwrap().taken_over;
        assert!(taken.is_some(), "{node:?} has not taken over");
    }
    scene.run("later", "web", b);
    scene.wait_served("client", &scene.addresses("later")[0]);
}
