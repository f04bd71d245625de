//! What is known of a take-over, in the agent that took over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::message::Introduction;
use crate::metrics::{Counter, Registry, RegistryError};

/// What became of the flows that an agent before this one has offered.
#[derive(Debug, Default)]
pub struct OfferedFlows {
    pub taken: Counter,
    /// It goes on carrying these.
    pub refused: Counter,
}

impl OfferedFlows {
    /// # Errors
    /// If a name is taken.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) -> Result<(), RegistryError> {
        let help = "Flows that the agent before this one has handed over.";
        registry.register("flows_taken_over", help, self, |flows| &flows.taken)?;
        let help = "Flows that the agent before this one has offered, and had to keep.";
        registry.register("flows_not_taken_over", help, self, |flows| &flows.refused)
    }
}

/// An agent has taken over from another.
#[derive(Debug)]
pub struct TakeOver {
    /// Process id of the agent before.
    pub pid: i32,
    /// Its version of Sheath.
    pub version: String,
    /// When new connections began to come to this agent.
    pub at: SystemTime,
    pub flows: Arc<OfferedFlows>,
    has_ended: AtomicBool,
}

impl TakeOver {
    pub(super) fn new(pid: i32, from: &Introduction, flows: Arc<OfferedFlows>) -> Self {
        let (version, at) = (from.agent.clone(), SystemTime::now());
        Self { pid, version, at, flows, has_ended: AtomicBool::new(false) }
    }

    /// True when the agent before is gone, and with it all that it carried.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}
