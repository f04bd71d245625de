//! The chart after it was installed: what a node lacks, pods that cannot be protected, those whose authors or owners try to have less
//! protection, and other values.

use std::fs;

use serde_json::json;
use sheath_tests::cluster::helm::{NAMESPACE, Release};
use sheath_tests::cluster::scene::{LIMIT, Scene};
use sheath_tests::cluster::{NODES, NodeName, OTHER_HANDLER, WIRE, shared};
use sheath_tests::tap::Tap;
use sheath_tests::wait;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The name of the runtime class, and of a pod that has it.
const FOREIGN: &str = "foreign";

/// `sheath check` in the agent's pod: it comes to an end, and says no more than can be seen from there.
fn check(scene: &Scene<'_>, agent: &str) {
    let space = format!("--namespace={NAMESPACE}");
    let check = ["sheath", "check", "--config", "/etc/sheath/sheath.yaml"];
    let exec = ["exec", &space, agent, "--"].into_iter().chain(check);
    let output = scene.cluster.kubectl().command(exec).unwrap().output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    let has_errors = said.lines().any(|line| line.starts_with("error"));
    assert_eq!(output.status.success(), !has_errors, "{output:?}");
    let line_of = |subject: &str| {
        let is_it = |line: &&str| line.split_whitespace().nth(1) == Some(subject);
        said.lines().find(is_it).unwrap_or_else(|| panic!("nothing of {subject}")).to_owned()
    };
    assert!(line_of("gate").contains("the runtime offers NRI"), "{said}");
    assert!(line_of("pods").starts_with("ok"), "{said}");
    let lockdown = line_of("lockdown");
    let of_kernel = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    match of_kernel.split_once('[').and_then(|(_, rest)| rest.split_once(']')) {
        Some((mode, _)) => assert!(lockdown.contains(mode), "{lockdown}"),
        None => assert!(!lockdown.contains("none,"), "nobody can know that: {lockdown}"),
    }
}

/// A caller with an annotation that the kubelet gives to pods of its own.
fn annotated(scene: &Scene<'_>, name: &str, node: NodeName, address: &str, what: &str) -> String {
    let annotations = format!("metadata: {{annotations: {{{what}}}, ");
    scene.caller(name, node, address).replacen("metadata: {", &annotations, 1)
}

#[test]
fn what_cannot_be_protected_is_told_and_other_values_reach_agents_and_controller() {
    let [a, b] = NODES;
    let turn = shared::turn();
    let kubectl = turn.cluster.kubectl();
    let scene = Scene::new(&turn, Some("require"));
    let release = Release::install(&turn, &json!({})).unwrap();
    check(&scene, &release.agent(a).unwrap());

    // A runtime that the agents do not know.
    kubectl
        .apply(&format!(
            "apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {{name: {FOREIGN}}}
handler: {OTHER_HANDLER}
"
        ))
        .unwrap();
    let of_class = format!("runtimeClassName: {FOREIGN}\n  terminationGracePeriodSeconds: 1");
    let live = "command: [sleep, infinity]";
    kubectl.apply(&scene.object(FOREIGN, "client", a, &of_class, live)).unwrap();
    scene.run("web", "web", b);
    scene.run("client", "client", a);
    let address = scene.addresses("web").swap_remove(0);
    scene.wait_served("client", &address);
    let tap = Tap::new(&turn.cluster.node(a).netns, WIRE);

    // The author of a pod can write any annotation. The kubelet overwrites the one, and does not run what has the other.
    let hash = "kubernetes.io/config.hash: b1946ac92492d2347c6235b4d2611184";
    let from_file = format!("kubernetes.io/config.source: file, {hash}");
    kubectl.apply(&annotated(&scene, "from-file", a, &address, &from_file)).unwrap();
    let mirror = format!("kubernetes.io/config.mirror: forged, {from_file}");
    let mirror = annotated(&scene, "mirror", a, &address, &mirror);
    // With one the API server would refuse it.
    kubectl.apply(&mirror.replace("  serviceAccountName: client\n", "")).unwrap();
    assert_eq!(scene.wait_succeeded("from-file"), scene.marker);
    let space = format!("--namespace={}", scene.namespace);
    wait::wait_until("the kubelet to delete what is no image of its pods", LIMIT, || {
        kubectl.run(["get", "pod", "mirror", &space]).is_err()
    });

    let subject = format!("{}/{FOREIGN}", scene.namespace);
    let problems = release.status(a).unwrap().problems;
    let is_told = problems.iter().any(|it| it.subject == subject && it.problem.contains("runtime"));
    assert!(is_told, "{problems:?}");
    // By CNI, which comes first and knows no handlers.
    let gate = ["sheath-cni", "sheath:", "its runtime class may stand for a sandbox"];
    kubectl.wait_event(&scene.namespace, FOREIGN, &gate, LIMIT).unwrap();
    wait::wait_until("the controller's event", LIMIT, || {
        let events = kubectl.get(["events", &space]).unwrap();
        let events = events["items"].as_array().unwrap().clone();
        events.iter().any(|event| {
            event["reason"] == "ProtectionProblem" && event["involvedObject"]["name"] == FOREIGN
        })
    });
    let pod = kubectl.get(["pod", FOREIGN, &space]).unwrap();
    assert_eq!(pod["status"]["phase"], "Pending", "{}", pod["status"]);

    // Agents that know it, and a controller whose certificates live for an hour.
    let known = json!({
        "runtimeClasses": [FOREIGN],
        "runtimeHandlers": ["", "runc", "crun", OTHER_HANDLER],
    });
    let before = release.agent(a).unwrap();
    release.upgrade(&json!({"agent": known, "controller": {"svidTtl": "1h"}})).unwrap();
    scene.wait_running(FOREIGN);
    scene.wait_served(FOREIGN, &address);
    scene.wait_served("client", &address);
    assert_ne!(release.agent(a).unwrap(), before, "the agent was not replaced");
    // The controller before may have signed for those before.
    scene.run("later", "client", a);
    scene.wait_served("later", &address);
    let status = release.status(a).unwrap();
    let later = status.workload(&format!("{}/later", scene.namespace));
    let svid = later.svid.as_ref().expect("a certificate");
    let ends = OffsetDateTime::parse(svid.not_after.as_str().unwrap(), &Rfc3339).unwrap();
    let left = ends - OffsetDateTime::now_utc();
    assert!(left.whole_minutes() < 61, "the controller goes by the values before: {svid:?}");
    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
    kubectl.run(["delete", "runtimeclass", FOREIGN]).unwrap();
}
