//! A Deployment of a real cluster is replaced under load, with Sheath and without.

use serde_json::json;
use sheath_tests::cluster::helm::Release;
use sheath_tests::cluster::scene::{Scene, url};
use sheath_tests::cluster::servers::{BRIEF, SERVICE_PORT, Servers};
use sheath_tests::cluster::wrk::{Requests, Reuse, Wrk};
use sheath_tests::cluster::{NODES, WIRE, shared};
use sheath_tests::tap::Tap;

const REPLICAS: usize = 20;

const REUSE: [Reuse; 2] = [Reuse::KeepAlive, Reuse::Never];

/// Both deployments are replaced at the same time, on the same nodes: what one of them meets, the other meets as well.
#[test]
fn a_rolling_update_under_load_fails_no_request_that_it_would_not_have_failed_without_sheath() {
    let [a, _] = NODES;
    let turn = shared::turn();
    let scenes = [Some("require"), None].map(|label| Scene::new(&turn, label));
    let _release = Release::install(&turn, &json!({})).unwrap();
    let servers = scenes.each_ref().map(|scene| Servers::deploy(scene, REPLICAS, BRIEF));
    for scene in &scenes {
        scene.run("client", "client", a);
    }
    let urls = servers.each_ref().map(|servers| {
        servers.wait_ready();
        url(&servers.address(), SERVICE_PORT)
    });
    for (scene, url) in scenes.iter().zip(&urls) {
        scene.wait_answered("client", url);
    }
    let tap = Tap::new(&turn.cluster.node(a).netns, WIRE);
    let load = |number: usize| {
        let start = |reuse| {
            Wrk::start(turn.cluster, &scenes[number].namespace, "client", &urls[number], reuse)
        };
        REUSE.map(|reuse| start(reuse).unwrap())
    };
    let load = [load(0), load(1)];
    let replacements = servers.each_ref().map(Servers::replace);
    for replacement in replacements {
        replacement.wait();
    }
    let requests = load.map(|both| both.map(|wrk| wrk.stop().unwrap()));
    for (who, requests) in ["with Sheath", "without"].into_iter().zip(&requests) {
        for (reuse, requests) in REUSE.iter().zip(requests) {
            println!("{who}, {reuse:?}: {requests:?}");
        }
    }
    let [with, without] = requests;
    for (with, without) in with.into_iter().zip(without) {
        let all: [Requests; 2] = [with, without];
        assert!(all.iter().all(|requests| requests.answered > 10), "no load: {all:?}");
        assert!(with.failed() <= without.failed(), "{all:?}");
    }
    let [protected, plain] = scenes.each_ref().map(|scene| tap.sightings(&scene.marker));
    assert_eq!(protected, 0, "plaintext on the wire");
    assert!(plain > 0, "the tap sees nothing");
}
