//! Pods of every kind, on a real cluster: whatever a container is to Kubernetes, what it says is protected from its first
//! connection on.

use sheath_tests::cluster::agents::Agents;
use sheath_tests::cluster::scene::{IMAGE, LIMIT, PORT, Scene, url};
use sheath_tests::cluster::{NODES, NodeName, WIRE, shared};
use sheath_tests::tap::Tap;

/// The pod that stays, and gets an ephemeral container.
const LIVING: &str = "living";

/// Pods and a Job whose containers each ask once, at once, and end; but for one pod, which lives on.
fn objects(scene: &Scene<'_>, node: NodeName, address: &str) -> String {
    let ask = format!(
        "image: {IMAGE}, imagePullPolicy: Never, command: [curl, -sS, -m, '10', '{}']",
        url(address, PORT)
    );
    let live = format!(
        "image: {IMAGE}, imagePullPolicy: Never, command: [sh, -c, 'read forever'], stdin: true"
    );
    let resources = |which: &str| format!("{{name: main, {ask}, resources: {{{which}}}}}");
    let amounts = "{cpu: 10m, memory: 32Mi}";
    let pods = [
        ("guaranteed", String::new(), resources(&format!("limits: {amounts}"))),
        ("burstable", String::new(), resources(&format!("requests: {amounts}"))),
        ("besteffort", String::new(), resources("")),
        (
            "init",
            format!("initContainers: [{{name: first, {ask}}}]"),
            format!("{{name: main, {ask}}}"),
        ),
        (
            "sidecar",
            format!("initContainers: [{{name: beside, restartPolicy: Always, {live}}}]"),
            format!("{{name: main, {ask}}}"),
        ),
        ("host", "hostNetwork: true".to_owned(), format!("{{name: main, {ask}}}")),
        ("users", "hostUsers: false".to_owned(), format!("{{name: main, {ask}}}")),
        (LIVING, String::new(), format!("{{name: main, {live}}}")),
    ];
    let spec = |rest: &str, containers: &str, indent: &str| {
        let lines = [
            format!("nodeName: {}", node.as_str()),
            "serviceAccountName: client".to_owned(),
            "restartPolicy: Never".to_owned(),
            "terminationGracePeriodSeconds: 1".to_owned(),
            rest.to_owned(),
            format!("containers: [{containers}]"),
        ];
        lines.map(|line| format!("{indent}{line}\n")).concat()
    };
    let pods = pods.map(|(name, rest, container)| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {}}}\nspec:\n{}",
            scene.namespace,
            spec(&rest, &container, "  ")
        )
    });
    let job = format!(
        "---
apiVersion: batch/v1
kind: Job
metadata: {{name: job, namespace: {}}}
spec:
  backoffLimit: 0
  template:
    spec:
{}",
        scene.namespace,
        spec("", &format!("{{name: main, {ask}}}"), "      ")
    );
    pods.concat() + &job
}

#[test]
fn containers_of_every_kind_are_protected_from_their_first_connection_on() {
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("require"));
    let agents = Agents::start(&turn, &scene.accounts()).unwrap();
    let [a, b] = NODES;
    scene.run("web", "web", b);
    let address = scene.addresses("web").swap_remove(0);
    let tap = Tap::new(&scene.cluster.node(a).netns, WIRE);
    let kubectl = scene.cluster.kubectl();
    kubectl.apply(&objects(&scene, a, &address)).unwrap();
    let space = format!("--namespace={}", scene.namespace);
    let said = |what: &str, container: &str| {
        kubectl.run(["logs", what, &space, &format!("--container={container}")]).unwrap()
    };
    for name in ["guaranteed", "burstable", "besteffort", "init", "sidecar", "host", "users"] {
        assert_eq!(scene.wait_succeeded(name), scene.marker, "{name}");
    }
    assert_eq!(said("pod/init", "first"), scene.marker);
    kubectl.wait(&scene.namespace, "condition=Complete", "job/job", LIMIT).unwrap();
    assert_eq!(said("job/job", "main"), scene.marker);

    // A container that comes into a pod which has run for long.
    scene.wait_running(LIVING);
    let image = format!("--image={IMAGE}");
    let url = url(&address, PORT);
    let ask = ["--", "curl", "-sS", "-m", "10", &url];
    let debug = ["debug", LIVING, &space, &image, "--image-pull-policy=Never", "--container=later"];
    kubectl.run(debug.into_iter().chain(ask)).unwrap();
    let ended = "jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}=0";
    kubectl.wait(&scene.namespace, ended, &format!("pod/{LIVING}"), LIMIT).unwrap();
    assert_eq!(said(&format!("pod/{LIVING}"), "later"), scene.marker);

    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
    // Each call was the client's, and none of them somebody else's.
    let calls = agents.access(a).into_iter().filter(|flow| flow.is("outbound", "ok"));
    let id = format!("/ns/{}/sa/client", scene.namespace);
    let calls: Vec<_> = calls.filter(|flow| flow.local_id.ends_with(&id)).collect();
    assert_eq!(calls.len(), 10, "{calls:?}");
}
