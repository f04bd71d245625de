//! Which workloads are in a namespace. Sessions end when their workload has left it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sheath_common::workload::WorkloadId;
use tokio_util::sync::CancellationToken;

/// The stay of each workload in one namespace.
#[derive(Debug)]
pub struct Presence {
    namespace: CancellationToken,
    stays: Mutex<HashMap<WorkloadId, CancellationToken>>,
}

impl Presence {
    /// In a namespace that is served until the token is cancelled.
    pub fn until(closed: CancellationToken) -> Self {
        Self { namespace: closed, stays: Mutex::default() }
    }

    /// Cancelled at the end of the workload's stay, or with the namespace.
    pub fn of(&self, workload: WorkloadId) -> CancellationToken {
        let mut stays = self.stays();
        stays.entry(workload).or_insert_with(|| self.namespace.child_token()).clone()
    }

    /// Ends the workload's stay. If it comes again, that is another one.
    pub fn end(&self, workload: WorkloadId) {
        let ended = self.stays().remove(&workload);
        if let Some(stay) = ended {
            stay.cancel();
        }
    }

    fn stays(&self) -> MutexGuard<'_, HashMap<WorkloadId, CancellationToken>> {
        self.stays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stay_ends_with_its_workload_and_the_next_is_another() {
        let presence = Presence::until(CancellationToken::new());
        let (first, other) = (presence.of(1), presence.of(2));
        presence.end(1);
        assert!(first.is_cancelled() && !other.is_cancelled());
        assert!(!presence.of(1).is_cancelled());
        presence.end(9);
    }

    #[test]
    fn all_stays_end_with_the_namespace() {
        let closed = CancellationToken::new();
        let presence = Presence::until(closed.clone());
        let before = presence.of(1);
        closed.cancel();
        assert!(before.is_cancelled() && presence.of(2).is_cancelled());
    }
}
