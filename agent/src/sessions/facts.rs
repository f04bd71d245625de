//! What is known of a live session: what it rests on.

use std::net::{IpAddr, SocketAddr};

use sheath_common::workload::WorkloadId;
use tokio_util::sync::CancellationToken;

use crate::peer::{PeerCertificates, Target, UidHash};
use crate::x509::Fingerprint;

/// A session as policy sees it.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    pub workload: WorkloadId,
    pub basis: Basis,
    /// Cancelled when the workload has left the namespace that the session is used from.
    pub stay: CancellationToken,
}

/// What a session rests on.
#[derive(Clone, Debug)]
pub enum Basis {
    /// The server is the one that is expected there.
    Outbound { target: Target, destination: SocketAddr, certificates: PeerCertificates },
    /// The client is one that may call, as an agent or without one.
    Inbound { as_agent: bool, certificates: PeerCertificates },
    /// An endpoint of a Service that nobody protects, called by a workload that prefers protection; and the pod that is there.
    Plain { destination: SocketAddr, pod: Option<UidHash> },
    /// The port is permissive: it lets through what is not for the agent.
    Permissive,
}

/// Two sessions with equal keys get the same judgement, unless policy or trust change in between.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum JudgementKey {
    Outbound {
        workload: WorkloadId,
        destination: SocketAddr,
        external: Option<String>,
        pod: Option<UidHash>,
        chain: Fingerprint,
    },
    Inbound {
        workload: WorkloadId,
        as_agent: bool,
        chain: Fingerprint,
    },
    Plain {
        workload: WorkloadId,
        destination: SocketAddr,
        pod: Option<UidHash>,
    },
    Permissive {
        workload: WorkloadId,
    },
}

impl SessionFacts {
    pub(super) fn judgement_key(&self) -> JudgementKey {
        let workload = self.workload;
        match &self.basis {
            Basis::Outbound { target, destination, certificates } => JudgementKey::Outbound {
                workload,
                destination: *destination,
                external: target.external_name().map(str::to_owned),
                pod: target.pod(),
                chain: certificates.fingerprint(),
            },
            Basis::Inbound { as_agent, certificates } => JudgementKey::Inbound {
                workload,
                as_agent: *as_agent,
                chain: certificates.fingerprint(),
            },
            Basis::Plain { destination, pod } => {
                JudgementKey::Plain { workload, destination: *destination, pod: *pod }
            }
            Basis::Permissive => JudgementKey::Permissive { workload },
        }
    }

    /// The address of whom the session goes to, where the directory may tell who that is.
    pub(super) fn goes_to(&self) -> Option<IpAddr> {
        match &self.basis {
            Basis::Outbound { destination, .. } | Basis::Plain { destination, .. } => {
                Some(destination.ip().to_canonical())
            }
            Basis::Inbound { .. } | Basis::Permissive => None,
        }
    }

    pub(super) fn certificates(&self) -> Option<&PeerCertificates> {
        match &self.basis {
            Basis::Outbound { certificates, .. } | Basis::Inbound { certificates, .. } => {
                Some(certificates)
            }
            Basis::Plain { .. } | Basis::Permissive => None,
        }
    }

    pub(super) fn certificates_mut(&mut self) -> Option<&mut PeerCertificates> {
        match &mut self.basis {
            Basis::Outbound { certificates, .. } | Basis::Inbound { certificates, .. } => {
                Some(certificates)
            }
            Basis::Plain { .. } | Basis::Permissive => None,
        }
    }
}
