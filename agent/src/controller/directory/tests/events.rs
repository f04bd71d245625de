//! Whatever happens, in whatever order: an entry is that of the pod that has the address.

use proptest::prelude::*;

use super::*;

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
                let owner = owner.filter(has).expect("a pod that has the address");
                let n = owner.uid.to_bytes()[0];
                let may_wait = self.label == Protection::Prefer && !self.observed.contains(&n);
                prop_assert!(self.label == Protection::False || may_wait);
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
                if !has_ranges && entry.state == ClusterState::Plain {
                    let mut there = truth.pods.values().filter(|pod| pod.addresses.contains(address));
                    let first = there.next().map(|pod| pod.node.clone());
                    prop_assert!(there.all(|pod| Some(&pod.node) == first.as_ref()));
                }
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
