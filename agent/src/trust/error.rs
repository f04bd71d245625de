//! Why a peer could not be authenticated.

use super::PathError;
use super::authenticator::MOST_INTERMEDIATES;
use crate::flow::PeerId;
use crate::spiffe::{LeafError, SpiffeId, TrustDomain};
use crate::x509::Fingerprint;

/// The rule that a peer's certificates break.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthenticationError {
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error(
        "there is no bundle for the trust domain of {id}: add it to `trustDomains`, or have the identity's source federate with it"
    )]
    ForeignDomain { id: SpiffeId },
    #[error("the certificate of {id} does not chain to the bundle of its trust domain: {error}")]
    Chain { id: SpiffeId, error: PathError },
    #[error("the certificate does not chain to an authority that is trusted here: {0}")]
    Untrusted(PathError),
    /// A pinned certificate, which no authority vouches for.
    #[error("the certificate is not valid now")]
    NotValidNow(Fingerprint),
    #[error("no status of the certificate is known, as the trust domain {0} has no usable CRL")]
    NoCrl(TrustDomain),
    #[error("the peer showed no certificate that proves who it is")]
    NoCertificate,
    #[error(
        "the peer sends {sent} intermediate certificates; at most {MOST_INTERMEDIATES} are accepted"
    )]
    TooLong { sent: usize },
}

impl AuthenticationError {
    /// Who the peer claimed to be, where that is known.
    #[must_use]
    pub fn claimed(&self) -> Option<PeerId> {
        match self {
            Self::ForeignDomain { id } | Self::Chain { id, .. } => Some(id.clone().into()),
            Self::NotValidNow(fingerprint) => Some(PeerId::Pinned(*fingerprint)),
            _ => None,
        }
    }
}
