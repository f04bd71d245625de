//! The objects of an API server, and how they came to be so.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Pod,
    Namespace,
    Node,
    Service,
    EndpointSlice,
    ServiceCidr,
    Secret,
    ConfigMap,
    Lease,
    Event,
}

impl Kind {
    /// The kind whose collection has this path.
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/api/v1/pods" => Some(Self::Pod),
            "/api/v1/namespaces" => Some(Self::Namespace),
            "/api/v1/nodes" => Some(Self::Node),
            "/api/v1/services" => Some(Self::Service),
            "/apis/discovery.k8s.io/v1/endpointslices" => Some(Self::EndpointSlice),
            "/apis/networking.k8s.io/v1/servicecidrs" => Some(Self::ServiceCidr),
            _ => None,
        }
    }

    /// The kind whose objects have this name in a path, within namespaces.
    pub fn within(plural: &str) -> Option<Self> {
        match plural {
            "pods" => Some(Self::Pod),
            "events" => Some(Self::Event),
            "secrets" => Some(Self::Secret),
            "configmaps" => Some(Self::ConfigMap),
            "leases" => Some(Self::Lease),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::ServiceCidr => "ServiceCIDR",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Lease => "Lease",
            Self::Event => "Event",
        }
    }

    pub fn api_version(self) -> &'static str {
        match self {
            Self::Lease => "coordination.k8s.io/v1",
            Self::Event => "events.k8s.io/v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::ServiceCidr => "networking.k8s.io/v1",
            _ => "v1",
        }
    }
}

/// What a server was asked, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub pages: BTreeMap<Kind, usize>,
    pub watches: BTreeMap<Kind, usize>,
    /// Those that were told that a version is forgotten.
    pub gone: usize,
}

/// All objects, and the history as far as it is remembered.
#[derive(Clone, Debug)]
pub struct Store {
    version: u64,
    /// Changes since then are remembered.
    oldest: u64,
    objects: BTreeMap<(Kind, String), Value>,
    history: Vec<Change>,
    requests: Requests,
    watching: BTreeMap<Kind, usize>,
    /// Watches of an older epoch end.
    epoch: u64,
}

#[derive(Clone, Debug)]
struct Change {
    version: u64,
    kind: Kind,
    before: Option<Value>,
    after: Option<Value>,
}

/// An event of a watch.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub version: u64,
    pub kind: &'static str,
    pub object: Value,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            version: 1,
            oldest: 1,
            objects: BTreeMap::new(),
            history: Vec::new(),
            requests: Requests::default(),
            watching: BTreeMap::new(),
            epoch: 0,
        }
    }
}

/// An object's namespace and name, or its name alone.
fn key(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().expect("a name");
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

impl Store {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn put(&mut self, kind: Kind, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let before = self.objects.insert((kind, key(&object)), object.clone());
        self.history.push(Change { version: self.version, kind, before, after: Some(object) });
    }

    pub fn get(&self, kind: Kind, key: &str) -> Option<&Value> {
        self.objects.get(&(kind, key.to_owned()))
    }

    /// All of a kind, by their namespaces and names.
    pub fn all(&self, kind: Kind) -> Vec<Value> {
        let of_kind = self.objects.iter().filter(|((of, _), _)| *of == kind);
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    pub fn delete(&mut self, kind: Kind, key: &str) {
        self.version += 1;
        let before = self.objects.remove(&(kind, key.to_owned()));
        assert!(before.is_some(), "no {kind:?} {key}");
        self.history.push(Change { version: self.version, kind, before, after: None });
    }

    pub fn forget_history(&mut self) {
        self.version += 1;
        self.oldest = self.version;
    }

    pub fn end_watches(&mut self) {
        self.epoch += 1;
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    pub fn watching(&self, kind: Kind) -> usize {
        self.watching.get(&kind).copied().unwrap_or_default()
    }

    pub fn begins_watch(&mut self, kind: Kind) {
        *self.requests.watches.entry(kind).or_default() += 1;
        *self.watching.entry(kind).or_default() += 1;
    }

    pub fn ends_watch(&mut self, kind: Kind) {
        *self.watching.entry(kind).or_default() -= 1;
    }

    /// Up to so many objects behind `after`, and where to go on if there are more.
    pub fn page(
        &mut self,
        kind: Kind,
        selection: &Selection,
        after: Option<&str>,
        count: usize,
    ) -> (Vec<Value>, Option<String>) {
        *self.requests.pages.entry(kind).or_default() += 1;
        let mut selected = self
            .objects
            .iter()
            .filter(|((of, key), object)| {
                *of == kind
                    && after.is_none_or(|after| key.as_str() > after)
                    && selection.has(object)
            })
            .peekable();
        let (mut page, mut last) = (Vec::new(), None);
        while page.len() < count {
            let Some(((_, key), object)) = selected.next() else { break };
            page.push(object.clone());
            last = Some(key.clone());
        }
        let more = selected.peek().is_some();
        (page, last.filter(|_| more))
    }

    /// True if nobody can begin a watch at a version. Watches that are open go on.
    pub fn has_forgotten(&mut self, version: u64) -> bool {
        let is_forgotten = version < self.oldest;
        self.requests.gone += usize::from(is_forgotten);
        is_forgotten
    }

    /// What has changed since a version.
    pub fn since(&self, kind: Kind, selection: &Selection, version: u64) -> Vec<WatchEvent> {
        let is_new = |change: &&Change| change.version > version && change.kind == kind;
        self.history.iter().filter(is_new).filter_map(|change| selection.sees(change)).collect()
    }
}

/// The objects that somebody asks for: those that have this at `spec.nodeName`, or all.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub node: Option<String>,
}

impl Selection {
    fn has(&self, object: &Value) -> bool {
        self.node.as_deref().is_none_or(|node| object["spec"]["nodeName"] == node)
    }

    /// A change as it looks to whoever sees these objects alone.
    fn sees(&self, change: &Change) -> Option<WatchEvent> {
        let seen = |object: &Option<Value>| object.clone().filter(|object| self.has(object));
        let (kind, mut object) = match (seen(&change.before), seen(&change.after)) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => ("DELETED", before),
        };
        object["metadata"]["resourceVersion"] = json!(change.version.to_string());
        Some(WatchEvent { version: change.version, kind, object })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: Option<&str>) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"nodeName": node}})
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let mut store = Store::default();
        for name in ["a", "b", "c"] {
            store.put(Kind::Pod, pod(name, None));
        }
        let all = Selection::default();
        let (page, next) = store.page(Kind::Pod, &all, None, 2);
        assert_eq!((page.len(), next.as_deref()), (2, Some("shop/b")));
        let (page, next) = store.page(Kind::Pod, &all, next.as_deref(), 2);
        assert_eq!((page.len(), next), (1, None));
    }

    #[test]
    fn a_pod_that_is_bound_is_new_to_its_node_and_unknown_to_another() {
        let mut store = Store::default();
        store.put(Kind::Pod, pod("a", None));
        let before = store.version();
        store.put(Kind::Pod, pod("a", Some("node-a")));
        let seen = |store: &Store, node: &str| {
            let selection = Selection { node: Some(node.to_owned()) };
            let events = store.since(Kind::Pod, &selection, before);
            events.iter().map(|event| event.kind).collect::<Vec<_>>()
        };
        assert_eq!(seen(&store, "node-a"), ["ADDED"]);
        assert_eq!(seen(&store, "node-b"), [""; 0]);
        store.put(Kind::Pod, pod("a", Some("node-a")));
        store.delete(Kind::Pod, "shop/a");
        assert_eq!(seen(&store, "node-a"), ["ADDED", "MODIFIED", "DELETED"]);
    }

    #[test]
    fn what_is_forgotten_is_gone() {
        let mut store = Store::default();
        store.put(Kind::Pod, pod("a", None));
        let before = store.version();
        store.forget_history();
        assert!(store.has_forgotten(before));
        let now = store.version();
        assert!(!store.has_forgotten(now));
        assert_eq!(store.requests().gone, 1);
    }
}
