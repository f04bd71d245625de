//! What is known of a take-over, in the agent that took over.

use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use super::message::Introduction;
use crate::metrics::Counter;

/// An agent has taken over from another.
#[derive(Debug)]
pub struct TakeOver {
    /// Process id of the agent before.
    pub pid: i32,
    /// Its version of Sheath.
    pub version: String,
    /// When new connections began to come to this agent.
    pub at: SystemTime,
    /// Flows that the agent before has handed over.
    pub taken: Counter,
    /// Flows that it has offered, and goes on carrying.
    pub refused: Counter,
    ended: CancellationToken,
}

impl TakeOver {
    pub(super) fn new(pid: i32, from: &Introduction) -> Self {
        let (version, at) = (from.agent.clone(), SystemTime::now());
        let (taken, refused, ended) = Default::default();
        Self { pid, version, at, taken, refused, ended }
    }

    /// True when the agent before is gone, and with it all that it carried.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until it is.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub(super) fn end(&self) {
        self.ended.cancel();
    }
}
