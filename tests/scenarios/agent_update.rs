//! The chart's agents are replaced under load, one node after the other: nobody notices.

use std::time::Duration;

use serde_json::json;
use sheath_tests::cluster::followed::Followed;
use sheath_tests::cluster::helm::{NAMESPACE, Release};
use sheath_tests::cluster::scene::{LIMIT, Scene, url};
use sheath_tests::cluster::servers::{SERVICE_PORT, Servers};
use sheath_tests::cluster::wrk::{Requests, Reuse, Wrk};
use sheath_tests::cluster::{NODES, WIRE, shared};
use sheath_tests::tap::Tap;
use sheath_tests::wait;

/// On both nodes.
const SERVERS: usize = 4;

/// For longer than any agent: a connection that is kept alive is there before the update, and after it.
const CONNECTIONS: Duration = Duration::from_secs(3600);

/// Clients on both nodes, with connections that stay and with one for each request.
const LOAD: [(&str, Reuse); 4] = [
    ("client-a", Reuse::KeepAlive),
    ("client-a", Reuse::Never),
    ("client-b", Reuse::KeepAlive),
    ("client-b", Reuse::Never),
];

#[test]
fn a_rolling_update_of_the_agents_under_load_fails_no_request_and_leaks_nothing() {
    let [a, b] = NODES;
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("require"));
    // As long as the chart has it: on a busy machine a handshake that has begun may take seconds.
    let patient = json!({"agent": {"drain": "30s", "terminationGracePeriodSeconds": 45}});
    let release = Release::install(&turn, &patient).unwrap();
    let servers = Servers::deploy(&scene, SERVERS, CONNECTIONS);
    scene.run("client-a", "client", a);
    scene.run("client-b", "client", b);
    servers.wait_ready();
    let url = url(&servers.address(), SERVICE_PORT);
    for client in ["client-a", "client-b"] {
        scene.wait_answered(client, &url);
    }
    let tap = Tap::new(&turn.cluster.node(a).netns, WIRE);
    let load = LOAD.map(|(client, reuse)| {
        Wrk::start(turn.cluster, &scene.namespace, client, &url, reuse).unwrap()
    });
    let agents = || NODES.map(|node| release.agent(node).ok());
    let before = agents();
    let follow = || NODES.map(|node| Followed::start(&turn, &release, node).unwrap());
    let logs_before = follow();

    let kubectl = turn.cluster.kubectl();
    let space = format!("--namespace={NAMESPACE}");
    kubectl.run(["rollout", "restart", "daemonset/sheath-agent", &space]).unwrap();
    let status = ["rollout", "status", "daemonset/sheath-agent", &space, "--timeout=180s"];
    kubectl.run(status).unwrap();
    // Those before may still be ending.
    wait::wait_until("two agents that are ready", LIMIT, || {
        release.ready_pods().is_ok_and(|it| it == 4)
    });
    let after = agents();
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{after:?}");
    let logs_after = follow();
    // Nor are those of after the last one's start for nothing.
    for client in ["client-a", "client-b"] {
        scene.wait_answered(client, &url);
    }
    let requests = load.map(|wrk| wrk.stop().unwrap());
    for ((client, reuse), requests) in LOAD.iter().zip(&requests) {
        println!("{client}, {reuse:?}: {requests:?}");
    }
    assert!(requests.iter().all(|one| one.answered > 10), "no load: {requests:?}");
    let failed: u64 = requests.iter().map(Requests::failed).sum();
    if failed > 0 {
        for log in logs_before.iter().chain(&logs_after) {
            println!("{:#?}", log.failed().unwrap());
        }
    }
    assert_eq!(failed, 0, "requests failed: {requests:?}");
    for node in NODES {
        let taken = release.status(node).unwrap().taken_over;
        assert!(taken.is_some(), "{node:?} has not taken over");
    }
    // New pods are looked after as well.
    scene.run("later", "client", a);
    scene.wait_answered("later", &url);
    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
}
