//! Authorities in the form in which chains are verified.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};

use super::Validity;
use crate::x509::Fingerprint;

/// Authorities that a chain may end at, known by their content. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Anchors {
    anchors: Arc<[TrustAnchor<'static>]>,
    /// The last second of each.
    ends: Arc<[UnixTime]>,
    fingerprint: Fingerprint,
}

impl Anchors {
    /// # Errors
    /// If one of the certificates cannot be an authority; then none is.
    pub fn new(authorities: &[CertificateDer<'_>]) -> Result<Self, webpki::Error> {
        let anchor =
            |authority| webpki::anchor_from_trusted_cert(authority).map(|anchor| anchor.to_owned());
        let end = |authority| Validity::of(authority).map(Validity::end);
        Ok(Self {
            anchors: authorities.iter().map(anchor).collect::<Result<_, _>>()?,
            ends: authorities
                .iter()
                .map(end)
                .collect::<Option<_>>()
                .ok_or(webpki::Error::BadDer)?,
            fingerprint: Fingerprint::of_sequence(authorities.iter().map(AsRef::as_ref)),
        })
    }

    /// No authority: no chain ends anywhere.
    #[must_use]
    pub fn none() -> Self {
        Self {
            anchors: Arc::default(),
            ends: Arc::default(),
            fingerprint: Fingerprint::of_sequence([]),
        }
    }

    #[must_use]
    pub fn as_slice(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// When one of these authorities is good, as far as that is for verifiers to ask: until its certificate expires, the
    /// last one if it has several. There is no beginning: an authority that is to take over is trusted before its time.
    #[must_use]
    pub fn validity_of(&self, anchor: &TrustAnchor<'_>) -> Validity {
        let all = self.anchors.iter().zip(self.ends.iter());
        let end = all.filter(|(one, _)| *one == anchor).map(|(_, end)| *end).max();
        end.map_or(Validity::NEVER, Validity::until)
    }

    /// SHA-256 of the certificates, in order.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}
