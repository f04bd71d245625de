//! What every source of identities is: something that follows a workload and tells what it is now.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use sheath_common::workload::WorkloadId;
use tokio::sync::{mpsc, watch};

use super::Snapshot;
use crate::follow::{Following, Problem, Unfollowed};
use crate::spiffe::SpiffeId;

/// A workload, as far as sources want to know it.
#[derive(Clone, Debug)]
pub struct WorkloadRef {
    pub id: WorkloadId,
    pub name: String,
    /// What its certificate must carry, if that is said.
    pub spiffe_id: Option<SpiffeId>,
    /// Its processes, as capture sees them.
    pub processes: Processes,
    pub membership: Membership,
}

/// Tells whether a process is one of the workload's at this moment.
#[derive(Clone)]
pub struct Membership(pub Arc<dyn Fn(u32) -> bool + Send + Sync>);

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Membership")
    }
}

/// The processes of a workload as they come and go.
pub type Processes = watch::Receiver<BTreeSet<u32>>;

/// What a source has to say.
#[derive(Clone, Debug)]
pub enum Update {
    /// All of it, new. Replaces what was there.
    Snapshot(Snapshot),
    /// Nothing yet, and what is waited for.
    Waiting(Problem),
    /// Nothing new, and why. What was there stays until it expires.
    Failed(Problem),
    /// The workload has no identity any more, and why.
    Withdrawn(Problem),
}

/// Where updates go: to whoever asked for this workload.
#[derive(Clone, Debug)]
pub struct Updates {
    sender: mpsc::Sender<(WorkloadRef, u64, Update)>,
    workload: WorkloadRef,
    /// Tells this following from earlier ones of the same workload.
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
    /// Follows one workload until nobody listens any more. Failures are told and tried again, with pauses that
    /// grow and differ.
    fn follow(self: Arc<Self>, updates: Updates) -> Following;
}
