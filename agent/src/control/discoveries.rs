//! The discoveries that are followed, and what they have found.

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

/// Pause before a discovery that has broken down is followed again.
const AFTER_BREAKDOWN: Duration = Duration::from_secs(10);

/// What people are told of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameView {
    pub name: String,
    /// That it stands for, or has stood for not long ago.
    pub addresses: Vec<IpAddr>,
    /// Why it is not resolved now; empty if it is.
    pub problem: String,
}

/// The same of all, read by whoever wants to.
pub type NameViews = Arc<ArcSwap<Vec<NameView>>>;

/// What all discoveries have found, and go on finding.
#[derive(Debug)]
pub struct Discoveries {
    /// By kind.
    followed: BTreeMap<&'static str, FollowedDiscovery>,
    generation: u64,
    /// What is wanted, for those that look for what others name.
    wanted: watch::Sender<Arc<Desired>>,
    updates: (mpsc::Sender<Message>, mpsc::Receiver<Message>),
    random: &'static dyn SecureRandom,
    /// Those that are in the log already.
    conflicts: BTreeSet<Conflict>,
    names: NameViews,
}

#[derive(Debug)]
struct FollowedDiscovery {
    discovery: Arc<dyn Discovery>,
    generation: u64,
    /// Ends with this.
    _task: AbortOnDropHandle<()>,
    found: Snapshot,
    /// True once it has said anything.
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
            names: NameViews::default(),
        }
    }

    /// What is known of names, now and later.
    pub fn name_views(&self) -> NameViews {
        self.names.clone()
    }

    /// Follows these and lets go of all others; those that stay as they are go on undisturbed. What the others had found
    /// stays until who comes in their place has spoken.
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
        self.show_names();
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

    /// Puts together what the configuration and all discoveries want, and says what does not fit together.
    pub fn merged(&self, configured: &Desired) -> Merged {
        let found = self.followed.values().map(|followed| &followed.found.desired);
        let (desired, conflicts) = Desired::merged(std::iter::once(configured).chain(found));
        Merged { desired: Arc::new(desired), conflicts: conflicts.into_iter().collect() }
    }

    /// Takes note of what is wanted now.
    pub fn take_note(&mut self, merged: &Merged) {
        for conflict in merged.conflicts.difference(&self.conflicts) {
            tracing::warn!("{conflict}");
        }
        self.conflicts.clone_from(&merged.conflicts);
        self.wanted.send_replace(merged.desired.clone());
    }

    /// Waits for what a discovery says next.
    pub async fn next(&mut self) -> Message {
        match self.updates.1.recv().await {
            Some(message) => message,
            // Never: there is a sender here.
            None => std::future::pending().await,
        }
    }

    /// True if every discovery has said something.
    pub fn all_heard(&self) -> bool {
        self.followed.values().all(|followed| followed.heard)
    }

    /// Takes in what a discovery says, if it is still followed. Returns true if something else is wanted by that.
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
        self.show_names();
        is_new
    }

    fn show_names(&self) {
        let found = self.followed.values().map(|followed| &followed.found);
        let mut views: Vec<_> = found.flat_map(views).collect();
        views.sort_by(|one, other| one.name.cmp(&other.name));
        self.names.store(Arc::new(views));
    }
}

/// Follows a discovery, again and again if it should break down.
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

/// What all want together.
#[derive(Clone, Debug)]
pub struct Merged {
    pub desired: Arc<Desired>,
    conflicts: BTreeSet<Conflict>,
}

fn views(Snapshot { desired, problems }: &Snapshot) -> impl Iterator<Item = NameView> {
    let problem = |problems: &Problems, name: &str| problems.get(name).map(ToString::to_string);
    desired.endpoints.iter().map(move |known| NameView {
        name: known.name.as_ref().to_owned(),
        addresses: known.addresses.iter().copied().collect(),
        problem: problem(problems, known.name.as_ref()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
