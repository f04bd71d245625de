//! Counters of the agent's own; those of the BPF programs are in the kernel.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use sheath_common::workload::WorkloadId;

#[derive(Debug, Default)]
pub struct AgentCounters {
    pub flows_opened: AtomicU64,
    pub flows_closed: AtomicU64,
    pub handshakes_failed: AtomicU64,
    /// Flows that have taken up an open session.
    pub sessions_reused: AtomicU64,
    /// Sessions that were kept for another flow, and turned out to be gone.
    pub sessions_found_dead: AtomicU64,
    pub inbound_plaintext: AtomicU64,
    pub inbound_passthrough: AtomicU64,
    /// Accepted connections that no workload had opened.
    pub strangers: AtomicU64,
    /// Accepted connections for which there was no descriptor.
    pub connections_shed: AtomicU64,
    live: Mutex<HashMap<WorkloadId, u64>>,
}

impl AgentCounters {
    /// Counts a flow as open for as long as the result lives.
    #[must_use]
    pub fn open(self: &Arc<Self>, workload: WorkloadId) -> OpenFlow {
        self.flows_opened.fetch_add(1, Relaxed);
        *self.live().entry(workload).or_default() += 1;
        OpenFlow { counters: self.clone(), workload }
    }

    /// Flows that are open now.
    #[must_use]
    pub fn flows(&self) -> u64 {
        let closed = self.flows_closed.load(Relaxed);
        self.flows_opened.load(Relaxed).saturating_sub(closed)
    }

    /// Flows of one workload that are open now.
    #[must_use]
    pub fn flows_of(&self, workload: WorkloadId) -> u64 {
        self.live().get(&workload).copied().unwrap_or_default()
    }

    /// Names and values.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("flows_opened", self.flows_opened.load(Relaxed)),
            ("flows_closed", self.flows_closed.load(Relaxed)),
            ("handshakes_failed", self.handshakes_failed.load(Relaxed)),
            ("sessions_reused", self.sessions_reused.load(Relaxed)),
            ("sessions_found_dead", self.sessions_found_dead.load(Relaxed)),
            ("inbound_plaintext", self.inbound_plaintext.load(Relaxed)),
            ("inbound_passthrough", self.inbound_passthrough.load(Relaxed)),
            ("strangers", self.strangers.load(Relaxed)),
            ("connections_shed", self.connections_shed.load(Relaxed)),
        ]
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<WorkloadId, u64>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A flow that is counted as open.
#[derive(Debug)]
pub struct OpenFlow {
    counters: Arc<AgentCounters>,
    workload: WorkloadId,
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        if let Some(flows) = self.counters.live().get_mut(&self.workload) {
            *flows -= 1;
        }
        self.counters.flows_closed.fetch_add(1, Relaxed);
    }
}
