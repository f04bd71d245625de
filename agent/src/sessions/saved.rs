//! What a session rests on, for another process, which judges it by its own policy and trust.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Basis;
use crate::credentials::Credentials;
use crate::flow::Role;
use crate::peer::{PeerCertificates, SavedCertificates, SavedTarget, UidHash};
use crate::policy::Policy;

/// A [`Basis`] for another process. The order of the variants is part of the format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedBasis {
    Outbound {
        target: SavedTarget,
        destination: SocketAddr,
        certificates: SavedCertificates,
    },
    Inbound {
        as_agent: bool,
        certificates: SavedCertificates,
    },
    /// And the pod that is there, by its uid's hash.
    Plain {
        destination: SocketAddr,
        pod: Option<u64>,
    },
    Permissive,
}

/// Why a [`SavedBasis`] cannot be rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRebuilt {
    /// Nothing could be judged.
    #[error("the workload has no identity here")]
    NoIdentity,
    #[error("a peer of which nothing is expected")]
    NobodyExpected,
}

impl SavedBasis {
    /// The peer has proved who it is.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        match self {
            Self::Outbound { .. } | Self::Inbound { .. } => true,
            Self::Plain { .. } | Self::Permissive => false,
        }
    }

    /// What the session rests on here. Nothing has been judged yet.
    ///
    /// # Errors
    /// If that cannot be said.
    pub fn rebuild(
        self,
        policy: &Policy,
        credentials: Option<&Credentials>,
    ) -> Result<Basis, NotRebuilt> {
        let certificates = |saved, role| -> Result<_, NotRebuilt> {
            let known = credentials.ok_or(NotRebuilt::NoIdentity)?.tls.trust().verified();
            Ok(PeerCertificates::restore(saved, role, known))
        };
        Ok(match self {
            Self::Outbound { target, destination, certificates: shown } => Basis::Outbound {
                target: policy.target_again(&target).ok_or(NotRebuilt::NobodyExpected)?,
                destination,
                certificates: certificates(shown, Role::Server)?,
            },
            Self::Inbound { as_agent, certificates: shown } => {
                Basis::Inbound { as_agent, certificates: certificates(shown, Role::Client)? }
            }
            Self::Plain { destination, pod } => Basis::Plain { destination, pod: pod.map(UidHash) },
            Self::Permissive => Basis::Permissive,
        })
    }
}

impl Basis {
    #[must_use]
    pub fn save(&self) -> SavedBasis {
        match self {
            Self::Outbound { target, destination, certificates } => SavedBasis::Outbound {
                target: target.save(),
                destination: *destination,
                certificates: certificates.save(),
            },
            Self::Inbound { as_agent, certificates } => {
                SavedBasis::Inbound { as_agent: *as_agent, certificates: certificates.save() }
            }
            Self::Plain { destination, pod } => {
                SavedBasis::Plain { destination: *destination, pod: pod.map(|pod| pod.0) }
            }
            Self::Permissive => SavedBasis::Permissive,
        }
    }
}
