//! Services: which pod a connection to their address goes to, and that it is that pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::json;
use sheath_tests::api_server::Kind;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, any, client, say, server};
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::{Connection, Job, Step};
use sheath_tests::status::Access;
use sheath_tests::tap::Tap;
use sheath_tests::world::Family;

use crate::cluster_directory::{Cluster, Running, uid};

pub const VIP: &str = "10.96.0.7:80";

/// A Service at [`VIP`], and these pods behind it.
pub fn serve(cluster: &Cluster, namespace: &str, pods: &[u8]) {
    let spec = json!({
        "type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}],
    });
    let name = json!({"name": "web", "namespace": namespace});
    cluster.api.put(Kind::Service, json!({"metadata": name, "spec": spec}));
    let endpoint = |number: &u8| {
        json!({
            "addresses": [format!("10.1.1.{number}")],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "node-a",
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": format!("pod-{number}"), "uid": uid(*number)},
        })
    };
    let labels = json!({"kubernetes.io/service-name": "web"});
    let slice = json!({
        "metadata": {"name": "web-1", "namespace": namespace, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
    });
    cluster.api.put(Kind::EndpointSlice, slice);
}

pub fn vip() -> SocketAddr {
    VIP.parse().unwrap()
}

pub fn call(from: &Running, text: &str) -> Connection {
    probe::run(&from.place(), &client(vip(), &say(text)))
}

#[track_caller]
pub fn answered(from: &Running, text: &str) -> Connection {
    let seen = call(from, text);
    assert_eq!((seen.ended_by(), seen.last().text.as_str()), (None, text), "{seen:?}");
    seen
}

pub fn echo(pod: &Running) -> Probe {
    Probe::start(&pod.place(), &server(any(Family::V4, PORT), &[Step::Echo]))
}

pub fn idle(pod: &Running) -> Probe {
    Probe::start(&pod.place(), &Job::Idle)
}

/// Flows to the Service so far, as the caller's side has seen them.
fn flows(cluster: &Cluster) -> Vec<Access> {
    let all = cluster.agent.access().into_iter();
    all.filter(|access| access.direction == "outbound" && access.service == "shop/web").collect()
}

#[test]
fn each_endpoint_has_its_share_and_proves_its_own_identity() {
    let cluster = Cluster::new();
    cluster.namespace("shop", Some("require"));
    let caller = cluster.run("shop", 2);
    let web: Vec<_> = [3, 4, 5].map(|number| cluster.run("shop", number)).into();
    let taps: Vec<_> = ["pod3", "pod4", "pod5"]
        .map(|interface| Tap::new(&cluster.world.a.netns, interface))
        .into();
    let _echo: Vec<_> = web.iter().map(echo).collect();
    let _idle = idle(&caller);
    serve(&cluster, "shop", &[3, 4, 5]);
    cluster.wait_for("all are protected", [0, 0, 4]);
    let text = marker();
    for _ in 0..60 {
        // The application sees the Service.
        assert_eq!(answered(&caller, &text).peer, Some(vip()));
    }
    cluster.agent.wait_for_access("the last flow", |_| flows(&cluster).len() >= 60);
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    let mut reused = BTreeSet::new();
    for access in flows(&cluster) {
        let number = &access.endpoint["10.1.1.".len()..access.endpoint.len() - ":8080".len()];
        assert!(access.peer_id.ends_with(&format!("/ns/shop/sa/account-{number}")), "{access:?}");
        assert_eq!((&*access.destination, &*access.protection), (VIP, "mtls"), "{access:?}");
        if access.reused {
            reused.insert(access.endpoint.clone());
        }
        *shares.entry(access.endpoint).or_default() += 1;
    }
    // By chance alone, less than 6 of 60 is as likely as one in 2 000.
    assert!(shares.len() == 3 && shares.values().all(|share| *share >= 6), "{shares:?}");
    assert_eq!(reused.len(), 3, "sessions are kept for each");
    taps.iter().for_each(|tap| assert_ciphertext(tap, PORT, &text));
}

#[test]
fn a_pod_may_call_itself_by_its_service() {
    let cluster = Cluster::new();
    cluster.namespace("shop", Some("require"));
    let web = cluster.run("shop", 3);
    let _echo = echo(&web);
    serve(&cluster, "shop", &[3]);
    cluster.wait_for("it is protected", [0, 0, 1]);
    answered(&web, "to myself");
    let access = cluster.agent.wait_for_access("the flow", |access| {
        access.service == "shop/web" && access.direction == "outbound"
    });
    assert_eq!((&*access.endpoint, &*access.protection), ("10.1.1.3:8080", "mtls"), "{access:?}");
}

#[test]
fn an_endpoint_without_protection_is_called_only_where_protection_is_preferred() {
    let cluster = Cluster::new();
    cluster.namespace("other", None);
    cluster.namespace("prefers", Some("prefer"));
    cluster.namespace("requires", Some("require"));
    let web = cluster.run("other", 3);
    let (prefers, requires) = (cluster.run("prefers", 2), cluster.run("requires", 4));
    let tap = Tap::new(&cluster.world.a.netns, "pod3");
    let _running = [echo(&web), idle(&prefers), idle(&requires)];
    serve(&cluster, "other", &[3]);
    cluster.wait_for("both are protected", [1, 0, 2]);
    let text = marker();
    assert_eq!(call(&requires, &text).ended_by(), Some(libc::ECONNRESET));
    assert_eq!(tap.sightings(&text), 0);
    assert_eq!(answered(&prefers, &text).peer, Some(vip()));
    assert!(tap.sightings(&text) > 0, "as it is");
    let access =
        cluster.agent.wait_for_access("the flow", |access| access.protection == "plaintext");
    assert_eq!((&*access.service, &*access.endpoint), ("other/web", "10.1.1.3:8080"));
    assert_eq!(cluster.agent.status().counter("outbound_plaintext"), 1);
    let refused = cluster.agent.wait_for_access("the refusal", |access| access.outcome == "denied");
    assert!(refused.reason.contains("1 without protection"), "{refused:?}");
}
