//! Watches what the directory is made of.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::discovery::v1::EndpointSlice as EndpointSliceObject;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use rustls::crypto::SecureRandom;
use sheath_common::pod_uid::PodUid;

use super::feed::Feed;
use super::serving::Serving;
use super::settling::Listed;
use crate::follow::Backoff;
use crate::kubernetes::{Change, Namespace, Pod, WatchProblem, follow};

/// The zone of a node.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Watches pods, namespaces, nodes, Services and their endpoints. Never ends.
pub async fn watch(feed: Arc<Feed>, client: Client, random: &'static dyn SecureRandom) {
    let pods = Api::<api::Pod>::all(client.clone());
    let namespaces = Api::<PartialObjectMeta<api::Namespace>>::all(client.clone());
    let nodes = Api::<api::Node>::all(client.clone());
    let services = Api::<api::Service>::all(client.clone());
    let slices = Api::<EndpointSliceObject>::all(client);
    let backoff = || Backoff::new(random);
    let mut pods = pin!(follow(pods, Config::default(), backoff()));
    let mut namespaces = pin!(follow(namespaces, Config::default(), backoff()));
    let mut nodes = pin!(follow(nodes, Config::default(), backoff()));
    let mut services = pin!(follow(services, Config::default(), backoff()));
    let mut slices = pin!(follow(slices, Config::default(), backoff()));
    let mut serving = Serving::new(feed.clone());
    let mut watched = Watched::new(feed);
    let mut problems = [const { None }; 5];
    loop {
        tokio::select! {
            Some(change) = pods.next() => {
                if let Some(change) = heard("pods", change, &mut problems[0]) {
                    watched.pod(change);
                }
            }
            Some(change) = namespaces.next() => {
                if let Some(change) = heard("namespaces", change, &mut problems[1]) {
                    watched.namespace(change);
                }
            }
            Some(change) = nodes.next() => {
                if let Some(change) = heard("nodes", change, &mut problems[2]) {
                    watched.node(change);
                }
            }
            Some(change) = services.next() => {
                if let Some(change) = heard("services", change, &mut problems[3]) {
                    serving.service(change);
                }
            }
            Some(change) = slices.next() => {
                if let Some(change) = heard("endpointslices", change, &mut problems[4]) {
                    serving.slice(change);
                }
            }
        }
    }
}

/// The change, unless it is a problem: that is logged, once.
fn heard<C>(
    of: &str,
    change: Result<C, WatchProblem>,
    known: &mut Option<WatchProblem>,
) -> Option<C> {
    match change {
        Ok(change) => {
            *known = None;
            Some(change)
        }
        Err(problem) => {
            if known.as_ref() != Some(&problem) {
                tracing::warn!(of, %problem, "Kubernetes is not heard; the directory stays as it is");
            }
            *known = Some(problem);
            None
        }
    }
}

/// Lists that are being read, and where they go.
struct Watched {
    feed: Arc<Feed>,
    pods: HashSet<PodUid>,
    namespaces: HashSet<Arc<str>>,
    nodes: HashSet<Arc<str>>,
}

impl Watched {
    fn new(feed: Arc<Feed>) -> Self {
        let (pods, namespaces, nodes) = Default::default();
        Self { feed, pods, namespaces, nodes }
    }

    fn pod(&mut self, change: Change<api::Pod>) {
        match change {
            Change::Init => self.pods.clear(),
            Change::InitApply(object) => {
                self.pods.extend(uid(&object));
                self.set_pod(&object);
            }
            Change::InitDone => {
                let listed = std::mem::take(&mut self.pods);
                self.feed.change(|cluster| cluster.keep_pods(&listed));
                self.feed.listed(Listed::Pods);
            }
            Change::Apply(object) => self.set_pod(&object),
            Change::Delete(object) => {
                if let Some(uid) = uid(&object) {
                    self.feed.change(|cluster| cluster.remove_pod(uid));
                }
            }
        }
    }

    fn set_pod(&self, object: &api::Pod) {
        match Pod::of(object) {
            Ok(pod) => self.feed.change(|cluster| cluster.set_pod(&pod)),
            // Whatever it was before, it is that as long as nobody can say what it is now.
            Err(problem) => tracing::warn!(%problem, "not in the directory"),
        }
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
                self.feed.listed(Listed::Namespaces);
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
                self.feed.listed(Listed::Nodes);
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
        self.feed.change(|cluster| {
            cluster.set_node(name, ranges);
            cluster.set_zone(name, zone);
        });
    }
}

fn uid(object: &api::Pod) -> Option<PodUid> {
    object.metadata.uid.as_deref()?.parse().ok()
}
