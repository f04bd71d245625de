//! The metrics of quotas: what they refuse or slow down, and what they lend.

use std::sync::Arc;

use super::quota::Quota;
use super::quotas::{Quotas, Workloads};
use super::refusals::COUNTERS;
use crate::metrics::{OfWorkloads, Registry, RegistryError, Scalar};

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
