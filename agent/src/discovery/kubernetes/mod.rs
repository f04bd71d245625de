//! Finds the pods of this node and what is wanted for them: by their own label, or that of their namespace.

mod check;
mod identities;
mod memory;
mod pods;
mod subject;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1 as api;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Config;

use super::{Discovery, Problems, Snapshot, Update, Updates};
use crate::desired::Bypass;
use crate::follow::{Check, Following, Unfollowed};
use crate::kubernetes::{Access, Connection, Rules, follow};
use crate::spiffe::TrustDomain;
use crate::sys::clock;

use memory::Memory;
use pods::Pods;
use subject::Subject;

pub use identities::PodIdentities;

/// How long changes are gathered before they are told: a list comes object by object.
const GATHER: Duration = Duration::from_millis(20);
/// How often it is looked whether the API server answers again, as nothing need have changed, and problems are told.
const LOOK: Duration = Duration::from_secs(1);

/// Settings of the discovery of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    pub access: Access,
    /// The name of this node in the cluster.
    pub node: String,
    pub trust_domain: TrustDomain,
    /// Where pods' identities come from.
    pub identities: PodIdentities,
    pub rules: Rules,
    /// Destinations that no pod is cut off from.
    pub bypass: Vec<Bypass>,
    /// File with what was known last. It outlives the agent: pods that run stay protected though the API server is away.
    pub memory: PathBuf,
}

impl Discovery for Kubernetes {
    fn kind(&self) -> &'static str {
        "kubernetes"
    }

    fn follow(self: Arc<Self>, updates: Updates) -> Following {
        Box::pin(async move { Watching::new(&self, updates).run().await })
    }

    fn check(&self) -> Vec<Check> {
        check::check(self)
    }
}

impl Kubernetes {
    /// The pods of this node, for the API server.
    fn selector(&self) -> String {
        format!("spec.nodeName={}", self.node)
    }
}

/// The discovery at work.
struct Watching<'s> {
    settings: &'s Kubernetes,
    updates: Updates,
    pods: Pods,
    memory: Memory,
    pods_heard: Subject,
    namespaces_heard: Subject,
    /// The problems that were told last.
    told: Problems,
}

impl<'s> Watching<'s> {
    fn new(settings: &'s Kubernetes, updates: Updates) -> Self {
        let memory = Memory::new(settings.memory.clone());
        let pods = Pods::new(settings.rules.clone(), memory.recall(&settings.node));
        Self {
            settings,
            updates,
            pods,
            memory,
            pods_heard: Subject::new("pods"),
            namespaces_heard: Subject::new("namespaces"),
            told: Problems::new(),
        }
    }

    async fn run(mut self) -> Result<(), Unfollowed> {
        // What was known last is good until more is known.
        self.tell().await?;
        // A connection each: only so can be told which of the two is answered.
        let pods = self.connect().await?;
        let namespaces = self.connect().await?;
        self.watch(pods, namespaces).await
    }

    async fn connect(&mut self) -> Result<Connection, Unfollowed> {
        let mut backoff = self.updates.backoff();
        loop {
            match self.settings.access.connect().await {
                Ok(connection) => return Ok(connection),
                Err(error) => self.pods_heard.fails(error),
            }
            self.tell_problems().await?;
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    async fn watch(&mut self, pods: Connection, namespaces: Connection) -> Result<(), Unfollowed> {
        let own = Config::default().fields(&self.settings.selector());
        let all = Config::default();
        self.pods_heard.is_heard_by(pods.contact);
        self.namespaces_heard.is_heard_by(namespaces.contact);
        let pods = Api::<api::Pod>::all(pods.client);
        let namespaces = Api::<PartialObjectMeta<api::Namespace>>::all(namespaces.client);
        let mut pods = pin!(follow(pods, own, self.updates.backoff()));
        let mut namespaces = pin!(follow(namespaces, all, self.updates.backoff()));
        let mut look = tokio::time::interval(LOOK);
        // When what has changed is told.
        let mut due = None;
        loop {
            let has_changed = tokio::select! {
                Some(change) = pods.next() => {
                    self.pods_heard.take(change).is_some_and(|change| self.pods.take_pod(change))
                }
                Some(change) = namespaces.next() => {
                    let change = self.namespaces_heard.take(change);
                    change.is_some_and(|change| self.pods.take_namespace(change))
                }
                () = clock::reach(due) => {
                    due = None;
                    self.tell().await?;
                    self.memory.keep(&self.settings.node, &self.pods.known());
                    false
                }
                _ = look.tick() => {
                    self.pods_heard.look();
                    self.namespaces_heard.look();
                    // Here, and not after each object of a list: it takes a look at all pods.
                    self.tell_problems().await?;
                    false
                }
            };
            if has_changed && due.is_none() {
                due = Some(Instant::now() + GATHER);
            }
        }
    }

    /// Sends what is known. Nothing is sent as long as nothing is: a start waits a little for the first message.
    async fn tell(&mut self) -> Result<(), Unfollowed> {
        let desired = self.pods.desired(self.settings);
        if desired.pods.is_none() {
            return Ok(());
        }
        self.told = self.problems();
        let problems = self.told.clone();
        self.updates.send(Update::Snapshot(Snapshot { desired, problems })).await
    }

    /// Sends what is wrong, if that has changed.
    async fn tell_problems(&mut self) -> Result<(), Unfollowed> {
        let problems = self.problems();
        if problems == self.told {
            return Ok(());
        }
        self.told.clone_from(&problems);
        self.updates.send(Update::Problems(problems)).await
    }

    fn problems(&self) -> Problems {
        let mut problems = self.pods.problems();
        for subject in [&self.pods_heard, &self.namespaces_heard] {
            problems.extend(subject.problem());
        }
        problems
    }
}

#[cfg(test)]
mod testing;
