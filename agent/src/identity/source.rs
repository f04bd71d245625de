//! The trait of all sources of identities: a source follows a workload and sends its identity whenever that changes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use sheath_common::workload::WorkloadId;
use tokio::sync::{mpsc, watch};

use super::Snapshot;
use crate::follow::{Following, Problem, Unfollowed};
use crate::spiffe::SpiffeId;

/// What sources know about a workload.
#[derive(Clone, Debug)]
pub struct WorkloadRef {
    pub id: WorkloadId,
    pub name: String,
    /// The SPIFFE ID that its certificate must have, if one is configured.
    pub spiffe_id: Option<SpiffeId>,
    /// Its processes, as capture sees them.
    pub processes: Processes,
    pub membership: Membership,
}

/// Checks whether a process is in the workload at this moment.
#[derive(Clone)]
pub struct Membership(pub Arc<dyn Fn(u32) -> bool + Send + Sync>);

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Membership")
    }
}

/// The processes of a workload, kept up to date.
pub type Processes = watch::Receiver<BTreeSet<u32>>;

/// A message of a source.
#[derive(Clone, Debug)]
pub enum Update {
    /// A new identity. Replaces the one before.
    Snapshot(Snapshot),
    /// No identity yet, and what the source waits for.
    Waiting(Problem),
    /// No identity, and it is the source itself that gives none: without a change elsewhere there will be none.
    Refused(Problem),
    /// No newer identity. The one before stays until it expires.
    Failed(Problem),
    /// The identity before must not be used any more.
    Withdrawn(Problem),
}

/// Where the updates for one workload go.
#[derive(Clone, Debug)]
pub struct Updates {
    sender: mpsc::Sender<(WorkloadRef, u64, Update)>,
    workload: WorkloadRef,
    /// Distinguishes this follower from earlier ones of the same workload.
    generation: u64,
}

impl Updates {
    #[must_use]
    pub fn new(
        sender: mpsc::Sender<(WorkloadRef, u64, Update)>,
        workload: WorkloadRef,
        generation: u64,
    ) -> Self {
        Self { sender, workload, generation }
    }

    #[must_use]
    pub fn workload(&self) -> &WorkloadRef {
        &self.workload
    }

    /// # Errors
    /// If nobody listens any more: time to stop.
    pub async fn send(&self, update: Update) -> Result<(), Unfollowed> {
        let message = (self.workload.clone(), self.generation, update);
        self.sender.send(message).await.map_err(|_| Unfollowed)
    }
}

/// A source of identities.
pub trait Source: fmt::Debug + Send + Sync {
    /// Follows one workload until nobody listens any more. Failures are reported and retried with growing, jittered
    /// pauses.
    fn follow(self: Arc<Self>, updates: Updates) -> Following;
}
