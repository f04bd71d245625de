//! All pods of the cluster, watched once for all who need them: a few words each.

use std::collections::HashSet;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1 as api;
use kube::api::ListParams;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use rustls::crypto::SecureRandom;
use sheath_common::pod_uid::PodUid;

use super::watches::{Heard, Watch};
use crate::follow::Backoff;
use crate::kubernetes::{Change, Lifetime, Pod, Table, WatchProblem, Wish, follow};

/// How long the API server may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pods that a node may have.
const MOST_OF_A_NODE: u32 = 2000;

/// A pod, as far as anybody here needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPod {
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
    /// Empty if it is bound to none.
    pub node: Arc<str>,
    pub is_mirror: bool,
    pub lifetime: Lifetime,
    /// When its grace ends, if it was deleted.
    pub ends: Option<SystemTime>,
    pub host_network: bool,
    pub addresses: Box<[IpAddr]>,
    /// What its own label asks for.
    pub wish: Wish,
}

impl KnownPod {
    /// `None` if it makes no sense.
    fn of(object: &api::Pod) -> Option<(PodUid, Self)> {
        let pod = Pod::of(object).map_err(|problem| tracing::warn!(%problem, "left out")).ok()?;
        let ends = object.metadata.deletion_timestamp.as_ref();
        Some((pod.uid, Self { ends: ends.map(|time| time.0.into()), ..Self::from(&pod) }))
    }
}

impl From<&Pod> for KnownPod {
    /// The same, but for when its grace ends.
    fn from(pod: &Pod) -> Self {
        Self {
            namespace: pod.namespace.clone(),
            service_account: pod.service_account.clone(),
            node: pod.node.clone(),
            is_mirror: pod.is_mirror,
            lifetime: pod.lifetime,
            ends: None,
            host_network: pod.host_network,
            addresses: pod.addresses.iter().map(IpAddr::to_canonical).collect(),
            wish: pod.wish.clone(),
        }
    }
}

/// Hears of all pods, one change after the other.
pub trait Listener: Send + Sync {
    /// A pod is new, or has changed.
    fn set(&self, uid: PodUid, pod: &KnownPod);
    fn gone(&self, uid: PodUid);
    /// All that are not among these are gone.
    fn keep(&self, all: &HashSet<PodUid>);
}

/// The pods that are known.
pub struct Pods {
    api: Api<api::Pod>,
    watch: Arc<Watch>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    pods: Table<PodUid, KnownPod>,
    /// Those of the list that is being read which make no sense.
    senseless: HashSet<PodUid>,
    names: Names,
    listener: Option<Arc<dyn Listener>>,
}

/// Each name once in memory: few namespaces, accounts and nodes are those of many pods.
#[derive(Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn one(&mut self, name: &Arc<str>) -> Arc<str> {
        match self.0.get(name) {
            Some(known) => known.clone(),
            None => {
                self.0.insert(name.clone());
                name.clone()
            }
        }
    }

    /// Forgets names that nobody has any more.
    fn trim(&mut self) {
        self.0.retain(|name| Arc::strong_count(name) > 1);
    }
}

impl Known {
    fn parsed(&mut self, object: &api::Pod) -> Option<(PodUid, KnownPod)> {
        let (uid, mut pod) = KnownPod::of(object)?;
        for name in [&mut pod.namespace, &mut pod.service_account, &mut pod.node] {
            *name = self.names.one(name);
        }
        Some((uid, pod))
    }

    fn take(&mut self, change: Change<api::Pod>) {
        match change {
            Change::Init => {
                self.pods.begin();
                self.senseless.clear();
            }
            Change::InitApply(object) => match self.parsed(&object) {
                Some((uid, pod)) => self.pods.list(uid, pod),
                None => self.senseless.extend(uid(&object)),
            },
            Change::InitDone => {
                self.pods.end();
                self.names.trim();
                self.tell_all();
            }
            Change::Apply(object) => match self.parsed(&object) {
                Some((uid, pod)) => {
                    if let Some(listener) = &self.listener {
                        listener.set(uid, &pod);
                    }
                    self.pods.put(uid, pod);
                }
                // It gets no identity. Whatever it was besides, it is that as long as nobody can say what it is now.
                None => {
                    if let Some(uid) = uid(&object) {
                        self.pods.remove(&uid);
                    }
                }
            },
            Change::Delete(object) => {
                let Some(uid) = uid(&object) else { return };
                self.pods.remove(&uid);
                if let Some(listener) = &self.listener {
                    listener.gone(uid);
                }
            }
        }
    }

    /// Tells all that is known, if a whole list is.
    fn tell_all(&self) {
        let (Some(listener), Some(pods)) = (&self.listener, self.pods.objects()) else {
            return;
        };
        pods.iter().for_each(|(uid, pod)| listener.set(*uid, pod));
        let mut all: HashSet<_> = pods.keys().copied().collect();
        all.extend(&self.senseless);
        listener.keep(&all);
    }
}

fn uid(object: &api::Pod) -> Option<PodUid> {
    object.metadata.uid.as_deref()?.parse().ok()
}

/// As long as it lives, somebody listens.
pub struct Listening {
    pods: Arc<Pods>,
    listener: Arc<dyn Listener>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut known = self.pods.known();
        // By now it may be another.
        let is_ours = |other: &mut Arc<dyn Listener>| Arc::ptr_eq(other, &self.listener);
        drop(known.listener.take_if(is_ours));
    }
}

impl Pods {
    #[must_use]
    pub fn new(client: Client, watch: Arc<Watch>) -> Self {
        Self { api: Api::all(client), watch, known: Mutex::default() }
    }

    /// Watches all pods. Never ends.
    pub async fn follow(self: Arc<Self>, random: &'static dyn SecureRandom) {
        let changes = follow(self.api.clone(), Config::default(), Backoff::new(random));
        let mut changes = pin!(Heard::new("pods", &self.watch, changes));
        while let Some(change) = changes.next().await {
            self.known().take(change);
        }
    }

    /// Tells somebody all pods, at once if they are known, and from then on what changes. There is one who listens: the last.
    #[must_use]
    pub fn listen(self: &Arc<Self>, listener: Arc<dyn Listener>) -> Listening {
        let mut known = self.known();
        known.listener = Some(listener.clone());
        known.tell_all();
        drop(known);
        Listening { pods: self.clone(), listener }
    }

    /// A pod by its uid, if it is known.
    #[must_use]
    pub fn get(&self, uid: PodUid) -> Option<KnownPod> {
        self.known().pods.objects()?.get(&uid).cloned()
    }

    /// The same, of what the API server says now of a node's pods: a pod may be too new to be known.
    ///
    /// # Errors
    /// If the API server does not say.
    pub async fn ask(&self, node: &str, uid: PodUid) -> Result<Option<KnownPod>, WatchProblem> {
        let selection =
            ListParams::default().fields(&format!("spec.nodeName={node}")).limit(MOST_OF_A_NODE);
        let pods = match tokio::time::timeout(PATIENCE, self.api.list(&selection)).await {
            Ok(listed) => listed.map_err(|error| WatchProblem::of_request(&error))?,
            Err(_) => return Err(WatchProblem::Unreachable("no answer in time".to_owned())),
        };
        let mut found = pods.items.iter().filter_map(KnownPod::of);
        Ok(found.find(|(found, _)| *found == uid).map(|(_, pod)| pod))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
