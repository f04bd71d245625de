//! What is counted of quotas: what they refuse or slow down, and what they lend.

use std::ops::AddAssign;
use std::sync::Arc;

use super::quota::Quota;
use super::quotas::{Quotas, Workloads};
use crate::metrics::{Counter, OfWorkloads, Registry, RegistryError, Scalar};

/// What one quota refuses or slows down.
#[derive(Debug, Default)]
pub(super) struct Refused {
    pub flows: Counter,
    pub handshakes: Counter,
    pub handshakes_delayed: Counter,
    pub unproven_evicted: Counter,
}

/// The same as read at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refusals {
    flows: u64,
    handshakes: u64,
    handshakes_delayed: u64,
    unproven_evicted: u64,
    buffers_capped: u64,
}

type Count = fn(&Refusals) -> u64;

/// Names, help texts, and what is counted.
const COUNTERS: [(&str, &str, Count); 5] = [
    ("flows_refused", "Connections refused for a limit on flows.", |refused| refused.flows),
    (
        "handshakes_refused",
        "Handshakes refused because they would have waited too long for the limit on their rate.",
        |refused| refused.handshakes,
    ),
    ("handshakes_delayed", "Handshakes that waited for the limit on their rate.", |refused| {
        refused.handshakes_delayed
    }),
    (
        "unproven_evicted",
        "Clients reset before they proved who they are, because others needed their slots.",
        |refused| refused.unproven_evicted,
    ),
    (
        "buffers_capped",
        "Buffers that were smaller than wanted, for the limit on buffered bytes.",
        |refused| refused.buffers_capped,
    ),
];

impl AddAssign for Refusals {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.handshakes += other.handshakes;
        self.handshakes_delayed += other.handshakes_delayed;
        self.unproven_evicted += other.unproven_evicted;
        self.buffers_capped += other.buffers_capped;
    }
}

impl Quota {
    pub(super) fn refusals(&self) -> Refusals {
        Refusals {
            flows: self.refused.flows.get(),
            handshakes: self.refused.handshakes.get(),
            handshakes_delayed: self.refused.handshakes_delayed.get(),
            unproven_evicted: self.refused.unproven_evicted.get(),
            buffers_capped: self.buffers.capped(),
        }
    }
}

impl Quotas {
    /// Registers what is counted for each workload.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) -> Result<(), RegistryError> {
        for (name, help, count) in COUNTERS {
            let quotas = self.clone();
            registry.register_by_workload(Scalar::Counter, name, help, move || {
                let workloads = quotas.workloads();
                let gone = count(&workloads.gone);
                OfWorkloads { gone, ..workloads.each(|quota| count(&quota.refusals())) }
            })?;
        }
        let quotas = self.clone();
        registry.register_by_workload(
            Scalar::Gauge,
            "buffered_bytes",
            "Bytes of the buffers that flows hold.",
            move || quotas.workloads().each(|quota| quota.buffers.leased() as u64),
        )
    }
}

impl Workloads {
    fn each(&self, count: impl Fn(&Quota) -> u64) -> OfWorkloads {
        let living = self.living.iter().map(|(workload, quota)| (*workload, count(quota)));
        OfWorkloads { living: living.collect(), gone: 0 }
    }
}
