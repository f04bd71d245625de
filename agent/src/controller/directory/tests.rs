//! A model of a cluster in which anything may happen in any order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use sheath_common::pod_uid::PodUid;

use super::entry::uid_hash;
use super::*;
use crate::controller::watches::Objects;
use crate::kubernetes::{Lifetime, Namespace, Pod, Protection, Rules, Wish};
use crate::metrics::Label;

const RANGE: &str = "10.1.0.0/16";

fn rules() -> ClusterRules {
    ClusterRules {
        trust_domain: "example.org".parse().unwrap(),
        pods: Rules { system_namespaces: ["kube-system".to_owned()].into(), ..Rules::default() },
        ranges: vec![RANGE.parse().unwrap()],
        service_ranges: Vec::new(),
        nodes_own_ranges: true,
    }
}

fn uid(n: u8) -> PodUid {
    PodUid::from_bytes([n; 16])
}

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 1, 0, n])
}

fn namespace(name: &str, wish: Wish) -> Namespace {
    Namespace { name: name.into(), wish }
}

fn pod(n: u8, node: &str, addresses: &[u8]) -> Pod {
    Pod {
        uid: uid(n),
        namespace: "shop".into(),
        name: format!("web-{n}").into(),
        service_account: format!("account-{n}").into(),
        node: node.into(),
        addresses: addresses.iter().map(|n| ip(*n)).collect(),
        host_network: false,
        is_mirror: false,
        runtime_class: None,
        wish: Wish::Unsaid,
        lifetime: Lifetime::Living,
        probe_ports: Default::default(),
    }
}

fn entries(cluster: &Cluster) -> BTreeMap<IpAddr, ClusterEntry> {
    cluster.entries().iter().map(|(ip, entry)| (*ip, entry.clone())).collect()
}

fn cluster_of(wish: Protection) -> Cluster {
    let mut cluster = Cluster::new(rules());
    cluster.set_namespace(&"shop".into(), Some(namespace("shop", Wish::Said(wish))));
    cluster
}

fn state(cluster: &mut Cluster, address: u8) -> Option<String> {
    cluster.take_changes();
    let entry = cluster.entries().get(&ip(address)).cloned()?;
    Some(match entry.state {
        ClusterState::Plain => "plain".to_owned(),
        ClusterState::Pending(node) => format!("pending by {node}"),
        ClusterState::Protected(id) => id.rsplit('/').next().unwrap().to_owned(),
    })
}

#[test]
fn a_pod_is_plain_pending_or_protected() {
    let mut cluster = cluster_of(Protection::False);
    cluster.set_pod(&pod(1, "a", &[1]));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("plain"));
    cluster.set_namespace(&"shop".into(), Some(namespace("shop", Wish::Said(Protection::Require))));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("pending by a"));
    // The agent of another node says nothing about it.
    cluster.observe("b", &[uid(1)], &[]);
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("pending by a"));
    cluster.observe("a", &[uid(1)], &[]);
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("account-1"));
    // A label that makes no sense changes nothing about what its node does.
    let unclear = namespace("shop", Wish::Unclear("requrie".to_owned()));
    cluster.set_namespace(&"shop".into(), Some(unclear));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("account-1"));
    cluster.observe_all("a", HashSet::new());
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("pending by a"));
    cluster.set_namespace(&"shop".into(), None);
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("pending by a"));
    for (change, is_there) in [
        (Pod { lifetime: Lifetime::Ending, ..pod(1, "a", &[1]) }, true),
        (Pod { lifetime: Lifetime::Over, ..pod(1, "a", &[1]) }, false),
        (Pod { host_network: true, ..pod(1, "a", &[1]) }, false),
        (pod(1, "a", &[]), false),
        (pod(1, "", &[1]), false),
    ] {
        cluster.set_pod(&change);
        assert_eq!(state(&mut cluster, 1).is_some(), is_there, "{change:?}");
    }
    cluster.set_pod(&Pod { is_mirror: true, ..pod(1, "a", &[1]) });
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("plain"));
    cluster.remove_pod(uid(1));
    assert_eq!(state(&mut cluster, 1), None);
}

#[test]
fn an_observation_counts_whenever_it_comes() {
    let mut cluster = cluster_of(Protection::Require);
    cluster.observe("a", &[uid(1)], &[]);
    cluster.set_pod(&pod(1, "a", &[1]));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("account-1"));
}

#[test]
fn a_node_takes_no_address_of_others() {
    let mut cluster = cluster_of(Protection::Require);
    cluster.set_pod(&pod(1, "a", &[1]));
    cluster.observe("a", &[uid(1)], &[]);
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("account-1"));
    // A plain pod of a bad node says it has the address; so does a system pod.
    let mut thief = Pod { namespace: "kube-system".into(), ..pod(2, "b", &[1, 2]) };
    cluster.set_pod(&thief);
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("account-1"));
    assert_eq!(state(&mut cluster, 2).as_deref(), Some("plain"));
    cluster.set_pod(&Pod { lifetime: Lifetime::Ending, ..pod(1, "a", &[1]) });
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("account-1"));
    // Once it is nobody's, it may be its.
    cluster.remove_pod(uid(1));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("plain"));
    // Where nodes have ranges, not even then.
    cluster.set_node("a", vec!["10.1.0.0/24".parse().unwrap()]);
    assert_eq!(state(&mut cluster, 1), None);
    thief.addresses = [ip(1), "192.0.2.1".parse().unwrap(), "127.0.0.1".parse().unwrap()].into();
    cluster.set_pod(&thief);
    cluster.take_changes();
    assert!(entries(&cluster).is_empty(), "{:?}", entries(&cluster));
}

#[test]
fn what_two_nodes_say_they_have_from_the_beginning_is_nobodys() {
    let mut cluster = cluster_of(Protection::False);
    cluster.set_pod(&pod(1, "a", &[1]));
    cluster.set_pod(&pod(2, "b", &[1]));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("pending by a or b"));
    cluster.remove_pod(uid(1));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("plain"));
}

#[test]
fn nobody_is_plain_where_it_is_not_known_whose_pod_is_there() {
    let mut cluster = cluster_of(Protection::False);
    cluster.set_pod(&pod(1, "a", &[1]));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("plain"));
    // Whoever was there first stays; but the other may be the one that is there.
    cluster.set_pod(&pod(2, "b", &[1]));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("pending by a or b"));
    cluster.remove_pod(uid(2));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("plain"));
    // Two nodes say that the range is theirs: one is wrong.
    cluster.set_node("a", vec!["10.1.0.0/24".parse().unwrap()]);
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("plain"));
    cluster.set_node("b", vec!["10.1.0.0/28".parse().unwrap()]);
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("pending by a or b"));
    // What is protected proves itself.
    cluster.set_namespace(&"shop".into(), Some(namespace("shop", Wish::Said(Protection::Require))));
    cluster.observe("a", &[uid(1)], &[]);
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("account-1"));
    cluster.set_pod(&pod(2, "b", &[1]));
    cluster.observe("b", &[uid(2)], &[]);
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("account-1"));
    // A node without a range of its own has nothing in another's.
    cluster.set_pod(&pod(3, "c", &[20]));
    assert_eq!(state(&mut cluster, 20), None);
}

/// As with networks that do not care for the ranges of nodes.
#[test]
fn ranges_of_nodes_may_be_shared() {
    let mut cluster =
        Cluster::new(ClusterRules { ranges: Vec::new(), nodes_own_ranges: false, ..rules() });
    cluster.set_namespace(&"shop".into(), Some(namespace("shop", Wish::Said(Protection::False))));
    cluster.set_node("a", vec!["10.1.0.0/28".parse().unwrap()]);
    cluster.set_node("b", vec!["10.1.0.16/28".parse().unwrap()]);
    cluster.set_pod(&pod(1, "a", &[20]));
    assert_eq!(state(&mut cluster, 20).as_deref(), Some("plain"));
    cluster.set_pod(&pod(2, "b", &[20]));
    assert_eq!(state(&mut cluster, 20).as_deref(), Some("pending by a or b"));
    assert_eq!(cluster.ranges().len(), 1, "both are asked for");
}

#[test]
fn addresses_of_services_are_asked_for_and_no_pods() {
    let mut cluster = cluster_of(Protection::False);
    cluster.set_pod(&pod(1, "a", &[1, 2]));
    cluster.set_node("a", vec!["10.1.0.0/24".parse().unwrap()]);
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("plain"));
    cluster.set_service_range("kubernetes", vec!["10.1.0.0/31".parse().unwrap()]);
    let changes = cluster.take_changes();
    assert!(changes.ranges.is_none(), "it is in a range of pods");
    assert_eq!(changes.entries, [(ip(1), None)]);
    assert_eq!(state(&mut cluster, 2).as_deref(), Some("plain"));
    let range: ipnet::IpNet = "10.96.0.0/12".parse().unwrap();
    cluster.set_service_range("kubernetes", vec![range]);
    assert!(cluster.take_changes().ranges.unwrap().contains(&range));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("plain"));
    cluster.keep_service_ranges(&HashSet::new());
    assert!(!cluster.take_changes().ranges.unwrap().contains(&range));
    // The settings may say it where the API does not.
    let mut cluster = Cluster::new(ClusterRules { service_ranges: vec![range], ..rules() });
    assert!(cluster.take_changes().ranges.unwrap().contains(&range));
}

/// What a node says of its own range takes nothing from Services.
#[test]
fn services_are_screened_by_what_is_known_of_addresses() {
    use crate::services::Change;
    use crate::services::testing::service;
    let mut cluster = Cluster::new(rules());
    cluster.set_service_range("kubernetes", vec!["10.96.0.0/16".parse().unwrap()]);
    let mut web = service("web", "10.96.0.1");
    web.external.insert("192.0.2.1".parse().unwrap());
    let (services, bounds) = cluster.services();
    services.set_service(web, bounds);
    let foreign = |cluster: &mut Cluster| match &cluster.take_changes().services[..] {
        [Change::Service(service)] => (service.cluster.len(), service.foreign.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(foreign(&mut cluster), (1, 0));
    cluster.set_node_addresses("a", ["192.0.2.1".parse().unwrap()].into());
    cluster.set_node("a", vec!["10.96.0.0/14".parse().unwrap()]);
    assert_eq!(foreign(&mut cluster), (1, 1));
    cluster.remove_node("a");
    assert_eq!(foreign(&mut cluster), (1, 0));
}

/// Before it is protected it takes what comes in the clear, and so it does afterwards.
#[test]
fn a_pod_that_prefers_protection_is_plain_until_it_is_protected() {
    let mut cluster = cluster_of(Protection::False);
    cluster.set_pod(&pod(1, "a", &[1]));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("plain"));
    let label = |cluster: &mut Cluster, wish| {
        cluster.set_namespace(&"shop".into(), Some(namespace("shop", Wish::Said(wish))));
        state(cluster, 1).unwrap()
    };
    assert_eq!(label(&mut cluster, Protection::Prefer), "plain");
    // One that is new was never plain.
    cluster.set_pod(&pod(2, "a", &[2]));
    assert_eq!(state(&mut cluster, 2).as_deref(), Some("pending by a"));
    cluster.observe("a", &[uid(1)], &[]);
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("account-1"));
    // From then on it is never plain again.
    cluster.observe_all("a", HashSet::new());
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("pending by a"));
    cluster.observe("a", &[uid(1)], &[]);
    assert_eq!(label(&mut cluster, Protection::Require), "account-1");
    // What is required is not left in the clear for a moment.
    assert_eq!(label(&mut cluster, Protection::False), "plain");
    cluster.observe_all("a", HashSet::new());
    assert_eq!(label(&mut cluster, Protection::Require), "pending by a");
    assert_eq!(label(&mut cluster, Protection::Prefer), "pending by a");
    // Nor is another pod at its address.
    assert_eq!(label(&mut cluster, Protection::False), "plain");
    assert_eq!(label(&mut cluster, Protection::Prefer), "plain");
    cluster.remove_pod(uid(1));
    cluster.set_pod(&pod(3, "a", &[1]));
    assert_eq!(state(&mut cluster, 1).as_deref(), Some("pending by a"));
}

#[test]
fn ranges_are_those_of_nodes_and_of_the_settings() {
    let mut cluster = Cluster::new(rules());
    cluster.set_node("a", vec!["10.2.0.0/24".parse().unwrap()]);
    cluster.set_node("b", vec!["10.2.1.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()]);
    let ranges = cluster.take_changes().ranges.unwrap();
    let mut shown: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    shown.sort();
    assert_eq!(shown, [RANGE, "10.2.0.0/23", "fd00::/64"]);
    cluster.keep_nodes(&["a".into()].into());
    assert_eq!(cluster.take_changes().ranges.unwrap().len(), 2);
    assert!(cluster.take_changes().is_empty());
}

/// Everything is listed, and nobody needs to be waited for.
fn feed(limits: Limits) -> Arc<Feed> {
    let feed = Feed::new(7, rules(), limits);
    feed.change(|cluster| {
        cluster
            .set_namespace(&"shop".into(), Some(namespace("shop", Wish::Said(Protection::False))));
    });
    Objects::ALL.iter().for_each(|what| feed.listed(*what));
    feed
}

mod events;
mod streams;
