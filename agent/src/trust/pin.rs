//! Pins: certificates and keys that are trusted themselves, without a CA (compare RFC 7469,
//! 2.4, for the digest of a public key).

use crate::x509::{CertificateFacts, Fingerprint};

/// One certificate, or every certificate with one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    /// SHA-256 of the leaf certificate.
    Certificate(Fingerprint),
    /// SHA-256 of the leaf's SubjectPublicKeyInfo.
    Spki(Fingerprint),
}

impl Pin {
    #[must_use]
    pub fn matches(&self, leaf: &CertificateFacts) -> bool {
        match self {
            Self::Certificate(fingerprint) => *fingerprint == leaf.fingerprint,
            Self::Spki(fingerprint) => *fingerprint == leaf.spki,
        }
    }
}
