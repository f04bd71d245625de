//! The identity that a peer has proved.

use std::cell::OnceCell;
use std::fmt;

use rustls_pki_types::{CertificateDer, DnsName, ServerName};
use webpki::EndEntityCert;

use super::{Pin, Validity};
use crate::spiffe::SpiffeId;
use crate::x509::{CertificateFacts, Fingerprint};

/// Who a peer is, as far as one method proves it. Only names that were proved can be read from it.
#[derive(Debug)]
pub struct Identity<'c> {
    leaf: &'c CertificateDer<'c>,
    proved: Proved<'c>,
    /// Parsed on first use: most peers are known by their names. `None` if the certificate cannot be parsed.
    facts: OnceCell<Option<CertificateFacts>>,
    /// When all certificates are valid that prove it, from the peer's own to the authority's.
    pub validity: Validity,
    /// When the CRLs can tell that none of them is revoked.
    pub unrevoked: Validity,
}

/// What was proved, besides that the peer has the certificate's key.
enum Proved<'c> {
    SpiffeId(SpiffeId),
    /// Every name of the certificate.
    Names(Box<EndEntityCert<'c>>),
    Nothing,
}

impl fmt::Debug for Proved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpiffeId(id) => f.debug_tuple("SpiffeId").field(id).finish(),
            Self::Names(certificate) => f
                .debug_list()
                .entries(certificate.valid_uri_names())
                .entries(certificate.valid_dns_names())
                .finish(),
            Self::Nothing => f.write_str("Nothing"),
        }
    }
}

impl<'c> Identity<'c> {
    pub(super) fn svid(
        leaf: &'c CertificateDer<'c>,
        id: SpiffeId,
        validity: Validity,
        unrevoked: Validity,
    ) -> Self {
        let (proved, facts) = (Proved::SpiffeId(id), OnceCell::new());
        Self { leaf, proved, facts, validity, unrevoked }
    }

    pub(super) fn named(
        leaf: &'c CertificateDer<'c>,
        certificate: EndEntityCert<'c>,
        validity: Validity,
        unrevoked: Validity,
    ) -> Self {
        let (proved, facts) = (Proved::Names(Box::new(certificate)), OnceCell::new());
        Self { leaf, proved, facts, validity, unrevoked }
    }

    pub(super) fn key(
        leaf: &'c CertificateDer<'c>,
        facts: CertificateFacts,
        validity: Validity,
    ) -> Self {
        let (proved, facts) = (Proved::Nothing, OnceCell::from(Some(facts)));
        Self { leaf, proved, facts, validity, unrevoked: Validity::ALWAYS }
    }

    /// The SPIFFE ID, if the bundle of its trust domain vouches for it.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        match &self.proved {
            Proved::SpiffeId(id) => Some(id),
            Proved::Names(_) | Proved::Nothing => None,
        }
    }

    /// The first URI name of the certificate that is wanted, if an authority vouches for its names.
    pub fn uri<T>(&self, wanted: impl FnMut(&str) -> Option<T>) -> Option<T> {
        match &self.proved {
            Proved::Names(certificate) => certificate.valid_uri_names().find_map(wanted),
            Proved::SpiffeId(_) | Proved::Nothing => None,
        }
    }

    /// Whether the certificate is valid for a DNS name, by itself or by a wildcard (RFC 9525, 6.3), and an authority vouches
    /// for its names.
    #[must_use]
    pub fn has_dns_name(&self, name: &str) -> bool {
        let Proved::Names(certificate) = &self.proved else {
            return false;
        };
        DnsName::try_from(name).is_ok_and(|name| {
            certificate.verify_is_valid_for_subject_name(&ServerName::DnsName(name)).is_ok()
        })
    }

    /// Whether a pin is of the peer's certificate, or of its key. Both are proved by any method.
    #[must_use]
    pub fn matches(&self, pin: &Pin) -> bool {
        let facts = self.facts.get_or_init(|| CertificateFacts::of(self.leaf).ok());
        facts.as_ref().is_some_and(|facts| pin.matches(facts))
    }

    /// SHA-256 of the peer's certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.leaf)
    }
}
