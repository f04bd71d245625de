//! The processes of each workload, published as they come and go.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use sheath_common::workload::WorkloadId;
use tokio::sync::watch;

/// Processes by workload.
#[derive(Debug, Default)]
pub struct Processes {
    processes: Mutex<HashMap<WorkloadId, watch::Sender<BTreeSet<u32>>>>,
}

impl Processes {
    /// The processes of a workload, now and from now on.
    pub fn subscribe(&self, workload: WorkloadId) -> watch::Receiver<BTreeSet<u32>> {
        self.with(workload, |sender| sender.subscribe())
    }

    /// Publishes the processes that a workload has now.
    pub fn publish(&self, workload: WorkloadId, processes: &BTreeSet<u32>) {
        self.with(workload, |sender| {
            sender.send_if_modified(|known| {
                let is_new = known != processes;
                if is_new {
                    known.clone_from(processes);
                }
                is_new
            })
        });
    }

    fn with<R>(
        &self,
        workload: WorkloadId,
        use_it: impl FnOnce(&watch::Sender<BTreeSet<u32>>) -> R,
    ) -> R {
        let mut all = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(all.entry(workload).or_default())
    }
}
