//! Services and slices as the controller watches them, and what has changed since it was last told.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use super::catalogue::{Change, SliceName};
use crate::kubernetes::{Endpoint, EndpointSlice, Service, ServiceName};

/// All Services and slices of the cluster.
#[derive(Debug, Default)]
pub struct Watched {
    services: Kind<ServiceName, Service>,
    slices: Kind<SliceName, EndpointSlice>,
}

/// A name, its object now, and the one that was told.
type Changed<K, V> = (K, Option<Arc<V>>, Option<Arc<V>>);

/// All objects of a kind.
#[derive(Debug)]
struct Kind<K, V> {
    now: HashMap<K, Arc<V>>,
    /// As they were told last, if they have changed since.
    told: HashMap<K, Option<Arc<V>>>,
}

impl Watched {
    pub fn set_service(&mut self, service: Service) {
        self.services.set(service.name.clone(), Some(service));
    }

    pub fn remove_service(&mut self, name: &ServiceName) {
        self.services.set(name.clone(), None);
    }

    /// There are these Services and no others.
    pub fn keep_services(&mut self, names: &HashSet<ServiceName>) {
        self.services.keep(names);
    }

    pub fn set_slice(&mut self, slice: EndpointSlice) {
        let name = (slice.service.namespace.clone(), slice.name.clone());
        self.slices.set(name, Some(slice));
    }

    pub fn remove_slice(&mut self, name: &SliceName) {
        self.slices.set(name.clone(), None);
    }

    pub fn slices(&self) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices.now.values()
    }

    /// There are these slices and no others.
    pub fn keep_slices(&mut self, names: &HashSet<SliceName>) {
        self.slices.keep(names);
    }

    /// What has changed since this was called last.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, now, _) in self.services.take_changed() {
            changes.push(match now {
                Some(service) => Change::Service(service),
                None => Change::ServiceGone(name),
            });
        }
        for (name, now, told) in self.slices.take_changed() {
            changes.push(match (now, told) {
                (None, _) => Change::SliceGone(name),
                (Some(now), Some(told)) => difference(name, &told, now),
                (Some(now), None) => Change::Slice(now),
            });
        }
        changes
    }

    /// All that was told: what has changed since is none of it.
    #[must_use]
    pub fn told(&self) -> Vec<Change> {
        let services = self.services.told().cloned().map(Change::Service);
        services.chain(self.slices.told().cloned().map(Change::Slice)).collect()
    }
}

impl<K, V> Default for Kind<K, V> {
    fn default() -> Self {
        Self { now: HashMap::new(), told: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash, V: PartialEq> Kind<K, V> {
    fn set(&mut self, name: K, object: Option<V>) {
        if self.now.get(&name).map(|known| &**known) == object.as_ref() {
            return;
        }
        let before = match object {
            Some(object) => self.now.insert(name.clone(), Arc::new(object)),
            None => self.now.remove(&name),
        };
        self.told.entry(name).or_insert(before);
    }

    fn keep(&mut self, names: &HashSet<K>) {
        let gone: Vec<_> = self.now.keys().filter(|name| !names.contains(*name)).cloned().collect();
        gone.into_iter().for_each(|name| self.set(name, None));
    }

    fn told(&self) -> impl Iterator<Item = &Arc<V>> {
        let same = self.now.iter().filter(|(name, _)| !self.told.contains_key(*name));
        same.map(|(_, object)| object).chain(self.told.values().flatten())
    }

    /// What has changed: its name, what it is now, and what it was.
    fn take_changed(&mut self) -> Vec<Changed<K, V>> {
        let told = std::mem::take(&mut self.told);
        let changed = told.into_iter().map(|(name, told)| {
            let now = self.now.get(&name).cloned();
            (name, now, told)
        });
        changed.filter(|(_, now, told)| now != told).collect()
    }
}

/// From one state of a slice to the next. Most often one endpoint of a hundred has changed.
fn difference(name: SliceName, told: &EndpointSlice, now: Arc<EndpointSlice>) -> Change {
    let changed: Vec<(IpAddr, Endpoint)> = now
        .endpoints
        .iter()
        .filter(|(address, endpoint)| told.endpoints.get(*address) != Some(endpoint))
        .map(|(address, endpoint)| (*address, endpoint.clone()))
        .collect();
    let gone = told.endpoints.keys().filter(|address| !now.endpoints.contains_key(*address));
    let gone: Vec<_> = gone.copied().collect();
    let is_small = changed.len() + gone.len() < now.endpoints.len();
    if is_small && told.ports == now.ports && told.service == now.service {
        return Change::Endpoints { slice: name, now: changed, gone };
    }
    Change::Slice(now)
}

#[cfg(test)]
mod tests;
