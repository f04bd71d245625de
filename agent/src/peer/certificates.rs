//! The certificates that a peer has shown, kept so that it can be judged again.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};

use super::{Judge, Judged, Refusal};
use crate::flow::Role;
use crate::trust::{AuthenticationError, Chain, PeerChain, Validity, VerifiedChains};
use crate::x509::Fingerprint;

/// The certificates that a peer has shown in its handshake, and how long they are good.
#[derive(Clone, Debug)]
pub struct PeerCertificates {
    chain: Chain,
    fingerprint: Fingerprint,
    role: Role,
    /// When it was judged first.
    shown: UnixTime,
    /// When all certificates of the chain are valid: the peer's own, and the authority's.
    validity: Validity,
    /// When the CRLs cover all of them.
    unrevoked: Validity,
}

/// [`PeerCertificates`] for another process, which judges them by its own trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCertificates {
    /// In DER, the peer's own first.
    chain: Vec<Vec<u8>>,
    /// When they were judged first, in seconds since 1970.
    shown: u64,
}

impl PeerCertificates {
    /// Of a peer that has just been judged. The chain is in memory once for all that are `known`.
    #[must_use]
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        role: Role,
        judged: &Judged,
        known: &VerifiedChains,
    ) -> Self {
        let (fingerprint, chain) = known.share(chain);
        let Judged { validity, unrevoked, .. } = *judged;
        Self { fingerprint, chain, role, shown: UnixTime::now(), validity, unrevoked }
    }

    #[must_use]
    pub fn save(&self) -> SavedCertificates {
        let chain = self.chain.iter().map(|certificate| certificate.to_vec()).collect();
        SavedCertificates { chain, shown: self.shown.as_secs() }
    }

    /// Of a peer with this role that another process has judged. They are good for no time until they
    /// [are judged](Self::are_judged) here. The chain is in memory once for all that are `known`.
    #[must_use]
    pub fn restore(saved: SavedCertificates, role: Role, known: &VerifiedChains) -> Self {
        let chain = saved.chain.into_iter().map(CertificateDer::from).collect();
        let (fingerprint, chain) = known.share(chain);
        // Nobody has seen them in the future.
        let shown = UnixTime::since_unix_epoch(Duration::from_secs(saved.shown));
        let shown = shown.min(UnixTime::now());
        let (validity, unrevoked) = (Validity::NEVER, Validity::NEVER);
        Self { fingerprint, chain, role, shown, validity, unrevoked }
    }

    /// Takes note of the judgement on them.
    pub fn are_judged(&mut self, judged: &Judged) {
        (self.validity, self.unrevoked) = (judged.validity, judged.unrevoked);
    }

    /// SHA-256 of the whole chain.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Judges the peer again, by current trust and policy. That its certificate has expired meanwhile does not
    /// count: a session outlives it, unless it is told not to.
    ///
    /// # Errors
    /// If it would not be let through now.
    pub fn judge_again(&self, judge: &Judge) -> Result<Judged, Refusal> {
        let Some((leaf, intermediates)) = self.chain.split_first() else {
            let error = AuthenticationError::NoCertificate;
            return Err(Refusal::at_once(&judge.expectation, error));
        };
        judge.judge(PeerChain { leaf, intermediates }, self.role, self.shown)
    }

    /// When the first of the certificates expires that prove who the peer is, the authority's among them.
    #[must_use]
    pub fn good_until(&self) -> SystemTime {
        end(self.validity)
    }

    /// The last moment at which a new handshake with this chain would still succeed; it bounds the reuse of the session.
    #[must_use]
    pub fn believed_until(&self) -> SystemTime {
        end(self.validity.and(self.unrevoked))
    }
}

/// The last second of a validity; the epoch, which is long over, if no time is that late.
fn end(validity: Validity) -> SystemTime {
    let end = Duration::from_secs(validity.end().as_secs());
    SystemTime::UNIX_EPOCH.checked_add(end).unwrap_or(SystemTime::UNIX_EPOCH)
}
