//! Watches what the directory is made of.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::discovery::v1::EndpointSlice as EndpointSliceObject;
use k8s_openapi::api::networking::v1::ServiceCIDR as ServiceCidrObject;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use rustls::crypto::SecureRandom;
use sheath_common::pod_uid::PodUid;

use super::feed::Feed;
use super::serving::Serving;
use crate::controller::pods::{KnownPod, Listener};
use crate::controller::watches::{Heard, Objects, Watches};
use crate::follow::Backoff;
use crate::kubernetes::{Change, Namespace, WatchProblem, follow, ranges_of, words};

/// The zone of a node.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Addresses of a node that count.
const MOST_ADDRESSES: usize = 64;

/// Watches namespaces, nodes, Services, their endpoints and their ranges. Never ends. Of pods, others tell.
pub async fn watch(
    feed: Arc<Feed>,
    client: Client,
    watches: Arc<Watches>,
    random: &'static dyn SecureRandom,
) {
    let namespaces = Api::<PartialObjectMeta<api::Namespace>>::all(client.clone());
    let nodes = Api::<api::Node>::all(client.clone());
    let services = Api::<api::Service>::all(client.clone());
    let slices = Api::<EndpointSliceObject>::all(client.clone());
    let ranges = Api::<ServiceCidrObject>::all(client);
    let backoff = || Backoff::new(random);
    let namespaces = follow(namespaces, Config::default(), backoff());
    let nodes = follow(nodes, Config::default(), backoff());
    let services = follow(services, Config::default(), backoff());
    let slices = follow(slices, Config::default(), backoff());
    // Kubernetes before 1.33 has no such objects: then there are those of the settings.
    let absent = feed.clone();
    let ranges = follow(ranges, Config::default(), backoff()).filter(move |change| {
        let is_absent = change.as_ref().is_err_and(WatchProblem::is_absent);
        if is_absent {
            absent.listed(Objects::ServiceRanges);
        }
        std::future::ready(!is_absent)
    });
    let mut namespaces = Heard::new("namespaces", watches.of(Objects::Namespaces), namespaces);
    let mut nodes = Heard::new("nodes", watches.of(Objects::Nodes), nodes);
    let mut services = Heard::new("services", watches.of(Objects::Services), services);
    let mut slices = Heard::new("endpointslices", watches.of(Objects::EndpointSlices), slices);
    let mut ranges = Heard::new("servicecidrs", watches.of(Objects::ServiceRanges), ranges);
    let mut serving = Serving::new(feed.clone());
    let mut watched = Watched::new(feed);
    loop {
        tokio::select! {
            Some(change) = namespaces.next() => watched.namespace(change),
            Some(change) = nodes.next() => watched.node(change),
            Some(change) = services.next() => serving.service(change),
            Some(change) = slices.next() => serving.slice(change),
            Some(change) = ranges.next() => watched.service_range(change),
        }
    }
}

impl Listener for Feed {
    fn set(&self, uid: PodUid, pod: &KnownPod) {
        self.change(|cluster| cluster.set_known_pod(uid, pod));
    }

    fn gone(&self, uid: PodUid) {
        self.change(|cluster| cluster.remove_pod(uid));
    }

    fn keep(&self, all: &HashSet<PodUid>) {
        self.change(|cluster| cluster.keep_pods(all));
        self.listed(Objects::Pods);
    }
}

/// Lists that are being read, and where they go.
struct Watched {
    feed: Arc<Feed>,
    namespaces: HashSet<Arc<str>>,
    nodes: HashSet<Arc<str>>,
    service_ranges: HashSet<Arc<str>>,
}

impl Watched {
    fn new(feed: Arc<Feed>) -> Self {
        let (namespaces, nodes, service_ranges) = Default::default();
        Self { feed, namespaces, nodes, service_ranges }
    }

    fn namespace(&mut self, change: Change<PartialObjectMeta<api::Namespace>>) {
        match change {
            Change::Init => self.namespaces.clear(),
            Change::InitApply(object) => {
                self.namespaces.extend(object.metadata.name.as_deref().map(Arc::from));
                self.set_namespace(&object);
            }
            Change::InitDone => {
                let listed = std::mem::take(&mut self.namespaces);
                self.feed.change(|cluster| cluster.keep_namespaces(&listed));
                self.feed.listed(Objects::Namespaces);
            }
            Change::Apply(object) => self.set_namespace(&object),
            Change::Delete(object) => {
                if let Some(name) = object.metadata.name.as_deref() {
                    self.feed.change(|cluster| cluster.set_namespace(&name.into(), None));
                }
            }
        }
    }

    fn set_namespace(&self, object: &PartialObjectMeta<api::Namespace>) {
        if let Some(namespace) = Namespace::of(object) {
            let name = namespace.name.clone();
            self.feed.change(|cluster| cluster.set_namespace(&name, Some(namespace)));
        }
    }

    fn node(&mut self, change: Change<api::Node>) {
        match change {
            Change::Init => self.nodes.clear(),
            Change::InitApply(object) => {
                self.nodes.extend(object.metadata.name.as_deref().map(Arc::from));
                self.set_node(&object);
            }
            Change::InitDone => {
                let listed = std::mem::take(&mut self.nodes);
                self.feed.change(|cluster| cluster.keep_nodes(&listed));
                self.feed.listed(Objects::Nodes);
            }
            Change::Apply(object) => self.set_node(&object),
            Change::Delete(object) => {
                if let Some(name) = object.metadata.name.as_deref() {
                    self.feed.change(|cluster| cluster.remove_node(name));
                }
            }
        }
    }

    fn set_node(&self, object: &api::Node) {
        let Some(name) = object.metadata.name.as_deref() else {
            return;
        };
        let spec = object.spec.as_ref();
        let all = spec.into_iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
        let one = spec.into_iter().filter_map(|spec| spec.pod_cidr.as_ref());
        let mut ranges: Vec<ipnet::IpNet> =
            all.chain(one).filter_map(|text| text.parse().ok()).collect();
        ranges.sort_unstable();
        ranges.dedup();
        let labels = object.metadata.labels.as_ref();
        let zone = labels.and_then(|labels| labels.get(ZONE)).map(String::as_str);
        let zone = zone.filter(|zone| !zone.is_empty());
        let status = object.status.as_ref();
        let addresses = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        // Names of the node are among them.
        let addresses = addresses.iter().filter_map(|address| words::address(&address.address));
        let addresses = addresses.take(MOST_ADDRESSES).collect();
        self.feed.change(|cluster| {
            cluster.set_node(name, ranges);
            cluster.set_node_addresses(name, addresses);
            cluster.set_zone(name, zone);
        });
    }

    fn service_range(&mut self, change: Change<ServiceCidrObject>) {
        match change {
            Change::Init => self.service_ranges.clear(),
            Change::InitApply(object) => {
                self.service_ranges.extend(object.metadata.name.as_deref().map(Arc::from));
                self.set_service_range(&object);
            }
            Change::InitDone => {
                let listed = std::mem::take(&mut self.service_ranges);
                self.feed.change(|cluster| cluster.keep_service_ranges(&listed));
                self.feed.listed(Objects::ServiceRanges);
            }
            Change::Apply(object) => self.set_service_range(&object),
            Change::Delete(object) => {
                if let Some(name) = object.metadata.name.as_deref() {
                    self.feed.change(|cluster| cluster.remove_service_range(name));
                }
            }
        }
    }

    fn set_service_range(&self, object: &ServiceCidrObject) {
        if let Some(name) = object.metadata.name.as_deref() {
            self.feed.change(|cluster| cluster.set_service_range(name, ranges_of(object)));
        }
    }
}
