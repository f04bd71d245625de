//! The chart, installed in a real cluster with nothing but its own values: agents as a DaemonSet, the controller as a Deployment.

use serde_json::{Value, json};
use sheath_tests::cluster::agents::TRUST_DOMAIN;
use sheath_tests::cluster::helm::{NAMESPACE, Release};
use sheath_tests::cluster::scene::{LIMIT, Scene};
use sheath_tests::cluster::{NODES, WIRE, shared};
use sheath_tests::tap::Tap;
use sheath_tests::wait;

/// One install, looked at from all sides: each takes minutes.
#[test]
fn helm_install_and_a_label_make_every_selected_pods_tcp_mutual_tls_until_helm_uninstall() {
    let [a, b] = NODES;
    let turn = shared::turn();
    let shop = Scene::new(&turn, None);
    let stranger = Scene::new(&turn, None);
    let release = Release::install(&turn, &json!({})).unwrap();
    assert_eq!(release.ready_pods().unwrap(), 4);

    // Before the label: as ever.
    shop.run("web", "web", b);
    shop.run("client", "client", a);
    stranger.run("stranger", "client", a);
    let tap = Tap::new(&shop.cluster.node(a).netns, WIRE);
    for address in shop.addresses("web") {
        shop.wait_served("client", &address);
    }
    assert!(tap.sightings(&shop.marker) > 0, "the tap sees nothing");

    // With it: the same pods, whose processes go on.
    shop.label("require");
    shop.wait_protected(&release, "web", b);
    shop.wait_protected(&release, "client", a);
    let tap = Tap::new(&shop.cluster.node(a).netns, WIRE);
    for address in shop.addresses("web") {
        shop.wait_served("client", &address);
        assert!(stranger.ask("stranger", &address).is_err(), "a stranger was served");
    }
    assert_eq!(tap.sightings(&shop.marker), 0, "plaintext on the wire");
    let id = |account: &str| format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/{account}", shop.namespace);
    for (node, direction, local, peer) in
        [(a, "outbound", "client", "web"), (b, "inbound", "web", "client")]
    {
        wait::wait_until(&format!("a flow {direction}"), LIMIT, || {
            release.access(node).unwrap_or_default().iter().any(|flow| {
                flow.is(direction, "ok") && flow.local_id == id(local) && flow.peer_id == id(peer)
            })
        });
    }

    // The kubelet's probes pass, and its pod is ready.
    shop.cluster.kubectl().apply(&shop.probed("probed", "web", b)).unwrap();
    shop.wait_running("probed");
    for address in shop.addresses("probed") {
        shop.wait_served("client", &address);
    }

    // What pods reach as it is, and who has said so; and programs run before those of the root.
    let status = release.status(a).unwrap();
    let bypass = &status.workload(&format!("{}/client", shop.namespace)).outbound.bypass;
    let is_api =
        |origin: &str, destination: &str| origin == "API server" && destination.ends_with(":443");
    assert!(bypass.iter().any(|one| is_api(&one.origin, &one.destination)), "{bypass:?}");
    let services = &status.directory.as_ref().expect("a directory").services;
    assert!(services.bypassed.iter().any(|one| one.service == "kube-system/kube-dns:53"));
    let connect = status.programs.iter().find(|program| program.name == "connect_v4").unwrap();
    assert!(connect.attached_to.ends_with("/kubepods"), "{connect:?}");

    // Whoever looks at a pod sees what is wrong with it.
    assert!(shop.ask("client", "192.0.2.1").is_err());
    let space = format!("--namespace={}", shop.namespace);
    wait::wait_until("an event that names the refused connection", LIMIT, || {
        // It goes on, or it would be over before it is told.
        let _ = shop.ask("client", "192.0.2.1");
        let events = shop.cluster.kubectl().get(["events", &space]).unwrap();
        let events = events["items"].as_array().unwrap().clone();
        events.iter().any(|event| {
            event["reason"] == "ConnectionsRefused"
                && event["involvedObject"]["name"] == "client"
                && event["message"].as_str().is_some_and(|text| text.contains("192.0.2.1"))
        })
    });

    // The key of the CA is the controller's.
    let secret = |account: &str| {
        let account = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
        let space = format!("--namespace={NAMESPACE}");
        shop.cluster.kubectl().run(["get", "secret", "sheath-ca", &space, &account])
    };
    assert!(secret("sheath-agent").unwrap_err().to_string().contains("forbidden"));
    assert!(secret("sheath-controller").is_ok());

    release.uninstall().unwrap();
    assert_eq!(shop.cluster.pinned(), [""; 0], "pins are left");
    for address in shop.addresses("web") {
        wait::wait_until("a stranger is served again", LIMIT, || {
            stranger.ask("stranger", &address).is_ok_and(|answer| answer == shop.marker)
        });
    }
    let kinds = "pods,daemonsets,deployments,jobs,services,configmaps,roles";
    let space = format!("--namespace={NAMESPACE}");
    wait::wait_until("nothing of the chart to be left", LIMIT, || {
        let left = shop.cluster.kubectl().get([kinds, &*space]).unwrap();
        let is_ours = |object: &&Value| {
            object["metadata"]["name"].as_str().is_some_and(|name| {
                // The controller makes the CA and its roots, which outlive the chart.
                name.starts_with("sheath") && name != "sheath-roots"
            })
        };
        left["items"].as_array().unwrap().iter().filter(is_ours).count() == 0
    });
}
