//! The identity stage: which certificate a workload shows, and whom its peers' certificates must chain to.
//!
//! A source publishes whole [`Snapshot`]s; a flow takes the current one and keeps it. Nothing on the data path
//! waits for a source.

mod embedded_ca;
mod renewal;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use sheath_common::workload::WorkloadId;

use crate::spiffe::{SpiffeId, TrustBundle};

pub use embedded_ca::{CaError, EmbeddedCa};
pub use renewal::keep_renewed;

/// A workload's X.509-SVID with its key.
#[derive(Debug)]
pub struct Svid {
    pub id: SpiffeId,
    pub key: Arc<CertifiedKey>,
    /// Serial number, in hexadecimal.
    pub serial: String,
    /// When it was made; `not_before` lies a little earlier.
    pub issued: SystemTime,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// Everything a workload needs to prove itself and to judge its peers, published at once.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub svid: Arc<Svid>,
    pub bundle: Arc<TrustBundle>,
}

/// The current snapshot of each workload, as `T`: what the identity stage hands to the next one.
#[derive(Debug)]
pub struct Identities<T> {
    current: HashMap<WorkloadId, ArcSwap<T>>,
}

impl<T> Identities<T> {
    pub fn new(initial: impl IntoIterator<Item = (WorkloadId, T)>) -> Self {
        let current =
            initial.into_iter().map(|(id, value)| (id, ArcSwap::from_pointee(value))).collect();
        Self { current }
    }

    /// What is current now. `None` if the workload is unknown.
    #[must_use]
    pub fn current(&self, workload: WorkloadId) -> Option<Arc<T>> {
        self.current.get(&workload).map(ArcSwap::load_full)
    }

    /// Replaces what is current. Flows that have taken the old value keep it.
    pub fn publish(&self, workload: WorkloadId, value: T) {
        if let Some(slot) = self.current.get(&workload) {
            slot.store(Arc::new(value));
        }
    }
}
