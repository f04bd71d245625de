//! The quotas of all workloads, and what they share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use sheath_common::workload::WorkloadId;

use super::quota::{Permit, Quota};
use super::refusals::RefusalCounts;
use super::{Limits, QuotaExceeded};
use crate::wire::buffers::Buffers;

/// Descriptors that flows leave to everything else.
const RESERVE: usize = 512;

/// The quotas of all workloads.
#[derive(Debug)]
pub struct Quotas {
    pub(super) limits: Limits,
    /// Flows that all workloads together may have open, each with two descriptors.
    pub(super) capacity: usize,
    /// Handshakes of one workload that may be computed at once.
    pub(super) cpus: usize,
    pub(super) buffers: Arc<Buffers>,
    open: Arc<AtomicUsize>,
    /// Locked for a lookup, and to read what is counted.
    workloads: Mutex<Workloads>,
}

#[derive(Debug, Default)]
pub(super) struct Workloads {
    pub living: HashMap<WorkloadId, Arc<Quota>>,
    /// What the quotas of workloads refused that are gone.
    pub gone: RefusalCounts,
}

impl Quotas {
    /// `threads` is how many cores flows are worked on.
    #[must_use]
    pub fn new(limits: Limits, threads: usize) -> Self {
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        // An eighth is for sessions that wait for the next flow.
        let capacity = (descriptors - descriptors / 8).saturating_sub(RESERVE).max(2) / 2;
        Self::with_capacity(limits, threads, capacity)
    }

    pub(super) fn with_capacity(limits: Limits, threads: usize, capacity: usize) -> Self {
        Self {
            limits,
            capacity,
            // One core is left to others, unless that were half of them: then a burst of connections would take twice as
            // long, and each of its steps makes others wait for a fraction of a millisecond.
            cpus: if threads > 2 { threads - 1 } else { threads.max(1) },
            buffers: Arc::default(),
            open: Arc::default(),
            workloads: Mutex::default(),
        }
    }

    /// Frees buffers that were not needed since the last call.
    pub fn trim(&self) {
        self.buffers.trim();
    }

    /// Forgets the quotas of workloads that are gone, once nothing of theirs is left.
    pub fn retain(&self, is_living: impl Fn(WorkloadId) -> bool) {
        let Workloads { living, gone } = &mut *self.workloads();
        living.retain(|workload, quota| {
            // Nobody can take it up meanwhile: that needs the lock.
            let stays = is_living(*workload) || Arc::strong_count(quota) > 1 || quota.is_in_use();
            if !stays {
                *gone += quota.refusals();
            }
            stays
        });
    }

    #[must_use]
    pub fn of(&self, workload: WorkloadId) -> Arc<Quota> {
        let mut workloads = self.workloads();
        workloads.living.entry(workload).or_insert_with(|| Arc::new(Quota::new(self))).clone()
    }

    /// Lets a workload have one more flow.
    ///
    /// # Errors
    /// If it has as many as it may, or if there are as many as there can be.
    pub fn admit(&self, workload: WorkloadId) -> Result<Permit, QuotaExceeded> {
        let mut permit = self.admit_unproven(workload)?;
        permit.count_flow()?;
        Ok(permit)
    }

    /// Takes up a flow that was open in another process: it was admitted there.
    ///
    /// # Errors
    /// If there are as many as there can be, or as `limits.flows` says.
    pub fn take(&self, workload: WorkloadId) -> Result<Permit, QuotaExceeded> {
        let mut permit = self.admit_unproven(workload)?;
        permit.count_taken()?;
        Ok(permit)
    }

    /// Admits one more connection from a client that has proved nothing. It is not counted as one of the workload's flows:
    /// otherwise strangers could take them all. It takes a slot of [`Quota::unproven`].
    ///
    /// # Errors
    /// If there are as many as there can be.
    pub fn admit_unproven(&self, workload: WorkloadId) -> Result<Permit, QuotaExceeded> {
        let permit = Permit::new(self.of(workload), self.open.clone());
        if self.open.fetch_add(1, Relaxed) >= self.capacity {
            permit.quota().refused.flows.increment();
            return Err(QuotaExceeded::Capacity(self.capacity));
        }
        Ok(permit)
    }

    pub(super) fn workloads(&self) -> MutexGuard<'_, Workloads> {
        self.workloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
