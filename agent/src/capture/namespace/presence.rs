//! Which workloads are in a namespace, for what must not outlive them: sessions end when their workload has gone.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sheath_common::workload::WorkloadId;
use tokio_util::sync::CancellationToken;

use super::Namespace;

/// What tells of the end of each workload's stay.
#[derive(Debug, Default)]
pub struct Present(Mutex<HashMap<WorkloadId, CancellationToken>>);

impl Namespace {
    /// Cancelled when the workload has left the namespace, or the namespace is let go.
    #[must_use]
    pub fn presence(&self, workload: WorkloadId) -> CancellationToken {
        let mut present = self.present.0.lock().unwrap_or_else(PoisonError::into_inner);
        present.entry(workload).or_insert_with(|| self.closed.child_token()).clone()
    }

    /// The workload has gone; should it come again, that is another stay.
    pub fn leave(&self, workload: WorkloadId) {
        let left = self.present.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&workload);
        if let Some(stay) = left {
            stay.cancel();
        }
    }
}
