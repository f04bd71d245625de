//! The certificates that chains must end at.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use super::{Anchors, reason};
use crate::spiffe::TrustDomain;

/// The authorities of one trust domain (SPIFFE Trust Domain and Bundle, section 3).
#[derive(Debug)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    authorities: Vec<CertificateDer<'static>>,
    anchors: Anchors,
    loaded: SystemTime,
}

/// Why a bundle cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("the trust bundle of {0} has no certificate")]
    Empty(TrustDomain),
    #[error("a certificate in the trust bundle of {domain} cannot be used: {}", reason(.error))]
    Unusable { domain: TrustDomain, error: webpki::Error },
}

impl TrustBundle {
    /// # Errors
    /// If there is no certificate, or if one of them cannot be an authority.
    pub fn new(
        trust_domain: TrustDomain,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        if authorities.is_empty() {
            return Err(BundleError::Empty(trust_domain));
        }
        let anchors = Anchors::new(&authorities)
            .map_err(|error| BundleError::Unusable { domain: trust_domain.clone(), error })?;
        Ok(Self { trust_domain, authorities, anchors, loaded: SystemTime::now() })
    }

    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The same bundle, with an earlier time of arrival.
    #[must_use]
    pub fn loaded_at(self, loaded: SystemTime) -> Self {
        Self { loaded, ..self }
    }

    /// When the bundle reached the agent.
    #[must_use]
    pub fn loaded(&self) -> SystemTime {
        self.loaded
    }

    #[must_use]
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    #[must_use]
    pub fn anchors(&self) -> &Anchors {
        &self.anchors
    }
}
