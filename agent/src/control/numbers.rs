//! The numbers by which the kernel knows workloads.

use std::collections::HashMap;
use std::sync::Arc;

use sheath_common::workload::{NO_WORKLOAD, WorkloadId};

use crate::capture::{IdError, WorkloadIds};
use crate::desired::Desired;

/// Gives workloads their numbers.
#[derive(Debug)]
pub struct Numbers {
    ids: Arc<WorkloadIds>,
    /// Those of the workloads that were given numbers last. Names that a discovery has changed nothing about cost nothing.
    known: HashMap<String, WorkloadId>,
}

impl Numbers {
    pub fn new(ids: Arc<WorkloadIds>) -> Self {
        Self { ids, known: HashMap::new() }
    }

    /// Gives each workload its number, whoever has produced it.
    ///
    /// # Errors
    /// If a new workload gets none. Without one a workload is refused.
    pub fn give(&mut self, desired: &mut Desired) -> Result<(), IdError> {
        let is_known = |name: &str| self.known.contains_key(name);
        if !desired.names().all(is_known) {
            let ids = tokio::task::block_in_place(|| self.ids.assign(desired.names()))?;
            self.known = desired.names().map(str::to_owned).zip(ids).collect();
        }
        self.give_known(desired);
        Ok(())
    }

    /// Gives those workloads their numbers that had them before.
    pub fn give_known(&self, desired: &mut Desired) {
        let number = |name| self.known.get(name).copied().unwrap_or(NO_WORKLOAD);
        let numbers: Vec<_> = desired.names().map(number).collect();
        desired.number(numbers);
    }
}
