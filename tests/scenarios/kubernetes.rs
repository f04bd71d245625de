//! Pods of a real cluster, under agents that find them by watching its API server.

use std::net::SocketAddr;

use sheath_tests::binaries;
use sheath_tests::cluster::agents::{Agents, TRUST_DOMAIN};
use sheath_tests::cluster::controller::Controller;
use sheath_tests::cluster::scene::{IMAGE, LIMIT, PORT, Scene, nginx, url};
use sheath_tests::cluster::{NODES, NodeName, WIRE, shared};
use sheath_tests::tap::Tap;
use sheath_tests::wait;

#[test]
fn pods_of_a_labelled_namespace_speak_mutual_tls_between_the_nodes() {
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("require"));
    let stranger = Scene::new(&turn, None);
    let agents = Agents::start(&turn, &scene.accounts()).unwrap();
    let [a, b] = NODES;
    scene.run("web", "web", b);
    scene.run("client", "client", a);
    stranger.run("stranger", "client", a);
    stranger.run("open", "web", b);
    let tap = Tap::new(&scene.cluster.node(a).netns, WIRE);
    for address in scene.addresses("web") {
        scene.wait_served("client", &address);
        // Nobody who has not proved who it is.
        assert!(stranger.ask("stranger", &address).is_err(), "a stranger was served");
        // Outbound, whoever is not known is not called.
        assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
    }
    let id = |account: &str| format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/{account}", scene.namespace);
    let [outbound, inbound] = [(a, "outbound"), (b, "inbound")].map(|(node, direction)| {
        wait::wait_for(&format!("a flow {direction}"), LIMIT, || {
            agents.access(node).into_iter().find(|access| access.is(direction, "ok"))
        })
    });
    assert_eq!((&*outbound.local_id, &*outbound.peer_id), (&*id("client"), &*id("web")));
    assert_eq!((&*inbound.local_id, &*inbound.peer_id), (&*id("web"), &*id("client")));
    // Pods that nobody has selected are as ever.
    for address in stranger.addresses("open") {
        stranger.wait_served("stranger", &address);
    }
    assert!(tap.sightings(&stranger.marker) > 0, "the tap sees nothing");
}

#[test]
fn a_pod_that_is_made_while_the_agent_is_dead_is_held_and_then_served() {
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("require"));
    let mut agents = Agents::start(&turn, &scene.accounts()).unwrap();
    let [a, b] = NODES;
    scene.run("web", "web", b);
    scene.run("before", "client", a);
    let addresses = scene.addresses("web");
    for address in &addresses {
        scene.wait_served("before", address);
    }
    let tap = Tap::new(&scene.cluster.node(a).netns, WIRE);
    agents.kill(a);
    scene.run("held", "client", a);
    for address in &addresses {
        for client in ["before", "held"] {
            let refused = scene.ask(client, address).unwrap_err().to_string();
            assert!(refused.contains("Failed to connect"), "{client}: {refused}");
        }
    }
    // Not the port alone: a kubelet still probes pods of others whose routes are gone, and that leaves the node.
    let tried = |address: &String| tap.attempts_at(SocketAddr::new(address.parse().unwrap(), PORT));
    let tried: Vec<_> = addresses.iter().flat_map(tried).collect();
    assert_eq!(tried, [], "a connection was tried");
    agents.launch(a).unwrap();
    for address in &addresses {
        for client in ["before", "held"] {
            scene.wait_served(client, address);
        }
    }
    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
}

/// Each pod has the identity that the controller knows for it, and nobody's key has left a node. The controller's rights are
/// those that its chart gives it.
#[test]
fn pods_have_their_identities_of_the_controller_and_keep_them_without_it() {
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("require"));
    let mut controller = Controller::start(&turn).unwrap();
    let agents = Agents::start_with(&turn, &scene.accounts(), |node, config| {
        controller.configure(node, config)
    })
    .unwrap();
    let [a, b] = NODES;
    scene.run("web", "web", b);
    scene.run("client", "client", a);
    let tap = Tap::new(&scene.cluster.node(a).netns, WIRE);
    let addresses = scene.addresses("web");
    for address in &addresses {
        scene.wait_served("client", address);
    }
    let id = |account: &str| format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/{account}", scene.namespace);
    let [outbound, inbound] = [(a, "outbound"), (b, "inbound")].map(|(node, direction)| {
        wait::wait_for(&format!("a flow {direction}"), LIMIT, || {
            agents.access(node).into_iter().find(|access| access.is(direction, "ok"))
        })
    });
    assert_eq!((&*outbound.local_id, &*outbound.peer_id), (&*id("client"), &*id("web")));
    assert_eq!((&*inbound.local_id, &*inbound.peer_id), (&*id("web"), &*id("client")));
    let issued = std::fs::read_to_string(controller.log()).unwrap();
    for account in ["web", "client"] {
        assert!(issued.contains(&id(account)), "{account}: {issued}");
    }
    controller.kill();
    for address in &addresses {
        assert_eq!(scene.ask("client", address).unwrap(), scene.marker);
    }
    // One that is new has no identity as long as the controller is away, and gets it with the controller.
    let name = "late";
    scene.cluster.kubectl().apply(&scene.pod(name, "client", a)).unwrap();
    agents.wait_for_status(a, "the pod has no identity", |status| {
        status.workloads.iter().any(|workload| {
            workload.name == format!("{}/{name}", scene.namespace)
                && !workload.identity.problem.is_empty()
        })
    });
    controller.launch().unwrap();
    scene.wait_running(name);
    for address in &addresses {
        scene.wait_served(name, address);
    }
    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
}

/// Containers whose first instruction is `connect()`: the runtime waits for the agent before it starts them.
#[test]
fn no_connection_of_a_pods_first_instructions_is_refused() {
    const PODS: usize = 8;
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("require"));
    let agents = Agents::start(&turn, &scene.accounts()).unwrap();
    let [a, b] = NODES;
    scene.run("web", "web", b);
    let address = scene.addresses("web").swap_remove(0);
    let tap = Tap::new(&scene.cluster.node(a).netns, WIRE);
    let asked = || agents.status(a).unwrap().gate.expect("a gate");
    let before = asked();
    assert_eq!((&*before.in_force, &*before.problem), ("nri", ""));
    assert!(before.runtime.starts_with("containerd"), "{before:?}");
    let names: Vec<_> = (0..PODS).map(|number| format!("first-{number}")).collect();
    let pods: Vec<_> = names.iter().map(|name| scene.caller(name, a, &address)).collect();
    scene.cluster.kubectl().apply(&pods.join("---\n")).unwrap();
    for name in &names {
        assert_eq!(scene.wait_succeeded(name), scene.marker);
    }
    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
    assert!(asked().admitted >= before.admitted + PODS as u64, "the runtime has not asked");
}

/// The runtime asks before it starts a pod, and the kubelet tells people why it does not start.
#[test]
fn a_pod_that_nobody_has_decided_about_does_not_start_and_its_events_say_why() {
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("requrie"));
    let agents = Agents::start(&turn, &scene.accounts()).unwrap();
    let [a, _] = NODES;
    let kubectl = scene.cluster.kubectl();
    kubectl.apply(&scene.pod("client", "client", a)).unwrap();
    let space = format!("--namespace={}", scene.namespace);
    wait::wait_until("an event that names the cause", LIMIT, || {
        let events = kubectl.run(["get", "events", &space, "--output=json"]).unwrap();
        events.contains("sheath: pod") && events.contains("not decided yet")
    });
    agents.wait_for_status(a, "the label that makes no sense", |status| {
        status.problems.iter().any(|problem| problem.problem.contains("`requrie`"))
    });
    let label =
        ["label", "--overwrite", "namespace", &scene.namespace, "sheath.dev/protect=require"];
    kubectl.run(label).unwrap();
    scene.wait_running("client");
}

/// A pod with probes and hooks of every kind that goes over the network. What calls it is in nginx's log.
fn probed_pod(scene: &Scene<'_>, node: NodeName) -> String {
    let listen: String = PROBED.map(|port| format!("listen {port}; listen [::]:{port}; ")).concat();
    let serve = nginx(&format!(
        "access_log /dev/stdout; server {{ {listen} location / {{ return 200 {}; }} \
         location /live {{ if (-f /tmp/dead) {{ return 500; }} return 200 yes; }} }}",
        scene.marker
    ));
    let health = r#"{"Health":{"listen":"0.0.0.0:8082"}}"#;
    let probe = binaries::probe();
    let probe = probe.file_name().unwrap().to_string_lossy();
    let [http, tcp, hook, _] = PROBED;
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: probed, namespace: {}}}
spec:
  nodeName: {}
  serviceAccountName: web
  terminationGracePeriodSeconds: 2
  containers:
  - name: main
    image: {IMAGE}
    imagePullPolicy: Never
    command: {serve}
    ports: [{{name: http, containerPort: {http}}}]
    startupProbe: {{httpGet: {{path: /start, port: {http}}}, periodSeconds: 1, failureThreshold: 60}}
    livenessProbe: {{httpGet: {{path: /live, port: http}}, periodSeconds: 1, failureThreshold: 2}}
    readinessProbe: {{tcpSocket: {{port: {tcp}}}, periodSeconds: 1}}
    lifecycle: {{preStop: {{httpGet: {{path: /pre-stop, port: {hook}}}}}}}
  - name: health
    image: {IMAGE}
    imagePullPolicy: Never
    command: [/usr/bin/{probe}, '{health}']
    # It lives as long as that is open.
    stdin: true
    readinessProbe: {{grpc: {{port: 8082}}, periodSeconds: 1}}
    lifecycle: {{postStart: {{httpGet: {{path: /post-start, port: {hook}}}}}}}
",
        scene.namespace,
        node.as_str()
    )
}

/// Ports of nginx: of httpGet, tcpSocket, a hook, and one without any of these.
const PROBED: [u16; 4] = [8080, 8081, 8083, 8084];

#[test]
fn probes_and_hooks_of_the_kubelet_reach_a_strict_pod_and_nothing_else_of_the_node_does() {
    let turn = shared::turn();
    let scene = Scene::new(&turn, Some("require"));
    let agents = Agents::start(&turn, &scene.accounts()).unwrap();
    let [a, b] = NODES;
    let tap = Tap::new(&scene.cluster.node(a).netns, WIRE);
    let kubectl = scene.cluster.kubectl();
    kubectl.apply(&probed_pod(&scene, b)).unwrap();
    // By HTTP, TCP and gRPC.
    scene.wait_running("probed");
    let space = format!("--namespace={}", scene.namespace);
    let log = |more: &[&str]| {
        let arguments = ["logs", "pod/probed", "--container=main", &space].into_iter();
        kubectl.run(arguments.chain(more.iter().copied()))
    };
    wait::wait_until("a postStart hook", LIMIT, || {
        log(&[]).is_ok_and(|log| log.contains("/post-start"))
    });
    // A container whose liveness probe fails is restarted, and its preStop hook is called first.
    kubectl
        .run(["exec", &space, "probed", "--container=main", "--", "sh", "-c", ": > /tmp/dead"])
        .unwrap();
    wait::wait_until("a restart with a preStop hook", LIMIT, || {
        log(&["--previous"]).is_ok_and(|log| log.contains("/pre-stop"))
    });
    scene.wait_running("probed");
    // Others of the node get nothing, on any port; whoever is in the kubelet's cgroup gets what the kubelet gets.
    let ask = |cgroup: &str, address: &str, port: u16| {
        let mut curl = scene.cluster.node(b).command(cgroup, "curl").unwrap();
        let output = curl.args(["-sS", "-m", "5", &url(address, port)]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let addresses = scene.addresses("probed");
    assert!(addresses.len() == 2, "of both families: {addresses:?}");
    for address in &addresses {
        for port in PROBED {
            assert_eq!(ask("stranger", address, port), "", "{address} {port}");
        }
        let [probed @ .., other] = PROBED;
        for port in probed {
            assert_eq!(ask("kubelet", address, port), scene.marker, "{address} {port}");
        }
        assert_eq!(ask("kubelet", address, other), "", "{address}");
    }
    let status = agents.status(b).unwrap();
    assert!(status.counter("probes_passed") > 0 && status.counter("probe_unmatched") >= 6);
    assert_eq!(status.counter("probe_lost"), 0);
    assert_eq!(tap.sightings(&scene.marker), 0, "plaintext on the wire");
}
