//! The certificates a trust domain's SVIDs must chain to.

use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::TrustDomain;

/// The trust anchors of one trust domain.
#[derive(Debug)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    anchors: Vec<TrustAnchor<'static>>,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("the trust bundle of {0} has no certificate")]
    Empty(TrustDomain),
    #[error("a certificate in the trust bundle of {domain} cannot be used: {reason}")]
    Unusable { domain: TrustDomain, reason: String },
}

impl TrustBundle {
    pub fn new(
        trust_domain: TrustDomain,
        certificates: &[CertificateDer<'_>],
    ) -> Result<Self, BundleError> {
        if certificates.is_empty() {
            return Err(BundleError::Empty(trust_domain));
        }
        let anchors = certificates
            .iter()
            .map(|certificate| {
                webpki::anchor_from_trusted_cert(certificate)
                    .map(|anchor| anchor.to_owned())
                    .map_err(|error| BundleError::Unusable {
                        domain: trust_domain.clone(),
                        reason: error.to_string(),
                    })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { trust_domain, anchors })
    }

    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    #[must_use]
    pub fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}
