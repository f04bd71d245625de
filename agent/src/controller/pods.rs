//! All pods of the cluster, as far as signing needs them: a few words each.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1 as api;
use kube::api::ListParams;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use rustls::crypto::SecureRandom;
use sheath_common::pod_uid::PodUid;

use crate::follow::Backoff;
use crate::kubernetes::{Change, Lifetime, Pod, Table, WatchProblem, follow};

/// How long the API server may take to list the pods of a node.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pods that a node may have.
const MOST_OF_A_NODE: u32 = 2000;

/// A pod, as far as signing needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPod {
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
    /// Empty if it is bound to none.
    pub node: Arc<str>,
    pub is_mirror: bool,
    pub is_over: bool,
    /// When its grace ends, if it was deleted.
    pub ends: Option<SystemTime>,
}

impl KnownPod {
    fn of(object: &api::Pod, pod: &Pod) -> Self {
        let ends = object.metadata.deletion_timestamp.as_ref();
        Self {
            namespace: pod.namespace.clone(),
            service_account: pod.service_account.clone(),
            node: pod.node.clone(),
            is_mirror: pod.is_mirror,
            is_over: pod.lifetime == Lifetime::Over,
            ends: ends.map(|time| time.0.into()),
        }
    }
}

/// The pods that are known.
pub struct Pods {
    api: Api<api::Pod>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    pods: Table<PodUid, KnownPod>,
    names: Names,
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
        // A pod that makes no sense gets no identity.
        let parsed = Pod::of(object).ok()?;
        let mut pod = KnownPod::of(object, &parsed);
        for name in [&mut pod.namespace, &mut pod.service_account, &mut pod.node] {
            *name = self.names.one(name);
        }
        Some((parsed.uid, pod))
    }

    fn take(&mut self, change: Change<api::Pod>) {
        match change {
            Change::Init => self.pods.begin(),
            Change::InitDone => {
                self.pods.end();
                self.names.trim();
            }
            Change::InitApply(object) => {
                if let Some((uid, pod)) = self.parsed(&object) {
                    self.pods.list(uid, pod);
                }
            }
            Change::Apply(object) => match self.parsed(&object) {
                Some((uid, pod)) => {
                    self.pods.put(uid, pod);
                }
                None => self.forget(&object),
            },
            Change::Delete(object) => self.forget(&object),
        }
    }

    fn forget(&mut self, object: &api::Pod) {
        if let Some(Ok(uid)) = object.metadata.uid.as_deref().map(str::parse) {
            self.pods.remove(&uid);
        }
    }
}

impl Pods {
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { api: Api::all(client), known: Mutex::default() }
    }

    /// Watches all pods. Never ends.
    pub async fn follow(self: Arc<Self>, random: &'static dyn SecureRandom) {
        let mut problem = None;
        let changes = follow(self.api.clone(), Config::default(), Backoff::new(random));
        let mut changes = pin!(changes);
        while let Some(change) = changes.next().await {
            match change {
                Ok(change) => {
                    problem = None;
                    self.known().take(change);
                }
                Err(error) if problem.as_ref() == Some(&error) => {}
                Err(error) => {
                    tracing::warn!(problem = %error, "no news of pods");
                    problem = Some(error);
                }
            }
        }
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
        let text = uid.to_string();
        let selection =
            ListParams::default().fields(&format!("spec.nodeName={node}")).limit(MOST_OF_A_NODE);
        let pods = match tokio::time::timeout(PATIENCE, self.api.list(&selection)).await {
            Ok(listed) => listed.map_err(|error| WatchProblem::of_request(&error))?,
            Err(_) => return Err(WatchProblem::Unreachable("no answer in time".to_owned())),
        };
        let found = pods.items.iter().find(|pod| pod.metadata.uid.as_deref() == Some(&*text));
        Ok(found.and_then(|object| Some(KnownPod::of(object, &Pod::of(object).ok()?))))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
