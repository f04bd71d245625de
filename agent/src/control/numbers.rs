//! The numbers by which the kernel knows workloads.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use sheath_common::workload::{NO_WORKLOAD, WorkloadId};

use crate::capture::{IdError, WorkloadIds};
use crate::desired::Desired;

/// Gives workloads their numbers.
#[derive(Debug)]
pub struct Numbers {
    ids: Arc<WorkloadIds>,
    /// By key, those of the workloads that were given numbers last. What a discovery has changed nothing about cost nothing.
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
        if !desired.keys().all(|key| self.known.contains_key(key.as_ref())) {
            let keys: Vec<_> = desired.keys().map(Cow::into_owned).collect();
            let names = keys.iter().map(String::as_str);
            let ids = tokio::task::block_in_place(|| self.ids.assign(names))?;
            self.known = keys.into_iter().zip(ids).collect();
        }
        self.give_known(desired);
        Ok(())
    }

    /// Gives those workloads their numbers that had them before.
    pub fn give_known(&self, desired: &mut Desired) {
        let number = |key: Cow<'_, str>| self.known.get(key.as_ref()).copied();
        let numbers: Vec<_> =
            desired.keys().map(|key| number(key).unwrap_or(NO_WORKLOAD)).collect();
        desired.number(numbers);
    }
}
