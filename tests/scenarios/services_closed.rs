//! Services where nobody answers, or nobody may: refused at once, replaced, never guessed. And those that are bypassed by name.

use std::net::SocketAddr;

use serde_json::json;
use sheath_tests::api_server::Kind;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, any, client, living, say, server};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Connection, Step};
use sheath_tests::tap::Tap;
use sheath_tests::wait::{GENEROUS, wait_until};
use sheath_tests::world::Family;

use crate::cluster_directory::{Cluster, Running, uid};
use crate::services::{VIP, answered, call, echo, idle, serve, vip};

fn service_range(cluster: &Cluster, range: &str) {
    let range = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [range]}});
    cluster.api.put(Kind::ServiceCidr, range);
}

fn call_at(from: &Running, to: &str, text: &str) -> Connection {
    let to: SocketAddr = to.parse().unwrap();
    probe::run(&from.place(), &client(to, &say(text)))
}

#[track_caller]
fn wait_for_services(
    cluster: &Cluster,
    what: &str,
    is_so: impl Fn(&sheath_tests::status::Directory) -> bool,
) {
    cluster.agent.wait_for_status(what, |status| status.directory.as_ref().is_some_and(&is_so));
}

/// Also while the controller does not know of it, as it is too old for instance.
#[test]
fn an_unknown_address_of_services_is_asked_for_and_never_guessed() {
    let cluster = Cluster::new();
    cluster.namespace("prefers", Some("prefer"));
    let caller = cluster.run("prefers", 2);
    let tap = Tap::new(&cluster.world.a.netns, "pod2");
    let _idle = idle(&caller);
    cluster.wait_for("it is protected", [0, 0, 1]);
    // Nobody waits for an answer from there.
    cluster.world.a.netns.ip("route add unreachable 10.96.0.0/16\n");
    let text = marker();
    let left = |cluster: &Cluster| cluster.agent.status().counter("connect_bypassed");
    // Nobody says that it is the cluster's.
    let before = left(&cluster);
    call(&caller, &text);
    assert_eq!((left(&cluster) - before, tap.attempts(80).is_empty()), (1, false));
    service_range(&cluster, "10.96.0.0/16");
    wait_for_services(&cluster, "the range", |known| {
        known.ranges.iter().any(|range| range == "10.96.0.0/16")
    });
    let (before, attempts) = (left(&cluster), tap.attempts(80).len());
    let seen = call(&caller, &text);
    assert_eq!(seen.ended_by(), Some(libc::ECONNRESET), "{seen:?}");
    assert_eq!((left(&cluster), tap.attempts(80).len()), (before, attempts));
    let refused = cluster.agent.wait_for_access("the refusal", |access| {
        access.destination == VIP && access.outcome == "denied"
    });
    assert!(refused.reason.contains("nobody is known at"), "{refused:?}");
}

/// Kubernetes before 1.33 has no ServiceCIDRs.
#[test]
fn where_no_object_says_the_range_of_services_the_settings_do() {
    let cluster = Cluster::under(
        |behaviour| behaviour.absent = vec![Kind::ServiceCidr],
        |settings| settings["serviceRanges"] = json!(["10.96.0.0/16"]),
        |_| {},
    );
    cluster.namespace("prefers", Some("prefer"));
    let (caller, web) = (cluster.run("prefers", 2), cluster.run("prefers", 3));
    let _running = [idle(&caller), echo(&web)];
    cluster.wait_for("both are protected", [0, 0, 2]);
    wait_for_services(&cluster, "the range", |known| {
        known.ranges.iter().any(|range| range == "10.96.0.0/16")
    });
    assert_eq!(call(&caller, "x").ended_by(), Some(libc::ECONNRESET), "it is known to nobody");
    serve(&cluster, "prefers", &[3]);
    wait_until("the Service", GENEROUS, || call(&caller, "x").ended_by().is_none());
}

/// The directory may not have heard of it yet: it may be protected.
#[test]
fn an_endpoint_that_is_a_pod_nobody_knows_is_not_called_in_the_clear() {
    let cluster = Cluster::new();
    cluster.namespace("prefers", Some("prefer"));
    let caller = cluster.run("prefers", 2);
    let _idle = idle(&caller);
    cluster.wait_for("it is protected", [0, 0, 1]);
    let tap = Tap::new(&cluster.world.a.netns, "pod2");
    // Outside of all ranges. Nobody waits for an answer from there.
    cluster.world.a.netns.ip("route add unreachable 10.9.0.0/16\n");
    let slice = |pod: Option<&str>| {
        let pod = pod
            .map(|uid| json!({"kind": "Pod", "namespace": "prefers", "name": "new", "uid": uid}));
        json!({
            "metadata": {
                "name": "web-1", "namespace": "prefers", "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.9.0.5"], "conditions": {"ready": true}, "targetRef": pod}],
        })
    };
    serve(&cluster, "prefers", &[]);
    cluster.api.put(Kind::EndpointSlice, slice(Some(&uid(9))));
    let refused = || {
        call(&caller, "x");
        let all = cluster.agent.access();
        all.iter().any(|access| access.reason.contains("0 that will be protected, 1 unknown"))
    };
    wait_until("the refusal", GENEROUS, refused);
    assert_eq!(tap.attempts(PORT), []);
    // A machine elsewhere, on the other hand, is nobody of the cluster's.
    cluster.api.put(Kind::EndpointSlice, slice(None));
    wait_until("the attempt", GENEROUS, || {
        call(&caller, "x");
        !tap.attempts(PORT).is_empty()
    });
}

#[test]
fn where_no_endpoint_is_ready_connect_is_refused_at_once() {
    let cluster = Cluster::new();
    cluster.namespace("shop", Some("require"));
    cluster.namespace("prefers", Some("prefer"));
    let (caller, prefers, web) =
        (cluster.run("shop", 2), cluster.run("prefers", 4), cluster.run("shop", 3));
    let _running = [idle(&caller), idle(&prefers), echo(&web)];
    serve(&cluster, "shop", &[]);
    cluster.wait_for("all are protected", [0, 0, 3]);
    let is_refused =
        || [&caller, &prefers].iter().all(|from| call(from, "x").error == Some(libc::ECONNREFUSED));
    wait_until("the refusal", GENEROUS, is_refused);
    let denied = cluster.agent.wait_for_access("the refusal", |access| access.destination == VIP);
    assert!(denied.reason.contains("the Service has no endpoint"), "{denied:?}");
    assert_eq!(denied.rule, "directory");
    serve(&cluster, "shop", &[3]);
    wait_until("an endpoint", GENEROUS, || call(&caller, "x").error.is_none());
    answered(&caller, "hello");
    serve(&cluster, "shop", &[]);
    wait_until("the refusal", GENEROUS, is_refused);
}

/// The application has ended, and the pod is still an endpoint.
#[test]
fn an_endpoint_whose_application_does_not_listen_is_replaced() {
    let cluster = Cluster::new();
    cluster.namespace("shop", Some("require"));
    let (caller, web, mute) =
        (cluster.run("shop", 2), cluster.run("shop", 3), cluster.run("shop", 4));
    let _running = [idle(&caller), echo(&web), idle(&mute)];
    let ends = echo(&mute);
    serve(&cluster, "shop", &[3, 4]);
    cluster.wait_for("all are protected", [0, 0, 3]);
    // Sessions with both are kept.
    let reached = || {
        let all = cluster.agent.access();
        all.iter()
            .any(|access| access.direction == "outbound" && access.endpoint == "10.1.1.4:8080")
    };
    wait_until("both are called", GENEROUS, || {
        answered(&caller, "x");
        reached()
    });
    ends.kill();
    let replaced = || cluster.agent.status().counter("endpoints_replaced");
    wait_until("one is replaced", GENEROUS, || {
        answered(&caller, "y");
        replaced() > 0
    });
    for _ in 0..10 {
        answered(&caller, "z");
    }
}

#[test]
fn nobody_is_at_an_address_that_only_he_says_is_his() {
    let cluster = Cluster::new();
    service_range(&cluster, "10.96.0.0/16");
    cluster.namespace("shop", Some("require"));
    cluster.namespace("prefers", Some("prefer"));
    let (caller, web, thief) =
        (cluster.run("prefers", 2), cluster.run("shop", 3), cluster.run("prefers", 4));
    let _running = [idle(&caller), echo(&web), echo(&thief)];
    serve(&cluster, "shop", &[3]);
    let own = json!({
        "metadata": {"name": "thief", "namespace": "prefers"},
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"],
            // Of another Service, of a pod, and of nobody yet.
            "externalIPs": ["10.96.0.7", "10.1.1.3", "10.96.0.9"],
            "ports": [
                {"name": "http", "port": 80, "protocol": "TCP"},
                {"name": "other", "port": 81, "protocol": "TCP"},
            ],
        },
    });
    cluster.api.put(Kind::Service, own);
    let slice = json!({
        "metadata": {
            "name": "thief-1", "namespace": "prefers", "labels": {"kubernetes.io/service-name": "thief"},
        },
        "addressType": "IPv4",
        "ports": [
            {"name": "http", "port": PORT, "protocol": "TCP"},
            {"name": "other", "port": PORT, "protocol": "TCP"},
        ],
        "endpoints": [{
            "addresses": ["10.1.1.4"],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "node-a",
            "targetRef": {"kind": "Pod", "namespace": "prefers", "name": "pod-4", "uid": uid(4)},
        }],
    });
    cluster.api.put(Kind::EndpointSlice, slice);
    cluster.wait_for("all are protected", [0, 0, 3]);
    wait_for_services(&cluster, "the conflict", |known| {
        known.services.closed.keys().any(|address| address == "10.96.0.7")
    });
    wait_until("its own address", GENEROUS, || {
        call_at(&caller, "10.96.0.8:81", "x").ended_by().is_none()
    });
    answered(&caller, "x");
    let access = cluster.agent.wait_for_access("the flow", |access| access.destination == VIP);
    assert_eq!((&*access.service, &*access.endpoint), ("shop/web", "10.1.1.3:8080"));
    for taken in ["10.96.0.7:81", "10.96.0.9:80", "10.96.0.9:81"] {
        let seen = call_at(&caller, taken, "x");
        assert_eq!(seen.error, Some(libc::ECONNREFUSED), "{taken}: {seen:?}");
    }
    // The pod has its own ports, and no others.
    assert_eq!(call_at(&caller, "10.1.1.3:8080", "x").ended_by(), None);
    assert!(call_at(&caller, "10.1.1.3:81", "x").ended_by().is_some());
}

#[test]
fn a_service_is_bypassed_by_its_name_wherever_it_is() {
    let cluster = Cluster::with(|config| {
        if let Some(kubernetes) = &mut config.kubernetes {
            kubernetes.bypass_services = vec!["infra/web:80".to_owned(), "infra/gone".to_owned()];
            kubernetes.bypass = vec!["192.0.2.7/32:443".to_owned()];
        }
    });
    service_range(&cluster, "10.96.0.0/16");
    cluster.namespace("requires", Some("require"));
    let caller = cluster.run("requires", 2);
    let _idle = idle(&caller);
    cluster.wait_for("it is protected", [0, 0, 1]);
    // In place of kube-proxy: somebody on the node has the address.
    cluster.world.a.netns.ip("addr add 10.96.0.7/32 dev lo\n");
    let place = cluster.world.a.host("resolver");
    let _server = Probe::start(&place, &server(any(Family::V4, 80), &[Step::Echo]));
    let bypassed = |known: &sheath_tests::status::Directory, at: &[&str]| {
        let [gone, web] = &known.services.bypassed[..] else { panic!("{known:?}") };
        (&*gone.service, gone.at.len()) == ("infra/gone", 0)
            && web.service == "infra/web:80"
            && web.at == at
    };
    wait_for_services(&cluster, "nothing", |known| bypassed(known, &[]));
    assert!(call(&caller, "x").ended_by().is_some(), "it is in the range, and nobody knows it");
    // One of the same name elsewhere is another.
    serve(&cluster, "requires", &[]);
    wait_until("it is closed", GENEROUS, || call(&caller, "x").error == Some(libc::ECONNREFUSED));
    cluster.api.delete(Kind::Service, "requires/web");
    serve(&cluster, "infra", &[]);
    wait_for_services(&cluster, "the Service", |known| bypassed(known, &[VIP]));
    answered(&caller, "as it is");
    // All of what is bypassed is told, with who has said so.
    let status = cluster.agent.status();
    let bypass = &status.workload("requires/pod-2").outbound.bypass;
    let told = bypass.iter().map(|one| (&*one.destination, &*one.origin));
    assert_eq!(told.collect::<Vec<_>>(), [("192.0.2.7/32:443", "kubernetes.bypass")]);
    let shown = cluster.agent.sheath("status", &[]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for line in [
        "bypassed by requires/pod-2: 192.0.2.7/32:443 (kubernetes.bypass)".to_owned(),
        format!("bypassed: {VIP} (kubernetes.bypassServices: infra/web:80)"),
    ] {
        assert!(shown.contains(&line), "{line}\n{shown}");
    }
    cluster.api.delete(Kind::Service, "infra/web");
    wait_for_services(&cluster, "nothing", |known| bypassed(known, &[]));
    assert!(call(&caller, "x").ended_by().is_some());
}

#[test]
fn what_goes_in_the_clear_ends_with_the_pod_that_it_goes_to() {
    let cluster = Cluster::new();
    cluster.namespace("other", None);
    cluster.namespace("prefers", Some("prefer"));
    let (caller, web) = (cluster.run("prefers", 2), cluster.run("other", 3));
    let _running = [idle(&caller), echo(&web)];
    serve(&cluster, "other", &[3]);
    cluster.wait_for("all are known", [1, 0, 1]);
    wait_until("the Service", GENEROUS, || call(&caller, "x").ended_by().is_none());
    let begin = || {
        let mut probe = Probe::start(&caller.place(), &client(vip(), &living()));
        probe.wait_paused();
        probe
    };
    let (mut first, mut second) = (begin(), begin());
    first.go();
    assert_eq!(first.connection().ended_by(), None);
    // Another pod has got the address.
    cluster.api.delete(Kind::Pod, "other/pod-3");
    cluster.tell("other", 5, |pod| pod["status"]["podIP"] = json!("10.1.1.3"));
    cluster.agent.wait_for_access("the end", |access| {
        access.reason.contains("another pod has got the address 10.1.1.3:8080")
    });
    second.go();
    assert_eq!(second.connection().ended_by(), Some(libc::ECONNRESET));
}

/// What takes plaintext before it is protected, and afterwards, need not be refused in between.
#[test]
fn a_pod_that_comes_to_prefer_protection_is_reached_all_the_time() {
    let cluster = Cluster::new();
    cluster.namespace("late", None);
    cluster.namespace("prefers", Some("prefer"));
    let (caller, web) = (cluster.run("prefers", 2), cluster.run("late", 3));
    let _running = [idle(&caller), echo(&web)];
    cluster.wait_for("one is plain", [1, 0, 1]);
    let to = web.pod.addresses.at(Family::V4, PORT);
    let hears = |text: &str| {
        let seen = probe::run(&caller.place(), &client(to, &say(text)));
        assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, text), "{seen:?}");
    };
    hears("before");
    cluster.namespace("late", Some("prefer"));
    let protected = || {
        hears("all the time");
        let known = cluster.agent.status().directory.expect("a directory");
        assert_eq!(known.pending, 0, "{known:?}");
        known.protected == 2
    };
    wait_until("it is protected", GENEROUS, protected);
    let tap = Tap::new(&cluster.world.a.netns, "pod3");
    let text = marker();
    hears(&text);
    assert_eq!(tap.sightings(&text), 0);
    cluster.agent.wait_for_access("its flow", |access| {
        access.direction == "outbound" && access.peer_id.ends_with("/ns/late/sa/account-3")
    });
}
