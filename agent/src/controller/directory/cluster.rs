//! What is known of the cluster, and what follows from it for each address.

mod judged;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rpds::HashTrieMapSync;
use sheath_common::pod_uid::PodUid;

use super::claims::Claims;
use super::entry::{ClusterEntry, Counts, EntryChange};
use super::nodes::Nodes;
use super::pod::{ClusterPod, Texts};
use super::ranges::ServiceRanges;
use super::screen::{Bounds, Screened};
use crate::controller::pods::KnownPod;
use crate::kubernetes::{Namespace, Pod, Rules};
use crate::services::Change;
use crate::spiffe::TrustDomain;

/// Pods that the agent of one node may say are protected: several times as many as a node has.
const MOST_OBSERVED: usize = 4096;

/// What entries are made by.
#[derive(Clone, Debug)]
pub struct ClusterRules {
    pub trust_domain: TrustDomain,
    pub pods: Rules,
    /// Addresses of the cluster's pods, besides the ranges of nodes. If there are any, no pod has an address elsewhere.
    pub ranges: Vec<IpNet>,
    /// Addresses of Services, besides the ranges that the API tells. No pod has one.
    pub service_ranges: Vec<IpNet>,
    /// A node's pods alone have addresses of its ranges. Otherwise these only say which addresses are pods'.
    pub nodes_own_ranges: bool,
}

/// All that is known. Events may come in any order; of each kind the last one counts.
#[derive(Debug)]
pub struct Cluster {
    rules: ClusterRules,
    texts: Texts,
    pods: HashMap<PodUid, ClusterPod>,
    namespaces: HashMap<Arc<str>, Namespace>,
    nodes: Nodes,
    claims: HashMap<IpAddr, Claims>,
    /// By node, what its agent has seen to be protected. Of pods of other nodes it says nothing.
    observed: HashMap<Arc<str>, HashSet<PodUid>>,
    entries: HashTrieMapSync<IpAddr, ClusterEntry>,
    counts: Counts,
    ranges: Arc<[IpNet]>,
    service_ranges: ServiceRanges,
    services: Screened,
    /// Of nodes that have one.
    zones: HashMap<Arc<str>, Arc<str>>,
    /// Addresses whose entries may have changed.
    dirty: HashSet<IpAddr>,
    /// The ranges may have changed.
    ranges_dirty: bool,
    /// What is told of Services may have changed, as something else is known of addresses.
    services_dirty: bool,
}

/// What has changed since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub entries: Vec<EntryChange>,
    pub ranges: Option<Arc<[IpNet]>>,
    pub services: Vec<Change>,
}

impl Changes {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ranges.is_none() && self.services.is_empty()
    }
}

impl Cluster {
    #[must_use]
    pub fn new(rules: ClusterRules) -> Self {
        Self {
            service_ranges: ServiceRanges::new(&rules.service_ranges),
            rules,
            texts: Texts::default(),
            pods: HashMap::new(),
            namespaces: HashMap::new(),
            nodes: Nodes::default(),
            claims: HashMap::new(),
            observed: HashMap::new(),
            entries: HashTrieMapSync::new_sync(),
            counts: Counts::default(),
            ranges: Arc::default(),
            services: Screened::default(),
            zones: HashMap::new(),
            dirty: HashSet::new(),
            ranges_dirty: true,
            services_dirty: false,
        }
    }

    /// A pod is new, or has changed.
    pub fn set_pod(&mut self, pod: &Pod) {
        self.set_known_pod(pod.uid, &pod.into());
    }

    /// The same, of what the watch of pods keeps of one.
    pub(in crate::controller) fn set_known_pod(&mut self, uid: PodUid, pod: &KnownPod) {
        match ClusterPod::of(pod, &self.rules.trust_domain, &mut self.texts) {
            Some(known) => self.put(uid, known),
            None => self.remove_pod(uid),
        }
    }

    fn put(&mut self, uid: PodUid, pod: ClusterPod) {
        let before = self.pods.get(&uid);
        if before == Some(&pod) {
            return;
        }
        let had = before.map(|pod| pod.addresses.clone()).unwrap_or_default();
        for address in had.iter().filter(|address| !pod.addresses.contains(address)) {
            self.release(*address, uid);
        }
        for address in pod.addresses.iter().filter(|address| !had.contains(address)) {
            self.claims.entry(*address).or_default().add(uid);
        }
        self.dirty.extend(pod.addresses.iter());
        self.pods.insert(uid, pod);
    }

    /// A pod is gone.
    pub fn remove_pod(&mut self, uid: PodUid) {
        let Some(pod) = self.pods.remove(&uid) else {
            return;
        };
        for address in pod.addresses {
            self.release(address, uid);
        }
    }

    fn release(&mut self, address: IpAddr, uid: PodUid) {
        if let Some(claims) = self.claims.get_mut(&address) {
            claims.remove(uid);
        }
        self.dirty.insert(address);
    }

    /// These are all pods: others are gone.
    pub fn keep_pods(&mut self, all: &HashSet<PodUid>) {
        let gone: Vec<_> = self.pods.keys().filter(|uid| !all.contains(uid)).copied().collect();
        gone.into_iter().for_each(|uid| self.remove_pod(uid));
    }

    /// A namespace is new, or has changed; `None` if it is gone.
    pub fn set_namespace(&mut self, name: &Arc<str>, namespace: Option<Namespace>) {
        let before = match namespace {
            Some(namespace) if self.namespaces.get(name) == Some(&namespace) => return,
            Some(namespace) => self.namespaces.insert(name.clone(), namespace),
            None => self.namespaces.remove(name),
        };
        drop(before);
        let of_namespace = self.pods.values().filter(|pod| pod.namespace == *name);
        self.dirty.extend(of_namespace.flat_map(|pod| pod.addresses.iter()));
    }

    /// These are all namespaces: others are gone.
    pub fn keep_namespaces(&mut self, all: &HashSet<Arc<str>>) {
        let gone: Vec<_> =
            self.namespaces.keys().filter(|name| !all.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| self.set_namespace(name, None));
    }

    /// A node is new, or has changed.
    pub fn set_node(&mut self, name: &str, ranges: Vec<IpNet>) {
        let name = self.texts.one(name);
        let changed = self.nodes.set(&name, ranges);
        self.mark_ranges(&changed);
    }

    /// The addresses of a node itself.
    pub fn set_node_addresses(&mut self, name: &str, addresses: BTreeSet<IpAddr>) {
        let name = self.texts.one(name);
        self.services_dirty |= self.nodes.set_addresses(&name, addresses);
    }

    /// A range of Services is new, or has changed.
    pub fn set_service_range(&mut self, name: &str, ranges: Vec<IpNet>) {
        let changed = self.service_ranges.set(name, ranges);
        self.mark_ranges(&changed);
    }

    /// A range of Services is gone.
    pub fn remove_service_range(&mut self, name: &str) {
        let changed = self.service_ranges.remove(name);
        self.mark_ranges(&changed);
    }

    /// These are all ranges of Services: others are gone.
    pub fn keep_service_ranges(&mut self, all: &HashSet<Arc<str>>) {
        let changed = self.service_ranges.keep(all);
        self.mark_ranges(&changed);
    }

    /// Services, and what they are screened by.
    pub fn services(&mut self) -> (&mut Screened, Bounds<'_>) {
        let Self { services, nodes, service_ranges, rules, .. } = self;
        (services, Bounds { nodes, services: service_ranges, pods: &rules.ranges })
    }

    /// All that was told of Services.
    #[must_use]
    pub fn told_services(&self) -> Vec<Change> {
        self.services.told()
    }

    /// The zone of a node, if it has one.
    pub fn set_zone(&mut self, name: &str, zone: Option<&str>) {
        match zone {
            Some(zone) => self.zones.insert(name.into(), zone.into()),
            None => self.zones.remove(name),
        };
    }

    #[must_use]
    pub fn zone(&self, node: &str) -> Option<Arc<str>> {
        self.zones.get(node).cloned()
    }

    /// A node is gone. What its agent has said stays: pods live longer in the API than their node, and it may come back.
    pub fn remove_node(&mut self, name: &str) {
        self.zones.remove(name);
        self.services_dirty = true;
        let changed = self.nodes.remove(name);
        self.mark_ranges(&changed);
    }

    /// These ranges are another node's, or nobody's.
    fn mark_ranges(&mut self, changed: &[IpNet]) {
        let is_in = |address: &&IpAddr| changed.iter().any(|range| range.contains(*address));
        // Mostly a node is new, and nobody has an address in its range.
        if !changed.is_empty() {
            (self.ranges_dirty, self.services_dirty) = (true, true);
            self.dirty.extend(self.claims.keys().filter(is_in));
        }
    }

    /// These are all nodes: others are gone.
    pub fn keep_nodes(&mut self, all: &HashSet<Arc<str>>) {
        let gone: Vec<_> =
            self.nodes.names().filter(|name| !all.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| self.remove_node(name));
    }

    /// Forgets what the agent of a node has said, if there is no such node: the agent is gone as well.
    pub fn agent_gone(&mut self, node: &str) {
        if !self.nodes.knows(node) {
            self.observe_all(node, HashSet::new());
        }
    }

    /// The agent of a node says which pods are protected, all of them. Returns of how many that is news.
    pub fn observe_all(&mut self, node: &str, protected: HashSet<PodUid>) -> usize {
        let before = self.observed.remove(node).unwrap_or_default();
        let mut news = 0;
        for uid in before.symmetric_difference(&protected) {
            mark(&self.pods, &mut self.dirty, *uid);
            news += 1;
        }
        if !protected.is_empty() {
            let node = self.texts.one(node);
            self.observed.insert(node, protected.into_iter().take(MOST_OBSERVED).collect());
        }
        news
    }

    /// The agent of a node says what has changed. Returns of how many pods that is news.
    pub fn observe(&mut self, node: &str, protected: &[PodUid], unprotected: &[PodUid]) -> usize {
        let node = self.texts.one(node);
        let observed = self.observed.entry(node).or_default();
        let mut news: Vec<&PodUid> = Vec::new();
        news.extend(unprotected.iter().filter(|uid| observed.remove(*uid)));
        let is_new = |uid: &&PodUid| observed.len() < MOST_OBSERVED && observed.insert(**uid);
        news.extend(protected.iter().filter(is_new));
        news.iter().for_each(|uid| mark(&self.pods, &mut self.dirty, **uid));
        news.len()
    }

    /// Nodes with pods that are to be protected.
    #[must_use]
    pub fn nodes_with_selected(&self) -> HashSet<Arc<str>> {
        let selected = self.pods.values().filter(|pod| self.is_selected(pod));
        selected.map(|pod| pod.node.clone()).collect()
    }

    /// All entries now, for nothing: what comes later does not change them.
    #[must_use]
    pub fn entries(&self) -> HashTrieMapSync<IpAddr, ClusterEntry> {
        self.entries.clone()
    }

    /// How many entries there are of each kind.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    #[must_use]
    pub fn ranges(&self) -> Arc<[IpNet]> {
        self.ranges.clone()
    }

    /// Works out the entries that may have changed. Returns those that have.
    pub fn take_changes(&mut self) -> Changes {
        self.take_some(usize::MAX)
    }

    /// True if there are entries to work out.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The same, of so many entries at most.
    pub fn take_some(&mut self, most: usize) -> Changes {
        let dirty: Vec<_> = match self.dirty.len() <= most {
            true => self.dirty.drain().collect(),
            false => self.dirty.iter().take(most).copied().collect(),
        };
        for address in &dirty {
            self.dirty.remove(address);
        }
        if std::mem::take(&mut self.services_dirty) {
            let (services, bounds) = self.services();
            services.screen_again(bounds);
        }
        let mut changes = Changes { services: self.services.take_changes(), ..Changes::default() };
        if std::mem::take(&mut self.ranges_dirty) {
            let ranges = self.all_ranges();
            if ranges != *self.ranges {
                self.ranges = ranges.into();
                changes.ranges = Some(self.ranges.clone());
            }
        }
        for address in dirty {
            let entry = self.worked_out(address);
            let before = self.entries.get(&address);
            if before == entry.as_ref() {
                continue;
            }
            self.counts.change(before, entry.as_ref());
            match &entry {
                Some(entry) => self.entries.insert_mut(address, entry.clone()),
                None => {
                    self.entries.remove_mut(&address);
                }
            }
            changes.entries.push((address, entry));
        }
        changes
    }

    fn all_ranges(&self) -> Vec<IpNet> {
        let of_pods = self.nodes.ranges().chain(&self.rules.ranges);
        let all: Vec<_> = of_pods.chain(self.service_ranges.iter()).copied().collect();
        IpNet::aggregate(&all)
    }
}

fn mark(pods: &HashMap<PodUid, ClusterPod>, dirty: &mut HashSet<IpAddr>, uid: PodUid) {
    dirty.extend(pods.get(&uid).into_iter().flat_map(|pod| pod.addresses.iter()));
}
