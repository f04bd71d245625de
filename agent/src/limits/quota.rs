//! What one workload takes, and how much more it may.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::rate::Rate;
use super::refusals::{RefusalCounters, RefusalCounts};
use super::share::Share;
use super::unproven::{UnprovenClients, UnprovenSlot};
use super::{QuotaExceeded, Quotas};
use crate::wire::buffers::Account;

/// Clients of one workload that may be connected before they have proved who they are.
const MAX_UNPROVEN: usize = 1024;

/// What one workload takes, and how much more it may.
#[derive(Debug)]
pub struct Quota {
    /// Bytes in buffers.
    pub buffers: Arc<Account>,
    /// Flows that may be open.
    share: Share,
    /// Flows that are open.
    flows: AtomicUsize,
    /// Handshakes per second.
    handshakes: Rate,
    /// Handshakes that may be computed at once.
    cpus: Semaphore,
    /// Clients that have not proved who they are.
    unproven: Arc<UnprovenClients>,
    /// What was refused, or made to wait.
    pub(super) refused: RefusalCounters,
}

impl Quota {
    pub(super) fn new(of_all: &Quotas) -> Self {
        let Quotas { limits, capacity, .. } = of_all;
        Self {
            buffers: Account::new(of_all.buffers.clone(), limits.buffers),
            share: Share::new(limits.flows, *capacity),
            flows: AtomicUsize::default(),
            handshakes: Rate::new(limits.handshakes_per_second),
            cpus: Semaphore::new(of_all.cpus),
            unproven: UnprovenClients::new(MAX_UNPROVEN.min(capacity / 8)),
            refused: RefusalCounters::default(),
        }
    }

    /// Waits until a handshake may begin, if that is within `limit`.
    ///
    /// # Errors
    /// If it is not.
    pub async fn begin_handshake(&self, limit: Duration) -> Result<(), QuotaExceeded> {
        let delay = self.handshakes.take(limit).ok_or_else(|| {
            self.refused.handshakes.increment();
            QuotaExceeded::Handshakes(self.handshakes.per_second())
        })?;
        if !delay.is_zero() {
            self.refused.handshakes_delayed.increment();
            // A client that goes away meanwhile keeps nobody else waiting.
            let reserved = Reserved(&self.handshakes);
            tokio::time::sleep(delay).await;
            std::mem::forget(reserved);
        }
        Ok(())
    }

    /// Takes a slot for a client that has not proved who it is; never waits for one.
    #[must_use]
    pub fn unproven(&self, client: IpAddr) -> UnprovenSlot {
        self.unproven.enter(client)
    }

    /// Runs `work`, in which a client proves who it is, for as long as the client keeps its slot.
    ///
    /// # Errors
    /// If another client gets the slot.
    pub async fn prove<T>(
        &self,
        slot: &mut UnprovenSlot,
        work: impl Future<Output = T>,
    ) -> Result<T, QuotaExceeded> {
        slot.hold(work).await.ok_or_else(|| {
            self.refused.unproven_evicted.increment();
            QuotaExceeded::Unproven
        })
    }

    /// Waits for a core that may compute one step of a handshake. However many handshakes a workload has, some core is left
    /// to others.
    pub async fn cpu(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.cpus.acquire().await.ok()
    }

    /// True if a session that may lease buffers is left.
    pub(super) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.buffers) > 1
    }

    pub(super) fn refusals(&self) -> RefusalCounts {
        RefusalCounts {
            flows: self.refused.flows.get(),
            handshakes: self.refused.handshakes.get(),
            handshakes_delayed: self.refused.handshakes_delayed.get(),
            unproven_evicted: self.refused.unproven_evicted.get(),
            buffers_capped: self.buffers.capped(),
        }
    }
}

/// The right to have a connection open, for as long as this lives.
#[derive(Debug)]
pub struct Permit {
    quota: Arc<Quota>,
    /// It is one of the flows that the workload may have.
    is_flow: bool,
    open: Arc<AtomicUsize>,
}

impl Permit {
    /// For a connection that is about to be counted in `open`.
    pub(super) fn new(quota: Arc<Quota>, open: Arc<AtomicUsize>) -> Self {
        Self { quota, is_flow: false, open }
    }

    /// The quota that the connection is part of.
    #[must_use]
    pub fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }

    /// Counts the connection as one of the workload's flows.
    ///
    /// # Errors
    /// If the workload has as many as it may.
    pub fn count_flow(&mut self) -> Result<(), QuotaExceeded> {
        // Counted first, so that two at once cannot both be the last.
        let own = self.count();
        let checked = self.quota.share.check(own, self.open.load(Relaxed));
        checked.inspect_err(|_| self.quota.refused.flows.increment())
    }

    /// The same, of a flow that was open in another process.
    ///
    /// # Errors
    /// If the workload has as many as are written.
    pub(super) fn count_taken(&mut self) -> Result<(), QuotaExceeded> {
        let own = self.count();
        let checked = self.quota.share.check_taken(own);
        checked.inspect_err(|_| self.quota.refused.flows.increment())
    }

    fn count(&mut self) -> usize {
        self.is_flow = true;
        self.quota.flows.fetch_add(1, Relaxed) + 1
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_flow {
            self.quota.flows.fetch_sub(1, Relaxed);
        }
        self.open.fetch_sub(1, Relaxed);
    }
}

/// A handshake that has not begun.
struct Reserved<'r>(&'r Rate);

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}
