//! What the node should be like: workloads, peers and trust, as plain values, whoever has written them down.
//!
//! The configuration file is one producer of them; a [discovery](crate::discovery) is another. Every value says where it was
//! written: its [`Origin`].

mod destination;
mod endpoints;
mod merge;
mod origin;
mod peer;
mod place;
mod published_port;
mod tls;
mod trust;
mod workload;

use std::sync::Arc;

pub use destination::{Destination, DestinationError};
pub use endpoints::Endpoints;
pub use merge::Conflict;
pub use origin::{FileKey, Origin};
pub use peer::{ExternalPeer, Family, Peer};
pub use place::Place;
pub use published_port::PublishedPort;
pub use tls::{CertificateChoice, InboundTls, StandardTls, TlsContext, TrustChoice};
pub use trust::{CertificateSource, CrlFiles, PinSource, TrustDomainEntry};
pub use workload::{CgroupSelector, Existing, Inbound, NamespaceKind, Outbound, Workload};

/// All that one producer knows, or all producers together. Values are shared: a copy costs little.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// In order: of several workloads that select a cgroup, the first has it.
    pub workloads: Vec<Arc<Workload>>,
    pub peers: Vec<Arc<Peer>>,
    pub external_peers: Vec<Arc<ExternalPeer>>,
    pub trust_domains: Vec<Arc<TrustDomainEntry>>,
    pub tls_contexts: Vec<Arc<TlsContext>>,
    /// Where the names are that external peers have.
    pub endpoints: Vec<Arc<Endpoints>>,
}

impl Desired {
    /// Says in the log what is wanted of each workload, defaults included. None of it is secret: of keys there are
    /// only paths.
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
        tracing::debug!(desired = ?self, "all that is wanted");
    }
}
