//! A model of a cluster in which anything may happen in any order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use sheath_common::pod_uid::PodUid;

use super::entry::uid_hash;
use super::settling::Listed;
use super::*;
use crate::kubernetes::{Lifetime, Namespace, Pod, Protection, Rules, Wish};

const RANGE: &str = "10.1.0.0/16";

fn rules() -> ClusterRules {
    ClusterRules {
        trust_domain: "example.org".parse().unwrap(),
        pods: Rules { system_namespaces: ["kube-system".to_owned()].into(), ..Rules::default() },
        ranges: vec![RANGE.parse().unwrap()],
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
    cluster.set_namespace(&"shop".into(), Some(namespace("shop", Wish::Said(Protection::Prefer))));
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

/// Something happens. Pods 0 to 4 are of the node a, 5 to 9 of b; the nodes share no address honestly.
#[derive(Clone, Debug)]
enum Event {
    /// A pod has an address of its node's.
    Put(u8, u8),
    /// It is about to end, with the address that it has.
    Ends(u8),
    Over(u8),
    Deleted(u8),
    Observed(u8),
    /// The agent of the other node says so.
    ObservedElsewhere(u8),
    Unobserved(u8),
    /// The agent has begun anew, and sees nothing yet.
    Restarted(u8),
    /// A bad node says of a pod of its own that it has an address of the other's.
    Stolen(u8, u8),
    Label(u8),
    Told,
}

fn node(pod: u8) -> &'static str {
    if pod < 5 { "a" } else { "b" }
}

fn event() -> impl Strategy<Value = Event> {
    let pod = 0..10_u8;
    prop_oneof![
        4 => (pod.clone(), 0..3_u8).prop_map(|(pod, at)| Event::Put(pod, at)),
        1 => pod.clone().prop_map(Event::Ends),
        1 => pod.clone().prop_map(Event::Over),
        2 => pod.clone().prop_map(Event::Deleted),
        4 => pod.clone().prop_map(Event::Observed),
        1 => pod.clone().prop_map(Event::ObservedElsewhere),
        1 => pod.clone().prop_map(Event::Unobserved),
        1 => pod.clone().prop_map(Event::Restarted),
        2 => (pod, 0..3_u8).prop_map(|(pod, at)| Event::Stolen(pod, at)),
        1 => (0..3_u8).prop_map(Event::Label),
        3 => Just(Event::Told),
    ]
}

/// An address of a node's.
fn of_node(node: &str, at: u8) -> u8 {
    if node == "a" { 10 + at } else { 20 + at }
}

/// What is true, told by whoever sees all of it.
#[derive(Default)]
struct Truth {
    pods: HashMap<u8, Pod>,
    observed: HashSet<u8>,
    label: Protection,
}

impl Truth {
    fn happens(&mut self, event: &Event, cluster: &mut Cluster) {
        match *event {
            Event::Put(n, at) => self.put(pod(n, node(n), &[of_node(node(n), at)]), cluster),
            Event::Ends(n) => {
                if let Some(known) = self.pods.get(&n).cloned() {
                    self.put(Pod { lifetime: Lifetime::Ending, ..known }, cluster);
                }
            }
            Event::Over(n) => {
                if let Some(known) = self.pods.get(&n).cloned() {
                    cluster.set_pod(&Pod { lifetime: Lifetime::Over, ..known });
                    self.pods.remove(&n);
                }
            }
            Event::Deleted(n) => {
                self.pods.remove(&n);
                cluster.remove_pod(uid(n));
            }
            Event::Observed(n) => {
                self.observed.insert(n);
                cluster.observe(node(n), &[uid(n)], &[]);
            }
            Event::ObservedElsewhere(n) => {
                let other = if node(n) == "a" { "b" } else { "a" };
                cluster.observe(other, &[uid(n)], &[]);
            }
            Event::Unobserved(n) => {
                self.observed.remove(&n);
                cluster.observe(node(n), &[], &[uid(n)]);
            }
            Event::Restarted(n) => {
                self.observed.retain(|known| node(*known) != node(n));
                cluster.observe_all(node(n), HashSet::new());
            }
            Event::Stolen(n, at) => {
                let other = if node(n) == "a" { "b" } else { "a" };
                self.put(pod(n, node(n), &[of_node(other, at)]), cluster);
            }
            Event::Label(n) => {
                self.label =
                    [Protection::False, Protection::Prefer, Protection::Require][n as usize];
                let labelled = namespace("shop", Wish::Said(self.label));
                cluster.set_namespace(&"shop".into(), Some(labelled));
            }
            Event::Told => drop(cluster.take_changes()),
        }
    }

    fn put(&mut self, pod: Pod, cluster: &mut Cluster) {
        cluster.set_pod(&pod);
        self.pods.insert(pod.uid.to_bytes()[0], pod);
    }

    /// Checks what is said of an address against what is true.
    fn check(&self, address: IpAddr, entry: &ClusterEntry) -> Result<(), TestCaseError> {
        let has = |pod: &&Pod| pod.addresses.contains(&address);
        let owner = self.pods.values().find(|pod| uid_hash(pod.uid) == entry.uid_hash);
        match &entry.state {
            ClusterState::Protected(id) => {
                let owner = owner.filter(has).expect("a pod that has the address");
                let n = owner.uid.to_bytes()[0];
                prop_assert_eq!(&**id, &*format!("spiffe://example.org/ns/shop/sa/account-{n}"));
                prop_assert!(self.observed.contains(&n), "its node has not said so");
                prop_assert!(self.label != Protection::False);
            }
            ClusterState::Plain => {
                prop_assert!(owner.filter(has).is_some());
                prop_assert!(self.label == Protection::False);
            }
            ClusterState::Pending(_) => {
                prop_assert!(self.pods.values().any(|pod| has(&pod)));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens, an entry is that of a living pod which has the address, with its own identity, and protected only if
    /// its own node says so. Where nodes have ranges, no pod is ever believed to have an address of another node's.
    #[test]
    fn a_reused_address_has_never_anothers_identity(
        happened in prop::collection::vec(event(), 0..60), has_ranges: bool,
    ) {
        let mut cluster = cluster_of(Protection::Require);
        let mut truth = Truth { label: Protection::Require, ..Truth::default() };
        if has_ranges {
            // 10 to 12, and 20 to 22.
            cluster.set_node("a", vec!["10.1.0.8/29".parse().unwrap()]);
            cluster.set_node("b", vec!["10.1.0.16/29".parse().unwrap()]);
        }
        let mut told: BTreeMap<IpAddr, ClusterEntry> = BTreeMap::new();
        for event in &happened {
            truth.happens(event, &mut cluster);
            for (address, entry) in cluster.take_changes().entries {
                match entry {
                    Some(entry) => drop(told.insert(address, entry)),
                    None => drop(told.remove(&address)),
                }
            }
            // What was told change by change is what there is.
            prop_assert_eq!(&told, &entries(&cluster));
            for (address, entry) in &told {
                truth.check(*address, entry)?;
                if has_ranges && entry.uid_hash != 0 {
                    let owner = truth.pods.values().find(|pod| uid_hash(pod.uid) == entry.uid_hash).unwrap();
                    let expected = if *address < ip(16) { "a" } else { "b" };
                    prop_assert_eq!(&*owner.node, expected);
                }
            }
        }
        // Another leader, who is told of everything in another order, says nothing else; what is contested it may say of
        // nobody.
        let mut other = Cluster::new(rules());
        if has_ranges {
            other.set_node("a", vec!["10.1.0.8/29".parse().unwrap()]);
            other.set_node("b", vec!["10.1.0.16/29".parse().unwrap()]);
        }
        for n in &truth.observed {
            other.observe(node(*n), &[uid(*n)], &[]);
        }
        other.set_namespace(&"shop".into(), Some(namespace("shop", Wish::Said(truth.label))));
        truth.pods.values().for_each(|pod| other.set_pod(pod));
        other.take_changes();
        for (address, entry) in entries(&other) {
            truth.check(address, &entry)?;
        }
    }

    /// What a node says of pods of others, however often, changes nothing about them.
    #[test]
    fn a_node_changes_no_entry_of_others(claims in prop::collection::vec((5..10_u8, 0..3_u8, any::<bool>()), 0..20)) {
        let mut cluster = cluster_of(Protection::Require);
        for n in 0..3 {
            cluster.set_pod(&pod(n, "a", &[of_node("a", n)]));
        }
        cluster.observe("a", &[uid(0)], &[]);
        cluster.take_changes();
        let before = entries(&cluster);
        for (n, at, is_plain) in claims {
            let namespace = if is_plain { "kube-system" } else { "shop" };
            cluster.set_pod(&Pod { namespace: namespace.into(), ..pod(n, "b", &[of_node("a", at)]) });
            cluster.observe("b", &[uid(at), uid(n)], &[]);
            cluster.observe("b", &[], &[uid(0)]);
            cluster.take_changes();
        }
        prop_assert_eq!(entries(&cluster), before);
    }
}

/// Everything is listed, and nobody needs to be waited for.
fn feed(limits: Limits) -> Arc<Feed> {
    let feed = Feed::new(7, rules(), limits);
    feed.change(|cluster| {
        cluster
            .set_namespace(&"shop".into(), Some(namespace("shop", Wish::Said(Protection::False))));
    });
    [Listed::Pods, Listed::Namespaces, Listed::Nodes, Listed::Services, Listed::EndpointSlices]
        .into_iter()
        .for_each(|what| feed.listed(what));
    feed
}

mod streams;
