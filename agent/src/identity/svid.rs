//! SVIDs and snapshots.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::CertifiedKey;

use crate::flow::PeerId;
use crate::spiffe::{LeafError, SpiffeId, spiffe_id_of};
use crate::trust::Trust;
use crate::x509::{CertificateFacts, Fingerprint, KeyPair};

/// A workload's certificate with its key: an X.509-SVID, or a certificate that peers know by a pin.
#[derive(Debug)]
pub struct Svid {
    /// `None` if the certificate carries no SPIFFE ID.
    pub id: Option<SpiffeId>,
    pub key: Arc<CertifiedKey>,
    pub facts: CertificateFacts,
    /// When it was issued or received; `not_before` may be a little earlier.
    pub issued: SystemTime,
}

/// An SVID and the trust that comes with it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub svid: Arc<Svid>,
    /// The bundles that the source brings.
    pub trust: Trust,
    /// When the source plans the next renewal, if it knows.
    pub next_renewal: Option<SystemTime>,
}

/// Why a certificate cannot be used as a workload's SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitCertificate {
    #[error("the certificate is of {found}, not of {expected}")]
    OtherId { found: SpiffeId, expected: SpiffeId },
    #[error("the certificate is no X.509-SVID of {expected}: {error}")]
    NoSvid { expected: SpiffeId, error: LeafError },
    #[error("the certificate has expired")]
    Expired,
    #[error("the certificate is not valid yet")]
    NotYetValid,
}

impl Svid {
    /// Checks a certificate from outside. If `expected` is given, it must be an X.509-SVID with this ID. It must be valid
    /// now, unless it is the `known` one: if a certificate expires while it is in use, its bundle can still be updated.
    ///
    /// # Errors
    /// If it has another ID than `expected`, or is not valid now.
    pub fn new(
        pair: KeyPair,
        expected: Option<&SpiffeId>,
        known: Option<Fingerprint>,
    ) -> Result<Self, UnfitCertificate> {
        let found = pair.key.cert.first().map(spiffe_id_of);
        let id = match (found, expected) {
            (Some(Ok(found)), Some(expected)) if found != *expected => {
                return Err(UnfitCertificate::OtherId { found, expected: expected.clone() });
            }
            (Some(Ok(found)), _) => Some(found),
            (Some(Err(error)), Some(expected)) => {
                return Err(UnfitCertificate::NoSvid { expected: expected.clone(), error });
            }
            (_, _) => None,
        };
        let now = SystemTime::now();
        if pair.facts.not_after <= now && known != Some(pair.facts.fingerprint) {
            return Err(UnfitCertificate::Expired);
        }
        if now < pair.facts.not_before {
            return Err(UnfitCertificate::NotYetValid);
        }
        Ok(Self { id, key: pair.key, facts: pair.facts, issued: now })
    }

    /// How peers identify the workload.
    #[must_use]
    pub fn name(&self) -> PeerId {
        match &self.id {
            Some(id) => PeerId::Spiffe(id.clone()),
            None => PeerId::Pinned(self.facts.fingerprint),
        }
    }

    #[must_use]
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.facts.not_after <= now
    }

    /// True if peers would refuse it by our clock, which was ahead when it was issued, or is behind now.
    #[must_use]
    pub fn is_not_valid_yet(&self, now: SystemTime) -> bool {
        now < self.facts.not_before
    }
}
