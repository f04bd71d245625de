//! Authorities in the form in which chains are verified.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};

use super::Validity;
use super::path::Link;
use crate::x509::Fingerprint;

/// Authorities that a chain may end at, known by their content. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Anchors {
    /// As webpki takes them, in the order of `authorities`.
    anchors: Arc<[TrustAnchor<'static>]>,
    authorities: Arc<[Authority]>,
    fingerprint: Fingerprint,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Authority {
    pub certificate: CertificateDer<'static>,
    /// Its last second.
    pub end: UnixTime,
    /// Name and key, and name constraints if webpki can read all of them.
    pub anchor: TrustAnchor<'static>,
}

impl Anchors {
    /// # Errors
    /// If one of the certificates cannot be an authority; then none is.
    pub fn new(authorities: &[CertificateDer<'_>]) -> Result<Self, webpki::Error> {
        let fingerprint = Fingerprint::of_sequence(authorities.iter().map(AsRef::as_ref));
        let authorities: Arc<[_]> =
            authorities.iter().map(Authority::new).collect::<Result<_, _>>()?;
        let anchors = authorities.iter().map(|authority| authority.anchor.clone()).collect();
        Ok(Self { anchors, authorities, fingerprint })
    }

    /// No authority: no chain ends anywhere.
    #[must_use]
    pub fn none() -> Self {
        Self {
            anchors: Arc::default(),
            authorities: Arc::new([]),
            fingerprint: Fingerprint::of_sequence([]),
        }
    }

    #[must_use]
    pub fn as_slice(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    pub(super) fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    /// The authorities behind one of webpki's anchors: several certificates may have the same name and key.
    pub(super) fn like(&self, anchor: &TrustAnchor<'_>) -> impl Iterator<Item = &Authority> {
        self.authorities.iter().filter(move |authority| authority.anchor == *anchor)
    }

    /// SHA-256 of the certificates, in order.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl Authority {
    fn new(certificate: &CertificateDer<'_>) -> Result<Self, webpki::Error> {
        let mut anchor = webpki::anchor_from_trusted_cert(certificate)?.to_owned();
        let link = Link::read(certificate).map_err(|_| webpki::Error::BadDer)?;
        if link.is_beyond_webpki() {
            anchor.name_constraints = None;
        }
        let end = Validity::of(certificate).map(Validity::end).ok_or(webpki::Error::BadDer)?;
        Ok(Self { certificate: certificate.clone().into_owned(), end, anchor })
    }
}
