//! A finished handshake, and what it has shown.

use std::time::{Duration, SystemTime};

use rustls::CommonState;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::TlsError;
use super::chains::{self, Chain};
use crate::flow::{Negotiated, Role};
use crate::trust::{Judge, Judged, PeerChain, PeerId, Refusal, Validity};
use crate::wire::Session;
use crate::x509::Fingerprint;

/// A session with a peer that is who it should be.
#[derive(Debug)]
pub struct Established {
    pub session: Box<dyn Session>,
    pub proof: Proof,
}

/// What a session's handshake has proved and agreed on.
#[derive(Debug)]
pub struct Proof {
    pub peer: PeerId,
    pub certificates: PeerCertificates,
    /// Both sides have shown certificates.
    pub is_mutual: bool,
    pub negotiated: Negotiated,
}

/// What a finished handshake has agreed on and shown.
#[derive(Debug)]
pub(super) struct Facts {
    chain: Vec<CertificateDer<'static>>,
    negotiated: Negotiated,
}

impl Facts {
    pub fn of(state: &CommonState) -> Self {
        let negotiated = Negotiated {
            version: state.protocol_version().and_then(|v| v.as_str()).map_or("", version),
            suite: state
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or_default(),
            group: state
                .negotiated_key_exchange_group()
                .and_then(|group| group.name().as_str())
                .unwrap_or_default(),
        };
        let chain = state.peer_certificates().unwrap_or_default().to_vec();
        Self { chain, negotiated }
    }
}

/// What the peer has shown, kept so that it can be judged again when trust changes.
#[derive(Clone, Debug)]
pub struct PeerCertificates {
    chain: Chain,
    fingerprint: Fingerprint,
    role: Role,
    /// When it was judged first.
    shown: UnixTime,
    /// When what it was believed by is good: its certificates and the authority's.
    validity: Validity,
    /// When the CRLs say what has to be known of them.
    unrevoked: Validity,
}

impl Established {
    pub(super) fn new(
        session: Box<dyn Session>,
        facts: Facts,
        peer: Option<Judged>,
        role: Role,
        is_mutual: bool,
    ) -> Result<Self, TlsError> {
        let peer = peer.ok_or(TlsError::Anonymous)?;
        let Facts { chain, negotiated } = facts;
        let certificates = PeerCertificates::new(chain, role, &peer);
        let proof = Proof { peer: peer.id, certificates, is_mutual, negotiated };
        Ok(Self { session, proof })
    }
}

/// `TLSv1_3` as people write it.
fn version(name: &'static str) -> &'static str {
    match name {
        "TLSv1_3" => "TLSv1.3",
        "TLSv1_2" => "TLSv1.2",
        other => other,
    }
}

impl PeerCertificates {
    fn new(chain: Vec<CertificateDer<'static>>, role: Role, judged: &Judged) -> Self {
        let (fingerprint, chain) = chains::shared(chain);
        let Judged { validity, unrevoked, .. } = *judged;
        Self { fingerprint, chain, role, shown: UnixTime::now(), validity, unrevoked }
    }

    /// SHA-256 of the whole chain.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn chain(&self) -> Option<PeerChain<'_>> {
        let (leaf, intermediates) = self.chain.split_first()?;
        Some(PeerChain { leaf, intermediates })
    }

    /// Judges the peer again, by what is believed now. That its certificate has expired meanwhile does not
    /// count: a session outlives it, unless it is told not to.
    ///
    /// # Errors
    /// Why it would not be believed now.
    pub fn judge_again(&self, judge: &Judge) -> Result<PeerId, Refusal> {
        let chain = self.chain().ok_or(Refusal::Anonymous)?;
        judge.judge(chain, self.role, self.shown).map(|peer| peer.id)
    }

    /// When the first of the certificates expires that the peer was believed by, the authority's among them.
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

/// What is too far away to be told is now.
fn end(validity: Validity) -> SystemTime {
    let end = Duration::from_secs(validity.end().as_secs());
    SystemTime::UNIX_EPOCH.checked_add(end).unwrap_or(SystemTime::UNIX_EPOCH)
}
