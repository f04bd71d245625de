//! A node that comes back with nothing in its kernel, where the kubelet and the runtime are there before the agent.

use std::path::Path;

use serde_json::json;
use sheath_tests::cluster::helm::{NAMESPACE, Release};
use sheath_tests::cluster::scene::{LIMIT, Scene};
use sheath_tests::cluster::static_pod::StaticPod;
use sheath_tests::cluster::{NODES, WIRE, shared};
use sheath_tests::status::Problem;
use sheath_tests::tap::Tap;
use sheath_tests::{binaries, kubelet, wait};

/// What a node has that an agent may run on.
const MAY_RUN: &str = "sheath.test/agent";

/// Has agents run on nodes with the label alone, and waits until those that run have ended.
fn end_agents(scene: &Scene<'_>) {
    let kubectl = scene.cluster.kubectl();
    let selector = json!({MAY_RUN: "yes"});
    let patch = json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}}).to_string();
    let space = format!("--namespace={NAMESPACE}");
    kubectl
        .run(["patch", "daemonset", "sheath-agent", &space, "--type=merge", "--patch", &patch])
        .unwrap();
    wait::wait_until("the agents to end", LIMIT, || {
        let label = "--selector=app.kubernetes.io/component=agent";
        let pods = kubectl.get(["pods", &space, label]).unwrap();
        pods["items"].as_array().unwrap().is_empty()
    });
}

#[test]
fn after_a_reboot_no_pod_of_the_api_starts_before_the_agent_runs_and_static_pods_do() {
    let [a, b] = NODES;
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("require"));
    let release = Release::install(&turn, &json!({})).unwrap();
    let gate = release.status(a).unwrap().gate.expect("a gate");
    assert_eq!((&*gate.in_force, gate.plugin_installed, &*gate.problem), ("nri", true, ""));
    scene.run("web", "web", b);
    scene.run("before", "client", a);
    let address = scene.addresses("web").swap_remove(0);
    scene.wait_served("before", &address);

    // What a reboot takes: the agent, what is pinned, and what is in /run.
    let kubectl = scene.cluster.kubectl();
    end_agents(&scene);
    let node = scene.cluster.node(a);
    let run = |program: &Path, arguments: &[&str]| {
        node.command("tools", program).unwrap().args(arguments).status().unwrap().success()
    };
    let instance = format!("{}-{}", scene.cluster.name(), a.as_str());
    assert!(run(&binaries::sheath(), &["cleanup", "--instance", &instance]));
    assert!(run(Path::new("rm"), &["-rf", &format!("/run/sheath/{instance}")]));

    let tap = Tap::new(&node.netns, WIRE);
    kubectl.apply(&scene.caller("first", a, &address)).unwrap();
    let space = format!("--namespace={}", scene.namespace);
    let words = ["sheath:", "Pods start once it runs"];
    kubectl.wait_event(&scene.namespace, "first", &words, LIMIT).unwrap();
    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
    let pod = kubectl.get(["pod", "first", &space]).unwrap();
    assert_eq!(pod["status"]["phase"], "Pending", "{}", pod["status"]);

    // Whatever the node's own files make starts: the API server may be one of them. A uid that the API server might have given says nothing
    // of the kind.
    let uid = kubelet::uid();
    let manifests = [("digest", None), ("named", Some("apiserver-1")), ("uuid", Some(&*uid))];
    let [digest, named, uuid] = manifests.map(|(name, uid)| StaticPod::write(&scene, name, a, uid));
    for pod in [&digest, &named] {
        scene.wait_running(&pod.name);
    }
    kubectl.wait_event(&scene.namespace, &uuid.name, &words, LIMIT).unwrap();

    // With the agent it starts, and its only connection is served.
    for node in NODES {
        let label = format!("{MAY_RUN}=yes");
        kubectl.run(["label", "node", node.as_str(), &label]).unwrap();
    }
    assert_eq!(scene.wait_succeeded("first"), scene.marker);
    let undecided = ["sheath:", "not decided yet"];
    kubectl.wait_event(&scene.namespace, &uuid.name, &undecided, LIMIT).unwrap();
    for pod in [&digest, &named] {
        let subject = format!("{}/{}", scene.namespace, pod.name);
        let problems = release.status(a).unwrap().problems;
        let is_told = |it: &Problem| it.subject == subject && it.problem.contains("static pods");
        assert!(problems.iter().any(is_told), "{subject}: {problems:?}");
    }
    for node in NODES {
        kubectl.run(["label", "node", node.as_str(), &format!("{MAY_RUN}-")]).unwrap();
    }
    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
    release.uninstall().unwrap();
    assert!(!run(Path::new("test"), &["-e", "/opt/cni/bin/sheath-cni"]), "the plugin is left");
}
