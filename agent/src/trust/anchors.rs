//! Authorities in the form in which chains are verified.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::x509::Fingerprint;

/// Authorities that a chain may end at, known by their content. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Anchors {
    anchors: Arc<[TrustAnchor<'static>]>,
    fingerprint: Fingerprint,
}

impl Anchors {
    /// # Errors
    /// If one of the certificates cannot be an authority; then none is.
    pub fn new(authorities: &[CertificateDer<'_>]) -> Result<Self, webpki::Error> {
        let anchor =
            |authority| webpki::anchor_from_trusted_cert(authority).map(|anchor| anchor.to_owned());
        Ok(Self {
            anchors: authorities.iter().map(anchor).collect::<Result<_, _>>()?,
            fingerprint: Fingerprint::of_sequence(authorities.iter().map(AsRef::as_ref)),
        })
    }

    /// No authority: no chain ends anywhere.
    #[must_use]
    pub fn none() -> Self {
        Self { anchors: Arc::default(), fingerprint: Fingerprint::of_sequence([]) }
    }

    #[must_use]
    pub fn as_slice(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// SHA-256 of the certificates, in order.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}
