//! What each workload takes of the agent, and how much of it there is: flows, handshakes, buffers. Whoever wants more
//! than its share is refused or slowed down itself, and nobody else notices.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sheath_common::workload::WorkloadId;

use crate::buffers::{Account, Buffers};
use crate::config::Limits;

/// The shares of all workloads.
#[derive(Debug)]
pub struct Shares {
    limits: Limits,
    buffers: Arc<Buffers>,
    /// Locked for a lookup alone.
    by_workload: Mutex<HashMap<WorkloadId, Arc<Share>>>,
}

/// What one workload takes.
#[derive(Debug)]
pub struct Share {
    pub buffers: Arc<Account>,
}

impl Shares {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffers: Arc::default(), by_workload: Mutex::default() }
    }

    #[must_use]
    pub fn of(&self, workload: WorkloadId) -> Arc<Share> {
        let mut shares = self.by_workload.lock().unwrap_or_else(PoisonError::into_inner);
        let new =
            || Arc::new(Share { buffers: Account::new(self.buffers.clone(), self.limits.buffers) });
        shares.entry(workload).or_insert_with(new).clone()
    }
}
