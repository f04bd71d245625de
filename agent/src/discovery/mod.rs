//! Discoveries find parts of the desired state outside of the configuration file.
//!
//! A [`Discovery`] is the twin of a [source](crate::identity::Source) of identities: a stream of full snapshots. The control
//! plane merges the snapshots of all discoveries with the configuration.

mod dns;
mod kubernetes;
mod state_file;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::SecureRandom;
use tokio::sync::{mpsc, watch};

use crate::desired::Desired;
use crate::follow::{Backoff, Check, Comparable, Following, Problem, Unfollowed};

pub use dns::{ADDRESSES_OF_A_NAME, Dns};
pub use kubernetes::{Kubernetes, PodIdentities};
pub use state_file::stop_keeping;

/// Finds a part of the desired state. The value holds settings only and can be compared, so that a reload leaves an
/// unchanged discovery undisturbed.
pub trait Discovery: Comparable + fmt::Debug + Send + Sync {
    /// For logs, like `dns`. There is at most one discovery of each kind.
    fn kind(&self) -> &'static str;

    /// Sends snapshots until nobody listens any more. The first one should come soon: a start waits for it. Failures are
    /// reported and retried with growing, jittered pauses.
    fn follow(self: Arc<Self>, updates: Updates) -> Following;

    /// For `sheath check`: whether it would find now what it looks for. Changes nothing. Empty if there is nothing to report.
    fn check(&self) -> Vec<Check> {
        Vec::new()
    }
}

impl PartialEq for dyn Discovery {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other)
    }
}

/// Problems by subject, for example by DNS name.
pub type Problems = BTreeMap<String, Problem>;

/// Everything that a discovery knows now.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub desired: Desired,
    pub problems: Problems,
}

/// A message of a discovery.
#[derive(Clone, Debug)]
pub enum Update {
    /// Replaces the snapshot before.
    Snapshot(Snapshot),
    /// The snapshot before stays, but its problems have changed.
    Problems(Problems),
}

/// The kind of a discovery, the generation of the follower, and the update.
pub type Message = (&'static str, u64, Update);

/// Where updates go, and what a discovery may ask for.
#[derive(Clone, Debug)]
pub struct Updates {
    sender: mpsc::Sender<Message>,
    kind: &'static str,
    /// Distinguishes this follower from earlier ones of the same kind.
    generation: u64,
    wanted: watch::Receiver<Arc<Desired>>,
    before: Desired,
    random: &'static dyn SecureRandom,
}

impl Updates {
    /// `before` is the last snapshot of a discovery of the same kind with other settings.
    #[must_use]
    pub fn new(
        sender: mpsc::Sender<Message>,
        kind: &'static str,
        generation: u64,
        wanted: watch::Receiver<Arc<Desired>>,
        before: Desired,
        random: &'static dyn SecureRandom,
    ) -> Self {
        Self { sender, kind, generation, wanted, before, random }
    }

    /// The merged desired state, kept up to date: for discoveries that look up what it refers to.
    #[must_use]
    pub fn wanted(&self) -> watch::Receiver<Arc<Desired>> {
        self.wanted.clone()
    }

    /// The last snapshot of the predecessor. It stays in force until the first update. Empty at the second call.
    #[must_use]
    pub fn take_before(&mut self) -> Desired {
        std::mem::take(&mut self.before)
    }

    /// Pauses between retries.
    #[must_use]
    pub fn backoff(&self) -> Backoff {
        Backoff::new(self.random)
    }

    /// # Errors
    /// If nobody listens any more: time to stop.
    pub async fn send(&self, update: Update) -> Result<(), Unfollowed> {
        self.sender.send((self.kind, self.generation, update)).await.map_err(|_| Unfollowed)
    }
}
