//! Follows discoveries and keeps what they have found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::SecureRandom;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::desired::{Conflict, Desired};
use crate::discovery::{Discovery, Message, Problems, Snapshot, Update, Updates};
use crate::metrics::{Registry, RegistryError, Scalar};

/// Pause after a discovery has panicked.
const AFTER_BREAKDOWN: Duration = Duration::from_secs(10);

/// A DNS name in `sheath status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameView {
    pub name: String,
    /// Addresses that it resolves to, or did resolve to within the last hour.
    pub addresses: Vec<IpAddr>,
    /// Why it does not resolve now; empty if it does.
    pub problem: String,
}

/// What a discovery cannot find out, in `sheath status`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ProblemView {
    /// The kind of the discovery.
    pub discovery: &'static str,
    /// For example a pod, or all pods.
    pub subject: String,
    pub problem: String,
}

/// What discoveries have found, as far as `sheath status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub names: Vec<NameView>,
    /// Those of names are with the names.
    pub problems: Vec<ProblemView>,
}

/// It, shared with `sheath status`.
pub type FoundViews = Arc<ArcSwap<Found>>;

/// All discoveries that are followed.
#[derive(Debug)]
pub struct Discoveries {
    /// By kind.
    followed: BTreeMap<&'static str, FollowedDiscovery>,
    generation: u64,
    /// The merged desired state, for discoveries that look up what it refers to.
    wanted: watch::Sender<Arc<Desired>>,
    updates: (mpsc::Sender<Message>, mpsc::Receiver<Message>),
    random: &'static dyn SecureRandom,
    /// Conflicts that were logged.
    conflicts: BTreeSet<Conflict>,
    shown: FoundViews,
}

#[derive(Debug)]
struct FollowedDiscovery {
    discovery: Arc<dyn Discovery>,
    generation: u64,
    /// Aborted when this is dropped.
    _task: AbortOnDropHandle<()>,
    found: Snapshot,
    /// True after its first message.
    heard: bool,
}

impl Discoveries {
    pub fn new(random: &'static dyn SecureRandom) -> Self {
        Self {
            followed: BTreeMap::new(),
            generation: 0,
            wanted: watch::Sender::default(),
            updates: mpsc::channel(16),
            random,
            conflicts: BTreeSet::new(),
            shown: FoundViews::default(),
        }
    }

    /// What is wanted, with the workloads' numbers, kept up to date.
    pub fn wanted(&self) -> watch::Receiver<Arc<Desired>> {
        self.wanted.subscribe()
    }

    /// Registers how much is wrong.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn register(&self, registry: &mut Registry) -> Result<(), RegistryError> {
        let found = self.shown.clone();
        registry.register_read(
            Scalar::Gauge,
            "discovery_problems",
            "What discoveries cannot find out, or cannot do as it is wanted: pods with labels that make no sense, or that cannot be protected, for example.",
            move || Some(found.load().problems.len() as u64),
        )
    }

    /// What was found, kept up to date.
    pub fn views(&self) -> FoundViews {
        self.shown.clone()
    }

    /// Follows these discoveries and ends all others. An unchanged one goes on undisturbed. Where the settings of one have
    /// changed, what it had found stays until its successor has delivered.
    pub fn follow(&mut self, discoveries: &[Arc<dyn Discovery>]) {
        let mut before = std::mem::take(&mut self.followed);
        for discovery in discoveries {
            let kind = discovery.kind();
            let followed = match before.remove(kind) {
                Some(followed) if *followed.discovery == **discovery => followed,
                other => self.begin(discovery, other.map(|old| old.found).unwrap_or_default()),
            };
            self.followed.insert(kind, followed);
        }
        self.show();
    }

    fn begin(&mut self, discovery: &Arc<dyn Discovery>, found: Snapshot) -> FollowedDiscovery {
        self.generation += 1;
        let updates = Updates::new(
            self.updates.0.clone(),
            discovery.kind(),
            self.generation,
            self.wanted.subscribe(),
            found.desired.clone(),
            self.random,
        );
        let task = tokio::spawn(keep_following(discovery.clone(), updates));
        FollowedDiscovery {
            discovery: discovery.clone(),
            generation: self.generation,
            _task: AbortOnDropHandle::new(task),
            found,
            heard: false,
        }
    }

    /// Merges the configuration's part and the parts of all discoveries.
    pub fn merged(&self, configured: &Desired) -> Merged {
        let found = self.followed.values().map(|followed| &followed.found.desired);
        let (desired, conflicts) = Desired::merged(std::iter::once(configured).chain(found));
        Merged { desired: Arc::new(desired), conflicts: conflicts.into_iter().collect() }
    }

    /// Logs new conflicts and tells discoveries of the new state.
    pub fn announce(&mut self, merged: &Merged) {
        for conflict in merged.conflicts.difference(&self.conflicts) {
            tracing::warn!("{conflict}");
        }
        self.conflicts.clone_from(&merged.conflicts);
        self.wanted.send_replace(merged.desired.clone());
    }

    /// Waits for the next message of a discovery.
    pub async fn next(&mut self) -> Message {
        match self.updates.1.recv().await {
            Some(message) => message,
            // Cannot happen: `self` holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Handles all messages that are there by now. Returns true if the desired state has changed.
    pub fn take_all(&mut self, first: Message) -> bool {
        let mut has_changed = self.take(first);
        while let Ok(next) = self.updates.1.try_recv() {
            has_changed |= self.take(next);
        }
        has_changed
    }

    /// True if every discovery has sent a message.
    pub fn all_heard(&self) -> bool {
        self.followed.values().all(|followed| followed.heard)
    }

    /// Handles a message, unless its discovery is no longer followed. Returns true if the desired state has changed.
    pub fn take(&mut self, (kind, generation, update): Message) -> bool {
        let followed = self.followed.get_mut(kind);
        let Some(followed) = followed.filter(|followed| followed.generation == generation) else {
            return false;
        };
        followed.heard = true;
        let is_new = match update {
            Update::Snapshot(snapshot) => {
                followed.found = snapshot;
                true
            }
            Update::Problems(problems) => {
                followed.found.problems = problems;
                false
            }
        };
        self.show();
        is_new
    }

    fn show(&self) {
        let found = self.followed.values().map(|followed| &followed.found);
        let mut names: Vec<_> = found.flat_map(names).collect();
        names.sort_by(|one, other| one.name.cmp(&other.name));
        let problems =
            self.followed.iter().flat_map(|(kind, followed)| problems(kind, &followed.found));
        self.shown.store(Arc::new(Found { names, problems: problems.collect() }));
    }
}

/// Follows a discovery, and starts it again if it panics.
async fn keep_following(discovery: Arc<dyn Discovery>, updates: Updates) {
    loop {
        let following = tokio::spawn(discovery.clone().follow(updates.clone()));
        match AbortOnDropHandle::new(following).await {
            Err(error) if error.is_panic() => {
                let kind = discovery.kind();
                tracing::error!(
                    kind,
                    "a discovery broke down; what it has found stays; please report this"
                );
                tokio::time::sleep(AFTER_BREAKDOWN).await;
            }
            _ => return,
        }
    }
}

/// The parts of all producers, merged.
#[derive(Clone, Debug)]
pub struct Merged {
    pub desired: Arc<Desired>,
    conflicts: BTreeSet<Conflict>,
}

fn names(Snapshot { desired, problems }: &Snapshot) -> impl Iterator<Item = NameView> {
    let problem = |problems: &Problems, name: &str| problems.get(name).map(ToString::to_string);
    desired.endpoints.iter().map(move |known| NameView {
        name: known.name.as_ref().to_owned(),
        addresses: known.addresses.iter().copied().collect(),
        problem: problem(problems, known.name.as_ref()).unwrap_or_default(),
    })
}

fn problems(
    discovery: &'static str,
    Snapshot { desired, problems }: &Snapshot,
) -> impl Iterator<Item = ProblemView> {
    let is_name =
        |subject: &str| desired.endpoints.iter().any(|known| known.name.as_ref() == subject);
    problems.iter().filter(move |(subject, _)| !is_name(subject)).map(move |(subject, problem)| {
        ProblemView { discovery, subject: subject.clone(), problem: problem.to_string() }
    })
}

#[cfg(test)]
mod tests;
