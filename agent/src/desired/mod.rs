//! The desired state of the node: workloads, peers and trust, as plain values.
//!
//! The configuration file is one producer of the desired state; a discovery is another. Every value has
//! an [`Origin`]: where it was written.

mod destination;
mod endpoints;
mod merge;
mod peer;
mod place;
mod pods;
mod published_port;
mod tls;
mod trust;
mod workload;

use std::borrow::Cow;
use std::sync::Arc;

use sheath_common::workload::WorkloadId;

pub use crate::origin::{FileKey, Origin};
pub use destination::{Destination, DestinationError};
pub use endpoints::Endpoints;
pub use merge::Conflict;
pub use peer::{ExternalPeer, Family, Peer};
pub use place::Place;
pub use pods::Pods;
pub use published_port::PublishedPort;
pub use sheath_common::pod_uid::PodUid;
pub use tls::{CertificateChoice, InboundTls, StandardTls, TlsContext, TrustChoice};
pub use trust::{CertificateSource, CrlFiles, PinSource, TrustDomainEntry};
pub use workload::{
    Bypass, BypassOrigin, CgroupSelector, Existing, Inbound, NamespaceKind, Outbound, Workload,
};

/// The part of one producer, or all parts merged. Values are shared, so a clone is cheap.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// In order of precedence: if several select a cgroup, the first has it.
    pub workloads: Vec<Arc<Workload>>,
    pub peers: Vec<Arc<Peer>>,
    pub external_peers: Vec<Arc<ExternalPeer>>,
    pub trust_domains: Vec<Arc<TrustDomainEntry>>,
    pub tls_contexts: Vec<Arc<TlsContext>>,
    /// Addresses of the DNS names of external peers.
    pub endpoints: Vec<Arc<Endpoints>>,
    /// `None` as long as nothing is known about pods. Then what was decided about them before stays in force.
    pub pods: Option<Pods>,
}

impl Desired {
    /// What the workloads' numbers are for, in their order.
    pub fn keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.workloads.iter().map(|workload| workload.key())
    }

    /// Gives each workload its number, in their order.
    pub fn number(&mut self, ids: impl IntoIterator<Item = WorkloadId>) {
        for (workload, id) in self.workloads.iter_mut().zip(ids) {
            if workload.id != id {
                Arc::make_mut(workload).id = id;
            }
        }
    }

    /// Logs each workload, defaults included. Nothing here is secret: keys are only named by their paths.
    pub fn log(&self) {
        for workload in &self.workloads {
            tracing::info!(
                name = workload.name,
                cgroup = %workload.cgroup,
                spiffe_id = workload.spiffe_id.as_ref().map(tracing::field::display),
                source = ?workload.source,
                inbound = ?workload.inbound.mode,
                ports = ?workload.inbound.ports,
                outbound = ?workload.outbound.mode,
                existing = ?workload.existing,
                "workload"
            );
        }
        tracing::debug!(desired = ?self, "desired state in full");
    }
}
